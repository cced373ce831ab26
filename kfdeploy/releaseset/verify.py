"""A release set against itself and the private registry: whole, mirrored, and nothing leads out."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kfdeploy import parallel
from kfdeploy.checksums import SUMS_FILE
from kfdeploy.errors import UserError
from kfdeploy.features.feature import Feature, RenderedImage, RenderedSet
from kfdeploy.features.registry import collect_upstream_namers
from kfdeploy.files import read_text
from kfdeploy.kubernetes.objects import Object, split_objects
from kfdeploy.kubernetes.workload import CONTAINERS, WORKLOADS
from kfdeploy.oci.reference import DEFAULT_HOST, ImageRef
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.releaseset.folder import SetFolder
from kfdeploy.releaseset.foreign_references import ForeignReference, find_foreign_references
from kfdeploy.releaseset.redirect_report import RedirectReport, report_redirects
from kfdeploy.releaseset.summary import SUMMARY_FILE, SetSummary

JOBS = 8


@dataclass(frozen=True)
class VerifyReport:
    """What was found. ``failures`` make the set unfit; ``notes`` are to be known."""

    images: int
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    redirects: RedirectReport
    foreign: tuple[ForeignReference, ...] = ()
    asked_registry: bool = True

    @property
    def is_good(self) -> bool:
        return not self.failures and not self.foreign

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "askedRegistry": self.asked_registry,
            "failures": self.failures,
            "foreign": [
                {"file": f.file, "line": f.line, "reference": f.reference} for f in self.foreign
            ],
            "notes": self.notes,
            "proof": self.redirects,
        }


def verify(
    release_set: SetFolder,
    *,
    client: RegistryClient | None,
    features: Sequence[Feature[Any]],
    uncovered: Sequence[str] = (),
    on_done: Callable[[str], None] = lambda ref: None,
) -> VerifyReport:
    """Check a release set.

    Args:
        client: asks the private registry; None checks all but that.
        features: what the workspace has, on or off.
        uncovered: images accepted without a redirect.

    Raises:
        UserError: the registry can't be asked at all.
    """
    folder, summary = release_set.folder, release_set.summary
    rendered = _open_rendered_set(folder, summary)
    failures = [
        *release_set.list_alterations(),
        *(text for feature in features for text in feature.check_set(rendered)),
    ]
    found = tuple(_find_foreign(folder, summary, uncovered))
    redirects = report_redirects(summary, uncovered)
    notes = list(_list_notes(folder, summary))
    notes += [
        f"{program}: nobody has looked for images that its code names; `kfdeploy scan` says how"
        for program in redirects.not_read
    ]
    failures += [
        f"{ref}: {_UNLED[image.is_copied]}"
        for ref, image in sorted(summary.images.items())
        if image.lacks_redirect and ref not in uncovered
    ]
    if client is not None:
        failures += _mirror_failures(summary, client, on_done)
    return VerifyReport(
        len(summary.images),
        tuple(failures),
        tuple(notes),
        redirects,
        found,
        asked_registry=client is not None,
    )


def _open_rendered_set(folder: Path, summary: SetSummary) -> RenderedSet:
    """Return the set as features check it."""
    return RenderedSet(
        summary.registry,
        {
            ref: RenderedImage(str(image.mirror), image.redirects, image.is_mirrored)
            for ref, image in summary.images.items()
        },
        [read_text(path) for path in folder.glob("charts/*/charts/objects/objects.yaml")],
    )


_UNLED = (
    "nothing leads it to the private registry; accept it by registries.uncovered",
    (
        "a program copies it itself, from where its code says, and neither admission nor a node's"
        " mirror leads it; accept by registries.uncovered that this fails"
    ),
)
_KIND = re.compile(r"^kind: (\w+)", re.MULTILINE)
_LISTS_UPSTREAM = frozenset((SUMS_FILE, SUMMARY_FILE, "images.lock"))
"""Files of a set that name upstream's references on purpose, and that nothing is installed from."""
_OWN_TEMPLATE = '{{ .Files.Get "objects.yaml" }}\n'
_FROM_OUTSIDE = re.compile(
    r"^\s*(?:- )?(?P<key>chart|url|repository): *[\"']?(?!\./)(?P<value>[^\s\"']+)"
    r"|^(?P<section>repositories|dependencies|bases|helmfiles):"
)


def _find_foreign(
    folder: Path, summary: SetSummary, uncovered: Sequence[str]
) -> Iterator[ForeignReference]:
    """References that lead elsewhere, in whichever file of the set, each once."""
    known: set[str] = set()
    for ref, image in summary.images.items():
        known |= {ref, str(image.upstream)}
        if image.upstream.host != DEFAULT_HOST:
            known.add(image.upstream.repository)
    seen: set[ForeignReference] = set()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name in _LISTS_UPSTREAM:
            continue
        text = read_text(path)
        let_through = list(_lines_of_upstream_namers(name, text))
        for found in (
            *find_foreign_references(
                name,
                text,
                known=known,
                registry=summary.registry,
                is_crd=name.startswith("crds/"),
            ),
            *_foreign_in_containers(name, text, summary, uncovered),
            *_foreign_in_secrets(name, text, known, summary.registry),
            *_foreign_in_charts(name, text),
        ):
            if found not in seen and not any(found.line in lines for lines in let_through):
                seen.add(found)
                yield found


def _lines_of_upstream_namers(name: str, text: str) -> Iterator[range]:
    """Return the lines of objects that name upstream's references so as to rewrite them."""
    kinds = collect_upstream_namers()
    if not name.endswith("objects.yaml") or not any(kind in text for kind in kinds):
        return
    for first, item in _numbered_objects(name, text):
        kind = _KIND.search(item.text)
        if kind is not None and kind[1] in kinds:
            yield range(first + 1, first + item.text.count("\n") + 2)


def _foreign_in_containers(
    name: str, text: str, summary: SetSummary, uncovered: Sequence[str]
) -> Iterator[ForeignReference]:
    """Images of containers that are not exactly one of the set's: a name of Docker Hub without
    anything that tells it from another word, a tag that was not locked, an image not mirrored."""
    if not name.endswith("objects.yaml"):
        return
    mirrors = {str(ref) for image in summary.images.values() for ref in image.mirror_refs}
    accepted = mirrors.union(uncovered)
    for first, item in _numbered_objects(name, text):
        kind = _KIND.search(item.text)
        if kind is None or kind[1] not in WORKLOADS:
            continue
        for image in _container_images(item.body):
            if image not in accepted:
                yield ForeignReference(name, first + _line_number(item.text, image), image)


def _container_images(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in CONTAINERS and isinstance(value, list):
                for container in value:
                    image = container.get("image") if isinstance(container, dict) else None
                    if isinstance(image, str):
                        yield image
            yield from _container_images(value)
    elif isinstance(node, list):
        for value in node:
            yield from _container_images(value)


def _foreign_in_secrets(
    name: str, text: str, known: set[str], registry: str
) -> Iterator[ForeignReference]:
    """References within a Secret's values, which are base64 and show nothing to a search."""
    if not name.endswith("objects.yaml"):
        return
    for first, item in _numbered_objects(name, text):
        kind = _KIND.search(item.text)
        if kind is None or kind[1] != "Secret":
            continue
        for key, value in (item.body.get("data") or {}).items():
            try:
                plain = base64.b64decode(str(value), validate=True).decode("utf-8")
            except ValueError:
                continue
            for found in find_foreign_references(name, plain, known=known, registry=registry):
                yield ForeignReference(
                    name, first + _line_number(item.text, f"{key}:"), found.reference
                )


def _foreign_in_charts(name: str, text: str) -> Iterator[ForeignReference]:
    """Charts, repositories and templates that Helm or Helmfile would take from outside the set."""
    base = name.rpartition("/")[2]
    if "/templates/" in name:
        if text != _OWN_TEMPLATE:
            yield ForeignReference(name, 1, "a template that `kfdeploy render` does not write")
    elif base in ("helmfile.yaml", "Chart.yaml"):
        for number, line in enumerate(text.splitlines(), 1):
            if match := _FROM_OUTSIDE.match(line):
                yield ForeignReference(name, number, match["value"] or f"{match['section']}:")


def _numbered_objects(name: str, text: str) -> Iterator[tuple[int, Object]]:
    """Each object and the number of the line before it."""
    at = 0
    for item in split_objects(text, name):
        at = text.index(item.text.rstrip("\n"), at)
        yield text.count("\n", 0, at), item


def _line_number(text: str, wanted: str) -> int:
    """The line that has a text; the first where it is written otherwise."""
    before, found, _ = text.partition(wanted)
    return before.count("\n") + 1 if found else 1


def _list_notes(folder: Path, summary: SetSummary) -> Iterator[str]:
    for ref in summary.unpinned:
        yield f"{ref} is rendered by its tag: it was not locked"
    for ref, why in summary.not_mirrored.items():
        yield f"{ref} is not mirrored ({why}); pulls of it fail until it is"
    for path in sorted(folder.glob("charts/*/charts/objects/objects.yaml")):
        for item in split_objects(read_text(path), path.parts[-4]):
            if "\nkind: Secret\n" in f"\n{item.text}" and _has_values(item.body):
                yield f"{item.key} holds credentials that upstream publishes: replace them"


def _has_values(body: Mapping[str, Any]) -> bool:
    values = {**(body.get("data") or {}), **(body.get("stringData") or {})}
    return any(value for value in values.values())


def _mirror_failures(
    summary: SetSummary, client: RegistryClient, on_done: Callable[[str], None]
) -> list[str]:
    wanted = {
        (ref, image.mirror.digest)
        for image in summary.images.values()
        if image.is_mirrored and image.mirror.digest
        for ref in image.mirror_refs
    }
    failures: list[str] = []
    errors: dict[str, UserError] = {}

    def check_image(item: tuple[ImageRef, str]) -> str | UserError | None:
        mirror, digest = item
        asked = replace(mirror, tag="") if mirror.digest else mirror
        try:
            found = client.get_digest(asked)
        except RegistryError as error:
            return error
        if found is None:
            return f"{mirror} is not in the private registry: run `kfdeploy mirror`"
        if found != digest:
            return f"{mirror} is {found} in the private registry, and not what images.lock has"
        return None

    for (mirror, _), answer in parallel.run_in_threads(
        check_image, sorted(wanted), JOBS, client.close
    ):
        if isinstance(answer, UserError):
            errors.setdefault(answer.message, answer)
        elif answer:
            failures.append(answer)
        on_done(str(mirror))
    for error in errors.values():
        raise error
    return sorted(failures)
