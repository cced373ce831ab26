"""``SHA256SUMS`` of a folder, as ``sha256sum -c`` reads it: of release sets and of bundles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from kfdeploy.files import is_safe_path

SUMS_FILE: Final = "SHA256SUMS"
_LINE: Final = re.compile(r"([0-9a-f]{64})  (.+)")


class InvalidChecksums(ValueError):
    """Text that is not a list of checksums; the message names the line."""


def dump_checksums(sums: Mapping[str, str]) -> bytes:
    """Return the file's bytes, sorted by path.

    Args:
        sums: path below the folder to sha256 in hex.
    """
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items())).encode()


def parse_checksums(data: bytes) -> dict[str, str]:
    """Return path below the folder to sha256 in hex.

    Raises:
        InvalidChecksums: a line without checksum and path, a path that leads out of the folder, a
            path that is listed twice, or an incomplete last line.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidChecksums(f"byte {error.start}: not UTF-8 text") from error
    if text and not text.endswith("\n"):
        raise InvalidChecksums("the last line is incomplete")
    sums: dict[str, str] = {}
    for number, line in enumerate(text.split("\n")[:-1], 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise InvalidChecksums(f"line {number}: not a checksum and a path")
        digest, path = match.groups()
        if not is_safe_path(path):
            raise InvalidChecksums(f"line {number}: {path!r} is not a path below the folder")
        if path in sums:
            raise InvalidChecksums(f"line {number}: {path} is listed twice")
        sums[path] = digest
    return sums
