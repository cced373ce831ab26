"""Flux and Argo CD as tests have them: Flux's own packages as a program, and both one's CRDs.

Nothing of them is in this repository: the Go module proxy has them, and what was built or taken is
kept in the set-up's cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import DATA, ROOT
from tests.support.services import only_one

sys.path.append(str(ROOT / "hack"))  # the set-up's own modules, as it imports them itself

import setup

SOURCE: Final = DATA / "flux"
_CRDS: Final = (
    ("github.com/argoproj/argo-cd/v3", "v3.5.2", "manifests/crds/application-crd.yaml"),
    (
        "github.com/fluxcd/kustomize-controller",
        "v1.9.4",
        "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml",
    ),
    (
        "github.com/fluxcd/source-controller",
        "v1.9.4",
        "config/crd/bases/source.toolkit.fluxcd.io_gitrepositories.yaml",
    ),
    (
        "github.com/fluxcd/source-controller",
        "v1.9.4",
        "config/crd/bases/source.toolkit.fluxcd.io_ocirepositories.yaml",
    ),
)
_GO_ENV: Final = {"GOTOOLCHAIN": "local", "GOWORK": "off"}


def flux() -> Path:
    """The program of tests/data/flux; its first build takes minutes."""
    go = _go((SOURCE / "go.mod").read_text())
    sources = sorted(SOURCE.glob("*"))
    key = setup.digest(*(path.read_bytes() for path in sources))
    folder = setup.cache_folder() / f"test-flux-{key}"
    with only_one(folder):
        if not folder.is_dir():
            env = {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath -mod=readonly", **_GO_ENV}
            try:
                with setup.filled_at_once(folder) as new:
                    build: setup.Argv = [go, "build", "-ldflags", "-s -w", "-o", new / "flux", "."]
                    setup.run(build, cwd=SOURCE, env=env)
            except setup.SetupError as error:
                pytest.skip(f"Flux's packages can't be built here: {error}")
    return folder / "flux"


def crds() -> list[Path]:
    """The definitions of Application, Kustomization, GitRepository and OCIRepository."""
    go = _go("go 1.26.0\n")
    folder = setup.cache_folder() / f"test-crds-{setup.digest(*map(str, _CRDS))}"
    with only_one(folder):
        if not folder.is_dir():
            try:
                with setup.filled_at_once(folder) as new:
                    for module, version, path in _CRDS:
                        found = setup.run(
                            [go, "mod", "download", "-json", f"{module}@{version}"],
                            cwd=Path("/"),
                            env=_GO_ENV,
                        )
                        text = (Path(json.loads(found)["Dir"]) / path).read_bytes()
                        (new / Path(path).name).write_bytes(text)
            except setup.SetupError as error:
                pytest.skip(f"the engines' modules are not to be had here: {error}")
    return sorted(folder.iterdir())


def _go(go_mod: str) -> Path:
    try:
        return Path(setup.find_go(go_mod))
    except setup.SetupError as error:
        pytest.skip(f"no Go: {error}")


def run(program: Path, *arguments: str | Path) -> str:
    """What the program prints; a failure fails the test."""
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def health(program: Path, expression: str, body: Mapping[str, Any], folder: Path) -> str:
    """What Flux makes of an object by ``spec.healthCheckExprs``; ``error`` where it can't tell."""
    file = folder / "object.json"
    file.write_text(json.dumps(body))
    done = subprocess.run(
        [program, "health", expression, str(file)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else "error"
