"""A client for registries (the OCI distribution API): digests, manifests, small blobs.

Made to ask for little: connections are kept alive and shared by threads, a registry's way of
signing in is learnt once, a token serves until it expires, and a registry that can't be reached
is not tried again for each of a hundred images.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from kfdeploy.model.image import ImageRef
from kfdeploy.model.manifest import TYPES, Malformed, Manifest
from kfdeploy.tools import registry_errors as errors
from kfdeploy.tools.credentials import Credential, Keyring
from kfdeploy.tools.reach import Reach, Reaches
from kfdeploy.tools.registry_errors import RegistryError
from kfdeploy.tools.wire import Answer, Closed, Stream, TooLong, Wire

_ACCEPT: Final = ", ".join(sorted(TYPES))
_DIGEST: Final = re.compile(r"[a-z0-9]+:[0-9a-f]{32,}")
_TRIES: Final = 4
_PAUSE_SECONDS: Final = 0.4
PATIENCE_SECONDS: Final = 45.0
"""The longest that one request waits for a registry that says it is busy."""
_TOKEN_SECONDS: Final = 60
"""How long a token without `expires_in` is good for, by the token protocol."""


@dataclass(slots=True)
class _Known:
    """What was learnt about one registry."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    scheme: str = ""  # "", "basic" or "bearer"
    realm: str = ""
    service: str = ""
    tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    down: RegistryError | None = None
    is_registry: bool = False


class Client:
    """Asks registries; every method may be called from any number of threads."""

    def __init__(self, reaches: Reaches, *, wire: Wire | None = None) -> None:
        self._reaches = reaches
        self._wire = wire or Wire()
        self._keyring = Keyring()
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._contexts: dict[tuple[Path | None, bool], ssl.SSLContext] = {}
        self._closed = threading.Event()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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

    def check(self, host: str) -> None:
        """Whether ``host`` is a registry that lets us in.

        Raises:
            RegistryError: it isn't, or doesn't.
        """
        reach = self._reaches(host)
        answer = self._ask("GET", reach, "/v2/", scope="", patience=PATIENCE_SECONDS)
        if not _is_ping(answer):
            raise errors.nonsense(reach, answer, "/v2/")

    def check_push(self, ref: ImageRef) -> None:
        """Whether we may push to a repository: an upload is begun and given up again.

        Raises:
            RegistryError: we may not, or it can't be asked.
        """
        reach = self._reaches(ref.host)
        path = f"/v2/{ref.path}/blobs/uploads/"
        scope = f"{ref.path}:pull,push"
        answer = self._ask("POST", reach, path, scope=scope, patience=PATIENCE_SECONDS)
        if answer.status != 202:
            raise errors.nonsense(reach, answer, path)
        if place := urlsplit(answer.headers.get("location", "")):
            begun = place._replace(scheme="", netloc="").geturl()
            with contextlib.suppress(RegistryError):  # it ends by itself, only later
                self._ask("DELETE", reach, begun, scope=scope, patience=0.0)

    def digest(self, ref: ImageRef, *, patience: float = PATIENCE_SECONDS) -> str | None:
        """The digest behind a tag (or digest); None when the registry has no such image.

        One HEAD; a GET only for a registry that leaves the digest out of its answer.

        Args:
            patience: seconds to wait at most for a registry that says it is busy.

        Raises:
            RegistryError: any other answer, or none.
        """
        reach = self._reaches(ref.host)
        path = _manifest_path(ref)
        answer = self._ask("HEAD", reach, path, scope=ref.path, patience=patience)
        if answer.status == 404:
            self._confirm(reach, answer)
            return None
        found = answer.headers.get("docker-content-digest", "")
        if _DIGEST.fullmatch(found):
            return found
        if answer.headers.get("content-type", "").startswith("text/html"):
            raise errors.nonsense(reach, answer, path)
        manifest = self.manifest(ref, patience=patience)
        return manifest.digest

    def manifest(self, ref: ImageRef, *, patience: float = PATIENCE_SECONDS) -> Manifest:
        """The manifest or index behind a tag or digest.

        Raises:
            RegistryError: kind ``gone`` when there is none; nonsense when it is no manifest, or
                not the content that its digest says.
        """
        reach = self._reaches(ref.host)
        path = _manifest_path(ref)
        answer = self._ask("GET", reach, path, scope=ref.path, patience=patience)
        if answer.status == 404:
            self._confirm(reach, answer)
            raise errors.gone(reach, ref)
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        algorithm = ref.digest.partition(":")[0] or "sha256"
        try:
            found = Manifest.parse(answer.body, kind, algorithm)
        except Malformed as error:
            if _is_schema_1(answer.body):
                raise errors.too_old(reach, ref) from error
            raise errors.nonsense(reach, answer, path) from error
        if ref.digest and found.digest != ref.digest:
            raise errors.other_content(reach, ref, found.digest)
        return found

    def get(self, ref: ImageRef, path: str, *, patience: float = PATIENCE_SECONDS) -> Answer:
        """What the registry answers, 200 or 404, for a path of its API about ``ref``'s repository.

        Raises:
            RegistryError: any other answer, or none.
        """
        return self._ask("GET", self._reaches(ref.host), path, scope=ref.path, patience=patience)

    def blob(self, ref: ImageRef, digest: str, *, patience: float = PATIENCE_SECONDS) -> bytes:
        """A small blob of ``ref``'s repository, such as a config (at most 16 MiB).

        Raises:
            RegistryError: see `manifest`.
        """
        reach = self._reaches(ref.host)
        path = f"/v2/{ref.path}/blobs/{digest}"
        answer = self._ask("GET", reach, path, scope=ref.path, patience=patience)
        wanted = ImageRef(ref.host, ref.path, "", digest)
        if answer.status == 404:
            raise errors.gone(reach, wanted)
        if (found := _hash(answer.body, digest)) != digest:
            raise errors.other_content(reach, wanted, found)
        return answer.body

    @contextlib.contextmanager
    def open_blob(
        self, ref: ImageRef, digest: str, *, patience: float = PATIENCE_SECONDS
    ) -> Iterator[Stream]:
        """A blob of ``ref``'s repository, of any size, to be read piece by piece.

        Nothing is checked on the way: whoever reads knows the digest, and hashes what it reads.

        Raises:
            RegistryError: see `manifest`. A connection that breaks later is the stream's OSError or
                HTTPException.
        """
        reach = self._reaches(ref.host)
        path = f"/v2/{ref.path}/blobs/{digest}"
        answer = self._ask("GET", reach, path, scope=ref.path, patience=patience, stream=True)
        if answer.stream is None:
            raise errors.gone(reach, ImageRef(ref.host, ref.path, "", digest))
        try:
            yield answer.stream
        finally:
            answer.stream.close()

    def _ask(
        self,
        method: str,
        reach: Reach,
        path: str,
        *,
        scope: str,
        patience: float,
        stream: bool = False,
    ) -> Answer:
        """The registry's answer, signed in where it wants that; 200 or 404, others are raised."""
        known = self._knowledge(reach.host)
        headers = {"Accept": _ACCEPT, "User-Agent": "kfdeploy"}
        url = reach.url + path
        for _ in range(3):
            authorization, fresh = self._authorization(reach, known, scope, patience)
            if authorization:
                headers["Authorization"] = authorization
            answer = self._send(method, reach, url, headers, known, patience, stream=stream)
            if answer.status != 401 or fresh or not self._learn(reach, answer, known, scope):
                break
        if answer.status in {401, 403}:
            signed_in = self.credential(reach.host) is not None
            raise errors.denied(reach, path, answer, signed_in=signed_in)
        if answer.status not in {200, 202, 204, 404}:
            raise errors.nonsense(reach, answer, path)
        return answer

    def _authorization(
        self, reach: Reach, known: _Known, scope: str, patience: float
    ) -> tuple[str, bool]:
        """The header to send, and whether it is as new as can be: refused, it stays refused."""
        if known.scheme == "basic":
            credential = self.credential(reach.host)
            return (credential.basic if credential else ""), True
        if known.scheme == "bearer":
            with known.lock:
                token, end = known.tokens.get(scope, ("", 0.0))
            if token and time.monotonic() < end:
                return f"Bearer {token}", False
            token, seconds = self._token(reach, known, scope, patience)
            with known.lock:
                known.tokens[scope] = (token, time.monotonic() + seconds * 0.8)
            return f"Bearer {token}", True
        return "", False

    def _learn(self, reach: Reach, answer: Answer, known: _Known, scope: str) -> bool:
        """Take the registry's challenge; whether there is anything to try again with."""
        challenge = answer.headers.get("www-authenticate", "")
        scheme, _, rest = challenge.partition(" ")
        parameters = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        with known.lock:
            known.tokens.pop(scope, None)
            if scheme.lower() == "bearer" and "realm" in parameters:
                known.scheme = "bearer"
                known.realm = parameters["realm"]
                known.service = parameters.get("service", "")
                return True
            if scheme.lower() == "basic":
                known.scheme = "basic"
                return True
        return False

    def _token(self, reach: Reach, known: _Known, scope: str, patience: float) -> tuple[str, float]:
        """A Bearer token from the realm the registry named, and the seconds it is good for."""
        if not reach.plain_http and urlsplit(known.realm).scheme != "https":
            raise errors.unsafe_realm(reach, known.realm)
        query = {"service": known.service} if known.service else {}
        if scope:
            query["scope"] = f"repository:{scope if ':' in scope else scope + ':pull'}"
        credential = self.credential(reach.host)
        headers = {"User-Agent": "kfdeploy", "Accept": "application/json"}
        if credential is not None and credential.identity_token:
            form = {**query, "grant_type": "refresh_token", "client_id": "kfdeploy"}
            form["refresh_token"] = credential.identity_token
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(form).encode()
            answer = self._send("POST", reach, known.realm, headers, known, patience, body=body)
        else:
            if credential is not None:
                headers["Authorization"] = credential.basic
            joint = "&" if urlsplit(known.realm).query else "?"
            url = f"{known.realm}{joint}{urlencode(query)}"
            answer = self._send("GET", reach, url, headers, known, patience)
        if answer.status in {400, 401, 403}:
            raise errors.denied(reach, f"/v2/{scope}/", answer, signed_in=credential is not None)
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
        patience: float,
        *,
        body: bytes | None = None,
        stream: bool = False,
    ) -> Answer:
        """One request, tried again while that may help."""
        end = time.monotonic() + patience
        problem: RegistryError
        for attempt in range(_TRIES):
            if known.down is not None:
                raise known.down
            pause = _PAUSE_SECONDS * 2**attempt
            try:
                answer = self._wire.request(
                    method, url, headers, tls=self._tls(reach, url), body=body, stream=stream
                )
            except TooLong as error:
                raise errors.too_long(reach, url) from error
            except (OSError, http.client.HTTPException, Closed) as error:
                problem = errors.unreachable(reach, error)
                if problem.final:
                    known.down = problem
                    raise problem from error
            else:
                if answer.status != 429 and answer.status < 500:
                    return answer
                problem = errors.busy(reach, answer)
                pause = errors.retry_after(answer, pause)
            if attempt + 1 == _TRIES or time.monotonic() + pause > end:
                break
            if self._closed.wait(pause):
                break
        if problem.kind == "refused":
            known.down = problem
        raise problem

    def _confirm(self, reach: Reach, answer: Answer) -> None:
        """A 404 of a server that is no registry says nothing about an image: ask it once."""
        known = self._knowledge(reach.host)
        if known.is_registry or answer.headers.get("content-type", "").startswith(
            "application/json"
        ):
            return
        self.check(reach.host)
        known.is_registry = True

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


def _manifest_path(ref: ImageRef) -> str:
    name = ref.digest or ref.tag or "latest"
    return f"/v2/{ref.path}/manifests/{quote(name, safe=':')}"


def _hash(body: bytes, like: str) -> str:
    algorithm = like.partition(":")[0] or "sha256"
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


def _is_schema_1(body: bytes) -> bool:
    try:
        return bool(json.loads(body)["schemaVersion"] == 1)
    except (ValueError, KeyError, TypeError):
        return False


def _is_ping(answer: Answer) -> bool:
    """Registries answer `/v2/` with `{}` or nothing, and mostly name the API's version."""
    if answer.status != 200:
        return False
    if "docker-distribution-api-version" in answer.headers:
        return True
    kind = answer.headers.get("content-type", "")
    return not answer.body.strip() or kind.startswith("application/json")
