"""Classify the images that a cluster's pods run, by those that a set and its lock name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from kfdeploy.images.lockfile import Lock
from kfdeploy.kubernetes.accessors import Body, get_spec, get_text, list_mappings
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.kubernetes.workload import CONTAINERS, list_image_volumes
from kfdeploy.oci.reference import ImageRef, InvalidImageRef, WrittenRef
from kfdeploy.releaseset.summary import ImageSummary

RunningState = Literal["locked", "stale", "unlocked", "foreign"]
"""The state of a reference that pods run.

``locked``: as the set has it. ``stale``: an image of the set, at another tag or digest.
``unlocked``: in the private registry, and not of the set. ``foreign``: from another registry.
"""
_STATUSES: Final = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


@dataclass(frozen=True, slots=True)
class PodImageUse:
    """An image in one container, or one volume, of one pod.

    Attributes:
        image: the reference in the pod's spec.
        digest: the digest that runs, as the node reports it; empty if it reports none.
        part: ``containers[name=x]`` or ``volumes[name=x]``.
        owner: the workload that the pod belongs to, or the pod.
    """

    image: str
    digest: str
    part: str
    owner: ObjectKey
    pod: ObjectKey


def list_pod_images(pod: Body, owner: ObjectKey) -> Iterator[PodImageUse]:
    """Yield the images of a pod: of all containers, and of volumes that are images."""
    key = ObjectKey.from_body({**pod, "apiVersion": "v1", "kind": "Pod"})
    spec = get_spec(pod)
    digests = {
        get_text(status, "name"): _parse_image_id(get_text(status, "imageID"))
        for field in _STATUSES
        for status in list_mappings(pod, "status", field)
    }
    for field in CONTAINERS:
        for container in list_mappings(spec, field):
            name, image = get_text(container, "name"), get_text(container, "image")
            yield PodImageUse(image, digests.get(name, ""), f"{field}[name={name}]", owner, key)
    for name, image in list_image_volumes(spec):
        yield PodImageUse(image, "", f"volumes[name={name}]", owner, key)


def _parse_image_id(image_id: str) -> str:
    """Return the digest in ``docker-pullable://REPOSITORY@sha256:...``, else an empty text.

    A bare ``sha256:...`` is the digest of the image's configuration, which a lock does not have.
    """
    return image_id.partition("@")[2]


@dataclass(frozen=True, slots=True)
class RunningImage:
    """A reference that pods run, and its state.

    Attributes:
        source: the set's image, as upstream names it; None if it is not an image of the set.
        wanted: the mirror reference that the set has for it.
        digests: the digests that run; empty if no node reports one.
        owners: the workloads that run it.
        pods: number of the pods that run it.
        why: what is wrong, for people; empty for a locked image.
    """

    image: str
    state: RunningState
    source: WrittenRef | None
    wanted: str
    digests: tuple[str, ...]
    owners: tuple[ObjectKey, ...]
    parts: tuple[str, ...]
    pods: int
    why: str = ""

    @property
    def is_different(self) -> bool:
        """Whether an audit fails because of it."""
        return self.state in ("foreign", "stale")

    def to_json(self) -> dict[str, Any]:
        return {
            "image": self.image,
            "state": self.state,
            "source": self.source or "",
            "wanted": self.wanted,
            "digests": self.digests,
            "workloads": self.owners,
            "parts": self.parts,
            "pods": self.pods,
            "why": self.why,
        }


@dataclass(frozen=True)
class ExpectedImages:
    """The images of a set and its lock.

    Attributes:
        images: the set's images, by their upstream reference.
        registry: HOST[/PREFIX] of the private registry.
        accepted: upstream references that may come from other registries.
    """

    images: Mapping[WrittenRef, ImageSummary]
    lock: Lock
    registry: str
    accepted: Collection[str] = ()

    @cached_property
    def _by_mirror(self) -> Mapping[str, list[WrittenRef]]:
        """Repository in the mirror to the upstream references that are there."""
        out: dict[str, list[WrittenRef]] = defaultdict(list)
        for ref, image in self.images.items():
            out[image.mirror.repository].append(ref)
        return out

    @cached_property
    def _by_source(self) -> Mapping[ImageRef, WrittenRef]:
        return {image.upstream.with_default_tag(): ref for ref, image in self.images.items()}

    def list_digests(self, ref: WrittenRef) -> frozenset[str]:
        """Return all digests of an image: of its index, of reduced ones, of each platform."""
        found = {self.images[ref].mirror.digest}
        if (locked := self.lock.find_image(ref)) is not None:
            found |= {locked.digest, *locked.platforms.values(), *locked.reduced.values()}
        return frozenset(found - {""})

    def classify_image(
        self, image: str, digests: Iterable[str]
    ) -> tuple[RunningState, WrittenRef | None, str]:
        """Return the state of a reference that runs with some digests, the set's image, and why."""
        try:
            wanted = ImageRef.parse(image).with_default_tag()
        except InvalidImageRef as error:
            return "foreign", None, str(error)
        there = self._by_mirror.get(wanted.repository)
        if there is not None:
            return self._classify_mirrored(wanted, there, digests)
        if f"{wanted.repository}/".startswith(f"{self.registry}/"):
            return "unlocked", None, "in the private registry, and not an image of the set"
        return self._classify_foreign(wanted, digests)

    def _classify_mirrored(
        self, wanted: ImageRef, there: Sequence[WrittenRef], digests: Iterable[str]
    ) -> tuple[RunningState, WrittenRef | None, str]:
        for ref in there:
            mirror = self.images[ref].mirror
            known = self.list_digests(ref)
            is_same = wanted.digest in known if wanted.digest else wanted.tag == mirror.tag
            if not is_same:
                continue
            # Without a digest in the lock there is nothing to compare with.
            other = sorted(set(digests) - known) if known else []
            if other:
                return "stale", ref, f"its content is not the lock's: {other[0]}"
            return "locked", ref, ""
        expected = ", ".join(str(self.images[ref].mirror) for ref in there)
        return "stale", there[0], f"the set has {expected}"

    def _classify_foreign(
        self, wanted: ImageRef, digests: Iterable[str]
    ) -> tuple[RunningState, WrittenRef | None, str]:
        ref = self._by_source.get(wanted)
        if ref is None:
            return "foreign", None, "not from the private registry, and not an image of the set"
        if ref.text in self.accepted:
            return "locked", ref, ""
        running = set(digests)
        if running and running <= self.list_digests(ref):
            why = "by its upstream name, but with the lock's content; registries.uncovered"
            return "foreign", ref, f"{why} accepts it if the nodes have a registry mirror"
        return "foreign", ref, f"by its upstream name; the set has {self.images[ref].mirror}"


def classify_running_images(
    found: Iterable[PodImageUse], known: ExpectedImages
) -> list[RunningImage]:
    """Return each reference that runs, once for each state; wrong ones first."""
    groups: dict[tuple[str, str], list[PodImageUse]] = defaultdict(list)
    for use in found:
        groups[use.image, use.digest].append(use)
    classified: dict[tuple[str, RunningState, WrittenRef | None, str], list[PodImageUse]] = (
        defaultdict(list)
    )
    for (image, digest), uses in groups.items():
        classified[(image, *known.classify_image(image, [digest] if digest else []))] += uses
    out = [
        RunningImage(
            image=image,
            state=state,
            source=ref,
            wanted=str(known.images[ref].mirror) if ref else "",
            digests=tuple(sorted({use.digest for use in uses if use.digest})),
            owners=tuple(sorted({use.owner for use in uses})),
            parts=tuple(sorted({use.part for use in uses})),
            pods=len({use.pod for use in uses}),
            why=why,
        )
        for (image, state, ref, why), uses in classified.items()
    ]
    return sorted(out, key=lambda image: (_ORDER[image.state], image.image, image.why))


_ORDER: Final = {"foreign": 0, "stale": 1, "unlocked": 2, "locked": 3}


def find_unused_images(found: Iterable[RunningImage], known: ExpectedImages) -> list[WrittenRef]:
    """Return the set's images that nothing runs now; some run only when users start them."""
    seen = {image.source for image in found}
    return sorted(ref for ref in known.images if ref not in seen)
