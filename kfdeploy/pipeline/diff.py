"""Two release sets -> what differs between them."""

from __future__ import annotations

from pathlib import Path

from kfdeploy.cache import Cache
from kfdeploy.model.changes import setdiff
from kfdeploy.model.changes.setdiff import SetDiff
from kfdeploy.model.changes.sides import Placed, Side
from kfdeploy.tools import bodies
from kfdeploy.tools.setfolder import SetFolder, open_set


def diff(old: Path, new: Path, cache: Cache) -> SetDiff:
    """What differs between the release sets in two folders.

    Raises:
        UserError: one is no release set, or has broken YAML.
    """
    first, second = _side(open_set(old), cache), _side(open_set(new), cache)
    _load_definitions(first, second, cache)
    return setdiff.compare(first, second)


def _side(content: SetFolder, cache: Cache) -> Side:
    placed: list[Placed] = []
    for release in content.releases:
        # One entry a release: what did not change between two sets is read once.
        bodies.load(release.objects, cache)
        placed += (Placed(release.name, item) for item in (*release.crds, *release.objects))
    return Side(content.name, content.summary, tuple(placed))


def _load_definitions(old: Side, new: Side, cache: Cache) -> None:
    """Read those that differ; they are most of a set's bytes, and most stay as they are."""
    texts = [{one.object.text for one in side.placed if one.object.is_crd} for side in (old, new)]
    alike = texts[0] & texts[1]
    bodies.load_each(
        (
            one.object
            for side in (old, new)
            for one in side.placed
            if one.object.is_crd and one.object.text not in alike
        ),
        cache,
    )
