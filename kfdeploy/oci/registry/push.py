"""Write to registries: mount or send blobs, push manifests, and add to lists of referrers.

By the OCI distribution specification 1.1. A blob is one POST and one PUT: registries must accept
that, and it is two requests fewer than an upload in chunks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from kfdeploy.http.pool import HttpResponse, RequestBody
from kfdeploy.oci.attachments import build_fallback_index, fallback_tag
from kfdeploy.oci.manifest import Descriptor, Manifest
from kfdeploy.oci.reference import ImageRef, is_digest
from kfdeploy.oci.registry import errors
from kfdeploy.oci.registry.client import (
    RegistryClient,
    blob_path,
    manifest_path,
    pull_scope,
    push_scope,
)
from kfdeploy.oci.registry.errors import RegistryError

_SAID: Final = (400, 403, 405, 409, 412, 413, 416)
"""Statuses with which registries refuse what is sent, and say why."""
_HOOK_SECONDS: Final = 120.0


class RegistryPusher:
    """Writes to registries; safe for threads. A repository is an ImageRef without tag and digest.

    All methods raise RegistryError.
    """

    def __init__(
        self,
        client: RegistryClient,
        create: Callable[[str], Sequence[str]] | None = None,
        root: Path | None = None,
    ) -> None:
        """Take the client that signs in.

        Args:
            create: returns the command that creates a repository, by its path; empty for none.
            root: folder that the command is run in.
        """
        self._client = client
        self._create = create
        self._root = root
        self._lock = threading.Lock()
        self._mounted_from: dict[ImageRef, set[str]] = {}
        self._made: dict[ImageRef, threading.Lock] = {}
        self._created: set[ImageRef] = set()
        self._listing: dict[tuple[ImageRef, str], threading.Lock] = {}

    def has_blob(self, repository: ImageRef, blob: Descriptor) -> bool:
        """Return whether a repository has a blob, with its size."""
        path = blob_path(repository, blob.digest)
        response = self._client.transport.request(
            "HEAD", repository.host, path, push_scope(repository)
        )
        length = response.headers.get("content-length", "")
        return response.status == 200 and (not length.isdigit() or int(length) == blob.size)

    def mount_blob(self, repository: ImageRef, blob: Descriptor, other: ImageRef) -> str | None:
        """Take a blob over from another repository of the same registry.

        Returns:
            None when the registry did; else the upload that it has begun instead.
        """
        with self._lock:
            # One token for all that are mounted from, instead of one for each pair.
            known = self._mounted_from.setdefault(repository, set())
            known.add(pull_scope(other))
            others = sorted(known)
        query = f"?mount={quote(blob.digest)}&from={quote(other.path, safe='')}"
        response = self._begin_upload(repository, query, *others)
        return None if response.status == 201 else _upload_location(response)

    def push_blob(
        self, repository: ImageRef, blob: Descriptor, body: bytes | RequestBody, begun: str = ""
    ) -> None:
        """Send a blob.

        Args:
            begun: an upload that `mount_blob` has begun.
        """
        place = begun or _upload_location(self._begin_upload(repository, ""))
        joint = "&" if urlsplit(place).query else "?"
        url = f"{place}{joint}digest={quote(blob.digest)}"
        response = self._client.transport.request(
            "PUT",
            repository.host,
            url,
            push_scope(repository),
            headers={"Content-Type": "application/octet-stream"},
            body=body,
            accept_statuses=_SAID,
        )
        if response.status not in {201, 202, 204}:
            raise self._upload_error(repository, response, f"blob {blob.digest}")

    def push_manifest(self, repository: ImageRef, manifest: Manifest, tag: str = "") -> None:
        """Write a manifest under a tag, or under its digest alone.

        Where the registry does not list referrers itself, the manifest is also added to the list
        that stands in for that, under the tag ``sha256-HEX`` of its subject.
        """
        named = ImageRef(repository.host, repository.path, tag, "" if tag else manifest.digest)
        what = str(named)
        response = self._client.transport.request(
            "PUT",
            repository.host,
            manifest_path(named),
            push_scope(repository),
            headers={"Content-Type": manifest.media_type},
            body=manifest.body,
            accept_statuses=_SAID,
            may_retry=False,
        )
        if response.status == 404 or response.status not in {200, 201, 202}:
            raise self._upload_error(repository, response, what)
        kept = response.headers.get("docker-content-digest", "")
        if not is_digest(kept):
            kept = self._client.get_digest(named) or "nothing"
        if kept != manifest.digest:
            raise errors.content_changed(
                self._client.get_access(repository.host), what, manifest.digest, kept
            )
        if manifest.subject and "oci-subject" not in response.headers:
            self._add_referrer(repository, manifest)

    def confirm_manifest(self, repository: ImageRef, manifest: Manifest) -> None:
        """Check that a manifest that was pushed can be read.

        A registry may accept what it does not have: the distribution registry (2.8 at least) keeps
        an empty file when its disk is full, reports that, and accepts the same manifest when it is
        sent again, because its file is there.
        """
        named = ImageRef(repository.host, repository.path, "", manifest.digest)
        try:
            found = self._client.get_digest(named)
        except RegistryError as error:
            if error.kind != "busy" or error.is_limit:
                raise
            access = self._client.get_access(repository.host)
            raise errors.manifest_unreadable(access, str(named), error.message) from error
        if found != manifest.digest:
            access = self._client.get_access(repository.host)
            raise errors.content_changed(access, str(named), manifest.digest, found or "nothing")

    def _begin_upload(self, repository: ImageRef, query: str, *scopes: str) -> HttpResponse:
        path = f"/v2/{repository.path}/blobs/uploads/{query}"
        for again in (True, False):
            response = self._client.transport.request(
                "POST",
                repository.host,
                path,
                push_scope(repository),
                *scopes,
                accept_statuses=_SAID,
            )
            if response.status in {201, 202}:
                break
            if again and response.status == 404 and self._create_repository(repository):
                continue
            raise self._upload_error(repository, response, "an upload")
        return response

    def _create_repository(self, repository: ImageRef) -> bool:
        """Run the site's command for a missing repository; return whether there is one."""
        if self._create is None:
            return False
        with self._lock:
            lock = self._made.setdefault(repository, threading.Lock())
        with lock:
            if repository not in self._created:
                from kfdeploy.programs import process

                program, *arguments = self._create(repository.path)
                if self._root is not None and "/" in program:
                    program = str((self._root / program).absolute())
                process.run_program(
                    [program, *arguments],
                    cwd=self._root,
                    timeout=_HOOK_SECONDS,
                    what="registries.private.createRepository",
                )
                self._created.add(repository)
        return True

    def _upload_error(
        self, repository: ImageRef, response: HttpResponse, what: str
    ) -> RegistryError:
        return errors.upload_refused(
            self._client.get_access(repository.host), repository, response, what
        )

    def _add_referrer(self, repository: ImageRef, manifest: Manifest) -> None:
        """Add a manifest to the list of referrers of its subject."""
        tag = fallback_tag(manifest.subject)
        with self._lock:
            lock = self._listing.setdefault((repository, tag), threading.Lock())
        with lock:
            before: Manifest | None = None
            try:
                before = self._client.get_manifest(ImageRef(repository.host, repository.path, tag))
            except RegistryError as error:
                if error.kind != "gone":
                    raise
            index = build_fallback_index([manifest], before)
            if before is None or index.digest != before.digest:
                self.push_manifest(repository, index, tag)


def _upload_location(response: HttpResponse) -> str:
    """Return where an upload goes on; registries give a path or a whole URL."""
    return urljoin(response.url, response.headers.get("location", ""))
