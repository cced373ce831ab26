"""The command line: each command gathers its input, calls a package, writes and prints.

`report` makes text of results. The packages are imported inside the commands that need them, so
that `kfdeploy --help` starts at once (tests/cli/test_start.py). No other package may know this one.
"""

from __future__ import annotations

import sys
from typing import NoReturn

# First, so that ^C during the imports below prints no traceback.
from kfdeploy import terminal


def main() -> NoReturn:
    """Run the command line."""
    terminal.run_command(_run_command)


def _run_command() -> int:
    from kfdeploy.cli import mirror_fast_path

    if (cached := mirror_fast_path.find_cached_mirror(sys.argv[1:])) is not None:
        if cached.cached_output is not None:
            sys.stdout.write(cached.cached_output)
            return 0
        from kfdeploy.cli import mirroring

        if (code := mirroring.mirror_from_cache(cached)) is not None:
            return code
    # In the order in which help lists their commands; groups of commands come last.
    from kfdeploy.cli import workspace, images, sets, apply, changes  # noqa: F401  # isort: skip
    from kfdeploy.cli import publish, export, machine  # noqa: F401  # isort: skip
    from kfdeploy.cli.common import app

    return app(standalone_mode=False) or 0
