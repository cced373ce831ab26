"""Implement a `Destination` that writes a bundle: each part is an OCI image layout."""

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

from kfdeploy import checksums
from kfdeploy.bundle import manifest, part_files
from kfdeploy.bundle.manifest import Bundle, BundleFile
from kfdeploy.errors import UserError, raise_all
from kfdeploy.mirror.plan import MirrorItem
from kfdeploy.mirror.stores import BlobPieces, StoreFull
from kfdeploy.oci.manifest import Descriptor, ImageTree
from kfdeploy.wording import format_bytes

LAYOUT_TEXT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_PART_FOLDER: Final = re.compile(r"part-\d{3,4}")
_BLOCK: Final = 4096
_SUM_LINE: Final = 160
_COPY_BYTES: Final = 1 << 20

OpenFile = Callable[[], AbstractContextManager[BinaryIO]]
PartState = Literal["written", "present", "unfinished"]


@dataclass(frozen=True, slots=True)
class BundlePart:
    """The state of a part after `BundleWriter.finish_parts`.

    Attributes:
        size: bytes of its blobs and files, without manifests and lists.
        missing: number of files that it lacks; 0 unless it is unfinished.
    """

    number: int
    folder: Path
    size: int
    state: PartState
    missing: int = 0


class BundleWriter:
    """Writes a bundle; a `Destination` whose only place is the whole bundle.

    A part is finished if it has ``SHA256SUMS``. That file is removed first and written last, so an
    interrupted part never looks finished. The same holds for ``index.json``, which other tools
    read.
    """

    def __init__(
        self,
        root: Path,
        bundle: Bundle,
        *,
        manifests: Mapping[str, bytes],
        lock: bytes,
        files: Mapping[str, OpenFile],
        only: Iterable[int] = (),
        keep: bool = False,
    ) -> None:
        """Plan the files; nothing is written before `open_for_writing`.

        Args:
            manifests: the bytes of each manifest, by digest.
            lock: the bytes of ``images.lock``.
            files: a function that opens each of the other files, by path.
            only: numbers of the parts to write; empty for all.
            keep: remove no files and finish no part, as some images could not be read and what
                belongs to the bundle is not fully known.
        """
        self.root = root
        self.bundle = bundle
        self.parts = sorted(set(only)) or list(range(1, bundle.parts + 1))
        self._is_all = not only
        self._keep = keep
        self._files = files
        self._description = bundle.dumps()
        self._common = {
            manifest.BUNDLE_FILE: self._description,
            manifest.LAYOUT_FILE: LAYOUT_TEXT,
            manifest.LOCK_FILE: lock,
            **{manifest.blob_path(digest): manifests[digest] for digest in sorted(manifests)},
        }
        self._index = bundle.build_index()
        self._finished: frozenset[int] = frozenset()
        self.notes: list[str] = []

    def part_folder(self, part: int) -> Path:
        return self.root / self.bundle.part_folder(part)

    # -- as a destination --------------------------------------------------------------------------

    def get_host(self, item: MirrorItem) -> str:
        return str(self.root)

    def get_place(self, item: MirrorItem) -> str:
        return str(self.root)

    def has_blob(self, place: str, blob: Descriptor) -> bool:
        """Tell whether the blob is complete, or is not to be written by this run."""
        return all(
            part_files.has_file(path, size)
            for path, size in self._locate_targets(blob.digest)
            if path
        )

    def mount_blob(self, place: str, blob: Descriptor, other: str) -> str | None:
        return ""

    def put_blob(self, place: str, blob: Descriptor, pieces: BlobPieces, begun: str = "") -> None:
        targets = self._locate_targets(blob.digest)
        try:
            with ExitStack() as stack:
                part_files.spread_pieces(stack, pieces, targets, blob)
        except OSError as error:
            raise self._disk_error(error, targets) from error

    def seal_image(self, item: MirrorItem, tree: ImageTree) -> None:
        """Do nothing: the manifests were written at the beginning, and parts are sealed instead."""

    # -- before and after --------------------------------------------------------------------------

    @contextlib.contextmanager
    def open_for_writing(self) -> Iterator[BundleWriter]:
        """Lock the folder until the block ends, and write everything but the blobs.

        Raises:
            UserError: the folder has other files, another process is writing the bundle, or a disk
                has too little space.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._disk_error(error, []) from error
        with part_files.lock_folder(self.root):
            try:
                self._prepare_folders()
            except OSError as error:
                raise self._disk_error(error, []) from error
            yield self

    def finish_parts(self, sign: Callable[[bytes], bytes] | None = None) -> tuple[BundlePart, ...]:
        """Finish the parts that have all their files; call it within `open_for_writing`.

        Args:
            sign: returns a signature of a part's ``SHA256SUMS``.

        Raises:
            UserError: a disk can't be written, or a file has changed since it was planned.
        """
        return tuple(self._finish_part(part, sign) for part in self.parts)

    def is_finished(self) -> bool:
        """Tell whether all parts are finished, by names and sizes, without reading blobs."""
        return all(
            self._is_part_finished(n, self._list_files(self.part_folder(n))) for n in self.parts
        )

    def count_lacking_bytes(self) -> int:
        """Return the bytes that the parts lack."""
        return sum(size for part in self.parts for _, size in self._list_lacking(part))

    def _prepare_folders(self) -> None:
        there = {folder: self._list_files(folder) for folder in self._list_folders()}
        self._check_ownership(there)
        self._finished = frozenset(
            part
            for part in self.parts
            if self._is_part_finished(part, there[self.part_folder(part)])
        )
        todo = [part for part in self.parts if part not in self._finished]
        for part in todo:
            for name in (checksums.SUMS_FILE, manifest.SIGNATURE_FILE, manifest.INDEX_FILE):
                there[self.part_folder(part)].pop(name, None)
                (self.part_folder(part) / name).unlink(missing_ok=True)
            if self.part_folder(part).is_dir():
                part_files.sync_path(self.part_folder(part))
        self._move_existing_blobs(there, todo)
        self._remove_stale_files(there)
        self._check_free_space(todo)
        for part in todo:
            for name, data in (
                *self._common.items(),
                (manifest.PART_FILE, self._dump_part_note(part)),
            ):
                # Many small files: they are flushed to the disk together when the part is sealed.
                part_files.write_file(self.part_folder(part) / name, data, lasting=False)
            for taken in self.bundle.files:
                if taken.part == part:
                    self._copy_file(taken)

    def _dump_part_note(self, part: int) -> bytes:
        return self.bundle.dump_part_note(part, self._description)

    def _locate_targets(self, digest: str) -> list[tuple[Path | None, int]]:
        """Return the files of a blob with their bytes; None for a part that is not written now."""
        placed = self.bundle.by_digest.get(digest)
        return [
            (self.part_folder(part) / path if part in self.parts else None, size)
            for part, path, size in (placed.locate_pieces() if placed else ())
        ]

    def _expected_files(self, part: int) -> dict[str, int]:
        """Return path and bytes of all files of a part but its sums."""
        return {
            **{name: len(data) for name, data in self._common.items()},
            manifest.INDEX_FILE: len(self._index),
            manifest.PART_FILE: len(self._dump_part_note(part)),
            **self.bundle.list_part_files(part),
        }

    def _list_lacking(self, part: int) -> list[tuple[str, int]]:
        folder = self.part_folder(part)
        return [
            (path, size)
            for path, size in self._expected_files(part).items()
            if path != manifest.INDEX_FILE and not part_files.has_file(folder / path, size)
        ]

    # -- existing files ---------------------------------------------------------------------

    def _list_folders(self) -> list[Path]:
        """Return the parts' folders, and those of an earlier layout of the bundle."""
        found = [self.part_folder(part) for part in self.parts]
        if self._is_all and self.root.is_dir():
            within = sorted(path for path in self.root.iterdir() if _is_part_folder(path))
            found += [path for path in (self.root, *within) if path not in found]
        return found

    def _list_files(self, folder: Path) -> dict[str, int]:
        if not folder.is_dir():
            return {}
        files, others = part_files.list_files(folder)
        if folder == self.root:
            files = {p: s for p, s in files.items() if not _PART_FOLDER.match(p.partition("/")[0])}
            others = {
                p: w for p, w in others.items() if not _PART_FOLDER.match(p.partition("/")[0])
            }
        raise_all(
            [
                UserError(f"{folder / path}: {what}, not part of a bundle", hint="remove it")
                for path, what in others.items()
            ]
        )
        return files

    def _check_ownership(self, there: Mapping[Path, Mapping[str, int]]) -> None:
        """Refuse to write into a folder that has other files."""
        errors = []
        for folder, files in there.items():
            known = manifest.FILES | manifest.FOLDERS
            tops = {path.partition("/")[0] for path in files if not part_files.is_temporary(path)}
            errors += [
                UserError(
                    f"{folder / name}: not part of a bundle",
                    hint="name an empty folder or a bundle with --to-bundle",
                )
                for name in sorted(tops - known)
            ]
            if tops and manifest.BUNDLE_FILE not in files and not tops - known:
                errors.append(
                    UserError(
                        f"{folder}: not a bundle: it has {min(tops)} but no {manifest.BUNDLE_FILE}",
                        hint="name an empty folder or a bundle with --to-bundle",
                    )
                )
            elif (
                manifest.BUNDLE_FILE in files
                and part_files.read_file(folder / manifest.BUNDLE_FILE, 1 << 30)
                != self._description
            ):
                self.notes.append(f"{folder}: had another bundle; files of both are kept")
        raise_all(errors)

    def _is_part_finished(self, part: int, there: Mapping[str, int]) -> bool:
        folder = self.part_folder(part)
        files = {path: size for path, size in there.items() if path != manifest.SIGNATURE_FILE}
        return (
            files.pop(checksums.SUMS_FILE, None) is not None
            and files == self._expected_files(part)
            and part_files.read_file(folder / manifest.BUNDLE_FILE, 1 << 30) == self._description
        )

    def _move_existing_blobs(
        self, there: Mapping[Path, dict[str, int]], todo: Iterable[int]
    ) -> None:
        """Move blobs that are in the wrong part, if both parts are on one disk."""
        wanted_at = {self.part_folder(part): self._expected_files(part) for part in self.parts}
        for part in todo:
            folder = self.part_folder(part)
            for path, size in self.bundle.list_part_files(part).items():
                if there[folder].get(path) == size or not path.startswith(("blobs/", "pieces/")):
                    continue
                for other, files in there.items():
                    if files.get(path) == size and path not in wanted_at.get(other, {}):
                        (folder / path).parent.mkdir(parents=True, exist_ok=True)
                        with contextlib.suppress(OSError):  # another disk
                            (other / path).rename(folder / path)
                            there[folder][path] = files.pop(path)
                        break

    def _remove_stale_files(self, there: Mapping[Path, Mapping[str, int]]) -> None:
        """Remove files that do not belong to the bundle, or no longer do."""
        wanted_at = {self.part_folder(part): self._expected_files(part) for part in self.parts}
        for folder, files in there.items():
            wanted = {*wanted_at.get(folder, {}), checksums.SUMS_FILE, manifest.SIGNATURE_FILE}
            if folder not in wanted_at:
                wanted = set()
            for path in files:
                if path not in wanted and (part_files.is_temporary(path) or not self._keep):
                    (folder / path).unlink()
            for path in sorted({path.rpartition("/")[0] for path in files}, reverse=True):
                part_files.remove_empty_folders(folder, path)
            if folder not in wanted_at and folder != self.root:
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def _check_free_space(self, todo: Iterable[int]) -> None:
        """Check that the disks have enough space, before anything is fetched."""
        needed: dict[int, int] = {}
        free: dict[int, int] = {}
        places: dict[int, list[str]] = {}
        for part in todo:
            number, free[number] = part_files.find_device(self.part_folder(part))
            # The index and the sums, with a line for each file, are written last.
            last = [len(self._index), len(self._expected_files(part)) * _SUM_LINE]
            sizes = [*(size for _, size in self._list_lacking(part)), *last]
            needed[number] = needed.get(number, 0) + sum(-(-n // _BLOCK) * _BLOCK for n in sizes)
            places.setdefault(number, []).append(str(self.part_folder(part)))
        raise_all(
            [
                UserError(
                    f"{places[n][0]}{' and the parts after it' if places[n][1:] else ''}:"
                    f" {format_bytes(needed[n])} are to be written and the disk has"
                    f" {format_bytes(free[n])} free:"
                    f" {format_bytes(needed[n] - free[n])} are missing",
                    hint="make room, or write parts to several disks: --part-size and --part",
                )
                for n in needed
                if needed[n] > free[n]
            ]
        )

    # -- writing -----------------------------------------------------------------------------------

    def _copy_file(self, taken: BundleFile) -> None:
        path = self.part_folder(taken.part) / taken.path
        with contextlib.suppress(OSError):
            if path.stat().st_size == taken.size and part_files.hash_file(path) == taken.sha256:
                return
        total = hashlib.sha256()
        with (
            self._files[taken.path]() as source,
            part_files.stage_file(path, executable=taken.executable) as target,
        ):
            while piece := source.read(_COPY_BYTES):
                total.update(piece)
                target.write(piece)
            if total.hexdigest() != taken.sha256:
                raise UserError(
                    f"{taken.path}: changed while the bundle was written",
                    hint="run the same command again",
                )

    def _finish_part(self, part: int, sign: Callable[[bytes], bytes] | None) -> BundlePart:
        folder, size = self.part_folder(part), self.bundle.count_part_bytes(part)
        if part in self._finished:
            text = part_files.read_file(folder / checksums.SUMS_FILE, 1 << 30)
            if sign is not None:
                part_files.write_file(folder / manifest.SIGNATURE_FILE, sign(text))
            return BundlePart(part, folder, size, "present")
        missing = len(self._list_lacking(part))
        if missing or self._keep:
            return BundlePart(part, folder, size, "unfinished", missing)
        try:
            text = checksums.dump_checksums(self._compute_checksums(part))
            part_files.write_file(folder / manifest.INDEX_FILE, self._index)
            for name in (*self._common, manifest.PART_FILE):
                part_files.sync_path(folder / name)
            for name in sorted({name.rpartition("/")[0] for name in self._expected_files(part)}):
                part_files.sync_path(folder / name)
            if sign is not None:
                part_files.write_file(folder / manifest.SIGNATURE_FILE, sign(text))
            part_files.write_file(folder / checksums.SUMS_FILE, text)
            part_files.sync_path(folder)
        except OSError as error:
            raise self._disk_error(error, []) from error
        return BundlePart(part, folder, size, "written")

    def _compute_checksums(self, part: int) -> dict[str, str]:
        """Return the sum of each file by path; a blob's name is its sum if that is a sha256."""
        known = {taken.path: taken.sha256 for taken in self.bundle.files}
        for name, data in (
            *self._common.items(),
            (manifest.INDEX_FILE, self._index),
            (manifest.PART_FILE, self._dump_part_note(part)),
        ):
            known[name] = hashlib.sha256(data).hexdigest()
        found = {}
        for path in self._expected_files(part):
            if path.startswith("blobs/sha256/"):
                found[path] = path.rpartition("/")[2]
            else:
                found[path] = known.get(path) or part_files.hash_file(self.part_folder(part) / path)
        return found

    def _disk_error(self, error: OSError, targets: Iterable[tuple[Path | None, int]]) -> UserError:
        """Return the error for a failed write; for a full disk with the bytes that it lacks."""
        path = Path(error.filename) if error.filename else None
        folders = [self.part_folder(part) for part in self.parts]
        at = next((p for p, _ in targets if p), path or self.root)
        folder = next((f for f in folders if at.is_relative_to(f)), self.root)
        if error.errno == errno.EFBIG:
            return UserError(
                f"{folder}: its file system can't hold a file as large as one of the blobs",
                hint="FAT takes 4 GiB at most: use exFAT or ext4, or --part-size 4G",
            )
        if error.errno not in part_files.DISK_FULL_ERRORS:
            return UserError(f"{at}: can't be written: {(error.strerror or str(error)).lower()}")
        number, free = part_files.find_device(folder)
        lacking = sum(
            size
            for part in self.parts
            if part_files.find_device(self.part_folder(part))[0] == number
            for _, size in self._list_lacking(part)
        )
        return StoreFull(
            f"{folder}: the disk is full: {format_bytes(max(0, lacking - free))} more"
            " are needed for"
            f" what is still to be written, {format_bytes(lacking)}",
            hint="make room and run the same command again: what is there stays",
        )


def _is_part_folder(path: Path) -> bool:
    return bool(_PART_FOLDER.fullmatch(path.name)) and path.is_dir()
