"""Flux: the set as a source, and a Kustomization for each release.

Facts from the source of kustomize-controller and source-controller 1.9 and of pkg/kustomize 1.41:
Flux builds a path without a kustomization.yaml from all YAML files below it, and each must hold
Kubernetes objects. A release's folder has the files of a chart too, so `spec.ignore` of the source
excludes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.export.delivery import (
    KEPT,
    WEBHOOKS,
    Delivery,
    DeliveryOptions,
    check_object_name,
    gather_delivery,
    webhooks_with_empty_ca,
)
from kfdeploy.export.format import ExportedFiles, ExportFormat, ExportOption
from kfdeploy.releaseset.folder import SetRelease
from kfdeploy.yamltext import emit

NAME: Final = "flux"
FILE: Final = "flux.yaml"
_NAMESPACE: Final = "flux-system"
_CRDS: Final = "crds"
_PRUNE: Final = "kustomize.toolkit.fluxcd.io/prune"
_API: Final = "kustomize.toolkit.fluxcd.io/v1"
_READY: Final = "status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')"
_TRUSTED: Final = (
    "webhooks.all(w, has(w.clientConfig.caBundle) && size(w.clientConfig.caBundle) > 8)"
)
"""A placeholder in Base64 is shorter than that, a certificate longer."""


@dataclass(frozen=True, slots=True)
class FluxOptions(DeliveryOptions):
    """Hold the options of both engines, and Flux's own.

    Attributes:
        interval: how often Flux looks at the source and at the cluster.
        secret: Flux's Secret for signing in to the registry or to Git.
    """

    interval: Annotated[
        str, ExportOption("--interval", "How often Flux looks, such as 10m.", metavar="TIME")
    ] = "10m"
    secret: Annotated[
        str,
        ExportOption("--secret", "Flux's Secret for signing in to the source.", metavar="NAME"),
    ] = ""


def export(delivery: Delivery[FluxOptions]) -> ExportedFiles:
    """Return one file with the source, the CRDs, and the releases in their order.

    Raises:
        UserError: an option that Flux can't take, or an object's name that is too long.
    """
    _check_options(delivery.options)
    documents = [*_ca_secret(delivery), _source_object(delivery)]
    has_crds = any(release.crds for release in delivery.release_set.releases)
    if has_crds:
        documents.append(_crd_kustomization(delivery))
    documents += [
        _release_kustomization(delivery, release, has_crds) for release in delivery.filled_releases
    ]
    text = delivery.header_line(NAME) + emit.dump_documents(documents)
    return ExportedFiles({FILE: text}, (FILE,), tuple(_list_notes(delivery)))


def _check_options(options: FluxOptions) -> None:
    check_object_name("--secret", options.secret)
    if not re.fullmatch(r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+", options.interval):
        raise UserError(
            f"--interval {options.interval}: must be a duration, such as 10m or 1h",
            exit_code=WRONG_USE,
        )


def _list_notes(delivery: Delivery[FluxOptions]) -> Iterator[str]:
    if delivery.options.source == "git":
        return
    if not delivery.options.tag:
        yield (f"run `kfdeploy publish {delivery.release_set.name}`: Flux pulls what it pushes")
    if delivery.skips_verify:
        yield (
            "Flux always checks the registry's certificate: name the CA in registries.private.ca"
        )


def _object_metadata(delivery: Delivery[FluxOptions], name: str) -> dict[str, Any]:
    return {"name": name, "namespace": delivery.options.namespace or _NAMESPACE}


def _ca_secret(delivery: Delivery[FluxOptions]) -> Iterator[dict[str, Any]]:
    if delivery.ca and delivery.options.source == "oci":
        yield {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": _object_metadata(delivery, f"{delivery.options.name}-registry-ca"),
            "type": "Opaque",
            "stringData": {"ca.crt": delivery.ca},
        }


def _source_object(delivery: Delivery[FluxOptions]) -> dict[str, Any]:
    options, ref = delivery.options, delivery.artifact
    spec: dict[str, Any] = {"interval": options.interval}
    if options.source == "git":
        spec |= {"url": options.repository, "ref": {"branch": options.revision}}
    else:
        spec |= {
            "url": f"oci://{ref.repository}",
            # With the digest, even a tag that moves can't change what was reviewed.
            "ref": {"tag": options.tag} if options.tag else {"tag": ref.tag, "digest": ref.digest},
        }
        if delivery.is_plain:
            spec["insecure"] = True
        if delivery.ca:
            spec["certSecretRef"] = {"name": f"{options.name}-registry-ca"}
    if options.secret:
        spec["secretRef"] = {"name": options.secret}
    # Only the set, and of its charts only the manifests.
    root = delivery.path_in_source("")
    at = "" if root in ("", ".") else f"/{root}"
    parents = [f"!{path}\n{path}/*\n" for path in _parent_paths(at)]
    last = f"!{at}/crds\n!{at}/charts\n{at}/charts/**/Chart.yaml\n{at}/charts/**/templates/\n"
    spec["ignore"] = "/*\n" + "".join(parents) + last
    return {
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "GitRepository" if options.source == "git" else "OCIRepository",
        "metadata": _object_metadata(delivery, options.name),
        "spec": spec,
    }


def _parent_paths(path: str) -> Iterator[str]:
    parts = path.split("/")[1:]
    for count in range(1, len(parts) + 1):
        yield "/" + "/".join(parts[:count])


def _build_kustomization(
    delivery: Delivery[FluxOptions], name: str, path: str, spec: dict[str, Any]
) -> dict[str, Any]:
    options = delivery.options
    return {
        "apiVersion": _API,
        "kind": "Kustomization",
        "metadata": _object_metadata(delivery, delivery.object_name(name)),
        "spec": {
            "interval": options.interval,
            "retryInterval": "1m",
            "timeout": "15m",
            "sourceRef": {
                "kind": "GitRepository" if options.source == "git" else "OCIRepository",
                "name": options.name,
            },
            "path": f"./{delivery.path_in_source(path)}",
            "force": False,
            **spec,
        },
    }


def _crd_kustomization(delivery: Delivery[FluxOptions]) -> dict[str, Any]:
    return _build_kustomization(
        delivery,
        _CRDS,
        "crds",
        {"prune": False, "wait": True, "patches": [_keep_patch("CustomResourceDefinition")]},
    )


def _release_kustomization(
    delivery: Delivery[FluxOptions], release: SetRelease, has_crds: bool
) -> dict[str, Any]:
    needs = [delivery.object_name(name) for name in delivery.needed_releases(release)]
    if not needs and has_crds:
        needs = [delivery.object_name(_CRDS)]
    checked = list(delivery.waits_for(release))
    kinds = sorted({item.key.kind for item in release.objects} & KEPT)
    patches = [_keep_patch(kind) for kind in kinds]
    patches += [
        _remove_ca_patch(key.kind, key.name, places)
        for key, places in webhooks_with_empty_ca(release)
    ]
    spec: dict[str, Any] = {"prune": True, "wait": False}
    if needs:
        spec["dependsOn"] = [{"name": name} for name in needs]
    if checked:
        spec["healthChecks"] = [key.to_json() for key in checked]
        if expressions := list(_health_expressions(release, {key.kind for key in checked})):
            spec["healthCheckExprs"] = expressions
    if patches:
        spec["patches"] = patches
    path = f"charts/{release.name}/charts/objects"
    return _build_kustomization(delivery, release.name, path, spec)


def _keep_patch(kind: str) -> dict[str, Any]:
    """Return a patch for all objects of a kind; with a target, the patch's own name is ignored."""
    patch = {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": "any", "annotations": {_PRUNE: "disabled"}},
    }
    return {"target": {"kind": kind}, "patch": emit.dump_document(patch)}


def _remove_ca_patch(kind: str, name: str, places: tuple[int, ...]) -> dict[str, Any]:
    patch = "".join(
        f"- op: remove\n  path: /webhooks/{place}/clientConfig/caBundle\n" for place in places
    )
    return {"target": {"kind": kind, "name": name}, "patch": patch}


def _health_expressions(release: SetRelease, kinds: set[str]) -> Iterator[dict[str, Any]]:
    """Yield a check for kinds whose objects Flux takes for ready before they have a status."""
    seen = set()
    for item in release.objects:
        key = item.key
        if key.kind not in kinds or (key.group, key.kind) in seen:
            continue
        current = _TRUSTED if key.kind in WEBHOOKS else _READY
        if key.kind in WEBHOOKS or key.group == "cert-manager.io":
            seen.add((key.group, key.kind))
            yield {"apiVersion": key.api_version, "kind": key.kind, "current": current}


FORMAT: Final = ExportFormat(
    name=NAME,
    summary="Flux: OCIRepository and Kustomizations",
    audience="GitOps engines",
    gather=gather_delivery,
    export=export,
    options=FluxOptions,
    sets="one",
)
