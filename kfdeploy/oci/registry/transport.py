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
from kfdeploy.oci.manifest import TYPES
from kfdeploy.oci.registry import errors
from kfdeploy.oci.registry.access import Reach, Reaches
from kfdeploy.oci.registry.credentials import Credential, Keyring
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.http import Answer, Body, Closed, TooLong, Wire

_ACCEPT: Final = ", ".join(sorted(TYPES))
_PAUSE_SECONDS: Final = 0.4
_PAUSE_MAX_SECONDS: Final = 20.0
_TOKEN_SECONDS: Final = 60
"""How long a token without `expires_in` is good for, by the token protocol."""
_FINE: Final = frozenset({200, 201, 202, 204, 206, 404})
STALL_SECONDS: Final = "KFDEPLOY_STALL_SECONDS"
"""Environment variable: after how long a transfer without progress is cut (30)."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a request is tried.

    Attributes:
        busy_seconds: for a registry that limits how much may be asked (429).
        outage_seconds: for one that answered before and now refuses connections.
        tries: for any other fault that may pass (5xx, a connection that breaks).
    """

    busy_seconds: float = 45.0
    outage_seconds: float = 3.0
    tries: int = 4


DEFAULT_PATIENCE: Final = Patience()


@dataclass(slots=True)
class _Known:
    """What was learnt about one registry."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    scheme: str = ""  # "", "basic" or "bearer"
    realm: str = ""
    service: str = ""
    tokens: dict[frozenset[str], tuple[str, float]] = field(default_factory=dict)
    down: RegistryError | None = None
    answered: bool = False
    listens_at: float = 0.0


class Exchange:
    """Asks registries; every method may be called from any number of threads."""

    def __init__(
        self,
        reaches: Reaches,
        wire: Wire | None = None,
        patience: Patience = DEFAULT_PATIENCE,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        """Take what is needed to ask.

        Args:
            on_wait: told when a registry wants to be left alone for a while.
        """
        stall = _stall_seconds()
        self._wire = wire or (Wire(read_seconds=stall) if stall else Wire())
        self.patience = patience
        self._reaches = reaches
        self._on_wait = on_wait
        self._keyring = Keyring()
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._contexts: dict[tuple[Path | None, bool], ssl.SSLContext] = {}
        self._closed = threading.Event()

    def close(self) -> None:
        """Close the connections; requests that other threads wait for end at once."""
        self._closed.set()
        self._wire.close()

    def reach(self, host: str) -> Reach:
        """How ``host`` is reached."""
        return self._reaches(host)

    def credential(self, host: str) -> Credential | None:
        """The sign-in for ``host``; None when there is none. Raises UserError."""
        return self._keyring.get(host, self._reaches(host).login)

    def is_open(self, host: str) -> bool:
        """Whether a registry that was asked wants no sign-in."""
        known = self._knowledge(host)
        return known.answered and not known.scheme

    def has_answered(self, host: str) -> None:
        """Take note that ``host`` has just answered somebody else here, without a sign-in."""
        self._knowledge(host).answered = True

    def ask(
        self,
        method: str,
        host: str,
        path: str,
        *scopes: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
        stream: bool = False,
        patience: float | None = None,
        also: Sequence[int] = (),
        is_tried_again: bool = True,
    ) -> Answer:
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
        reach = self._reaches(host)
        known = self._knowledge(host)
        url = path if "://" in path else reach.url + path
        sent = {"Accept": _ACCEPT, "User-Agent": "kfdeploy", **(headers or {})}
        foreign = urlsplit(url)[:2] != urlsplit(reach.url)[:2]
        streams = body is not None and not isinstance(body, bytes)
        once = streams or not is_tried_again
        renewed = False
        while True:
            authorization, fresh = "", True
            used = self.credential(host) if known.scheme else None
            if not foreign:
                authorization, fresh = self._authorization(reach, known, scopes, patience)
            if authorization:
                sent["Authorization"] = authorization
            answer = self._send(
                method, reach, url, sent, known, patience, body=body, stream=stream, once=once
            )
            if answer.status != 401 or foreign:
                break
            if fresh:
                # What was good an hour ago may have run out: the helper is asked once more.
                if renewed or not self._keyring.renew(host, reach.login, used):
                    break
                renewed = True
            if not self._learn(answer, known, scopes):
                break
            if streams:
                raise errors.signed_out(reach)
        if answer.status in {401, 403} and answer.status not in also:
            signed_in = self.credential(host) is not None
            raise errors.denied(reach, urlsplit(url).path, answer, signed_in=signed_in)
        if answer.status not in _FINE and answer.status not in also:
            raise errors.nonsense(reach, answer, urlsplit(url).path)
        return answer

    def _authorization(
        self, reach: Reach, known: _Known, scopes: Sequence[str], patience: float | None
    ) -> tuple[str, bool]:
        """The header to send, and whether it is as new as can be: refused, it stays refused."""
        if known.scheme == "basic":
            credential = self.credential(reach.host)
            return (credential.basic if credential else ""), True
        if known.scheme == "bearer":
            wanted = frozenset(scopes)
            now = time.monotonic()
            with known.lock:
                for granted, (token, end) in known.tokens.items():
                    if wanted <= granted and now < end and (wanted or not granted):
                        return f"Bearer {token}", False
            token, seconds = self._token(reach, known, scopes, patience)
            with known.lock:
                known.tokens[wanted] = (token, time.monotonic() + seconds * 0.8)
            return f"Bearer {token}", True
        return "", False

    def _learn(self, answer: Answer, known: _Known, scopes: Sequence[str]) -> bool:
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

    def _token(
        self, reach: Reach, known: _Known, scopes: Sequence[str], patience: float | None
    ) -> tuple[str, float]:
        """A Bearer token from the realm the registry named, and the seconds it is good for."""
        if not reach.plain_http and urlsplit(known.realm).scheme != "https":
            raise errors.unsafe_realm(reach, known.realm)
        query = [("service", known.service)] if known.service else []
        query += [("scope", _scope(scope)) for scope in scopes]
        for again in (True, False):
            credential = self.credential(reach.host)
            headers = {"User-Agent": "kfdeploy", "Accept": "application/json"}
            if credential is not None and credential.identity_token:
                form = [("scope", " ".join(map(_scope, scopes)))]
                form = [pair for pair in query if pair[0] == "service"] + (form if scopes else [])
                form += [("grant_type", "refresh_token"), ("client_id", "kfdeploy")]
                form.append(("refresh_token", credential.identity_token))
                headers["Content-Type"] = "application/x-www-form-urlencoded"
                body = urlencode(form).encode()
                answer = self._send("POST", reach, known.realm, headers, known, patience, body=body)
            else:
                if credential is not None:
                    headers["Authorization"] = credential.basic
                joint = "&" if urlsplit(known.realm).query else "?"
                url = f"{known.realm}{joint}{urlencode(query)}"
                answer = self._send("GET", reach, url, headers, known, patience)
            if answer.status not in {400, 401, 403}:
                break
            if not (again and self._keyring.renew(reach.host, reach.login, credential)):
                path = f"/v2/{scopes[0].rpartition(':')[0] if scopes else ''}/"
                raise errors.denied(reach, path, answer, signed_in=credential is not None)
        try:
            content = json.loads(answer.body)
            token = content.get("token") or content["access_token"]
            return str(token), float(content.get("expires_in") or _TOKEN_SECONDS)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise errors.nonsense(reach, answer, urlsplit(known.realm).path) from error

    def _send(
        self,
        method: str,
        reach: Reach,
        url: str,
        headers: Mapping[str, str],
        known: _Known,
        patience: float | None,
        *,
        body: bytes | Body | None = None,
        stream: bool = False,
        once: bool = False,
    ) -> Answer:
        """One request, tried again while that may help."""
        began = time.monotonic()
        busy_end = began + (self.patience.busy_seconds if patience is None else patience)
        tries = 0
        while True:
            self._wait_for(reach, known, busy_end)
            pause = pause_after(tries)
            try:
                answer = self._wire.request(
                    method, url, headers, tls=self._tls(reach, url), body=body, stream=stream
                )
            except TooLong as error:
                raise errors.too_long(reach, url) from error
            except UserError:
                raise  # the body's own
            except (OSError, http.client.HTTPException, Closed) as error:
                problem = errors.unreachable(reach, error)
                problem.host = reach.host
                if problem.final:
                    known.down = problem
                    raise problem from error
                end = began + (self.patience.outage_seconds if known.answered else 3.0)
                goes_on = (
                    time.monotonic() + pause < end
                    if problem.kind == "refused"
                    else tries + 1 < self.patience.tries
                )
            else:
                known.answered = True
                if answer.status != 429 and answer.status < 500:
                    return answer
                if answer.stream is not None:
                    answer.stream.close()
                problem = errors.busy(reach, answer)
                problem.host, problem.is_limit = reach.host, answer.status == 429
                pause = problem.wait_seconds = errors.retry_after(answer, pause)
                if answer.status == 429:
                    with known.lock:
                        known.listens_at = max(known.listens_at, time.monotonic() + pause)
                    goes_on = time.monotonic() + pause < busy_end
                    if goes_on and pause > 3 and self._on_wait is not None:
                        self._on_wait(f"{reach.host} asks to wait {pause:.0f} s")
                else:
                    goes_on = (
                        tries + 1 < self.patience.tries and time.monotonic() + pause < busy_end
                    )
            tries += 1
            if once or not goes_on or self._closed.wait(pause):
                break
        if problem.kind == "refused" and not once:
            known.down = problem
        raise problem

    def _wait_for(self, reach: Reach, known: _Known, end: float) -> None:
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
                raise errors.limited(reach, left)
            # Not all at the same moment when it listens again.
            if self._closed.wait(left + random.uniform(0, 0.05)):
                raise errors.unreachable(reach, Closed())

    def _knowledge(self, host: str) -> _Known:
        with self._lock:
            return self._known.setdefault(host, _Known())

    def _tls(self, reach: Reach, url: str) -> ssl.SSLContext | None:
        if not url.startswith("https:"):
            return None
        with self._lock:
            key = (reach.ca, reach.skip_tls_verify)
            if key not in self._contexts:
                self._contexts[key] = _context(reach)
            return self._contexts[key]


def pause_after(tries: int) -> float:
    """Seconds to wait before trying again: doubling, with jitter, so that workers spread."""
    return random.uniform(0.5, 1.0) * min(_PAUSE_SECONDS * 2.0**tries, _PAUSE_MAX_SECONDS)


def _scope(scope: str) -> str:
    """``PATH:pull`` is about a repository; what has a kind of its own stays."""
    return scope if scope.startswith("registry:") else f"repository:{scope}"


def _stall_seconds() -> float | None:
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


def _context(reach: Reach) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if reach.skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if reach.ca is not None:
        try:
            context.load_verify_locations(reach.ca)
        except (OSError, ssl.SSLError) as error:
            raise errors.bad_ca(reach, reach.ca, error) from error
    return context
