"""What the private registry has of us that no kept release set needs any more.

A manifest is looked at by its digest: deleting it takes all its tags along, so one that any kept
image has in the same repository stays. What belongs to a kept image (signatures) stays with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy import parallel
from kfdeploy.errors import UserError
from kfdeploy.mirror.plan import MirrorItem
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry import catalog
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.releaseset.artifact import REPOSITORY

JOBS: Final = 8
_ABOUT: Final = re.compile(r"(sha256)-([0-9a-f]{64})(?:\.[a-z]+)?")
"""The tags of signatures and of lists of referrers name the digest they are about."""


@dataclass(frozen=True, slots=True)
class ObsoleteManifest:
    """A manifest that nothing kept needs.

    Attributes:
        tags: its tags; none for a platform's manifest of an index that goes.
    """

    repository: ImageRef
    digest: str
    tags: tuple[str, ...]

    @property
    def ref(self) -> ImageRef:
        return ImageRef(self.repository.host, self.repository.path, "", self.digest)

    def format_line(self) -> str:
        """For people."""
        names = ", ".join(self.tags) or "untagged"
        return f"{self.repository}@{self.digest} ({names})"


@dataclass(frozen=True, slots=True)
class PruneFindings:
    """What could go.

    Attributes:
        looked_at: repositories.
        kept: images that stay, by repository and digest.
        note: why not all repositories were looked at; or empty.
    """

    obsolete: tuple[ObsoleteManifest, ...]
    looked_at: int
    kept: int
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "obsolete": self.obsolete,
            "repositories": self.looked_at,
            "kept": self.kept,
            "note": self.note,
        }


def find_obsolete(
    client: RegistryClient, host: str, prefix: str, kept: Iterable[MirrorItem]
) -> PruneFindings:
    """Look through the private registry.

    Args:
        prefix: only repositories below it are ours. Without one, only those that a kept lock names
            are looked at: others may be anybody's.
        kept: all that the kept release sets need.

    Raises:
        UserError: the registry can't be asked.
    """
    wanted: dict[str, set[str]] = {}
    for item in kept:
        wanted.setdefault(item.repository.path, set()).add(item.digest)
    paths, note = _list_repositories(client, host, prefix, wanted)

    def scan_path(path: str) -> list[ObsoleteManifest]:
        return _scan_repository(client, ImageRef(host, path), wanted.get(path, set()))

    found: list[ObsoleteManifest] = []
    for _, some in parallel.run_in_threads(scan_path, paths, JOBS, client.close):
        found += some
    found.sort(key=lambda one: (str(one.repository), not one.tags, one.tags, one.digest))
    return PruneFindings(tuple(found), len(paths), sum(map(len, wanted.values())), note)


def delete_manifests(
    client: RegistryClient,
    obsolete: Iterable[ObsoleteManifest],
    on_deleted: Callable[[ObsoleteManifest], None],
) -> list[UserError]:
    """Delete what was found; indexes before the manifests they name. Returns what went wrong."""
    failures: list[UserError] = []
    for one in obsolete:
        try:
            catalog.delete_manifest(client, one.ref)
        except RegistryError as error:
            failures.append(error)
            if error.final or error.kind in {"refused", "nonsense"}:
                break
        else:
            on_deleted(one)
    return failures


def _list_repositories(
    client: RegistryClient, host: str, prefix: str, wanted: Iterable[str]
) -> tuple[list[str], str]:
    if not prefix:
        note = (
            "registries.private.prefix is empty, so only repositories that a lock here names were"
            " looked at"
        )
        return sorted(wanted), note
    try:
        below = [
            path for path in catalog.list_repositories(client, host) if _is_below(path, prefix)
        ]
    except catalog.CatalogUnavailable as error:
        note = (
            "the registry does not list its repositories, so only those that a lock here names were"
            f" looked at ({error.message})"
        )
        return sorted(wanted), note
    return sorted(below), ""


def _is_below(path: str, prefix: str) -> bool:
    """Published release sets stay: no lock says which of them a cluster follows."""
    return path.startswith(prefix + "/") and path != f"{prefix}/{REPOSITORY}"


def _scan_repository(
    client: RegistryClient, repository: ImageRef, wanted: set[str]
) -> list[ObsoleteManifest]:
    seen: dict[str, list[str]] = {}
    for tag in catalog.list_tags(client, repository):
        digest = client.get_digest(ImageRef(repository.host, repository.path, tag))
        if digest is not None:
            seen.setdefault(digest, []).append(tag)
    goes = {digest for digest in seen if digest not in wanted}
    if not goes:
        return []
    stays = wanted | {
        child for digest in wanted for child in _list_children(client, repository, digest)
    }
    for digest in sorted(goes):
        subjects = [f"{m[1]}:{m[2]}" for tag in seen[digest] if (m := _ABOUT.fullmatch(tag))]
        if any(subject in stays for subject in subjects):
            stays |= {digest, *_list_children(client, repository, digest)}
    goes -= stays
    found = {
        digest: ObsoleteManifest(repository, digest, tuple(sorted(seen[digest]))) for digest in goes
    }
    for digest in sorted(goes):
        for child in _list_children(client, repository, digest):
            if child not in stays and child not in found:
                found[child] = ObsoleteManifest(repository, child, ())
    return list(found.values())


def _list_children(client: RegistryClient, repository: ImageRef, digest: str) -> tuple[str, ...]:
    """What an index at the registry names; nothing for what is not there or is no index."""
    try:
        manifest = client.get_manifest(ImageRef(repository.host, repository.path, "", digest))
    except RegistryError as error:
        if error.kind != "gone":
            raise
        return ()
    return tuple(child.digest for child in manifest.children)
