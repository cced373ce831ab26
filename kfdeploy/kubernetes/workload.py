"""Pods in objects: where a kind keeps its pod template, and what its pods read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kfdeploy.kubernetes.objects import ObjectKey, Path, get_field

_TEMPLATES: dict[str, Path] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"),
        ("spec", "template"),
    ),
}
WORKLOADS = frozenset(_TEMPLATES)
CONTAINERS = ("initContainers", "containers", "ephemeralContainers")


def template_path(kind: str) -> Path | None:
    """The path of a workload's pod template (its metadata and spec), or None for another kind."""
    return _TEMPLATES.get(kind)


def pod_spec(body: dict[str, Any]) -> dict[str, Any]:
    """A workload's pod spec; empty for another kind."""
    path = template_path(str(body.get("kind")))
    if path is None:
        return {}
    try:
        spec = get_field(body, (*path, "spec"))
    except KeyError:
        return {}
    return spec if isinstance(spec, dict) else {}


def list_containers(body: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each container of a workload with its path in the object."""
    path = template_path(str(body.get("kind"))) or ()
    spec = pod_spec(body)
    for group in CONTAINERS:
        for index, container in enumerate(spec.get(group) or ()):
            yield (*path, "spec", group, index), container


def mounts_config(body: dict[str, Any], key: ObjectKey) -> bool:
    """Whether a workload's pods mount a ConfigMap or Secret."""
    return key.name in _mounted_names(pod_spec(body), key.kind)


def reads_config(body: dict[str, Any], key: ObjectKey) -> bool:
    """Whether a workload's pods take a ConfigMap or Secret, as a volume or as variables."""
    return mounts_config(body, key) or any(
        key.name in _env_source_names(container, key.kind) for _, container in list_containers(body)
    )


def _mounted_names(spec: dict[str, Any], kind: str) -> Iterator[str]:
    field, name = ("configMap", "name") if kind == "ConfigMap" else ("secret", "secretName")
    for volume in spec.get("volumes") or ():
        if volume.get(field):
            yield volume[field].get(name) or ""
        for source in (volume.get("projected") or {}).get("sources") or ():
            if source.get(field):
                yield source[field].get("name") or ""


def _env_source_names(container: dict[str, Any], kind: str) -> Iterator[str]:
    word = "configMap" if kind == "ConfigMap" else "secret"
    for source in container.get("envFrom") or ():
        yield (source.get(f"{word}Ref") or {}).get("name") or ""
    for variable in container.get("env") or ():
        value = variable.get("valueFrom") or {}
        yield (value.get(f"{word}KeyRef") or {}).get("name") or ""
