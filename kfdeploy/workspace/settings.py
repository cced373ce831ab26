"""Describe `kfdeploy.yaml` as typed values, from which its JSON Schema is made too.

Pydantic checks the file, so that every mistake is found at once; `workspace.settings_file` adds the
line of each key. Docstrings and descriptions of sections stand in the schema.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    field_validator,
    model_validator,
)
from pydantic_core import core_schema

from kfdeploy.codec import to_camel_case
from kfdeploy.features.feature import Feature, FeatureEnvironment
from kfdeploy.features.registry import FeatureSections, build_sections_model
from kfdeploy.oci.reference import ImageRef, InvalidImageRef, WrittenRef
from kfdeploy.oci.registry.settings import (
    CREATE_REPOSITORY_DESCRIPTION,
    IMMUTABLE_TAGS_DESCRIPTION,
    AccessOptions,
    Checked,
    CredentialOptions,
    MirrorSettings,
    PrivateRegistry,
    RepositoryNaming,
    check_creation_command,
    check_host,
    check_prefix,
)
from kfdeploy.section import Section

if TYPE_CHECKING:
    Features = FeatureSections
else:
    Features = build_sections_model()

Need = Literal["required", "optional", "user-choice"]
_PLATFORM = re.compile(r"[a-z0-9]+(?:\([\w.]+\))?/[a-z0-9_]+(?:/[a-z0-9.]+)?")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "x86": "386", "i386": "386"}
"""The kernel's name of an architecture, and that of images."""
ComponentKind = Literal["kustomization", "chart", "manifests"]
_FOLDER = re.compile(r"[A-Za-z0-9._+@=,~/ -]*")


class Upstream(Section):
    """Where Kubeflow's manifests come from."""

    source: str = Field(
        description="A folder, a tarball (.tar, .tar.gz, .tgz) or a git URL with the manifests."
    )
    ref: str | None = Field(
        None, description="Tag, branch or commit (git), and the version that is reported."
    )
    remotes: dict[str, str] = Field(
        default_factory=dict,
        description="URL prefix to a git mirror or a folder that answers for it.",
    )


class Component(Section):
    """One upstream kustomization, Helm chart or folder of manifests that is deployed."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?$")] = Field(
        description="Release name: lower case, digits and dashes."
    )
    path: str = Field(description="Folder below the upstream.")
    kind: ComponentKind | None = Field(None, description="Found out from the folder when left out.")
    values: tuple[str, ...] = Field(
        (), description="Helm values files, from the workspace (chart)."
    )
    namespace: str | None = Field(None, description="Helm's release namespace (chart only).")

    @field_validator("path")
    @classmethod
    def _validate_path(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("must be a path below the upstream, without '..'")
        if not _FOLDER.fullmatch(value):
            # It becomes part of a template, of commands and of file names.
            raise ValueError("must hold only letters, digits, spaces and ._-+@=,~/")
        return value.rstrip("/")


class Registries(Section):
    """The private registry, and where sources are really pulled from."""

    private: PrivateRegistry
    sources: dict[str, str] = Field(
        default_factory=dict,
        description="Source prefix to where it is pulled from, such as a proxy; '*' is any host.",
    )
    hosts: dict[str, AccessOptions] = Field(
        default_factory=dict, description="How other registries are reached, by host."
    )
    bundle_keys: tuple[str, ...] = Field(
        (),
        description="PEM files of public keys: only a bundle that one of them has signed is taken.",
    )
    uncovered: tuple[str, ...] = Field(
        (), description="Images accepted without a redirect (a node's registry mirror serves them)."
    )


class Exclusion(Section):
    ref: str = Field(description="The image as found, or with '*' as a wildcard.")
    reason: str = Field(description="Why it is left out; it is shown wherever the image is used.")


def _check_ref(value: str) -> str:
    try:
        ImageRef.parse(value)
    except InvalidImageRef as error:
        raise ValueError(str(error)) from error
    return value


class SignedImages(Section):
    """Images that must be signed, and by whom."""

    images: str = Field(
        description="HOST/PATH of images, without tag or digest; '*' is any text, with '/' too."
    )
    keys: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="PEM files of public keys, from the workspace; one of them must have signed."
    )

    @field_validator("images")
    @classmethod
    def _validate_pattern(cls, value: str) -> str:
        # A pattern that can't match would be a check that never takes place.
        host, _, path = value.partition("/")
        if "@" in value or ":" in path:
            raise ValueError(f"{value!r} must be HOST/PATH, without tag or digest")
        if not re.search(r"[.:*]|^localhost$", host):
            raise ValueError(f"{value!r} names no registry; Docker Hub's is docker.io")
        return value


class Images(Section):
    """Which images lock, mirror and verify cover."""

    needs: tuple[Need, ...] = Field(("required", "optional"))
    exclude: tuple[Exclusion, ...] = ()
    extra: tuple[str, ...] = Field((), description="Images that no manifest names.")
    substitutes: dict[str, str] = Field(
        default_factory=dict, description="Image as found, to the image that takes its place."
    )
    attached: bool = Field(
        True, description="Signatures, attestations and SBOMs of an image are locked with it."
    )
    signatures: tuple[SignedImages, ...] = Field(
        (), description="Images that are locked only when they are signed by a key."
    )

    def find_substitute(self, ref: ImageRef) -> WrittenRef | None:
        """Return the image that takes an image's place, however it is spelled; None for none."""
        wanted = ref.with_default_tag()
        found = [
            WrittenRef.parse(new)
            for old, new in self.substitutes.items()
            if ImageRef.parse(old).with_default_tag() == wanted
        ]
        return found[-1] if found else None

    def find_substituted(self, ref: ImageRef) -> frozenset[ImageRef]:
        """Return the normalised references whose place an image takes."""
        return frozenset(
            ImageRef.parse(old).with_default_tag()
            for old, new in self.substitutes.items()
            if ImageRef.parse(new).with_default_tag() == ref.with_default_tag()
        )

    @field_validator("extra")
    @classmethod
    def _validate_extra(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_check_ref(ref) for ref in value)

    @field_validator("substitutes")
    @classmethod
    def _validate_substitutes(cls, value: dict[str, str]) -> dict[str, str]:
        for old, new in value.items():
            _check_ref(old)
            _check_ref(new)
        return value


class _NamingOverride:
    """Check a mapping like `RepositoryNaming`, and keep only the keys that it has."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            self._select_given, handler.generate_schema(RepositoryNaming)
        )

    @staticmethod
    def _select_given(
        value: Any, check: core_schema.ValidatorFunctionWrapHandler
    ) -> dict[str, Any]:
        checked = check(value)
        return {
            field.name: getattr(checked, field.name)
            for field in fields(RepositoryNaming)
            if field.name in value or to_camel_case(field.name) in value
        }


class RegistryOverride(Section):
    """What an environment's registry has different from `registries.private`."""

    host: Annotated[str, Checked(check_host)] | None = None
    prefix: Annotated[str, Checked(check_prefix)] | None = None
    naming: Annotated[Mapping[str, Any], _NamingOverride()] | None = Field(
        None, description="Key by key; the others stay."
    )
    immutable_tags: bool | None = Field(None, description=IMMUTABLE_TAGS_DESCRIPTION)
    create_repository: Annotated[tuple[str, ...], Checked(check_creation_command)] | None = Field(
        None, description=f"{CREATE_REPOSITORY_DESCRIPTION} An empty list: nothing is run."
    )
    ca: str | None = None
    plain_http: bool | None = None
    skip_tls_verify: bool | None = None
    credentials: CredentialOptions | None = None

    def apply_to(self, private: PrivateRegistry) -> PrivateRegistry:
        """Return the private registry with what is set here."""
        changes = {
            name: value
            for name in type(self).model_fields
            if (value := getattr(self, name)) is not None
        }
        if self.naming is not None:
            changes["naming"] = replace(private.naming, **self.naming)
        return replace(private, **changes)


class Environment(Section):
    """Cluster context, registry and other values of one site."""

    registry: RegistryOverride = RegistryOverride()
    kube_context: str | None = Field(None, description="kubeconfig context that apply uses.")
    kube_version: str = Field("1.34.0", description="Kubernetes version to render for.")
    platforms: tuple[str, ...] = Field(
        (),
        description="What nodes run, such as linux/amd64: images that have more are mirrored with"
        " these alone. Empty: with all that they have.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: tuple[str, ...] = Field(
        (), description="Names of pull secrets that every pod template gets."
    )

    @field_validator("platforms")
    @classmethod
    def _validate_platforms(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _PLATFORM.fullmatch(name):
                raise ValueError(f"{name!r} is not OS/ARCH[/VARIANT], such as linux/amd64")
            system, architecture, *variant = name.split("/")
            if architecture in _ARCHITECTURES:
                known = "/".join((system, _ARCHITECTURES[architecture], *variant))
                raise ValueError(f"{name!r} is {known} in images")
        return tuple(sorted(set(value)))

    @field_validator("kube_version")
    @classmethod
    def _validate_kube_version(cls, value: str) -> str:
        if not re.fullmatch(r"v?\d+\.\d+(?:\.\d+)?(?:[-+].*)?", value):
            raise ValueError(f"{value!r} is not a Kubernetes version, such as 1.36.0")
        return value


class Helm(Section):
    namespace: str = Field("kfdeploy", description="Namespace of all of Helm's records.")
    timeout: Annotated[int, Field(ge=1)] = Field(
        600, description="Seconds for which apply waits for workloads."
    )
    on_failure: Literal["leave", "rollback"] = Field(
        "leave", description="What apply does with a release that fails and has been well before."
    )


class Workspace(Section):
    """The whole of `kfdeploy.yaml`."""

    upstream: Upstream
    components: Annotated[tuple[Component, ...], Field(min_length=1)]
    registries: Registries
    images: Images = Images()
    environments: dict[
        Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")], Environment
    ] = Field(default_factory=lambda: {"default": Environment()})
    helm: Helm = Helm()
    features: Features = Features()

    @model_validator(mode="after")
    def _validate_unique_names(self) -> Workspace:
        seen: set[str] = set()
        for index, component in enumerate(self.components):
            if component.name in seen:
                raise ValueError(f"components[{index}].name: {component.name!r} is there twice")
            seen.add(component.name)
        return self

    def list_features(self) -> tuple[Feature[Any], ...]:
        """Return every feature with its settings, on or off, in the order of the list."""
        environments = {name: self.describe_environment(name) for name in self.environments}
        return self.features.configure(environments)

    def list_enabled_features(self) -> tuple[Feature[Any], ...]:
        """Return the features that the site has turned on."""
        return tuple(feature for feature in self.list_features() if feature.enabled)

    def describe_environment(self, name: str) -> FeatureEnvironment:
        """Return what features may know of an environment."""
        environment = self.environments[name]
        return FeatureEnvironment(
            name=name,
            kube_version=environment.kube_version,
            names_kube_version="kube_version" in environment.model_fields_set,
            image_pull_secrets=environment.image_pull_secrets,
        )

    def resolve_registry(self, environment: Environment) -> PrivateRegistry:
        """Return the private registry as this environment has it."""
        return environment.registry.apply_to(self.registries.private)

    def resolve_mirror_settings(self, environment: Environment | None = None) -> MirrorSettings:
        """Return what `mirror` takes from the file.

        Args:
            environment: None for the settings that hold for all of them.
        """
        environment = environment or Environment()
        return MirrorSettings(
            self.resolve_registry(environment),
            self.registries.sources,
            self.registries.hosts,
            environment.platforms,
        )

    @property
    def platforms(self) -> dict[tuple[str, ...], tuple[str, ...]]:
        """Each list of platforms that environments name, and which environments do."""
        named = {environment.platforms for environment in self.environments.values()} - {()}
        return {
            platforms: tuple(n for n, e in self.environments.items() if e.platforms == platforms)
            for platforms in sorted(named)
        }
