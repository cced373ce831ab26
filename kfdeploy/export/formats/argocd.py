"""Argo CD: an Application for each release, in waves, and one above them.

Facts from the source of Argo CD 3.5:

- It reads OCI sources since 3.1, with one content layer (util/oci/client.go).
- It ignores the health of an Application unless argocd-cm says how to tell it
  (docs/operator-manual/health.md). Waves of Applications would not wait.
- `helm.sh/resource-policy: keep` and CRDs survive the deletion of an Application
  (controller/appcontroller.go, shouldBeDeleted), but not pruning.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any, Final

from kfdeploy.export.delivery import (
    KEPT,
    Delivery,
    DeliveryOptions,
    gather_delivery,
    webhooks_with_empty_ca,
)
from kfdeploy.export.format import ExportedFiles, ExportFormat
from kfdeploy.releaseset.folder import SetRelease
from kfdeploy.yamltext import emit

NAME: Final = "argocd"
APPLICATIONS: Final = "applications/applications.yaml"
ROOT: Final = "root.yaml"
HEALTH: Final = "argocd-cm.yaml"
WAVE: Final = "argocd.argoproj.io/sync-wave"
WAITS: Final = "kfdeploy.io/wait"
_NAMESPACE: Final = "argocd"
_SERVER: Final = "https://kubernetes.default.svc"
_LUA: Final = """\
local hs = {status = "Progressing", message = "not synced to this revision yet"}
if obj.status == nil then
  return hs
end
local function wanted(source)
  return source ~= nil and source.targetRevision == obj.spec.source.targetRevision
end
local sync, last = obj.status.sync, obj.status.operationState
local synced = sync ~= nil and sync.status == "Synced" and sync.comparedTo ~= nil
  and wanted(sync.comparedTo.source)
local applied = last ~= nil and last.phase == "Succeeded" and last.syncResult ~= nil
  and wanted(last.syncResult.source)
if last ~= nil and (last.phase == "Failed" or last.phase == "Error") and not synced then
  return {status = "Degraded", message = last.message or last.phase}
end
if not (synced or applied) then
  return hs
end
local annotations = obj.metadata.annotations or {}
if annotations["kfdeploy.io/wait"] == "false" then
  return {status = "Healthy", message = "applied; nothing waits for it to be ready"}
end
if obj.status.health ~= nil and obj.status.health.status ~= nil then
  hs.status = obj.status.health.status
  hs.message = obj.status.health.message or ""
end
return hs
"""
"""An Application without that annotation belongs to no set: its own health counts."""


def export(delivery: Delivery[DeliveryOptions]) -> ExportedFiles:
    """Return the Applications, the one above them, and the health check that makes waves wait.

    Raises:
        UserError: an object's name is too long.
    """
    documents = [
        *(
            _crd_application(delivery, release)
            for release in delivery.release_set.releases
            if release.crds
        ),
        *(_release_application(delivery, release) for release in delivery.filled_releases),
    ]
    files = {
        APPLICATIONS: delivery.header_line(NAME) + emit.dump_documents(documents),
        HEALTH: delivery.header_line(NAME) + emit.dump_document(_health_config(delivery)),
    }
    if delivery.options.repository:
        files[ROOT] = delivery.header_line(NAME) + emit.dump_document(_root_application(delivery))
    return ExportedFiles(files, (APPLICATIONS, HEALTH, ROOT), tuple(_list_notes(delivery)))


def _list_notes(delivery: Delivery[DeliveryOptions]) -> Iterator[str]:
    options = delivery.options
    namespace = options.namespace or _NAMESPACE
    yield (
        f"waves wait only after `kubectl -n {namespace} patch configmap argocd-cm"
        f" --patch-file {HEALTH}`"
    )
    if not options.repository:
        yield (
            "there is no root Application, which keeps the others in order: name the Git repository"
            " of these files by --repo URL"
        )
    if options.source == "git":
        return
    if not options.tag:
        yield (f"run `kfdeploy publish {delivery.release_set.name}`: Argo CD pulls what it pushes")
    else:
        yield "with --tag all Applications see a new set at the same time, not in their order"
    reach = "--insecure-oci-force-http" if delivery.is_plain else ""
    reach = "--insecure-skip-server-verification" if delivery.skips_verify else reach
    added = f"argocd repo add oci://{delivery.artifact.repository} --type oci"
    yield f"tell Argo CD the repository: `{added}{reach and f' {reach}'}`"
    if delivery.ca:
        yield (
            f"put the CA of {delivery.artifact.host} into the ConfigMap argocd-tls-certs-cm,"
            f" under the key {delivery.artifact.host.partition(':')[0]}"
        )


def _build_application(
    delivery: Delivery[DeliveryOptions],
    name: str,
    wave: int,
    source: dict[str, Any],
    spec: dict[str, Any],
    waits: bool,
) -> dict[str, Any]:
    annotations = {
        WAVE: str(wave),
        WAITS: "true" if waits else "false",
        # Do not report fields that controllers own.
        "argocd.argoproj.io/compare-options": "ServerSideDiff=true",
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {
            "name": delivery.object_name(name),
            "namespace": delivery.options.namespace or _NAMESPACE,
            "annotations": annotations,
            "labels": {"app.kubernetes.io/part-of": delivery.options.name},
        },
        "spec": {
            "project": "default",
            "destination": {"server": _SERVER, "namespace": delivery.helm_namespace},
            "source": {**_source_location(delivery), **source},
            **spec,
        },
    }


def _source_location(delivery: Delivery[DeliveryOptions]) -> dict[str, Any]:
    options, ref = delivery.options, delivery.artifact
    if options.source == "git":
        return {"repoURL": options.repository, "targetRevision": options.revision}
    revision = options.tag or ref.digest
    return {"repoURL": f"oci://{ref.repository}", "targetRevision": revision}


def _crd_application(delivery: Delivery[DeliveryOptions], release: SetRelease) -> dict[str, Any]:
    """Build an Application for one release's CRDs: all CRDs are too much for one Application."""
    source = {
        "path": delivery.path_in_source("crds"),
        "directory": {"include": f"{release.name}.yaml"},
    }
    return _build_application(
        delivery,
        f"{release.name}-crds",
        -1,
        source,
        {"syncPolicy": _sync_policy(prune=False)},
        True,
    )


def _release_application(
    delivery: Delivery[DeliveryOptions], release: SetRelease
) -> dict[str, Any]:
    # With the folder above as path, Argo CD would render it as a chart.
    source = {
        "path": delivery.path_in_source(f"charts/{release.name}/charts/objects"),
        "directory": {"include": "objects.yaml"},
    }
    keeps = any(item.key.kind in KEPT for item in release.objects)
    spec: dict[str, Any] = {"syncPolicy": _sync_policy(prune=not keeps)}
    if ignored := [
        {
            "group": key.group,
            "kind": key.kind,
            "name": key.name,
            "jqPathExpressions": [".webhooks[].clientConfig.caBundle"],
        }
        for key, _ in webhooks_with_empty_ca(release)
    ]:
        spec["ignoreDifferences"] = ignored
        spec["syncPolicy"]["syncOptions"].append("RespectIgnoreDifferences=true")
    waits = any(delivery.waits_for(release))
    return _build_application(delivery, release.name, release.wave, source, spec, waits)


def _sync_policy(*, prune: bool) -> dict[str, Any]:
    """Return the policy; an Application that holds data prunes nothing.

    Argo CD can't exclude kinds from pruning, only whole Applications.
    """
    return {
        "automated": {"prune": prune, "selfHeal": True},
        "syncOptions": ["ServerSideApply=true", *([] if prune else ["Prune=false"])],
        "retry": {"limit": 10, "backoff": {"duration": "10s", "factor": 2, "maxDuration": "3m"}},
    }


def _root_application(delivery: Delivery[DeliveryOptions]) -> dict[str, Any]:
    options = delivery.options
    path = posixpath.normpath(
        posixpath.join(options.path, delivery.folder, posixpath.dirname(APPLICATIONS))
    )
    namespace = options.namespace or _NAMESPACE
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": options.name, "namespace": namespace},
        "spec": {
            "project": "default",
            "destination": {"server": _SERVER, "namespace": namespace},
            "source": {
                "repoURL": options.repository,
                "targetRevision": options.revision,
                "path": path,
            },
            "syncPolicy": {
                # Applications have no finalizer: a pruned one leaves its objects.
                "automated": {"prune": True, "selfHeal": True},
                "retry": {"limit": 5},
            },
        },
    }


def _health_config(delivery: Delivery[DeliveryOptions]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "argocd-cm",
            "namespace": delivery.options.namespace or _NAMESPACE,
        },
        "data": {"resource.customizations.health.argoproj.io_Application": _LUA},
    }


FORMAT: Final = ExportFormat(
    name=NAME,
    summary="Argo CD: Applications in waves",
    audience="GitOps engines",
    gather=gather_delivery,
    export=export,
    options=DeliveryOptions,
    sets="one",
)
