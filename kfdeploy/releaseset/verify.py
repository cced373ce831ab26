"""Verify a release set: it is whole, its images are mirrored, and nothing in it leads elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from kfdeploy import parallel
from kfdeploy.errors import UserError
from kfdeploy.features.feature import Feature, RenderedImage, RenderedSet
from kfdeploy.files import read_text
from kfdeploy.kubernetes.accessors import get_mapping
from kfdeploy.kubernetes.objects import split_objects
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.releaseset.folder import SetFolder
from kfdeploy.releaseset.foreign_files import find_foreign_in_set
from kfdeploy.releaseset.foreign_references import ForeignReference
from kfdeploy.releaseset.format import find_template_line
from kfdeploy.releaseset.redirect_report import RedirectReport, report_redirects
from kfdeploy.releaseset.summary import SetSummary

JOBS: Final = 8
_NO_REDIRECT: Final = "nothing leads it to the private registry; accept it by registries.uncovered"
_COPIED_BY_PROGRAM: Final = (
    "a program copies it itself, from where its code says, and neither admission nor a node's"
    " mirror leads it; accept by registries.uncovered that this fails"
)


@dataclass(frozen=True)
class VerifyReport:
    """The result of a check.

    Attributes:
        images: how many the set has.
        failures: what makes the set unfit.
        notes: what an operator should know.
        foreign: references that lead elsewhere; they make the set unfit too.
        asked_registry: whether the private registry was asked.
    """

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
                {"file": found.file, "line": found.line, "reference": found.reference}
                for found in self.foreign
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
        client: asks the private registry; None checks everything else.
        features: those of the workspace, on or off.
        uncovered: images that a person accepted without a redirect.
        on_done: called with each image that the registry was asked for.

    Raises:
        UserError: a file of the set can't be read, or the registry can't be asked at all.
    """
    folder, summary = release_set.folder, release_set.summary
    redirects = report_redirects(summary, uncovered)
    rendered = _open_rendered_set(folder, summary)
    failures = [
        *release_set.list_alterations(),
        *(text for feature in features for text in feature.check_set(rendered)),
        *_template_failures(folder),
        *_redirect_failures(summary, uncovered),
    ]
    foreign = tuple(find_foreign_in_set(folder, summary, uncovered))
    if client is not None:
        failures += _mirror_failures(summary, client, on_done)
    return VerifyReport(
        images=len(summary.images),
        failures=tuple(failures),
        notes=(*_image_notes(summary), *_secret_notes(folder), *_unread_notes(redirects)),
        redirects=redirects,
        foreign=foreign,
        asked_registry=client is not None,
    )


def _template_failures(folder: Path) -> Iterator[str]:
    if number := find_template_line(read_text(folder / "helmfile.yaml")):
        yield (
            f"helmfile.yaml:{number}: has a template, which Helmfile would run when the set is"
            " applied; `kfdeploy render` writes none"
        )


def _redirect_failures(summary: SetSummary, uncovered: Sequence[str]) -> Iterator[str]:
    for ref, image in sorted(summary.images.items()):
        if image.lacks_redirect and ref.text not in uncovered:
            yield f"{ref}: {_COPIED_BY_PROGRAM if image.is_copied else _NO_REDIRECT}"


def _open_rendered_set(folder: Path, summary: SetSummary) -> RenderedSet:
    """Return the set as features check it."""
    return RenderedSet(
        summary.registry,
        {
            ref.text: RenderedImage(str(image.mirror), image.redirects, image.is_mirrored)
            for ref, image in summary.images.items()
        },
        [read_text(path) for path in folder.glob("charts/*/charts/objects/objects.yaml")],
    )


# -- notes -----------------------------------------------------------------------------------------


def _image_notes(summary: SetSummary) -> Iterator[str]:
    for ref in summary.unpinned:
        yield f"{ref} is rendered by its tag: it was not locked"
    for ref, why in summary.not_mirrored.items():
        yield f"{ref} is not mirrored ({why}); pulls of it fail until it is"


def _secret_notes(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("charts/*/charts/objects/objects.yaml")):
        for item in split_objects(read_text(path), path.parts[-4]):
            if "\nkind: Secret\n" in f"\n{item.text}" and _has_values(item.body):
                yield f"{item.key} holds credentials that upstream publishes: replace them"


def _has_values(secret: Mapping[str, Any]) -> bool:
    values = {**get_mapping(secret, "data"), **get_mapping(secret, "stringData")}
    return any(values.values())


def _unread_notes(redirects: RedirectReport) -> Iterator[str]:
    for program in redirects.not_read:
        yield (
            f"{program}: nobody has looked for images that its code names; `kfdeploy scan` says how"
        )


# -- the private registry --------------------------------------------------------------------------


def _mirror_failures(
    summary: SetSummary, client: RegistryClient, on_done: Callable[[str], None]
) -> list[str]:
    """Return the images that the private registry lacks, or has with another digest.

    Raises:
        RegistryError: the registry can't be asked.
    """
    wanted = {
        (ref, image.mirror.digest)
        for image in summary.images.values()
        if image.is_mirrored and image.mirror.digest
        for ref in image.mirror_refs
    }

    def check_image(item: tuple[ImageRef, str]) -> str | RegistryError:
        try:
            return _find_mirror_failure(client, *item)
        except RegistryError as error:
            return error

    failures: list[str] = []
    errors: dict[str, UserError] = {}
    for (mirror, _), answer in parallel.run_in_threads(
        check_image, sorted(wanted), JOBS, client.close
    ):
        if isinstance(answer, RegistryError):
            errors.setdefault(answer.message, answer)
        elif answer:
            failures.append(answer)
        on_done(str(mirror))
    for error in errors.values():
        raise error
    return sorted(failures)


def _find_mirror_failure(client: RegistryClient, mirror: ImageRef, digest: str) -> str:
    """Return what is wrong with one reference in the private registry; empty where nothing is."""
    found = client.get_digest(replace(mirror, tag="") if mirror.digest else mirror)
    if found is None:
        return f"{mirror} is not in the private registry: run `kfdeploy mirror`"
    if found != digest:
        return f"{mirror} is {found} in the private registry, and not what images.lock has"
    return ""
