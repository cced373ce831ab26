"""Programs that only a few tests want: built when one asks, into the cache of all checkouts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def build_on_request(name: str) -> Path:
    """The program ``name`` of the set-up; its first build takes minutes.

    Skips the test where it can't be built, with the reason.
    """
    setup = [sys.executable, str(ROOT / "hack" / "setup.py"), name]
    done = subprocess.run(setup, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{name} can't be built here: {done.stderr.strip()}")
    return (ROOT / ".tools" / "bin" / name).resolve()
