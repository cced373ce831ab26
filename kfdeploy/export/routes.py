"""How a node that asks an upstream registry is led to the private one.

The same map as the mirror's, by upstream host and repository instead of by image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kfdeploy.errors import UserError, raise_all
from kfdeploy.images.lockfile import LockedImage
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.oci.reference import ImageRef


@dataclass(frozen=True, slots=True)
class Route:
    """One upstream repository.

    Attributes:
        path: the repository, without its host.
        target: where the private registry has it, without its host.
        refs: the images of it, as found.
    """

    path: str
    target: str
    refs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UpstreamHost:
    """One upstream host's repositories, by path."""

    name: str
    routes: tuple[Route, ...]

    @property
    def prefix(self) -> str | None:
        """What stands before every repository's path in the private registry; empty for nothing.

        None where no one prefix does: ``naming`` joins elements of some, or cuts them.
        """
        prefixes = {_path_prefix(route) for route in self.routes}
        return prefixes.pop() if len(prefixes) == 1 else None

    @property
    def renamed_routes(self) -> tuple[Route, ...]:
        """The repositories whose path the private registry has otherwise."""
        return tuple(route for route in self.routes if _path_prefix(route) is None)


def list_upstream_hosts(
    images: Iterable[LockedImage], mirror: MirrorNaming
) -> tuple[UpstreamHost, ...]:
    """The upstream hosts of locked images, sorted, with where each repository is mirrored.

    The private registry itself is none of them: nobody has to be led to it.

    Raises:
        UserError: a reference without a host, or two images on one target.
    """
    images = tuple(images)
    mirror.mirror_refs(images)
    found: dict[str, dict[tuple[str, str], list[str]]] = {}
    errors: list[UserError] = []
    for image in images:
        ref = ImageRef.parse(image.id)
        if not ref.host:
            errors.append(
                UserError(
                    f"{image.id}: its first element is no host, so that no node can be led from it",
                    hint="leave it out by images.exclude",
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
