"""List the images of a component that no manifest names, from the catalogue's facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kfdeploy.catalogue.facts import Catalogue, WorkloadProgram
from kfdeploy.catalogue.records import HiddenImage
from kfdeploy.catalogue.versions import Version
from kfdeploy.images.inventory import (
    ImageUse,
    UnavailableReference,
    UnreviewedGroup,
    UnreviewedProgram,
)
from kfdeploy.kubernetes.objects import Object
from kfdeploy.oci.reference import WrittenRef


def find_hidden_images(
    component: str,
    objects: Sequence[Object],
    programs: Iterable[WorkloadProgram],
    sites: Iterable[ImageUse],
) -> Iterator[ImageUse]:
    """Yield the hidden images that a component can pull as it is configured.

    A default that the manifest overrides is not among them: the value that overrides it is a site
    of its own.

    Args:
        component: the component's name.
        objects: its objects without CRDs.
        programs: the programs of its workloads.
        sites: the images that its objects name; some hidden images are derived from them.
    """
    names = {(item.key.kind, item.key.name) for item in objects}
    named = list(sites)
    seen: set[HiddenImage] = set()
    for program in programs:
        if program.entry is None or not program.is_known:
            continue
        for image in program.entry.images_at(program.version):
            if image in seen or not image.has_objects(names):
                continue
            seen.add(image)
            if image.of is not None:
                yield from _derive_from_site(component, image, named)
            else:
                yield from _find_compiled_in(component, image, program, objects)


def _find_compiled_in(
    component: str, image: HiddenImage, program: WorkloadProgram, objects: Sequence[Object]
) -> Iterator[ImageUse]:
    redirect, target = image.redirect, None
    if redirect is not None:
        target = next((item for item in objects if redirect.is_of(item.key)), None)
        if target is not None and redirect.is_set(target.body, objects):
            return
    # One operator may have several programs: the one that the record names pulls the image.
    puller = next(
        (item.key for item in objects if image.names_object(item.key)),
        program.object,
    )
    for text in image.references:
        yield ImageUse(
            ref=WrittenRef.parse(text),
            component=component,
            object=target.key if target else puller,
            field=f"spec.template.spec.containers[name={redirect.container}]"
            if target and redirect and redirect.container
            else "",
            path=(),
            how="catalogue",
            redirect=str(redirect) if target else "none",
            need=image.need,
            note=image.when,
            source=_source_for_version(image.source, program),
            pin="" if image.digest else "tag",
            adds=redirect if target else None,
            outside=image.outside,
            pulled_by=image.pulled_by or "",
        )


def _source_for_version(source: str, program: WorkloadProgram) -> str:
    """Return a fact's sources without those of versions other than the one that runs.

    A repository with no source at that version (an SDK's, for example) keeps all its sources.
    Sources at a tag that is not a version (``sdk-2.14.3``) stay, too.
    """
    places = source.split("; ")
    there = {place: place.partition(":")[0].partition("@") for place in places}
    exact = {
        repository
        for repository, _, tag in there.values()
        if program.version is not None and Version.parse(tag) == program.version
    }
    return "; ".join(
        place
        for place, (repository, _, tag) in there.items()
        if repository not in exact or Version.parse(tag) in (None, program.version)
    )


def _derive_from_site(
    component: str, image: HiddenImage, sites: Sequence[ImageUse]
) -> Iterator[ImageUse]:
    """Yield the references that an operator derives from a site's.

    The patch of the site redirects them. They exist only for sites that are pinned by tag: the
    operator appends its suffix to the tag, and appends nothing to a digest.
    """
    assert image.of is not None
    for site in sites:
        if not (site.path and image.of.matches(site.object, site.field)):
            continue
        derived = WrittenRef.try_parse(f"{site.ref.text.partition('@')[0]}{image.suffix}")
        if derived and site.ref.parsed.tag and site.pin == "tag":
            yield ImageUse(
                ref=derived,
                component=component,
                object=site.object,
                field=site.field,
                path=(),
                how="catalogue",
                redirect="patch",
                place=site.place,
                overridden_by=site.overridden_by,
                need=image.need,
                note=image.when,
                source=image.source,
                pin="tag",
            )


def find_unavailable_images(
    facts: Catalogue, found: Iterable[ImageUse]
) -> Iterator[UnavailableReference]:
    """Yield the images found that their source no longer has, with the known substitutes."""
    for ref in {use.ref for use in found}:
        if known := facts.find_unavailable(ref):
            substitute = known.substitute_for(ref.parsed)
            yield UnavailableReference(ref, known.why, known.source, substitute)


def find_unknown_programs(
    component: str, programs: Iterable[WorkloadProgram]
) -> Iterator[UnreviewedProgram]:
    """Yield the programs that nobody has reviewed for hidden images at the versions that run."""
    for program in programs:
        if program.is_known:
            continue
        entry, nearest = program.entry, None
        refs: set[str] = set()
        if entry is not None:
            nearest = entry.nearest_reviewed(program.version)
            for image in entry.images_at(nearest):
                refs.update(image.references)
        yield UnreviewedProgram(
            component=component,
            object=program.object,
            image=program.image,
            version=str(program.version or ""),
            entry=entry.component if entry else "",
            nearest=str(nearest or ""),
            images=tuple(sorted(refs)),
        )


def group_unknown_programs(programs: Iterable[UnreviewedProgram]) -> list[UnreviewedGroup]:
    """Return the programs that nobody has looked at, once for each version, sorted."""
    groups: dict[tuple[str, str], set[str]] = {}
    for program in programs:
        key = (program.entry, program.version if program.entry else program.image)
        groups.setdefault(key, set()).add(program.image)
    return [
        UnreviewedGroup(entry, version if entry else "", tuple(sorted(refs)))
        for (entry, version), refs in sorted(groups.items())
    ]
