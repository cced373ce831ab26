"""Compare generated files with those on disk, and find people's own files beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kfdeploy.files import read_text
from kfdeploy.patchfile import patch_file


@dataclass(frozen=True)
class Drift:
    """The files that writing would change, and edited ones that it would leave.

    All are paths relative to the workspace, sorted.
    """

    new: tuple[str, ...]
    changed: tuple[str, ...]
    stale: tuple[str, ...]
    edited: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether every generated file is on disk as it would be written."""
        return not (self.new or self.changed or self.stale or self.edited)

    def format_lines(self) -> Iterator[str]:
        """Return what writing would do, one line for each file."""
        for state in ("new", "changed", "stale"):
            yield from (f"{state}: {name}" for name in getattr(self, state))


def find_drift(root: Path, generated: Mapping[str, str]) -> Drift:
    """Return what writing the generated files would change; people's own files do not count.

    Args:
        root: the workspace.
        generated: relative path to text.
    """
    found: dict[str, list[str]] = {"new": [], "changed": [], "stale": [], "edited": []}
    for name, text in generated.items():
        path = root / name
        if not path.exists():
            found["new"].append(name)
            continue
        on_disk = read_text(path)
        if patch_file.is_edited(on_disk) or not patch_file.is_generated(on_disk):
            found["edited"].append(name)
        elif on_disk != text:
            found["changed"].append(name)
    for name, text in _read_generated_files(root):
        if name not in generated:
            found["edited" if patch_file.is_edited(text) else "stale"].append(name)
    return Drift(**{state: tuple(sorted(names)) for state, names in found.items()})


def own_files(root: Path, component: str) -> tuple[str, ...]:
    """Return the names of people's patch files of a component: those not written by kfdeploy."""
    folder = root / "patches" / component
    if not folder.is_dir():
        return ()
    return tuple(
        path.name
        for path in sorted(folder.iterdir())
        if path.name.endswith(patch_file.SUFFIXES)
        and path.is_file()
        and not patch_file.is_generated(read_text(path))
    )


def _read_generated_files(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the relative path and text of each generated file below ``patches/``."""
    folder = root / "patches"
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and path.suffix in (".gotmpl", ".yaml", ".yml"):
            text = read_text(path)
            if patch_file.is_generated(text):
                yield path.relative_to(root).as_posix(), text
