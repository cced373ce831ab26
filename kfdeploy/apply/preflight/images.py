"""Check that the private registry has a set's images, for the platforms of the cluster's nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal, NamedTuple

from kfdeploy import parallel
from kfdeploy.apply.preflight.finding import PreflightFinding, Severity
from kfdeploy.images.lockfile import Lock
from kfdeploy.oci.manifest import matches_platform
from kfdeploy.oci.reference import ImageRef, WrittenRef
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.releaseset.summary import SetSummary

CHECK: Final = "image"
_JOBS: Final = 8
_OS_VERSION = re.compile(r"\(.*?\)")
"""The version in ``windows(10.0.17763)/amd64``."""


@dataclass(frozen=True, slots=True)
class _MirroredImage:
    ref: WrittenRef
    mirror: ImageRef
    by_tag: ImageRef | None
    platforms: Mapping[str, str]


_Problem = Literal["missing", "other", "broken", "never", "partly"]


class _ImageProblem(NamedTuple):
    """One problem of an image: its kind, and the reference or digest that has it."""

    kind: _Problem
    where: str


def check_images(
    summary: SetSummary, lock: Lock, client: RegistryClient, nodes: Sequence[str]
) -> Iterator[PreflightFinding]:
    """Check each mirrored image by its digest, and the manifests of it that nodes will pull.

    Args:
        lock: the set's lock, which has the platforms of its images.
        nodes: ``os/arch`` of the nodes that take pods; empty if they are not known.
    """
    images = list(_list_images(summary, lock))
    problems: dict[_Problem, list[str]] = {}
    errors: dict[str, RegistryError] = {}

    def check_image(image: _MirroredImage) -> list[_ImageProblem] | RegistryError:
        try:
            return list(_find_problems(image, client, nodes))
        except RegistryError as error:
            return error

    for _, answer in parallel.run_in_threads(check_image, images, _JOBS, client.close):
        if isinstance(answer, RegistryError):
            errors.setdefault(answer.message, answer)
            continue
        for problem in answer:
            problems.setdefault(problem.kind, []).append(problem.where)
    for message, error in sorted(errors.items()):
        yield PreflightFinding(CHECK, "error", message, hint=error.hint or "")
    for kind, (severity, text, hint) in _TEXTS.items():
        if where := sorted(problems.get(kind, ())):
            subject = "an image is" if len(where) == 1 else f"{len(where)} images are"
            yield PreflightFinding(CHECK, severity, f"{subject} {text}", tuple(where), hint)
    if not errors and not problems.keys() - {"partly"}:
        platforms = f" for {', '.join(nodes)}" if nodes else ""
        text = f"{len(images)} images are in the private registry{platforms}"
        yield PreflightFinding(CHECK, "ok", text)


_MIRROR: Final = "run `kfdeploy mirror`"
_TEXTS: Final[Mapping[_Problem, tuple[Severity, str, str]]] = {
    "missing": ("error", "not in the private registry", _MIRROR),
    "other": ("error", "in the private registry with another digest than in images.lock", _MIRROR),
    "broken": (
        "error",
        "in the private registry without the manifests that the nodes pull",
        f"{_MIRROR}; if it finds nothing to do, the registry has lost data",
    ),
    "never": (
        "error",
        "not for any platform of the nodes",
        "substitute an image that is (images.substitutes), or leave its component out",
    ),
    "partly": (
        "warning",
        "not for all platforms of the nodes",
        "pods on the other nodes fail: keep them away by a node selector or a taint",
    ),
}


def _list_images(summary: SetSummary, lock: Lock) -> Iterator[_MirroredImage]:
    for ref, image in sorted(summary.images.items()):
        if image.is_mirrored:
            locked = lock.by_id.get(ref)
            platforms = locked.platforms if locked else {}
            yield _MirroredImage(ref, image.mirror, image.by_tag, platforms)


def _find_problems(
    image: _MirroredImage, client: RegistryClient, nodes: Sequence[str]
) -> Iterator[_ImageProblem]:
    digest = image.mirror.digest
    mirrored = _with_digest(image.mirror, digest) if digest else image.mirror
    for ref in (mirrored, *([image.by_tag] if image.by_tag and digest else ())):
        found = client.get_digest(ref)
        if found is None or (digest and found != digest):
            yield _ImageProblem("missing" if found is None else "other", str(ref))
            return
    if nodes:
        yield from _find_platform_problems(image, mirrored, client, nodes)


def _find_platform_problems(
    image: _MirroredImage, mirrored: ImageRef, client: RegistryClient, nodes: Sequence[str]
) -> Iterator[_ImageProblem]:
    """Find platforms of the nodes that an image is not for, and manifests that are missing."""
    platforms = image.platforms or _read_platforms(client, mirrored)
    matching = {node: _find_matching_digests(node, platforms) for node in nodes}
    lacking = [node for node, digests in matching.items() if not digests]
    if platforms and lacking:
        has = f"for {', '.join(sorted(platforms))}, not for {', '.join(lacking)}"
        kind: _Problem = "never" if len(lacking) == len(nodes) else "partly"
        yield _ImageProblem(kind, f"{image.mirror}: {has}")
    for child in sorted({*chain(*matching.values())} - {image.mirror.digest}):
        if client.get_digest(_with_digest(image.mirror, child)) is None:
            yield _ImageProblem("broken", f"{image.mirror}: {child}")


def _read_platforms(client: RegistryClient, ref: ImageRef) -> dict[str, str]:
    """Return an index's platforms and their digests; none for a single manifest."""
    manifest = client.get_manifest(ref)
    children = manifest.children if manifest.is_index else ()
    return {child.platform: child.digest for child in children if child.platform}


def _find_matching_digests(node: str, platforms: Mapping[str, str]) -> list[str]:
    return [
        digest
        for platform, digest in platforms.items()
        if matches_platform(_OS_VERSION.sub("", platform), (node,))
    ]


def _with_digest(ref: ImageRef, digest: str) -> ImageRef:
    return ImageRef(ref.host, ref.path, "", digest)
