"""Find and delete manifests of the private registry that no kept release set needs.

Deleting a manifest deletes all its tags, so a manifest stays if any kept image has its digest in
the same repository. Signatures and other artifacts of a kept image stay with it.
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
_SUBJECT_TAG: Final = re.compile(r"(sha256)-([0-9a-f]{64})(?:\.[a-z]+)?")
"""Tags of signatures and of lists of referrers contain the digest of their subject."""


@dataclass(frozen=True, slots=True)
class ObsoleteManifest:
    """A manifest that no kept image needs.

    Attributes:
        tags: its tags; empty for a platform's manifest of an obsolete index.
    """

    repository: ImageRef
    digest: str
    tags: tuple[str, ...]

    @property
    def ref(self) -> ImageRef:
        return ImageRef(self.repository.host, self.repository.path, "", self.digest)

    def format_line(self) -> str:
        """Return the manifest and its tags as a line for people."""
        names = ", ".join(self.tags) or "untagged"
        return f"{self.repository}@{self.digest} ({names})"


@dataclass(frozen=True, slots=True)
class PruneFindings:
    """The manifests that can be deleted.

    Attributes:
        looked_at: number of repositories that were searched.
        kept: number of images that stay, by repository and digest.
        note: why not all repositories were searched; or empty.
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
    """Search the private registry for manifests that nothing kept needs.

    Args:
        prefix: only repositories below it belong to kfdeploy. Without a prefix only the
            repositories that a kept lock names are searched: the others may be anybody's.
        kept: the items of all locks and release sets that are kept.

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
    for _, manifests in parallel.run_in_threads(scan_path, paths, JOBS, client.close):
        found += manifests
    found.sort(key=lambda m: (str(m.repository), not m.tags, m.tags, m.digest))
    return PruneFindings(tuple(found), len(paths), sum(map(len, wanted.values())), note)


def delete_manifests(
    client: RegistryClient,
    obsolete: Iterable[ObsoleteManifest],
    on_deleted: Callable[[ObsoleteManifest], None],
) -> list[UserError]:
    """Delete manifests in the given order, and return an error for each that failed.

    `find_obsolete` sorts indexes before the manifests they list. An error that every further
    request would get as well ends the loop.
    """
    failures: list[UserError] = []
    for manifest in obsolete:
        try:
            catalog.delete_manifest(client, manifest.ref)
        except RegistryError as error:
            failures.append(error)
            if error.final or error.kind in {"refused", "nonsense"}:
                break
        else:
            on_deleted(manifest)
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
    """Tell whether prune may search a repository.

    Published release sets stay: no lock says which of them a cluster follows.
    """
    return path.startswith(prefix + "/") and path != f"{prefix}/{REPOSITORY}"


def _scan_repository(
    client: RegistryClient, repository: ImageRef, wanted: set[str]
) -> list[ObsoleteManifest]:
    seen: dict[str, list[str]] = {}
    for tag in catalog.list_tags(client, repository):
        digest = client.get_digest(ImageRef(repository.host, repository.path, tag))
        if digest is not None:
            seen.setdefault(digest, []).append(tag)
    obsolete = seen.keys() - wanted
    if not obsolete:
        return []
    needed = wanted | {
        child for digest in wanted for child in _list_children(client, repository, digest)
    }
    for digest in sorted(obsolete):
        subjects = [f"{m[1]}:{m[2]}" for tag in seen[digest] if (m := _SUBJECT_TAG.fullmatch(tag))]
        if any(subject in needed for subject in subjects):
            needed |= {digest, *_list_children(client, repository, digest)}
    obsolete -= needed
    found = {
        digest: ObsoleteManifest(repository, digest, tuple(sorted(seen[digest])))
        for digest in obsolete
    }
    for digest in sorted(obsolete):
        for child in _list_children(client, repository, digest):
            if child not in needed and child not in found:
                found[child] = ObsoleteManifest(repository, child, ())
    return list(found.values())


def _list_children(client: RegistryClient, repository: ImageRef, digest: str) -> tuple[str, ...]:
    """Return the digests that an index lists; empty if it is absent or is not an index."""
    try:
        manifest = client.get_manifest(ImageRef(repository.host, repository.path, "", digest))
    except RegistryError as error:
        if error.kind != "gone":
            raise
        return ()
    return tuple(child.digest for child in manifest.children)
