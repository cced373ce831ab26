"""Sign requests in as a registry asks for it: Basic, or a token from its token server.

The token protocol is Docker's: distribution.github.io/distribution/spec/auth/token, and /oauth for
identity tokens.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlencode, urlsplit

from kfdeploy.http.pool import HttpRequest
from kfdeploy.oci.registry.credentials import Credential

USER_AGENT: Final = "kfdeploy"
_DEFAULT_TOKEN_SECONDS: Final = 60
"""How long a token without `expires_in` is valid, by the token protocol."""
_USED_FRACTION: Final = 0.8
"""A token is replaced before it expires, so that no request is sent with one that just does."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """How a registry wants requests to be signed in.

    Attributes:
        realm: URL of the token server; empty for Basic.
        service: the registry's name there.
    """

    scheme: Literal["basic", "bearer"]
    realm: str = ""
    service: str = ""

    @classmethod
    def parse(cls, header: str) -> Challenge | None:
        """Return what a WWW-Authenticate header asks for; None where that is unknown here."""
        scheme, _, rest = header.partition(" ")
        parameters = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if scheme.lower() == "bearer" and "realm" in parameters:
            return cls("bearer", parameters["realm"], parameters.get("service", ""))
        return cls("basic") if scheme.lower() == "basic" else None


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a request is signed in with.

    Attributes:
        header: value of the Authorization header; empty to send none.
        is_fresh: it was just made from the credential, so a registry that refuses it refuses the
            credential.
    """

    header: str
    is_fresh: bool


class TokenCache:
    """The tokens of one registry, by what they allow; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[frozenset[str], Token] = {}

    def find(self, scopes: Sequence[str]) -> Token | None:
        """Return a valid token that allows all of ``scopes``."""
        wanted = frozenset(scopes)
        now = time.monotonic()
        with self._lock:
            for granted, token in self._tokens.items():
                # A request without a scope (`/v2/`) is not sent with a repository's token.
                if wanted <= granted and (wanted or not granted) and now < token.used_until:
                    return token
        return None

    def put(self, scopes: Sequence[str], token: Token) -> None:
        with self._lock:
            self._tokens[frozenset(scopes)] = token

    def drop(self, scopes: Sequence[str]) -> None:
        """Forget all tokens that allow ``scopes``: the registry refused one."""
        wanted = frozenset(scopes)
        with self._lock:
            self._tokens = {g: token for g, token in self._tokens.items() if not wanted <= g}


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token. ``used_until`` is a time of `time.monotonic`."""

    value: str = field(repr=False)
    used_until: float

    @classmethod
    def parse(cls, body: bytes) -> Token:
        """Return the token in a token server's response.

        Raises:
            ValueError: there is none in it.
        """
        try:
            content = json.loads(body)
            value = content.get("token") or content["access_token"]
            seconds = float(content.get("expires_in") or _DEFAULT_TOKEN_SECONDS)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("no token") from error
        return cls(str(value), time.monotonic() + seconds * _USED_FRACTION)


def build_token_request(
    challenge: Challenge, scopes: Sequence[str], credential: Credential | None
) -> HttpRequest:
    """Return the request for a token, as the challenge and the kind of credential ask for it.

    Args:
        scopes: ``PATH:ACTION[,ACTION]``.
        credential: None to ask for an anonymous token.
    """
    headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
    service = [("service", challenge.service)] if challenge.service else []
    scopes = [_qualify_scope(scope) for scope in scopes]
    if credential is not None and credential.identity_token:
        form = [
            *service,
            *([("scope", " ".join(scopes))] if scopes else []),
            ("grant_type", "refresh_token"),
            ("client_id", "kfdeploy"),
            ("refresh_token", credential.identity_token),
        ]
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        return HttpRequest("POST", challenge.realm, headers, urlencode(form).encode())
    if credential is not None:
        headers["Authorization"] = credential.basic_header
    query = urlencode([*service, *(("scope", scope) for scope in scopes)])
    joint = "&" if urlsplit(challenge.realm).query else "?"
    return HttpRequest("GET", f"{challenge.realm}{joint}{query}", headers)


def _qualify_scope(scope: str) -> str:
    """Return a scope with its kind: ``PATH:pull`` is about a repository."""
    return scope if scope.startswith("registry:") else f"repository:{scope}"
