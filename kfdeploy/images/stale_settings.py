"""Settings of kfdeploy.yaml that name no image."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from kfdeploy.oci.reference import ImageRef, WrittenRef

if TYPE_CHECKING:
    from kfdeploy.workspace.settings import Images, Workspace


@dataclass(frozen=True, slots=True)
class StaleSetting:
    """A setting that names no image of the new release.

    Attributes:
        key: its place in ``kfdeploy.yaml``.
        was_used: whether it named an image of the release before.
        near: references of the same repository that there are now.
    """

    key: str
    value: str
    was_used: bool
    near: tuple[WrittenRef, ...]


def find_stale_settings(
    workspace: Workspace, before: Collection[WrittenRef], now: Collection[WrittenRef]
) -> tuple[StaleSetting, ...]:
    """Return substitutes, exclusions and exceptions that name no image any more.

    Args:
        before, now: the references at each release.
    """
    stale = list(find_unused_substitutes(workspace.images, now, before))
    for name, patterns in (
        ("images.exclude", [exclusion.ref for exclusion in workspace.images.exclude]),
        ("registries.uncovered", workspace.registries.uncovered),
    ):
        for index, pattern in enumerate(patterns):
            if not _is_matched(pattern, now):
                key = f"{name}[{index}]"
                was_used = _is_matched(pattern, before)
                stale.append(StaleSetting(key, pattern, was_used, _suggest_refs(pattern, now)))
    return tuple(stale)


def find_unused_substitutes(
    images: Images, now: Collection[WrittenRef], before: Collection[WrittenRef] = ()
) -> Iterator[StaleSetting]:
    """Yield the substitutes of images that nothing names.

    Args:
        now, before: the references at this release, and at the one before.
    """
    for text in images.substitutes:
        if not _is_named(text, now):
            key = f"images.substitutes[{text!r}]"
            yield StaleSetting(key, text, _is_named(text, before), _suggest_refs(text, now))


def _is_named(text: str, refs: Iterable[WrittenRef]) -> bool:
    wanted = ImageRef.parse(text).with_default_tag()
    return any(ref.parsed.with_default_tag() == wanted for ref in refs)


def _is_matched(pattern: str, refs: Iterable[WrittenRef]) -> bool:
    return any(fnmatchcase(ref.text, pattern) for ref in refs)


def _suggest_refs(text: str, refs: Iterable[WrittenRef]) -> tuple[WrittenRef, ...]:
    wanted = ImageRef.try_parse(text)  # a pattern is no reference
    if wanted is None:
        return ()
    return tuple(sorted(ref for ref in refs if ref.parsed.repository == wanted.repository))
