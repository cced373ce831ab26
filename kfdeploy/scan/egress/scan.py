"""Scan the rendered components for what they connect to besides image registries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from kfdeploy.cache import Cache, make_cache_key, program_digest
from kfdeploy.catalogue.facts import Catalogue, WorkloadProgram
from kfdeploy.catalogue.load import CatalogueLoader
from kfdeploy.codec import pack, unpack
from kfdeploy.errors import UserError, raise_all
from kfdeploy.kubernetes import workload
from kfdeploy.scan.egress.endpoints import find_endpoints, find_namespaces
from kfdeploy.scan.egress.report import MANIFEST, EgressRecord, EgressReport, build_report
from kfdeploy.upstream.build import RenderedComponent

_WORKLOAD = re.compile(rf"^kind: [\"']?(?:{'|'.join(sorted(workload.WORKLOADS))})\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class EgressScan:
    """One component's records, its namespaces, and the programs that nobody has reviewed."""

    records: tuple[EgressRecord, ...]
    namespaces: frozenset[str]
    unread: tuple[str, ...] = ()


def scan(
    version: str,
    rendered: Sequence[RenderedComponent],
    cache: Cache,
    *,
    facts: CatalogueLoader | None = None,
) -> EgressReport:
    """Return a report of the addresses outside the cluster that the components connect to.

    Args:
        version: the upstream's version, for the report.
        rendered: the components' objects.
        cache: results of earlier scans.
        facts: the catalogue, for connections that no manifest shows; kfdeploy's own by default.

    Raises:
        UserError: rendered documents are not valid YAML.
    """
    parts: list[EgressScan] = []
    errors: list[UserError] = []
    for item in rendered:
        try:
            parts.append(scan_component(item, cache, facts))
        except UserError as error:
            errors += error.list_errors()
    raise_all(errors)
    return build_report(
        version,
        _deduplicate_records(record for part in parts for record in part.records),
        frozenset().union(*(part.namespaces for part in parts)),
        (name for part in parts for name in part.unread),
    )


def scan_component(
    rendered: RenderedComponent, cache: Cache, facts: CatalogueLoader | None = None
) -> EgressScan:
    """Return one component's records.

    Raises:
        UserError: a rendered document is not valid YAML.
    """
    facts = facts or CatalogueLoader()
    key = make_cache_key(
        "egress", rendered.component.name, rendered.key, program_digest(), facts.own_digest
    )
    cached = cache.get_json(key)
    if cached is not None:
        return unpack(EgressScan, cached)
    catalogue = facts.load()
    workloads = [item for item in rendered.objects if _WORKLOAD.search(item.text)]
    programs = catalogue.find_programs(workloads)
    known = _find_catalogue_records(rendered, catalogue, programs)
    merged = _merge_records(list(_find_manifest_records(rendered)), list(known))
    unread = sorted({program.unread for program in programs if program.unread})
    part = EgressScan(tuple(merged), find_namespaces(rendered.objects), tuple(unread))
    cache.put_json(key, pack(part))
    return part


def _find_manifest_records(rendered: RenderedComponent) -> Iterator[EgressRecord]:
    index = None
    for item in rendered.objects:
        for endpoint in find_endpoints(item):
            index = index or rendered.build_index()
            place, overridden = index.locate_value(
                endpoint.key, item.body, endpoint.path, endpoint.text, at=endpoint.start
            )
            yield EgressRecord(
                what=endpoint.purpose.what,
                target=endpoint.address.text,
                need=endpoint.purpose.need,
                component=rendered.component.name,
                why=endpoint.purpose.why,
                way_out=endpoint.purpose.way_out,
                object=endpoint.key,
                field=endpoint.field,
                place=place,
                overridden_by=overridden,
                host=endpoint.address.host,
            )


def _merge_records(
    found: Sequence[EgressRecord], known: Sequence[EgressRecord]
) -> Iterator[EgressRecord]:
    """Yield all records; a fact about an address in a manifest is merged into its places."""
    facts = {(fact.what, fact.target): fact for fact in known}
    there = {(record.what, record.target) for record in found}
    for record in found:
        fact = facts.get((record.what, record.target))
        if fact is None:
            yield record
        else:
            way_out = f"{fact.way_out}; or {record.way_out}"
            yield replace(
                record,
                need=fact.need,
                why=fact.why,
                way_out=way_out,
                source=fact.source,
                unread=fact.unread,
            )
    yield from (fact for fact in known if (fact.what, fact.target) not in there)


def _deduplicate_records(records: Iterable[EgressRecord]) -> Iterator[EgressRecord]:
    """Yield the catalogue's facts about a program once, though several components may run it.

    Istio's own component has its facts, for example, and the gateways' components have not.
    """
    seen: set[tuple[str, ...]] = set()
    for record in records:
        fact = (record.what, record.target, record.why, record.source)
        if record.source == MANIFEST or record.place is not None or fact not in seen:
            seen.add(fact)
            yield record


def _find_catalogue_records(
    rendered: RenderedComponent, catalogue: Catalogue, programs: Sequence[WorkloadProgram]
) -> Iterator[EgressRecord]:
    named = catalogue.find_named_programs(rendered.objects)
    for program, fact in catalogue.find_egress_facts((*programs, *named)):
        is_workload = program.object.kind in workload.WORKLOADS
        yield EgressRecord(
            what=fact.what,
            target=fact.target,
            need=fact.need,
            component=rendered.component.name,
            why=fact.when,
            way_out=fact.way_out,
            source=fact.source,
            object=program.object,
            field=f"container {program.container}" if is_workload else program.container,
            unread=program.unread,
        )
