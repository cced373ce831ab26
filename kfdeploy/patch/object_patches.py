"""Write the patches of one object that follow from what it is, one function for each purpose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.accessors import get_annotations
from kfdeploy.kubernetes.objects import Object
from kfdeploy.patchfile.writer import (
    JsonPatchText,
    ObjectPatch,
    describe_object,
    format_annotation_patch,
)
from kfdeploy.workspace.settings import Environment

_HOOK: Final = "helm.sh/hook"
_KEEP: Final = "helm.sh/resource-policy"
_KEPT: Final = frozenset(("Namespace", "PersistentVolumeClaim", "PersistentVolume", "Profile"))
_NAMESPACED: Final = workload.WORKLOADS | {
    *("ConfigMap", "Secret", "Service", "ServiceAccount", "Role", "RoleBinding", "Ingress"),
    *("PersistentVolumeClaim", "NetworkPolicy", "PodDisruptionBudget", "LimitRange"),
    *("ResourceQuota", "HorizontalPodAutoscaler", "Lease", "Endpoints", "EndpointSlice"),
}
"""Kubernetes' own kinds that live in a namespace (kubectl api-resources, 1.36)."""


def build_pull_patch(item: Object, environments: Iterable[Environment]) -> Iterator[ObjectPatch]:
    """Yield the patch that sets how a workload's images are pulled, if an environment says how."""
    settings = list(environments)
    has_policy = any(environment.image_pull_policy for environment in settings)
    has_secrets = any(environment.image_pull_secrets for environment in settings)
    template = workload.template_path(item.key.kind)
    containers = list(workload.list_containers(item.body))
    if template is None or not containers or not (has_policy or has_secrets):
        return
    text = JsonPatchText(item.key, "how its images are pulled")
    for path, container in containers:
        text.test_text((*path, "name"), str(container.get("name")))
    if has_secrets:
        secrets = (*template, "spec", "imagePullSecrets")
        with text.only_if(".Values.imagePullSecrets"):
            if not workload.pod_spec(item.body).get("imagePullSecrets"):
                text.add(secrets, "[]")
            with text.for_each(".Values.imagePullSecrets"):
                text.add((*secrets, "-"), "{name: {{ toJson . }}}")
    if has_policy:
        with text.only_if(".Values.imagePullPolicy"):
            for path, _ in containers:
                text.add((*path, "imagePullPolicy"), "{{ .Values.imagePullPolicy | toJson }}")
    yield ObjectPatch(item.key, "pull", str(text))


def build_keep_patch(item: Object) -> Iterator[ObjectPatch]:
    """Yield the patch that keeps an object with data when its release is removed."""
    if item.key.kind in _KEPT:
        data = "its objects and data" if item.key.kind == "Namespace" else "its data"
        head = f"# {describe_object(item.key)}: stays, with {data}, when its release goes\n"
        body = head + format_annotation_patch(item.key, (), {_KEEP: "keep"})
        yield ObjectPatch(item.key, "keep", body)


def build_hook_patch(item: Object) -> Iterator[ObjectPatch]:
    """Yield the patch that makes a chart's hook an ordinary object of its release."""
    hooks = sorted(name for name in get_annotations(item.body) if name.startswith(_HOOK))
    if hooks:
        text = JsonPatchText(
            item.key, "an ordered object of its release, no longer a hook of Helm's"
        )
        for name in hooks:
            text.remove(("metadata", "annotations", name))
        yield ObjectPatch(item.key, "hook", str(text))


def build_namespace_patch(item: Object) -> Iterator[ObjectPatch]:
    """Yield the patch that names the namespace into which kubectl would put an object."""
    if not item.key.namespace and item.key.kind in _NAMESPACED:
        text = JsonPatchText(item.key, "names no namespace; kubectl would put it into default")
        text.add(("metadata", "namespace"), "default")
        yield ObjectPatch(item.key, "namespace", str(text))


def build_rules_patch(item: Object) -> Iterator[ObjectPatch]:
    """Yield the patch that takes the empty rules from an aggregated ClusterRole.

    The controller writes them, and Helm 4 fails where it is to write them too.
    """
    if (
        item.key.kind == "ClusterRole"
        and item.body.get("aggregationRule")
        and item.body.get("rules") == []
    ):
        text = JsonPatchText(item.key, "its rules are what it gathers, and not Helm's")
        text.remove(("rules",))
        yield ObjectPatch(item.key, "rules", str(text))
