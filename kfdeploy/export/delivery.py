"""A release set as other engines take it: what Flux's and Argo CD's formats share."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from kfdeploy.errors import WRONG_USE, UserError
from kfdeploy.export.material import MARK
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.oci.reference import ImageRef
from kfdeploy.releaseset.folder import SetFolder, SetRelease

KEPT: Final = frozenset(
    (
        "CustomResourceDefinition",
        "Namespace",
        "PersistentVolumeClaim",
        "PersistentVolume",
        "Profile",
    )
)
"""Kinds that have data, or have what has it: no engine deletes them."""
WEBHOOKS: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_SEEN: Final = {
    "apps": ("Deployment", "StatefulSet", "DaemonSet"),
    "apiregistration.k8s.io": ("APIService",),
    "cert-manager.io": ("Certificate", "ClusterIssuer", "Issuer"),
}
"""What the order waits for, by API group: docs/release-set.md has the table."""
_NAME_MAX: Final = 63
"""Both engines write the names of their objects into labels."""


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """What the operator said.

    Attributes:
        namespace: of the engine's own objects; empty for the engine's usual one.
        name: of the source, and what all other names begin with.
        interval: how often the engine looks.
        source: whether the set comes as the published artifact or from Git.
        repository: URL of the Git repository with the workspace.
        path: the workspace's folder in it.
        revision: branch, tag or commit there.
        tag: of the artifact, to follow it; empty for this very set.
        secret: the engine's secret for signing in to the registry or to Git.
        folder: where the exported files will be, below the workspace.
    """

    namespace: str = ""
    name: str = "kubeflow"
    interval: str = "10m"
    source: Literal["oci", "git"] = "oci"
    repository: str = ""
    path: str = "."
    revision: str = "main"
    tag: str = ""
    secret: str = ""
    folder: str = ""


@dataclass(frozen=True)
class Delivery:
    """A set, and where it is found.

    Attributes:
        artifact: where it is published: repository, its own tag, and digest.
        is_plain: the registry speaks HTTP.
        skips_verify: the site says not to check the registry's certificate.
        ca: PEM text of the registry's CA, or empty.
        helm_namespace: where Helm would put what names no namespace.
    """

    release_set: SetFolder
    artifact: ImageRef
    is_plain: bool
    skips_verify: bool
    ca: str
    helm_namespace: str
    options: DeliveryOptions = field(default_factory=DeliveryOptions)

    def header_line(self, format_name: str) -> str:
        """The first line of an exported file."""
        return f"# {MARK} {format_name} for releases/{self.release_set.name}\n"

    @property
    def filled_releases(self) -> tuple[SetRelease, ...]:
        """Releases with more than CRDs, in their order."""
        return tuple(release for release in self.release_set.releases if release.objects)

    def needed_releases(self, release: SetRelease) -> tuple[str, ...]:
        """The filled releases that come before one; what has CRDs only hands its own needs on."""
        by_name = {each.name: each for each in self.release_set.releases}

        def follow_needs(name: str) -> Iterator[str]:
            if by_name[name].objects:
                yield name
            else:
                for other in by_name[name].needs:
                    yield from follow_needs(other)

        return tuple(dict.fromkeys(other for name in release.needs for other in follow_needs(name)))

    def path_in_source(self, name: str) -> str:
        """A path in the source: of the artifact's root, or of the Git repository's."""
        if self.options.source == "oci":
            return name
        return posixpath.normpath(
            posixpath.join(self.options.path, "releases", self.release_set.name, name)
        )

    def object_name(self, release: str) -> str:
        """What the engine's object for a release is called.

        Raises:
            UserError: the name is too long.
        """
        name = f"{self.options.name}-{release}"
        if len(name) > _NAME_MAX:
            raise UserError(
                f"{name}: {len(name)} characters, and a label takes {_NAME_MAX}",
                hint="give a shorter --name",
                exit_code=WRONG_USE,
            )
        return name

    def waits_for(self, release: SetRelease) -> Iterator[ObjectKey]:
        """What of a release must be ready before the releases that need it."""
        trusted = {name for each in self.release_set.summary.releases for name in each.trusts}
        for item in release.objects:
            key = item.key
            if key.kind in WEBHOOKS:
                if f"{key.kind.lower()}/{key.name}" in trusted:
                    yield key
            elif release.wait and key.kind in _SEEN.get(key.group, ()):
                yield key


def webhooks_with_empty_ca(release: SetRelease) -> Iterator[tuple[ObjectKey, tuple[int, ...]]]:
    """Webhook configurations that hold an empty CA, with the places of those webhooks.

    Whoever applies such a field owns it, and empties it again after the CA was filled in.
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


def check_options(options: DeliveryOptions, names: Mapping[str, str]) -> None:
    """Refuse options that no engine could take.

    Args:
        names: option to value, for those that must be names of Kubernetes objects.

    Raises:
        UserError: one of them.
    """
    for option, value in names.items():
        if value and not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", value):
            raise UserError(
                f"{option} {value}: lower case letters, digits and '-'", exit_code=WRONG_USE
            )
    if not re.fullmatch(r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+", options.interval):
        raise UserError(
            f"--interval {options.interval}: a duration, such as 10m or 1h", exit_code=WRONG_USE
        )
    if options.source == "git" and not options.repository:
        raise UserError("--source git needs the repository: --repo URL", exit_code=WRONG_USE)
    if options.source == "git" and options.tag:
        raise UserError(
            "--tag is of the artifact: with --source git, --revision", exit_code=WRONG_USE
        )
    if options.path.startswith("/") or ".." in options.path.split("/"):
        raise UserError(
            f"--path {options.path}: a folder of the repository, without '..'", exit_code=WRONG_USE
        )
