"""The rights to apply release sets, and an account that has them, as Kubernetes objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.apply.preflight import rbac
from kfdeploy.apply.preflight.api_versions import ResourceLocator
from kfdeploy.apply.preflight.needed_rights import RBAC, RequiredRight, collect_required_rights
from kfdeploy.export.format import (
    ExportedFiles,
    ExportFormat,
    ExportMaterial,
    ExportRequest,
    NoOptions,
)
from kfdeploy.kubernetes import helm_release
from kfdeploy.releaseset.folder import SetFolder, open_set
from kfdeploy.releaseset.order.contents import SetContents
from kfdeploy.yamltext.emit import quote_scalar

FILE: Final = "rbac.yaml"
ACCOUNT: Final = "kfdeploy"
_APPLY: Final = "kfdeploy-apply"
_PREFLIGHT: Final = "kfdeploy-preflight"
_EVERYWHERE: Final = frozenset(("default", "kube-node-lease", "kube-public", "kube-system"))
"""Namespaces that every cluster has."""
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RightsMaterial(ExportMaterial):
    """Hold the release sets that an account is to apply.

    Attributes:
        sets: the sets. Going from one set to the next needs the rights for both.
        namespace: Helm's namespace, where the account is.
        pull_secrets: names of Secrets that the preflight looks for.
    """

    sets: Sequence[SetFolder]
    namespace: str
    pull_secrets: Sequence[str] = ()


def gather_rights(request: ExportRequest[object]) -> RightsMaterial:
    """Read the release sets that the command line names, or the only one.

    Raises:
        UserError: no such set, or one of another environment.
    """
    session = request.session
    sets = [open_set(session.find_set(name)) for name in request.set_names or ("",)]
    for release_set in sets:
        session.adopt_set_environment(release_set.summary, explicit=request.is_environment_given)
    return RightsMaterial(
        sets, session.workspace.helm.namespace, session.environment.image_pull_secrets
    )


def export(material: RightsMaterial) -> ExportedFiles:
    """Return one file for an administrator to apply: ``kubectl apply -f rbac.yaml``.

    Raises:
        UserError: broken YAML in a set.
    """
    namespace = material.namespace
    needs: set[RequiredRight] = set()
    made: dict[str, str] = {}
    for release_set in material.sets:
        releases = release_set.releases
        contents = SetContents((r.name, (*r.crds, *r.objects)) for r in releases)
        found = collect_required_rights(
            contents,
            ResourceLocator(contents, namespace),
            namespace,
            waits=[release.name for release in releases if release.wait],
            pull_secrets=material.pull_secrets,
        )
        needs.update(found.with_escalations)
        for item in contents.of_kind("Namespace"):
            made[item.key.name] = item.component
    objects = list(_list_objects(sorted(needs), made, namespace))
    listed = ", ".join(release_set.name for release_set in material.sets)
    head = (
        f"# Made by kfdeploy export rbac of {listed}: what `kfdeploy apply` needs, and no more.\n"
        "# An administrator applies it once, and again for each new set: docs/rights.md.\n"
        f"# Without the ClusterRole {_PREFLIGHT}, apply works and its checks see less.\n"
    )
    text = head + "---\n".join("\n".join(_yaml_lines(body)) + "\n" for body in objects)
    return ExportedFiles({FILE: text}, (FILE,), tuple(_namespace_notes(needs, made, namespace)))


def _namespace_notes(
    needs: set[RequiredRight], made: Mapping[str, str], namespace: str
) -> Iterator[str]:
    there = _EVERYWHERE.union(made, (namespace,))
    for other in sorted({need.namespace for need in needs} - there - {""}):
        yield f"the namespace {other} is in no set: create it before you apply this file"


def _list_objects(
    needs: Sequence[RequiredRight], made: Mapping[str, str], namespace: str
) -> Iterator[Body]:
    # A Role is in its namespace, so that must be there first. Helm takes it on by these marks.
    for name in sorted({*made, namespace}):
        body: Body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        if name in made:
            body["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "Helm"}
            body["metadata"]["annotations"] = {
                helm_release.OWNER: made[name],
                helm_release.OWNER_NAMESPACE: namespace,
            }
        yield body
    account = {"name": ACCOUNT, "namespace": namespace}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}
    subjects = [{"kind": "ServiceAccount", **account}]
    for name, purpose in ((_APPLY, "apply"), (_PREFLIGHT, "preflight")):
        own = [n for n in needs if not n.namespace and n.purpose == purpose]
        yield from _role_with_binding("ClusterRole", name, "", own, subjects)
    for where in sorted({need.namespace for need in needs} - {""}):
        own = [need for need in needs if need.namespace == where]
        yield from _role_with_binding("Role", _APPLY, where, own, subjects)


def _role_with_binding(
    kind: str, name: str, namespace: str, needs: Sequence[RequiredRight], subjects: Sequence[Body]
) -> Iterator[Body]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    api = {"apiVersion": f"{RBAC}/v1"}
    yield {**api, "kind": kind, "metadata": metadata, "rules": rbac.build_rules(needs)}
    ref = {"apiGroup": RBAC, "kind": kind, "name": name}
    bound = {"kind": f"{kind}Binding", "metadata": metadata, "roleRef": ref, "subjects": subjects}
    yield {**api, **bound}


def _yaml_lines(node: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield mappings, lists and strings in block style, and a list of strings on one line."""
    for key, value in node.items():
        head = f"{indent}{quote_scalar(key)}:"
        if isinstance(value, str):
            yield f"{head} {quote_scalar(value)}"
        elif isinstance(value, Mapping):
            yield head
            yield from _yaml_lines(value, f"{indent}  ")
        elif key == "resourceNames":
            yield head
            yield from (f"{indent}- {quote_scalar(name)}" for name in value)
        elif all(isinstance(item, str) for item in value):
            yield f"{head} [{', '.join(quote_scalar(item) for item in value)}]"
        else:
            yield head
            for item in value:
                first, *rest = _yaml_lines(item, f"{indent}  ")
                yield f"{indent}- {first.strip()}"
                yield from rest


FORMAT: Final = ExportFormat(
    name="rbac",
    summary="the smallest rights that `kfdeploy apply` needs, and an account that has them",
    audience="Cluster administrators",
    gather=gather_rights,
    export=export,
    options=NoOptions,
    sets="many",
)
