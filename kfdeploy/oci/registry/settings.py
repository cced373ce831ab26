"""Registries as `kfdeploy.yaml` describes them: plain values, checked already.

What asks, names and carries takes these and not the file's model (`model.workspace`): to import
that takes as long as to carry an image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

_PLACEHOLDER: Final = re.compile(r"\{repository\}|\{host\}")


@dataclass(frozen=True, slots=True)
class CredentialOptions:
    """How to sign in: a folder with Docker's config.json, and the name of a credential helper."""

    docker_config: str | None = None
    helper: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessOptions:
    """How a registry is reached; paths are relative to the workspace."""

    ca: str | None = None
    plain_http: bool | None = None
    skip_tls_verify: bool = False
    credentials: CredentialOptions = CredentialOptions()


@dataclass(frozen=True, slots=True)
class RepositoryNaming:
    """How an upstream repository is named below the prefix."""

    keep_host: bool = True
    max_depth: int | None = None
    max_length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateRegistry(AccessOptions):
    """The registry the cluster pulls from."""

    host: str
    prefix: str = ""
    naming: RepositoryNaming = RepositoryNaming()
    immutable_tags: bool = False
    create_repository: tuple[str, ...] | None = None

    def creation_command(self, repository: str) -> tuple[str, ...]:
        """`createRepository` for one repository: program and arguments; empty where none is set.

        Args:
            repository: its path, without the host.
        """
        words = self.create_repository or ()
        named = {"{repository}": repository, "{host}": self.host}
        return tuple(_PLACEHOLDER.sub(lambda match: named[match[0]], word) for word in words)


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """All that a mirror takes from `kfdeploy.yaml`, for one environment.

    Attributes:
        sources: `registries.sources`.
        hosts: how other registries are reached, by host.
        platforms: the environment's, sorted; empty for all that an image has.
    """

    private: PrivateRegistry
    sources: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, AccessOptions] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()

    @property
    def is_cacheable(self) -> bool:
        """Whether a mirror may take them from the cache, which others may have written.

        What starts a program or chooses a sign-in is read where the site wrote it. And which tags
        may not move hangs on more than settings.
        """
        private = self.private
        accesses = (private, *self.hosts.values())
        return not (
            private.create_repository
            or private.immutable_tags
            or any(access.credentials != CredentialOptions() for access in accesses)
        )

    def to_json(self) -> dict[str, Any]:
        """What `parse` reads."""
        return asdict(self)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> MirrorSettings:
        """Settings from plain data, which came out of checked ones.

        Raises:
            KeyError, TypeError, AttributeError: it did not.
        """
        private = dict(data["private"])
        create = private.pop("create_repository")
        return cls(
            PrivateRegistry(
                **_pop_access(private),
                naming=RepositoryNaming(**private.pop("naming")),
                create_repository=None if create is None else tuple(create),
                **private,
            ),
            dict(data["sources"]),
            {
                host: AccessOptions(**_pop_access(dict(access)))
                for host, access in data["hosts"].items()
            },
            tuple(data["platforms"]),
        )


def _pop_access(data: dict[str, Any]) -> dict[str, Any]:
    """Take what `Access` has out of ``data``."""
    return {
        "ca": data.pop("ca"),
        "plain_http": data.pop("plain_http"),
        "skip_tls_verify": data.pop("skip_tls_verify"),
        "credentials": CredentialOptions(**data.pop("credentials")),
    }
