"""What an API server serves: groups, versions and kinds, by aggregated discovery."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

DISCOVERY: Final = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
)
"""The media type that lists everything at once (Kubernetes 1.30 and later)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind in one version, as it is served."""

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
        """Its URL's path: of all, of a namespace's, of one object."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace or 'default'}" if self.namespaced else ""
        if self.namespaced and not namespace and not name:
            scope = ""
        return f"{root}{scope}/{self.plural}" + (f"/{name}" if name else "")


class DiscoveredKinds:
    """The kinds of one API server, as they were when last asked for."""

    def __init__(self, ask: Callable[[str], Any]) -> None:
        """Args:
        ask: the answer to a GET of a path with `DISCOVERY` as what is accepted.
        """
        self._ask = ask
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str], Kind] | None = None

    def of(self, api_version: str, kind: str) -> Kind | None:
        """A kind; None where it is not served."""
        return self._get_kinds().get((api_version, kind))

    def __iter__(self) -> Iterator[Kind]:
        return iter(list(self._get_kinds().values()))

    def refresh(self) -> DiscoveredKinds:
        """Ask again: new CRDs bring new kinds."""
        with self._lock:
            self._found = self._discover_kinds()
        return self

    def _get_kinds(self) -> Mapping[tuple[str, str], Kind]:
        with self._lock:
            if self._found is None:
                self._found = self._discover_kinds()
            return self._found

    def _discover_kinds(self) -> dict[tuple[str, str], Kind]:
        out = {}
        for path in ("/api", "/apis"):
            for group in self._ask(path).get("items", ()):
                name = group["metadata"].get("name", "")
                for version in group.get("versions", ()):
                    for resource in version.get("resources", ()):
                        kind = resource.get("responseKind") or {}
                        found = Kind(
                            group=name,
                            version=version["version"],
                            kind=kind.get("kind", ""),
                            plural=resource["resource"],
                            namespaced=resource.get("scope") == "Namespaced",
                            verbs=frozenset(resource.get("verbs", ())),
                        )
                        out[found.api_version, found.kind] = found
        return out
