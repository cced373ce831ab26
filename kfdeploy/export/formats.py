"""Lock, environment -> other tools' files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.export import (
    argocd,
    cyclonedx,
    flux,
    hauler,
    hosts_toml,
    idms,
    pipelines,
    registries_yaml,
    regsync,
    rights,
    routes,
    skopeo_sync,
    zarf,
)
from kfdeploy.export.delivery import Delivery
from kfdeploy.export.material import MARK, ExportedFiles, ExportMaterial, ImageCopy
from kfdeploy.export.pipelines import PipelineMaterial
from kfdeploy.files import read_bytes
from kfdeploy.images.lockfile import Lock, LockedImage, tag_of
from kfdeploy.images.naming import MirrorNaming, PullSources
from kfdeploy.images.sources_file import SourceImage
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.access import AccessResolver
from kfdeploy.oci.registry.ca import read_ca, read_registry_ca
from kfdeploy.workspace.settings import Workspace

Exporter = Callable[[ExportMaterial], ExportedFiles]
FORMATS: Final[Mapping[str, tuple[str, Exporter]]] = {
    module.NAME: (module.ABOUT, module.export)
    for module in (
        hosts_toml,
        registries_yaml,
        idms,
        regsync,
        skopeo_sync,
        hauler,
        zarf,
        cyclonedx,
    )
}
"""Each format of the lock by its name: what it is, and what makes it."""
OF_A_SET: Final[Mapping[str, tuple[str, Callable[[Delivery], ExportedFiles]]]] = {
    module.NAME: (module.ABOUT, module.export) for module in (flux, argocd)
}
"""The same, of a release set."""
OF_THE_WORKSPACE: Final[Mapping[str, tuple[str, Callable[[PipelineMaterial], ExportedFiles]]]] = {
    "gitlab-ci": ("GitLab: a pipeline", pipelines.export_gitlab_ci),
    "github-actions": ("GitHub: a workflow", pipelines.export_github_actions),
    "containerfile": ("the image that pipelines run in", pipelines.export_containerfile),
}
"""The same, of the workspace's environments."""

OF_SETS: Final = frozenset((*OF_A_SET, rights.NAME))
"""What takes a set's name; rights may be those of several."""
_ABOUT: Final = {
    **{
        name: about
        for formats in (FORMATS, OF_A_SET, OF_THE_WORKSPACE)
        for name, (about, _) in formats.items()
    },
    rights.NAME: rights.ABOUT,
}


def check_format(name: str) -> None:
    """See that there is such a format.

    Raises:
        UserError: there is none; names those that there are.
    """
    if name not in _ABOUT:
        raise UserError(
            f"{name}: there is no such format" if name else "export needs a FORMAT",
            hint="; ".join(f"{known} ({about})" for known, about in _ABOUT.items()),
            exit_code=WRONG_USE,
        )


def export_mirror(
    exporter: Exporter,
    workspace: Workspace,
    root: Path,
    environment_name: str,
    lock: Lock,
    images: Sequence[SourceImage],
    version: str = "",
) -> ExportedFiles:
    """What the format says of an environment's mirror.

    Args:
        lock: what is locked; of it, what ``images`` covers is in the mirror.
        images: what ``images.sources.yaml`` lists.
        version: the upstream's, where it is known.

    Raises:
        UserError: a setting that the format can't express, with the image.
    """
    covered = {image.ref for image in images if image.covered}
    environment = workspace.environments[environment_name]
    registry = workspace.resolve_registry(environment)
    mirror = MirrorNaming(registry, environment.platforms)
    held = Lock([image for image in lock if image.id in covered and mirror.expected_digest(image)])
    hosts = routes.list_upstream_hosts(held, mirror)
    copies = _list_copies(held, mirror, workspace)
    reach = AccessResolver(workspace.resolve_mirror_settings(environment), root)
    names = {registry.host, *(copy.source.host for copy in copies)}
    reaches = {name: reach(name) for name in sorted(names)}
    made = exporter(
        ExportMaterial(
            environment=environment_name,
            registry=registry,
            url=reaches[registry.host].url,
            ca=read_registry_ca(registry, root),
            lock=held,
            mirror=mirror,
            hosts=hosts,
            copies=copies,
            images=tuple(image for image in images if image.ref in held.by_id),
            reaches=reaches,
            ca_of=lambda name: read_ca(reaches[name]),
            version=version,
        )
    )
    missing = sorted(covered - {image.id for image in held})
    left_out = tuple(
        f"{ref} is not"
        f" locked{_platforms_note(mirror) if lock.find_image(ref) else ''}, so that it is left out"
        for ref in missing
    )
    return ExportedFiles(made.files, made.patterns, (*left_out, *made.notes))


def _platforms_note(mirror: MirrorNaming) -> str:
    return f" for {', '.join(mirror.platforms)}"


def _list_copies(lock: Lock, mirror: MirrorNaming, workspace: Workspace) -> tuple[ImageCopy, ...]:
    """Each target once, as the mirror has it; sorted."""
    targets = mirror.mirror_refs(lock)
    sources = PullSources(workspace.registries.sources)
    groups: dict[str, list[LockedImage]] = {}
    for image in lock:
        groups.setdefault(targets[image.id].reference, []).append(image)
    copies = []
    for _, images in sorted(groups.items()):
        image = images[0]
        named = ImageRef.parse(workspace.images.find_substitute(image.id) or image.id)
        copies.append(
            ImageCopy(
                ids=tuple(each.id for each in images),
                origin=image.image,
                source=sources.resolve_ref(image.image),
                # Another's, where kfdeploy.yaml has changed since it was locked.
                tag=tag_of(named) if named.repository == image.image.repository else "",
                target=targets[image.id],
            )
        )
    return tuple(copies)


def join_files(made: ExportedFiles) -> str:
    """The files as one stream; where there are several, each below its name."""
    if len(made.files) == 1:
        return next(iter(made.files.values()))
    return "\n".join(f"# {name}\n{content}" for name, content in made.files.items())


def plan_changes(made: ExportedFiles, folder: Path) -> tuple[dict[str, str], list[str]]:
    """What writing into a folder would do: files to write, and earlier ones to remove.

    A file that no export wrote stays, whatever its name, unless a new one takes its place.
    """
    fresh = {
        name: content
        for name, content in made.files.items()
        if not (folder / name).is_file() or read_bytes(folder / name) != content.encode()
    }
    stale = [
        path.relative_to(folder).as_posix()
        for pattern in made.patterns
        for path in sorted(folder.glob(pattern))
        if path.is_file() and read_bytes(path).startswith(f"# {MARK}".encode())
    ]
    return fresh, [name for name in stale if name not in made.files]
