"""Small release sets, made without rendering, in a workspace that has no upstream."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfdeploy import __version__
from kfdeploy.checksums import SUMS_FILE, dump_checksums
from kfdeploy.files import sha256_hex
from kfdeploy.releaseset import format
from kfdeploy.releaseset.format import RenderedRelease
from kfdeploy.releaseset.summary import (
    SUMMARY_FILE,
    ReleaseSummary,
    SetSummary,
    dump_summary,
)

Objects = Sequence[Mapping[str, Any]]
REGISTRY = "registry.test:5000"


def make_workspace(folder: Path, *, namespace: str, context: str = "test", **helm: Any) -> Path:
    """A workspace that only `apply` and its like can do something with."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "upstream": {"source": "upstream", "ref": "1.0.0"},
        "components": [{"name": "none", "path": "none"}],
        "registries": {"private": {"host": REGISTRY}},
        "environments": {"default": {"kubeContext": context, "kubeVersion": "1.36.0"}},
        "helm": {"namespace": namespace, **helm},
    }
    (folder / "kfdeploy.yaml").write_text(json.dumps(settings))  # JSON is YAML
    return folder


def write_set(
    workspace: Path,
    releases: Mapping[str, Objects],
    *,
    name: str = "default",
    waves: Sequence[Sequence[str]] = (),
    waits: Sequence[str] = (),
    upstream: str = "1.0.0",
) -> Path:
    """Releases as a set of a workspace; CRDs among their objects go where a set has them.

    Args:
        waves: names of releases; each needs all of the wave before. By default there is one.
        waits: releases that are done only when their workloads are ready.
    """
    settings = json.loads((workspace / "kfdeploy.yaml").read_text())
    order = [list(wave) for wave in waves] or [list(releases)]
    before = dict(zip(range(1, len(order)), order, strict=False))
    made = []
    for number, wave in enumerate(order):
        for one in wave:
            crds = [text_of(body) for body in releases[one] if _is_crd(body)]
            rest = [text_of(body) for body in releases[one] if not _is_crd(body)]
            manifests = "---\n".join(rest)
            release = RenderedRelease(
                name=one,
                component=one,
                manifests=manifests,
                crds="---\n".join(crds),
                objects=len(rest),
                crd_count=len(crds),
                stored=format.stored_size(manifests),
                needs=tuple(before.get(number, ())),
                wait=one in waits,
            )
            made.append(release)
    environment = settings["environments"]["default"]
    texts = {
        "helmfile.yaml": format.dump_helmfile(
            made, settings["helm"]["namespace"], environment["kubeContext"], "1.36.0"
        ),
        "images.lock": "",
    }
    for release in made:
        texts |= format.chart_files(release, upstream)
        if release.crds:
            texts[f"crds/{release.name}.yaml"] = release.crds
    summary = small_summary(
        upstream=upstream,
        releases=tuple(
            ReleaseSummary(
                name=release.name,
                component=release.component,
                needs=release.needs,
                wait=release.wait,
                object_count=release.objects,
                crd_count=release.crd_count,
                stored_bytes=release.stored,
            )
            for release in made
        ),
        waves=tuple(map(tuple, order)),
    )
    files = {path: text.encode() for path, text in texts.items()}
    files[SUMMARY_FILE] = dump_summary(summary)
    files[SUMS_FILE] = dump_checksums({path: sha256_hex(data) for path, data in files.items()})
    folder = workspace / "releases" / name
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def small_summary(**fields: Any) -> SetSummary:
    """The summary of a set without images and releases, but for these fields."""
    return replace(
        SetSummary(
            environment="default",
            kfdeploy=__version__,
            upstream="1.0.0",
            registry=REGISTRY,
            kube_version="1.36.0",
            images={},
            releases=(),
        ),
        **fields,
    )


def text_of(body: Mapping[str, Any]) -> str:
    """As YAML: of each key a line of JSON; names of kinds are plain, as kustomize prints them."""
    return "".join(
        f"{key}: {value if isinstance(value, str) else json.dumps(value)}\n"
        for key, value in body.items()
    )


def _is_crd(body: Mapping[str, Any]) -> bool:
    return bool(body["kind"] == "CustomResourceDefinition")
