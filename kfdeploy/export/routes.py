"""The map from upstream repositories to the private registry, for nodes that pull from upstream.

It is the mirror's map, by upstream host and repository instead of by image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kfdeploy.errors import UserError, raise_all
from kfdeploy.images.lockfile import LockedImage
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.oci.reference import WrittenRef


@dataclass(frozen=True, slots=True)
class Route:
    """Map one upstream repository.

    Attributes:
        path: the repository, without its host.
        target: the repository in the private registry, without its host.
        refs: the references of its images in the manifests.
    """

    path: str
    target: str
    refs: tuple[WrittenRef, ...]


@dataclass(frozen=True, slots=True)
class UpstreamHost:
    """Hold the repositories of one upstream host, sorted by path."""

    name: str
    routes: tuple[Route, ...]

    @property
    def prefix(self) -> str | None:
        """The part that the private registry puts before the path of every repository.

        None where there is no single one: ``naming`` joins or cuts elements of some paths.
        """
        prefixes = {_path_prefix(route) for route in self.routes}
        return prefixes.pop() if len(prefixes) == 1 else None

    @property
    def renamed_routes(self) -> tuple[Route, ...]:
        """The repositories whose path the private registry changes otherwise."""
        return tuple(route for route in self.routes if _path_prefix(route) is None)


def list_upstream_hosts(
    images: Iterable[LockedImage], mirror: MirrorNaming
) -> tuple[UpstreamHost, ...]:
    """Return the upstream hosts of locked images, sorted, with the target of each repository.

    The private registry itself is left out: nodes reach it anyway.

    Raises:
        UserError: a reference without a host, or two images on one target.
    """
    images = tuple(images)
    mirror.mirror_refs(images)
    found: dict[str, dict[tuple[str, str], list[WrittenRef]]] = {}
    errors: list[UserError] = []
    for image in images:
        ref = image.id.parsed
        if not ref.host:
            errors.append(
                UserError(
                    f"{image.id}: its first element is no host, so no node can be sent from"
                    " there to the private registry",
                    hint="exclude it by images.exclude in kfdeploy.yaml",
                )
            )
        elif ref.host != mirror.host:
            place = (ref.path, mirror.repository_path(image.path))
            found.setdefault(ref.host, {}).setdefault(place, []).append(image.id)
    raise_all(errors)
    return tuple(
        UpstreamHost(
            name,
            tuple(Route(*place, tuple(sorted(refs))) for place, refs in sorted(places.items())),
        )
        for name, places in sorted(found.items())
    )


def _path_prefix(route: Route) -> str | None:
    if route.target == route.path:
        return ""
    return (
        route.target.removesuffix(f"/{route.path}")
        if (route.target.endswith(f"/{route.path}"))
        else None
    )
