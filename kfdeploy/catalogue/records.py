"""The records of a catalogue file, as pydantic models: the only description of the format.

`load` checks files with them, everything else reads them as values, and `dump_schema` makes the
JSON Schema for editors. An entry belongs to the programs whose images it names, and holds for the
versions at which somebody has read the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Set
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    field_validator,
)

from kfdeploy.catalogue.versions import Version, VersionRange, closest_version
from kfdeploy.images.redirect import FactSource, RedirectRecord, is_same_name
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.oci.reference import ImageRef, WrittenRef, is_image_ref
from kfdeploy.workspace.settings import Need
from kfdeploy.yamltext.fields import (
    ExactlyOne,
    Needs,
    OnlyWith,
    OptionalList,
    Text,
    TextFormat,
    dump_json_schema,
)

EgressKind = Literal[
    "package-install",
    "model",
    "dataset",
    "web-asset",
    "webhook",
    "schema",
    "identity",
    "telemetry",
    "git",
    "other",
]
EGRESS_KINDS: tuple[EgressKind, ...] = get_args(EgressKind)
"""What programs connect to, in the order of reports."""


# --- text formats ---------------------------------------------------------------------------------


def _check_image(text: str) -> str:
    if not is_image_ref(text):
        raise ValueError(f"{text!r} is not an image reference")
    return text


def _check_substitute(text: str) -> str:
    _check_image(text.replace("{tag}", "1"))
    return text


def _parse_alias(text: str) -> Version:
    version = Version.parse(text)
    if version is None:
        raise ValueError(f"{text!r} is not a version")
    return version


_VERSION = r"\d+(\.\d+)+([-.]?(rc|alpha|beta|pre|dev).*)?"
_Image = Annotated[
    str, TextFormat(_check_image, r"^[a-z0-9][\w./:@-]*$", "an image, as the program's code has it")
]
_Substitute = Annotated[
    str,
    TextFormat(
        _check_substitute, r"^[a-z0-9][\w./:@{}-]*$", "an image; {tag} is the tag of the lost image"
    ),
]
_AliasVersion = Annotated[Version, TextFormat(_parse_alias, r"^v?\d+(\.\d+)+", "a version")]
_Range = Annotated[
    VersionRange,
    TextFormat(
        VersionRange.parse,
        f"^(any|{_VERSION}( - {_VERSION})?)$",
        "1.9.2, or 1.16.2 - 1.21.1 (both ends were read and say the same), or any",
    ),
]


def _list_ranges(value: object) -> object:
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else (value,)


_Ranges = Annotated[
    tuple[_Range, ...],
    BeforeValidator(_list_ranges, json_schema_input_type=_Range | tuple[_Range, ...]),
]
"""One range or a list of them; none is every version that was read."""


# --- records --------------------------------------------------------------------------------------


class _Record(BaseModel):
    # Built at first use: a scan with everything in the cache imports this module and reads no file.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class ObjectName(_Record):
    """A Kubernetes object, by kind and name."""

    kind: Text
    name: Text


class SiteSelector(_Record):
    """A site of the manifests that an image is derived from at run time."""

    kind: Text
    name: Text
    field: Text

    def matches(self, key: ObjectKey, field: str) -> bool:
        return (
            key.kind == self.kind
            and is_same_name(key.name, self.name)
            and fnmatchcase(field, self.field)
        )


class HiddenImage(_Record):
    """An image that a program pulls, or offers to users, by a default in its code."""

    ref: _Image = Field("", description="the image, as the code has it")
    refs: tuple[_Image, ...] = Field((), min_length=1, description="several images")
    of: SiteSelector | None = Field(
        None, description="the site whose reference this one is derived from"
    )
    suffix: Text = Field("", description="what the program appends to that reference's tag")
    need: Need
    when: Text = Field(description="what pulls it, under which condition")
    source: FactSource
    versions: _Ranges = ()
    redirect: RedirectRecord | None = Field(
        None, description="what makes the program pull another image; left out: nothing does"
    )
    digest: StrictBool = Field(True, description="false: the program takes a tag only")
    objects: OptionalList[ObjectName] = Field(
        (), description="the image is pulled only where the component has all of these"
    )
    outside: Text = Field(
        "",
        description="namespace of the pods that pull it, if it is no user's: admission does not"
        " change them",
    )
    pulled_by: Literal["program"] | None = Field(
        None, description="the program copies the image itself, no kubelet pulls it"
    )

    @property
    def references(self) -> tuple[str, ...]:
        """Return all references as the code has them; none if they are derived from a site."""
        return (self.ref,) if self.ref else self.refs

    def has_objects(self, names: Set[tuple[str, str]]) -> bool:
        """Return whether all objects that it needs are among these kinds and names."""
        return all((item.kind, item.name) in names for item in self.objects)

    def names_object(self, key: ObjectKey) -> bool:
        """Return whether an object is one of those that it needs."""
        return any((item.kind, item.name) == (key.kind, key.name) for item in self.objects)


class SiteRule(_Record):
    """The need of the images at certain sites, and whether a digest may be used there."""

    kind: Text = Field(description="kind of the object, with wildcards")
    name: Text = Field(description="name of the object, with wildcards")
    field: Text = Field("*", description="path of the field, with wildcards")
    line: Text = Field("", description="a regular expression for the line that has the image")
    ref: Text = Field("", description="the image, with wildcards")
    need: Need
    pin: Literal["tag"] | None = Field(
        None, description="a digest breaks something here; why says what"
    )
    why: Text = ""
    versions: _Ranges = ()
    source: FactSource

    def matches(self, key: ObjectKey, field: str, line: str, ref: str) -> bool:
        return (
            fnmatchcase(key.kind, self.kind)
            and is_same_name(key.name, self.name)
            and fnmatchcase(field, self.field)
            and (not self.line or bool(re.search(self.line, line)))
            and (not self.ref or fnmatchcase(ref, self.ref))
        )


class FalsePositive(_Record):
    """A string in a program that looks like an image and that nothing pulls."""

    ref: Text
    why: Text
    source: FactSource


class RegistryReader(_Record):
    """A controller that connects to image registries itself."""

    kind: Text
    name: Text
    container: Text
    what: Text = Field(description="what it reads from the registry")
    source: FactSource
    spared_by: Text = Field("", description="how to keep it from connecting")
    ca: Text = Field("", description="how it gets the registry's CA")
    credentials: Text = Field("", description="how it signs in")
    role: Text = Field(
        "", description="its ClusterRole, if that lacks the right to read the pull secrets"
    )
    versions: _Ranges = ()


class UnavailableImage(_Record):
    """Images that their source no longer has; a person confirms the substitute."""

    ref: Text = Field(description="the image or its repository, with wildcards")
    why: Text
    source: FactSource
    substitute: _Substitute = ""

    def matches(self, ref: WrittenRef) -> bool:
        return any(fnmatchcase(name, self.ref) for name in (ref.text, ref.parsed.repository))

    def substitute_for(self, ref: ImageRef) -> str:
        """Return the substitute of one of the images.

        It is empty where none is known, or where it takes the image's tag and there is none.
        """
        if "{tag}" not in self.substitute:
            return self.substitute
        tag = ref.with_default_tag().tag
        return self.substitute.replace("{tag}", tag) if tag else ""


class EgressFact(_Record):
    """What a program, or its users' code, connects to besides image registries."""

    what: EgressKind
    target: Text
    need: Need
    when: Text = Field(description="what connects, under which condition")
    way_out: Text = Field(description="what to do without the Internet")
    source: FactSource
    versions: _Ranges = ()


class ReviewedVersions(_Record):
    """Versions whose source somebody has read, and what was read."""

    versions: _Range
    source: FactSource
    note: Text = ""


class CatalogueEntry(_Record):
    """One file of the catalogue: the facts about a component."""

    component: Text
    programs: OptionalList[Text] = Field(
        (), description="repositories of the images of its workloads, with wildcards"
    )
    aliases: dict[str, _AliasVersion] = Field(
        {}, description="versions of tags or digests that do not begin with one; '' is no tag"
    )
    read: OptionalList[ReviewedVersions] = Field(
        (), description="the versions whose source was read"
    )
    images: OptionalList[
        Annotated[HiddenImage, ExactlyOne(("ref", "refs", "of")), OnlyWith("suffix", ("of",))]
    ] = Field((), description="images that it pulls and no manifest names")
    unused: OptionalList[FalsePositive] = Field(
        (), description="strings that look like images and that nothing pulls"
    )
    sites: OptionalList[Annotated[SiteRule, Needs("pin", "why")]] = Field(
        (),
        description="what the images at a place of the manifests are needed for; the first rule"
        " that matches applies",
    )
    asks: OptionalList[RegistryReader] = Field(
        (), description="controllers that connect to image registries themselves"
    )
    lost: OptionalList[UnavailableImage] = Field(
        (), description="images that their source no longer has"
    )
    egress: OptionalList[EgressFact] = Field(
        (), description="what it connects to besides image registries"
    )

    _file: str = PrivateAttr("")

    def model_post_init(self, context: object) -> None:
        if isinstance(context, str):
            self._file = context

    @property
    def file(self) -> str:
        """Return the name of the entry's file: what validation got as its context."""
        return self._file

    @field_validator("aliases", mode="before")
    @classmethod
    def _read_aliases(cls, value: object) -> object:
        """Take a tag that YAML reads as a number for the text that it is."""
        if isinstance(value, dict):
            return {str(alias): version for alias, version in value.items()}
        return {} if value is None else value

    def owns_repository(self, repository: str) -> bool:
        """Return whether a program of this repository (HOST/PATH) belongs to the component."""
        return any(fnmatchcase(repository, pattern) for pattern in self.programs)

    def is_reviewed(self, version: Version | None) -> bool:
        """Return whether somebody has read the source at this version."""
        return any(version in review.versions for review in self.read)

    def nearest_reviewed(self, version: Version | None) -> Version | None:
        """Return the reviewed version that is closest to a version, or the latest for None."""
        ends = [
            end for review in self.read for end in (review.versions.first, review.versions.last)
        ]
        return closest_version(version, (end for end in ends if end is not None))

    def images_at(self, version: Version | None) -> Iterator[HiddenImage]:
        """Yield the hidden images of a version; records without versions hold for all."""
        yield from (image for image in self.images if covers_version(image.versions, version))


def covers_version(ranges: Sequence[VersionRange], version: Version | None) -> bool:
    """Return whether one of the ranges has the version; no ranges have all."""
    return not ranges or any(version in each for each in ranges)


@lru_cache(maxsize=4096)
def repository_of(image: str) -> str:
    """Return the repository (HOST/PATH) of a reference, or the text itself if it is not one."""
    ref = ImageRef.try_parse(image)
    return ref.repository if ref else image


def dump_schema() -> str:
    """Return the JSON Schema of a catalogue file."""
    return dump_json_schema(CatalogueEntry, "a file of kfdeploy's catalogue")
