"""Check what a set's pods need of a cluster: nodes, storage and pull secrets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from kfdeploy.apply.preflight.api_versions import ResourceLocator
from kfdeploy.apply.preflight.finding import PreflightFinding
from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.accessors import (
    Body,
    get_annotations,
    get_mapping,
    get_name,
    get_spec,
    get_text,
    list_mappings,
)
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.kubernetes.readiness import find_condition
from kfdeploy.releaseset.order.contents import SetContents, SetObject

_IS_DEFAULT: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
PULL_TYPES: Final = frozenset(("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"))
"""Types of Secrets that can be used as pull secrets."""


# -- nodes ----------------------------------------------------------------------------------------


def count_platforms(nodes: Sequence[Body]) -> dict[str, int]:
    """Return ``os/arch`` of the nodes that take pods, and the number of the nodes that have it."""
    found: dict[str, int] = {}
    for node in nodes:
        if _is_schedulable(node):
            info = get_mapping(node, "status", "nodeInfo")
            name = f"{get_text(info, 'operatingSystem')}/{get_text(info, 'architecture')}"
            if name.strip("/"):
                found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def check_nodes(nodes: Sequence[Body], contents: SetContents) -> PreflightFinding:
    """Check that there is a node that takes the set's pods."""
    if not contents.pods:
        return PreflightFinding("node", "ok", "the set has no pods")
    if not nodes:
        hint = "pods wait for a node; an autoscaler that adds nodes does so when pods wait"
        return PreflightFinding("node", "error", "the cluster has no nodes", hint=hint)
    schedulable = sum(map(_is_schedulable, nodes))
    if schedulable:
        kinds = ", ".join(f"{count} of {name}" for name, count in count_platforms(nodes).items())
        return PreflightFinding("node", "ok", f"nodes that take pods: {kinds or schedulable}")
    where = tuple(f"{get_name(node)}: {_explain_unschedulable(node)}" for node in nodes)
    hint = "`kubectl describe node` shows why; `kubectl uncordon` makes a cordoned node take pods"
    return PreflightFinding("node", "error", "no node takes pods", where, hint)


def _is_schedulable(node: Body) -> bool:
    return _is_ready(node) and not get_spec(node).get("unschedulable")


def _is_ready(node: Body) -> bool:
    return find_condition(node, "Ready").get("status") == "True"


def _explain_unschedulable(node: Body) -> str:
    if _is_ready(node):
        return "is cordoned"
    return str(find_condition(node, "Ready").get("message") or "is not ready")


# -- storage --------------------------------------------------------------------------------------


class ClaimUse(NamedTuple):
    """A claim that a set has, or that a StatefulSet of it will create.

    Attributes:
        storage_class: None for the default one.
        key: the claim's key; None for one of a template.
    """

    name: str
    storage_class: str | None
    key: ObjectKey | None


def list_claims(contents: SetContents) -> list[ClaimUse]:
    """Return the set's claims, and those of its StatefulSets' templates."""
    out: list[ClaimUse] = []
    for item in contents.items:
        if item.key.kind == "PersistentVolumeClaim":
            out.append(ClaimUse(str(item), item.spec.get("storageClassName"), item.key))
        elif item.key.kind == "StatefulSet":
            for claim in list_mappings(item.spec, "volumeClaimTemplates"):
                name = f"{item}, claim {get_name(claim)}"
                out.append(ClaimUse(name, get_spec(claim).get("storageClassName"), None))
    return out


def check_storage_classes(
    contents: SetContents, classes: Sequence[Body], live_keys: Collection[ObjectKey]
) -> Iterator[PreflightFinding]:
    """Find claims whose storage class does not exist.

    Args:
        live_keys: objects of the set that exist. A claim among them has its volume, or has its own
            reason not to.
    """
    claims = [claim for claim in list_claims(contents) if claim.key not in live_keys]
    own_classes = list(contents.of_kind("StorageClass"))
    names = {get_name(body) for body in classes} | {item.key.name for item in own_classes}
    has_default = any(map(_is_default, [*classes, *(item.body for item in own_classes)]))
    existing = f"the cluster has {', '.join(sorted(names))}" if names else "the cluster has none"
    without_class = tuple(claim.name for claim in claims if claim.storage_class is None)
    missing: dict[str, list[str]] = {}
    for claim in claims:
        if claim.storage_class and claim.storage_class not in names:
            missing.setdefault(claim.storage_class, []).append(claim.name)
    needs_default = bool(without_class) and not has_default
    if needs_default:
        yield PreflightFinding(
            "storage",
            "error",
            f"claims name no storage class, and no class is the default ({existing})",
            without_class,
            f"`kubectl annotate storageclass NAME {_IS_DEFAULT[0]}=true` makes one the default, or"
            " name one by a patch",
        )
    for name, users in sorted(missing.items()):
        text = f"the storage class {name} does not exist"
        yield PreflightFinding("storage", "error", text, tuple(users), existing)
    if not missing and not needs_default:
        yield PreflightFinding("storage", "ok", f"{len(claims)} new claims have a storage class")


def _is_default(body: Body) -> bool:
    notes = get_annotations(body)
    return any(notes.get(name) == "true" for name in _IS_DEFAULT)


# -- pull secrets ----------------------------------------------------------------------------------


def find_pull_secrets(
    contents: SetContents, places: ResourceLocator, named: Sequence[str]
) -> dict[ObjectKey, list[SetObject]]:
    """Return the pull secrets that pods of the set need, and the workloads of those pods.

    Args:
        named: names of the pull secrets that the environment gives to every pod.
    """
    out: dict[ObjectKey, list[SetObject]] = {}
    for item in contents.items:
        namespace = places.locate(item).namespace
        if item.key.kind not in workload.WORKLOADS or not namespace:
            continue
        spec = workload.pod_spec(item.body)
        account_name = get_text(spec, "serviceAccountName") or "default"
        account = contents.find_object("", "ServiceAccount", namespace, account_name)
        names = {*named, *workload.list_pull_secrets(spec)}
        if account is not None:
            names |= set(workload.list_pull_secrets(account.body))
        for name in sorted(names - {""}):
            out.setdefault(ObjectKey("v1", "Secret", namespace, name), []).append(item)
    return out


def check_pull_secrets(
    wanted: Mapping[ObjectKey, Sequence[SetObject]],
    brought: Collection[tuple[str, str]],
    namespaces: Collection[str],
    types: Mapping[ObjectKey, str],
) -> Iterator[PreflightFinding]:
    """Find pull secrets that are missing, or of a wrong type, in namespaces where pods need them.

    Args:
        brought: namespace and name of the set's own Secrets.
        namespaces: the namespaces that exist.
        types: types of the Secrets that exist.
    """
    missing: dict[tuple[str, bool], list[str]] = {}
    wrong: dict[tuple[str, str], list[str]] = {}
    for key in wanted:
        if (key.namespace, key.name) in brought:
            continue
        if key not in types:
            exists = key.namespace in namespaces
            missing.setdefault((key.name, exists), []).append(key.namespace)
        elif types[key] not in PULL_TYPES:
            wrong.setdefault((key.name, types[key]), []).append(key.namespace)
    for (name, exists), where in sorted(missing.items()):
        command = f"`kubectl create secret docker-registry {name} -n NAMESPACE --docker-server=...`"
        if exists:
            text = f"the pull secret {name} does not exist, and pods need it"
            hint = f"{command} creates it"
            yield PreflightFinding("pull-secret", "error", text, tuple(where), hint)
            continue
        yield PreflightFinding(
            "pull-secret",
            "warning",
            f"the pull secret {name} cannot exist yet: its namespaces come with the set",
            tuple(where),
            f"run {command} as soon as a namespace exists; pods wait for it. Or create the"
            " namespaces first with `kubectl create namespace`: they become the set's",
        )
    for (name, kind), where in sorted(wrong.items()):
        text = f"the Secret {name} is of type {kind}, which is not for pulling images"
        hint = "its type must be kubernetes.io/dockerconfigjson"
        yield PreflightFinding("pull-secret", "error", text, tuple(where), hint)
    if wanted and not missing and not wrong:
        yield PreflightFinding(
            "pull-secret", "ok", f"{len(wanted)} pull secrets are where pods need them"
        )
