"""The commands: each gathers, calls a stage, writes and prints.

Stages are imported by the commands that need them: `kfdeploy --help` starts at once.
"""

from __future__ import annotations

import sys
from typing import NoReturn

# First, so that ^C while modules are read is answered as later.
from kfdeploy import terminal


def main() -> NoReturn:
    """Run the command line."""
    terminal.run_command(_run_command)


def _run_command() -> int:
    from kfdeploy.cli import mirror_fast_path

    if (noted := mirror_fast_path.find_cached_mirror(sys.argv[1:])) is not None:
        if noted.cached_output is not None:
            sys.stdout.write(noted.cached_output)
            return 0
        from kfdeploy.cli import mirroring

        if (code := mirroring.mirror_from_cache(noted)) is not None:
            return code
    # In the order in which help lists their commands.
    from kfdeploy.cli import workspace, images, sets, apply, changes  # noqa: F401  # isort: skip
    from kfdeploy.cli import publish, export, machine  # noqa: F401  # isort: skip
    from kfdeploy.cli.common import app

    return app(standalone_mode=False) or 0
