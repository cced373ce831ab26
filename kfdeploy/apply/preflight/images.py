"""Whether the private registry has a set's images, for what the cluster's nodes run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy import parallel
from kfdeploy.apply.preflight.finding import PreflightFinding
from kfdeploy.errors import UserError
from kfdeploy.images.lockfile import Lock
from kfdeploy.oci.manifest import matches_platform
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.releaseset.summary import SetSummary

CHECK: Final = "image"
_JOBS: Final = 8
_VERSION = re.compile(r"\(.*?\)")
"""Of Windows: ``windows(10.0.17763)/amd64``."""


@dataclass(frozen=True, slots=True)
class _MirroredImage:
    ref: str
    mirror: ImageRef
    by_tag: ImageRef | None
    platforms: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _ImageProblems:
    """What is wrong with an image, a word and what it is about."""

    problems: tuple[tuple[str, str], ...] = ()


def check_images(
    summary: SetSummary, lock: Lock, client: RegistryClient, nodes: Sequence[str]
) -> Iterator[PreflightFinding]:
    """Each image that is to be mirrored, by its digest, with the manifests that nodes will pull.

    Args:
        lock: the set's, for the platforms of its images.
        nodes: ``os/arch`` of the nodes that take pods; empty where they are not known.
    """
    images = list(_list_images(summary, lock))
    wrong: dict[str, list[str]] = {}
    errors: dict[str, UserError] = {}

    def check_image(image: _MirroredImage) -> _ImageProblems | RegistryError:
        try:
            return _ImageProblems(tuple(_find_problems(image, client, nodes)))
        except RegistryError as error:
            return error

    for _, answer in parallel.run_in_threads(check_image, images, _JOBS, client.close):
        if isinstance(answer, RegistryError):
            errors.setdefault(answer.message, answer)
        else:
            for word, about in answer.problems:
                wrong.setdefault(word, []).append(about)
    for message, error in sorted(errors.items()):
        yield PreflightFinding(CHECK, "error", message, hint=error.hint or "")
    for word, (severity, text, hint) in _TEXTS.items():
        if found := sorted(wrong.get(word, ())):
            yield PreflightFinding(
                CHECK, severity, text.format(count=_format_count(found)), tuple(found), hint
            )
    if not errors and not wrong.keys() - {"partly"}:
        on = f" for {', '.join(nodes)}" if nodes else ""
        yield PreflightFinding(CHECK, "ok", f"{len(images)} images are in the private registry{on}")


_MIRROR: Final = "run `kfdeploy mirror`"
_TEXTS: Final[Mapping[str, tuple[Any, str, str]]] = {
    "missing": ("error", "{count} not in the private registry", _MIRROR),
    "other": ("error", "{count} another in the private registry than in images.lock", _MIRROR),
    "broken": (
        "error",
        "{count} in the private registry without what the nodes pull of it",
        f"{_MIRROR}; if it finds nothing to do, the registry has lost data",
    ),
    "never": (
        "error",
        "{count} not for any platform of the nodes",
        "substitute an image that is (images.substitutes), or leave its component out",
    ),
    "partly": (
        "warning",
        "{count} not for all platforms of the nodes",
        "pods that land on the others fail: a node selector or a taint keeps them away",
    ),
}


def _format_count(found: Sequence[str]) -> str:
    return "an image is" if len(found) == 1 else f"{len(found)} images are"


def _list_images(summary: SetSummary, lock: Lock) -> Iterator[_MirroredImage]:
    for ref, image in sorted(summary.images.items()):
        if image.is_mirrored:
            locked = lock.by_id.get(ref)
            platforms = locked.platforms if locked else {}
            yield _MirroredImage(ref, image.mirror, image.by_tag, platforms)


def _find_problems(
    image: _MirroredImage, client: RegistryClient, nodes: Sequence[str]
) -> Iterator[tuple[str, str]]:
    digest = image.mirror.digest
    there = _with_digest(image.mirror, digest) if digest else image.mirror
    for ref in (there, *([image.by_tag] if image.by_tag and digest else ())):
        found = client.get_digest(ref)
        if found is None:
            yield "missing", str(ref)
            return
        if digest and found != digest:
            yield "other", str(ref)
            return
    if not nodes:
        return
    has = image.platforms or _read_platforms(client, there)
    fitting = {node: _find_matching_digests(node, has) for node in nodes}
    lacking = [node for node, fits in fitting.items() if not fits]
    if has and lacking:
        about = f"{image.mirror}: for {', '.join(sorted(has))}, not for {', '.join(lacking)}"
        yield ("never" if len(lacking) == len(nodes) else "partly"), about
    for child in sorted({d for fits in fitting.values() for d in fits} - {digest}):
        if client.get_digest(_with_digest(image.mirror, child)) is None:
            yield "broken", f"{image.mirror}: {child}"


def _read_platforms(client: RegistryClient, ref: ImageRef) -> dict[str, str]:
    """An index's platforms and their digests; none for a single manifest, which does not say."""
    manifest = client.get_manifest(ref)
    children = manifest.children if manifest.is_index else ()
    return {child.platform: child.digest for child in children if child.platform}


def _find_matching_digests(node: str, has: Mapping[str, str]) -> list[str]:
    return [
        digest for name, digest in has.items() if matches_platform(_VERSION.sub("", name), (node,))
    ]


def _with_digest(ref: ImageRef, digest: str) -> ImageRef:
    return ImageRef(ref.host, ref.path, "", digest)
