"""Looking into images and checkouts for references that no manifest names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kfdeploy.catalogue.facts import Catalogue, WorkloadProgram
from kfdeploy.errors import UserError
from kfdeploy.images.inventory import Inventory
from kfdeploy.images.lockfile import Lock
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.oci.reference import ImageRef, InvalidImageRef
from kfdeploy.oci.registry.access import AccessResolver
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.scan.content import checkout, image_sources
from kfdeploy.scan.content.compare import (
    ContentScan,
    ScanSubject,
    classify_candidates,
    select_subjects,
)
from kfdeploy.scan.content.image_sources import (
    DockerDaemon,
    OciLayout,
    StoredImage,
    UnreadableImage,
)
from kfdeploy.scan.content.layer import LayerScan, best_candidates, visible_candidates
from kfdeploy.scan.content.tar_stream import ScanLimits

if TYPE_CHECKING:
    from kfdeploy.workspace.settings import Environment, Workspace

PRIVATE: Final = "private"
DAEMON: Final = "daemon"
_LIMITS: Final = ScanLimits()

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ContentPlan:
    """Which images are looked into, and which of the workloads' are not."""

    subjects: tuple[ScanSubject, ...]
    skipped: tuple[str, ...] = ()


def plan_scan(
    programs: Sequence[WorkloadProgram], covered: frozenset[str], wanted: Sequence[str]
) -> ContentPlan:
    """The images of the workloads that lock and mirror cover, or those that are ``wanted``.

    Args:
        covered: references that are locked and mirrored.
        wanted: references, as the manifests have them or any other; none means all.

    Raises:
        UserError: a wanted one is no reference.
    """
    if not wanted:
        chosen, left = select_subjects(programs, covered=covered)
        return ContentPlan(tuple(chosen), tuple(left))
    out = []
    for name in dict.fromkeys(wanted):
        try:
            normal = ImageRef.parse(name).with_default_tag()
        except InvalidImageRef as error:
            raise UserError(f"--image {name}: {error}") from error
        same = [p for p in programs if _normalize_reference(p.image) == normal]
        out.append(ScanSubject(same[0].image if same else name, tuple(same)))
    return ContentPlan(tuple(out))


def _normalize_reference(image: str) -> ImageRef | None:
    try:
        return ImageRef.parse(image).with_default_tag()
    except InvalidImageRef:
        return None


# -- where they are --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContentSource:
    """Where images are read from.

    Attributes:
        find: an image's content, and what it is called there.
        daemon: set instead for a Docker engine, which gives all layers in one stream.
    """

    find_image: Callable[[str], StoredImage] | None = None
    daemon: DockerDaemon | None = None


def from_private_registry(
    client: RegistryClient, mirror: MirrorNaming, lock: Lock
) -> ContentSource:
    """The private registry: a locked image by its mirrored name, another one as it is written."""

    def find_image(name: str) -> StoredImage:
        image = lock.find_image(name)
        if image is None:
            ref = ImageRef.parse(name)
            if ref.host != mirror.host:
                raise UserError(
                    f"{name}: not in images.lock, so the private registry does not have it",
                    hint="run `kfdeploy lock` and `kfdeploy mirror`, or name one of its own images",
                )
            return image_sources.load_registry_image(client, ref.with_default_tag())
        target = mirror.mirror_ref(image)
        repository = ImageRef.parse(target.repository)
        by_digest = ImageRef(repository.host, repository.path, "", target.digest)
        return image_sources.load_registry_image(client, by_digest)

    return ContentSource(find_image=find_image)


def from_layout_folder(path: Path, lock: Lock) -> ContentSource:
    """An OCI layout folder: an image by its name there, by its digest, or the only one."""
    layout = OciLayout(path)
    names = layout.list_names()

    def find_image(name: str) -> StoredImage:
        image = lock.find_image(name)
        ways = [name, *([image.digest, *image.reduced.values()] if image else [])]
        normal = _normalize_reference(name)
        for stored in names:
            if stored in ways or (normal is not None and _normalize_reference(stored) == normal):
                return layout.load_image(stored)
        for way in ways[1:]:
            if layout.has_manifest(way):
                return layout.load_image(way)
        raise UserError(
            f"{path}: has no image {name}",
            hint=f"it has {', '.join(names[:5])}" + (" ..." if len(names) > 5 else ""),
        )

    return ContentSource(find_image=find_image)


def from_docker_engine(address: str | None = None) -> ContentSource:
    """A local Docker engine."""
    return ContentSource(daemon=DockerDaemon(address))


def open_client(workspace: Workspace, environment: Environment, root: Path) -> RegistryClient:
    """The client that `private` asks with; to be closed by ``with``."""
    return RegistryClient(AccessResolver(workspace.resolve_mirror_settings(environment), root))


# -- looking ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _SharedLayers:
    """Layers that more than one image has: each is read once."""

    counts: Counter[str] = field(default_factory=Counter)
    layers: dict[str, LayerScan] = field(default_factory=dict)


def scan_images(
    plan: ContentPlan,
    place: ContentSource,
    facts: Catalogue,
    inventory: Inventory | None,
    *,
    on_progress: OnProgress | None = None,
    limits: ScanLimits = _LIMITS,
) -> list[ContentScan]:
    """Look into each image. What can't be had or read is among the problems of its image.

    Args:
        inventory: what the manifests name.
        tell: called with each image, how many are done, and of how many.
    """
    out: list[ContentScan] = []
    stored: dict[str, StoredImage | str] = {}
    shared = _SharedLayers()
    if place.find_image is not None:
        for subject in plan.subjects:
            try:
                found = place.find_image(subject.name)
                shared.counts.update({blob.digest for blob in found.layers})
                stored[subject.name] = found
            except (UserError, UnreadableImage) as error:
                hint = getattr(error, "hint", None)
                stored[subject.name] = f"{error}" + (f" ({hint})" if hint else "")
    for number, subject in enumerate(plan.subjects, 1):
        if place.daemon is not None:
            out.append(_scan_daemon_image(subject, place.daemon, facts, inventory, limits))
        else:
            item = stored[subject.name]
            if isinstance(item, str):
                out.append(ContentScan(subject, "", (), problems=(item,)))
            else:
                layers = list(_scan_layers(item, shared, limits))
                out.append(_build_content_scan(subject, item, layers, (), facts, inventory))
        if on_progress is not None:
            on_progress(subject.name, number, len(plan.subjects))
    return out


def _scan_layers(
    item: StoredImage, shared: _SharedLayers, limits: ScanLimits
) -> Iterator[LayerScan]:
    left = limits.kept
    for blob in item.layers:
        layer = shared.layers.get(blob.digest)
        if layer is None:
            layer = blob.scan(replace(limits, kept=left))
            if shared.counts[blob.digest] > 1:
                shared.layers[blob.digest] = layer
        left = max(0, left - layer.kept)
        yield layer


def _scan_daemon_image(
    subject: ScanSubject,
    daemon: DockerDaemon,
    facts: Catalogue,
    inventory: Inventory | None,
    limits: ScanLimits,
) -> ContentScan:
    try:
        layers, problems = daemon.scan_image(subject.name, limits)
    except UserError as error:
        return ContentScan(subject, "", (), problems=(error.message,))
    item = StoredImage(f"the Docker engine's {subject.name}", "", ())
    return _build_content_scan(subject, item, layers, problems, facts, inventory)


def _build_content_scan(
    subject: ScanSubject,
    item: StoredImage,
    layers: Sequence[LayerScan],
    problems: Sequence[str],
    facts: Catalogue,
    inventory: Inventory | None,
) -> ContentScan:
    finds = best_candidates(find for _, find in visible_candidates(layers))
    damage = [f"layer {layer.digest or '?'} {layer.damage}" for layer in layers if layer.damage]
    return ContentScan(
        subject,
        item.name,
        classify_candidates(finds, subject, facts, inventory),
        platform=item.platform,
        layers=len(layers),
        bytes=sum(layer.inflated_bytes for layer in layers),
        problems=(*problems, *damage),
        notes=tuple(dict.fromkeys(note for layer in layers for note in layer.notes)),
        labels=dict(item.labels),
    )


# -- source ----------------------------------------------------------------------------------------


def scan_checkout(path: Path, facts: Catalogue) -> tuple[ContentScan, str]:
    """Look into a checkout.

    Returns:
        What is in it, and ``OWNER/REPO@TAG`` as far as the checkout says that.

    Raises:
        UserError: there is no such folder.
    """
    if not path.is_dir():
        raise UserError(f"--source {path}: no such folder")
    finds, notes = checkout.find_candidates(path)
    subject = ScanSubject(path.resolve().name)
    found = classify_candidates(finds, subject, facts, None)
    return (
        ContentScan(subject, str(path), found, notes=tuple(notes)),
        checkout.detect_origin(path),
    )
