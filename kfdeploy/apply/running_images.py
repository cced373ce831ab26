"""Images that a cluster's pods run, against those that a set and its lock name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from kfdeploy.images.lockfile import Lock
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.kubernetes.workload import CONTAINERS
from kfdeploy.oci.reference import ImageRef, InvalidImageRef
from kfdeploy.releaseset.summary import ImageSummary

Body = Mapping[str, Any]
RunningState = Literal["locked", "stale", "unlocked", "foreign"]
_STATUSES: Final = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


@dataclass(frozen=True, slots=True)
class PodImageUse:
    """One container, or volume, of one pod that runs an image.

    Attributes:
        image: as the pod names it.
        digest: of what runs, as the node says; empty where it has not said, or only a config's.
        part: ``containers[name=x]``, ``volumes[name=x]``.
        owner: the workload that the pod is of, or the pod.
    """

    image: str
    digest: str
    part: str
    owner: ObjectKey
    pod: ObjectKey


def list_pod_images(pod: Body, owner: ObjectKey) -> Iterator[PodImageUse]:
    """All images of a pod: of every container, and of volumes that are images."""
    key = ObjectKey.from_body({**pod, "apiVersion": "v1", "kind": "Pod"})
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    running = {one["name"]: one for name in _STATUSES for one in status.get(name) or ()}
    for group in CONTAINERS:
        for container in spec.get(group) or ():
            name = container["name"]
            digest = _parse_image_id((running.get(name) or {}).get("imageID", ""))
            yield PodImageUse(
                container.get("image", ""), digest, f"{group}[name={name}]", owner, key
            )
    for volume in spec.get("volumes") or ():
        if reference := (volume.get("image") or {}).get("reference"):
            yield PodImageUse(reference, "", f"volumes[name={volume['name']}]", owner, key)


def _parse_image_id(image_id: str) -> str:
    """The digest in ``docker-pullable://REPOSITORY@sha256:...``.

    A bare ``sha256:...`` is the sum of the image's configuration, of which a lock knows nothing.
    """
    return image_id.partition("@")[2]


@dataclass(frozen=True, slots=True)
class RunningImage:
    """One reference that pods run, and what is to be said of it.

    Attributes:
        state: ``locked``: as the set has it. ``stale``: an image of the set at another tag or
            digest. ``unlocked``: in the private registry, and not of the set. ``foreign``: from
            elsewhere.
        source: the set's image that it is, as upstream names it; empty for another.
        wanted: the mirror's reference that the set has for it.
        digests: that run; none where no node has said.
        why: what is wrong, for people; empty for what is locked.
    """

    image: str
    state: RunningState
    source: str
    wanted: str
    digests: tuple[str, ...]
    owners: tuple[ObjectKey, ...]
    parts: tuple[str, ...]
    pods: int
    why: str = ""

    @property
    def is_different(self) -> bool:
        return self.state in ("foreign", "stale")

    def to_json(self) -> dict[str, Any]:
        return {
            "image": self.image,
            "state": self.state,
            "source": self.source,
            "wanted": self.wanted,
            "digests": self.digests,
            "workloads": self.owners,
            "parts": self.parts,
            "pods": self.pods,
            "why": self.why,
        }


@dataclass(frozen=True)
class ExpectedImages:
    """What a set and its lock say of images.

    Attributes:
        images: the set's, by the reference as upstream names it.
        registry: HOST[/PREFIX] of the private registry.
        accepted: references that may come from elsewhere.
    """

    images: Mapping[str, ImageSummary]
    lock: Lock
    registry: str
    accepted: Collection[str] = ()

    @cached_property
    def _by_mirror(self) -> Mapping[str, list[str]]:
        """Repository in the mirror to the references that lie there."""
        out: dict[str, list[str]] = defaultdict(list)
        for ref, image in self.images.items():
            out[image.mirror.repository].append(ref)
        return out

    @cached_property
    def _by_source(self) -> Mapping[ImageRef, str]:
        return {image.upstream.with_default_tag(): ref for ref, image in self.images.items()}

    def list_digests(self, ref: str) -> frozenset[str]:
        """Every digest that is this image: the whole index, a reduced one, one platform's."""
        found = {self.images[ref].mirror.digest}
        if (locked := self.lock.find_image(ref)) is not None:
            found |= {locked.digest, *locked.platforms.values(), *locked.reduced.values()}
        return frozenset(found - {""})

    def classify_image(self, image: str, digests: Iterable[str]) -> tuple[RunningState, str, str]:
        """The state of a reference that runs with these digests, the set's image, and why."""
        try:
            wanted = ImageRef.parse(image).with_default_tag()
        except InvalidImageRef as error:
            return "foreign", "", str(error)
        there = self._by_mirror.get(wanted.repository)
        if there is not None:
            return self._classify_mirrored(wanted, there, digests)
        if f"{wanted.repository}/".startswith(f"{self.registry}/"):
            return "unlocked", "", "in the private registry, and no image of the set"
        return self._classify_foreign(wanted, digests)

    def _classify_mirrored(
        self, wanted: ImageRef, there: Sequence[str], digests: Iterable[str]
    ) -> tuple[RunningState, str, str]:
        for ref in there:
            mirror = self.images[ref].mirror
            known = self.list_digests(ref)
            same = wanted.digest in known if wanted.digest else wanted.tag == mirror.tag
            if same:
                # Without a digest in the lock there is nothing to compare with.
                other = sorted(set(digests) - known) if known else []
                if other:
                    return "stale", ref, f"its content is not the lock's: {other[0]}"
                return "locked", ref, ""
        expected = ", ".join(str(self.images[ref].mirror) for ref in there)
        return "stale", there[0], f"the set has {expected}"

    def _classify_foreign(
        self, wanted: ImageRef, digests: Iterable[str]
    ) -> tuple[RunningState, str, str]:
        ref = self._by_source.get(wanted, "")
        if ref and ref in self.accepted:
            return "locked", ref, ""
        if not ref:
            return "foreign", "", "not from the private registry, and no image of the set"
        some = set(digests)
        if some and some <= self.list_digests(ref):
            why = "by its upstream name, though with the lock's content; registries.uncovered"
            return "foreign", ref, f"{why} accepts it where nodes have a registry mirror"
        return "foreign", ref, f"by its upstream name; the set has {self.images[ref].mirror}"


def classify_running_images(
    found: Iterable[PodImageUse], known: ExpectedImages
) -> list[RunningImage]:
    """Each reference that runs, once for each state; the wrong ones first."""
    groups: dict[tuple[str, str], list[PodImageUse]] = defaultdict(list)
    for one in found:
        groups[one.image, one.digest].append(one)
    judged: dict[tuple[str, RunningState, str, str], list[PodImageUse]] = defaultdict(list)
    for (image, digest), some in groups.items():
        judged[(image, *known.classify_image(image, [digest] if digest else []))] += some
    out = [
        RunningImage(
            image=image,
            state=state,
            source=ref,
            wanted=str(known.images[ref].mirror) if ref else "",
            digests=tuple(sorted({one.digest for one in some if one.digest})),
            owners=tuple(sorted({one.owner for one in some})),
            parts=tuple(sorted({one.part for one in some})),
            pods=len({one.pod for one in some}),
            why=why,
        )
        for (image, state, ref, why), some in judged.items()
    ]
    return sorted(out, key=lambda one: (_ORDER[one.state], one.image, one.why))


_ORDER: Final = {"foreign": 0, "stale": 1, "unlocked": 2, "locked": 3}


def find_unused_images(found: Iterable[RunningImage], known: ExpectedImages) -> list[str]:
    """The set's images that nothing runs now; some run only when users ask for them."""
    seen = {one.source for one in found}
    return sorted(ref for ref in known.images if ref not in seen)
