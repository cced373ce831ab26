"""Write `helmfile.yaml.gotmpl`: a workspace's components as Helmfile's releases."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kfdeploy.patchfile.patch_file import Form
from kfdeploy.patchfile.quoting import quote_literal

_FIELDS: tuple[tuple[str, Form], ...] = (
    ("jsonPatches", "json"),
    ("strategicMergePatches", "merge"),
    ("transformers", "transformer"),
)


@dataclass(frozen=True, slots=True)
class WorkspaceRelease:
    """One component.

    Attributes:
        chart: the folder that is built, relative to the workspace.
        namespace: a Helm chart's release namespace; empty for a kustomization, because Helmfile
            would force it on all objects.
        patches: files relative to the workspace, in order, by their form.
    """

    name: str
    chart: str
    namespace: str
    values: Sequence[str]
    patches: Mapping[Form, Sequence[str]]


@dataclass(frozen=True, slots=True)
class AddedRelease:
    """A release of a feature: the files of its objects, and the chart that prints them."""

    name: str
    chart: str
    objects: Sequence[str]


def format_helmfile(
    environments: Iterable[str],
    values: str,
    releases: Sequence[WorkspaceRelease],
    added: Sequence[AddedRelease] = (),
) -> str:
    """Return the file's text.

    Args:
        values: the file of values that patches look up, for every environment.
        added: releases of features, which come before the components.
    """
    lines = [
        "# One release a component, with its patches. What is installed is the release set that",
        "# `kfdeploy render` makes; this file is for `helmfile template`, and for reading.",
        "environments:",
    ]
    for name in environments:
        lines += [f"  {name}:", "    values:", f"    - {values}"]
    lines += ["---", "releases:"]
    for addition in added:
        lines += [f"- name: {addition.name}", f"  chart: {quote_literal(addition.chart)}"]
        lines += ["  values:", "  - objects:"]
        for name in addition.objects:
            content = f"readFile {json.dumps(name)}"
            if name.endswith(".gotmpl"):
                content = f"tpl ({content}) ."
            lines.append(f"    - {{{{ {content} | toJson }}}}")
    for release in releases:
        lines += [f"- name: {release.name}", f"  chart: {quote_literal(release.chart)}"]
        if release.namespace:
            lines.append(f"  namespace: {quote_literal(release.namespace)}")
        if release.values:
            lines += ["  values:", *(f"  - {quote_literal(name)}" for name in release.values)]
        for field, form in _FIELDS:
            if files := release.patches.get(form):
                lines += [f"  {field}:", *(f"  - {quote_literal(name)}" for name in files)]
    return "\n".join(lines) + "\n"
