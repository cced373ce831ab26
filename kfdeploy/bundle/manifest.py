"""Read and write ``bundle.json``: the contents of a bundle, and the part of each file.

A part is an OCI image layout::

    oci-layout  index.json  blobs/ALGORITHM/HEX       the layout that other tools read
    bundle.json  part.json  images.lock               the description, and the part's number
    pieces/ALGORITHM/HEX.NNN                          of a blob that is larger than a part
    workspace/  wheels/  programs/                    for the far side
    SHA256SUMS  SHA256SUMS.sig                        written last: a part without is not finished

Every part has all manifests, ``bundle.json``, ``images.lock``, ``oci-layout`` and ``index.json``,
with the same bytes. The description depends only on the lock, the options and the contents: it has
no time, host or path of the machine.
"""

from __future__ import annotations

import hashlib
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
# The OCI image specification's grammar for ref.name; skopeo accepts no other.
_WORD: Final = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_OCI_NAME: Final = re.compile(rf"{_WORD}(?:/{_WORD})*")
_PARTS_MAX: Final = 9999


@dataclass(frozen=True, slots=True)
class BundleImage:
    """One name of an image, or of an attached artifact, in the bundle.

    Attributes:
        name: ``HOST/PATH:TAG`` (or ``@DIGEST``) of the reference as found, normalised.
        refs: the references, as found, that have this name.
        digest: the digest of its index or only manifest in the bundle.
        belongs_to: the name of an attached artifact, such as ``sha256-….sig``; empty for images.
        push_tag: the tag to push an attached artifact as; empty for a referrer.
    """

    name: str
    refs: tuple[str, ...]
    digest: str
    belongs_to: str = ""
    push_tag: str = ""

    @property
    def layout_name(self) -> str:
        """Return its name in ``index.json``: the digest if other tools reject the name."""
        return self.name if _OCI_NAME.fullmatch(self.name) else self.digest


@dataclass(frozen=True, slots=True)
class BundleManifest:
    """A manifest in the bundle; ``size`` in bytes."""

    digest: str
    size: int
    media_type: str

    @property
    def path(self) -> str:
        return blob_path(self.digest)


@dataclass(frozen=True, slots=True)
class BundleBlob:
    """A blob and the parts that have it.

    Attributes:
        pieces: part number and size in bytes of each piece; entry for a blob that is not split.
    """

    digest: str
    size: int
    pieces: tuple[tuple[int, int], ...]

    def locate_pieces(self) -> Iterator[tuple[int, str, int]]:
        """Yield part number, path in the part and bytes, in the order of the blob's content."""
        if len(self.pieces) == 1:
            yield self.pieces[0][0], blob_path(self.digest), self.size
            return
        for number, (part, size) in enumerate(self.pieces, 1):
            yield part, piece_path(self.digest, number), size


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file for the far side.

    Attributes:
        sha256: in hexadecimal.
    """

    path: str
    size: int
    sha256: str
    part: int = 1
    executable: bool = False


@dataclass(frozen=True, slots=True)
class DeltaBase:
    """The older lock that a bundle written with ``--since`` builds on.

    Attributes:
        lock: the older lock's sha256 in hexadecimal.
        images: the images that both locks have: name to digest.
        blobs: the blobs left out because the far side has them: digest to size in bytes and
            repositories, as HOST/PATH of references as found.
    """

    lock: str
    images: Mapping[str, str]
    blobs: Mapping[str, tuple[int, tuple[str, ...]]]


@dataclass(frozen=True)
class Bundle:
    """The whole description; all sequences are sorted.

    Attributes:
        kfdeploy: the version of kfdeploy that wrote it.
        lock: the sha256 of ``images.lock`` in hexadecimal.
        part_size: bytes; 0 for a bundle that is not in parts.
        wheels_for: Python and platform of the wheels; empty without wheels.
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
        """Return the blobs that the private registry must have: digest to repositories."""
        since = self.since.blobs if self.since else {}
        return {digest: repositories for digest, (_, repositories) in since.items()}

    def part_folder(self, part: int) -> str:
        """Return the part's folder below the bundle's; empty if the bundle is not in parts."""
        return f"part-{part:03d}" if self.part_size else ""

    def list_part_files(self, part: int) -> dict[str, int]:
        """Return path and bytes of a part's own blobs, pieces and files."""
        found = {taken.path: taken.size for taken in self.files if taken.part == part}
        for blob in self.blobs:
            found.update({path: size for at, path, size in blob.locate_pieces() if at == part})
        return dict(sorted(found.items()))

    def count_part_bytes(self, part: int) -> int:
        """Return the bytes of `list_part_files`."""
        return sum(self.list_part_files(part).values())

    def build_index(self) -> bytes:
        """Return ``index.json``, with an entry for each name."""
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
        """Return ``part.json``; ``description`` is the bytes of ``bundle.json``."""
        note = {"part": part, "of": self.parts, "bundle": hashlib.sha256(description).hexdigest()}
        return _dump_compact(note).encode() + b"\n"

    def dumps(self) -> bytes:
        """Return the bytes of ``bundle.json``."""
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
        InvalidJson: it is damaged, or of a later format.
    """
    top = parse_json_object(data)
    if top.get_number("format") != FORMAT:
        raise InvalidJson(f"format {top.get_number('format')}: of a later kfdeploy")
    since = None
    if "since" in top:
        inner = top.get_object("since")
        since = DeltaBase(
            inner.get_text("lock", _SUM),
            {entry.get_text("name"): _get_digest(entry) for entry in inner.get_objects("images")},
            {
                _get_digest(entry): (entry.get_number("size"), entry.get_texts("in"))
                for entry in inner.get_objects("blobs")
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
                entry.get_text("name"),
                entry.get_texts("refs"),
                _get_digest(entry),
                entry.get_text("belongsTo", default=""),
                entry.get_text("pushTag", default=""),
            )
            for entry in top.get_objects("images")
        ),
        manifests=tuple(
            BundleManifest(
                _get_digest(entry), entry.get_number("size"), entry.get_text("mediaType")
            )
            for entry in top.get_objects("manifests")
        ),
        blobs=tuple(_parse_blob(entry, parts) for entry in top.get_objects("blobs")),
        files=tuple(
            BundleFile(
                _get_path(entry, "path"),
                entry.get_number("size"),
                entry.get_text("sha256", _SUM),
                _get_part(entry, parts),
                entry.get_flag("executable", default=False),
            )
            for entry in top.get_objects("files")
        ),
        since=since,
        wheels_for=top.get_texts("wheelsFor", default=()),
    )
    _check_consistency(found)
    return found


def parse_part_note(data: bytes, description: bytes) -> tuple[int, bool]:
    """Read ``part.json``.

    Returns:
        The part's number, and whether the part belongs to the bundle of this ``description``.

    Raises:
        InvalidJson: it is damaged.
    """
    note = parse_json_object(data)
    return note.get_number("part"), note.get_text("bundle") == hashlib.sha256(
        description
    ).hexdigest()


def blob_path(digest: str) -> str:
    """Return the path of a blob in an OCI layout."""
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def piece_path(digest: str, number: int) -> str:
    """Return the path of a piece: outside ``blobs/``, where tools would take it for the blob."""
    algorithm, _, value = digest.partition(":")
    return f"pieces/{algorithm}/{value}.{number:03d}"


def _check_consistency(bundle: Bundle) -> None:
    """Check that the lists of the description agree with each other."""
    for image in bundle.images:
        if image.digest not in bundle.manifest_by_digest:
            raise InvalidJson(f"images: {image.name}: manifests has no {image.digest}")
    for taken in bundle.files:
        if taken.path.partition("/")[0] not in EXTRA_FOLDERS or "/" not in taken.path:
            raise InvalidJson(f"files: {taken.path}: not below {', '.join(EXTRA_FOLDERS)}")
    paths = [taken.path for taken in bundle.files]
    digests = [blob.digest for blob in bundle.blobs] + [e.digest for e in bundle.manifests]
    if len(set(paths)) < len(paths) or len(set(digests)) < len(digests):
        raise InvalidJson("a path or digest is listed twice")


def _parse_blob(entry: JsonObject, parts: int) -> BundleBlob:
    size = entry.get_number("size")
    if "part" in entry:
        return BundleBlob(_get_digest(entry), size, ((_get_part(entry, parts), size),))
    pieces = tuple(
        (_get_part(piece, parts), piece.get_number("size")) for piece in entry.get_objects("pieces")
    )
    if len(pieces) < 2 or sum(piece for _, piece in pieces) != size:
        raise InvalidJson(f"{entry.where}.pieces: their sizes do not add up to {size} bytes")
    return BundleBlob(_get_digest(entry), size, pieces)


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
    """Write entry entry a line, so that people can read and compare the file."""
    return "[\n" + ",\n".join(map(_dump_compact, entries)) + "\n]" if entries else "[]"


def _get_part(entry: JsonObject, parts: int) -> int:
    number = entry.get_number("part")
    if not 1 <= number <= parts:
        raise entry.error("part", f"{number} is not a part: there are {parts}")
    return number


def _get_digest(entry: JsonObject) -> str:
    return entry.get_text("digest", DIGEST)


def _get_path(entry: JsonObject, key: str) -> str:
    path = entry.get_text(key)
    if not is_safe_path(path):
        raise entry.error(key, f"{path!r} is not a path below the bundle")
    return path
