"""Write the operations that put a file into a workload's containers by a patch alone.

The file's content is an annotation of the pod template, and a downward API volume shows it as a
file (docs/decisions/008): the release gets no further object, and pods are replaced when the
content changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.objects import Path, get_field
from kfdeploy.patchfile.patch_file import format_operation
from kfdeploy.patchfile.quoting import quote_literal

PREFIX = "kfdeploy.io"


@dataclass(frozen=True, slots=True)
class PodFile:
    """A file for containers of one workload.

    Attributes:
        content: YAML on one line: a quoted string, or a template that gives one.
        mount: the file's path in the containers; with ``is_folder`` the folder that holds it.
        containers: names of the containers that get it.
    """

    name: str
    content: str
    mount: str
    containers: tuple[str, ...]
    is_folder: bool = False

    @property
    def annotation(self) -> str:
        """The annotation that has the content."""
        return f"{PREFIX}/{self.name}"

    @property
    def volume(self) -> str:
        """The volume's name."""
        return "kfdeploy-" + "".join(c if c.isalnum() else "-" for c in self.name.lower())


def build_file_operations(body: dict[str, Any], files: Sequence[PodFile]) -> Iterator[str]:
    """Yield the operations that add files to a workload and keep its other content."""
    template = workload.template_path(str(body.get("kind")))
    assert template is not None, "a workload has a pod template"
    yield from _add_annotations(body, template, files)
    spec: Path = (*template, "spec")
    has_volumes = bool(_get_existing(body, (*spec, "volumes")))
    for index, file in enumerate(files):
        field = f"metadata.annotations['{file.annotation}']"
        item = {"path": file.name, "fieldRef": {"fieldPath": field}}
        value = json.dumps({"name": file.volume, "downwardAPI": {"items": [item]}})
        yield _append_operation((*spec, "volumes"), value, is_new=not has_volumes and index == 0)
    for path, container in workload.list_containers(body):
        has_mounts = bool(container.get("volumeMounts"))
        for file in files:
            if container.get("name") in file.containers:
                yield format_operation(
                    "test", (*path, "name"), quote_literal(str(container["name"]))
                )
                value = json.dumps(_build_mount(file))
                yield _append_operation((*path, "volumeMounts"), value, is_new=not has_mounts)
                has_mounts = True


def _build_mount(file: PodFile) -> dict[str, Any]:
    mount: dict[str, Any] = {"name": file.volume, "mountPath": file.mount, "readOnly": True}
    return mount if file.is_folder else {**mount, "subPath": file.name}


def _add_annotations(
    body: dict[str, Any], template: Path, files: Sequence[PodFile]
) -> Iterator[str]:
    for path in ((*template, "metadata"), (*template, "metadata", "annotations")):
        if not _get_existing(body, path):
            yield format_operation("add", path, "{}")
    for file in files:
        place: Path = (*template, "metadata", "annotations", file.annotation)
        yield format_operation("add", place, file.content)


def _append_operation(path: Path, value: str, *, is_new: bool) -> str:
    if is_new:
        return format_operation("add", path, f"[{value}]")
    return format_operation("add", (*path, "-"), value)


def _get_existing(body: dict[str, Any], path: Path) -> Any:
    try:
        return get_field(body, path)
    except KeyError:
        return None
