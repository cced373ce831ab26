"""Find what belongs to an image in its registry: by cosign's tags, and by OCI 1.1's referrers.

That takes four requests for a manifest: a HEAD for each of cosign's three tags, and the list of
referrers, or the fallback tag where the registry has no such list. (One list of all the
repository's tags would replace the three, but it has tens of thousands of entries in some
repositories, and is not sorted in others.)
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from kfdeploy.http.pool import HttpResponse
from kfdeploy.oci.attachments import (
    Attachment,
    cosign_tags,
    fallback_tag,
    normalize_artifact_type,
)
from kfdeploy.oci.manifest import OCI_INDEX, MalformedManifest, iter_entries
from kfdeploy.oci.reference import ImageRef, is_digest
from kfdeploy.oci.registry.client import RegistryClient, pull_scope
from kfdeploy.oci.registry.errors import RegistryError

REFERRERS_MAX: Final = 1000
"""Anybody who may push can attach things to an image; more than this is somebody's mistake."""
PAGES_MAX: Final = 100
_NEXT: Final = re.compile(r"<([^>]*)>\s*;[^,<]*\brel=[\"']?next\b")


class AttachmentFinder:
    """Finds what belongs to images; safe for threads.

    It remembers which registries have no list of referrers, and asks no more of one that reports a
    rate limit.
    """

    def __init__(self, client: RegistryClient, *, patience: float | None = None) -> None:
        """Take the client to ask.

        Args:
            patience: seconds that one request waits for a busy registry; by default as long as the
                client does.
        """
        self._client = client
        self._patience = patience
        self._lock = threading.Lock()
        self._lists: dict[str, bool] = {}
        self._busy: dict[str, RegistryError] = {}

    def find_for_image(self, ref: ImageRef, platforms: Iterable[str]) -> tuple[Attachment, ...]:
        """Return what belongs to an image, sorted.

        The manifests of its platforms are asked about only where something belongs to the image
        itself: cosign signs an image with all its platforms, or only what its tag names, and most
        images are not signed. Asking about each platform would be most of the requests.

        Args:
            ref: at its digest, in the registry to ask.
            platforms: digests of its platforms' manifests.

        Raises:
            RegistryError: the registry could not be asked; of kind ``content`` for a list that is
                malformed, or without an end.
        """
        found = set(self.find_for_manifest(ref, ref.digest))
        if found:
            for digest in sorted({*platforms} - {ref.digest}):
                found.update(self.find_for_manifest(ref, digest))
        return tuple(sorted(found))

    def find_for_manifest(self, repository: ImageRef, digest: str) -> tuple[Attachment, ...]:
        """Return what belongs to one manifest or index, sorted; see `find_for_image`."""
        if (busy := self._busy.get(repository.host)) is not None:
            raise busy
        try:
            return tuple(
                sorted(
                    {
                        *self._find_referrers(repository, digest),
                        *self._find_tagged(repository, digest),
                    }
                )
            )
        except RegistryError as error:
            if error.kind == "busy":
                self._busy[repository.host] = error
            raise

    def _find_tagged(self, repository: ImageRef, digest: str) -> Iterator[Attachment]:
        for tag in cosign_tags(digest):
            tagged = ImageRef(repository.host, repository.path, tag)
            found = self._client.get_digest(tagged, patience=self._patience)
            if found is not None and is_digest(found):
                yield Attachment(digest, "tag", tag, found)

    def _find_referrers(self, repository: ImageRef, digest: str) -> Iterator[Attachment]:
        listed = self._list_referrers(repository, digest)
        if listed is None:
            listed = self._read_fallback_index(repository, digest)
        for entry in listed:
            own = str(entry.get("digest", ""))
            if is_digest(own):
                yield Attachment(
                    digest, "referrer", normalize_artifact_type(entry.get("artifactType")), own
                )

    def _list_referrers(self, repository: ImageRef, digest: str) -> list[Mapping[str, Any]] | None:
        """Return the registry's own list, all pages; None when it has none."""
        host = repository.host
        if self._lists.get(host) is False:
            return None
        base = path = f"/v2/{repository.path}/referrers/{digest}"
        found: list[Mapping[str, Any]] = []
        seen: set[str] = set()
        while path not in seen and len(seen) < PAGES_MAX and len(found) <= REFERRERS_MAX:
            response = self._fetch_page(repository, path)
            if response is None and not seen:
                self._mark_unsupported(host)
                return None
            if response is None:
                raise _referrers_error(repository, digest, f"breaks off after {len(found)} of them")
            seen.add(path)
            with self._lock:
                self._lists[host] = True
            found += _parse_index(repository, digest, response.body)
            more = _NEXT.search(response.headers.get("link", ""))
            if more is None and len(found) <= REFERRERS_MAX:
                return found
            # Only the query of the link: behind a proxy its host and path are often others.
            path = f"{base}?{urlsplit(more[1]).query}" if more else path
        raise _referrers_error(repository, digest, f"has no end within {REFERRERS_MAX} of them")

    def _fetch_page(self, repository: ImageRef, path: str) -> HttpResponse | None:
        response = self._client.transport.request(
            "GET",
            repository.host,
            path,
            pull_scope(repository),
            patience=self._patience,
            # Older registries answer with these where the specification wants 404.
            accept_statuses=(400, 405),
        )
        kind = response.headers.get("content-type", "").partition(";")[0].strip()
        return response if response.status == 200 and kind == OCI_INDEX else None

    def _mark_unsupported(self, host: str) -> None:
        # One host may front several registries, such as a proxy: a list that was once there tells
        # more than one that was not.
        with self._lock:
            self._lists.setdefault(host, False)

    def _read_fallback_index(self, repository: ImageRef, digest: str) -> list[Mapping[str, Any]]:
        fallback = ImageRef(repository.host, repository.path, fallback_tag(digest))
        try:
            index = self._client.get_manifest(fallback, patience=self._patience)
        except RegistryError as error:
            if error.kind != "gone":
                raise
            return []
        return _parse_index(repository, digest, index.body)


def _parse_index(repository: ImageRef, digest: str, body: bytes) -> list[Mapping[str, Any]]:
    try:
        content = json.loads(body)
        if not isinstance(content, dict):
            raise MalformedManifest("no JSON object")
    except (ValueError, RecursionError) as error:
        raise _referrers_error(repository, digest, "is not JSON") from error
    return list(iter_entries(content, "manifests"))


def _referrers_error(repository: ImageRef, digest: str, problem: str) -> RegistryError:
    where = f"{repository.repository}@{digest}"
    return RegistryError("content", f"{where}: its list of referrers {problem}")
