"""Helmfile, for what only Helmfile can do."""

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
    """Helmfile's version.

    Raises:
        UserError: not on PATH, or older than `OLDEST`.
    """
    # `helmfile version` would ask the internet for a newer one, and fail without it.
    said = run_program(["helmfile", "--version"], timeout=60).stdout.decode()
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
    found = tuple(map(int, match.groups())) if match else (0, 0, 0)
    if found < OLDEST:
        raise UserError(
            f"helmfile is {said.strip()}; {OLDEST[0]}.{OLDEST[1]} or later is needed",
            hint="`kfdeploy doctor` says how to install a newer one",
        )
    return (found[0], found[1], found[2])


def fill_template(file: Path, values: Mapping[str, Any], environment: str) -> str:
    """What a ``.gotmpl`` file becomes, as YAML; its paths are relative to its folder.

    Args:
        values: Helmfile's ``.Values``.

    Raises:
        UserError: Helmfile is missing, or refuses the template; in its own words.
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
_WORDS_MAX: Final = 12


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
    """Install or upgrade releases of a set; what they need is taken to be there.

    Args:
        on_line: what Helmfile, Helm and kubectl say.
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
    """Why a release failed, out of what Helmfile said: what the program itself had to say."""
    starts = [n for n, line in enumerate(lines) if _FAILED.search(line)]
    for n in starts:
        match = _FAILED.search(lines[n])
        if match is None or match[1] != release:
            continue
        end = next((other for other in starts if other > n), len(lines))
        block = [line.strip() for line in lines[n:end]]
        if "STDERR:" in block:
            said = block[block.index("STDERR:") + 1 :]
            stop = next(
                (k for k, line in enumerate(said) if not line or line.endswith("OUTPUT:")), None
            )
            # Helm 4 logs an error before it says it.
            plain = [line for line in said[:stop] if line and not line.startswith("level=")]
            return (plain or said[:stop])[-_WORDS_MAX:]
        return [line for line in block if line][:_WORDS_MAX]
    return []
