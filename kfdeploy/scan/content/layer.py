"""Hold what was found in a layer, and tell which of it is visible in the whole image."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from kfdeploy.scan.content.candidate import Candidate

WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"
_SKIPPED: Final = re.compile(
    r"(?:^|/)(?:usr/(?:local/)?share/(?:doc|man|info|licenses|locale|zoneinfo|i18n|help|icons|fonts)"
    r"|var/(?:lib/(?:dpkg|apt|rpm|pacman|yum|dnf)|cache|log)|lib/apk/db|usr/lib/sysimage|proc|sys"
    r"|dev|third_party/licenses|licenses|LICENSES"
    r"|__pycache__|__tests__|__snapshots__|tests?|testdata|fixtures|\.git|\.github|\.circleci"
    r"|(?:site-packages|dist-packages|node_modules)/(?:.*/)?(?:docs?|examples?|testing)"
    r"|[^/]+\.(?:dist|egg)-info)/"
    r"|(?:^|/)(?:CHANGELOG|CHANGES|HISTORY|NEWS|README|LICEN[CS]E|NOTICE|COPYING|AUTHORS)[^/]*$"
    r"|(?:_test\.go|\.(?:spec|test)\.[jt]sx?|(?:^|/)(?:test_[^/]*|[^/]*_test|conftest)\.py)$",
    re.IGNORECASE,
)
"""Documentation, licences, tests, and the records of package managers."""
_ENDING_WORDS: Final = """
md markdown rst adoc txt map mo po pot png jpg jpeg gif ico bmp webp svg ttf otf woff woff2 eot
mp3 mp4 webm ogg wav avi mov pdf ps gz bz2 xz zst zip jar war whl tgz tar rpm deb apk pyc pyo so
a o lib dll dylib class pb npy npz h5 onnx pt pth bin dat db sqlite sqlite3 parquet cubin fatbin
ptx h hpp hxx css scss less pem crt cer key der gpg asc sum typed pxd
"""
_ENDINGS: Final = frozenset(_ENDING_WORDS.split())
"""Endings of media, archives, libraries, models and headers: they hold no defaults of programs."""
_VERSIONED_LIBRARY: Final = re.compile(r"\.so(?:\.\d+)+$")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def is_skipped(path: str) -> bool:
    """Return whether a file is skipped because of its path."""
    base = path.rpartition("/")[2]
    ending = base.rpartition(".")[2].lower() if "." in base else ""
    return (
        ending in _ENDINGS
        or bool(_SKIPPED.search(path))
        or (".so." in base and bool(_VERSIONED_LIBRARY.search(base)))
    )


def escape_path(path: str) -> str:
    """Return a name from an archive with control characters escaped, safe to print."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", path)


@dataclass(frozen=True, slots=True)
class LocatedCandidate:
    """A candidate in a file.

    Attributes:
        path: the file's path in the image or the checkout.
        line: the line in a text; 0 in a program.
        offset: the offset in a program; 0 in a text.
        key: the variable, flag or field whose value it is.
        names: flags and variables near it.
        how: the kind of file: ``program``, ``go program``, ``manifest`` or a text's language.
    """

    candidate: Candidate
    path: str
    line: int = 0
    offset: int = 0
    key: str = ""
    names: tuple[str, ...] = ()
    how: str = ""

    @property
    def location(self) -> str:
        return f"{escape_path(self.path)}:{self.line}" if self.line else escape_path(self.path)


@dataclass(slots=True)
class LayerScan:
    """The candidates in a layer, and the files it deletes from the layers below it.

    Attributes:
        digest: the digest in the manifest; empty in older archives of a daemon.
        actual_digest: the digest of the bytes that were read.
        paths: hashes of the paths of all members: eight bytes each.
        whiteouts: paths that it deletes.
        opaque: folders whose content in lower layers it deletes.
        kept: bytes of memory that all this takes, roughly.
        damage: why its content is wrong or incomplete; empty if it is fine.
        trusted: whether its candidates count. They do not if its digest is wrong.
        inflated_bytes: its size when inflated, as far as it was read.
        files: the number of files in it.
    """

    digest: str
    actual_digest: str = ""
    candidates: list[LocatedCandidate] = field(default_factory=list)
    paths: array[int] = field(default_factory=lambda: array("q"))
    whiteouts: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    damage: str = ""
    trusted: bool = True
    kept: int = 0
    inflated_bytes: int = 0
    files: int = 0

    def add_member(self, path: str) -> bool:
        """Add a member. Return whether it is an ordinary one, not a whiteout."""
        folder, _, base = path.rpartition("/")
        if not base.startswith(WHITEOUT):
            self.paths.append(hash(path))
            self.kept += 8
            return True
        if base == OPAQUE:
            self.opaque.add(folder)
        else:
            self.whiteouts.add(f"{folder}/{base.removeprefix(WHITEOUT)}".lstrip("/"))
        self.kept += 200 + 4 * len(path)
        return False

    def add_candidate(self, find: LocatedCandidate) -> None:
        """Add a candidate."""
        self.candidates.append(find)
        self.kept += 1000 + 4 * len(find.path)

    def deletes_path(self, path: str) -> bool:
        """Return whether one of its whiteouts deletes a file of a lower layer."""
        if path in self.whiteouts or "" in self.opaque:
            return True
        return any(
            folder in self.whiteouts or folder in self.opaque for folder in _parent_folders(path)
        )


def _parent_folders(path: str) -> Iterator[str]:
    at = path.rfind("/")
    while at > 0:
        yield path[:at]
        at = path.rfind("/", 0, at)


def visible_candidates(layers: Sequence[LayerScan]) -> Iterator[tuple[LayerScan, LocatedCandidate]]:
    """Yield the candidates in files that a container would see, from the lowest layer up."""
    wanted = {hash(find.path) for layer in layers for find in layer.candidates}
    # Go through the paths of each layer once only: there may be millions.
    replaced = [wanted.intersection(layer.paths) for layer in layers]
    for index, layer in enumerate(layers):
        above = range(index + 1, len(layers))
        for find in layer.candidates if layer.trusted else ():
            path_hash = hash(find.path)
            if not any(
                path_hash in replaced[other] or layers[other].deletes_path(find.path)
                for other in above
            ):
                yield layer, find


def normalize_path(path: str) -> str:
    """Return a member's path from the image's root, without empty, ``.`` and ``..`` elements."""
    if "//" not in path and "./" not in path and ".." not in path:
        return path.rstrip("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def best_candidates(finds: Iterable[LocatedCandidate]) -> list[LocatedCandidate]:
    """Return the candidate with the highest score for each reference in each file, in order."""
    kept: dict[tuple[str, str], LocatedCandidate] = {}
    for find in finds:
        key = (find.candidate.ref, find.path)
        if key not in kept or find.candidate.score > kept[key].candidate.score:
            kept[key] = find
    return list(kept.values())
