"""Render a release set: patch upstream's objects, plan the releases, and write their files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from kfdeploy.oci.reference import WrittenRef
from kfdeploy.patch import apply
from kfdeploy.patch.fill import TemplateFiller, environment_values, registry_name
from kfdeploy.patch.values import ImageValues, build_image_values
from kfdeploy.releaseset import format
from kfdeploy.releaseset.format import RenderedRelease
from kfdeploy.releaseset.order import contents
from kfdeploy.releaseset.order.plan import PlannedRelease, ReleasePlan, plan_releases
from kfdeploy.releaseset.summary import (
    SUMMARY_FILE,
    ImageSummary,
    ReleaseSummary,
    SetSummary,
    dump_summary,
)
from kfdeploy.upstream.build import RenderedComponent
from kfdeploy.workspace.settings import Environment, Workspace


@dataclass(frozen=True)
class RenderSources:
    """Everything that a release set is rendered from.

    Attributes:
        root: the workspace's folder.
        environment_name: an environment of the workspace.
        components: upstream's objects, in the order of the workspace.
        images: what ``images.sources.yaml`` lists.
        version: Kubeflow's.
        not_read: programs whose hidden images nobody has looked at; the summary names them.
    """

    workspace: Workspace
    root: Path
    environment_name: str
    components: Sequence[RenderedComponent]
    images: Sequence[SourceImage]
    lock: Lock
    version: str
    not_read: Sequence[UnreviewedProgram] = ()

    @property
    def environment(self) -> Environment:
        return self.workspace.environments[self.environment_name]


@dataclass(frozen=True)
class ReleaseSet:
    """A rendered set.

    Attributes:
        files: relative path to bytes.
        order: the releases as they were planned, with the reasons for their order.
    """

    files: Mapping[str, bytes]
    releases: tuple[RenderedRelease, ...]
    summary: SetSummary
    order: ReleasePlan


def render(
    sources: RenderSources,
    cache: Cache,
    *,
    unpinned: bool = False,
    jobs: int = 2,
    on_done: Callable[[str], None] = lambda name: None,
) -> ReleaseSet:
    """Render the release set of an environment.

    Args:
        unpinned: render images that are not locked by their tag.
        on_done: called with the name of each component that is patched.

    Raises:
        UserError: images that are not locked (for the environment's platforms), patches that do not
            fit, releases that need each other in a circle or are too large for Helm; all of them.
    """
    workspace, root, environment = sources.workspace, sources.root, sources.environment
    mirror = MirrorNaming(workspace.resolve_registry(environment), environment.platforms)
    values = build_image_values(sources.images, sources.lock, mirror, unpinned=unpinned)
    filler = TemplateFiller(
        root, environment_values(workspace, root, sources.environment_name, values)
    )

    def patch_component(item: RenderedComponent) -> tuple[Object, ...]:
        return apply.apply_patches(item, filler.fill_patches(item), cache)

    patched = parallel.map_collecting_errors(
        patch_component, sources.components, jobs, lambda item: on_done(item.component.name)
    )
    names = [item.component.name for item in sources.components]
    added = list(_fill_feature_objects(workspace, root, filler))
    raise_all([error for part in added for error in part.feature.check_objects(part.objects)])
    # Policies first, so that they are there before the first pod that they are for.
    plan = plan_releases(
        [*((part.release, part.objects) for part in added), *zip(names, patched, strict=True)],
        lambda objects: _read_bodies(objects, cache),
    )
    releases = tuple(map(_render_release, plan.releases))
    raise_all(list(_size_errors(releases)))
    summary = _summarize_set(sources, values, releases, plan)
    return ReleaseSet(_build_files(sources, releases, summary), releases, summary, plan)


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
    """Return what the order reads of objects: parsing YAML takes longer than all else it does."""
    key = make_cache_key("order", program_digest(), *(item.text for item in objects))
    if (kept := cache.get(key)) is None:
        # YAML has dates, which are only compared here.
        kept = json.dumps(contents.read_bodies(objects), default=str).encode()
        cache.put(key, kept)
    bodies: Sequence[contents.Body] = json.loads(kept)
    return bodies


def _render_release(planned: PlannedRelease) -> RenderedRelease:
    crds = [item for item in planned.objects if item.is_crd]
    others = [item for item in planned.objects if not item.is_crd]
    manifests = join_objects(others)
    return RenderedRelease(
        name=planned.name,
        component=planned.component,
        manifests=manifests,
        crds=join_objects(crds),
        objects=len(others),
        crd_count=len(crds),
        stored=format.stored_size(manifests),
        needs=planned.needs,
        wait=planned.waits,
        trusts=tuple(f"{key.kind.lower()}/{key.name}" for key in planned.trusts),
    )


def _size_errors(releases: Sequence[RenderedRelease]) -> Iterator[UserError]:
    for release in releases:
        if release.stored > format.STORED_GOOD:
            yield UserError(
                f"component {release.component}: Helm would store {release.stored} bytes, and has"
                f" room for {format.STORED_GOOD}",
                hint="split the component in kfdeploy.yaml: list the bases of its kustomization",
            )


# -- the set's files -------------------------------------------------------------------------------


def _build_files(
    sources: RenderSources, releases: Sequence[RenderedRelease], summary: SetSummary
) -> dict[str, bytes]:
    environment = sources.environment
    texts: dict[str, str] = {
        "helmfile.yaml": format.dump_helmfile(
            releases,
            sources.workspace.helm.namespace,
            environment.kube_context,
            environment.kube_version,
        ),
        "images.lock": lockfile.dumps(sources.lock),
    }
    for release in releases:
        texts |= format.chart_files(release, sources.version)
        if release.crds:
            texts[f"crds/{release.name}.yaml"] = release.crds
    files = {path: text.encode("utf-8") for path, text in texts.items()}
    files[SUMMARY_FILE] = dump_summary(summary)
    sums = {path: sha256_hex(data) for path, data in files.items()}
    files[SUMS_FILE] = dump_checksums(sums)
    return files


def _summarize_set(
    sources: RenderSources,
    values: Mapping[WrittenRef, ImageValues],
    releases: Sequence[RenderedRelease],
    plan: ReleasePlan,
) -> SetSummary:
    environment = sources.environment
    return SetSummary(
        environment=sources.environment_name,
        kfdeploy=__version__,
        upstream=sources.version,
        registry=registry_name(sources.workspace, environment),
        kube_version=environment.kube_version,
        platforms=tuple(environment.platforms),
        images={image.ref: _summarize_image(image, values[image.ref]) for image in sources.images},
        releases=tuple(map(_summarize_release, releases)),
        waves=tuple(map(tuple, plan.waves)),
        unreviewed=tuple(hidden_images.group_unknown_programs(sources.not_read)),
    )


def _summarize_image(image: SourceImage, values: ImageValues) -> ImageSummary:
    needs_tag = image.by_tag and values.by_tag != values.mirror
    return ImageSummary(
        ref=image.ref,
        mirror=values.mirror,
        source=values.source,
        need=image.need,
        redirects=image.redirects,
        by_tag=values.by_tag if needs_tag else None,
        is_loose=image.is_loose,
        is_copied=image.is_copied,
        is_unpinned=values.covered and not values.mirror.digest,
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
