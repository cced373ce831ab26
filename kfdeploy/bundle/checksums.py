"""``SHA256SUMS`` as ``sha256sum -c`` reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from kfdeploy.bundle.manifest import is_safe_path

_LINE: Final = re.compile(r"([0-9a-f]{64})  (.+)")


class InvalidChecksums(ValueError):
    """Text that is no list of sums; the message says where."""


def dumps(sums: Mapping[str, str]) -> bytes:
    """Path to hex digest, sorted by path."""
    return "".join(f"{total}  {path}\n" for path, total in sorted(sums.items())).encode()


def loads(data: bytes) -> dict[str, str]:
    """Path to hex digest.

    Raises:
        BadSums: a line that is none, a path out of the folder, or one that is there twice.
    """
    found: dict[str, str] = {}
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidChecksums(f"byte {error.start}: not UTF-8 text") from error
    if text and not text.endswith("\n"):
        raise InvalidChecksums("cut off at its end")
    for number, line in enumerate(text.split("\n")[:-1], 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise InvalidChecksums(f"line {number}: no sum and path")
        if not is_safe_path(match[2]):
            raise InvalidChecksums(f"line {number}: {match[2]!r} is no path below the part")
        if match[2] in found:
            raise InvalidChecksums(f"line {number}: {match[2]} is there twice")
        found[match[2]] = match[1]
    return found
