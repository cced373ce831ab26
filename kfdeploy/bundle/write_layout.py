"""A bundle that is written: OCI image layouts, one a part, as the destination of a mirror."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal

from kfdeploy.bundle import checksums, part_files
from kfdeploy.bundle import manifest as model
from kfdeploy.bundle.manifest import Bundle, Taken
from kfdeploy.errors import UserError, raise_all
from kfdeploy.mirror.plan import Item, show_bytes
from kfdeploy.mirror.stores import Pieces, StoreFull
from kfdeploy.oci.manifest import Descriptor, Tree

LAYOUT_TEXT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_PART_FOLDER: Final = re.compile(r"part-\d{3,4}")
_BLOCK: Final = 4096
_SUM_LINE: Final = 160
_COPIED: Final = 1 << 20

Open = Callable[[], AbstractContextManager[BinaryIO]]
PartState = Literal["written", "present", "unfinished"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part as `Writer.finish` leaves it.

    Attributes:
        size: bytes of its blobs and files, without manifests and lists.
        missing: files that it lacks; none unless it is unfinished.
    """

    number: int
    folder: Path
    size: int
    state: PartState
    missing: int = 0


class Writer:
    """Writes a bundle; a `Destination`, whose only place is the bundle as a whole.

    A part is finished when it has its ``SHA256SUMS``: that is taken away first and written last,
    so that a part is never taken for whole that is not, whenever the writing ends. Other tools go
    by ``index.json``, which is there only with it.
    """

    def __init__(
        self,
        root: Path,
        bundle: Bundle,
        *,
        manifests: Mapping[str, bytes],
        lock: bytes,
        files: Mapping[str, Open],
        only: Iterable[int] = (),
        keep: bool = False,
    ) -> None:
        """Nothing is written before `opened`.

        Args:
            manifests: the bytes of each of the bundle's manifests.
            lock: ``images.lock``.
            files: what opens each of the bundle's files, by its path.
            only: the parts to write; all when empty.
            keep: leave what the bundle does not have, and finish no part: not all that belongs
                to the bundle is known.
        """
        self.root = root
        self.bundle = bundle
        self.parts = sorted(set(only)) or list(range(1, bundle.parts + 1))
        self._is_all = not only
        self._keep = keep
        self._files = files
        self._own = bundle.dumps()
        self._common = {
            model.NAME: self._own,
            model.LAYOUT: LAYOUT_TEXT,
            model.LOCK: lock,
            **{model.blob_path(digest): manifests[digest] for digest in sorted(manifests)},
        }
        self._index = bundle.index()
        self._finished: frozenset[int] = frozenset()
        self.notes: list[str] = []

    def folder(self, part: int) -> Path:
        return self.root / self.bundle.folder(part)

    # -- as a destination --------------------------------------------------------------------------

    def host(self, item: Item) -> str:
        return str(self.root)

    def place(self, item: Item) -> str:
        return str(self.root)

    def has(self, place: str, blob: Descriptor) -> bool:
        """Also for a blob that a part is to have which is not being written, or no part."""
        return all(part_files.has(path, size) for path, size in self._targets(blob.digest) if path)

    def mount(self, place: str, blob: Descriptor, other: str) -> str | None:
        return ""

    def put(self, place: str, blob: Descriptor, pieces: Pieces, begun: str = "") -> None:
        targets = self._targets(blob.digest)
        try:
            with ExitStack() as stack:
                part_files.spread(stack, pieces, targets, blob)
        except OSError as error:
            raise self._no_room(error, targets) from error

    def seal(self, item: Item, tree: Tree) -> None:
        """Nothing: manifests were written at the beginning, and it is parts that are sealed."""

    # -- before and after --------------------------------------------------------------------------

    @contextlib.contextmanager
    def opened(self) -> Iterator[Writer]:
        """Get everything ready; nobody else writes the bundle until the block ends.

        Raises:
            UserError: the folder is another's, somebody writes it now, or a disk has not the room.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._no_room(error, []) from error
        with part_files.locked(self.root):
            try:
                self._start()
            except OSError as error:
                raise self._no_room(error, []) from error
            yield self

    def finish(self, sign: Callable[[bytes], bytes] | None = None) -> tuple[Part, ...]:
        """Finish the parts that have all they are to have; to be called within `opened`.

        Args:
            sign: makes a signature of a part's ``SHA256SUMS``.

        Raises:
            UserError: a disk can't be written, or a file has changed since it was planned.
        """
        return tuple(self._finish(part, sign) for part in self.parts)

    def is_finished(self) -> bool:
        """Whether all parts are there, as far as can be told without reading blobs."""
        return all(self._is_finished(n, self._listed(self.folder(n))) for n in self.parts)

    def lacking(self) -> int:
        """Bytes that the parts lack."""
        return sum(size for part in self.parts for _, size in self._lacking(part))

    def _start(self) -> None:
        there = {folder: self._listed(folder) for folder in self._folders()}
        self._must_be_ours(there)
        self._finished = frozenset(
            part for part in self.parts if self._is_finished(part, there[self.folder(part)])
        )
        todo = [part for part in self.parts if part not in self._finished]
        for part in todo:
            for name in (model.SUMS, model.SIGNATURE, model.INDEX):
                there[self.folder(part)].pop(name, None)
                (self.folder(part) / name).unlink(missing_ok=True)
            if self.folder(part).is_dir():
                part_files.sync(self.folder(part))
        self._take_over(there, todo)
        self._tidy(there)
        self._must_fit(todo)
        for part in todo:
            for name, data in (*self._common.items(), (model.PART, self._note(part))):
                # Many and small: they are had on the disk when the part is sealed.
                part_files.write(self.folder(part) / name, data, lasting=False)
            for taken in self.bundle.files:
                if taken.part == part:
                    self._copy(taken)

    def _note(self, part: int) -> bytes:
        return self.bundle.part_note(part, self._own)

    def _targets(self, digest: str) -> list[tuple[Path | None, int]]:
        """Files of a blob, in its order, and bytes of each; None for parts that are not written."""
        placed = self.bundle.by_digest.get(digest)
        return [
            (self.folder(part) / path if part in self.parts else None, size)
            for part, path, size in (placed.paths() if placed else ())
        ]

    def _wanted(self, part: int) -> dict[str, int]:
        """All files of a part, without its sums: path to bytes."""
        return {
            **{name: len(data) for name, data in self._common.items()},
            model.INDEX: len(self._index),
            model.PART: len(self._note(part)),
            **self.bundle.content(part),
        }

    def _lacking(self, part: int) -> list[tuple[str, int]]:
        folder = self.folder(part)
        return [
            (path, size)
            for path, size in self._wanted(part).items()
            if path != model.INDEX and not part_files.has(folder / path, size)
        ]

    # -- what is there already ---------------------------------------------------------------------

    def _folders(self) -> list[Path]:
        """The parts' folders, and those that were parts when the bundle had another layout."""
        found = [self.folder(part) for part in self.parts]
        if self._is_all and self.root.is_dir():
            within = sorted(path for path in self.root.iterdir() if _is_part_folder(path))
            found += [path for path in (self.root, *within) if path not in found]
        return found

    def _listed(self, folder: Path) -> dict[str, int]:
        if not folder.is_dir():
            return {}
        files, others = part_files.listed(folder)
        if folder == self.root:
            files = {p: s for p, s in files.items() if not _PART_FOLDER.match(p.partition("/")[0])}
            others = {
                p: w for p, w in others.items() if not _PART_FOLDER.match(p.partition("/")[0])
            }
        raise_all(
            [
                UserError(f"{folder / path}: {what}, and nothing of a bundle", hint="take it away")
                for path, what in others.items()
            ]
        )
        return files

    def _must_be_ours(self, there: Mapping[Path, Mapping[str, int]]) -> None:
        """Refuse to write among what somebody else keeps."""
        errors = []
        for folder, files in there.items():
            known = model.FILES | model.FOLDERS
            tops = {path.partition("/")[0] for path in files if not part_files.is_temporary(path)}
            errors += [
                UserError(
                    f"{folder / name}: is nothing of a bundle",
                    hint="name an empty folder, or a bundle's, by --to-bundle",
                )
                for name in sorted(tops - known)
            ]
            if tops and model.NAME not in files and not tops - known:
                errors.append(
                    UserError(
                        f"{folder}: has {min(tops)} and no {model.NAME}: it is no bundle",
                        hint="name an empty folder, or a bundle's, by --to-bundle",
                    )
                )
            elif model.NAME in files and part_files.read(folder / model.NAME, 1 << 30) != self._own:
                self.notes.append(f"{folder}: was another bundle; what both have stays")
        raise_all(errors)

    def _is_finished(self, part: int, there: Mapping[str, int]) -> bool:
        folder = self.folder(part)
        files = {path: size for path, size in there.items() if path != model.SIGNATURE}
        return (
            files.pop(model.SUMS, None) is not None
            and files == self._wanted(part)
            and part_files.read(folder / model.NAME, 1 << 30) == self._own
        )

    def _take_over(self, there: Mapping[Path, dict[str, int]], todo: Iterable[int]) -> None:
        """Move blobs that lie in another part than they are to, as far as one disk has both."""
        wanted_at = {self.folder(part): self._wanted(part) for part in self.parts}
        for part in todo:
            folder = self.folder(part)
            for path, size in self.bundle.content(part).items():
                if there[folder].get(path) == size or not path.startswith(("blobs/", "pieces/")):
                    continue
                for other, files in there.items():
                    if files.get(path) == size and path not in wanted_at.get(other, {}):
                        (folder / path).parent.mkdir(parents=True, exist_ok=True)
                        with contextlib.suppress(OSError):  # another disk
                            (other / path).rename(folder / path)
                            there[folder][path] = files.pop(path)
                        break

    def _tidy(self, there: Mapping[Path, Mapping[str, int]]) -> None:
        """Take away what is not, or no longer, of the bundle."""
        wanted_at = {self.folder(part): self._wanted(part) for part in self.parts}
        for folder, files in there.items():
            wanted = {*wanted_at.get(folder, {}), model.SUMS, model.SIGNATURE}
            if folder not in wanted_at:
                wanted = set()
            for path in files:
                if path not in wanted and (part_files.is_temporary(path) or not self._keep):
                    (folder / path).unlink()
            for path in sorted({path.rpartition("/")[0] for path in files}, reverse=True):
                part_files.remove_empty(folder, path)
            if folder not in wanted_at and folder != self.root:
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def _must_fit(self, todo: Iterable[int]) -> None:
        """Whether the disks have the room, before anything is fetched."""
        needed: dict[int, int] = {}
        free: dict[int, int] = {}
        places: dict[int, list[str]] = {}
        for part in todo:
            number, free[number] = part_files.device(self.folder(part))
            # And what comes last: the index, and the sums with a line for each file.
            last = [len(self._index), len(self._wanted(part)) * _SUM_LINE]
            sizes = [*(size for _, size in self._lacking(part)), *last]
            needed[number] = needed.get(number, 0) + sum(-(-n // _BLOCK) * _BLOCK for n in sizes)
            places.setdefault(number, []).append(str(self.folder(part)))
        raise_all(
            [
                UserError(
                    f"{places[n][0]}{' and the parts after it' if places[n][1:] else ''}:"
                    f" {show_bytes(needed[n])} are to be written and the disk has"
                    f" {show_bytes(free[n])} free: {show_bytes(needed[n] - free[n])} are missing",
                    hint="make room, or write parts to several disks: --part-size and --part",
                )
                for n in needed
                if needed[n] > free[n]
            ]
        )

    # -- writing -----------------------------------------------------------------------------------

    def _copy(self, taken: Taken) -> None:
        path = self.folder(taken.part) / taken.path
        with contextlib.suppress(OSError):
            if path.stat().st_size == taken.size and part_files.sum_of(path) == taken.sum:
                return
        total = hashlib.sha256()
        with (
            self._files[taken.path]() as source,
            part_files.staged(path, executable=taken.executable) as target,
        ):
            while piece := source.read(_COPIED):
                total.update(piece)
                target.write(piece)
            if total.hexdigest() != taken.sum:
                raise UserError(
                    f"{taken.path}: changed while the bundle was written",
                    hint="run the same command again",
                )

    def _finish(self, part: int, sign: Callable[[bytes], bytes] | None) -> Part:
        folder, size = self.folder(part), self.bundle.size(part)
        if part in self._finished:
            text = part_files.read(folder / model.SUMS, 1 << 30)
            if sign is not None:
                part_files.write(folder / model.SIGNATURE, sign(text))
            return Part(part, folder, size, "present")
        missing = len(self._lacking(part))
        if missing or self._keep:
            return Part(part, folder, size, "unfinished", missing)
        try:
            text = checksums.dumps(self._sums(part))
            part_files.write(folder / model.INDEX, self._index)
            for name in (*self._common, model.PART):
                part_files.sync(folder / name)
            for name in sorted({name.rpartition("/")[0] for name in self._wanted(part)}):
                part_files.sync(folder / name)
            if sign is not None:
                part_files.write(folder / model.SIGNATURE, sign(text))
            part_files.write(folder / model.SUMS, text)
            part_files.sync(folder)
        except OSError as error:
            raise self._no_room(error, []) from error
        return Part(part, folder, size, "written")

    def _sums(self, part: int) -> dict[str, str]:
        """The sum of each file; of blobs it is their name, unless that is another algorithm's."""
        known = {taken.path: taken.sum for taken in self.bundle.files}
        for name, data in (
            *self._common.items(),
            (model.INDEX, self._index),
            (model.PART, self._note(part)),
        ):
            known[name] = hashlib.sha256(data).hexdigest()
        found = {}
        for path in self._wanted(part):
            if path.startswith("blobs/sha256/"):
                found[path] = path.rpartition("/")[2]
            else:
                found[path] = known.get(path) or part_files.sum_of(self.folder(part) / path)
        return found

    def _no_room(self, error: OSError, targets: Iterable[tuple[Path | None, int]]) -> UserError:
        """The error of a disk, with how much it lacks where it is full."""
        path = Path(error.filename) if error.filename else None
        folders = [self.folder(part) for part in self.parts]
        at = next((p for p, _ in targets if p), path or self.root)
        folder = next((f for f in folders if at.is_relative_to(f)), self.root)
        if error.errno == errno.EFBIG:
            return UserError(
                f"{folder}: its file system can't hold a file as large as one of the blobs",
                hint="FAT takes 4 GiB at most: use exFAT or ext4, or --part-size 4G",
            )
        if error.errno not in part_files.FULL:
            return UserError(f"{at}: can't be written: {(error.strerror or str(error)).lower()}")
        number, free = part_files.device(folder)
        lacking = sum(
            size
            for part in self.parts
            if part_files.device(self.folder(part))[0] == number
            for _, size in self._lacking(part)
        )
        return StoreFull(
            f"{folder}: the disk is full: {show_bytes(max(0, lacking - free))} more are needed for"
            f" what is still to be written, {show_bytes(lacking)}",
            hint="make room and run the same command again: what is there stays",
        )


def _is_part_folder(path: Path) -> bool:
    return bool(_PART_FOLDER.fullmatch(path.name)) and path.is_dir()
