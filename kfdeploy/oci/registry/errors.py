"""What goes wrong with a registry, in an operator's words: who, what, and what next."""

from __future__ import annotations

import email.utils
import http.client
import json
import socket
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from kfdeploy.errors import UserError
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.http import BODY_MAX, ConnectionsClosed, HttpResponse

if TYPE_CHECKING:
    from kfdeploy.oci.registry.access import RegistryAccess

RegistryErrorKind = Literal[
    "name",
    "refused",
    "timeout",
    "broken",
    "tls",
    "denied",
    "gone",
    "busy",
    "nonsense",
    "content",
    "no-repository",
    "blob-unknown",
    "immutable",
    "full",
]
_WORDS_MAX: Final = 200


class RegistryError(UserError):
    """A registry did not give what was asked for.

    Attributes:
        kind: for callers that treat some of them otherwise.
        final: asking again can't help, for any image of this registry.
        host: the registry, where that is known.
        wait_seconds: how long the registry wants to be left alone.
        is_limit: it limits how much may be asked.
    """

    def __init__(
        self, kind: RegistryErrorKind, message: str, *, hint: str | None = None, final: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.final = final
        self.host = ""
        self.wait_seconds = 0.0
        self.is_limit = False

    @property
    def is_transient(self) -> bool:
        """Asking again may help."""
        return not self.final and self.kind in {"refused", "timeout", "broken", "busy", "full"}

    @property
    def is_inconclusive(self) -> bool:
        """The registry told nothing about the image: it may well be there."""
        return self.kind not in {"gone", "content"}


def connection_error(reach: RegistryAccess, error: Exception) -> RegistryError:
    """No connection, a broken one, or an answer that is no HTTP."""
    host = reach.host
    if isinstance(error, ConnectionsClosed):
        return RegistryError("broken", f"{host}: interrupted", final=True)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_error(reach, error)
    if isinstance(error, ssl.SSLError):
        if error.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
            return RegistryError(
                "tls",
                f"{host}: does not speak TLS",
                hint=f"if it is meant to speak plain HTTP, set {reach.setting}.plainHttp: true",
                final=True,
            )
        return RegistryError("tls", f"{host}: TLS failed: {error.reason or error}", final=True)
    if isinstance(error, socket.gaierror):
        return RegistryError(
            "name",
            f"{host}: no such host name",
            hint="check the name and DNS; for a host that only a proxy can reach, set"
            " registries.sources or HTTPS_PROXY",
            final=error.errno != socket.EAI_AGAIN,
        )
    if isinstance(error, ConnectionRefusedError):
        return RegistryError(
            "refused",
            f"{host}: nothing answers there: connection refused",
            hint="is the registry running, and the port right?",
        )
    if isinstance(error, TimeoutError):
        return RegistryError(
            "timeout",
            f"{host}: no answer in time",
            hint="a firewall may drop the packets; set registries.sources or HTTPS_PROXY where the"
            " way leads through a proxy",
        )
    if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
        return RegistryError(
            "nonsense",
            f"{host}: what answers there is no registry: its answer is no HTTP",
            hint=f"check host and port, and {reach.setting}.plainHttp",
            final=True,
        )
    reason = getattr(error, "strerror", None) or str(error)
    return RegistryError("broken", f"{host}: the connection broke: {reason.lower()}")


def _certificate_error(reach: RegistryAccess, error: ssl.SSLCertVerificationError) -> RegistryError:
    reason = error.verify_message
    unknown = "issuer" in reason or "self-signed" in reason or "self signed" in reason
    if unknown:
        reason = "signed by a CA that is not known here"
    hint = f"set {reach.setting}.ca to a PEM file with its CA"
    if unknown and reach.ca is not None:
        hint = f"{reach.ca} ({reach.setting}.ca) is not the CA that signed it"
    elif not unknown:
        hint = f"the registry needs a certificate that is valid for {reach.host}"
    return RegistryError("tls", f"{reach.host}: certificate: {reason}", hint=hint, final=True)


def ca_error(reach: RegistryAccess, file: Path, error: Exception) -> RegistryError:
    """The PEM file of a CA can't be used."""
    missing = isinstance(error, FileNotFoundError)
    reason = "no such file" if missing else "no certificates in PEM form in it"
    return RegistryError("tls", f"{reach.setting}.ca: {file}: {reason}", final=True)


def access_denied(
    reach: RegistryAccess, path: str, answer: HttpResponse, *, signed_in: bool
) -> RegistryError:
    """401 or 403. Public registries say so, too, about a repository that does not exist."""
    repository = path.removeprefix("/v2/").partition("/manifests/")[0].partition("/blobs/")[0]
    what = f"{reach.host}/{repository}".rstrip("/")
    if signed_in:
        return RegistryError(
            "denied",
            f"{what}: {answer.status}: refused with the sign-in there is for {reach.host}",
            hint=f"sign in again (`docker login {reach.host}`), or ask for the right to pull;"
            " a repository that does not exist may be answered like this, too",
        )
    return RegistryError(
        "denied",
        f"{what}: {answer.status}: refused without a sign-in",
        hint=f"`docker login {reach.host}`, or set {reach.setting}.credentials; a repository that"
        " does not exist may be answered like this, too",
    )


def image_not_found(reach: RegistryAccess, ref: ImageRef) -> RegistryError:
    """404."""
    return RegistryError("gone", f"{ref}: not there: {reach.host} has no such image")


def registry_busy(reach: RegistryAccess, answer: HttpResponse) -> RegistryError:
    """429 and 5xx."""
    if answer.status == 429:
        return RegistryError(
            "busy",
            f"{reach.host}: 429: it limits how much may be asked",
            hint=f"sign in (`docker login {reach.host}`), use a proxy (registries.sources), or try"
            " later; what is done stays done",
        )
    if b"no space left" in answer.body or b'"Err":28' in answer.body:
        return RegistryError(
            "full",
            f"{reach.host}: {answer.status}: no space left on the registry's disk",
            hint="make room there and run the same command again; what is done stays done",
        )
    return RegistryError(
        "busy",
        f"{reach.host}: {answer.status}: it has a fault of its own{_extract_message(answer)}",
        hint="try again later; what is done stays done",
    )


def rate_limited(reach: RegistryAccess, seconds: float) -> RegistryError:
    """It said how long to leave it alone, and that is too long."""
    minutes = f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
    error = RegistryError(
        "busy",
        f"{reach.host}: 429: it limits how much may be asked, and listens again in {minutes}",
        hint=f"sign in (`docker login {reach.host}`), use a proxy (registries.sources), or try"
        " later; what is done stays done",
    )
    error.host, error.wait_seconds, error.is_limit = reach.host, seconds, True
    return error


def sign_in_expired(reach: RegistryAccess) -> RegistryError:
    """A token ran out while a blob was sent."""
    return RegistryError("broken", f"{reach.host}: 401: the sign-in ran out on the way")


def content_changed(reach: RegistryAccess, what: str, wanted: str, kept: str) -> RegistryError:
    """The registry has something else than what was put there."""
    return RegistryError(
        "content",
        f"{what}: copied, and the registry then has {kept} there instead of {wanted}",
        hint="does the registry change images, or does something else push to this tag?",
    )


def delete_refused(reach: RegistryAccess, ref: ImageRef, answer: HttpResponse) -> RegistryError:
    """A registry that keeps what it has."""
    return RegistryError(
        "nonsense",
        f"{ref}: {answer.status}: {reach.host} does not let manifests be"
        f" deleted{_extract_message(answer)}",
        hint="allow it there (the distribution registry: storage.delete.enabled: true), or let the"
        " registry's own retention rules do it",
    )


def manifest_unreadable(reach: RegistryAccess, what: str, words: str) -> RegistryError:
    """The registry took a manifest and can't give it back."""
    return RegistryError(
        "content",
        f"{what}: copied, and then it can't be read there: {words.removeprefix(f'{reach.host}: ')}",
        hint="the registry's storage is damaged, perhaps since its disk was full: delete the file"
        " of that blob there, restart the registry, and run the same command again",
    )


def upload_refused(
    reach: RegistryAccess, repository: ImageRef, answer: HttpResponse, what: str
) -> RegistryError:
    """A registry does not take what it is sent: its own words, and the setting that may help."""
    words = _extract_message(answer)
    low = words.lower() + answer.body[:1000].decode("utf-8", "replace").lower()
    message = f"{repository}: {reach.host} refuses {what}: {answer.status}{words}"
    setting = reach.setting or "registries.private"
    if "immutab" in low or "cannot be overwritten" in low or "already exists" in low:
        return RegistryError(
            "immutable",
            message,
            hint=f"the registry does not let tags move: set {setting}.immutableTags: true",
        )
    if "blob_unknown" in low or "blob unknown" in low:
        return RegistryError("blob-unknown", message)
    if answer.status == 404:
        return RegistryError(
            "no-repository",
            message,
            hint="the registry wants repositories made first: make it, or set"
            f" {setting}.createRepository to a command that does",
        )
    if answer.status == 413:
        return RegistryError(
            "nonsense",
            message,
            hint="a proxy before the registry limits sizes (nginx: client_max_body_size 0)",
        )
    if "digest" in low and answer.status == 400:
        return RegistryError("broken", message)
    if answer.status == 400 and ("name_invalid" in low or "invalid repository" in low):
        return RegistryError(
            "nonsense",
            message,
            hint=f"the registry limits names: set {setting}.naming (keepHost, maxDepth, maxLength)",
        )
    return RegistryError("nonsense", message)


def blob_digest_mismatch(host: str, what: str, found: str) -> RegistryError:
    """What came does not have the digest that it was asked for by."""
    return RegistryError(
        "content",
        f"{host}: {what}: what comes has another digest: {found}",
        hint="a proxy on the way or the storage there is damaged",
    )


def transfer_broken(host: str, what: str, error: Exception | None) -> RegistryError:
    """A transfer that ended before its end."""
    if isinstance(error, TimeoutError):
        return RegistryError(
            "timeout", f"{host}: {what}: no progress any more; the transfer is cut"
        )
    reason = getattr(error, "strerror", None) or str(error or "") or "the connection broke"
    return RegistryError("broken", f"{host}: {what}: broke off: {reason.lower()}")


def unexpected_response(reach: RegistryAccess, answer: HttpResponse, path: str) -> RegistryError:
    """An answer that no registry gives."""
    kind = answer.headers.get("content-type", "no content type").partition(";")[0]
    hint = f"check the host name; a sign-in page or a proxy may answer for {reach.host}"
    if answer.status == 400 and b"HTTPS server" in answer.body:
        hint = f"it speaks TLS: set {reach.setting}.plainHttp: false"
    return RegistryError(
        "nonsense",
        f"{reach.host}: what answers there is no registry: {path} gives {answer.status}, {kind}"
        f"{_extract_message(answer)}",
        hint=hint,
    )


def response_too_long(reach: RegistryAccess, url: str) -> RegistryError:
    """More bytes than any manifest has."""
    return RegistryError(
        "nonsense",
        f"{reach.host}: what answers there is no registry: {urlsplit(url).path} gives more than"
        f" {BODY_MAX // 1024 // 1024} MiB",
    )


def schema_too_old(reach: RegistryAccess, ref: ImageRef) -> RegistryError:
    """A manifest of Docker's schema 1, which can't be copied with its digest."""
    return RegistryError(
        "content",
        f"{ref}: {reach.host} has it only in Docker's schema 1, which Kubernetes no longer pulls",
    )


def content_digest_mismatch(reach: RegistryAccess, ref: ImageRef, found: str) -> RegistryError:
    """The content does not have the digest that it was asked for by."""
    return RegistryError(
        "content",
        f"{ref}: {reach.host} gives content with another digest: {found}",
        hint="a proxy or the registry's storage is damaged: do not use this image",
    )


def unsafe_realm(reach: RegistryAccess, realm: str) -> RegistryError:
    """A token server without TLS, for a registry with TLS."""
    return RegistryError(
        "nonsense",
        f"{reach.host}: wants the sign-in sent to {realm}, without TLS",
        hint="the registry's token realm must be an https:// URL",
        final=True,
    )


def retry_after_seconds(answer: HttpResponse, default: float) -> float:
    """Seconds to wait before asking again, by the answer's Retry-After; at least ``default``."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isdigit():
        return max(float(value), default)
    when = email.utils.parsedate_tz(value) if value else None
    if when is None:
        return default
    return max(email.utils.mktime_tz(when) - time.time(), default)


def _extract_message(answer: HttpResponse) -> str:
    """The registry's own words, if its answer has the form the API lays down."""
    try:
        first = json.loads(answer.body)["errors"][0]
        text = str(first.get("message") or first.get("code"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    return f": {text[:_WORDS_MAX]}"
