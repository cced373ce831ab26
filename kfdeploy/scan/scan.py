"""Scan the rendered components: every image, where it was found, and what redirects it."""

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
    """Return the inventory of all rendered components.

    Args:
        version: the upstream's version, for the report and the cache.
        rendered: the components' objects.
        cache: results of earlier scans.
        facts: the catalogue; it is loaded only for components that are not in the cache.
        known: results of `scan_component`, by component name, which are not computed again.
        jobs: components that are scanned at the same time.

    Returns:
        The inventory. What could not be determined is among its problems.

    Raises:
        UserError: rendered documents are not valid YAML.
    """

    def scan_one(item: RenderedComponent) -> ComponentScan:
        return (known or {}).get(item.component.name) or scan_component(version, item, cache, facts)

    parts = parallel.map_collecting_errors(scan_one, rendered, jobs)
    return merge_scans(version, parts)


def scan_component(
    version: str, rendered: RenderedComponent, cache: Cache, facts: CatalogueLoader
) -> ComponentScan:
    """Return one component's images, problems and programs that nobody has reviewed."""
    name = rendered.component.name
    key = make_cache_key("scan", version, name, rendered.key, program_digest(), facts.own_digest)
    cached = cache.get_json(key)
    if cached is not None:
        return unpack(ComponentScan, cached)
    # A cached result needs neither the catalogue nor the traversal, which are slow to import.
    from kfdeploy.scan.component import scan_objects

    result = scan_objects(rendered, facts.load())
    cache.put_json(key, pack(result))
    return result
