"""Describe registries as `kfdeploy.yaml` does.

These plain dataclasses are the file's only description of registries: pydantic checks the file
against them (`workspace.settings`), and `mirror` builds them from its cache without importing
pydantic, which takes as long as to carry an image. So this module must import neither pydantic nor
anything that does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final

from kfdeploy.codec import to_camel_case
from kfdeploy.oci.reference import PATH_MAX, ImageRef, InvalidImageRef

_PLACEHOLDER: Final = re.compile(r"\{repository\}|\{host\}")
IMMUTABLE_TAGS_DESCRIPTION: Final = (
    "The registry refuses to move a tag. What would have to replace a tag is pushed as"
    " digest-<first 12 hex digits> only; manifests name it by its digest all the same."
)
CREATE_REPOSITORY_DESCRIPTION: Final = (
    "A program and its arguments, run in the workspace's folder once for each repository that the"
    " registry does not have; {repository} and {host} in an argument are replaced. No secrets:"
    " arguments can be seen by others on the machine."
)


@dataclass(frozen=True, slots=True)
class Checked:
    """Mark a type with a check that pydantic runs on values of the file.

    The check returns the value to take, or raises ValueError with what is wrong.
    """

    check: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))


_FILE_KEYS: Final[Any] = {
    "extra": "forbid",
    "alias_generator": to_camel_case,
    "populate_by_name": True,
}
"""Pydantic's configuration."""


def _setting(description: str, **limits: int) -> dict[str, Any]:
    """Return a field's metadata, which pydantic reads like the arguments of its `Field`."""
    return {"description": description, **limits}


def check_host(value: str) -> str:
    """Return a registry's HOST[:PORT]; raise ValueError where it is something else."""
    try:
        parsed = ImageRef.parse(f"{value}/x/x")
    except InvalidImageRef as error:
        raise ValueError(f"{value!r} is not a registry host") from error
    if parsed.host != value:
        raise ValueError(
            f"{value!r} does not look like a registry host: it needs a dot, a port, or to be"
            " localhost"
        )
    return value


def check_prefix(value: str) -> str:
    """Return a repository path without slashes around it; raise ValueError where it is none."""
    value = value.strip("/")
    try:
        if value:
            ImageRef.parse(f"registry.invalid/{value}")
    except InvalidImageRef as error:
        raise ValueError(f"{value!r} is not a repository path") from error
    return value


def check_creation_command(value: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return a `createRepository`; raise ValueError where no argument has ``{repository}``."""
    if value and not any("{repository}" in word for word in value[1:]):
        raise ValueError("an argument must have {repository} in it, for the path to create")
    return value


@dataclass(frozen=True, slots=True)
class CredentialOptions:
    """How to sign in; nothing here is a secret itself."""

    __pydantic_config__: ClassVar[Any] = _FILE_KEYS

    docker_config: str | None = field(
        default=None,
        metadata=_setting(
            "A folder with Docker's config.json; by default DOCKER_CONFIG or ~/.docker."
        ),
    )
    helper: str | None = field(
        default=None,
        metadata=_setting("Credential helper: the NAME of a program docker-credential-NAME."),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessOptions:
    """How a registry is reached. Paths are relative to the workspace."""

    __pydantic_config__: ClassVar[Any] = _FILE_KEYS

    ca: str | None = field(default=None, metadata=_setting("PEM file with the registry's CA."))
    plain_http: bool | None = field(
        default=None,
        metadata=_setting("Speak HTTP. By default only for a registry on loopback."),
    )
    skip_tls_verify: bool = field(
        default=False, metadata=_setting("Do not check the registry's certificate.")
    )
    credentials: CredentialOptions = field(default_factory=CredentialOptions)


@dataclass(frozen=True, slots=True)
class RepositoryNaming:
    """How an upstream repository is named below the prefix."""

    __pydantic_config__: ClassVar[Any] = _FILE_KEYS

    keep_host: bool = field(default=True, metadata=_setting("PREFIX/HOST/PATH; false drops HOST."))
    max_depth: int | None = field(
        default=None,
        metadata=_setting(
            "Path elements a repository may have; deeper ones are joined by '-'.", ge=1
        ),
    )
    max_length: int | None = field(
        default=None,
        metadata=_setting(
            "Characters a repository's path may have, prefix included; a longer one is cut"
            " and ends in '-' and the first 8 hex digits of the whole path's sha256.",
            ge=1,
            le=PATH_MAX,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateRegistry(AccessOptions):
    """The registry the cluster pulls from."""

    host: Annotated[str, Checked(check_host)] = field(metadata=_setting("HOST or HOST:PORT."))
    prefix: Annotated[str, Checked(check_prefix)] = field(
        default="", metadata=_setting("Path that all mirrored images are put below.")
    )
    naming: RepositoryNaming = field(default_factory=RepositoryNaming)
    immutable_tags: bool = field(default=False, metadata=_setting(IMMUTABLE_TAGS_DESCRIPTION))
    create_repository: Annotated[tuple[str, ...] | None, Checked(check_creation_command)] = field(
        default=None, metadata=_setting(CREATE_REPOSITORY_DESCRIPTION, min_length=1)
    )

    def creation_command(self, repository: str) -> tuple[str, ...]:
        """Return `createRepository` for one repository: program and arguments; empty for none.

        Args:
            repository: its path, without the host.
        """
        words = self.create_repository or ()
        values = {"{repository}": repository, "{host}": self.host}
        return tuple(_PLACEHOLDER.sub(lambda match: values[match[0]], word) for word in words)


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """What `mirror` takes from `kfdeploy.yaml`, for one environment.

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

        Settings that start a program or choose a credential must come from the site's own file.
        With immutable tags, what to push depends on more than settings.
        """
        private = self.private
        accesses = (private, *self.hosts.values())
        return not (
            private.create_repository
            or private.immutable_tags
            or any(access.credentials != CredentialOptions() for access in accesses)
        )
