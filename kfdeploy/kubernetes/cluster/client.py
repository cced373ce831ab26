"""A cluster's API, asked through ``kubectl proxy``.

kubectl knows every way to sign in that a kubeconfig can name (certificates, tokens, programs, OIDC)
and renews what runs out; it listens on a socket in a folder that only this user can enter. Through
it one connection a thread answers in a few milliseconds, where kubectl itself would start for each
question. docs/decisions/015-apply.md
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

from kfdeploy.errors import UserError
from kfdeploy.kubernetes.cluster.discovery import DISCOVERY, DiscoveredKinds, Kind
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.programs.process import BackgroundProgram, run_in_background

Cascade = Literal["background", "foreground", "orphan"]
MANAGER: Final = "kfdeploy"
"""Field manager of what kfdeploy itself writes."""
_JSON: Final = "application/json"
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_METADATA: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PASSING: Final = frozenset((429, 500, 502, 503, 504))
_ASKED_SECONDS: Final = 60.0
"""What the API server allows a request itself (--request-timeout)."""
_START_SECONDS: Final = 20.0
_FIRST_SECONDS: Final = 10.0
"""Of patience for the first question: who has named a wrong server need not wait long for it."""
_LONGEST_PAUSE: Final = 5.0
_PAGE: Final = 500


class ApiError(UserError):
    """The API server's answer to what it will not do.

    Attributes:
        status: HTTP's.
        reason: of its Status: ``NotFound``, ``Conflict``, ``Invalid``, ``Forbidden`` ...
        said: its own words.
        causes: of its Status: field, reason and message of each mistake.
    """

    def __init__(self, what: str, status: int, body: Any) -> None:
        answer: Mapping[str, Any] = body if isinstance(body, Mapping) else {"message": str(body)}
        self.status = status
        self.reason = str(answer.get("reason") or http.client.responses.get(status, ""))
        self.said = str(answer.get("message") or self.reason).strip()[:2000]
        details = answer.get("details") or {}
        self.causes: tuple[Mapping[str, Any], ...] = tuple(details.get("causes") or ())
        super().__init__(f"{what}: the API server answered {status} {self.reason}: {self.said}")


class ClusterUnreachable(UserError):
    """Nobody answers."""


@contextlib.contextmanager
def connect(context: str | None, *, patience: float = 60.0) -> Iterator[Cluster]:
    """Sign in as kubectl does.

    Args:
        context: of the kubeconfig; None for its current one.
        patience: seconds for which a question is asked again when the API server is away, busy
            (429) or fails (5xx).

    Raises:
        UserError: kubectl is missing.
        Unreachable: there is no such context, or nobody answers.
    """
    with tempfile.TemporaryDirectory(prefix="kfdeploy-") as folder:
        path = Path(folder) / "api"  # a socket's path may have 107 bytes
        argv: list[str | Path] = ["kubectl", "proxy", f"--unix-socket={path}"]
        # exec and attach stay refused; nothing here asks for them
        if context:
            argv.append(f"--context={context}")
        with run_in_background(argv, env={"KUBERC": "off"}) as proxy:
            _wait_for_proxy(path, proxy, context)
            cluster = Cluster(path, context or "", patience)
            first = replace(cluster, patience=min(patience, _FIRST_SECONDS))
            with contextlib.closing(first):
                _ = first.version
            try:
                yield cluster
            finally:
                cluster.close()


def _wait_for_proxy(path: Path, proxy: BackgroundProgram, context: str | None) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return
        try:
            proxy.ensure_running()
        except UserError as error:
            named = f"the context {context}" if context else "the current context"
            raise ClusterUnreachable(
                f"the cluster of {named} can't be asked: {error.message}",
                hint="kubeContext of the environment in kfdeploy.yaml, and KUBECONFIG, say which;"
                " `kubectl config get-contexts` lists what there is",
            ) from error
        if time.monotonic() > until:
            raise ClusterUnreachable(f"kubectl proxy did not start within {_START_SECONDS:g} s")
        time.sleep(0.005)


class _ProxyConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ASKED_SECONDS + 10)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


# Weak, so that the connection of a thread that has ended is closed, and not kept to the end: a wait
# starts threads every second.
_ConnectionSet = weakref.WeakSet[_ProxyConnection]


class _Outage:
    """Since when nobody has had an answer: who asks last need not be patient all over again."""

    def __init__(self) -> None:
        self._first, self._last = 0.0, float("-inf")

    def record_failure(self, lapse: float) -> float:
        """After ``lapse`` seconds in which nobody has asked it counts anew."""
        now = time.monotonic()
        if now - self._last > lapse:
            self._first = now
        self._last = now
        return self._first

    def record_success(self) -> None:
        self._last = float("-inf")


@dataclass(frozen=True)
class Cluster:
    """What an API server has, and how it is changed; safe to be used by several threads.

    Whatever is asked raises `Refused` with the API server's answer, and `Unreachable` when there is
    none within ``patience`` seconds, however many questions that are.
    """

    path: Path
    context: str
    patience: float

    # -- what there is ----------------------------------------------------------------------------

    @cached_property
    def version(self) -> str:
        """Kubernetes' version, such as 1.36.3."""
        return str(self.request("GET", "/version")["gitVersion"]).lstrip("v")

    @cached_property
    def kinds(self) -> DiscoveredKinds:
        """What it serves, as it was when first asked; `Kinds.refresh` asks again."""
        return DiscoveredKinds(lambda path: self.request("GET", path, accept=DISCOVERY))

    def get(self, key: ObjectKey) -> dict[str, Any] | None:
        """An object; None where it, or its kind, is not there."""
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
        """All objects of a kind, with their apiVersion and kind; none where it is not served.

        Args:
            labels: a label selector.
            fields: a field selector.
            metadata: their metadata is enough.
        """
        if (found := self.kinds.of(api_version, kind)) is None:
            return []
        path, accept = found.url_path(namespace), _METADATA if metadata else _JSON
        query = {"limit": str(_PAGE), "labelSelector": labels, "fieldSelector": fields}
        out: list[dict[str, Any]] = []
        while True:
            try:
                page = self.request("GET", path, query=query, accept=accept)
            except ApiError as error:
                if error.status == 404:  # the kind has gone meanwhile
                    return out
                if error.status == 410 and "continue" in query:  # the pages took too long
                    out, query = [], {k: v for k, v in query.items() if k != "continue"}
                    continue
                raise
            out += (
                {**item, "apiVersion": api_version, "kind": kind} for item in page["items"] or ()
            )
            if not (more := page["metadata"].get("continue")):
                return out
            query = {**query, "continue": more}

    # -- changes ----------------------------------------------------------------------------------

    def apply(
        self,
        what: Object | Mapping[str, Any],
        *,
        manager: str = MANAGER,
        force: bool = False,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Server-side apply; what it leaves.

        Args:
            what: an `Object` is sent in its own words, as YAML.
            force: take fields that other managers own.
        """
        text = what.text if isinstance(what, Object) else json.dumps(what)
        key = what.key if isinstance(what, Object) else ObjectKey.from_body(dict(what))
        query = {"fieldManager": manager, "force": "true" if force else ""}
        return self._write_object("PATCH", key, text, query, dry_run=dry_run, content=_APPLY)

    def create(self, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """A new object; 409 AlreadyExists when it is there."""
        key = ObjectKey.from_body(dict(body))
        found = self._require_kind(key)
        query = {"fieldManager": MANAGER, "dryRun": "All" if dry_run else ""}
        made: dict[str, Any] = self.request(
            "POST",
            found.url_path(key.namespace),
            json.dumps(body),
            query=query,
            what=f"create {key}",
        )
        return made

    def replace(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The object as it is given; 409 Conflict when its resourceVersion is no longer that."""
        key = ObjectKey.from_body(dict(body))
        return self._write_object("PUT", key, json.dumps(body), {"fieldManager": MANAGER})

    def patch(
        self, key: ObjectKey, patch: Mapping[str, Any], *, subresource: str = ""
    ) -> dict[str, Any]:
        """A merge patch (RFC 7386)."""
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
        """Whether it was there to be deleted.

        Args:
            cascade: what becomes of what it owns.
            uid: delete this one, and not another of its name (409 Conflict).
        """
        if (path := self._object_path(key)) is None:
            return False
        options: dict[str, Any] = {"propagationPolicy": cascade.capitalize()}
        if dry_run:
            options["dryRun"] = ["All"]
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self.request("DELETE", path, json.dumps(options), what=f"delete {key}")
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
        content: str = _JSON,
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
            what=f"{'try' if dry_run else 'write'} {key}",
        )
        return written

    def _object_path(self, key: ObjectKey) -> str | None:
        found = self.kinds.of(key.api_version, key.kind)
        return found.url_path(key.namespace, key.name) if found else None

    def _require_kind(self, key: ObjectKey) -> Kind:
        found = self.kinds.of(key.api_version, key.kind)
        if found is None:
            found = self.kinds.refresh().of(key.api_version, key.kind)
        if found is None:
            raise ApiError(
                f"{key}", 404, {"message": f"{key.api_version} {key.kind} is not served"}
            )
        return found

    # -- questions --------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = _JSON,
        content_type: str = _JSON,
        what: str = "",
    ) -> Any:
        """One question, asked again while that may help; the answer's JSON.

        Args:
            query: what is empty is left out.
            what: what was to be done, for the error.
        """
        asked = {name: value for name, value in (query or {}).items() if value}
        target = quote(path) + (f"?{urlencode(asked)}" if asked else "")
        headers = {"Accept": accept, "Content-Type": content_type}
        what = what or f"{method} {path}"
        until = time.monotonic() + self.patience
        pause = 0.1
        while True:
            retry_after = 0.0
            try:
                status, answer, retry_after = self._send_once(method, target, body, headers)
            except (OSError, http.client.HTTPException) as error:
                self._drop_connection()
                failure: ApiError | ClusterUnreachable = ClusterUnreachable(
                    f"{what}: the API server does not answer: {error or type(error).__name__}",
                    hint="`kubectl version` says whether it can be reached from here",
                )
            else:
                if status < 300:
                    self._outage.record_success()
                    return answer
                failure = _make_error(what, status, answer)
                if isinstance(failure, ApiError) and not _is_transient(failure):
                    self._outage.record_success()
                    raise failure
            if isinstance(failure, ClusterUnreachable):
                until = min(until, self._outage.record_failure(self.patience) + self.patience)
            pause = min(pause * 2, _LONGEST_PAUSE)
            # Jitter, so that threads that were refused together do not come back together.
            seconds = max(retry_after, pause * random.uniform(0.5, 1.0))
            if time.monotonic() + seconds > until:
                raise failure
            time.sleep(seconds)

    def _send_once(
        self, method: str, target: str, body: str | None, headers: Mapping[str, str]
    ) -> tuple[int, Any, float]:
        connection = self._get_connection()
        connection.request(
            method, target, body.encode() if body is not None else None, dict(headers)
        )
        response = connection.getresponse()
        raw = response.read()
        after = response.headers.get("Retry-After", "")
        if response.will_close:
            self._drop_connection()
        try:
            answer = json.loads(raw)
        except ValueError:
            answer = raw.decode("utf-8", "replace")
        return response.status, answer, float(after) if after.isdigit() else 0.0

    @cached_property
    def _outage(self) -> _Outage:
        return _Outage()

    @cached_property
    def _local(self) -> threading.local:
        return threading.local()

    @cached_property
    def _open_connections(self) -> _ConnectionSet:
        return weakref.WeakSet()

    def _get_connection(self) -> _ProxyConnection:
        found: _ProxyConnection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = _ProxyConnection(self.path)
            self._open_connections.add(found)
        return found

    def _drop_connection(self) -> None:
        found: _ProxyConnection | None = getattr(self._local, "connection", None)
        if found is not None:
            found.close()
            self._local.connection = None

    def close(self) -> None:
        for connection in list(self._open_connections):
            connection.close()


def _make_error(what: str, status: int, answer: Any) -> ApiError | ClusterUnreachable:
    # The proxy's own words for an API server that is away.
    if status >= 500 and not isinstance(answer, Mapping):
        return ClusterUnreachable(
            f"{what}: the API server does not answer: {str(answer).strip()[:500]}",
            hint="`kubectl version` says whether it can be reached from here",
        )
    return ApiError(what, status, answer)


def _is_transient(refused: ApiError) -> bool:
    """Whether the same question may be answered otherwise in a moment.

    A webhook that is down makes a 500, too, and stays down as long as nobody starts it.
    """
    return refused.status in _PASSING and "failed calling webhook" not in refused.said


def group_by_kind(keys: Sequence[ObjectKey]) -> dict[tuple[str, str], list[ObjectKey]]:
    """Objects by apiVersion and kind, as `Cluster.list` asks for them."""
    out: dict[tuple[str, str], list[ObjectKey]] = {}
    for key in keys:
        out.setdefault((key.api_version, key.kind), []).append(key)
    return out
