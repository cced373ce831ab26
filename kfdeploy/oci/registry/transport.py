"""Requests to registries: signed in, tried again while that may help, at the pace they bear.

Connections are kept alive and shared by threads, a registry's way of signing in is learnt once, a
token serves until it expires, and a registry that can't be reached is not tried again for each of
a hundred images. A registry that says when it will listen again is left alone until then, by all
threads: a limit is one for all of them.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urlsplit

from kfdeploy.errors import UserError
from kfdeploy.oci.manifest import MANIFEST_TYPES
from kfdeploy.oci.registry import errors
from kfdeploy.oci.registry.access import AccessResolver, RegistryAccess
from kfdeploy.oci.registry.credentials import Credential, Keyring
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.http import (
    ConnectionPool,
    ConnectionsClosed,
    HttpResponse,
    RequestBody,
    ResponseTooLong,
)

_ACCEPT: Final = ", ".join(sorted(MANIFEST_TYPES))
_PAUSE_SECONDS: Final = 0.4
_PAUSE_MAX_SECONDS: Final = 20.0
_TOKEN_SECONDS: Final = 60
"""How long a token without `expires_in` is good for, by the token protocol."""
_FINE: Final = frozenset({200, 201, 202, 204, 206, 404})
STALL_SECONDS: Final = "KFDEPLOY_STALL_SECONDS"
"""Environment variable: after how long a transfer without progress is cut (30)."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a request is tried.

    Attributes:
        busy_seconds: for a registry that limits how much may be asked (429).
        outage_seconds: for one that answered before and now refuses connections.
        tries: for any other fault that may pass (5xx, a connection that breaks).
    """

    busy_seconds: float = 45.0
    outage_seconds: float = 3.0
    tries: int = 4


DEFAULT_RETRY_POLICY: Final = RetryPolicy()


@dataclass(slots=True)
class _RegistryState:
    """What was learnt about one registry."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    scheme: str = ""  # "", "basic" or "bearer"
    realm: str = ""
    service: str = ""
    tokens: dict[frozenset[str], tuple[str, float]] = field(default_factory=dict)
    down: RegistryError | None = None
    answered: bool = False
    listens_at: float = 0.0


class RegistryTransport:
    """Asks registries; every method may be called from any number of threads."""

    def __init__(
        self,
        resolve_access: AccessResolver,
        wire: ConnectionPool | None = None,
        retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        """Take what is needed to ask.

        Args:
            on_wait: told when a registry wants to be left alone for a while.
        """
        stall = _read_stall_seconds()
        self._wire = wire or (ConnectionPool(read_seconds=stall) if stall else ConnectionPool())
        self.retry_policy = retry_policy
        self._resolve_access = resolve_access
        self._on_wait = on_wait
        self._keyring = Keyring()
        self._lock = threading.Lock()
        self._known: dict[str, _RegistryState] = {}
        self._contexts: dict[tuple[Path | None, bool], ssl.SSLContext] = {}
        self._closed = threading.Event()

    def close(self) -> None:
        """Close the connections; requests that other threads wait for end at once."""
        self._closed.set()
        self._wire.close()

    def get_access(self, host: str) -> RegistryAccess:
        """How ``host`` is reached."""
        return self._resolve_access(host)

    def get_credential(self, host: str) -> Credential | None:
        """The sign-in for ``host``; None when there is none. Raises UserError."""
        return self._keyring.get(host, self._resolve_access(host).login)

    def allows_anonymous(self, host: str) -> bool:
        """Whether a registry that was asked wants no sign-in."""
        known = self._get_state(host)
        return known.answered and not known.scheme

    def mark_answered(self, host: str) -> None:
        """Take note that ``host`` has just answered somebody else here, without a sign-in."""
        self._get_state(host).answered = True

    def request(
        self,
        method: str,
        host: str,
        path: str,
        *scopes: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | RequestBody | None = None,
        stream: bool = False,
        patience: float | None = None,
        accept_statuses: Sequence[int] = (),
        may_retry: bool = True,
    ) -> HttpResponse:
        """A registry's answer, signed in where it wants that.

        Args:
            path: below the registry's address; or a whole URL that the registry gave.
            scopes: what the request is about, in the token protocol's words: ``PATH:pull``.
            body: one that can be read only once is sent once; nothing is tried again then.
            stream: do not read a body that comes.
            patience: seconds, instead of `Patience.busy_seconds`.
            also: statuses that are answers, beside 2xx and 404.
            is_tried_again: False for what is not to be sent twice blindly.

        Raises:
            RegistryError: any other status, or no answer.
        """
        reach = self._resolve_access(host)
        known = self._get_state(host)
        url = path if "://" in path else reach.url + path
        sent = {"Accept": _ACCEPT, "User-Agent": "kfdeploy", **(headers or {})}
        foreign = urlsplit(url)[:2] != urlsplit(reach.url)[:2]
        streams = body is not None and not isinstance(body, bytes)
        once = streams or not may_retry
        renewed = False
        while True:
            authorization, fresh = "", True
            used = self.get_credential(host) if known.scheme else None
            if not foreign:
                authorization, fresh = self._authorize_request(reach, known, scopes, patience)
            if authorization:
                sent["Authorization"] = authorization
            answer = self._send_with_retries(
                method, reach, url, sent, known, patience, body=body, stream=stream, once=once
            )
            if answer.status != 401 or foreign:
                break
            if fresh:
                # What was good an hour ago may have run out: the helper is asked once more.
                if renewed or not self._keyring.renew(host, reach.login, used):
                    break
                renewed = True
            if not self._learn_challenge(answer, known, scopes):
                break
            if streams:
                raise errors.sign_in_expired(reach)
        if answer.status in {401, 403} and answer.status not in accept_statuses:
            signed_in = self.get_credential(host) is not None
            raise errors.access_denied(reach, urlsplit(url).path, answer, signed_in=signed_in)
        if answer.status not in _FINE and answer.status not in accept_statuses:
            raise errors.unexpected_response(reach, answer, urlsplit(url).path)
        return answer

    def _authorize_request(
        self,
        reach: RegistryAccess,
        known: _RegistryState,
        scopes: Sequence[str],
        patience: float | None,
    ) -> tuple[str, bool]:
        """The header to send, and whether it is as new as can be: refused, it stays refused."""
        if known.scheme == "basic":
            credential = self.get_credential(reach.host)
            return (credential.basic_header if credential else ""), True
        if known.scheme == "bearer":
            wanted = frozenset(scopes)
            now = time.monotonic()
            with known.lock:
                for granted, (token, end) in known.tokens.items():
                    if wanted <= granted and now < end and (wanted or not granted):
                        return f"Bearer {token}", False
            token, seconds = self._fetch_token(reach, known, scopes, patience)
            with known.lock:
                known.tokens[wanted] = (token, time.monotonic() + seconds * 0.8)
            return f"Bearer {token}", True
        return "", False

    def _learn_challenge(
        self, answer: HttpResponse, known: _RegistryState, scopes: Sequence[str]
    ) -> bool:
        """Take the registry's challenge; whether there is anything to try again with."""
        challenge = answer.headers.get("www-authenticate", "")
        scheme, _, rest = challenge.partition(" ")
        parameters = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        wanted = frozenset(scopes)
        with known.lock:
            for granted in [g for g in known.tokens if wanted <= g]:
                del known.tokens[granted]
            if scheme.lower() == "bearer" and "realm" in parameters:
                known.scheme = "bearer"
                known.realm = parameters["realm"]
                known.service = parameters.get("service", "")
                return True
            if scheme.lower() == "basic":
                known.scheme = "basic"
                return True
        return False

    def _fetch_token(
        self,
        reach: RegistryAccess,
        known: _RegistryState,
        scopes: Sequence[str],
        patience: float | None,
    ) -> tuple[str, float]:
        """A Bearer token from the realm the registry named, and the seconds it is good for."""
        if not reach.plain_http and urlsplit(known.realm).scheme != "https":
            raise errors.unsafe_realm(reach, known.realm)
        query = [("service", known.service)] if known.service else []
        query += [("scope", _qualify_scope(scope)) for scope in scopes]
        for again in (True, False):
            credential = self.get_credential(reach.host)
            headers = {"User-Agent": "kfdeploy", "Accept": "application/json"}
            if credential is not None and credential.identity_token:
                form = [("scope", " ".join(map(_qualify_scope, scopes)))]
                form = [pair for pair in query if pair[0] == "service"] + (form if scopes else [])
                form += [("grant_type", "refresh_token"), ("client_id", "kfdeploy")]
                form.append(("refresh_token", credential.identity_token))
                headers["Content-Type"] = "application/x-www-form-urlencoded"
                body = urlencode(form).encode()
                answer = self._send_with_retries(
                    "POST", reach, known.realm, headers, known, patience, body=body
                )
            else:
                if credential is not None:
                    headers["Authorization"] = credential.basic_header
                joint = "&" if urlsplit(known.realm).query else "?"
                url = f"{known.realm}{joint}{urlencode(query)}"
                answer = self._send_with_retries("GET", reach, url, headers, known, patience)
            if answer.status not in {400, 401, 403}:
                break
            if not (again and self._keyring.renew(reach.host, reach.login, credential)):
                path = f"/v2/{scopes[0].rpartition(':')[0] if scopes else ''}/"
                raise errors.access_denied(reach, path, answer, signed_in=credential is not None)
        try:
            content = json.loads(answer.body)
            token = content.get("token") or content["access_token"]
            return str(token), float(content.get("expires_in") or _TOKEN_SECONDS)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise errors.unexpected_response(reach, answer, urlsplit(known.realm).path) from error

    def _send_with_retries(
        self,
        method: str,
        reach: RegistryAccess,
        url: str,
        headers: Mapping[str, str],
        known: _RegistryState,
        patience: float | None,
        *,
        body: bytes | RequestBody | None = None,
        stream: bool = False,
        once: bool = False,
    ) -> HttpResponse:
        """One request, tried again while that may help."""
        began = time.monotonic()
        busy_end = began + (self.retry_policy.busy_seconds if patience is None else patience)
        tries = 0
        while True:
            self._wait_until_ready(reach, known, busy_end)
            pause = retry_delay(tries)
            try:
                answer = self._wire.request(
                    method,
                    url,
                    headers,
                    tls=self._get_tls_context(reach, url),
                    body=body,
                    stream=stream,
                )
            except ResponseTooLong as error:
                raise errors.response_too_long(reach, url) from error
            except UserError:
                raise  # the body's own
            except (OSError, http.client.HTTPException, ConnectionsClosed) as error:
                problem = errors.connection_error(reach, error)
                problem.host = reach.host
                if problem.final:
                    known.down = problem
                    raise problem from error
                end = began + (self.retry_policy.outage_seconds if known.answered else 3.0)
                goes_on = (
                    time.monotonic() + pause < end
                    if problem.kind == "refused"
                    else tries + 1 < self.retry_policy.tries
                )
            else:
                known.answered = True
                if answer.status != 429 and answer.status < 500:
                    return answer
                if answer.stream is not None:
                    answer.stream.close()
                problem = errors.registry_busy(reach, answer)
                problem.host, problem.is_limit = reach.host, answer.status == 429
                pause = problem.wait_seconds = errors.retry_after_seconds(answer, pause)
                if answer.status == 429:
                    with known.lock:
                        known.listens_at = max(known.listens_at, time.monotonic() + pause)
                    goes_on = time.monotonic() + pause < busy_end
                    if goes_on and pause > 3 and self._on_wait is not None:
                        self._on_wait(f"{reach.host} asks to wait {pause:.0f} s")
                else:
                    goes_on = (
                        tries + 1 < self.retry_policy.tries and time.monotonic() + pause < busy_end
                    )
            tries += 1
            if once or not goes_on or self._closed.wait(pause):
                break
        if problem.kind == "refused" and not once:
            known.down = problem
        raise problem

    def _wait_until_ready(self, reach: RegistryAccess, known: _RegistryState, end: float) -> None:
        """Until the registry listens again.

        Raises:
            RegistryError: it is down, or wants to be left alone longer than there is patience.
        """
        while True:
            if known.down is not None:
                raise known.down
            with known.lock:
                left = known.listens_at - time.monotonic()
            if left <= 0:
                return
            if time.monotonic() + left > end:
                raise errors.rate_limited(reach, left)
            # Not all at the same moment when it listens again.
            if self._closed.wait(left + random.uniform(0, 0.05)):
                raise errors.connection_error(reach, ConnectionsClosed())

    def _get_state(self, host: str) -> _RegistryState:
        with self._lock:
            return self._known.setdefault(host, _RegistryState())

    def _get_tls_context(self, reach: RegistryAccess, url: str) -> ssl.SSLContext | None:
        if not url.startswith("https:"):
            return None
        with self._lock:
            key = (reach.ca, reach.skip_tls_verify)
            if key not in self._contexts:
                self._contexts[key] = _create_tls_context(reach)
            return self._contexts[key]


def retry_delay(tries: int) -> float:
    """Seconds to wait before trying again: doubling, with jitter, so that workers spread."""
    return random.uniform(0.5, 1.0) * min(_PAUSE_SECONDS * 2.0**tries, _PAUSE_MAX_SECONDS)


def _qualify_scope(scope: str) -> str:
    """``PATH:pull`` is about a repository; what has a kind of its own stays."""
    return scope if scope.startswith("registry:") else f"repository:{scope}"


def _read_stall_seconds() -> float | None:
    text = os.environ.get(STALL_SECONDS, "")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise UserError(f"{STALL_SECONDS}: {text!r} is no number of seconds")
    return seconds


def _create_tls_context(reach: RegistryAccess) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if reach.skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if reach.ca is not None:
        try:
            context.load_verify_locations(reach.ca)
        except (OSError, ssl.SSLError) as error:
            raise errors.ca_error(reach, reach.ca, error) from error
    return context
