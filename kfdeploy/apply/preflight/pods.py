"""What a set's pods need of a cluster: nodes, storage, and secrets to pull with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from kfdeploy.apply.preflight.api_versions import ResourceLocator
from kfdeploy.apply.preflight.finding import PreflightFinding
from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.kubernetes.readiness import find_condition
from kfdeploy.releaseset.order.contents import SetContents, SetObject

Body = Mapping[str, Any]
_DEFAULT: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
PULL_TYPES: Final = frozenset(("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"))


# -- nodes ----------------------------------------------------------------------------------------


def count_platforms(nodes: Sequence[Body]) -> dict[str, int]:
    """``os/arch`` of the nodes that take pods, and how many have it."""
    found: dict[str, int] = {}
    for node in nodes:
        if _is_schedulable(node):
            info = (node.get("status") or {}).get("nodeInfo") or {}
            name = f"{info.get('operatingSystem', '')}/{info.get('architecture', '')}"
            if name.strip("/"):
                found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def check_nodes(nodes: Sequence[Body], contents: SetContents) -> PreflightFinding:
    """Whether there is a node for the set's pods to run on."""
    if not contents.pods:
        return PreflightFinding("node", "ok", "the set has no pods")
    if not nodes:
        hint = "pods wait for one; where an autoscaler makes nodes, it makes them for pods"
        return PreflightFinding("node", "error", "the cluster has no nodes", hint=hint)
    able = [node for node in nodes if _is_schedulable(node)]
    if able:
        kinds = ", ".join(f"{count} of {name}" for name, count in count_platforms(nodes).items())
        return PreflightFinding("node", "ok", f"nodes that take pods: {kinds or len(able)}")
    where = tuple(f"{_object_name(node)}: {_explain_unschedulable(node)}" for node in nodes)
    hint = "`kubectl describe node` says why; `kubectl uncordon` lets pods on"
    return PreflightFinding("node", "error", "no node takes pods", where, hint)


def _is_schedulable(node: Body) -> bool:
    return _is_ready(node) and not (node.get("spec") or {}).get("unschedulable")


def _is_ready(node: Body) -> bool:
    return find_condition(node, "Ready").get("status") == "True"


def _explain_unschedulable(node: Body) -> str:
    if _is_ready(node):
        return "is cordoned"
    return str(find_condition(node, "Ready").get("message") or "is not ready")


# -- storage --------------------------------------------------------------------------------------


def list_claims(contents: SetContents) -> list[tuple[str, str | None, ObjectKey | None]]:
    """The set's claims: name, storage class (None: the default one), and a claim's own key."""
    out: list[tuple[str, str | None, ObjectKey | None]] = []
    for item in contents.items:
        if item.key.kind == "PersistentVolumeClaim":
            out.append((str(item), item.spec.get("storageClassName"), item.key))
        elif item.key.kind == "StatefulSet":
            for claim in item.spec.get("volumeClaimTemplates") or ():
                name = f"{item}, claim {_object_name(claim)}"
                out.append((name, (claim.get("spec") or {}).get("storageClassName"), None))
    return out


def check_storage_classes(
    contents: SetContents, classes: Sequence[Body], live_keys: Collection[ObjectKey]
) -> Iterator[PreflightFinding]:
    """Claims that no storage class is for.

    Args:
        there: objects of the set that exist; their claims have what they need, or have had it.
    """
    wanted = [(name, kind) for name, kind, key in list_claims(contents) if key not in live_keys]
    names = {_object_name(body) for body in classes}
    names |= {item.key.name for item in contents.of_kind("StorageClass")}
    without = [name for name, kind in wanted if kind is None]
    lost: dict[str, list[str]] = {}
    for name, kind in wanted:
        if kind and kind not in names:
            lost.setdefault(kind, []).append(name)
    has_default = any(_is_default(body) for body in classes) or any(
        _is_default(item.body) for item in contents.of_kind("StorageClass")
    )
    if without and not has_default:
        there_are = f"there are {', '.join(sorted(names))}" if names else "there is none at all"
        yield PreflightFinding(
            "storage",
            "error",
            f"claims name no storage class, and none is the default ({there_are})",
            tuple(without),
            f"`kubectl annotate storageclass NAME {_DEFAULT[0]}=true` makes one the default, or"
            " name one by a patch",
        )
    for kind, users in sorted(lost.items()):
        hint = f"there are {', '.join(sorted(names))}" if names else "there is none at all"
        text = f"the storage class {kind} is not there"
        yield PreflightFinding("storage", "error", text, tuple(users), hint)
    if not lost and (has_default or not without):
        yield PreflightFinding("storage", "ok", f"{len(wanted)} new claims have a storage class")


def _is_default(body: Body) -> bool:
    notes = (body.get("metadata") or {}).get("annotations") or {}
    return any(notes.get(name) == "true" for name in _DEFAULT)


# -- secrets to pull with -------------------------------------------------------------------------


def find_pull_secrets(
    contents: SetContents, places: ResourceLocator, named: Sequence[str]
) -> dict[ObjectKey, list[SetObject]]:
    """The Secrets that pods of the set pull with, and whose pods those are.

    Args:
        named: those that the environment gives to every pod.
    """
    out: dict[ObjectKey, list[SetObject]] = {}
    for item in contents.items:
        namespace = places.locate(item).namespace
        if item.key.kind not in workload.WORKLOADS or not namespace:
            continue
        spec = workload.pod_spec(dict(item.body))
        account = contents.find_object(
            "", "ServiceAccount", namespace, str(spec.get("serviceAccountName") or "default")
        )
        names = {
            *named,
            *_list_pull_secret_names(spec),
            *(_list_pull_secret_names(account.body) if account else ()),
        }
        for name in sorted(names - {""}):
            out.setdefault(ObjectKey("v1", "Secret", namespace, name), []).append(item)
    return out


def check_pull_secrets(
    wanted: Mapping[ObjectKey, Sequence[SetObject]],
    brought: Collection[tuple[str, str]],
    namespaces: Collection[str],
    types: Mapping[ObjectKey, str],
) -> Iterator[PreflightFinding]:
    """Secrets that are missing where pods need them.

    Args:
        brought: namespace and name of the set's own Secrets.
        namespaces: that exist.
        types: of the Secrets that are there.
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
        make = f"`kubectl create secret docker-registry {name} -n NAMESPACE --docker-server=..."
        if exists:
            text = f"the pull secret {name} is not there, and pods will need it"
            yield PreflightFinding("pull-secret", "error", text, tuple(where), f"{make}` makes it")
            continue
        yield PreflightFinding(
            "pull-secret",
            "warning",
            f"the pull secret {name} can't be there yet: its namespaces come with the set",
            tuple(where),
            f"{make}` as soon as a namespace is there; pods wait for it. Or make the namespaces"
            " before, as `kubectl create namespace` does: they become the set's",
        )
    for (name, kind), where in sorted(wrong.items()):
        text = f"the Secret {name} is of type {kind}, and nothing can be pulled with it"
        hint = "it has to be kubernetes.io/dockerconfigjson"
        yield PreflightFinding("pull-secret", "error", text, tuple(where), hint)
    if wanted and not missing and not wrong:
        yield PreflightFinding(
            "pull-secret", "ok", f"{len(wanted)} pull secrets are where pods need them"
        )


def _list_pull_secret_names(node: Body) -> Iterator[str]:
    for entry in node.get("imagePullSecrets") or ():
        yield str(entry.get("name", ""))


def _object_name(body: Body) -> str:
    return str((body.get("metadata") or {}).get("name", ""))
