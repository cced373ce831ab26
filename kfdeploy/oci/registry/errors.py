"""Say what went wrong with a registry: which one, what, and what to do next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from kfdeploy.errors import UserError
from kfdeploy.http.faults import FaultKind, classify_fault
from kfdeploy.http.pool import BODY_MAX, HttpResponse
from kfdeploy.oci.reference import ImageRef
from kfdeploy.wording import format_bytes

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
_MESSAGE_MAX: Final = 200
"""Characters of a registry's own message that are repeated."""
_RETRY_LATER: Final = "run the same command again later: it goes on where it stopped"
_PROXY_HINT: Final = (
    "if the registry is reached through a proxy, set registries.sources or HTTPS_PROXY"
)


class RegistryError(UserError):
    """A registry did not give what was asked for.

    Attributes:
        kind: for callers that treat some of them differently.
        final: asking again can't help, for any image of this registry.
        host: the registry, where that is known.
        wait_seconds: how long the registry wants to be left alone.
        is_limit: it limits how much may be asked.
    """

    def __init__(
        self,
        kind: RegistryErrorKind,
        message: str,
        *,
        hint: str | None = None,
        final: bool = False,
        host: str = "",
        wait_seconds: float = 0.0,
        is_limit: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.final = final
        self.host = host
        self.wait_seconds = wait_seconds
        self.is_limit = is_limit

    @property
    def is_transient(self) -> bool:
        """Whether asking again may help."""
        return not self.final and self.kind in {"refused", "timeout", "broken", "busy", "full"}

    @property
    def is_inconclusive(self) -> bool:
        """Whether the registry said nothing about the image, which may well be there."""
        return self.kind not in {"gone", "content"}


class _FaultReport(NamedTuple):
    """How a connection's fault is reported. HOST and SETTING in the hint are replaced."""

    kind: RegistryErrorKind
    hint: str | None = None


_FAULT_REPORTS: Final[dict[FaultKind, _FaultReport]] = {
    "closed": _FaultReport("broken"),
    "unknown-ca": _FaultReport("tls", "set SETTING.ca to a PEM file with its CA"),
    "certificate": _FaultReport("tls", "the registry needs a certificate that is valid for HOST"),
    "plain-http": _FaultReport("tls", "if it speaks plain HTTP, set SETTING.plainHttp: true"),
    "tls": _FaultReport("tls"),
    "name": _FaultReport("name", f"check the name and DNS; {_PROXY_HINT}"),
    "refused": _FaultReport("refused", "check that the registry is running, and its port"),
    "timeout": _FaultReport("timeout", f"a firewall may drop the packets; {_PROXY_HINT}"),
    "not-http": _FaultReport("nonsense", "check host and port, and SETTING.plainHttp"),
    "broken": _FaultReport("broken"),
}


def connection_error(access: RegistryAccess, error: Exception) -> RegistryError:
    """Report a connection that could not be made or broke, or a response that is not HTTP."""
    fault = classify_fault(error)
    kind, hint = _FAULT_REPORTS[fault.kind]
    if fault.kind == "unknown-ca" and access.ca is not None:
        hint = f"{access.ca} (SETTING.ca) is not the CA that signed it"
    reason = "not a registry: " + fault.reason if fault.kind == "not-http" else fault.reason
    return RegistryError(
        kind,
        f"{access.host}: {reason}",
        hint=hint and hint.replace("HOST", access.host).replace("SETTING", access.setting),
        final=not fault.is_transient,
        host=access.host,
    )


def ca_error(access: RegistryAccess, file: Path, error: Exception) -> RegistryError:
    """Report the PEM file of a CA that can't be used."""
    missing = isinstance(error, FileNotFoundError)
    reason = "no such file" if missing else "no certificate in PEM form in it"
    return RegistryError("tls", f"{access.setting}.ca: {file}: {reason}", final=True)


def access_denied(
    access: RegistryAccess, path: str, response: HttpResponse, *, signed_in: bool
) -> RegistryError:
    """Report 401 or 403. Public registries use them for repositories that do not exist, too."""
    host = access.host
    repository = path.removeprefix("/v2/").partition("/manifests/")[0].partition("/blobs/")[0]
    subject = f"{host}/{repository}".rstrip("/")
    may_not_exist = "some registries answer like this for a repository that does not exist"
    if signed_in:
        return RegistryError(
            "denied",
            f"{subject}: {response.status}: denied with the credential for {host}",
            hint=f"sign in again (`docker login {host}`), or ask for the right to pull;"
            f" {may_not_exist}",
        )
    return RegistryError(
        "denied",
        f"{subject}: {response.status}: denied without a sign-in",
        hint=f"sign in (`docker login {host}`), or set {access.setting}.credentials;"
        f" {may_not_exist}",
    )


def image_not_found(access: RegistryAccess, ref: ImageRef) -> RegistryError:
    """Report 404."""
    return RegistryError("gone", f"{ref}: not found: {access.host} has no such image")


def registry_busy(access: RegistryAccess, response: HttpResponse) -> RegistryError:
    """Report 429 and 5xx."""
    host = access.host
    if response.status == 429:
        return _limit_error(access, f"{host}: 429: rate limit reached")
    if b"no space left" in response.body or b'"Err":28' in response.body:
        return RegistryError(
            "full",
            f"{host}: {response.status}: no space left on the registry's disk",
            hint="free some space there, then run the same command again: it goes on where it"
            " stopped",
            host=host,
        )
    return RegistryError(
        "busy",
        f"{host}: {response.status}: server error{_extract_message(response)}",
        hint=_RETRY_LATER,
        host=host,
    )


def rate_limited(access: RegistryAccess, seconds: float) -> RegistryError:
    """Report that the registry wants to be left alone for longer than a request waits."""
    time = f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
    return _limit_error(
        access, f"{access.host}: 429: rate limit reached; it ends in {time}", seconds
    )


def _limit_error(access: RegistryAccess, message: str, wait_seconds: float = 0.0) -> RegistryError:
    return RegistryError(
        "busy",
        message,
        hint=f"sign in (`docker login {access.host}`), use a proxy (registries.sources), or"
        f" {_RETRY_LATER}",
        host=access.host,
        wait_seconds=wait_seconds,
        is_limit=True,
    )


def sign_in_expired(access: RegistryAccess) -> RegistryError:
    """Report a token that expired while a blob was sent."""
    return RegistryError("broken", f"{access.host}: 401: the token expired during the upload")


def content_changed(access: RegistryAccess, what: str, wanted: str, kept: str) -> RegistryError:
    """Report a registry that has something else than what was pushed.

    Args:
        kept: the digest it has; or ``nothing``.
    """
    return RegistryError(
        "content",
        f"{what}: pushed as {wanted}, but the registry has {kept} there",
        hint="check whether the registry changes images, or something else pushes to this tag",
    )


def delete_refused(access: RegistryAccess, ref: ImageRef, response: HttpResponse) -> RegistryError:
    """Report a registry that does not delete."""
    return RegistryError(
        "nonsense",
        f"{ref}: {response.status}: {access.host} does not allow manifests to be"
        f" deleted{_extract_message(response)}",
        hint="allow it in the registry (the distribution registry: storage.delete.enabled: true),"
        " or leave it to the registry's own retention rules",
    )


def manifest_unreadable(access: RegistryAccess, what: str, reason: str) -> RegistryError:
    """Report a manifest that the registry took and can't return."""
    return RegistryError(
        "content",
        f"{what}: pushed, but the registry can't read it:"
        f" {reason.removeprefix(f'{access.host}: ')}",
        hint="the registry's storage is damaged, perhaps because its disk was full: delete the file"
        " of that blob there, restart the registry, and run the same command again",
    )


class _Refusal(NamedTuple):
    """How a refused upload is reported. SETTING in the hint is replaced.

    Attributes:
        status: of the response; None for any.
        phrases: one of them is in the response, in lower case; empty for any text.
    """

    kind: RegistryErrorKind
    status: int | None
    phrases: tuple[str, ...]
    hint: str | None = None

    def matches(self, status: int, text: str) -> bool:
        return self.status in {None, status} and (
            not self.phrases or any(phrase in text for phrase in self.phrases)
        )


_REFUSALS: Final = (
    _Refusal(
        "immutable",
        None,
        ("immutab", "cannot be overwritten", "already exists"),
        "the registry does not move tags: set SETTING.immutableTags: true",
    ),
    _Refusal("blob-unknown", None, ("blob_unknown", "blob unknown")),
    _Refusal(
        "no-repository",
        404,
        (),
        "the registry needs the repository to be created first: create it, or set"
        " SETTING.createRepository to a command that does",
    ),
    _Refusal(
        "nonsense",
        413,
        (),
        "a proxy in front of the registry limits sizes (nginx: client_max_body_size 0)",
    ),
    _Refusal("broken", 400, ("digest",)),
    _Refusal(
        "nonsense",
        400,
        ("name_invalid", "invalid repository"),
        "the registry limits names: set SETTING.naming (keepHost, maxDepth, maxLength)",
    ),
    _Refusal("nonsense", None, ()),
)
"""The first that matches holds. Registries word the same fault differently."""


def upload_refused(
    access: RegistryAccess, repository: ImageRef, response: HttpResponse, what: str
) -> RegistryError:
    """Report what a registry refuses to store: its own message, and the setting that may help."""
    message = _extract_message(response)
    text = (message + response.body[:1000].decode("utf-8", "replace")).lower()
    refusal = next(refusal for refusal in _REFUSALS if refusal.matches(response.status, text))
    setting = access.setting or "registries.private"
    return RegistryError(
        refusal.kind,
        f"{repository}: {access.host} refuses {what}: {response.status}{message}",
        hint=refusal.hint and refusal.hint.replace("SETTING", setting),
    )


def blob_digest_mismatch(host: str, what: str, found: str) -> RegistryError:
    """Report a blob that does not have the digest it was requested by."""
    return RegistryError(
        "content",
        f"{host}: {what}: the content has another digest: {found}",
        hint="a proxy on the way, or the registry's storage, is damaged",
    )


def transfer_broken(host: str, what: str, error: Exception | None) -> RegistryError:
    """Report a transfer that ended too early."""
    if isinstance(error, TimeoutError):
        return RegistryError("timeout", f"{host}: {what}: no progress, so the transfer was stopped")
    reason = getattr(error, "strerror", None) or str(error or "") or "the connection broke"
    return RegistryError("broken", f"{host}: {what}: transfer failed: {reason.lower()}")


def unexpected_response(access: RegistryAccess, response: HttpResponse, path: str) -> RegistryError:
    """Report a response that no registry gives."""
    content_type = response.headers.get("content-type", "no content type").partition(";")[0]
    hint = f"check the host name; a sign-in page or a proxy may answer for {access.host}"
    if response.status == 400 and b"HTTPS server" in response.body:
        hint = f"it speaks TLS: set {access.setting}.plainHttp: false"
    return RegistryError(
        "nonsense",
        f"{access.host}: not a registry: {path} answers {response.status}, {content_type}"
        f"{_extract_message(response)}",
        hint=hint,
    )


def response_too_long(access: RegistryAccess, url: str) -> RegistryError:
    """Report a response with more bytes than any manifest has."""
    return RegistryError(
        "nonsense",
        f"{access.host}: not a registry: {urlsplit(url).path} answers with more than"
        f" {format_bytes(BODY_MAX)}",
    )


def schema_too_old(access: RegistryAccess, ref: ImageRef) -> RegistryError:
    """Report a manifest of Docker's schema 1, which can't be copied with its digest."""
    return RegistryError(
        "content",
        f"{ref}: {access.host} has it only in Docker's schema 1, which Kubernetes does not pull",
    )


def content_digest_mismatch(access: RegistryAccess, ref: ImageRef, found: str) -> RegistryError:
    """Report a manifest that does not have the digest it was requested by."""
    return RegistryError(
        "content",
        f"{ref}: {access.host} returns content with another digest: {found}",
        hint="a proxy on the way, or the registry's storage, is damaged: do not use this image",
    )


def unsafe_realm(access: RegistryAccess, realm: str) -> RegistryError:
    """Report a token server without TLS, for a registry with TLS."""
    return RegistryError(
        "nonsense",
        f"{access.host}: its token server {realm} does not use TLS; no credential is sent there",
        hint="the registry's token realm must be an https:// URL",
        final=True,
    )


def _extract_message(response: HttpResponse) -> str:
    """Return ``: MESSAGE`` from a response in the API's error format; else nothing."""
    try:
        first = json.loads(response.body)["errors"][0]
        text = str(first.get("message") or first.get("code"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    return f": {text[:_MESSAGE_MAX]}"
