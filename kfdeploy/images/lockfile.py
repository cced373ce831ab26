"""`images.lock`: images at their digests, as a Carvel ImagesLock.

The format is imgpkg's (``apiVersion: imgpkg.carvel.dev/v1alpha1``), so that `imgpkg` and `kbld`
read it: an entry is a repository at a digest, with annotations, whose values are strings. What
kfdeploy adds:

====================================  ==========================================================
``kbld.carvel.dev/id``                the reference as found, as the cluster would ask for it
``kfdeploy.io/attached``              what belongs to it (a signature, an SBOM), a line each:
                                      ``SUBJECT_DIGEST tag|referrer NAME DIGEST``; or ``none``
``kfdeploy.io/path``                  HOST/PATH of that reference, a legal repository path
``kfdeploy.io/tag``                   its tag (``latest`` for none); absent where only a digest is
``kfdeploy.io/platforms``             a line a platform: ``OS/ARCH[/VARIANT] DIGEST``
``kfdeploy.io/reduced``               a line a list of platforms: ``PLATFORM,PLATFORM DIGEST``
``kfdeploy.io/size``                  bytes of all its blobs, for all platforms
====================================  ==========================================================

The same lock is the same bytes: sorted by id, and nothing in it but what was locked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from kfdeploy.errors import UserError, raise_all
from kfdeploy.files import read_text, write_text
from kfdeploy.oci.attachments import Attachment
from kfdeploy.oci.manifest import matches_platform
from kfdeploy.oci.reference import (
    ImageRef,
    InvalidImageRef,
    WrittenRef,
    host_qualified_path,
    is_digest,
)

if TYPE_CHECKING:
    from ruamel.yaml.comments import CommentedMap

T = TypeVar("T")
API_VERSION: Final = "imgpkg.carvel.dev/v1alpha1"
KIND: Final = "ImagesLock"
ATTACHED: Final = "kfdeploy.io/attached"
ID: Final = "kbld.carvel.dev/id"
PATH: Final = "kfdeploy.io/path"
PLATFORMS: Final = "kfdeploy.io/platforms"
REDUCED: Final = "kfdeploy.io/reduced"
SIZE: Final = "kfdeploy.io/size"
TAG: Final = "kfdeploy.io/tag"

_NONE: Final = "none"
"""Looked for, and nothing found; without the annotation `lock` looks again."""
_RELOCK: Final = "`kfdeploy lock` writes the file anew"
_HEAD: Final = f"apiVersion: {API_VERSION}\nkind: {KIND}\nimages:"
# With a slash in it a plain scalar is a string to every YAML reader.
_PLAIN: Final = re.compile(r"[A-Za-z0-9][\w.@:-]*/[\w./@:-]*\w", re.ASCII)


@dataclass(frozen=True, slots=True)
class LockedImage:
    """One image at its digest.

    Attributes:
        id: the reference as found, as the cluster would ask for it.
        image: source repository at the digest of its index (or only manifest), without a tag;
            the substitute's where there is one, never a proxy's.
        platforms: ``os/arch[/variant]`` (Windows: ``windows(VERSION)/arch``) to the digest of
            that platform's manifest; empty when unknown.
        size: bytes of all its blobs (layers and configs), each counted once; None when unknown.
        reduced: list of platforms (``linux/amd64,linux/arm64``, sorted) to the digest of the
            index reduced to them. A single manifest has no entry, as nothing can be taken from
            it, unless its platform is not known: then its own digest.
        attached: signatures, attestations and SBOMs that belong to it, sorted; None when they
            were not looked for.
    """

    id: WrittenRef
    image: ImageRef
    platforms: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    reduced: Mapping[str, str] = field(default_factory=dict)
    attached: tuple[Attachment, ...] | None = None

    @property
    def digest(self) -> str:
        """The digest of the index, or of the only manifest."""
        return self.image.digest

    @property
    def tag(self) -> str:
        """The tag that a runtime asks for by `id`; empty where `id` names only a digest."""
        return tag_of(self.id.parsed)

    def digest_for(self, platforms: Sequence[str]) -> str:
        """Return the digest of what an environment gets.

        Args:
            platforms: the environment's, sorted; empty for all that the image has.

        Returns:
            The digest. It is empty where the lock does not have it: because the lock was made
            before these platforms were named, or the image has none of them.
        """
        if not platforms:
            return self.digest
        if digest := self.reduced.get(reduced_key(platforms)):
            return digest
        wanted = tuple(platforms)
        is_single = any(
            digest == self.digest and matches_platform(platform, wanted)
            for platform, digest in self.platforms.items()
        )
        return self.digest if is_single else ""

    @property
    def path(self) -> str:
        """HOST/PATH of the reference as found, for the private registry."""
        return host_qualified_path(self.id.parsed)


@dataclass(frozen=True)
class Lock:
    """All locked images, sorted by id."""

    images: Sequence[LockedImage]

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", tuple(sorted(self.images, key=lambda i: i.id)))

    @cached_property
    def by_id(self) -> Mapping[WrittenRef, LockedImage]:
        return {image.id: image for image in self.images}

    def find_image(self, ref: WrittenRef) -> LockedImage | None:
        """Return the image that is locked for a reference as found; None where it is not locked."""
        return self.by_id.get(ref)

    def __iter__(self) -> Iterator[LockedImage]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)


def reduced_key(platforms: Sequence[str]) -> str:
    """Return the key of a sorted list of platforms in `LockedImage.reduced`."""
    return ",".join(platforms)


def tag_of(ref: ImageRef) -> str:
    """Return the tag that a runtime asks for: ``latest`` for a reference without tag and digest."""
    return ref.with_default_tag().tag


def read_lock(path: Path) -> Lock:
    """Read the lock in a file.

    Raises:
        UserError: the file can't be read, or is damaged: every mistake, with file, line and key.
    """
    return loads(read_text(path), str(path))


def write_lock(path: Path, lock: Lock) -> bool:
    """Write the lock; return whether the file changed."""
    return write_text(path, dumps(lock))


def dumps(lock: Lock) -> str:
    """Return the lock as YAML that YAML 1.1 and 1.2 read alike."""
    if not lock.images:
        return f"{_HEAD} []\n"
    return "\n".join([_HEAD, *(line for image in lock.images for line in _dump_entry(image)), ""])


def loads(text: str, name: str = "images.lock") -> Lock:
    """Read a lock from text; ``name`` is the file's, for errors.

    Raises:
        UserError: the text is damaged: every mistake, with file, line and key.
    """
    # Our own layout is read without a YAML parser, 20 times as fast: a mirror with nothing to do
    # spends its time here otherwise. What does not come out the same again is not our layout.
    lock = _read_own_layout(text)
    if lock is not None and dumps(lock) == text:
        return lock
    return _read_yaml(text, name)


def _dump_entry(image: LockedImage) -> Iterator[str]:
    yield f"- image: {_quote_scalar(str(image.image))}"
    yield "  annotations:"
    yield f"    {ID}: {_quote_scalar(image.id.text)}"
    if image.attached:
        yield f"    {ATTACHED}: |-"
        yield from (f"      {attachment}" for attachment in sorted(image.attached))
    elif image.attached is not None:
        yield f"    {ATTACHED}: {json.dumps(_NONE)}"
    yield f"    {PATH}: {_quote_scalar(image.path)}"
    for key, pairs in ((PLATFORMS, image.platforms), (REDUCED, image.reduced)):
        if pairs:
            yield f"    {key}: |-"
            yield from (f"      {name} {digest}" for name, digest in sorted(pairs.items()))
    if image.size is not None:
        yield f'    {SIZE}: "{image.size}"'
    if image.tag:
        yield f"    {TAG}: {json.dumps(image.tag)}"


def _quote_scalar(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _read_own_layout(text: str) -> Lock | None:
    head, *entries = text.split("\n- image: ")
    if head != _HEAD:
        return None
    images: list[LockedImage] = []
    for entry in entries:
        reference, *lines = entry.rstrip("\n").split("\n")
        annotations: dict[str, str] = {}
        key = ""
        for line in lines[1:]:
            if line.startswith("      "):
                annotations[key] = f"{annotations[key]}\n{line[6:]}".lstrip("\n")
            else:
                key, _, value = line.strip().partition(": ")
                value = value.strip('"')
                annotations[key] = "" if value == "|-" else value
        try:
            image = _parse_image(reference.strip('"'), annotations)
        except (_DamagedEntry, KeyError):
            return None
        images.append(image)
    return Lock(images) if len({image.id for image in images}) == len(images) else None


class _DamagedEntry(Exception):
    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key
        self.reason = reason


def _parse_image(reference: str, annotations: Mapping[str, str]) -> LockedImage:
    image = _parse_ref(ImageRef.parse, reference, "image")
    if not image.digest or image.tag:
        raise _DamagedEntry("image", f"{reference!r} must be REPOSITORY@DIGEST, without a tag")
    found = annotations.get(ID)
    if found is None:
        raise _DamagedEntry(f"annotations.{ID}", "missing: the reference as found")
    ref = _parse_ref(WrittenRef.parse, found, f"annotations.{ID}")
    expectations = {PATH: host_qualified_path(ref.parsed), TAG: tag_of(ref.parsed)}
    for key, expected in expectations.items():
        if annotations.get(key, expected) != expected:
            raise _DamagedEntry(
                f"annotations.{key}",
                f"{annotations[key]!r} does not belong to {found}: {expected or 'no tag'!r} does",
            )
    size = annotations.get(SIZE)
    if size is not None and not re.fullmatch("[0-9]+", size, re.ASCII):
        raise _DamagedEntry(f"annotations.{SIZE}", f"{size!r} is no number of bytes")
    return LockedImage(
        id=ref,
        image=image,
        platforms=_parse_pairs(PLATFORMS, annotations),
        size=None if size is None else int(size),
        reduced=_parse_pairs(REDUCED, annotations),
        attached=_parse_attached(annotations.get(ATTACHED)),
    )


def _parse_ref(parse: Callable[[str], T], text: str, key: str) -> T:
    try:
        return parse(text)
    except InvalidImageRef as error:
        raise _DamagedEntry(key, str(error)) from error


def _parse_attached(text: str | None) -> tuple[Attachment, ...] | None:
    if text is None:
        return None
    try:
        lines = [] if text == _NONE else text.strip().split("\n")
        return tuple(sorted(Attachment.parse(line.strip()) for line in lines))
    except ValueError as error:
        raise _DamagedEntry(f"annotations.{ATTACHED}", str(error)) from error


def _parse_pairs(key: str, annotations: Mapping[str, str]) -> Mapping[str, str]:
    result: dict[str, str] = {}
    for line in annotations.get(key, "").splitlines():
        name, _, digest = line.strip().rpartition(" ")
        if not name or not is_digest(digest):
            raise _DamagedEntry(f"annotations.{key}", f"{line!r} is not PLATFORM DIGEST")
        result[name] = digest
    return result


def _read_yaml(text: str, name: str) -> Lock:
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    document = _load_document(text, name)
    if not isinstance(document, CommentedMap):
        raise UserError(f"{name}:1: not an {KIND}: no mapping", hint=_RELOCK)
    errors: list[UserError] = []
    for key, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(key) != expected:
            line = _key_line(document, key)
            errors.append(
                UserError(
                    f"{name}:{line}: {key}: {document.get(key)!r} is not {expected!r}", hint=_RELOCK
                )
            )
    raise_all(errors)
    entries = document.get("images")
    if not isinstance(entries, CommentedSeq):
        line = _key_line(document, "images")
        raise UserError(f"{name}:{line}: images: must be a list", hint=_RELOCK)
    images: list[LockedImage] = []
    first_line: dict[WrittenRef, int] = {}
    for index, entry in enumerate(entries):
        line = int(entries.lc.data[index][0]) + 1
        try:
            image = _parse_yaml_entry(entry)
        except _DamagedEntry as damage:
            where = _find_key_line(entry, damage.key, line)
            key = f"images[{index}].{damage.key}".rstrip(".")
            errors.append(UserError(f"{name}:{where}: {key}: {damage.reason}", hint=_RELOCK))
            continue
        if image.id in first_line:
            errors.append(
                UserError(
                    f"{name}:{line}: images[{index}]: {image.id} is there already, in line"
                    f" {first_line[image.id]}",
                    hint="remove one of them",
                )
            )
        first_line.setdefault(image.id, line)
        images.append(image)
    raise_all(errors)
    return Lock(images)


def _load_document(text: str, name: str) -> object:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = (error.problem or "broken YAML").splitlines()[0]
        raise UserError(f"{name}:{line}: broken YAML: {problem}", hint=_RELOCK) from error
    except YAMLError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{name}: broken YAML: {reason}", hint=_RELOCK) from error


def _parse_yaml_entry(entry: object) -> LockedImage:
    if not isinstance(entry, Mapping):
        raise _DamagedEntry("", "must be a mapping with image and annotations")
    reference = entry.get("image")
    if not isinstance(reference, str):
        raise _DamagedEntry(
            "image", "missing" if reference is None else f"{reference!r} is no string"
        )
    annotations = entry.get("annotations")
    if not isinstance(annotations, Mapping):
        raise _DamagedEntry(
            "annotations", "missing" if annotations is None else "must be a mapping"
        )
    for key, value in annotations.items():
        if not isinstance(value, str):
            raise _DamagedEntry(f"annotations.{key}", f"{value!r} is no string: put it in quotes")
    return _parse_image(reference, annotations)


def _find_key_line(entry: object, key: str, default: int) -> int:
    """Return the line of ``key`` (``annotations.NAME`` or ``image``) within an entry."""
    node: Any = entry
    line = default
    head, _, rest = key.partition(".")
    for part in filter(None, (head, rest)):
        if not isinstance(node, Mapping) or part not in node:
            break
        line = _key_line(node, part)
        node = node[part]
    return line


def _key_line(node: Any, key: str) -> int:
    mapping: CommentedMap = node
    data = mapping.lc.data or {}
    return int(data[key][0]) + 1 if key in data else int(mapping.lc.line) + 1
