"""Send requests to registries: signed in, tried again where that may help, at their pace.

Threads share connections and what was learnt about a registry: how it wants requests to be signed
in, its tokens, that it can't be reached, and until when it wants to be left alone. A rate limit is
one for all threads.
"""

from __future__ import annotations

import http.client
import os
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from kfdeploy.errors import UserError
from kfdeploy.http.pool import (
    ConnectionPool,
    ConnectionsClosed,
    HttpRequest,
    HttpResponse,
    RequestBody,
    ResponseTooLong,
)
from kfdeploy.http.retry import parse_retry_after, retry_delay
from kfdeploy.http.tls import create_tls_context
from kfdeploy.oci.manifest import MANIFEST_TYPES
from kfdeploy.oci.registry import errors
from kfdeploy.oci.registry.access import AccessResolver, RegistryAccess
from kfdeploy.oci.registry.auth import (
    USER_AGENT,
    Authorization,
    Challenge,
    Token,
    TokenCache,
    build_token_request,
)
from kfdeploy.oci.registry.credentials import Credential, Keyring
from kfdeploy.oci.registry.errors import RegistryError

_ACCEPT: Final = ", ".join(sorted(MANIFEST_TYPES))
_EXPECTED_STATUSES: Final = frozenset({200, 201, 202, 204, 206, 404})
_DENIED_STATUSES: Final = frozenset({401, 403})
_TOKEN_REFUSED_STATUSES: Final = frozenset({400, 401, 403})
_STARTING_SECONDS: Final = 3.0
"""How long a registry that never answered may refuse connections."""
_MENTIONED_WAIT_SECONDS: Final = 3.0
"""The caller is told about a longer wait."""
_SPREAD_SECONDS: Final = 0.05
STALL_SECONDS: Final = "KFDEPLOY_STALL_SECONDS"
"""Environment variable: seconds without progress after which a transfer is cut (30)."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a request is tried.

    Attributes:
        busy_seconds: while the registry limits how much may be asked (429).
        outage_seconds: while one that answered before refuses connections.
        tries: for any other fault that may pass (5xx, a connection that breaks).
    """

    busy_seconds: float = 45.0
    outage_seconds: float = 3.0
    tries: int = 4


DEFAULT_RETRY_POLICY: Final = RetryPolicy()


@dataclass(slots=True)
class _RegistryState:
    """What was learnt about one registry.

    Attributes:
        challenge: how it wants requests to be signed in; None where it did not say so.
        down: why it can't be reached at all.
        ready_at: when it wants to be asked again, as a time of `time.monotonic`.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    challenge: Challenge | None = None
    tokens: TokenCache = field(default_factory=TokenCache)
    down: RegistryError | None = None
    has_answered: bool = False
    ready_at: float = 0.0

    def postpone(self, seconds: float) -> None:
        """Ask no more for ``seconds``."""
        with self.lock:
            self.ready_at = max(self.ready_at, time.monotonic() + seconds)

    def get_wait_seconds(self) -> float:
        """Return how long to wait until it may be asked; 0 or less for no wait."""
        with self.lock:
            return self.ready_at - time.monotonic()


@dataclass(frozen=True, slots=True)
class _Target:
    """The registry that a call asks.

    Attributes:
        patience: seconds for which each of the call's requests waits for a busy registry.
    """

    access: RegistryAccess
    state: _RegistryState
    patience: float


@dataclass(slots=True)
class _Attempts:
    """The attempts to send one request; times are of `time.monotonic`."""

    policy: RetryPolicy
    started: float
    patience_ends: float
    failures: int = 0

    def allows_another(self, error: RegistryError, delay: float, *, has_answered: bool) -> bool:
        """Return whether to send the request once more, ``delay`` seconds after ``error``."""
        if error.final or error.kind == "nonsense":
            return False
        resumes_at = time.monotonic() + delay
        if error.kind == "refused":
            outage = self.policy.outage_seconds if has_answered else _STARTING_SECONDS
            return resumes_at < self.started + outage
        if error.wait_seconds and resumes_at >= self.patience_ends:
            return False
        return error.is_limit or self.failures < self.policy.tries


class RegistryTransport:
    """Sends requests to registries; every method may be called from any number of threads."""

    def __init__(
        self,
        resolve_access: AccessResolver,
        pool: ConnectionPool | None = None,
        retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        """Take what is needed to ask.

        Args:
            pool: by default one that cuts transfers after KFDEPLOY_STALL_SECONDS.
            on_wait: called with a message when a registry wants to be left alone for a while.
        """
        self._pool = pool or _create_pool()
        self.retry_policy = retry_policy
        self._resolve_access = resolve_access
        self._on_wait = on_wait or (lambda message: None)
        self._keyring = Keyring()
        self._lock = threading.Lock()
        self._states: dict[str, _RegistryState] = {}
        self._tls_contexts: dict[tuple[Path | None, bool], ssl.SSLContext] = {}
        self._closed = threading.Event()

    def close(self) -> None:
        """Close the connections; requests that other threads wait for end at once."""
        self._closed.set()
        self._pool.close()

    def get_access(self, host: str) -> RegistryAccess:
        """Return how ``host`` is reached."""
        return self._resolve_access(host)

    def get_credential(self, host: str) -> Credential | None:
        """Return the credential for ``host``; None where there is none. Raises UserError."""
        return self._keyring.get(host, self._resolve_access(host).login)

    def allows_anonymous(self, host: str) -> bool:
        """Return whether a registry answered and did not ask for a sign-in."""
        state = self._get_state(host)
        return state.has_answered and state.challenge is None

    def mark_answered(self, host: str) -> None:
        """Note that ``host`` has just answered another client here, without a sign-in."""
        self._get_state(host).has_answered = True

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
        """Return a registry's response, signed in where the registry wants that.

        Args:
            path: below the registry's address; or a whole URL that the registry gave.
            scopes: what the request is about, in the token protocol's words: ``PATH:pull``.
            body: one that can be read only once is sent once; nothing is tried again then.
            stream: do not read the body of a response with status 200 or 206.
            patience: seconds, instead of `RetryPolicy.busy_seconds`.
            accept_statuses: statuses to return, beside 2xx and 404.
            may_retry: False for what must not be sent twice.

        Raises:
            RegistryError: any other status, or no response.
        """
        access = self._resolve_access(host)
        if patience is None:
            patience = self.retry_policy.busy_seconds
        target = _Target(access, self._get_state(host), patience)
        url = path if "://" in path else access.url + path
        request = HttpRequest(
            method,
            url,
            {"Accept": _ACCEPT, "User-Agent": USER_AGENT, **(headers or {})},
            body,
            self._get_tls_context(access, url),
            stream,
        )
        may_retry = may_retry and request.is_repeatable
        if urlsplit(url)[:2] == urlsplit(access.url)[:2]:
            response = self._send_signed(target, request, scopes, may_retry)
        else:  # another server, which must not get the registry's credential
            response = self._send_with_retries(target, request, may_retry)
        if response.status in _EXPECTED_STATUSES or response.status in accept_statuses:
            return response
        where = urlsplit(url).path
        if response.status in _DENIED_STATUSES:
            signed_in = self.get_credential(host) is not None
            raise errors.access_denied(access, where, response, signed_in=signed_in)
        raise errors.unexpected_response(access, response, where)

    def _send_signed(
        self, target: _Target, request: HttpRequest, scopes: Sequence[str], may_retry: bool
    ) -> HttpResponse:
        """Send a request, again with a new sign-in where the registry refuses the first.

        A token that expired is replaced, and a credential that expired is looked up once more.
        """
        access, state = target.access, target.state
        has_new_credential = False
        while True:
            credential = self.get_credential(access.host) if state.challenge else None
            authorization = self._authorize(target, scopes)
            response = self._send_with_retries(
                target, _add_authorization(request, authorization), may_retry
            )
            if response.status != 401:
                return response
            if authorization.is_fresh:
                if has_new_credential:
                    return response
                if not self._keyring.renew(access.host, access.login, credential):
                    return response
                has_new_credential = True
            challenge = Challenge.parse(response.headers.get("www-authenticate", ""))
            state.tokens.drop(scopes)
            if challenge is None:
                return response
            state.challenge = challenge
            if not request.is_repeatable:
                raise errors.sign_in_expired(access)

    def _authorize(self, target: _Target, scopes: Sequence[str]) -> Authorization:
        """Return what to sign a request in with."""
        challenge = target.state.challenge
        if challenge is None:
            return Authorization("", is_fresh=False)
        if challenge.scheme == "basic":
            credential = self.get_credential(target.access.host)
            return Authorization(credential.basic_header if credential else "", is_fresh=True)
        if (known := target.state.tokens.find(scopes)) is not None:
            return Authorization(f"Bearer {known.value}", is_fresh=False)
        token = self._fetch_token(target, challenge, scopes)
        target.state.tokens.put(scopes, token)
        return Authorization(f"Bearer {token.value}", is_fresh=True)

    def _fetch_token(self, target: _Target, challenge: Challenge, scopes: Sequence[str]) -> Token:
        """Ask the registry's token server for a token; with a renewed credential if need be."""
        access = target.access
        if not access.plain_http and urlsplit(challenge.realm).scheme != "https":
            raise errors.unsafe_realm(access, challenge.realm)
        tls = self._get_tls_context(access, challenge.realm)
        has_new_credential = False
        while True:
            credential = self.get_credential(access.host)
            request = replace(build_token_request(challenge, scopes, credential), tls=tls)
            response = self._send_with_retries(target, request)
            if response.status not in _TOKEN_REFUSED_STATUSES:
                break
            if has_new_credential or not self._keyring.renew(access.host, access.login, credential):
                path = f"/v2/{scopes[0].rpartition(':')[0] if scopes else ''}/"
                raise errors.access_denied(access, path, response, signed_in=credential is not None)
            has_new_credential = True
        try:
            return Token.parse(response.body)
        except ValueError as error:
            where = urlsplit(challenge.realm).path
            raise errors.unexpected_response(access, response, where) from error

    def _send_with_retries(
        self, target: _Target, request: HttpRequest, may_retry: bool = True
    ) -> HttpResponse:
        """Send a request, again while that may help; raise RegistryError otherwise."""
        state = target.state
        now = time.monotonic()
        attempts = _Attempts(self.retry_policy, now, now + target.patience)
        while True:
            self._wait_until_ready(target, attempts.patience_ends)
            delay = retry_delay(attempts.failures)
            try:
                return self._send_once(target, request, delay)
            except RegistryError as error:
                if not may_retry:
                    raise
                attempts.failures += 1
                delay = error.wait_seconds or delay
                if not attempts.allows_another(error, delay, has_answered=state.has_answered):
                    if error.kind == "refused":
                        state.down = error
                    raise
                if error.is_limit and delay > _MENTIONED_WAIT_SECONDS:
                    self._on_wait(f"{target.access.host} asks to wait {delay:.0f} s")
                if self._closed.wait(delay):
                    raise

    def _send_once(self, target: _Target, request: HttpRequest, delay: float) -> HttpResponse:
        """Send a request; a fault that may pass (429, 5xx, no connection) is a RegistryError.

        Args:
            delay: seconds to wait at least before the request is sent again.
        """
        access, state = target.access, target.state
        try:
            response = self._pool.send(request)
        except ResponseTooLong as error:
            raise errors.response_too_long(access, request.url) from error
        except UserError:
            raise  # of the body, which may be read from another registry
        except (OSError, http.client.HTTPException, ConnectionsClosed) as error:
            problem = errors.connection_error(access, error)
            if problem.final:
                state.down = problem
            raise problem from error
        state.has_answered = True
        if response.status != 429 and response.status < 500:
            return response
        if response.stream is not None:
            response.stream.close()
        problem = errors.registry_busy(access, response)
        problem.wait_seconds = parse_retry_after(response, delay)
        if problem.is_limit:
            state.postpone(problem.wait_seconds)
        raise problem

    def _wait_until_ready(self, target: _Target, patience_ends: float) -> None:
        """Wait until the registry may be asked.

        Raises:
            RegistryError: it is down, or wants to be left alone for longer than the call waits.
        """
        access, state = target.access, target.state
        while True:
            if state.down is not None:
                raise state.down
            seconds = state.get_wait_seconds()
            if seconds <= 0:
                return
            if time.monotonic() + seconds > patience_ends:
                raise errors.rate_limited(access, seconds)
            # Threads spread, so that not all ask at the moment when it is ready.
            if self._closed.wait(seconds + random.uniform(0, _SPREAD_SECONDS)):
                raise errors.connection_error(access, ConnectionsClosed())

    def _get_state(self, host: str) -> _RegistryState:
        with self._lock:
            return self._states.setdefault(host, _RegistryState())

    def _get_tls_context(self, access: RegistryAccess, url: str) -> ssl.SSLContext | None:
        if not url.startswith("https:"):
            return None
        with self._lock:
            key = (access.ca, access.skip_tls_verify)
            if key not in self._tls_contexts:
                self._tls_contexts[key] = _create_tls_context(access)
            return self._tls_contexts[key]


def _add_authorization(request: HttpRequest, authorization: Authorization) -> HttpRequest:
    if not authorization.header:
        return request
    return replace(request, headers={**request.headers, "Authorization": authorization.header})


def _create_tls_context(access: RegistryAccess) -> ssl.SSLContext:
    try:
        return create_tls_context(access.ca, verify=not access.skip_tls_verify)
    except OSError as error:  # ssl.SSLError is one
        if access.ca is None:
            raise
        raise errors.ca_error(access, access.ca, error) from error


def _create_pool() -> ConnectionPool:
    text = os.environ.get(STALL_SECONDS, "")
    if not text:
        return ConnectionPool()
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise UserError(f"{STALL_SECONDS}: {text!r} must be a number of seconds greater than 0")
    return ConnectionPool(read_seconds=seconds)
