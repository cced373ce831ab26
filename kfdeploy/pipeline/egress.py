"""The tree -> what else an installation reaches for: packages, models, pages, services outside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kfdeploy.cache import Cache, key_of, program_key
from kfdeploy.errors import UserError, raise_all
from kfdeploy.model import egress, workload
from kfdeploy.model.egress_report import Record, Report, gather
from kfdeploy.model.objects import Object, ObjectKey
from kfdeploy.tools.rendering import Rendered

_WORKLOAD = re.compile(rf"^kind: [\"']?(?:{'|'.join(sorted(workload.WORKLOADS))})\b", re.MULTILINE)


class Fact(Protocol):
    """What a program, or its users' code, reaches for, as the catalogue has it."""

    @property
    def what(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def need(self) -> str: ...
    @property
    def when(self) -> str: ...
    @property
    def way_out(self) -> str: ...
    @property
    def source(self) -> str: ...


class Runs(Protocol):
    """A program that a rendered workload runs."""

    @property
    def object(self) -> ObjectKey: ...
    @property
    def container(self) -> str: ...


class Facts(Protocol):
    """The catalogue, as far as it is asked here."""

    @property
    def own(self) -> str: ...
    def programs(self, objects: Iterable[Object]) -> Sequence[Any]: ...
    def egress(self, programs: Iterable[Any]) -> Iterator[tuple[Runs, Fact]]: ...


@dataclass(frozen=True, slots=True)
class Part:
    """One component's records, and the namespaces that its objects lie in."""

    records: tuple[Record, ...]
    namespaces: frozenset[str]


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
        [record for part in parts for record in part.records],
        frozenset().union(*(part.namespaces for part in parts)),
    )


def component(rendered: Rendered, cache: Cache, facts: Facts | None = None) -> Part:
    """One component's records.

    Raises:
        UserError: a rendered document that can't be read.
    """
    name = rendered.component.name
    key = key_of("egress", name, rendered.key, program_key(), facts.own if facts else "none")
    kept = cache.get_json(key)
    if kept is not None:
        records = tuple(Record.from_cache(record) for record in kept["records"])
        return Part(records, frozenset(kept["namespaces"]))
    part = Part((*_found(rendered), *_known(rendered, facts)), egress.namespaces(rendered.objects))
    cache.put_json(
        key,
        {
            "records": [record.to_cache() for record in part.records],
            "namespaces": sorted(part.namespaces),
        },
    )
    return part


def _found(rendered: Rendered) -> Iterator[Record]:
    index = None
    for item in rendered.objects:
        for reach in egress.reaches(item):
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


def _known(rendered: Rendered, facts: Facts | None) -> Iterator[Record]:
    if facts is None:
        return
    workloads = [item for item in rendered.objects if _WORKLOAD.search(item.text)]
    for program, fact in facts.egress(facts.programs(workloads)):
        yield Record(
            what=fact.what,
            target=fact.target,
            need=fact.need,
            component=rendered.component.name,
            why=fact.when,
            way_out=fact.way_out,
            source=fact.source,
            object=program.object,
            field=f"container {program.container}",
        )
