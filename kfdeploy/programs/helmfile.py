"""Run Helmfile, for what only Helmfile can do."""

from __future__ import annotations

import json
import re
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from kfdeploy.errors import UserError
from kfdeploy.programs.process import ProgramFailed, run_program, stream_output

OLDEST: Final = (1, 1)
_TIMEOUT = 120.0


@lru_cache(maxsize=1)
def require_version() -> tuple[int, int, int]:
    """Return Helmfile's version.

    Raises:
        UserError: Helmfile is not on PATH, or older than `OLDEST`.
    """
    # `helmfile version` would ask the internet for a newer one, and fail without it.
    output = run_program(["helmfile", "--version"], timeout=60).stdout.decode()
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", output)
    found = tuple(map(int, match.groups())) if match else (0, 0, 0)
    if found < OLDEST:
        raise UserError(
            f"helmfile is {output.strip()}; {OLDEST[0]}.{OLDEST[1]} or later is needed",
            hint="`kfdeploy doctor` says how to install a newer one",
        )
    return (found[0], found[1], found[2])


def fill_template(file: Path, values: Mapping[str, Any], environment: str) -> str:
    """Return the YAML that a ``.gotmpl`` file makes; its paths are relative to its folder.

    Args:
        values: Helmfile's ``.Values``.

    Raises:
        UserError: Helmfile is missing, or fails; with its own message.
    """
    require_version()
    with tempfile.TemporaryDirectory(prefix="kfdeploy-") as folder:
        root = Path(folder)
        out = root / "filled.yaml"
        (root / "values.yaml").write_text(json.dumps(values), encoding="utf-8")
        (root / "helmfile.yaml").write_text(
            f"environments:\n  {json.dumps(environment)}:\n    values: [values.yaml]\n---\n"
            "releases:\n- name: patch\n  chart: ./none\n  values:\n"
            f"  - {json.dumps(str(file.resolve()))}\n",
            encoding="utf-8",
        )
        try:
            argv: list[str | Path] = ["helmfile", "-f", root / "helmfile.yaml", "-e", environment]
            run_program(
                [*argv, "write-values", "--output-file-template", out],
                timeout=_TIMEOUT,
                what=file.name,
            )
            return out.read_text(encoding="utf-8")
        except ProgramFailed as error:
            raise UserError(
                f"{file.name}: Helmfile can't fill it: {error.stderr.strip()[-600:]}"
            ) from error


_FAILED = re.compile(r"failed processing release (\S+?):")
_LINES_MAX: Final = 12


def sync_releases(
    folder: Path,
    releases: Sequence[str],
    on_line: Callable[[str], None],
    *,
    seconds: float,
    jobs: int,
    flags: Sequence[str],
    cancelled: threading.Event | None = None,
) -> None:
    """Install or upgrade releases of a set. What they need must be installed already.

    Args:
        on_line: called with each line that Helmfile, Helm and kubectl write.
        seconds: for which Helm waits for workloads.
        jobs: Helm processes at a time.
        flags: of ``helm upgrade``.
        cancelled: Helmfile and what it has started are stopped when it is set.

    Raises:
        UserError: Helmfile is missing.
        ProgramFailed: a release failed.
        KeyboardInterrupt: it was cancelled.
    """
    argv: list[str | Path] = ["helmfile", "-f", folder / "helmfile.yaml", "--no-color"]
    for name in releases:
        argv += ["-l", f"name={name}"]
    argv += ["sync", f"--timeout={seconds:.0f}", f"--concurrency={jobs}"]
    if flags:
        argv += ["--sync-args", " ".join(flags)]
    env = {"HELMFILE_UPGRADE_NOTICE_DISABLED": "true", "KUBERC": "off"}
    stream_output(argv, on_line, env=env, what="helmfile sync", guarded=True, cancelled=cancelled)


def extract_failure(release: str, lines: Sequence[str]) -> list[str]:
    """Return the lines of Helmfile's output that say why a release failed: those of helm itself."""
    block = _find_failure_block(release, lines)
    if "STDERR:" not in block:
        return [line for line in block if line][:_LINES_MAX]
    stderr = block[block.index("STDERR:") + 1 :]
    ends = (n for n, line in enumerate(stderr) if not line or line.endswith("OUTPUT:"))
    stderr = stderr[: next(ends, None)]
    # Helm 4 logs an error before it prints it.
    printed = [line for line in stderr if line and not line.startswith("level=")]
    return (printed or stderr)[-_LINES_MAX:]


def _find_failure_block(release: str, lines: Sequence[str]) -> list[str]:
    """Return what Helmfile prints about a release that failed; nothing for one that did not."""
    failed = {n: match[1] for n, line in enumerate(lines) if (match := _FAILED.search(line))}
    start = next((n for n, name in failed.items() if name == release), None)
    if start is None:
        return []
    end = next((n for n in failed if n > start), len(lines))
    return [line.strip() for line in lines[start:end]]
