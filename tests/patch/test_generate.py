"""What is listed is what is patched: exactly the mentions change, and to the private registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from kfdeploy.images import sites as sitemodel
from kfdeploy.images.mentions import Mention
from kfdeploy.images.naming import MirrorNaming
from kfdeploy.kubernetes.objects import ObjectKey, get_field, split_objects
from kfdeploy.patch import values
from kfdeploy.patch.values import ImageValues
from kfdeploy.session import Session
from tests.conftest import RELEASES, Site

RealSite = Callable[[str], Site]
SITES = ("small", *RELEASES)
ANNOTATIONS = ("checksum.kfdeploy.io/", "helm.sh/resource-policy", "kfdeploy.io/")


@pytest.fixture(params=SITES)
def made(request: pytest.FixtureRequest) -> Site:
    if request.param == "small":
        small: Site = request.getfixturevalue("small_site")
        return small
    real: RealSite = request.getfixturevalue("real_site")
    return real(request.param)


def looks(session: Session) -> dict[str, ImageValues]:
    mirror = MirrorNaming(session.workspace.resolve_registry(session.environment))
    lock = session.read_lock(required=True)
    found = values.build_image_values(session.read_sources(), lock, mirror, unpinned=False)
    return {ref.text: image for ref, image in found.items()}


def finals(site: Site, component: str) -> dict[ObjectKey, Any]:
    """The objects of a component in the release set."""
    found: dict[ObjectKey, Any] = {}
    for path in sorted((site.set / "charts").glob("*/charts/objects/objects.yaml")):
        if path.parts[-4] in (component, f"{component}-after"):
            found |= {item.key: item.body for item in split_objects(path.read_text())}
    return found


def replaced(
    value: str, mentions: list[Mention], refs: dict[int, str], look: Any, by_tag: set[str]
) -> str:
    """The string with each mention's span replaced, from the last to the first.

    Args:
        by_tag: references that go without a digest here.
    """
    spans: dict[tuple[int, int], str] = {}
    for mention in mentions:
        ref = refs[id(mention)]
        found = look[ref].to_values()
        names = {"reference": "ref", "hub": "parent", "name": "repository", "tag": "tag"}
        if ref in by_tag:
            names |= {"reference": "byTag", "tag": "plainTag"}
        for part in mention.parts:
            spans[part.start, part.end] = found[names[part.role]]
    for (start, end), text in sorted(spans.items(), reverse=True):
        value = value[:start] + text + value[end:]
    return value


def differences(old: Any, new: Any, path: tuple[str | int, ...] = ()) -> Iterator[Any]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if key not in old or key not in new:
                yield (*path, key), old.get(key), new.get(key)
            else:
                yield from differences(old[key], new[key], (*path, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) <= len(new):
        for index, item in enumerate(new):
            if index >= len(old):
                yield (*path, index), None, item
            else:
                yield from differences(old[index], item, (*path, index))
    elif old != new or type(old) is not type(new):
        yield path, old, new


def test_each_mention_becomes_its_mirror_and_all_else_stays(made: Site) -> None:
    inventory = Session.open(made.root, "", quiet=True).build_inventory()
    named = [image for image in inventory.images if any(found.path for found in image.found)]
    assert compare(made) >= len(named) > 30


def compare(made: Site) -> int:
    """Hold the release set against the upstream's objects, field by field.

    Returns:
        How many mentions became their mirror.
    """
    session = Session.open(made.root, "", quiet=True)
    look = looks(session)
    by_tag: dict[Any, set[str]] = {}
    for image in session.build_inventory().images:
        for found in image.found:
            if found.pin == "tag":
                place = (found.component, found.object, found.path)
                by_tag.setdefault(place, set()).add(image.ref.text)
    places = {
        (found.component, found.object, found.path, piece.text, piece.role): image.ref.text
        for image in session.build_inventory().images
        for found in image.found
        for piece in found.pieces
    }
    seen = 0
    for rendered in session.render_components():
        name = rendered.component.name
        final = finals(made, name)
        for item in rendered.objects:
            if item.is_crd:
                continue
            wanted: dict[tuple[str | int, ...], str] = {}
            mentions: dict[tuple[str | int, ...], list[Mention]] = {}
            for one in sitemodel.find_sites(item.key, item.body):
                mentions.setdefault(one.path, []).extend(one.mentions)
            for path, here in mentions.items():
                refs = {
                    id(m): m.ref.text
                    if m.ref.text in look
                    else places[name, item.key, path, m.parts[0].text, m.parts[0].role]
                    for m in here
                }
                tagged = by_tag.get((name, item.key, path), set())
                wanted[path] = replaced(get_field(item.body, path), here, refs, look, tagged)
                seen += len(here)
            moved = replace(item.key, namespace="default")
            for path, old, new in differences(item.body, final.get(item.key) or final[moved]):
                if path in wanted:
                    assert new == wanted.pop(path), f"{name}: {item.key} {path}"
                else:
                    assert is_addition(path, old, new), f"{name}: {item.key} {path}: {old} {new}"
            assert not wanted, f"{name}: {item.key} still has what it had in {list(wanted)}"
    return seen


def is_addition(path: tuple[str | int, ...], old: Any, new: Any) -> bool:
    """What patches do beside images: checksums, what is kept, variables, flags, files, a
    namespace, no rules of an aggregated role."""
    if path == ("metadata", "namespace") and old is None:
        return bool(new == "default")
    if path == ("rules",) and old == []:
        return new is None  # of an aggregated role
    if "annotations" in path and old is None:
        keys = new if path[-1] == "annotations" else [path[-1]]
        return all(str(key).startswith(ANNOTATIONS) for key in keys)
    if path[-1] == "metadata" and old is None:
        return all(key == "annotations" for key in new)
    if {"volumes", "volumeMounts"} & set(path):
        added = new if isinstance(new, list) else [new]
        return old is None and all(one["name"].startswith("kfdeploy-") for one in added)
    return old is None and any(step in ("env", "args") for step in path)


def test_every_patch_is_for_one_object_and_says_so(made: Site) -> None:
    files = sorted((made.root / "patches").glob("*/*.yaml.gotmpl"))
    assert files
    for path in files:
        if path.parent.name != "_kfdeploy":
            text = path.read_text()
            first, second, *_ = text.splitlines()
            assert first.startswith("# Generated by kfdeploy patch; sha256 of the rest: ")
            assert second.startswith("# ")
            assert made.private not in text
            assert text.count("\ntarget:\n") + text.count("\napiVersion: ") == 1


def test_patches_name_no_digest_of_ours(made: Site) -> None:
    lock = Session.open(made.root, "", quiet=True).read_lock(required=True)
    ours = {image.digest for image in lock if image.digest not in image.id.text}
    assert ours
    for path in sorted((made.root / "patches").rglob("*")):
        if path.is_file():
            text = path.read_text()
            assert not [digest for digest in ours if digest in text]
