"""The tree -> what else an installation reaches for: packages, models, pages, services outside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from kfdeploy.cache import Cache, key_of, program_key
from kfdeploy.catalogue.facts import Catalogue, Program
from kfdeploy.catalogue.load import Facts
from kfdeploy.errors import UserError, raise_all
from kfdeploy.kubernetes import workload
from kfdeploy.scan.egress.endpoints import namespaces, reaches
from kfdeploy.scan.egress.report import MANIFEST, Record, Report, gather
from kfdeploy.upstream.build import Rendered

_WORKLOAD = re.compile(rf"^kind: [\"']?(?:{'|'.join(sorted(workload.WORKLOADS))})\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Part:
    """One component's records, the namespaces that its objects lie in, and what nobody has read."""

    records: tuple[Record, ...]
    namespaces: frozenset[str]
    unread: tuple[str, ...] = ()


def scan(
    version: str, rendered: Sequence[Rendered], cache: Cache, *, facts: Facts | None = None
) -> Report:
    """Every address outside the cluster that something in the components reaches for.

    Args:
        version: the upstream's, for the report.
        facts: the catalogue, for what no manifest shows.

    Raises:
        UserError: rendered documents that can't be read.
    """
    parts: list[Part] = []
    errors: list[UserError] = []
    for item in rendered:
        try:
            parts.append(component(item, cache, facts))
        except UserError as error:
            errors += error.each()
    raise_all(errors)
    return gather(
        version,
        _once(record for part in parts for record in part.records),
        frozenset().union(*(part.namespaces for part in parts)),
        (name for part in parts for name in part.unread),
    )


def component(rendered: Rendered, cache: Cache, facts: Facts | None = None) -> Part:
    """One component's records.

    Raises:
        UserError: a rendered document that can't be read.
    """
    facts = facts or Facts()
    key = key_of("egress", rendered.component.name, rendered.key, program_key(), facts.own)
    kept = cache.get_json(key)
    if kept is not None:
        records = tuple(Record.from_cache(record) for record in kept["records"])
        return Part(records, frozenset(kept["namespaces"]), tuple(kept["unread"]))
    catalogue = facts.catalogue()
    workloads = [item for item in rendered.objects if _WORKLOAD.search(item.text)]
    programs = catalogue.programs(workloads)
    known = _known(rendered, catalogue, programs)
    merged = _merged(list(_found(rendered)), list(known))
    unread = sorted({program.unread for program in programs if program.unread})
    part = Part(tuple(merged), namespaces(rendered.objects), tuple(unread))
    cache.put_json(
        key,
        {
            "records": [record.to_cache() for record in part.records],
            "namespaces": sorted(part.namespaces),
            "unread": part.unread,
        },
    )
    return part


def _found(rendered: Rendered) -> Iterator[Record]:
    index = None
    for item in rendered.objects:
        for reach in reaches(item):
            index = index or rendered.index()
            place, overridden = index.find(
                reach.key, item.body, reach.path, reach.text, at=reach.start
            )
            yield Record(
                what=reach.meaning.what,
                target=reach.address.text,
                need=reach.meaning.need,
                component=rendered.component.name,
                why=reach.meaning.why,
                way_out=reach.meaning.way_out,
                object=reach.key,
                field=reach.field,
                place=place,
                overridden_by=overridden,
                host=reach.address.host,
            )


def _merged(found: Sequence[Record], known: Sequence[Record]) -> Iterator[Record]:
    """Both; what the catalogue knows of an address that stands in a manifest goes to its places."""
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


def _once(records: Iterable[Record]) -> Iterator[Record]:
    """Without what the catalogue says of a program that other components run too.

    Istio's facts are given by its own component, not by each gateway's.
    """
    seen: set[tuple[str, ...]] = set()
    for record in records:
        fact = (record.what, record.target, record.why, record.source)
        if record.source == MANIFEST or record.place is not None or fact not in seen:
            seen.add(fact)
            yield record


def _known(
    rendered: Rendered, catalogue: Catalogue, programs: Sequence[Program]
) -> Iterator[Record]:
    named = catalogue.named(rendered.objects)
    for program, fact in catalogue.egress((*programs, *named)):
        is_workload = program.object.kind in workload.WORKLOADS
        yield Record(
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
