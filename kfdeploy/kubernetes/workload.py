"""Pods in objects: the pod template of each kind, its containers, and what its pods read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kfdeploy.kubernetes.accessors import (
    Body,
    as_list,
    get_mapping,
    get_text,
    get_value,
    list_mappings,
)
from kfdeploy.kubernetes.objects import ObjectKey, Path

_TEMPLATES: Final[dict[str, tuple[str, ...]]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"),
        ("spec", "template"),
    ),
}
WORKLOADS: Final = frozenset(_TEMPLATES)
"""Kinds whose objects are pods, or have a pod template."""
CONTAINERS: Final = ("initContainers", "containers", "ephemeralContainers")
"""Fields of a pod spec that are lists of containers, in the order in which they start."""


def template_path(kind: str) -> tuple[str, ...] | None:
    """Return the path of a kind's pod template (its metadata and spec); None if it has none."""
    return _TEMPLATES.get(kind)


def pod_spec(body: Body) -> dict[str, Any]:
    """Return the pod spec of a workload; empty for an object of another kind."""
    path = template_path(get_text(body, "kind"))
    spec = None if path is None else get_value(body, *path, "spec")
    return spec if isinstance(spec, dict) else {}


def list_containers(body: Body) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each container of a workload, with its path in the object."""
    path = template_path(get_text(body, "kind")) or ()
    spec = pod_spec(body)
    for field in CONTAINERS:
        for index, container in enumerate(as_list(spec.get(field))):
            if isinstance(container, dict):
                yield (*path, "spec", field, index), container


def list_image_volumes(spec: Body) -> Iterator[tuple[str, str]]:
    """Yield name and image of each volume of a pod spec that is an image."""
    for volume in list_mappings(spec, "volumes"):
        if reference := get_text(volume, "image", "reference"):
            yield get_text(volume, "name"), reference


def list_pull_secrets(node: Body) -> Iterator[str]:
    """Yield the names in ``imagePullSecrets`` of a pod spec or a service account."""
    for entry in list_mappings(node, "imagePullSecrets"):
        if name := get_text(entry, "name"):
            yield name


def mounts_config(body: Body, key: ObjectKey) -> bool:
    """Return whether a workload's pods mount a ConfigMap or Secret."""
    return key.name in _list_mounted(pod_spec(body), key.kind)


def reads_config(body: Body, key: ObjectKey) -> bool:
    """Return whether a workload's pods read a ConfigMap or Secret, mounted or as variables."""
    return mounts_config(body, key) or any(
        key.name in _list_env_sources(container, key.kind) for _, container in list_containers(body)
    )


def _list_mounted(spec: Body, kind: str) -> Iterator[str]:
    # A Secret's name is in another field where the volume is that Secret alone.
    field, name = ("configMap", "name") if kind == "ConfigMap" else ("secret", "secretName")
    for volume in list_mappings(spec, "volumes"):
        if get_mapping(volume, field):
            yield get_text(volume, field, name)
        for source in list_mappings(volume, "projected", "sources"):
            if get_mapping(source, field):
                yield get_text(source, field, "name")


def _list_env_sources(container: Body, kind: str) -> Iterator[str]:
    word = "configMap" if kind == "ConfigMap" else "secret"
    for source in list_mappings(container, "envFrom"):
        yield get_text(source, f"{word}Ref", "name")
    for variable in list_mappings(container, "env"):
        yield get_text(variable, "valueFrom", f"{word}KeyRef", "name")
