"""`python -m kfdeploy.cli`, where there is no `kfdeploy` on PATH."""

from kfdeploy.cli import main

main()
