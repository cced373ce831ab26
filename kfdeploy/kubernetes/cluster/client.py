"""A cluster's API, through ``kubectl proxy``.

kubectl knows every way to sign in that a kubeconfig can name (certificates, tokens, programs, OIDC)
and renews what expires. It listens on a socket in a folder that only this user can enter. Through
the proxy a request takes a few milliseconds; kubectl itself would have to start for each.
docs/decisions/015-apply.md
"""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

from kfdeploy.errors import UserError
from kfdeploy.kubernetes.accessors import get_value
from kfdeploy.kubernetes.cluster.discovery import DISCOVERY, DiscoveredKinds, Kind
from kfdeploy.kubernetes.cluster.errors import ApiError, ClusterUnreachable
from kfdeploy.kubernetes.cluster.transport import JSON, ApiRequest, ApiTransport
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.programs.process import BackgroundProgram, run_in_background

Cascade = Literal["background", "foreground", "orphan"]
MANAGER: Final = "kfdeploy"
"""Field manager of what kfdeploy itself writes."""
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_START_SECONDS: Final = 20.0
_FIRST_PATIENCE: Final = 10.0
"""Seconds of patience for the first request: a wrong server's name shows soon."""
_PAGE_SIZE: Final = 500


@contextlib.contextmanager
def connect(context: str | None, *, patience: float = 60.0) -> Iterator[Cluster]:
    """Sign in as kubectl does, and yield the cluster.

    Args:
        context: the kubeconfig's context; None for its current one.
        patience: seconds for which a request is repeated while the API server does not answer, is
            busy (429) or fails (5xx).

    Raises:
        UserError: kubectl is missing.
        ClusterUnreachable: there is no such context, or nobody answers.
    """
    with tempfile.TemporaryDirectory(prefix="kfdeploy-") as folder:
        path = Path(folder) / "api"  # a socket's path may have 107 bytes
        argv: list[str | Path] = ["kubectl", "proxy", f"--unix-socket={path}"]
        # kubectl proxy refuses exec and attach by default. Nothing here needs them.
        if context:
            argv.append(f"--context={context}")
        with run_in_background(argv, env={"KUBERC": "off"}) as proxy:
            _wait_for_proxy(path, proxy, context)
            cluster = Cluster(path, context or "", patience)
            first = replace(cluster, patience=min(patience, _FIRST_PATIENCE))
            with contextlib.closing(first):
                _ = first.version
            try:
                yield cluster
            finally:
                cluster.close()


def _wait_for_proxy(path: Path, proxy: BackgroundProgram, context: str | None) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return
        try:
            proxy.ensure_running()
        except UserError as error:
            name = f"the context {context}" if context else "the current context"
            raise ClusterUnreachable(
                f"cannot connect to the cluster of {name}: {error.message}",
                hint="kubeContext of the environment in kfdeploy.yaml, and KUBECONFIG, say which"
                " cluster; `kubectl config get-contexts` lists the contexts",
            ) from error
        if time.monotonic() > deadline:
            raise ClusterUnreachable(f"kubectl proxy did not start within {_START_SECONDS:g} s")
        time.sleep(0.005)


@dataclass(frozen=True)
class Cluster:
    """One API server: reads and changes its objects. Several threads may use it at once.

    Every request raises `ApiError` with the API server's answer, and `ClusterUnreachable` when no
    answer to any request comes within ``patience`` seconds.
    """

    path: Path
    context: str
    patience: float

    # -- reading ----------------------------------------------------------------------------------

    @cached_property
    def version(self) -> str:
        """Kubernetes' version, such as 1.36.3."""
        return str(self.request("GET", "/version")["gitVersion"]).lstrip("v")

    @cached_property
    def kinds(self) -> DiscoveredKinds:
        """The kinds that the server serves: read once, and by `DiscoveredKinds.refresh` again."""
        return DiscoveredKinds(lambda path: self.request("GET", path, accept=DISCOVERY))

    def get(self, key: ObjectKey) -> dict[str, Any] | None:
        """Return an object; None if it does not exist or its kind is not served."""
        if (path := self._object_path(key)) is None:
            return None
        try:
            found: dict[str, Any] = self.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def list(
        self,
        api_version: str,
        kind: str,
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        metadata: bool = False,
    ) -> list[dict[str, Any]]:
        """Return all objects of a kind, with apiVersion and kind; none if it is not served.

        Args:
            labels: a label selector.
            fields: a field selector.
            metadata: return the objects' metadata only.
        """
        if (found := self.kinds.of(api_version, kind)) is None:
            return []
        path, accept = found.url_path(namespace), _METADATA if metadata else JSON
        query = {"limit": str(_PAGE_SIZE), "labelSelector": labels, "fieldSelector": fields}
        out: list[dict[str, Any]] = []
        token = ""
        while True:
            try:
                page = self.request("GET", path, query={**query, "continue": token}, accept=accept)
            except ApiError as error:
                if error.status == 404:  # the kind is no longer served
                    return out
                if error.status == 410 and token:  # the token has expired: begin again
                    out, token = [], ""
                    continue
                raise
            # The items of a list do not say their kind.
            out += (
                {**item, "apiVersion": api_version, "kind": kind} for item in page["items"] or ()
            )
            token = get_value(page, "metadata", "continue") or ""
            if not token:
                return out

    # -- changes ----------------------------------------------------------------------------------

    def apply(
        self,
        what: Object | Mapping[str, Any],
        *,
        manager: str = MANAGER,
        force: bool = False,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Apply an object server-side and return the object as it is stored then.

        Args:
            what: an `Object` is sent as its own YAML text.
            force: take over fields that other managers own.
        """
        text = what.text if isinstance(what, Object) else json.dumps(what)
        key = what.key if isinstance(what, Object) else ObjectKey.from_body(dict(what))
        query = {"fieldManager": manager, "force": "true" if force else ""}
        return self._write_object("PATCH", key, text, query, dry_run=dry_run, content=_APPLY)

    def create(self, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create an object and return it; an existing one is an `ApiError` (409 AlreadyExists)."""
        key = ObjectKey.from_body(dict(body))
        path = self._require_kind(key).url_path(key.namespace)
        query = {"fieldManager": MANAGER, "dryRun": "All" if dry_run else ""}
        created: dict[str, Any] = self.request(
            "POST", path, json.dumps(body), query=query, purpose=f"create {key}"
        )
        return created

    def replace(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object; an `ApiError` (409 Conflict) if its resourceVersion has changed."""
        key = ObjectKey.from_body(dict(body))
        return self._write_object("PUT", key, json.dumps(body), {"fieldManager": MANAGER})

    def patch(
        self, key: ObjectKey, patch: Mapping[str, Any], *, subresource: str = ""
    ) -> dict[str, Any]:
        """Change an object by a merge patch (RFC 7386) and return it."""
        query = {"fieldManager": MANAGER}
        text = json.dumps(patch)
        return self._write_object(
            "PATCH", key, text, query, content=_MERGE, subresource=subresource
        )

    def delete(
        self,
        key: ObjectKey,
        *,
        cascade: Cascade = "background",
        dry_run: bool = False,
        uid: str = "",
    ) -> bool:
        """Delete an object, and return whether it existed.

        Args:
            cascade: how the objects that it owns are deleted.
            uid: delete this object, and not another of the same name (409 Conflict).
        """
        if (path := self._object_path(key)) is None:
            return False
        options: dict[str, Any] = {"propagationPolicy": cascade.capitalize()}
        if dry_run:
            options["dryRun"] = ["All"]
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self.request("DELETE", path, json.dumps(options), purpose=f"delete {key}")
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def _write_object(
        self,
        method: str,
        key: ObjectKey,
        text: str,
        query: Mapping[str, str],
        *,
        dry_run: bool = False,
        content: str = JSON,
        subresource: str = "",
    ) -> dict[str, Any]:
        path = self._require_kind(key).url_path(key.namespace, key.name)
        path += f"/{subresource}" if subresource else ""
        written: dict[str, Any] = self.request(
            method,
            path,
            text,
            query={**query, "dryRun": "All" if dry_run else ""},
            content_type=content,
            purpose=f"{'try' if dry_run else 'write'} {key}",
        )
        return written

    def _object_path(self, key: ObjectKey) -> str | None:
        found = self.kinds.of(key.api_version, key.kind)
        return found.url_path(key.namespace, key.name) if found else None

    def _require_kind(self, key: ObjectKey) -> Kind:
        found = self.kinds.of(key.api_version, key.kind)
        if found is None:  # a definition may have brought it since
            found = self.kinds.refresh().of(key.api_version, key.kind)
        if found is None:
            message = f"{key.api_version} {key.kind} is not served"
            raise ApiError(str(key), 404, {"message": message})
        return found

    # -- requests ---------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = JSON,
        content_type: str = JSON,
        purpose: str = "",
    ) -> Any:
        """Send a request, again while that may help, and return the answer's JSON.

        Args:
            query: parameters of the URL; those without a value are left out.
            purpose: what the request is to do, for the error message.

        Raises:
            ApiError: the API server refuses the request.
            ClusterUnreachable: nobody answers.
        """
        parameters = {name: value for name, value in (query or {}).items() if value}
        target = quote(path) + (f"?{urlencode(parameters)}" if parameters else "")
        purpose = purpose or f"{method} {path}"
        return self._transport.send(ApiRequest(method, target, purpose, body, accept, content_type))

    @cached_property
    def _transport(self) -> ApiTransport:
        return ApiTransport(self.path, self.patience)

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()
