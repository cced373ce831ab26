"""The kinds that an API server serves, by aggregated discovery."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.kubernetes.accessors import Body, as_list, get_name, get_text, list_mappings

DISCOVERY: Final = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
)
"""The media type that returns all groups in one answer (Kubernetes 1.30 and later)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind that an API server serves in one version."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: frozenset[str]

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def url_path(self, namespace: str = "", name: str = "") -> str:
        """Return the URL's path of all objects, of a namespace's, or of one."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        is_in_namespace = self.namespaced and bool(namespace or name)
        scope = f"/namespaces/{namespace or 'default'}" if is_in_namespace else ""
        return f"{root}{scope}/{self.plural}" + (f"/{name}" if name else "")


class DiscoveredKinds:
    """The kinds of one API server, as last read. Several threads may use it at once."""

    def __init__(self, ask: Callable[[str], Any]) -> None:
        """Args:
        ask: returns the answer to a GET of a path that accepts `DISCOVERY`.
        """
        self._ask = ask
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str], Kind] | None = None

    def of(self, api_version: str, kind: str) -> Kind | None:
        """Return a kind; None if it is not served."""
        return self._get_kinds().get((api_version, kind))

    def __iter__(self) -> Iterator[Kind]:
        return iter(list(self._get_kinds().values()))

    def refresh(self) -> DiscoveredKinds:
        """Read the kinds again. New CRDs bring new ones."""
        with self._lock:
            self._found = self._discover_kinds()
        return self

    def _get_kinds(self) -> Mapping[tuple[str, str], Kind]:
        with self._lock:
            if self._found is None:
                self._found = self._discover_kinds()
            return self._found

    def _discover_kinds(self) -> dict[tuple[str, str], Kind]:
        answers = [self._ask(path) for path in ("/api", "/apis")]
        groups = [group for answer in answers for group in list_mappings(answer, "items")]
        kinds = (kind for group in groups for kind in _list_kinds(group))
        return {(kind.api_version, kind.kind): kind for kind in kinds}


def _list_kinds(group: Body) -> Iterator[Kind]:
    for version in list_mappings(group, "versions"):
        for resource in list_mappings(version, "resources"):
            yield Kind(
                group=get_name(group),
                version=version["version"],
                kind=get_text(resource, "responseKind", "kind"),
                plural=resource["resource"],
                namespaced=resource.get("scope") == "Namespaced",
                verbs=frozenset(as_list(resource.get("verbs"))),
            )
