"""Put numbers into words for people."""

from __future__ import annotations


def pluralize(number: int, noun: str) -> str:
    """Return ``1 image``, ``2 images``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_bytes(count: int) -> str:
    """Return a number of bytes like ``1.5 GiB``."""
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"
