"""List what a registry has, and delete from it: the OCI API, and Docker's catalog."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urljoin

from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry import errors
from kfdeploy.oci.registry.client import RegistryClient, manifest_path, pull_scope
from kfdeploy.oci.registry.errors import RegistryError

_PAGE: Final = 500
_CATALOG_SCOPE: Final = "registry:catalog:*"


class CatalogUnavailable(RegistryError):
    """A registry does not say which repositories it has."""


def list_repositories(client: RegistryClient, host: str) -> Iterator[str]:
    """Yield the paths of all repositories of a registry.

    Raises:
        CatalogUnavailable: the registry has no catalog, or not for this credential.
        RegistryError: the registry can't be asked.
    """
    try:
        yield from _iter_pages(
            client, host, f"/v2/_catalog?n={_PAGE}", _CATALOG_SCOPE, "repositories"
        )
    except RegistryError as error:
        if error.kind in {"denied", "gone", "nonsense"}:
            raise CatalogUnavailable(error.kind, error.message, hint=error.hint) from error
        raise


def list_tags(client: RegistryClient, repository: ImageRef) -> list[str]:
    """Return the tags of a repository, sorted; none where it does not exist.

    Raises:
        RegistryError: the registry can't be asked.
    """
    path = f"/v2/{repository.path}/tags/list?n={_PAGE}"
    try:
        return sorted(_iter_pages(client, repository.host, path, pull_scope(repository), "tags"))
    except RegistryError as error:
        if error.kind == "gone":
            return []
        raise


def delete_manifest(client: RegistryClient, ref: ImageRef) -> bool:
    """Delete a manifest by digest, with all its tags; return whether it was there.

    Raises:
        RegistryError: the registry does not allow it, or can't be asked.
    """
    scope = f"{ref.path}:pull,push,delete"
    response = client.transport.request(
        "DELETE", ref.host, manifest_path(ref), scope, accept_statuses=(400, 405)
    )
    if response.status in {400, 405}:
        raise errors.delete_refused(client.get_access(ref.host), ref, response)
    return response.status != 404


def _iter_pages(
    client: RegistryClient, host: str, path: str, scope: str, key: str
) -> Iterator[str]:
    access = client.get_access(host)
    seen = set()
    while path and path not in seen:
        seen.add(path)
        response = client.transport.request("GET", host, path, scope)
        if response.status == 404:
            raise RegistryError("gone", f"{host}: 404: {path.partition('?')[0]}")
        try:
            listed = json.loads(response.body)[key] or []
        except (ValueError, KeyError, TypeError) as error:
            raise errors.unexpected_response(access, response, path) from error
        yield from (str(entry) for entry in listed)
        following = re.match(r'<([^>]+)>;\s*rel="?next"?', response.headers.get("link", ""))
        path = urljoin(response.url, following[1]) if following else ""
