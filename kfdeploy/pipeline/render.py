"""patches, Lock, environment -> releases/<set>/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfdeploy import __version__
from kfdeploy.cache import Cache
from kfdeploy.errors import UserError, raise_all
from kfdeploy.model import lockfile, releaseset
from kfdeploy.model.lockfile import Lock
from kfdeploy.model.objects import Object, join
from kfdeploy.model.releaseset import Release
from kfdeploy.model.sources import SourceImage
from kfdeploy.model.values import Look, look_ups
from kfdeploy.model.workspace import Environment, Workspace
from kfdeploy.tools import patching
from kfdeploy.tools.filling import Filler
from kfdeploy.tools.rendering import Rendered


@dataclass(frozen=True)
class ReleaseSet:
    """What `render` makes: relative path to bytes, and what an operator should know."""

    files: Mapping[str, bytes]
    releases: tuple[Release, ...]
    summary: Mapping[str, Any]


def render(
    workspace: Workspace,
    root: Path,
    environment_name: str,
    rendered: Sequence[Rendered],
    images: Sequence[SourceImage],
    lock: Lock,
    version: str,
    cache: Cache,
    *,
    unpinned: bool = False,
    jobs: int = 2,
    done: Callable[[str], None] = lambda name: None,
) -> ReleaseSet:
    """The release set of an environment.

    Args:
        images: what ``images.sources.yaml`` lists.
        version: the upstream's.
        unpinned: render images that aren't locked by their tag.

    Raises:
        UserError: images that aren't locked, patches that don't fit, releases too large for Helm;
            all of them.
    """
    environment = workspace.environments[environment_name]
    looks = look_ups(images, lock, workspace.registry(environment), unpinned=unpinned)
    filler = Filler(root, _values(environment_name, environment, looks))

    def one(item: Rendered) -> tuple[Object, ...]:
        return patching.apply(item, filler.patches(item), cache)

    errors: list[UserError] = []
    finals: list[tuple[Rendered, tuple[Object, ...]]] = []
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        futures = [pool.submit(one, item) for item in rendered]
        for item, future in zip(rendered, futures, strict=True):
            try:
                finals.append((item, future.result()))
            except UserError as error:
                errors += error.each()
            done(item.component.name)
    raise_all(errors)
    releases = _releases(finals)
    raise_all(_too_large(releases))
    return _assemble(workspace, environment_name, releases, images, looks, lock, version)


def _values(name: str, environment: Environment, looks: Mapping[str, Look]) -> dict[str, Any]:
    return {
        "Values": {
            "imagePullPolicy": environment.image_pull_policy or "",
            "imagePullSecrets": list(environment.image_pull_secrets),
            "images": {ref: look.to_values() for ref, look in looks.items()},
        },
        "Environment": {"Name": name},
    }


def _releases(finals: Sequence[tuple[Rendered, tuple[Object, ...]]]) -> tuple[Release, ...]:
    """One release a component, each after the one before it: upstream's own order."""
    out: list[Release] = []
    for item, objects in finals:
        crds = [one for one in objects if one.is_crd]
        rest = [one for one in objects if not one.is_crd]
        manifests = join(rest)
        out.append(
            Release(
                name=item.component.name,
                manifests=manifests,
                crds=join(crds),
                objects=len(rest),
                crd_count=len(crds),
                stored=releaseset.stored_size(manifests),
                needs=(out[-1].name,) if out else (),
            )
        )
    return tuple(out)


def _too_large(releases: Sequence[Release]) -> list[UserError]:
    return [
        UserError(
            f"component {release.name}: Helm would store {release.stored} bytes, and has room for"
            f" {releaseset.STORED_GOOD}",
            hint="split the component in kfdeploy.yaml: list the bases of its kustomization",
        )
        for release in releases
        if release.stored > releaseset.STORED_GOOD
    ]


def _assemble(
    workspace: Workspace,
    name: str,
    releases: tuple[Release, ...],
    images: Sequence[SourceImage],
    looks: Mapping[str, Look],
    lock: Lock,
    version: str,
) -> ReleaseSet:
    environment = workspace.environments[name]
    texts: dict[str, str] = {
        "helmfile.yaml": releaseset.helmfile(
            releases, workspace.helm.namespace, environment.kube_context, environment.kube_version
        ),
        "images.lock": lockfile.dumps(lock),
    }
    for release in releases:
        texts |= releaseset.charts(release, version)
        if release.crds:
            texts[f"crds/{release.name}.yaml"] = release.crds
    registry = workspace.registry(environment)
    summary = {
        "environment": name,
        "kfdeploy": __version__,
        "upstream": version,
        "registry": "/".join(part for part in (registry.host, registry.prefix) if part),
        "kubeVersion": environment.kube_version,
        "unpinned": sorted(ref for ref, look in looks.items() if look.covered and not look.digest),
        "notMirrored": {i.ref: i.why_not for i in images if not i.covered},
        "noRedirect": sorted(i.ref for i in images if not i.is_redirected),
        "images": {
            ref: {"mirror": look.ref, "source": look.source} for ref, look in sorted(looks.items())
        },
        "releases": [
            {
                "name": release.name,
                "objects": release.objects,
                "crds": release.crd_count,
                "storedBytes": release.stored,
            }
            for release in releases
        ],
    }
    files = {path: text.encode("utf-8") for path, text in texts.items()}
    files[releaseset.SUMMARY] = releaseset.summary(summary)
    files[releaseset.SUMS] = releaseset.sums(files)
    return ReleaseSet(files, releases, summary)
