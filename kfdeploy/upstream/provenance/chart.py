"""Find the template and the values line of a value that a chart rendered.

Helm only names the template of each object, in a comment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from kfdeploy.images.inventory import SourceLocation
from kfdeploy.kubernetes.objects import Object, ObjectKey, Path
from kfdeploy.oci.reference import ImageRef, InvalidImageRef

_SOURCE = re.compile(r"^# Source: [^/\s]+/(?P<path>\S+)$", re.MULTILINE)


class ChartIndex:
    """The files of one chart, to look up values in."""

    def __init__(
        self, root: FilePath, folder: str, values: Sequence[FilePath], objects: Sequence[Object]
    ) -> None:
        """
        Args:
            root: The folder that ``folder`` is relative to.
            folder: The chart.
            values: Values files besides the chart's own. The last one takes precedence.
            objects: The objects that Helm printed.
        """
        self.root = root
        self.folder = folder
        self.values = values
        self.templates = {
            item.key: match["path"]
            for item in objects
            if not item.is_crd and (match := _SOURCE.search(item.text))
        }

    def locate_value(
        self, key: ObjectKey, body: Any, path: Path, piece: str, *, at: int
    ) -> tuple[SourceLocation | None, tuple[SourceLocation, ...]]:
        """Return the line in the template, and the line in the values that filled it.

        Arguments and result are those of `ProvenanceIndex.locate_value`.
        """
        template = self.templates.get(key)
        if template is None:
            return None, ()
        name = f"{self.folder}/{template}"
        lines = _read_lines(self.root / name)
        for number, line in enumerate(lines, 1):
            if piece in line:
                return SourceLocation(name, number), ()
        return SourceLocation(name, _find_field_line(lines, path)), tuple(
            self._locate_in_values(piece)
        )

    def _locate_in_values(self, piece: str) -> list[SourceLocation]:
        files = [(path, path.name) for path in reversed(self.values)]
        files.append((self.root / self.folder / "values.yaml", f"{self.folder}/values.yaml"))
        try:
            parts = [piece, ImageRef.parse(piece).path]
        except InvalidImageRef:
            parts = [piece]
        for path, name in files:
            for part in parts:
                for number, line in enumerate(_read_lines(path), 1):
                    if part in line:
                        return [SourceLocation(name, number)]
        return []


def _find_field_line(lines: Sequence[str], path: Path) -> int:
    """Return the line of the field's key; of several, the first with a template action."""
    keys = [step for step in path if isinstance(step, str)]
    name = keys[-1] if keys else ""
    fits = [
        n for n, line in enumerate(lines, 1) if re.match(rf"\s*(?:- )?{re.escape(name)}:", line)
    ]
    filled = [n for n in fits if "{{" in lines[n - 1]]
    return (filled or fits or [1])[0]


def _read_lines(path: FilePath) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
