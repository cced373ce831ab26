"""Workspaces to measure in: a Kubeflow release, registries on loopback, and all steps done once."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from kfdeploy.kubernetes.objects import Object, split_objects
from kfdeploy.oci.reference import ImageRef, host_qualified_path
from kfdeploy.upstream import vendored
from kfdeploy.workspace import settings_file
from tests.bench.measure import BenchFailed, Place
from tests.bench.peers import Copy, copy_of
from tests.support.registries import serve_registry
from tests.support.standins import name_standin, push_standins

ROOT: Final = Path(__file__).resolve().parents[2]
RELEASES: Final = ("26.03", "1.10.2")
SMALL: Final = "small"
"""The project's own small upstream, for those who have no real one."""
KFDEPLOY: Final = str(Path(sys.executable).with_name("kfdeploy"))
_PREFIX: Final = "kubeflow"


@dataclass(frozen=True, slots=True)
class Upstream:
    """Kubeflow's manifests at a release, and folders that answer for remote bases."""

    name: str
    folder: Path
    ref: str
    remotes: Path


def upstreams() -> tuple[list[Upstream], str]:
    """The releases that are there, and what to say about those that aren't."""
    home = Path(os.environ.get("KFDEPLOY_UPSTREAMS") or ROOT.parent / "shared" / "upstream")
    found = [
        Upstream(ref, home / f"kubeflow-{ref}", ref, home / "remotes")
        for ref in RELEASES
        if (home / f"kubeflow-{ref}").is_dir()
    ]
    missing = [ref for ref in RELEASES if ref not in {upstream.ref for upstream in found}]
    if not missing:
        return found, ""
    note = (
        f"not there: {', '.join(f'kubeflow-{ref}' for ref in missing)}"
        " (KFDEPLOY_UPSTREAMS names the folder that has them)"
    )
    if found:
        return found, note
    data = ROOT / "tests" / "data"
    small = Upstream(SMALL, data / "upstream", "1.0.0", data / "remotes")
    return [small], f"{note}; measured on the project's own small upstream, which proves little"


@dataclass(frozen=True, slots=True)
class Registries:
    """HOST:PORT of what stands for the world, and of the private registry."""

    public: str
    private: str


@contextlib.contextmanager
def registries(work: Path) -> Iterator[Registries]:
    """Two empty registries until the block ends."""
    with (
        serve_registry(work / "public") as public,
        serve_registry(work / "private") as private,
    ):
        yield Registries(public.host, private.host)


@dataclass
class Site:
    """One release's workspace. What a benchmark needs is done when it is first asked for."""

    upstream: Upstream
    work: Path
    registries: Registries
    env: Mapping[str, str]
    _changes: Iterator[int] = field(default_factory=itertools.count)

    @property
    def folder(self) -> Path:
        return self.work / self.upstream.name

    @property
    def place(self) -> Place:
        return Place(self.folder, self.env)

    def kfdeploy(self, *arguments: str) -> float:
        """Seconds of ``kfdeploy ARGUMENTS``."""
        return self.place.seconds(KFDEPLOY, *arguments, "--quiet")

    def forget(self) -> None:
        """As after a fresh clone: no caches and no release sets."""
        for name in (".kfdeploy", "releases"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    @cached_property
    def vendored(self) -> Site:
        """With everything that `scan` needs."""
        _say(f"{self.upstream.name}: a workspace")
        Place(self.work, self.env).seconds(
            *(KFDEPLOY, "init", str(self.folder), "--upstream", str(self.upstream.folder)),
            *("--ref", self.upstream.ref, "--remotes", str(self.upstream.remotes)),
            *("--registry", f"{self.registries.private}/{_PREFIX}", "--quiet"),
        )
        self.kfdeploy("vendor")
        return self

    @cached_property
    def locked(self) -> Site:
        """With ``images.lock``, made from stand-ins in the public registry."""
        self.vendored  # noqa: B018  (does it)
        _say(f"{self.upstream.name}: stand-ins for its images, and a lock")
        refs = self.place.answer(KFDEPLOY, "scan", "--format", "refs", "--quiet").split()
        substitutes = {
            ref: name_standin(ref) for ref in push_standins(self.registries.public, refs)
        }
        push_standins(self.registries.public, substitutes.values())
        self._edit(substitutes)
        self.kfdeploy("lock")
        # `mirror` copies what is left: images whose target is not named by a tag of theirs.
        push_standins(
            self.registries.private, refs, lambda ref: f"{_PREFIX}/{host_qualified_path(ref)}"
        )
        return self

    @cached_property
    def mirrored(self) -> Site:
        """With all images in the private registry."""
        self.locked  # noqa: B018
        self.kfdeploy("mirror")
        return self

    @cached_property
    def rendered(self) -> Site:
        """With patches and a release set."""
        self.mirrored  # noqa: B018
        _say(f"{self.upstream.name}: patches and a release set")
        self.kfdeploy("patch")
        self.kfdeploy("render")
        return self

    def builds(self) -> list[list[str]]:
        """The kustomize builds that a scan must run, one command for each component."""
        settings = settings_file.read_workspace(self.vendored.folder).workspace
        components = settings.components
        kinds = {vendored.component_kind(self.folder, one) for one in components}
        if kinds != {"kustomization"}:
            raise BenchFailed(f"{self.upstream.name}: kustomizations alone are measured: {kinds}")
        # What kfdeploy itself calls it with.
        argv = ["kustomize", "build", "--load-restrictor", "LoadRestrictionsNone"]
        return [
            [*argv, str(vendored.component_dir(self.folder.resolve(), one))] for one in components
        ]

    def copies(self) -> list[Copy]:
        """Each image that `mirror` covers, by target."""
        import json

        plan = json.loads(
            self.mirrored.place.answer(KFDEPLOY, "mirror", "--dry-run", "--output", "json")
        )
        if plan["copy"]:
            raise BenchFailed(f"{len(plan['copy'])} images are still to copy after `mirror`")
        return [
            copy_of(item["from"], item["digest"], _pushed_to(item["to"]))
            for item in plan["present"]
        ]

    @contextlib.contextmanager
    def registries_at(self, hosts: Registries) -> Iterator[None]:
        """The workspace asks other hosts for the same registries until the block ends."""
        file = self.folder / "kfdeploy.yaml"
        text = file.read_text()
        moved = text.replace(self.registries.public, hosts.public)
        file.write_text(moved.replace(self.registries.private, hosts.private))
        try:
            yield
        finally:
            file.write_text(text)

    def change_a_patch(self) -> None:
        """A person's patch that is another one each time, for an object of the largest release."""
        component, item = self._largest
        key = item.key
        lines = [
            f"apiVersion: {key.api_version}",
            f"kind: {key.kind}",
            "metadata:",
            f"  name: {key.name}",
            *([f"  namespace: {key.namespace}"] if key.namespace else []),
            f'  annotations: {{bench: "{next(self._changes)}"}}',
        ]
        file = self.folder / "patches" / component / "bench.yaml"
        file.write_text("\n".join(lines) + "\n")

    @cached_property
    def _largest(self) -> tuple[str, Object]:
        found = {
            path.parts[-4]: path.read_text()
            for path in self.rendered.folder.glob("releases/*/charts/*/charts/objects/objects.yaml")
        }
        component = max(
            (name for name in found if (self.folder / "patches" / name).is_dir()),
            key=lambda name: len(found[name]),
        )
        return component, next(
            item for item in split_objects(found[component]) if item.key.kind == "Deployment"
        )

    def _edit(self, substitutes: Mapping[str, str]) -> None:
        from ruamel.yaml import YAML

        yaml = YAML()
        yaml.preserve_quotes = True
        yaml.width = 200
        file = self.folder / "kfdeploy.yaml"
        settings = yaml.load(file)
        settings["registries"]["sources"] = {"*": self.registries.public}
        images = settings.get("images") or {}
        images["substitutes"] = dict(substitutes)
        settings["images"] = images
        with file.open("w") as opened:
            yaml.dump(settings, opened)


def _pushed_to(reference: str) -> str:
    """The tag that a target is pushed to: its own, else ``digest-`` and its first 12 digits."""
    ref = ImageRef.parse(reference)
    return f"{ref.repository}:{ref.tag or 'digest-' + ref.digest.partition(':')[2][:12]}"


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)
