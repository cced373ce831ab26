"""Resolve how each registry is reached, as `kfdeploy.yaml` says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kfdeploy.http.proxy import is_loopback
from kfdeploy.oci.registry.credentials import CredentialSource

if TYPE_CHECKING:
    from kfdeploy.oci.registry.settings import AccessOptions, MirrorSettings

_API_HOSTS: Final = {"docker.io": "registry-1.docker.io"}
"""Docker Hub's API has another name than its images."""


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """How one registry is reached.

    Attributes:
        host: as image references name it.
        plain_http: speak HTTP.
        ca: PEM file that is trusted in addition to the system's store.
        skip_tls_verify: take any certificate.
        login: where to look for a credential.
        setting: key in kfdeploy.yaml of all this, for hints.
    """

    host: str
    plain_http: bool = False
    ca: Path | None = None
    skip_tls_verify: bool = False
    login: CredentialSource = field(default_factory=CredentialSource)
    setting: str = ""

    @property
    def url(self) -> str:
        """Return the registry's address without a path: ``https://HOST``."""
        return f"{'http' if self.plain_http else 'https'}://{_API_HOSTS.get(self.host, self.host)}"

    @classmethod
    def from_settings(
        cls, host: str, access: AccessOptions | None, root: Path, setting: str
    ) -> RegistryAccess:
        """Return the access that a section of kfdeploy.yaml describes.

        HTTP is the default only for a registry on loopback for which nothing about TLS is set.

        Args:
            access: None for a registry without a section.
            root: the workspace, which paths are relative to.
            setting: the section's key.
        """
        if access is None:
            return cls(host, plain_http=is_loopback(host), setting=setting)
        plain = access.plain_http
        if plain is None:
            plain = is_loopback(host) and access.ca is None and not access.skip_tls_verify
        config = access.credentials.docker_config
        return cls(
            host,
            plain_http=plain,
            ca=None if access.ca is None else root / Path(access.ca).expanduser(),
            skip_tls_verify=access.skip_tls_verify,
            login=CredentialSource(
                None if config is None else root / Path(config).expanduser(),
                access.credentials.helper,
            ),
            setting=setting,
        )


class AccessResolver:
    """Resolves the access to a registry by its host, from the workspace's settings."""

    def __init__(self, settings: MirrorSettings, root: Path) -> None:
        self._settings = settings
        self._root = root

    def __call__(self, host: str) -> RegistryAccess:
        """Return the access to ``host``; `registries.private` counts for its own host."""
        if host == self._settings.private.host:
            return RegistryAccess.from_settings(
                host, self._settings.private, self._root, "registries.private"
            )
        setting = f"registries.hosts[{host!r}]"
        return RegistryAccess.from_settings(
            host, self._settings.hosts.get(host), self._root, setting
        )
