"""The images of an environment's mirror, as the formats of the lock need them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kfdeploy.errors import UserError
from kfdeploy.export.format import MARK, ExportMaterial, ExportRequest
from kfdeploy.export.routes import UpstreamHost, list_upstream_hosts
from kfdeploy.files import read_text
from kfdeploy.images import sources_file
from kfdeploy.images.lockfile import Lock, LockedImage, tag_of
from kfdeploy.images.naming import MirrorNaming, MirrorRef, PullSources
from kfdeploy.images.sources_file import SourceImage
from kfdeploy.oci.reference import ImageRef, WrittenRef
from kfdeploy.oci.registry.access import AccessResolver, RegistryAccess
from kfdeploy.oci.registry.ca import read_ca, read_registry_ca
from kfdeploy.oci.registry.settings import PrivateRegistry
from kfdeploy.session import Session

TAGS: Final = "tags.txt"


@dataclass(frozen=True, slots=True)
class ImageCopy:
    """Describe one image that a tool copies into the mirror.

    Attributes:
        ids: the references in the manifests that it stands for.
        origin: the repository and digest of the lock.
        source: the same image where ``registries.sources`` says to pull it from, by digest.
        tag: the image's tag there; empty where only its digest is known.
        target: its place in the mirror.
    """

    ids: tuple[WrittenRef, ...]
    origin: ImageRef
    source: ImageRef
    tag: str
    target: MirrorRef

    @property
    def path(self) -> str:
        """The target's repository without its host."""
        return self.target.repository.path


@dataclass(frozen=True, slots=True)
class MirrorMaterial(ExportMaterial):
    """Hold all that a format of the lock may need.

    Attributes:
        environment: the environment's name.
        registry: the environment's private registry.
        url: the URL of its API without a path: ``https://HOST`` or ``http://HOST``.
        ca: PEM text of its CA, or empty.
        lock: the images that the mirror holds.
        hosts: the upstream hosts of those images.
        copies: the copies that bring them there, sorted by target.
        images: the places where they were found.
        reaches: the access to each host that an image is copied from or to.
        ca_of: returns the PEM text of such a host's CA, or an empty text. It reads the file only
            when it is called: formats for nodes need the private registry's alone.
        version: the upstream's version; empty where it is not known.
    """

    environment: str
    registry: PrivateRegistry
    url: str
    ca: str
    lock: Lock
    mirror: MirrorNaming
    hosts: tuple[UpstreamHost, ...]
    copies: tuple[ImageCopy, ...] = ()
    images: tuple[SourceImage, ...] = ()
    reaches: Mapping[str, RegistryAccess] = field(default_factory=dict)
    ca_of: Callable[[str], str] = lambda _: ""
    version: str = ""

    @property
    def is_plain(self) -> bool:
        """Whether the registry speaks HTTP."""
        return self.url.startswith("http://")

    @property
    def skips_verify(self) -> bool:
        """Whether the registry's certificate is not to be checked."""
        return self.registry.skip_tls_verify and not self.is_plain


# -- gathering -------------------------------------------------------------------------------------


def gather_mirror(request: ExportRequest[object]) -> MirrorMaterial:
    """Read the lock, the places of its images and the environment's registries.

    Only images that ``images.sources.yaml`` covers and that the lock has for the environment's
    platforms are in the mirror. A note names each covered image that is not.

    Raises:
        UserError: the workspace has no lock yet, or two images have one target.
    """
    session = request.session
    lock = session.read_lock(required=True)
    images = _read_sources(session)
    environment = session.environment
    registry = session.workspace.resolve_registry(environment)
    mirror = MirrorNaming(registry, environment.platforms)
    covered = {image.ref for image in images if image.covered}
    mirrored = Lock(
        [image for image in lock if image.id in covered and mirror.expected_digest(image)]
    )
    hosts = list_upstream_hosts(mirrored, mirror)
    copies = tuple(_list_copies(mirrored, session, mirror))
    resolve_access = AccessResolver(session.mirror_settings, session.root)
    names = {registry.host, *(copy.source.host for copy in copies)}
    reaches = {name: resolve_access(name) for name in sorted(names)}
    return MirrorMaterial(
        environment=session.environment_name,
        registry=registry,
        url=reaches[registry.host].url,
        ca=read_registry_ca(registry, session.root),
        lock=mirrored,
        mirror=mirror,
        hosts=hosts,
        copies=copies,
        images=tuple(image for image in images if image.ref in mirrored.by_id),
        reaches=reaches,
        ca_of=lambda name: read_ca(reaches[name]),
        version=session.known_version(),
        notes=tuple(_note_unlocked(sorted(covered - mirrored.by_id.keys()), lock, mirror)),
    )


def _read_sources(session: Session) -> Sequence[SourceImage]:
    path = session.root / sources_file.NAME
    if not path.is_file():
        raise UserError(f"the workspace has no {sources_file.NAME} yet", hint="run `kfdeploy lock`")
    return sources_file.parse_sources(read_text(path))


def _note_unlocked(refs: Iterable[WrittenRef], lock: Lock, mirror: MirrorNaming) -> Iterator[str]:
    for ref in refs:
        platforms = f" for {', '.join(mirror.platforms)}" if lock.find_image(ref) else ""
        yield f"{ref} is left out: it is not locked{platforms}"


def _list_copies(lock: Lock, session: Session, mirror: MirrorNaming) -> Iterator[ImageCopy]:
    """Yield one copy for each target, sorted."""
    workspace = session.workspace
    targets = mirror.mirror_refs(lock)
    sources = PullSources(workspace.registries.sources)
    by_target: dict[str, list[LockedImage]] = {}
    for image in lock:
        by_target.setdefault(str(targets[image.id].reference), []).append(image)
    for _, images in sorted(by_target.items()):
        image = images[0]
        named = (workspace.images.find_substitute(image.id.parsed) or image.id).parsed
        yield ImageCopy(
            ids=tuple(each.id for each in images),
            origin=image.image,
            source=sources.resolve_ref(image.image),
            # A tag of another repository, where kfdeploy.yaml has changed since `lock`, is none.
            tag=tag_of(named) if named.repository == image.image.repository else "",
            target=targets[image.id],
        )


# -- what several formats share --------------------------------------------------------------------


def header_line(format_name: str, material: MirrorMaterial) -> str:
    """Return the first line of an exported file."""
    return f"# {MARK} {format_name} for the environment {material.environment}\n"


def path_prefix(path: str, ending: str) -> str | None:
    """Return the part of a repository's path before ``ending``; None where it ends otherwise."""
    if path == ending:
        return ""
    return path.removesuffix(f"/{ending}") if path.endswith(f"/{ending}") else None


def host_folder(host: str) -> str:
    """Return a folder's name for a host."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", host)


def join_path(*parts: str) -> str:
    """Join those parts of a path that are not empty."""
    return "/".join(part for part in parts if part)


def unreduced_copies(material: MirrorMaterial, tool: str) -> tuple[ImageCopy, ...]:
    """Return the copies for a tool that takes images as they are.

    Raises:
        UserError: the environment names platforms. It pins indexes that only `mirror` makes.
    """
    for copy in material.copies:
        if copy.target.digest != copy.origin.digest:
            raise UserError(
                f"{copy.ids[0]}: the environment {material.environment} needs it reduced to"
                f" {', '.join(material.mirror.platforms)}, and {tool} can't make such an index",
                hint="use `kfdeploy mirror`, or an environment without platforms",
            )
    return material.copies


def tags_file(format_name: str, material: MirrorMaterial, copies: Iterable[ImageCopy]) -> str:
    """Return a list of tags, for tools that push images by digest and set none."""
    lines = [
        header_line(format_name, material),
        f"# grep -v '^#' {TAGS} | xargs -n 2 crane tag     (or: oras tag)\n",
    ]
    for copy in copies:
        lines.append(f"{copy.target.repository}@{copy.origin.digest} {copy.target.push_tag}\n")
    return "".join(lines)
