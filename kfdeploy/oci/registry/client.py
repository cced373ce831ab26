"""Read from registries by the OCI distribution API."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlsplit

from kfdeploy.http.pool import ConnectionPool, HttpResponse, ResponseStream
from kfdeploy.oci.manifest import MalformedManifest, Manifest
from kfdeploy.oci.reference import ImageRef, is_digest
from kfdeploy.oci.registry import errors
from kfdeploy.oci.registry.access import AccessResolver, RegistryAccess
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.transport import DEFAULT_RETRY_POLICY, RegistryTransport, RetryPolicy


class RegistryClient:
    """Reads from registries; every method may be called from any number of threads."""

    def __init__(
        self,
        resolve_access: AccessResolver,
        *,
        pool: ConnectionPool | None = None,
        retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.transport = RegistryTransport(resolve_access, pool, retry_policy, on_wait)
        self._registries: set[str] = set()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; requests that other threads wait for end at once."""
        self.transport.close()

    def get_access(self, host: str) -> RegistryAccess:
        """Return how ``host`` is reached."""
        return self.transport.get_access(host)

    def check_host(self, host: str) -> None:
        """Check that ``host`` is a registry that lets us in.

        Raises:
            RegistryError: it is not, or does not.
        """
        response = self.transport.request("GET", host, "/v2/")
        if not _is_ping(response):
            raise errors.unexpected_response(self.get_access(host), response, "/v2/")

    def check_push(self, ref: ImageRef) -> None:
        """Check that we may push to a repository: begin an upload and cancel it.

        Raises:
            RegistryError: we may not, or the registry can't be asked.
        """
        path = f"/v2/{ref.path}/blobs/uploads/"
        scope = push_scope(ref)
        response = self.transport.request("POST", ref.host, path, scope)
        if response.status != 202:
            raise errors.unexpected_response(self.get_access(ref.host), response, path)
        if place := urlsplit(response.headers.get("location", "")):
            begun = place._replace(scheme="", netloc="").geturl()
            with contextlib.suppress(RegistryError):  # it ends by itself, only later
                self.transport.request("DELETE", ref.host, begun, scope, patience=0.0)

    def get_digest(self, ref: ImageRef, *, patience: float | None = None) -> str | None:
        """Return the digest behind a tag (or digest); None when the registry has no such image.

        Sends one HEAD; a GET only to a registry that leaves the digest out of its response.

        Args:
            patience: seconds to wait at most for a registry that says it is busy.

        Raises:
            RegistryError: any other response, or none.
        """
        path = manifest_path(ref)
        response = self.transport.request(
            "HEAD", ref.host, path, pull_scope(ref), patience=patience
        )
        if response.status == 404:
            self._confirm_registry(ref.host, response)
            return None
        found = response.headers.get("docker-content-digest", "")
        if is_digest(found):
            return found
        if response.headers.get("content-type", "").startswith("text/html"):
            raise errors.unexpected_response(self.get_access(ref.host), response, path)
        manifest = self.get_manifest(ref, patience=patience)
        return manifest.digest

    def get_manifest(self, ref: ImageRef, *, patience: float | None = None) -> Manifest:
        """Return the manifest or index behind a tag or digest.

        Raises:
            RegistryError: of kind ``gone`` when there is none; ``content`` when it is not the
                content that its digest names, or of Docker's schema 1; ``nonsense`` when it is not
                a manifest.
        """
        access = self.get_access(ref.host)
        path = manifest_path(ref)
        response = self.transport.request("GET", ref.host, path, pull_scope(ref), patience=patience)
        if response.status == 404:
            self._confirm_registry(ref.host, response)
            raise errors.image_not_found(access, ref)
        kind = response.headers.get("content-type", "").partition(";")[0].strip()
        algorithm = ref.digest.partition(":")[0] or "sha256"
        try:
            found = Manifest.parse(response.body, kind, algorithm)
        except MalformedManifest as error:
            if _is_schema_1(response.body):
                raise errors.schema_too_old(access, ref) from error
            raise errors.unexpected_response(access, response, path) from error
        if ref.digest and found.digest != ref.digest:
            raise errors.content_digest_mismatch(access, ref, found.digest)
        return found

    def get_blob(self, ref: ImageRef, digest: str, *, patience: float | None = None) -> bytes:
        """Return a small blob of ``ref``'s repository, such as a config (at most 16 MiB).

        Raises:
            RegistryError: see `get_manifest`.
        """
        path = blob_path(ref, digest)
        response = self.transport.request("GET", ref.host, path, pull_scope(ref), patience=patience)
        wanted = ImageRef(ref.host, ref.path, "", digest)
        if response.status == 404:
            raise errors.image_not_found(self.get_access(ref.host), wanted)
        if (found := _hash_body(response.body, digest)) != digest:
            raise errors.content_digest_mismatch(self.get_access(ref.host), wanted, found)
        return response.body

    @contextlib.contextmanager
    def open_blob(
        self, ref: ImageRef, digest: str, *, offset: int = 0, patience: float | None = None
    ) -> Iterator[ResponseStream]:
        """Open a blob of ``ref``'s repository, of any size, to be read piece by piece.

        Its content is not checked: the caller knows the digest, and hashes what it reads.

        Args:
            offset: bytes to leave out at the beginning.

        Raises:
            RegistryError: see `get_manifest`. A connection that breaks later is the stream's
                OSError or HTTPException.
        """
        path = blob_path(ref, digest)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self.transport.request(
            "GET",
            ref.host,
            path,
            pull_scope(ref),
            headers=headers,
            stream=True,
            patience=patience,
        )
        if response.stream is None:
            raise errors.image_not_found(
                self.get_access(ref.host), ImageRef(ref.host, ref.path, "", digest)
            )
        try:
            if offset and response.status == 200:
                _skip_bytes(response.stream, offset)
            yield response.stream
        finally:
            response.stream.close()

    def _confirm_registry(self, host: str, response: HttpResponse) -> None:
        """Check once that a server which answers 404 is a registry: else that says nothing."""
        kind = response.headers.get("content-type", "")
        if host not in self._registries and not kind.startswith("application/json"):
            self.check_host(host)
            self._registries.add(host)


def manifest_path(ref: ImageRef) -> str:
    """Return the API's path of a manifest: by digest where there is one, else by tag."""
    name = ref.digest or ref.tag or "latest"
    return f"/v2/{ref.path}/manifests/{quote(name, safe=':')}"


def blob_path(ref: ImageRef, digest: str) -> str:
    """Return the API's path of a blob of ``ref``'s repository."""
    return f"/v2/{ref.path}/blobs/{digest}"


def pull_scope(ref: ImageRef) -> str:
    """Return the scope, in the token protocol, for reading a repository."""
    return f"{ref.path}:pull"


def push_scope(ref: ImageRef) -> str:
    """Return the scope, in the token protocol, for writing to a repository."""
    return f"{ref.path}:pull,push"


def _skip_bytes(stream: ResponseStream, count: int) -> None:
    """Read past what a server sends that ignores ranges."""
    buffer = memoryview(bytearray(min(count, 1 << 20)))
    while count:
        got = stream.readinto(buffer[: min(count, len(buffer))])
        if not got:
            return
        count -= got


def _hash_body(body: bytes, like: str) -> str:
    algorithm = like.partition(":")[0] or "sha256"
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


def _is_schema_1(body: bytes) -> bool:
    try:
        return bool(json.loads(body)["schemaVersion"] == 1)
    except (ValueError, KeyError, TypeError):
        return False


def _is_ping(response: HttpResponse) -> bool:
    """Return whether this answers ``/v2/`` as registries do.

    Their body is ``{}`` or nothing, and most name the API's version in a header.
    """
    if response.status != 200:
        return False
    if "docker-distribution-api-version" in response.headers:
        return True
    kind = response.headers.get("content-type", "")
    return not response.body.strip() or kind.startswith("application/json")
