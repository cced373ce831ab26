"""A release set as Flux and Argo CD take it: the options and values that their formats share."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Generic, Literal, TypeVar

from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.export.format import MARK, ExportMaterial, ExportOption, ExportRequest
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.access import AccessResolver
from kfdeploy.oci.registry.ca import read_registry_ca
from kfdeploy.releaseset import publish
from kfdeploy.releaseset.artifact import repository_of
from kfdeploy.releaseset.folder import SetFolder, SetRelease, open_set

KEPT: Final = frozenset(
    (
        "CustomResourceDefinition",
        "Namespace",
        "PersistentVolumeClaim",
        "PersistentVolume",
        "Profile",
    )
)
"""Kinds that hold data, or hold objects that do: no engine deletes them."""
WEBHOOKS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_WAITED_FOR: Final = {
    "apps": ("Deployment", "StatefulSet", "DaemonSet"),
    "apiregistration.k8s.io": ("APIService",),
    "cert-manager.io": ("Certificate", "ClusterIssuer", "Issuer"),
}
"""Kinds that the order waits for, by API group: docs/release-set.md has the table."""
_NAME_MAX: Final = 63
"""Both engines write the names of their objects into labels, which take no more."""


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """Hold the options that the formats of both engines have.

    Attributes:
        namespace: of the engine's own objects; empty for the engine's usual one.
        name: of the source object; all other names begin with it.
        source: whether the set comes as the published artifact or from Git.
        tag: of the artifact, to follow it; empty for this very set.
        repository: URL of the Git repository with the workspace.
        path: the workspace's folder in it.
        revision: branch, tag or commit there.
    """

    name: Annotated[
        str, ExportOption("--name", "The first part of the names of all objects.", metavar="NAME")
    ] = "kubeflow"
    namespace: Annotated[
        str,
        ExportOption(
            "--namespace", "The namespace of the engine's own objects.", metavar="NAMESPACE"
        ),
    ] = ""
    source: Annotated[
        Literal["oci", "git"],
        ExportOption("--source", "Take the set as `publish` pushes it, or from --repo."),
    ] = "oci"
    tag: Annotated[
        str,
        ExportOption(
            "--tag", "Follow this tag of `publish`. Without it: this very set.", metavar="TAG"
        ),
    ] = ""
    repository: Annotated[
        str, ExportOption("--repo", "The Git repository of the workspace.", metavar="URL")
    ] = ""
    path: Annotated[
        str, ExportOption("--path", "The workspace's folder in the repository.", metavar="DIR")
    ] = "."
    revision: Annotated[
        str,
        ExportOption(
            "--revision",
            "A branch of the repository; for Argo CD also a tag or a commit.",
            metavar="REF",
        ),
    ] = "main"


EngineOptions = TypeVar("EngineOptions", bound=DeliveryOptions)


@dataclass(frozen=True)
class Delivery(ExportMaterial, Generic[EngineOptions]):
    """Hold a release set, and where an engine finds it.

    Attributes:
        artifact: where it is published: repository, its own tag, and digest.
        is_plain: whether the registry speaks HTTP.
        skips_verify: whether the registry's certificate is not to be checked.
        ca: PEM text of the registry's CA, or empty.
        helm_namespace: where Helm would put an object that names no namespace.
        folder: the folder of the exported files, relative to the workspace.
    """

    release_set: SetFolder
    artifact: ImageRef
    is_plain: bool
    skips_verify: bool
    ca: str
    helm_namespace: str
    options: EngineOptions
    folder: str = ""

    def header_line(self, format_name: str) -> str:
        """Return the first line of an exported file."""
        return f"# {MARK} {format_name} for releases/{self.release_set.name}\n"

    @property
    def filled_releases(self) -> tuple[SetRelease, ...]:
        """Releases with more than CRDs, in their order."""
        return tuple(release for release in self.release_set.releases if release.objects)

    def needed_releases(self, release: SetRelease) -> tuple[str, ...]:
        """Return the filled releases that must be ready before a release.

        A release that has CRDs only is replaced by what it needs itself.
        """
        by_name = {each.name: each for each in self.release_set.releases}

        def follow_needs(name: str) -> Iterator[str]:
            if by_name[name].objects:
                yield name
            else:
                for other in by_name[name].needs:
                    yield from follow_needs(other)

        return tuple(dict.fromkeys(other for name in release.needs for other in follow_needs(name)))

    def path_in_source(self, name: str) -> str:
        """Return a path relative to the root of the artifact or of the Git repository."""
        if self.options.source == "oci":
            return name
        return posixpath.normpath(
            posixpath.join(self.options.path, "releases", self.release_set.name, name)
        )

    def object_name(self, release: str) -> str:
        """Return the name of the engine's object for a release.

        Raises:
            UserError: the name is too long.
        """
        name = f"{self.options.name}-{release}"
        if len(name) > _NAME_MAX:
            raise UserError(
                f"{name}: {len(name)} characters; a label takes at most {_NAME_MAX}",
                hint="give a shorter --name",
                exit_code=WRONG_USE,
            )
        return name

    def waits_for(self, release: SetRelease) -> Iterator[ObjectKey]:
        """Yield the objects that must be ready before the releases that need this one."""
        trusted = {name for each in self.release_set.summary.releases for name in each.trusts}
        for item in release.objects:
            key = item.key
            if key.kind in WEBHOOKS:
                if f"{key.kind.lower()}/{key.name}" in trusted:
                    yield key
            elif release.wait and key.kind in _WAITED_FOR.get(key.group, ()):
                yield key


def webhooks_with_empty_ca(release: SetRelease) -> Iterator[tuple[ObjectKey, tuple[int, ...]]]:
    """Yield webhook configurations that hold an empty CA, with the indexes of those webhooks.

    An engine that applies such a field owns it, and empties it again after the CA is filled in.
    """
    for item in release.objects:
        if item.key.kind in WEBHOOKS:
            places = tuple(
                place
                for place, webhook in enumerate(item.body.get("webhooks") or ())
                if (webhook.get("clientConfig") or {}).get("caBundle") == ""
            )
            if places:
                yield item.key, places


# -- gathering -------------------------------------------------------------------------------------


def gather_delivery(request: ExportRequest[EngineOptions]) -> Delivery[EngineOptions]:
    """Read a release set, and derive where `publish` puts it.

    Raises:
        UserError: an option that no engine could take, or no such set.
    """
    session, options = request.session, request.options
    check_options(options)
    release_set = open_set(session.find_set(next(iter(request.set_names), "")))
    session.adopt_set_environment(release_set.summary, explicit=request.is_environment_given)
    registry = session.workspace.resolve_registry(session.environment)
    access = AccessResolver(session.mirror_settings, session.root)(registry.host)
    place = repository_of(registry.host, registry.prefix)
    packed = publish.pack_set(release_set)
    return Delivery(
        release_set=release_set,
        artifact=ImageRef(
            place.host, place.path, publish.set_content_tag(release_set), packed.digest
        ),
        is_plain=access.plain_http,
        skips_verify=access.skip_tls_verify and not access.plain_http,
        ca=read_registry_ca(registry, session.root),
        helm_namespace=session.workspace.helm.namespace,
        options=options,
        folder=os.path.relpath(request.folder, session.root.resolve()),
    )


def check_options(options: DeliveryOptions) -> None:
    """Refuse options that no engine could take.

    Raises:
        UserError: names the option, what is wrong with it, and what it takes.
    """
    check_object_name("--name", options.name)
    check_object_name("--namespace", options.namespace)
    if options.source == "git" and not options.repository:
        raise UserError("--source git needs the repository: --repo URL", exit_code=WRONG_USE)
    if options.source == "git" and options.tag:
        raise UserError(
            "--tag is a tag of the artifact: with --source git, use --revision",
            exit_code=WRONG_USE,
        )
    if options.path.startswith("/") or ".." in options.path.split("/"):
        raise UserError(
            f"--path {options.path}: must be a folder of the repository, without '..'",
            exit_code=WRONG_USE,
        )


def check_object_name(option: str, name: str) -> None:
    """Refuse a name that no Kubernetes object could have; an empty one stands for the default.

    Raises:
        UserError: it has other characters.
    """
    if name and not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
        raise UserError(
            f"{option} {name}: must consist of lower case letters, digits and '-'",
            exit_code=WRONG_USE,
        )
