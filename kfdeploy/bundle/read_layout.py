"""Check the parts of a bundle before it is read.

A damaged list or file makes its part unusable; a missing or truncated blob only that blob. All the
rest can be used. The content of a blob is hashed when it is read, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kfdeploy import checksums
from kfdeploy.bundle import manifest, part_files
from kfdeploy.bundle.manifest import Bundle, BundleBlob
from kfdeploy.errors import UserError, raise_all
from kfdeploy.files import sha256_hex
from kfdeploy.json_object import InvalidJson
from kfdeploy.oci.manifest import Descriptor

_LISTS_MAX: Final = 64 << 20
_SIGNATURE_MAX: Final = 64 << 10

_IN_ALL: Final = (
    manifest.BUNDLE_FILE,
    manifest.PART_FILE,
    manifest.LAYOUT_FILE,
    manifest.INDEX_FILE,
    manifest.LOCK_FILE,
)

VerifySignature = Callable[[bytes, bytes], None]
"""Takes a part's ``SHA256SUMS`` and its signature; raises UserError if it is not valid."""


@dataclass(frozen=True)
class AvailablePart:
    """A part that can be used.

    Attributes:
        absent: files of blobs that are missing or truncated.
    """

    folder: Path
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class AvailableBundle:
    """A bundle with the parts that can be used.

    Attributes:
        parts: the usable parts by number.
        problems: an error for each damaged file.
        is_signed: whether every part has a signature.
    """

    bundle: Bundle
    parts: Mapping[int, AvailablePart]
    problems: tuple[UserError, ...] = ()
    is_signed: bool = False

    @property
    def missing(self) -> tuple[int, ...]:
        """Return the numbers of the parts that are absent or can't be used."""
        return tuple(n for n in range(1, self.bundle.parts + 1) if n not in self.parts)

    def locate_files(self, digest: str) -> list[tuple[Path, int]]:
        """Return the files of a blob in the order of its content, with the bytes of each.

        Raises:
            UserError: a file is absent; the message names its part.
        """
        placed = self.bundle.by_digest.get(digest)
        if placed is None:
            if digest in self.bundle.expected:
                places = ", ".join(self.bundle.expected[digest])
                raise UserError(
                    f"{digest} is not in the bundle, which builds on an older lock: the private"
                    f" registry must have it ({places})",
                    hint="import the older bundle first, or write a bundle without --since",
                )
            raise UserError(f"the bundle has no blob {digest}")
        found = []
        for number, path, size in placed.locate_pieces():
            part = self.parts.get(number)
            if part is None:
                raise UserError(
                    f"{digest} is in part {number} of the bundle, which is not here",
                    hint=f"run the same command again with part {number}",
                )
            if path in part.absent:
                raise UserError(
                    f"{part.folder / path} is missing or cut off",
                    hint=_rewrite_hint(self.bundle, number),
                )
            found.append((part.folder / path, size))
        return found

    def has_blob(self, digest: str) -> bool:
        """Tell whether all pieces of a blob are here."""
        blob = self.bundle.by_digest.get(digest)
        return blob is not None and not self._lacking_parts(blob)

    def _lacking_parts(self, blob: BundleBlob) -> set[int]:
        return {
            number
            for number, path, _ in blob.locate_pieces()
            if number not in self.parts or path in self.parts[number].absent
        }

    def list_needed_parts(self, blobs: Iterable[Descriptor]) -> tuple[int, ...]:
        """Return the parts that these blobs need and that are absent or lack one of them."""
        placed = (self.bundle.by_digest.get(blob.digest) for blob in blobs)
        return tuple(sorted({n for blob in placed if blob for n in self._lacking_parts(blob)}))

    def list_split_parts(self, blobs: Iterable[Descriptor]) -> tuple[int, ...]:
        """Return the parts that have pieces of those blobs that are split."""
        placed = (self.bundle.by_digest.get(blob.digest) for blob in blobs)
        split = (blob.pieces for blob in placed if blob and len(blob.pieces) > 1)
        return tuple(sorted({number for pieces in split for number, _ in pieces}))


def find_parts(folders: Sequence[Path]) -> list[Path]:
    """Return the folders of parts; each argument is a part, or a folder that has parts.

    Raises:
        UserError: a folder does not exist or has no part.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--from-bundle {folder}: no such folder")
        if any((folder / name).is_file() for name in (manifest.BUNDLE_FILE, checksums.SUMS_FILE)):
            found.append(folder)
            continue
        within = [
            path for path in sorted(folder.iterdir()) if (path / manifest.BUNDLE_FILE).is_file()
        ]
        if not within:
            raise UserError(
                f"--from-bundle {folder}: has neither {manifest.BUNDLE_FILE} nor folders"
                " that have one",
                hint="name a part of a bundle, or the folder that has its parts",
            )
        found += within
    return found


def check_parts(
    folders: Sequence[Path],
    *,
    verify: VerifySignature | None = None,
    hash_blobs: bool = False,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> AvailableBundle:
    """Check the parts of one bundle.

    Args:
        verify: checks signatures; each part must be signed then.
        hash_blobs: hash the blobs too.
        on_progress: called for each hashed file with its path, the bytes hashed so far, and the
            bytes in all.

    Raises:
        UserError: no part can be used, or they belong to different bundles.
    """
    own: dict[bytes, Path] = {}
    parts: dict[int, AvailablePart] = {}
    problems: list[UserError] = []
    is_signed = True
    found: Bundle | None = None
    for folder in folders:
        part = _PartCheck(folder)
        try:
            number = part.read_lists(verify)
        except _UnusablePart as unusable:
            problems += unusable.problems
            continue
        own.setdefault(part.description, folder)
        if len(own) > 1:
            first = next(iter(own.values()))
            raise UserError(
                f"{folder} is a part of another bundle than {first}",
                hint="name parts of one bundle; `lock` in bundle.json says which lock a part is of",
            )
        found = part.bundle
        damage = part.find_damage(number, hash_blobs, on_progress)
        problems += damage.problems
        is_signed = is_signed and part.is_signed
        if damage.is_usable and number not in parts:
            parts[number] = AvailablePart(folder, frozenset(damage.absent))
    if found is None or not parts:
        raise_all(problems)
        raise AssertionError("a bundle without a part")
    return AvailableBundle(found, parts, tuple(problems), is_signed)


class _UnusablePart(Exception):
    def __init__(self, *problems: UserError) -> None:
        super().__init__(*problems)
        self.problems = problems


@dataclass
class _PartDamage:
    """What is wrong with a part.

    Attributes:
        blobs: paths of its blobs; damage to any other file makes the part unusable.
    """

    folder: Path
    blobs: Set[str]
    hint: str
    problems: list[UserError] = field(default_factory=list)
    absent: set[str] = field(default_factory=set)
    is_usable: bool = True

    def add(self, path: str, problem: str) -> None:
        if path in self.blobs:
            self.absent.add(path)
        else:
            self.is_usable = False
        self.problems.append(UserError(f"{self.folder / path}: {problem}", hint=self.hint))


class _PartCheck:
    """The check of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.description = b""
        self.is_signed = False
        self._sums: dict[str, str] = {}

    def read_lists(self, verify: VerifySignature | None) -> int:
        """Read the lists, after the check of their signature; return the part's number."""
        if not (self.folder / checksums.SUMS_FILE).is_file():
            raise _UnusablePart(
                UserError(
                    f"{self.folder}: not finished: it has no {checksums.SUMS_FILE}",
                    hint="run the `kfdeploy mirror --to-bundle` command that writes it again",
                )
            )
        text = self._read_file(checksums.SUMS_FILE, _LISTS_MAX)
        self.is_signed = (self.folder / manifest.SIGNATURE_FILE).is_file()
        if verify is not None:
            if not self.is_signed:
                raise _UnusablePart(
                    UserError(
                        f"{self.folder}: is not signed, and only a signed bundle is taken",
                        hint="`kfdeploy mirror --to-bundle ... --sign-key FILE` signs it",
                    )
                )
            try:
                verify(text, self._read_file(manifest.SIGNATURE_FILE, _SIGNATURE_MAX))
            except UserError as error:
                raise _UnusablePart(
                    UserError(
                        f"{self.folder / checksums.SUMS_FILE}: {error.message}", hint=error.hint
                    )
                ) from error
        try:
            self._sums = checksums.parse_checksums(text)
        except checksums.InvalidChecksums as error:
            raise self._unusable_file(checksums.SUMS_FILE, str(error)) from error
        self.description = self._read_listed_file(manifest.BUNDLE_FILE)
        try:
            self.bundle = manifest.loads(self.description)
        except InvalidJson as error:
            raise self._unusable_file(manifest.BUNDLE_FILE, str(error)) from error
        try:
            number, is_own = manifest.parse_part_note(
                self._read_listed_file(manifest.PART_FILE), self.description
            )
        except InvalidJson as error:
            raise self._unusable_file(manifest.PART_FILE, str(error)) from error
        if not is_own or not 1 <= number <= self.bundle.parts:
            raise self._unusable_file(manifest.PART_FILE, "is a part of another bundle")
        return number

    def find_damage(
        self, number: int, hash_blobs: bool, on_progress: Callable[[str, int, int], None] | None
    ) -> _PartDamage:
        """Compare the files with the lists."""
        content = self.bundle.list_part_files(number)
        own_sums = {file.path: file.sha256 for file in self.bundle.files if file.part == number}
        wanted: dict[str, int | None] = dict.fromkeys(_IN_ALL)
        wanted |= {entry.path: entry.size for entry in self.bundle.manifests}
        wanted |= content
        damage = _PartDamage(
            self.folder, content.keys() - own_sums.keys(), _rewrite_hint(self.bundle, number)
        )
        sizes, others = part_files.list_files(self.folder)
        for path, kind in others.items():
            damage.add(path, f"{kind}, and nothing of the bundle")
        lists = {checksums.SUMS_FILE, manifest.SIGNATURE_FILE}
        for path in sorted(sizes.keys() - wanted.keys() - lists):
            damage.add(path, "nothing of the bundle")
        self._compare_lists(wanted.keys(), damage)

        unhashed = frozenset() if hash_blobs else damage.blobs
        total = sum(size for path, size in sizes.items() if path not in unhashed)
        hashed = 0
        for path in sorted(wanted.keys() - others.keys()):
            found, size = sizes.get(path), wanted[path]
            if found is None:
                damage.add(path, "missing")
                continue
            if size is not None and found != size:
                damage.add(path, f"has {found} bytes instead of {size}")
            elif path not in self._sums:
                continue
            elif problem := self._check_sum(path, own_sums, with_content=path not in unhashed):
                damage.add(path, problem)
            if path not in unhashed:
                hashed += found
                if on_progress is not None:
                    on_progress(path, hashed, total)
        return damage

    def _compare_lists(self, wanted: Set[str], damage: _PartDamage) -> None:
        """Add what the sums and the description do not agree about."""
        for path in sorted(wanted ^ self._sums.keys()):
            damage.add(
                checksums.SUMS_FILE if path in wanted else manifest.BUNDLE_FILE,
                f"does not list {path}",
            )
        if self._sums.get(manifest.LOCK_FILE, self.bundle.lock) != self.bundle.lock:
            damage.add(manifest.LOCK_FILE, f"is not the lock that {manifest.BUNDLE_FILE} names")

    def _check_sum(self, path: str, own_sums: Mapping[str, str], *, with_content: bool) -> str:
        """Return what is wrong with the sum of a file; empty if nothing is."""
        if self._sums[path] != self._expected_checksum(path, own_sums):
            return f"{checksums.SUMS_FILE} and {manifest.BUNDLE_FILE} say different sums"
        if with_content and self._hash_file(path) != self._sums[path]:
            return f"changed: it is not what {checksums.SUMS_FILE} says"
        return ""

    def _expected_checksum(self, path: str, own_sums: Mapping[str, str]) -> str:
        """Return the sum by the file's name or the description, if one of them says it."""
        if path.startswith("blobs/sha256/"):
            return path.rpartition("/")[2]
        return own_sums.get(path, self._sums[path])

    def _hash_file(self, path: str) -> str:
        try:
            return part_files.hash_file(self.folder / path)
        except OSError as error:
            return f"can't be read: {error.strerror}"

    def _read_file(self, name: str, max_bytes: int) -> bytes:
        try:
            return part_files.read_file(self.folder / name, max_bytes)
        except OSError as error:
            raise self._unusable_file(name, (error.strerror or str(error)).lower()) from error

    def _read_listed_file(self, name: str) -> bytes:
        """Read a file and check it against the sums."""
        if not (self.folder / name).exists():
            raise self._unusable_file(name, "missing")
        data = self._read_file(name, _LISTS_MAX)
        if self._sums.get(name) != sha256_hex(data):
            raise self._unusable_file(name, f"changed: it is not what {checksums.SUMS_FILE} says")
        return data

    def _unusable_file(self, name: str, what: str) -> _UnusablePart:
        return _UnusablePart(
            UserError(f"{self.folder / name}: {what}", hint=_rewrite_hint(None, 0))
        )


def _rewrite_hint(bundle: Bundle | None, part: int) -> str:
    option = f" --part {part}" if bundle and bundle.part_size else ""
    return f"write this part again and bring it: `kfdeploy mirror --to-bundle DIR{option}`"
