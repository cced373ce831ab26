"""Exported files beside those that a folder has."""

from __future__ import annotations

from pathlib import Path

from kfdeploy.export.format import MARK, ExportedFiles
from kfdeploy.files import read_bytes


def join_files(made: ExportedFiles) -> str:
    """Return the files as one text; where there are several, each below a line with its name."""
    if len(made.files) == 1:
        return next(iter(made.files.values()))
    return "\n".join(f"# {name}\n{content}" for name, content in made.files.items())


def plan_changes(made: ExportedFiles, folder: Path) -> tuple[dict[str, str], list[str]]:
    """Compare exported files with a folder.

    Returns:
        The files to write with their text, and the names of earlier ones to remove. A file
        without the mark of an export is never removed, whatever its name.
    """
    fresh = {
        name: content
        for name, content in made.files.items()
        if not (folder / name).is_file() or read_bytes(folder / name) != content.encode()
    }
    stale = [
        path.relative_to(folder).as_posix()
        for pattern in made.patterns
        for path in sorted(folder.glob(pattern))
        if path.is_file() and read_bytes(path).startswith(f"# {MARK}".encode())
    ]
    return fresh, [name for name in stale if name not in made.files]
