"""Go programs to look into: our own small one, and a real operator; built once a machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DATA, ROOT

sys.path.append(str(ROOT / "hack"))  # the set-up's own modules, as it imports them itself

import setup

SOURCE = DATA / "goprogram"


def small(arch: str = "amd64", *, stripped: bool = True, pie: bool = False) -> Path:
    """The program of tests/data/goprogram for an architecture."""
    try:
        go = setup.find_go((SOURCE / "go.mod").read_text())
    except setup.SetupError as error:
        pytest.skip(f"no Go: {error}")
    version = setup.run([go, "env", "GOVERSION"], cwd=Path("/"), env={"GOTOOLCHAIN": "local"})
    flags = ["-ldflags", "-s -w"] if stripped else []
    flags += ["-buildmode=pie"] if pie else []
    content = [(SOURCE / name).read_bytes() for name in ("main.go", "go.mod")]
    key = setup.digest(*content, version, arch, *flags)
    folder = setup.cache_folder() / f"test-program-{key}"
    program = folder / "operator"
    if not program.exists():
        env = {"CGO_ENABLED": "0", "GOARCH": arch, "GOOS": "linux", "GOFLAGS": "-trimpath"}
        env |= {"GOTOOLCHAIN": "local", "GOWORK": "off"}
        with setup.filled_at_once(folder) as new:
            setup.run([go, "build", *flags, "-o", new / "operator", "."], cwd=SOURCE, env=env)
    return program


def training_operator() -> Path:
    """Kubeflow's training operator 1.9.2, built by the set-up from its module."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "hack" / "setup.py"), "training-operator"],
        env={**os.environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"the training operator can't be built here: {done.stderr.strip()}")
    return ROOT / ".tools" / "bin" / "training-operator"
