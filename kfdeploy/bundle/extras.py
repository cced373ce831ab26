"""Collect the files of a bundle besides images: workspace, wheels of kfdeploy, programs."""

from __future__ import annotations

import contextlib
import io
import shutil
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from kfdeploy.bundle import part_files, wheels
from kfdeploy.bundle.manifest import BundleFile
from kfdeploy.bundle.wheels import Wheel
from kfdeploy.errors import UserError
from kfdeploy.files import is_safe_path, sha256_hex

PROGRAMS: Final = ("helm", "helmfile", "kustomize", "kubectl")
"""The programs that the far side needs: `apply` calls helm, helmfile and kubectl."""
_WORKSPACE_FILES: Final = (
    "kfdeploy.yaml",
    "kfdeploy.schema.json",
    "images.lock",
    "images.sources.yaml",
    "upstream.lock",
    "helmfile.yaml.gotmpl",
    "catalogue",
    "patches",
)
_PT_INTERP: Final = 3

OpenFile = Callable[[], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class BundleExtra:
    """A file of the bundle, and a function that opens its content."""

    taken: BundleFile
    open: OpenFile


def collect_workspace(
    root: Path, sets: Sequence[Path], more: Iterable[str] = ()
) -> list[BundleExtra]:
    """Collect the files of the workspace that are needed where there is no upstream.

    Args:
        sets: folders of release sets.
        more: files that kfdeploy.yaml names, such as a CA; paths outside the workspace are left
            out.

    Raises:
        UserError: a path is a link, or neither a plain file nor a folder.
    """
    found: dict[str, BundleExtra] = {}
    places = {f"workspace/{name}": root / name for name in _WORKSPACE_FILES}
    places |= {f"workspace/releases/{path.name}": path for path in sets}
    for name in more:
        inside = Path(name)
        if not inside.is_absolute() and ".." not in inside.parts:
            places[f"workspace/{inside.as_posix()}"] = root / inside
    for target, path in places.items():
        if path.is_symlink():
            raise _not_plain_file(path)
        if path.is_dir():
            files, others = part_files.list_files(path)
            for name in others:
                raise _not_plain_file(path / name)
            found |= {
                f"{target}/{name}": _build_extra(f"{target}/{name}", path / name) for name in files
            }
        elif path.exists():
            found[target] = _build_extra(target, path)
    return [found[name] for name in sorted(found)]


def collect_wheels() -> list[BundleExtra]:
    """Collect the wheels of kfdeploy and of its requirements.

    Raises:
        UserError: see `wheels.list_installed`.
    """
    found = []
    for wheel in wheels.list_installed():
        data = wheel.build()
        taken = BundleFile(f"wheels/{wheel.name}", len(data), sha256_hex(data))
        found.append(BundleExtra(taken, _wheel_opener(wheel)))
    return found


def collect_programs(names: Sequence[str] = PROGRAMS) -> tuple[list[BundleExtra], list[str]]:
    """Collect programs from PATH, with notes about those that are missing or not self-contained."""
    found, notes = [], []
    for name in names:
        location = shutil.which(name)
        if location is None:
            notes.append(f"{name} is not on PATH: it is not in the bundle")
            continue
        path = Path(location).resolve()
        if needs := _describe_needs(path):
            notes.append(f"{name} {needs}")
        extra = _build_extra(f"programs/{name}", path)
        found.append(replace(extra, taken=replace(extra.taken, executable=True)))
    return found, notes


def _build_extra(target: str, path: Path) -> BundleExtra:
    if not is_safe_path(target):
        raise UserError(f"{path}: a bundle can't hold a file of this name", hint="rename the file")
    try:
        size, total = path.stat().st_size, part_files.hash_file(path)
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    return BundleExtra(BundleFile(target, size, total), lambda: part_files.open_plain_file(path))


def _not_plain_file(path: Path) -> UserError:
    return UserError(
        f"{path}: a bundle can't hold a link or special file",
        hint="replace it by a copy of the file",
    )


def _wheel_opener(wheel: Wheel) -> OpenFile:
    return lambda: contextlib.closing(io.BytesIO(wheel.build()))


def _describe_needs(path: Path) -> str:
    """Return what a program needs of its machine besides the kernel; or empty."""
    try:
        with part_files.open_plain_file(path) as stream:
            head = stream.read(64)
            if not head.startswith(b"\x7fELF"):
                return "is a script: the programs that it calls are not in the bundle"
            if head[4:6] != b"\x02\x01":  # 64 bits, little-endian
                return ""
            (table,) = struct.unpack_from("<Q", head, 32)
            size, count = struct.unpack_from("<HH", head, 54)
            stream.seek(table)
            entries = stream.read(size * count)
            kinds = [struct.unpack_from("<I", entries, n * size)[0] for n in range(count)]
    except (OSError, struct.error):
        return ""
    if _PT_INTERP in kinds:
        return "is linked to libraries of this machine: the far side must have them too"
    return ""
