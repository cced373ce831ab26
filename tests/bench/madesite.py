"""A workspace whose images are the made set, and private registries that begin empty."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kfdeploy.oci.reference import ImageRef, host_qualified_path
from tests.bench.measure import BenchFailed, Place
from tests.bench.peers import Copy
from tests.bench.sites import KFDEPLOY
from tests.conftest import Runner, edit_workspace
from tests.support.madeset import MadeImage, MadeSet
from tests.support.reader import Wanted, read_registry
from tests.support.registries import Registry, serve_registry
from tests.support.workspaces import workspace_of

PREFIX: Final = "kubeflow"


@dataclass(slots=True)
class MadeSite:
    """A locked workspace.

    Attributes:
        images: what it names.
        public: HOST:PORT that has all of the set.
        work: for what is written on the way.
        private: HOST:PORT that images go to.
    """

    made: MadeSet
    images: Sequence[MadeImage]
    public: str
    folder: Path
    work: Path
    env: Mapping[str, str]
    private: str = ""

    @property
    def place(self) -> Place:
        return Place(self.folder, self.env)

    def kfdeploy(self, *arguments: str) -> float:
        """Seconds of ``kfdeploy ARGUMENTS``."""
        return self.place.seconds(KFDEPLOY, *arguments, "--quiet")

    def peak_of(self, *arguments: str) -> Callable[[], float]:
        """To measure the peak memory of ``kfdeploy ARGUMENTS`` itself, in MiB."""
        return lambda: self.place.peak(KFDEPLOY, *arguments, "--quiet")

    def goes_to(self, private: str, public: str = "") -> None:
        """The workspace's registries are these from now on."""
        sources = {"*": public or self.public}
        changes = {"registries.private.host": private, "registries.sources": sources}
        edit_workspace(self.folder, changes)
        self.private = private

    def copies(self) -> list[Copy]:
        """Each image, as another program would be told to copy it."""
        return [
            Copy(
                f"{self.public}/{host_qualified_path(ref)}",
                image.digest,
                f"{self.private}/{pushed_path(ref)}:{ref.tag}",
            )
            for image in self.images
            for ref in [ImageRef.parse(image.ref)]
        ]

    def mirrored(self, *options: str, read_blobs: bool = False) -> float:
        """Seconds of ``kfdeploy mirror``, after which all images are seen to be whole.

        Args:
            read_blobs: hash them too, which takes its time; that is not counted.

        Raises:
            BenchFailed: they are not, so whatever was measured means nothing.
        """
        seconds = self.kfdeploy("mirror", *options)
        refs = [(ImageRef.parse(image.ref), image.digest) for image in self.images]
        wanted = [Wanted(pushed_path(ref), ref.tag, digest) for ref, digest in refs]
        found = read_registry(self.private, wanted, read_blobs=read_blobs)
        if found.broken or found.absent:
            raise BenchFailed(f"after `mirror`: absent {found.absent}, broken {found.broken}")
        return seconds

    def rename(self, before: str, now: str) -> None:
        """Another reference in the upstream's objects, vendored and locked."""
        file = self.folder.parent / "up" / "apps" / "one" / "objects.yaml"
        text = file.read_text()
        if f"image: {before}\n" not in text:
            raise BenchFailed(f"{before} is not in the made workspace")
        file.write_text(text.replace(f"image: {before}\n", f"image: {now}\n"))
        self.kfdeploy("vendor")
        self.kfdeploy("lock")


@contextlib.contextmanager
def made_site(
    made: MadeSet, work: Path, env: Mapping[str, str], images: Iterable[MadeImage] | None = None
) -> Iterator[MadeSite]:
    """The workspace, and the registry that has the set, until the block ends.

    Args:
        work: where folders are made; they are gone afterwards.
        images: all of the set when left out.
    """
    chosen = list(made.images if images is None else images)
    base = work / "made"
    base.mkdir()
    try:
        with serve_registry(made.registry) as public:
            print(f"bench: a made workspace of {len(chosen)} images", file=sys.stderr, flush=True)
            folder = workspace_of(
                base / "workspace",
                Runner((KFDEPLOY,), env),
                [image.ref for image in chosen],
                public=public.host,
                private="private.test:5000",
                prefix=PREFIX,
            )
            yield MadeSite(made, chosen, public.host, folder, base, env)
    finally:
        shutil.rmtree(base, ignore_errors=True)


class Private:
    """A private registry that can be had anew."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()

    def anew(self) -> Registry:
        """An empty one; what was before is gone, and the disk has rest."""
        self.end()
        registry = self._stack.enter_context(serve_registry(self._folder / "data"))
        # What the one before has left to be written would slow down the next.
        os.sync()
        return registry

    def end(self) -> None:
        self._stack.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def private(folder: Path) -> Iterator[Private]:
    """Gone with all that it has when the block ends."""
    one = Private(folder)
    try:
        yield one
    finally:
        one.end()


def pushed_path(ref: ImageRef) -> str:
    """The repository of an image in the private registry."""
    return f"{PREFIX}/{host_qualified_path(ref)}"


def layout_names(layout: Path) -> dict[str, str]:
    """Digest to the name that the image has in an OCI image layout.

    Raises:
        BenchFailed: an image has none.
    """
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    key = "org.opencontainers.image.ref.name"
    if nameless := [one["digest"] for one in entries if key not in one.get("annotations", {})]:
        raise BenchFailed(f"{layout.name}: no {key} of {', '.join(nameless)}")
    return {one["digest"]: one["annotations"][key] for one in entries}


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
