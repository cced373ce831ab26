"""Keep results in `.kfdeploy/cache` under keys made of what they were computed from.

A key is a checksum of all inputs: the bytes of every file read, files looked for and absent,
options, the versions of programs, and kfdeploy's own; never a time stamp. The folder may be deleted
at any moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

_ABSENT = "absent"


@dataclass
class Cache:
    """A folder of entries. Without a folder nothing is kept."""

    folder: Path | None
    _sums: dict[str, str] = field(default_factory=dict)

    def get(self, key: str) -> bytes | None:
        """Return the entry under a key; None where there is none, or it is damaged."""
        if self.folder is None:
            return None
        try:
            return zlib.decompress((self.folder / key[:2] / key).read_bytes())
        except (OSError, zlib.error):
            return None

    def has(self, key: str) -> bool:
        return self.folder is not None and (self.folder / key[:2] / key).is_file()

    def put(self, key: str, data: bytes) -> None:
        """Keep an entry. If the disk is full or read-only, it is only computed again."""
        if self.folder is not None:
            self._write_entry(self.folder / key[:2] / key, zlib.compress(data, 1))

    def _write_entry(self, path: Path, data: bytes) -> None:
        """Write an entry whole or not at all, without waiting for the disk as `files` does.

        What a power failure leaves of an entry does not decompress, and counts as none.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def get_json(self, key: str) -> Any:
        data = self.get(key)
        return None if data is None else json.loads(data)

    def put_json(self, key: str, value: Any) -> None:
        self.put(key, json.dumps(value, separators=(",", ":")).encode())

    def hash_file(self, path: Path | str) -> str:
        """Return a file's SHA-256 in hex, or ``absent``; each file is read once in a run."""
        name = os.fspath(path)
        found = self._sums.get(name)
        if found is None:
            try:
                # Unbuffered: all of it is wanted at once, of many hundred files.
                with open(name, "rb", buffering=0) as file:  # noqa: PTH123
                    found = hashlib.sha256(file.read()).hexdigest()
            except OSError:
                found = _ABSENT
            self._sums[name] = found
        return found

    def get_or_compute(
        self,
        name: str,
        options: Iterable[str],
        root: Path,
        compute: Callable[[], tuple[Iterable[str], bytes]],
    ) -> tuple[str, Callable[[], bytes]]:
        """Return a result that depends on files which are only known after it is computed.

        The list of files of the last time is kept under ``name``. When each of them has the same
        content again, or is absent again, the result is the same.

        Args:
            name: what is computed, such as a component's folder.
            options: everything else that the result depends on.
            root: what the files are relative to.
            compute: returns the files it read or looked for, and the result.

        Returns:
            The result's key, and a function that loads the result.
        """
        head = make_cache_key("files", name, *options, _hash_program())
        known = self.get_json(head)
        if known is not None:
            key = self._make_content_key(head, root, known)
            if self.has(key):
                return key, lambda: self.get(key) or compute()[1]
        read, fresh = compute()
        listed = sorted(set(read))
        key = self._make_content_key(head, root, listed)
        self.put_json(head, listed)
        self.put(key, fresh)
        return key, lambda: fresh

    def _make_content_key(self, head: str, root: Path, listed: Sequence[str]) -> str:
        above = os.fspath(root)
        sums = (self.hash_file(os.path.join(above, path)) for path in listed)  # noqa: PTH118
        return make_cache_key(
            head, *(f"{digest} {path}" for digest, path in zip(sums, listed, strict=True))
        )


def make_cache_key(*parts: str | bytes | Mapping[str, Any]) -> str:
    """Return one checksum of all parts; their ends can't be confused."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Mapping):
            part = json.dumps(part, sort_keys=True)
        data = part.encode() if isinstance(part, str) else part
        total.update(b"%d:" % len(data))
        total.update(data)
    return total.hexdigest()


@lru_cache(maxsize=1)
def _hash_program() -> str:
    """Return a checksum of kfdeploy's own code and catalogue: another kfdeploy, another cache."""
    here = Path(__file__).parent
    total = hashlib.sha256()
    for path in sorted(here.rglob("*")):
        if path.suffix in (".py", ".yaml", ".j2", ".gotmpl") and path.is_file():
            total.update(path.relative_to(here).as_posix().encode())
            total.update(path.read_bytes())
    return total.hexdigest()


def program_digest() -> str:
    """Return the checksum of kfdeploy's own code, for keys that are made elsewhere."""
    return _hash_program()
