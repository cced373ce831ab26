"""Settings of kfdeploy.yaml that name no image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from kfdeploy.oci.reference import ImageRef, InvalidImageRef

if TYPE_CHECKING:
    from kfdeploy.workspace.settings import Images, Workspace


@dataclass(frozen=True, slots=True)
class StaleSetting:
    """A setting that names no image of the new release.

    Attributes:
        key: its place in ``kfdeploy.yaml``.
        was_used: whether it named one of the release before.
        near: references of the same repository that there are now.
    """

    key: str
    value: str
    was_used: bool
    near: tuple[str, ...]


def find_stale_settings(
    workspace: Workspace, before: Iterable[str], now: Iterable[str]
) -> tuple[StaleSetting, ...]:
    """Substitutes, exclusions and exceptions that name nothing any more.

    Args:
        before, now: the references as found at each release.
    """
    olds, news = set(before), set(now)
    out = list(find_unused_substitutes(workspace.images, news, olds))
    for name, patterns in (
        ("images.exclude", [one.ref for one in workspace.images.exclude]),
        ("registries.uncovered", workspace.registries.uncovered),
    ):
        for index, pattern in enumerate(patterns):
            if not _is_matched(pattern, news):
                used = _is_matched(pattern, olds)
                key = f"{name}[{index}]"
                out.append(StaleSetting(key, pattern, used, _suggest_refs(pattern, news)))
    return tuple(out)


def find_unused_substitutes(
    images: Images, now: Iterable[str], before: Iterable[str] = ()
) -> Iterator[StaleSetting]:
    """Substitutes of images that nothing names.

    Args:
        now, before: the references as found, and those of a release before.
    """
    news, olds = set(now), set(before)
    for ref in images.substitutes:
        if not _is_named(ref, news):
            key = f"images.substitutes[{ref!r}]"
            yield StaleSetting(key, ref, _is_named(ref, olds), _suggest_refs(ref, news))


def _is_named(ref: str, refs: Iterable[str]) -> bool:
    wanted = ImageRef.parse(ref).with_default_tag()
    return any(each.with_default_tag() == wanted for _, each in _parse_refs(refs))


def _parse_refs(refs: Iterable[str]) -> Iterator[tuple[str, ImageRef]]:
    """Without what is no reference, which `lock` says."""
    for ref in refs:
        with suppress(InvalidImageRef):
            yield ref, ImageRef.parse(ref)


def _is_matched(pattern: str, refs: Iterable[str]) -> bool:
    return any(fnmatchcase(ref, pattern) for ref in refs)


def _suggest_refs(ref: str, refs: Iterable[str]) -> tuple[str, ...]:
    if "*" in ref:
        return ()
    repository = ImageRef.parse(ref).repository
    return tuple(sorted(ref for ref, each in _parse_refs(refs) if each.repository == repository))
