"""The result of `lock` as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from kfdeploy.wording import pluralize

if TYPE_CHECKING:
    from kfdeploy.images.lockfile import Lock
    from kfdeploy.lock.result import Resolution

_NOTE_KINDS: Final = {
    "size": "size not known",
    "platforms": "note",
    "attached": "attachments not known",
    "signature": "signature not checked",
}


def format_progress_notes(result: Resolution) -> Iterator[str]:
    """Yield notes on single images, which `--quiet` leaves out."""
    for note in result.notes:
        yield f"{_NOTE_KINDS[note.about]}: {note.id}: {note.reason}"


def format_moved_tags(result: Resolution) -> Iterator[str]:
    """Yield a note for each tag that has another digest than in the lock before."""
    for moved in result.moved:
        yield f"note: {moved.id}: was {moved.before}, is {moved.now}"


def format_lock_summary(result: Resolution, kept: Lock) -> str:
    """Return one line with the numbers of images.

    Args:
        kept: entries of the lock before for images that could not be resolved now.
    """
    failed = {failure.id for failure in result.failures}
    not_locked = failed - result.lock.by_id.keys()
    parts = [
        f"{pluralize(len(result.lock), 'image')} locked",
        f"{len(not_locked)} not" + (f" ({len(kept)} of them as before)" if kept else ""),
    ]
    if incomplete := len(failed) - len(not_locked):
        parts.append(f"{incomplete} not for every environment")
    return f"images.lock: {', '.join(parts)}"
