"""patches, Lock, environment -> releases/<set>/."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kfdeploy import __version__, parallel
from kfdeploy.cache import Cache, make_cache_key, program_digest
from kfdeploy.catalogue import hidden_images
from kfdeploy.checksums import SUMS_FILE, dump_checksums
from kfdeploy.errors import UserError, raise_all
from kfdeploy.features.feature import Feature
from kfdeploy.files import sha256_hex
from kfdeploy.images import lockfile
from kfdeploy.images.inventory import UnreviewedProgram
from kfdeploy.images.lockfile import Lock
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.images.sources_file import SourceImage
from kfdeploy.kubernetes.objects import Object, join_objects
from kfdeploy.oci.reference import ImageRef
from kfdeploy.patch import apply
from kfdeploy.patch.fill import TemplateFiller, environment_values, registry_name
from kfdeploy.patch.values import ImageValues, build_image_values
from kfdeploy.releaseset import format
from kfdeploy.releaseset.format import RenderedRelease
from kfdeploy.releaseset.order import contents
from kfdeploy.releaseset.order import plan as order
from kfdeploy.releaseset.order.plan import PlannedRelease, ReleasePlan
from kfdeploy.releaseset.summary import (
    SUMMARY_FILE,
    ImageSummary,
    ReleaseSummary,
    SetSummary,
    dump_summary,
)
from kfdeploy.upstream.build import RenderedComponent
from kfdeploy.workspace.settings import Workspace


@dataclass(frozen=True)
class ReleaseSet:
    """What `render` makes: relative path to bytes, and what an operator should know."""

    files: Mapping[str, bytes]
    releases: tuple[RenderedRelease, ...]
    summary: SetSummary
    order: ReleasePlan


def render(
    workspace: Workspace,
    root: Path,
    environment_name: str,
    rendered: Sequence[RenderedComponent],
    images: Sequence[SourceImage],
    lock: Lock,
    version: str,
    cache: Cache,
    *,
    not_read: Sequence[UnreviewedProgram] = (),
    unpinned: bool = False,
    jobs: int = 2,
    on_done: Callable[[str], None] = lambda name: None,
) -> ReleaseSet:
    """The release set of an environment.

    Args:
        images: what ``images.sources.yaml`` lists.
        version: the upstream's.
        not_read: programs whose hidden images nobody has looked at; the summary names them.
        unpinned: render images that aren't locked by their tag.

    Raises:
        UserError: images that aren't locked (for the environment's platforms), patches that don't
            fit, releases that need each other in a circle or are too large for Helm; all of them.
    """
    environment = workspace.environments[environment_name]
    mirror = MirrorNaming(workspace.resolve_registry(environment), environment.platforms)
    looks = build_image_values(images, lock, mirror, unpinned=unpinned)
    filler = TemplateFiller(root, environment_values(workspace, root, environment_name, looks))

    def patch_component(item: RenderedComponent) -> tuple[Object, ...]:
        return apply.apply_patches(item, filler.fill_patches(item), cache)

    patched = parallel.map_collecting_errors(
        patch_component, rendered, jobs, lambda item: on_done(item.component.name)
    )
    finals = [
        (item.component.name, objects) for item, objects in zip(rendered, patched, strict=True)
    ]
    added = list(_fill_feature_objects(workspace, root, filler))
    raise_all([error for part in added for error in part.feature.check_objects(part.objects)])
    # Policies first, so that they are there before the first pod that they are for.
    ordered = order.plan_releases(
        [*((part.release, part.objects) for part in added), *finals],
        lambda objects: _read_bodies(objects, cache),
    )
    releases = tuple(_make_release(part) for part in ordered.releases)
    raise_all(_size_errors(releases))
    return _assemble_set(
        workspace, environment_name, releases, ordered, images, looks, lock, version, not_read
    )


@dataclass(frozen=True, slots=True)
class _FeatureObjects:
    """A release of a feature, filled: its own objects, with people's beside them."""

    feature: Feature[Any]
    release: str
    objects: tuple[Object, ...]


def _fill_feature_objects(
    workspace: Workspace, root: Path, filler: TemplateFiller
) -> Iterator[_FeatureObjects]:
    for feature in workspace.list_enabled_features():
        for addition in feature.build_releases():
            objects = tuple(filler.fill_objects(root / "patches" / addition.release))
            yield _FeatureObjects(feature, addition.release, objects)


def _read_bodies(objects: Sequence[Object], cache: Cache) -> Sequence[contents.Body]:
    """What the order looks at; reading YAML takes longer than all else that it does."""
    key = make_cache_key("order", program_digest(), *(item.text for item in objects))
    if (kept := cache.get(key)) is None:
        # YAML has dates, which are only compared here.
        kept = json.dumps(contents.read_bodies(objects), default=str).encode()
        cache.put(key, kept)
    found: Sequence[contents.Body] = json.loads(kept)
    return found


def _make_release(part: PlannedRelease) -> RenderedRelease:
    crds = [one for one in part.objects if one.is_crd]
    rest = [one for one in part.objects if not one.is_crd]
    manifests = join_objects(rest)
    return RenderedRelease(
        name=part.name,
        component=part.component,
        manifests=manifests,
        crds=join_objects(crds),
        objects=len(rest),
        crd_count=len(crds),
        stored=format.stored_size(manifests),
        needs=part.needs,
        wait=part.waits,
        trusts=tuple(f"{key.kind.lower()}/{key.name}" for key in part.trusts),
    )


def _size_errors(releases: Sequence[RenderedRelease]) -> list[UserError]:
    return [
        UserError(
            f"component {release.component}: Helm would store {release.stored} bytes, and has"
            f" room for {format.STORED_GOOD}",
            hint="split the component in kfdeploy.yaml: list the bases of its kustomization",
        )
        for release in releases
        if release.stored > format.STORED_GOOD
    ]


def _summarize_image(image: SourceImage, values: ImageValues) -> ImageSummary:
    host, _, path = values.repository.partition("/")
    mirror = ImageRef(host, path, values.tag, values.digest)
    needs_tag = image.by_tag and values.by_tag != values.ref
    return ImageSummary(
        ref=image.ref,
        mirror=mirror,
        source=ImageRef.parse(values.source) if values.source else None,
        need=image.need,
        redirects=image.redirects,
        by_tag=replace(mirror, digest="") if needs_tag else None,
        is_loose=image.is_loose,
        is_copied=image.is_copied,
        is_unpinned=values.covered and not values.digest,
        lacks_redirect=image.lacks_redirect,
        why_not_mirrored=None if image.covered else image.why_not,
    )


def _summarize_release(release: RenderedRelease) -> ReleaseSummary:
    return ReleaseSummary(
        name=release.name,
        component=release.component,
        needs=release.needs,
        wait=release.wait,
        trusts=release.trusts,
        object_count=release.objects,
        crd_count=release.crd_count,
        stored_bytes=release.stored,
    )


def _assemble_set(
    workspace: Workspace,
    name: str,
    releases: tuple[RenderedRelease, ...],
    ordered: ReleasePlan,
    images: Sequence[SourceImage],
    looks: Mapping[str, ImageValues],
    lock: Lock,
    version: str,
    not_read: Sequence[UnreviewedProgram],
) -> ReleaseSet:
    environment = workspace.environments[name]
    texts: dict[str, str] = {
        "helmfile.yaml": format.dump_helmfile(
            releases, workspace.helm.namespace, environment.kube_context, environment.kube_version
        ),
        "images.lock": lockfile.dumps(lock),
    }
    for release in releases:
        texts |= format.chart_files(release, version)
        if release.crds:
            texts[f"crds/{release.name}.yaml"] = release.crds
    summary = SetSummary(
        environment=name,
        kfdeploy=__version__,
        upstream=version,
        registry=registry_name(workspace, environment),
        kube_version=environment.kube_version,
        platforms=tuple(environment.platforms),
        images={image.ref: _summarize_image(image, looks[image.ref]) for image in images},
        releases=tuple(map(_summarize_release, releases)),
        waves=tuple(map(tuple, ordered.waves)),
        unreviewed=tuple(hidden_images.group_unknown_programs(not_read)),
    )
    files = {path: text.encode("utf-8") for path, text in texts.items()}
    files[SUMMARY_FILE] = dump_summary(summary)
    sums = {path: sha256_hex(data) for path, data in files.items()}
    files[SUMS_FILE] = dump_checksums(sums)
    return ReleaseSet(files, releases, summary, ordered)
