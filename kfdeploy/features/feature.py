"""What a feature is: its settings, and all that it adds to a site.

A feature is a folder beside this module with a `Feature` in it, which `registry.FEATURES` lists.
Files in the folder that have a meaning of their own:

``init.yaml``
    Its section as `init` writes it below ``features:``, with comments, two spaces in.
``values.gotmpl``
    What templates find as ``.Values.NAME``, where the settings alone are not enough. Both `render`
    and plain Helmfile fill it, so that each value is computed in one place. It gives YAML, from
    ``.settings`` (the section as written, over the defaults of its keys; those of keys further
    down are not filled in) and ``.environment`` (``name``, ``kubeVersion``).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from ruamel.yaml import YAML

from kfdeploy import go_template
from kfdeploy.errors import UserError
from kfdeploy.kubernetes.objects import Object, ObjectKey
from kfdeploy.section import Section


class FeatureSettings(Section):
    """A feature's section of `kfdeploy.yaml`.

    Templates get it as it is written there, so that validators check values and do not change them.
    """

    enabled: bool = False


@dataclass(frozen=True, slots=True)
class FeatureEnvironment:
    """What a feature may know of an environment; values of a site stay out of patches.

    Attributes:
        kube_version: Kubernetes' version, the default's where the environment names none.
        names_kube_version: whether it names one.
        image_pull_secrets: names of the Secrets that its pods pull images with.
    """

    name: str
    kube_version: str
    names_kube_version: bool
    image_pull_secrets: tuple[str, ...] = ()

    def to_values(self) -> dict[str, Any]:
        """Return ``.environment`` of ``values.gotmpl``."""
        return {"name": self.name, "kubeVersion": self.kube_version}


@dataclass(frozen=True, slots=True)
class FeaturePatch:
    """A patch of one object of a component, in a file of its own.

    Attributes:
        object: the object that is changed.
        body: the file's text (`kfdeploy.patchfile` has what it is written from): a template over
            the environment's values, neutral as every patch.
        purpose: tells it from the feature's other patches of this object; it is part of the name.
    """

    object: ObjectKey
    body: str
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class FeatureRelease:
    """A release of new objects, which belongs to no component of the upstream.

    Attributes:
        release: its name, and that of its folder below ``patches/``.
        objects: file name to text, one object a file. Texts are templates over the same values as
            patches; one that is empty when it is filled gives no object.
    """

    release: str
    objects: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FeatureImage:
    """An image that an object of the feature names: it is locked and mirrored with all others.

    The object names it by ``{{ (index .Values.images "REF").ref }}``.

    Attributes:
        ref: the reference at its source.
        release: the feature's release that has the object.
        object: the object that names it.
        field: where in the object.
    """

    ref: str
    release: str
    object: ObjectKey
    field: str


@dataclass(frozen=True, slots=True)
class FlowEnd:
    """One side of a connection; ``namespace`` and ``name`` where the kind has them."""

    kind: Literal[
        "workload", "apiserver", "ingress", "user-namespaces", "namespace", "external", "dns"
    ]
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection that the feature needs open; ``port`` is the pod's."""

    source: FlowEnd
    target: FlowEnd
    port: int
    why: str
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """An image of a release set: its private reference, and what leads its places there."""

    mirror: str
    redirects: tuple[str, ...]
    is_mirrored: bool


@dataclass(frozen=True, slots=True)
class RenderedSet:
    """A release set as a feature's check sees it.

    Attributes:
        registry: HOST[/PREFIX] of the private registry.
        images: the images, by the reference as found.
        manifests: the text of each release's manifests.
    """

    registry: str
    images: Mapping[str, RenderedImage]
    manifests: Sequence[str] = field(repr=False)


Settings = TypeVar("Settings", bound=FeatureSettings)


class Feature(Generic[Settings]):
    """What a site adds by a section of `features:`; a subclass overrides what it has.

    Where a method says so, it is also asked while the feature is off.
    """

    name: ClassVar[str]
    """The section's key, in lower case."""
    settings_model: ClassVar[type[FeatureSettings]]
    names_upstream: ClassVar[frozenset[str]] = frozenset()
    """Kinds of its objects that name upstream's images on purpose: `verify` lets them."""
    unserved_hints: ClassVar[Mapping[str, str]] = {}
    """Kind to what an operator can do where the cluster does not serve it."""

    def __init__(
        self, settings: Settings, environments: Mapping[str, FeatureEnvironment] | None = None
    ) -> None:
        self.settings = settings
        self.environments = environments or {}

    @property
    def enabled(self) -> bool:
        """Whether the site has turned it on."""
        return self.settings.enabled

    def build_patches(self, component: str, objects: Sequence[Object]) -> Iterable[FeaturePatch]:
        """Return the patches of a component's objects, which are all but CRDs."""
        return ()

    def build_releases(self) -> Iterable[FeatureRelease]:
        """Return the releases of new objects; they are installed before the components."""
        return ()

    def list_images(self) -> Iterable[FeatureImage]:
        """Return the images that its objects name."""
        return ()

    def list_flows(self) -> Iterable[Flow]:
        """Return the connections that it needs, for the network map."""
        return ()

    def list_notes(self, environment: FeatureEnvironment) -> Iterable[str]:
        """Return what an operator may not expect of an environment; also asked while it is off."""
        return ()

    def check_objects(self, objects: Sequence[Object]) -> Iterable[UserError]:
        """Return why no cluster takes the objects of one of its releases, filled."""
        return ()

    def check_set(self, content: RenderedSet) -> Iterable[str]:
        """Return why a release set is unfit; also asked while it is off."""
        return ()

    @property
    def default_redirect(self) -> str:
        """What leads images that nothing else redirects, as `scan` names it; empty for nothing."""
        return ""

    def build_values(self, environment: FeatureEnvironment) -> Any:
        """Return what templates find as ``.Values.NAME`` in an environment."""
        # As plain Helmfile has it, which knows no model: the section as written, over defaults.
        settings = {
            **self.read_defaults(),
            **self.settings.model_dump(mode="json", by_alias=True, exclude_unset=True),
        }
        context = {"settings": settings, "environment": environment.to_values()}
        return YAML(typ="safe").load(go_template.render(self.read_values_template(), context))

    @classmethod
    def read_defaults(cls) -> dict[str, Any]:
        """Return the settings of a section that only turns the feature on."""
        return cls.settings_model(enabled=True).model_dump(mode="json", by_alias=True)

    @classmethod
    def read_init_text(cls) -> str:
        """Return the section as `init` writes it."""
        return cls._read_file("init.yaml")

    @classmethod
    def read_values_template(cls) -> str:
        """Return the template of ``.Values.NAME``; without one these are the settings."""
        return cls._read_file("values.gotmpl") or "{{ toJson .settings }}\n"

    @classmethod
    def read_templates(cls, pattern: str = "*.yaml.gotmpl") -> dict[str, str]:
        """Return name and text of the files in ``templates/`` that match, by name."""
        paths = sorted((cls._folder() / "templates").glob(pattern))
        return {path.name: path.read_text(encoding="utf-8") for path in paths}

    @classmethod
    def _read_file(cls, name: str) -> str:
        path = cls._folder() / name
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @classmethod
    def _folder(cls) -> Path:
        return Path(str(sys.modules[cls.__module__].__file__)).parent
