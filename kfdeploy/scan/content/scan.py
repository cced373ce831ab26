"""Scan images and checkouts for references that no manifest names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kfdeploy.catalogue.facts import Catalogue, WorkloadProgram
from kfdeploy.errors import UserError
from kfdeploy.images.inventory import Inventory
from kfdeploy.images.lockfile import Lock
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.oci.reference import ImageRef, InvalidImageRef, WrittenRef
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

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ContentPlan:
    """The images to scan, and the images of workloads that are left out."""

    subjects: tuple[ScanSubject, ...]
    skipped: tuple[str, ...] = ()


def plan_scan(
    programs: Sequence[WorkloadProgram], covered: frozenset[str], wanted: Sequence[str]
) -> ContentPlan:
    """Plan to scan the images of workloads that lock and mirror cover, or the ``wanted`` ones.

    Args:
        programs: the programs of all workloads.
        covered: references that are locked and mirrored.
        wanted: references to scan, of the manifests or others; none means all that are covered.

    Raises:
        UserError: a wanted text is not a reference.
    """
    if not wanted:
        chosen, skipped = select_subjects(programs, covered=covered)
        return ContentPlan(tuple(chosen), tuple(skipped))
    subjects = []
    for name in dict.fromkeys(wanted):
        try:
            normal = ImageRef.parse(name).with_default_tag()
        except InvalidImageRef as error:
            raise UserError(f"--image {name}: {error}") from error
        same = [p for p in programs if _normalize_reference(p.image) == normal]
        subjects.append(ScanSubject(same[0].image if same else name, tuple(same)))
    return ContentPlan(tuple(subjects))


def _normalize_reference(image: str) -> ImageRef | None:
    ref = ImageRef.try_parse(image)
    return ref.with_default_tag() if ref else None


# -- sources of images -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContentSource:
    """The place that images are read from.

    Attributes:
        find_image: returns an image by its reference.
        daemon: set instead of `find_image` for a Docker engine, which sends all layers in one
            stream.
    """

    find_image: Callable[[str], StoredImage] | None = None
    daemon: DockerDaemon | None = None


def from_private_registry(
    client: RegistryClient, mirror: MirrorNaming, lock: Lock
) -> ContentSource:
    """Read images from the private registry: locked ones by mirrored name, others as given."""

    def find_image(name: str) -> StoredImage:
        written = WrittenRef.parse(name)
        image = lock.find_image(written)
        if image is None:
            ref = written.parsed
            if ref.host != mirror.host:
                raise UserError(
                    f"{name}: not in images.lock, so the private registry does not have it",
                    hint="run `kfdeploy lock` and `kfdeploy mirror`, or name one of its own images",
                )
            return image_sources.load_registry_image(client, ref.with_default_tag())
        target = mirror.mirror_ref(image)
        by_digest = replace(target.repository, digest=target.digest)
        return image_sources.load_registry_image(client, by_digest)

    return ContentSource(find_image=find_image)


def from_layout_folder(path: Path, lock: Lock) -> ContentSource:
    """Read images from an OCI layout folder, by their names there or by their locked digests."""
    layout = OciLayout(path)
    names = layout.list_names()

    def find_image(name: str) -> StoredImage:
        written = WrittenRef.try_parse(name)
        image = lock.find_image(written) if written else None
        digests = [image.digest, *image.reduced.values()] if image else []
        normal = _normalize_reference(name)
        for stored in names:
            is_same = normal is not None and _normalize_reference(stored) == normal
            if is_same or stored in (name, *digests):
                return layout.load_image(stored)
        for digest in digests:
            if layout.has_manifest(digest):
                return layout.load_image(digest)
        raise UserError(
            f"{path}: has no image {name}",
            hint=f"it has {', '.join(names[:5])}" + (" ..." if len(names) > 5 else ""),
        )

    return ContentSource(find_image=find_image)


def from_docker_engine(address: str | None = None) -> ContentSource:
    """Read images from a Docker engine: at ``address``, at DOCKER_HOST, or the local one."""
    return ContentSource(daemon=DockerDaemon(address))


def open_client(workspace: Workspace, environment: Environment, root: Path) -> RegistryClient:
    """Return a client for the private registry; close it with a ``with`` statement."""
    return RegistryClient(AccessResolver(workspace.resolve_mirror_settings(environment), root))


# -- scanning --------------------------------------------------------------------------------------


def scan_images(
    plan: ContentPlan,
    source: ContentSource,
    facts: Catalogue,
    inventory: Inventory | None,
    *,
    on_progress: OnProgress | None = None,
) -> list[ContentScan]:
    """Scan each image. Errors are among the problems of its image.

    Args:
        plan: the images.
        source: where to read them.
        facts: the catalogue.
        inventory: the images that the manifests name; None if there are no manifests.
        on_progress: called after each image with its name, the number done, and the total.
    """
    scanner = _ImageScanner(source, facts, inventory)
    scanner.find_images(plan.subjects)
    scans = []
    for number, subject in enumerate(plan.subjects, 1):
        scans.append(scanner.scan_image(subject))
        if on_progress is not None:
            on_progress(subject.name, number, len(plan.subjects))
    return scans


class _ImageScanner:
    """Scan images of one source. A layer that several of them have is read once."""

    def __init__(
        self, source: ContentSource, facts: Catalogue, inventory: Inventory | None
    ) -> None:
        self._source = source
        self._facts = facts
        self._inventory = inventory
        self._limits = ScanLimits()
        self._images: dict[str, StoredImage] = {}
        self._errors: dict[str, str] = {}
        self._layer_counts: Counter[str] = Counter()
        self._shared_layers: dict[str, LayerScan] = {}

    def find_images(self, subjects: Sequence[ScanSubject]) -> None:
        """Find all images before any is scanned, to know which layers they share."""
        if self._source.find_image is None:
            return
        for subject in subjects:
            try:
                image = self._source.find_image(subject.name)
            except (UserError, UnreadableImage) as error:
                hint = getattr(error, "hint", None)
                self._errors[subject.name] = f"{error}" + (f" ({hint})" if hint else "")
            else:
                self._images[subject.name] = image
                self._layer_counts.update({blob.digest for blob in image.layers})

    def scan_image(self, subject: ScanSubject) -> ContentScan:
        if self._source.daemon is not None:
            return self._scan_daemon_image(subject, self._source.daemon)
        if subject.name in self._errors:
            return ContentScan(subject, "", (), problems=(self._errors[subject.name],))
        image = self._images[subject.name]
        return self._build_content_scan(subject, image, list(self._scan_layers(image)))

    def _scan_daemon_image(self, subject: ScanSubject, daemon: DockerDaemon) -> ContentScan:
        try:
            layers, problems = daemon.scan_image(subject.name, self._limits)
        except UserError as error:
            return ContentScan(subject, "", (), problems=(error.message,))
        image = StoredImage(f"the Docker engine's {subject.name}", "", ())
        return self._build_content_scan(subject, image, layers, problems)

    def _scan_layers(self, image: StoredImage) -> Iterator[LayerScan]:
        """Scan an image's layers, the lowest first; the limit of memory holds for all together."""
        left = self._limits.kept
        for blob in image.layers:
            layer = self._shared_layers.get(blob.digest)
            if layer is None:
                layer = blob.scan(replace(self._limits, kept=left))
                if self._layer_counts[blob.digest] > 1:
                    self._shared_layers[blob.digest] = layer
            left = max(0, left - layer.kept)
            yield layer

    def _build_content_scan(
        self,
        subject: ScanSubject,
        image: StoredImage,
        layers: Sequence[LayerScan],
        problems: Sequence[str] = (),
    ) -> ContentScan:
        finds = best_candidates(find for _, find in visible_candidates(layers))
        damage = [f"layer {layer.digest or '?'} {layer.damage}" for layer in layers if layer.damage]
        return ContentScan(
            subject,
            image.name,
            classify_candidates(finds, subject, self._facts, self._inventory),
            platform=image.platform,
            layers=len(layers),
            bytes=sum(layer.inflated_bytes for layer in layers),
            problems=(*problems, *damage),
            notes=tuple(dict.fromkeys(note for layer in layers for note in layer.notes)),
            labels=dict(image.labels),
        )


# -- source ----------------------------------------------------------------------------------------


def scan_checkout(path: Path, facts: Catalogue) -> tuple[ContentScan, str]:
    """Scan a checkout.

    Returns:
        The references in it, and its ``OWNER/REPO@TAG`` as far as that is known.

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
