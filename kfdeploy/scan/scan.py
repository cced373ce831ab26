"""The tree -> Inventory: every image, with where it was found and what redirects it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kfdeploy import parallel
from kfdeploy.cache import Cache, make_cache_key, program_digest
from kfdeploy.codec import pack, unpack
from kfdeploy.images.inventory import ComponentScan, Inventory, merge_scans
from kfdeploy.upstream.build import RenderedComponent

if TYPE_CHECKING:
    from kfdeploy.catalogue.load import CatalogueLoader


def scan(
    version: str,
    rendered: Sequence[RenderedComponent],
    cache: Cache,
    *,
    facts: CatalogueLoader,
    known: Mapping[str, ComponentScan] | None = None,
    jobs: int = 2,
) -> Inventory:
    """Every image of the rendered components.

    Args:
        version: the upstream's, for the catalogue and the report.
        rendered: what the components render.
        known: what `component` gave already, by the component's name.

    Returns:
        The inventory; what could not be told is among its problems.

    Raises:
        UserError: a rendered document that can't be read.
    """

    def scan_one(item: RenderedComponent) -> ComponentScan:
        return (known or {}).get(item.component.name) or scan_component(version, item, cache, facts)

    parts = parallel.map_collecting_errors(scan_one, rendered, jobs)
    return merge_scans(version, parts)


def scan_component(
    version: str, rendered: RenderedComponent, cache: Cache, facts: CatalogueLoader
) -> ComponentScan:
    """One component's images, problems and programs that nobody has looked at."""
    name = rendered.component.name
    key = make_cache_key("scan", version, name, rendered.key, program_digest(), facts.own_digest)
    kept = cache.get_json(key)
    if kept is not None:
        return unpack(ComponentScan, kept)
    # Only here: what is kept needs neither the catalogue nor the traversal.
    from kfdeploy.scan import component as scan_sites

    part = scan_sites.scan_objects(rendered, facts.load())
    cache.put_json(key, pack(part))
    return part
