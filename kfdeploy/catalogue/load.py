"""Read the catalogue's files: YAML, one for each component, checked by the models in `records`.

Whatever needs the models is imported when a file is read: with everything in the cache, commands
read none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from kfdeploy.errors import UserError, raise_all
from kfdeploy.files import read_text, sha256_hex
from kfdeploy.yamltext.mistakes import describe_mistakes

if TYPE_CHECKING:
    from kfdeploy.catalogue.facts import Catalogue
    from kfdeploy.catalogue.records import CatalogueEntry

FOLDER = Path(__file__).parent / "data"
_HINT = "see docs/catalogue.md, or `kfdeploy schema --catalogue`"
_MESSAGES = {"string_type": "must be a string, not {input!r}; put a number in quotes"}


class CatalogueLoader:
    """The catalogue of a workspace, read when something asks for it."""

    def __init__(self, own: Path | None = None, folder: Path = FOLDER) -> None:
        """Read a site's own folder; its entries come first and so decide.

        Raises:
            UserError: every mistake in the site's own files.
        """
        self._folder = folder
        paths = sorted(own.glob("*.yaml")) if own is not None and own.is_dir() else []
        self._texts = [(f"{path.parent.name}/{path.name}", read_text(path)) for path in paths]
        self._own = _parse_entries(self._texts)
        self._lock = threading.Lock()
        self._catalogue: Catalogue | None = None

    @property
    def own_digest(self) -> str:
        """Return a SHA-256 of the site's own files; empty if there are none."""
        parts = [part for name_and_text in self._texts for part in name_and_text]
        return sha256_hex("\0".join(parts).encode()) if parts else ""

    def load(self) -> Catalogue:
        """Return all entries, the site's own first.

        Raises:
            UserError: every mistake in the files of the other folder.
        """
        from kfdeploy.catalogue.facts import Catalogue

        with self._lock:
            if self._catalogue is None:
                self._catalogue = Catalogue((*self._own, *load_catalogue(self._folder).entries))
            return self._catalogue


@lru_cache(maxsize=4)
def load_catalogue(folder: Path = FOLDER) -> Catalogue:
    """Return all entries of a folder.

    Raises:
        UserError: every mistake in its files, each with file, line and key.
    """
    from kfdeploy.catalogue.facts import Catalogue

    return Catalogue(
        _parse_entries((path.name, read_text(path)) for path in sorted(folder.glob("*.yaml")))
    )


def _parse_entries(files: Iterable[tuple[str, str]]) -> tuple[CatalogueEntry, ...]:
    """Return the entries of files, given as names and texts."""
    entries: list[CatalogueEntry] = []
    errors: list[UserError] = []
    for name, text in files:
        try:
            entries.append(parse_entry(name, text))
        except UserError as error:
            errors.append(error)
    raise_all(errors)
    return tuple(entries)


def parse_entry(file: str, text: str) -> CatalogueEntry:
    """Return the entry in a file's text.

    Raises:
        UserError: every mistake in it, each with file, line and key.
    """
    from pydantic import ValidationError

    from kfdeploy.catalogue.records import CatalogueEntry

    try:
        return CatalogueEntry.model_validate(YAML(typ="safe").load(text), context=file)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{file}:{line}: broken YAML: {error.problem}") from error
    except ValidationError as error:
        node = YAML(typ="safe").compose(text)
        raise_all(describe_mistakes(file, node, error.errors(), messages=_MESSAGES, hint=_HINT))
        raise
