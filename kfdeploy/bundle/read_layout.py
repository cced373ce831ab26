"""A bundle that is read: its parts are checked.

What is wrong with a part costs that part alone, or the blob alone where a blob is missing or cut
off: everything that is whole can be used. A blob's content is hashed when it is read, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kfdeploy import checksums
from kfdeploy.bundle import manifest as model
from kfdeploy.bundle import part_files
from kfdeploy.bundle.manifest import Bundle, BundleBlob
from kfdeploy.errors import UserError, raise_all
from kfdeploy.files import sha256_hex
from kfdeploy.json_object import InvalidJson
from kfdeploy.oci.manifest import Descriptor

_LISTS_MAX: Final = 64 << 20
_SIGNATURE_MAX: Final = 64 << 10

_IN_ALL: Final = (
    model.BUNDLE_FILE,
    model.PART_FILE,
    model.LAYOUT_FILE,
    model.INDEX_FILE,
    model.LOCK_FILE,
)

VerifySignature = Callable[[bytes, bytes], None]
"""Takes a part's ``SHA256SUMS`` and its signature; raises UserError when that is not good."""


@dataclass(frozen=True)
class AvailablePart:
    """A part that can be used.

    Attributes:
        absent: files of blobs that are missing or cut off.
    """

    folder: Path
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class AvailableBundle:
    """A bundle as far as it is here.

    Attributes:
        parts: number to part; those that are missing, or can't be used, are not there.
        problems: everything that is wrong, file by file.
        is_signed: whether each part has a signature.
    """

    bundle: Bundle
    parts: Mapping[int, AvailablePart]
    problems: tuple[UserError, ...] = ()
    is_signed: bool = False

    @property
    def missing(self) -> tuple[int, ...]:
        """Parts that are not here, or can't be used."""
        return tuple(n for n in range(1, self.bundle.parts + 1) if n not in self.parts)

    def locate_files(self, digest: str) -> list[tuple[Path, int]]:
        """The files of a blob, in its order, and bytes of each.

        Raises:
            UserError: one is not here; it says which part has it.
        """
        placed = self.bundle.by_digest.get(digest)
        if placed is None:
            if digest in self.bundle.expected:
                places = ", ".join(self.bundle.expected[digest])
                raise UserError(
                    f"{digest} is not in the bundle: it builds on an older lock, and expects the"
                    f" private registry to have it ({places})",
                    hint="import the older bundle first, or make one without --since",
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
        """Whether all of a blob is here."""
        blob = self.bundle.by_digest.get(digest)
        return blob is not None and not self._lacking_parts(blob)

    def _lacking_parts(self, blob: BundleBlob) -> set[int]:
        return {
            number
            for number, path, _ in blob.locate_pieces()
            if number not in self.parts or path in self.parts[number].absent
        }

    def list_needed_parts(self, blobs: Iterable[Descriptor]) -> tuple[int, ...]:
        """The parts that these blobs lie in and that are not here, or lack one of them."""
        placed = (self.bundle.by_digest.get(blob.digest) for blob in blobs)
        return tuple(sorted({n for blob in placed if blob for n in self._lacking_parts(blob)}))

    def list_split_parts(self, blobs: Iterable[Descriptor]) -> tuple[int, ...]:
        """The parts that those of these blobs lie in that are in pieces."""
        placed = (self.bundle.by_digest.get(blob.digest) for blob in blobs)
        split = (blob.pieces for blob in placed if blob and len(blob.pieces) > 1)
        return tuple(sorted({number for pieces in split for number, _ in pieces}))


def find_parts(folders: Sequence[Path]) -> list[Path]:
    """The parts' folders in folders that were named: a part itself, or a folder with parts.

    Raises:
        UserError: there is none in one of them.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--from-bundle {folder}: no such folder")
        if any((folder / name).is_file() for name in (model.BUNDLE_FILE, checksums.SUMS_FILE)):
            found.append(folder)
            continue
        within = [path for path in sorted(folder.iterdir()) if (path / model.BUNDLE_FILE).is_file()]
        if not within:
            raise UserError(
                f"--from-bundle {folder}: has neither {model.BUNDLE_FILE} nor folders"
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
        verify: checks signatures, which each part must have then.
        whole: hash the blobs too.
        each: called with each file that is hashed, how many bytes are, and of how many.

    Raises:
        UserError: none of them can be used, or they are of different bundles.
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
                hint="name parts of one bundle; each says in bundle.json which lock it is of",
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
    problems: list[UserError] = field(default_factory=list)
    absent: set[str] = field(default_factory=set)
    is_usable: bool = True


class _PartCheck:
    """One folder while it is checked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.description = b""
        self.is_signed = False
        self._sums: dict[str, str] = {}

    def read_lists(self, verify: VerifySignature | None) -> int:
        """Read the lists; the signature before anything is believed. Returns the part's number."""
        if not (self.folder / checksums.SUMS_FILE).is_file():
            raise _UnusablePart(
                UserError(
                    f"{self.folder}: not finished: it has no {checksums.SUMS_FILE}",
                    hint="run the `kfdeploy mirror --to-bundle` that writes it again",
                )
            )
        text = self._read_file(checksums.SUMS_FILE, _LISTS_MAX)
        self.is_signed = (self.folder / model.SIGNATURE_FILE).is_file()
        if verify is not None:
            if not self.is_signed:
                raise _UnusablePart(
                    UserError(
                        f"{self.folder}: is not signed, and only a signed bundle is taken",
                        hint="`kfdeploy mirror --to-bundle ... --sign-key FILE` signs it",
                    )
                )
            try:
                verify(text, self._read_file(model.SIGNATURE_FILE, _SIGNATURE_MAX))
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
        self.description = self._read_listed_file(model.BUNDLE_FILE)
        try:
            self.bundle = model.loads(self.description)
        except InvalidJson as error:
            raise self._unusable_file(model.BUNDLE_FILE, str(error)) from error
        try:
            number, is_own = model.parse_part_note(
                self._read_listed_file(model.PART_FILE), self.description
            )
        except InvalidJson as error:
            raise self._unusable_file(model.PART_FILE, str(error)) from error
        if not is_own or not 1 <= number <= self.bundle.parts:
            raise self._unusable_file(model.PART_FILE, "is a part of another bundle")
        return number

    def find_damage(
        self, number: int, hash_blobs: bool, on_progress: Callable[[str, int, int], None] | None
    ) -> _PartDamage:
        """Compare the files with the lists."""
        result = _PartDamage()
        again = _rewrite_hint(self.bundle, number)
        content = self.bundle.list_part_files(number)
        taken = {one.path: one.sha256 for one in self.bundle.files if one.part == number}
        blobs = content.keys() - taken.keys()
        wanted: dict[str, int | None] = dict.fromkeys(_IN_ALL)
        wanted |= {entry.path: entry.size for entry in self.bundle.manifests}
        wanted |= content

        def add_problem(path: str, what: str) -> None:
            if path in blobs:
                result.absent.add(path)
            else:
                result.is_usable = False
            result.problems.append(UserError(f"{self.folder / path}: {what}", hint=again))

        there, others = part_files.list_files(self.folder)
        for path, what in others.items():
            add_problem(path, f"{what}, and nothing of the bundle")
        for path in sorted(
            there.keys() - wanted.keys() - {checksums.SUMS_FILE, model.SIGNATURE_FILE}
        ):
            add_problem(path, "nothing of the bundle")
        for path in sorted(wanted.keys() ^ self._sums.keys()):
            add_problem(
                checksums.SUMS_FILE if path in wanted else model.BUNDLE_FILE,
                f"does not list {path}",
            )
        if self._sums.get(model.LOCK_FILE, self.bundle.lock) != self.bundle.lock:
            add_problem(model.LOCK_FILE, f"is not the lock that {model.BUNDLE_FILE} names")
        total = sum(size for path, size in there.items() if hash_blobs or path not in blobs)
        hashed = 0
        for path, size in sorted(wanted.items()):
            if path not in there:
                if path not in others:
                    add_problem(path, "missing")
                continue
            if size is not None and there[path] != size:
                add_problem(path, f"has {there[path]} bytes instead of {size}")
            elif path not in self._sums:
                continue
            elif self._sums[path] != self._expected_checksum(path, taken):
                add_problem(
                    path, f"{checksums.SUMS_FILE} and {model.BUNDLE_FILE} say different sums"
                )
            elif (hash_blobs or path not in blobs) and self._hash_file(path) != self._sums[path]:
                add_problem(path, f"changed: it is not what {checksums.SUMS_FILE} says")
            if hash_blobs or path not in blobs:
                hashed += there[path]
                if on_progress is not None:
                    on_progress(path, hashed, total)
        return result

    def _expected_checksum(self, path: str, taken: Mapping[str, str]) -> str:
        """The sum that a file is to have by its name or the description, where one says it."""
        if path.startswith("blobs/sha256/"):
            return path.rpartition("/")[2]
        return taken.get(path, self._sums[path])

    def _hash_file(self, path: str) -> str:
        try:
            return part_files.hash_file(self.folder / path)
        except OSError as error:
            return f"can't be read: {error.strerror}"

    def _read_file(self, name: str, most: int) -> bytes:
        try:
            return part_files.read_file(self.folder / name, most)
        except OSError as error:
            raise self._unusable_file(name, (error.strerror or str(error)).lower()) from error

    def _read_listed_file(self, name: str) -> bytes:
        """A file that is believed only when it is what the sums say."""
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
    return f"have this part written and carried again: `kfdeploy mirror --to-bundle DIR{option}`"
