"""What a bundle takes along besides images: the workspace, kfdeploy itself, outside programs."""

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
"""What the far side calls: `apply` the first two and kubectl, people the others."""
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
    """A file that is taken along, and how it is read."""

    taken: BundleFile
    open: OpenFile


def collect_workspace(
    root: Path, sets: Sequence[Path], more: Iterable[str] = ()
) -> list[BundleExtra]:
    """The workspace as far as it is needed where there is no upstream.

    Args:
        sets: release sets' folders.
        more: files that kfdeploy.yaml names, such as a CA; what is not in the workspace is left.

    Raises:
        UserError: something is a link, or no plain file.
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
    """kfdeploy's wheel, and those that it needs.

    Raises:
        UserError: see `wheels.installed`.
    """
    found = []
    for wheel in wheels.list_installed():
        data = wheel.build()
        taken = BundleFile(f"wheels/{wheel.name}", len(data), sha256_hex(data))
        found.append(BundleExtra(taken, _wheel_opener(wheel)))
    return found


def collect_programs(names: Sequence[str] = PROGRAMS) -> tuple[list[BundleExtra], list[str]]:
    """Outside programs, from PATH; and notes about those that are missing or need more."""
    found, notes = [], []
    for name in names:
        where = shutil.which(name)
        if where is None:
            notes.append(f"{name} is not on PATH here: the bundle goes without it")
            continue
        path = Path(where).resolve()
        if needs := _describe_needs(path):
            notes.append(f"{name} {needs}")
        along = _build_extra(f"programs/{name}", path)
        found.append(replace(along, taken=replace(along.taken, executable=True)))
    return found, notes


def _build_extra(target: str, path: Path) -> BundleExtra:
    if not is_safe_path(target):
        raise UserError(f"{path}: a name like this can't be in a bundle", hint="give it another")
    try:
        size, total = path.stat().st_size, part_files.hash_file(path)
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    return BundleExtra(BundleFile(target, size, total), lambda: part_files.open_plain_file(path))


def _not_plain_file(path: Path) -> UserError:
    return UserError(
        f"{path}: a link, or no plain file: it can't be in a bundle", hint="put a copy in its place"
    )


def _wheel_opener(wheel: Wheel) -> OpenFile:
    return lambda: contextlib.closing(io.BytesIO(wheel.build()))


def _describe_needs(path: Path) -> str:
    """What a program needs of the machine that it runs on, besides a kernel; or empty."""
    try:
        with part_files.open_plain_file(path) as stream:
            head = stream.read(64)
            if not head.startswith(b"\x7fELF"):
                return "is a script: what it calls is not in the bundle"
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
        return "needs libraries of this machine: the other side must have the same"
    return ""
