"""A release set as it is read back from its folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kfdeploy.checksums import SUMS_FILE, InvalidChecksums, parse_checksums
from kfdeploy.errors import UserError
from kfdeploy.files import read_bytes, read_text, sha256_hex
from kfdeploy.json_object import InvalidJson
from kfdeploy.kubernetes.objects import Object, split_objects
from kfdeploy.releaseset import format
from kfdeploy.releaseset.summary import (
    SUMMARY_FILE,
    ReleaseSummary,
    SetSummary,
    parse_summary,
)


@dataclass(frozen=True)
class SetRelease:
    """One Helm release of a set.

    Attributes:
        needs: names of releases that come before it.
        wait: it is done only when its workloads are ready.
        wave: 0 for a release that needs nothing.
        objects: all but CRDs, in the set's order; parsed when they are read.
        digest: `format.release_digest` of it, which its chart names.
    """

    name: str
    component: str
    needs: tuple[str, ...]
    wait: bool
    wave: int
    objects: tuple[Object, ...]
    crds: tuple[Object, ...]
    digest: str


@dataclass(frozen=True)
class SetFolder:
    """A release set: its folder, and its summary. Its objects are read when they are asked for."""

    folder: Path
    summary: SetSummary

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def digest(self) -> str:
        """sha256 of ``SHA256SUMS``, in hex; two sets with the same digest are the same."""
        return sha256_hex(read_bytes(self.folder / SUMS_FILE))

    @cached_property
    def releases(self) -> tuple[SetRelease, ...]:
        """The releases with their objects, in an order in which they can be installed."""
        return tuple(map(self._read_release, self.summary.releases))

    def _read_release(self, release: ReleaseSummary) -> SetRelease:
        name = release.name
        manifests, crds = f"charts/{name}/charts/objects/objects.yaml", f"crds/{name}.yaml"
        text = read_text(self.folder / manifests)
        crd_text = read_text(self.folder / crds) if release.crd_count else ""
        return SetRelease(
            name=name,
            component=release.component,
            needs=release.needs,
            wait=release.wait,
            wave=self.summary.wave_of.get(name, 0),
            objects=tuple(split_objects(text, f"{self.name}/{manifests}")),
            crds=tuple(split_objects(crd_text, f"{self.name}/{crds}")),
            digest=format.release_digest(text, crd_text),
        )

    def list_alterations(self) -> Iterator[str]:
        """Yield what is not as ``SHA256SUMS`` lists it; nothing for a set as it was rendered."""
        path = self.folder / SUMS_FILE
        if not path.is_file():
            yield f"{SUMS_FILE} is missing"
            return
        try:
            listed = parse_checksums(read_bytes(path))
        except InvalidChecksums as error:
            yield f"{SUMS_FILE}: {error}"
            return
        files = (file for file in self.folder.rglob("*") if file.is_file())
        there = {file.relative_to(self.folder).as_posix() for file in files} - {SUMS_FILE}
        for name in sorted(listed.keys() | there):
            if name not in there:
                yield f"{name} is missing"
            elif name not in listed:
                yield f"{name} is not part of the set"
            elif sha256_hex(read_bytes(self.folder / name)) != listed[name]:
                yield f"{name} was changed"


def open_set(folder: Path) -> SetFolder:
    """Open a release set and read its summary.

    Raises:
        UserError: the folder is not a release set, or its summary is damaged.
    """
    path = folder / SUMMARY_FILE
    if not path.is_file():
        raise UserError(
            f"{folder.name}: not a release set: it has no {SUMMARY_FILE}",
            hint="`kfdeploy render` writes one",
        )
    try:
        return SetFolder(folder, parse_summary(read_text(path)))
    except InvalidJson as error:
        raise UserError(
            f"{folder.name}/{SUMMARY_FILE}: {error}",
            hint="run `kfdeploy render`, or carry the set here again",
        ) from error
