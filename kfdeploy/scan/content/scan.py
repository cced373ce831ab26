"""Looking into images and checkouts for references that no manifest names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kfdeploy.catalogue.facts import Catalogue, Program
from kfdeploy.errors import UserError
from kfdeploy.images.inventory import Inventory
from kfdeploy.images.lockfile import Lock
from kfdeploy.images.naming import Mirror
from kfdeploy.oci.reference import ImageRef, InvalidImageRef
from kfdeploy.oci.registry.access import Reaches
from kfdeploy.oci.registry.client import Client
from kfdeploy.scan.content import checkout, image_sources
from kfdeploy.scan.content.compare import Looked, Subject, compare, subjects
from kfdeploy.scan.content.image_sources import Daemon, Layout, Stored, Unreadable
from kfdeploy.scan.content.layer import Layer, best, visible
from kfdeploy.scan.content.tar_stream import Limits

if TYPE_CHECKING:
    from kfdeploy.workspace.settings import Environment, Workspace

PRIVATE: Final = "private"
DAEMON: Final = "daemon"
_LIMITS: Final = Limits()

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which images are looked into, and which of the workloads' are not."""

    subjects: tuple[Subject, ...]
    left: tuple[str, ...] = ()


def plan(programs: Sequence[Program], covered: frozenset[str], wanted: Sequence[str]) -> Plan:
    """The images of the workloads that lock and mirror cover, or those that are ``wanted``.

    Args:
        covered: references that are locked and mirrored.
        wanted: references, as the manifests have them or any other; none means all.

    Raises:
        UserError: a wanted one is no reference.
    """
    if not wanted:
        chosen, left = subjects(programs, covered=covered)
        return Plan(tuple(chosen), tuple(left))
    out = []
    for name in dict.fromkeys(wanted):
        try:
            normal = ImageRef.parse(name).with_default_tag()
        except InvalidImageRef as error:
            raise UserError(f"--image {name}: {error}") from error
        same = [p for p in programs if _normal(p.image) == normal]
        out.append(Subject(same[0].image if same else name, tuple(same)))
    return Plan(tuple(out))


def _normal(image: str) -> ImageRef | None:
    try:
        return ImageRef.parse(image).with_default_tag()
    except InvalidImageRef:
        return None


# -- where they are --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where images are read from.

    Attributes:
        find: an image's content, and what it is called there.
        daemon: set instead for a Docker engine, which gives all layers in one stream.
    """

    find: Callable[[str], Stored] | None = None
    daemon: Daemon | None = None


def private(client: Client, mirror: Mirror, lock: Lock) -> Place:
    """The private registry: a locked image by its mirrored name, another one as it is written."""

    def find(name: str) -> Stored:
        image = lock.find(name)
        if image is None:
            ref = ImageRef.parse(name)
            if ref.host != mirror.host:
                raise UserError(
                    f"{name}: not in images.lock, so the private registry does not have it",
                    hint="run `kfdeploy lock` and `kfdeploy mirror`, or name one of its own images",
                )
            return image_sources.in_registry(client, ref.with_default_tag())
        target = mirror.target(image)
        repository = ImageRef.parse(target.repository)
        by_digest = ImageRef(repository.host, repository.path, "", target.digest)
        return image_sources.in_registry(client, by_digest)

    return Place(find=find)


def folder(path: Path, lock: Lock) -> Place:
    """An OCI layout folder: an image by its name there, by its digest, or the only one."""
    layout = Layout(path)
    names = layout.names()

    def find(name: str) -> Stored:
        image = lock.find(name)
        ways = [name, *([image.digest, *image.reduced.values()] if image else [])]
        normal = _normal(name)
        for stored in names:
            if stored in ways or (normal is not None and _normal(stored) == normal):
                return layout.image(stored)
        for way in ways[1:]:
            if layout.has(way):
                return layout.image(way)
        raise UserError(
            f"{path}: has no image {name}",
            hint=f"it has {', '.join(names[:5])}" + (" ..." if len(names) > 5 else ""),
        )

    return Place(find=find)


def engine(address: str | None = None) -> Place:
    """A local Docker engine."""
    return Place(daemon=Daemon(address))


def opened(workspace: Workspace, environment: Environment, root: Path) -> Client:
    """The client that `private` asks with; to be closed by ``with``."""
    return Client(Reaches(workspace.mirroring(environment), root))


# -- looking ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Shared:
    """Layers that more than one image has: each is read once."""

    counts: Counter[str] = field(default_factory=Counter)
    layers: dict[str, Layer] = field(default_factory=dict)


def look(
    plan: Plan,
    place: Place,
    facts: Catalogue,
    inventory: Inventory | None,
    *,
    tell: Tell | None = None,
    limits: Limits = _LIMITS,
) -> list[Looked]:
    """Look into each image. What can't be had or read is among the problems of its image.

    Args:
        inventory: what the manifests name.
        tell: called with each image, how many are done, and of how many.
    """
    out: list[Looked] = []
    stored: dict[str, Stored | str] = {}
    shared = _Shared()
    if place.find is not None:
        for subject in plan.subjects:
            try:
                found = place.find(subject.name)
                shared.counts.update({blob.digest for blob in found.layers})
                stored[subject.name] = found
            except (UserError, Unreadable) as error:
                hint = getattr(error, "hint", None)
                stored[subject.name] = f"{error}" + (f" ({hint})" if hint else "")
    for number, subject in enumerate(plan.subjects, 1):
        if place.daemon is not None:
            out.append(_from_daemon(subject, place.daemon, facts, inventory, limits))
        else:
            item = stored[subject.name]
            if isinstance(item, str):
                out.append(Looked(subject, "", (), problems=(item,)))
            else:
                layers = list(_layers(item, shared, limits))
                out.append(_looked(subject, item, layers, (), facts, inventory))
        if tell is not None:
            tell(subject.name, number, len(plan.subjects))
    return out


def _layers(item: Stored, shared: _Shared, limits: Limits) -> Iterator[Layer]:
    left = limits.kept
    for blob in item.layers:
        layer = shared.layers.get(blob.digest)
        if layer is None:
            layer = blob.look(replace(limits, kept=left))
            if shared.counts[blob.digest] > 1:
                shared.layers[blob.digest] = layer
        left = max(0, left - layer.kept)
        yield layer


def _from_daemon(
    subject: Subject,
    daemon: Daemon,
    facts: Catalogue,
    inventory: Inventory | None,
    limits: Limits,
) -> Looked:
    try:
        layers, problems = daemon.look(subject.name, limits)
    except UserError as error:
        return Looked(subject, "", (), problems=(error.message,))
    item = Stored(f"the Docker engine's {subject.name}", "", ())
    return _looked(subject, item, layers, problems, facts, inventory)


def _looked(
    subject: Subject,
    item: Stored,
    layers: Sequence[Layer],
    problems: Sequence[str],
    facts: Catalogue,
    inventory: Inventory | None,
) -> Looked:
    finds = best(find for _, find in visible(layers))
    damage = [f"layer {layer.digest or '?'} {layer.damage}" for layer in layers if layer.damage]
    return Looked(
        subject,
        item.name,
        compare(finds, subject, facts, inventory),
        platform=item.platform,
        layers=len(layers),
        bytes=sum(layer.read for layer in layers),
        problems=(*problems, *damage),
        notes=tuple(dict.fromkeys(note for layer in layers for note in layer.notes)),
        labels=dict(item.labels),
    )


# -- source ----------------------------------------------------------------------------------------


def source(path: Path, facts: Catalogue) -> tuple[Looked, str]:
    """Look into a checkout.

    Returns:
        What is in it, and ``OWNER/REPO@TAG`` as far as the checkout says that.

    Raises:
        UserError: there is no such folder.
    """
    if not path.is_dir():
        raise UserError(f"--source {path}: no such folder")
    finds, notes = checkout.read(path)
    subject = Subject(path.resolve().name)
    found = compare(finds, subject, facts, None)
    return (
        Looked(subject, str(path), found, notes=tuple(notes)),
        checkout.origin(path),
    )
