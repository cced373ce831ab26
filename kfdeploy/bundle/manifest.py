"""What a bundle has, and in which part: ``bundle.json``, the same bytes in every part.

A part is an OCI image layout::

    oci-layout  index.json  blobs/ALGORITHM/HEX       as other tools read it
    bundle.json  part.json  images.lock               what the bundle is, and which part this is
    pieces/ALGORITHM/HEX.NNN                          of a blob that is larger than a part
    workspace/  wheels/  programs/                    for the machine that it arrives at
    SHA256SUMS  SHA256SUMS.sig                        written last: without, a part is not finished

All manifests are in every part, as are the files of the first three lines but ``part.json``. The
description depends on the lock, the options and the bytes alone: no time, host or path is in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from kfdeploy.checksums import SUMS_FILE
from kfdeploy.files import is_safe_path
from kfdeploy.json_object import InvalidJson, JsonObject, parse_json_object
from kfdeploy.oci.reference import DIGEST

FORMAT: Final = 1
BUNDLE_FILE: Final = "bundle.json"
PART_FILE: Final = "part.json"
LAYOUT_FILE: Final = "oci-layout"
INDEX_FILE: Final = "index.json"
LOCK_FILE: Final = "images.lock"
SIGNATURE_FILE: Final = "SHA256SUMS.sig"
EXTRA_FOLDERS: Final = ("workspace", "wheels", "programs")
FOLDERS: Final = frozenset({"blobs", "pieces", *EXTRA_FOLDERS})
FILES: Final = frozenset(
    {BUNDLE_FILE, PART_FILE, LAYOUT_FILE, INDEX_FILE, LOCK_FILE, SUMS_FILE, SIGNATURE_FILE}
)
REF_NAME: Final = "org.opencontainers.image.ref.name"
FULL_NAME: Final = "io.containerd.image.name"
_SUM: Final = re.compile(r"[0-9a-f]{64}")
# The OCI image specification's grammar for ref.name; skopeo takes no other.
_WORD: Final = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_OCI_NAME: Final = re.compile(rf"{_WORD}(?:/{_WORD})*")
_PARTS_MAX: Final = 9999


@dataclass(frozen=True, slots=True)
class BundleImage:
    """A name that an image has in the bundle.

    Attributes:
        name: ``HOST/PATH:TAG`` (or ``@DIGEST``) of the reference as found, normalised.
        refs: references as found that are this name.
        digest: of its index or only manifest, as it is in the bundle.
        belongs_to: what it is to an image, such as ``sha256-….sig``; empty for images themselves.
        push_tag: the tag that such a thing is pushed as; empty for a referrer.
    """

    name: str
    refs: tuple[str, ...]
    digest: str
    belongs_to: str = ""
    push_tag: str = ""

    @property
    def layout_name(self) -> str:
        """Its name in ``index.json``: the digest where the name is none to other tools."""
        return self.name if _OCI_NAME.fullmatch(self.name) else self.digest


@dataclass(frozen=True, slots=True)
class BundleManifest:
    """A manifest: digest, bytes, media type."""

    digest: str
    size: int
    media_type: str

    @property
    def path(self) -> str:
        return blob_path(self.digest)


@dataclass(frozen=True, slots=True)
class BundleBlob:
    """A blob and where it lies.

    Attributes:
        pieces: part and bytes of each piece; one for a blob that is whole.
    """

    digest: str
    size: int
    pieces: tuple[tuple[int, int], ...]

    def locate_pieces(self) -> Iterator[tuple[int, str, int]]:
        """Part, path in it, and bytes, in the order of the blob's content."""
        if len(self.pieces) == 1:
            yield self.pieces[0][0], blob_path(self.digest), self.size
            return
        for number, (part, size) in enumerate(self.pieces, 1):
            yield part, piece_path(self.digest, number), size


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file for the machine that the bundle arrives at.

    Attributes:
        sum: hex of its sha256.
    """

    path: str
    size: int
    sha256: str
    part: int = 1
    executable: bool = False


@dataclass(frozen=True, slots=True)
class DeltaBase:
    """What a delta builds on.

    Attributes:
        lock: hex of the older lock's sha256.
        images: what both locks have: name to digest.
        blobs: what is not in the bundle as it is there already: digest to bytes and to the
            repositories, as HOST/PATH of references as found.
    """

    lock: str
    images: Mapping[str, str]
    blobs: Mapping[str, tuple[int, tuple[str, ...]]]


@dataclass(frozen=True)
class Bundle:
    """The whole description; everything sorted.

    Attributes:
        kfdeploy: the version that wrote it.
        lock: hex of the sha256 of ``images.lock``.
        part_size: bytes; 0 for a bundle that is its only part.
        wheels_for: Python and platform of the wheels; empty without any.
    """

    kfdeploy: str
    lock: str
    part_size: int
    parts: int
    images: tuple[BundleImage, ...]
    manifests: tuple[BundleManifest, ...]
    blobs: tuple[BundleBlob, ...]
    files: tuple[BundleFile, ...] = ()
    since: DeltaBase | None = None
    wheels_for: tuple[str, ...] = ()

    @cached_property
    def by_digest(self) -> Mapping[str, BundleBlob]:
        return {blob.digest: blob for blob in self.blobs}

    @cached_property
    def manifest_by_digest(self) -> Mapping[str, BundleManifest]:
        return {entry.digest: entry for entry in self.manifests}

    @property
    def expected(self) -> Mapping[str, tuple[str, ...]]:
        """Blobs that must be at the private registry: digest to repositories (`Since.blobs`)."""
        since = self.since.blobs if self.since else {}
        return {digest: repositories for digest, (_, repositories) in since.items()}

    def part_folder(self, part: int) -> str:
        """The part's folder below the bundle's; empty when that is the part."""
        return f"part-{part:03d}" if self.part_size else ""

    def list_part_files(self, part: int) -> dict[str, int]:
        """Blobs, pieces and files of a part, without what is in all: path to bytes."""
        found = {taken.path: taken.size for taken in self.files if taken.part == part}
        for blob in self.blobs:
            found.update({path: size for at, path, size in blob.locate_pieces() if at == part})
        return dict(sorted(found.items()))

    def count_part_bytes(self, part: int) -> int:
        """Bytes of `content`."""
        return sum(self.list_part_files(part).values())

    def build_index(self) -> bytes:
        """``index.json``: an entry a name."""
        entries = []
        for image in self.images:
            entry = self.manifest_by_digest[image.digest]
            names = {REF_NAME: image.layout_name, FULL_NAME: image.name}
            entries.append(
                {
                    "mediaType": entry.media_type,
                    "digest": entry.digest,
                    "size": entry.size,
                    # Referrers are asked for by digest, and their names would be of no use.
                    "annotations": {FULL_NAME: image.name}
                    if image.belongs_to and not image.push_tag
                    else names,
                }
            )
        head = '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"'
        return f'{head},"manifests":{_dump_list(entries)}}}\n'.encode()

    def dump_part_note(self, part: int, description: bytes) -> bytes:
        """``part.json``: which part this is; ``own`` is the bytes of ``bundle.json``."""
        import hashlib

        note = {"part": part, "of": self.parts, "bundle": hashlib.sha256(description).hexdigest()}
        return _dump_compact(note).encode() + b"\n"

    def dumps(self) -> bytes:
        """``bundle.json``."""
        fields: list[tuple[str, str]] = [
            ("format", str(FORMAT)),
            ("kfdeploy", _dump_compact(self.kfdeploy)),
            ("lock", _dump_compact(self.lock)),
            ("partSize", str(self.part_size)),
            ("parts", str(self.parts)),
            ("images", _dump_list([_image_json(image) for image in self.images])),
            (
                "manifests",
                _dump_list(
                    [
                        {"digest": e.digest, "size": e.size, "mediaType": e.media_type}
                        for e in self.manifests
                    ]
                ),
            ),
            ("blobs", _dump_list([_blob_json(blob) for blob in self.blobs])),
            ("files", _dump_list([_file_json(taken) for taken in self.files])),
        ]
        if self.wheels_for:
            fields.append(("wheelsFor", _dump_compact(list(self.wheels_for))))
        if self.since:
            blobs = [
                {"digest": digest, "size": size, "in": list(repositories)}
                for digest, (size, repositories) in sorted(self.since.blobs.items())
            ]
            images = [{"name": n, "digest": d} for n, d in sorted(self.since.images.items())]
            since = f'{{"lock":{_dump_compact(self.since.lock)},"images":{_dump_list(images)}'
            fields.append(("since", f'{since},"blobs":{_dump_list(blobs)}}}'))
        return ("{\n" + ",\n".join(f'"{k}":{v}' for k, v in fields) + "\n}\n").encode()


def loads(data: bytes) -> Bundle:
    """Read ``bundle.json``.

    Raises:
        InvalidJson: damaged, or of a later format.
    """
    top = parse_json_object(data)
    if top.get_number("format") != FORMAT:
        raise InvalidJson(f"format {top.get_number('format')}: of a later kfdeploy")
    since = None
    if "since" in top:
        inner = top.get_object("since")
        since = DeltaBase(
            inner.get_text("lock", _SUM),
            {one.get_text("name"): _get_digest(one) for one in inner.get_objects("images")},
            {
                _get_digest(one): (one.get_number("size"), one.get_texts("in"))
                for one in inner.get_objects("blobs")
            },
        )
    parts = top.get_number("parts")
    if not 1 <= parts <= _PARTS_MAX:
        raise InvalidJson(f"parts: {parts}")
    found = Bundle(
        kfdeploy=top.get_text("kfdeploy"),
        lock=top.get_text("lock", _SUM),
        part_size=top.get_number("partSize"),
        parts=parts,
        images=tuple(
            BundleImage(
                one.get_text("name"),
                one.get_texts("refs"),
                _get_digest(one),
                one.get_text("belongsTo", default=""),
                one.get_text("pushTag", default=""),
            )
            for one in top.get_objects("images")
        ),
        manifests=tuple(
            BundleManifest(_get_digest(one), one.get_number("size"), one.get_text("mediaType"))
            for one in top.get_objects("manifests")
        ),
        blobs=tuple(_parse_blob(one, parts) for one in top.get_objects("blobs")),
        files=tuple(
            BundleFile(
                _get_path(one, "path"),
                one.get_number("size"),
                one.get_text("sha256", _SUM),
                _get_part(one, parts),
                one.get_flag("executable", default=False),
            )
            for one in top.get_objects("files")
        ),
        since=since,
        wheels_for=top.get_texts("wheelsFor", default=()),
    )
    _check_consistency(found)
    return found


def parse_part_note(data: bytes, description: bytes) -> tuple[int, bool]:
    """Read ``part.json``.

    Returns:
        The part's number, and whether it is of the bundle whose description is ``own``.

    Raises:
        InvalidJson: damaged.
    """
    import hashlib

    note = parse_json_object(data)
    return note.get_number("part"), note.get_text("bundle") == hashlib.sha256(
        description
    ).hexdigest()


def blob_path(digest: str) -> str:
    """Where a layout has a blob."""
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def piece_path(digest: str, number: int) -> str:
    """Where a piece of a blob lies: not where readers of layouts would take it for the whole."""
    algorithm, _, value = digest.partition(":")
    return f"pieces/{algorithm}/{value}.{number:03d}"


def _check_consistency(bundle: Bundle) -> None:
    """What the description says in two places."""
    for image in bundle.images:
        if image.digest not in bundle.manifest_by_digest:
            raise InvalidJson(f"images: {image.name} is {image.digest}, which is no manifest of it")
    for taken in bundle.files:
        if taken.path.partition("/")[0] not in EXTRA_FOLDERS or "/" not in taken.path:
            raise InvalidJson(f"files: {taken.path} is in none of the folders for files")
    paths = [taken.path for taken in bundle.files]
    digests = [blob.digest for blob in bundle.blobs] + [e.digest for e in bundle.manifests]
    if len(set(paths)) < len(paths) or len(set(digests)) < len(digests):
        raise InvalidJson("something is there twice")


def _parse_blob(one: JsonObject, parts: int) -> BundleBlob:
    size = one.get_number("size")
    if "part" in one:
        return BundleBlob(_get_digest(one), size, ((_get_part(one, parts), size),))
    pieces = tuple(
        (_get_part(piece, parts), piece.get_number("size")) for piece in one.get_objects("pieces")
    )
    if len(pieces) < 2 or sum(piece for _, piece in pieces) != size:
        raise InvalidJson(f"{one.where}.pieces: they do not make {size} bytes")
    return BundleBlob(_get_digest(one), size, pieces)


def _image_json(image: BundleImage) -> dict[str, Any]:
    return {
        "name": image.name,
        "refs": list(image.refs),
        "digest": image.digest,
        **({"belongsTo": image.belongs_to} if image.belongs_to else {}),
        **({"pushTag": image.push_tag} if image.push_tag else {}),
    }


def _blob_json(blob: BundleBlob) -> dict[str, Any]:
    where: dict[str, Any] = {"part": blob.pieces[0][0]}
    if len(blob.pieces) > 1:
        where = {"pieces": [{"part": part, "size": size} for part, size in blob.pieces]}
    return {"digest": blob.digest, "size": blob.size, **where}


def _file_json(taken: BundleFile) -> dict[str, Any]:
    return {
        "path": taken.path,
        "size": taken.size,
        "sha256": taken.sha256,
        "part": taken.part,
        **({"executable": True} if taken.executable else {}),
    }


def _dump_compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _dump_list(entries: Sequence[object]) -> str:
    """A line an entry: the file is looked at, and compared, by people too."""
    return "[\n" + ",\n".join(map(_dump_compact, entries)) + "\n]" if entries else "[]"


def _get_part(one: JsonObject, parts: int) -> int:
    number = one.get_number("part")
    if not 1 <= number <= parts:
        raise one.error("part", f"{number} is not a part: there are {parts}")
    return number


def _get_digest(one: JsonObject) -> str:
    return one.get_text("digest", DIGEST)


def _get_path(one: JsonObject, key: str) -> str:
    path = one.get_text(key)
    if not is_safe_path(path):
        raise one.error(key, f"{path!r} is not a path below the bundle")
    return path
