"""A bundle that is read: its parts are checked.

What is wrong with a part costs that part alone, or the blob alone where a blob is missing or cut
off: everything that is whole can be used. A blob's content is hashed when it is read, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kfdeploy.bundle import checksums, part_files
from kfdeploy.bundle import manifest as model
from kfdeploy.bundle.manifest import Bundle, NoBundle, Placed
from kfdeploy.errors import UserError, raise_all
from kfdeploy.files import sha256
from kfdeploy.oci.manifest import Descriptor

_LISTS_MAX: Final = 64 << 20
_SIGNATURE_MAX: Final = 64 << 10

_IN_ALL: Final = (model.NAME, model.PART, model.LAYOUT, model.INDEX, model.LOCK)

Verify = Callable[[bytes, bytes], None]
"""Takes a part's ``SHA256SUMS`` and its signature; raises UserError when that is not good."""


@dataclass(frozen=True)
class Here:
    """A part that can be used.

    Attributes:
        absent: files of blobs that are missing or cut off.
    """

    folder: Path
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Found:
    """A bundle as far as it is here.

    Attributes:
        parts: number to part; those that are missing, or can't be used, are not there.
        problems: everything that is wrong, file by file.
        is_signed: whether each part has a signature.
    """

    bundle: Bundle
    parts: Mapping[int, Here]
    problems: tuple[UserError, ...] = ()
    is_signed: bool = False

    @property
    def missing(self) -> tuple[int, ...]:
        """Parts that are not here, or can't be used."""
        return tuple(n for n in range(1, self.bundle.parts + 1) if n not in self.parts)

    def files(self, digest: str) -> list[tuple[Path, int]]:
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
        for number, path, size in placed.paths():
            part = self.parts.get(number)
            if part is None:
                raise UserError(
                    f"{digest} is in part {number} of the bundle, which is not here",
                    hint=f"run the same command again with part {number}",
                )
            if path in part.absent:
                raise UserError(
                    f"{part.folder / path} is missing or cut off", hint=_again(self.bundle, number)
                )
            found.append((part.folder / path, size))
        return found

    def has(self, digest: str) -> bool:
        """Whether all of a blob is here."""
        blob = self.bundle.by_digest.get(digest)
        return blob is not None and not self._lacking(blob)

    def _lacking(self, blob: Placed) -> set[int]:
        return {
            number
            for number, path, _ in blob.paths()
            if number not in self.parts or path in self.parts[number].absent
        }

    def needs(self, blobs: Iterable[Descriptor]) -> tuple[int, ...]:
        """The parts that these blobs lie in and that are not here, or lack one of them."""
        placed = (self.bundle.by_digest.get(blob.digest) for blob in blobs)
        return tuple(sorted({n for blob in placed if blob for n in self._lacking(blob)}))

    def together(self, blobs: Iterable[Descriptor]) -> tuple[int, ...]:
        """The parts that those of these blobs lie in that are in pieces."""
        placed = (self.bundle.by_digest.get(blob.digest) for blob in blobs)
        split = (blob.pieces for blob in placed if blob and len(blob.pieces) > 1)
        return tuple(sorted({number for pieces in split for number, _ in pieces}))


def find(given: Sequence[Path]) -> list[Path]:
    """The parts' folders in folders that were named: a part itself, or a folder with parts.

    Raises:
        UserError: there is none in one of them.
    """
    found: list[Path] = []
    for folder in given:
        if not folder.is_dir():
            raise UserError(f"--from-bundle {folder}: no such folder")
        if any((folder / name).is_file() for name in (model.NAME, model.SUMS)):
            found.append(folder)
            continue
        within = [path for path in sorted(folder.iterdir()) if (path / model.NAME).is_file()]
        if not within:
            raise UserError(
                f"--from-bundle {folder}: has neither {model.NAME} nor folders that have one",
                hint="name a part of a bundle, or the folder that has its parts",
            )
        found += within
    return found


def check(
    folders: Sequence[Path],
    *,
    verify: Verify | None = None,
    whole: bool = False,
    each: Callable[[str, int, int], None] | None = None,
) -> Found:
    """Check the parts of one bundle.

    Args:
        verify: checks signatures, which each part must have then.
        whole: hash the blobs too.
        each: called with each file that is hashed, how many bytes are, and of how many.

    Raises:
        UserError: none of them can be used, or they are of different bundles.
    """
    own: dict[bytes, Path] = {}
    parts: dict[int, Here] = {}
    problems: list[UserError] = []
    is_signed = True
    found: Bundle | None = None
    for folder in folders:
        part = _Part(folder)
        try:
            number = part.read(verify)
        except _Unusable as unusable:
            problems += unusable.problems
            continue
        own.setdefault(part.own, folder)
        if len(own) > 1:
            first = next(iter(own.values()))
            raise UserError(
                f"{folder} is a part of another bundle than {first}",
                hint="name parts of one bundle; each says in bundle.json which lock it is of",
            )
        found = part.bundle
        damage = part.damage(number, whole, each)
        problems += damage.problems
        is_signed = is_signed and part.is_signed
        if damage.is_usable and number not in parts:
            parts[number] = Here(folder, frozenset(damage.absent))
    if found is None or not parts:
        raise_all(problems)
        raise AssertionError("a bundle without a part")
    return Found(found, parts, tuple(problems), is_signed)


class _Unusable(Exception):
    def __init__(self, *problems: UserError) -> None:
        super().__init__(*problems)
        self.problems = problems


@dataclass
class _Damage:
    problems: list[UserError] = field(default_factory=list)
    absent: set[str] = field(default_factory=set)
    is_usable: bool = True


class _Part:
    """One folder while it is checked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own = b""
        self.is_signed = False
        self._sums: dict[str, str] = {}

    def read(self, verify: Verify | None) -> int:
        """Read the lists; the signature before anything is believed. Returns the part's number."""
        if not (self.folder / model.SUMS).is_file():
            raise _Unusable(
                UserError(
                    f"{self.folder}: not finished: it has no {model.SUMS}",
                    hint="run the `kfdeploy mirror --to-bundle` that writes it again",
                )
            )
        text = self._bytes(model.SUMS, _LISTS_MAX)
        self.is_signed = (self.folder / model.SIGNATURE).is_file()
        if verify is not None:
            if not self.is_signed:
                raise _Unusable(
                    UserError(
                        f"{self.folder}: is not signed, and only a signed bundle is taken",
                        hint="`kfdeploy mirror --to-bundle ... --sign-key FILE` signs it",
                    )
                )
            try:
                verify(text, self._bytes(model.SIGNATURE, _SIGNATURE_MAX))
            except UserError as error:
                raise _Unusable(
                    UserError(f"{self.folder / model.SUMS}: {error.message}", hint=error.hint)
                ) from error
        try:
            self._sums = checksums.loads(text)
        except checksums.BadSums as error:
            raise self._bad(model.SUMS, str(error)) from error
        self.own = self._listed(model.NAME)
        try:
            self.bundle = model.loads(self.own)
        except NoBundle as error:
            raise self._bad(model.NAME, str(error)) from error
        try:
            number, is_own = model.part_number(self._listed(model.PART), self.own)
        except NoBundle as error:
            raise self._bad(model.PART, str(error)) from error
        if not is_own or not 1 <= number <= self.bundle.parts:
            raise self._bad(model.PART, "is a part of another bundle")
        return number

    def damage(
        self, number: int, whole: bool, each: Callable[[str, int, int], None] | None
    ) -> _Damage:
        """Compare the files with the lists."""
        result = _Damage()
        again = _again(self.bundle, number)
        content = self.bundle.content(number)
        taken = {one.path: one.sum for one in self.bundle.files if one.part == number}
        blobs = content.keys() - taken.keys()
        wanted: dict[str, int | None] = dict.fromkeys(_IN_ALL)
        wanted |= {entry.path: entry.size for entry in self.bundle.manifests}
        wanted |= content

        def wrong(path: str, what: str) -> None:
            if path in blobs:
                result.absent.add(path)
            else:
                result.is_usable = False
            result.problems.append(UserError(f"{self.folder / path}: {what}", hint=again))

        there, others = part_files.listed(self.folder)
        for path, what in others.items():
            wrong(path, f"{what}, and nothing of the bundle")
        for path in sorted(there.keys() - wanted.keys() - {model.SUMS, model.SIGNATURE}):
            wrong(path, "nothing of the bundle")
        for path in sorted(wanted.keys() ^ self._sums.keys()):
            wrong(model.SUMS if path in wanted else model.NAME, f"does not list {path}")
        if self._sums.get(model.LOCK, self.bundle.lock) != self.bundle.lock:
            wrong(model.LOCK, f"is not the lock that {model.NAME} names")
        total = sum(size for path, size in there.items() if whole or path not in blobs)
        hashed = 0
        for path, size in sorted(wanted.items()):
            if path not in there:
                if path not in others:
                    wrong(path, "missing")
                continue
            if size is not None and there[path] != size:
                wrong(path, f"has {there[path]} bytes instead of {size}")
            elif path not in self._sums:
                continue
            elif self._sums[path] != self._named(path, taken):
                wrong(path, f"{model.SUMS} and {model.NAME} say different sums")
            elif (whole or path not in blobs) and self._sum(path) != self._sums[path]:
                wrong(path, f"changed: it is not what {model.SUMS} says")
            if whole or path not in blobs:
                hashed += there[path]
                if each is not None:
                    each(path, hashed, total)
        return result

    def _named(self, path: str, taken: Mapping[str, str]) -> str:
        """The sum that a file is to have by its name or the description, where one says it."""
        if path.startswith("blobs/sha256/"):
            return path.rpartition("/")[2]
        return taken.get(path, self._sums[path])

    def _sum(self, path: str) -> str:
        try:
            return part_files.sum_of(self.folder / path)
        except OSError as error:
            return f"can't be read: {error.strerror}"

    def _bytes(self, name: str, most: int) -> bytes:
        try:
            return part_files.read(self.folder / name, most)
        except OSError as error:
            raise self._bad(name, (error.strerror or str(error)).lower()) from error

    def _listed(self, name: str) -> bytes:
        """A file that is believed only when it is what the sums say."""
        if not (self.folder / name).exists():
            raise self._bad(name, "missing")
        data = self._bytes(name, _LISTS_MAX)
        if self._sums.get(name) != sha256(data):
            raise self._bad(name, f"changed: it is not what {model.SUMS} says")
        return data

    def _bad(self, name: str, what: str) -> _Unusable:
        return _Unusable(UserError(f"{self.folder / name}: {what}", hint=_again(None, 0)))


def _again(bundle: Bundle | None, part: int) -> str:
    option = f" --part {part}" if bundle and bundle.part_size else ""
    return f"have this part written and carried again: `kfdeploy mirror --to-bundle DIR{option}`"
