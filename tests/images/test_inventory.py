"""The inventory: sorted, each place once, and the same from the cache."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kfdeploy.codec import pack, to_json, unpack
from kfdeploy.images.feature_images import set_default_redirect
from kfdeploy.images.inventory import (
    ComponentScan,
    ImageUse,
    Replacement,
    ScanProblem,
    SourceLocation,
    UnavailableReference,
    UnreviewedProgram,
    merge_scans,
)
from kfdeploy.images.redirect import Redirect
from kfdeploy.kubernetes.objects import ObjectKey
from tests.support.refs import written

KEY = ObjectKey("apps/v1", "Deployment", "n", "web")
A, B = written("a:1"), written("b:1")
FOUND = ImageUse(
    A,
    component="one",
    object=KEY,
    field="spec.containers[name=x].image",
    path=("spec", "containers", 0, "image"),
    how="pod-spec",
    redirect="patch",
    place=SourceLocation("a/b.yaml", 3),
    overridden_by=(SourceLocation("k.yaml", 1), SourceLocation("k.yaml", 2)),
    pieces=(Replacement("hub", '"hub": "x"', 8, "x"),),
    is_whole_value=False,
    variables=("A", "B"),
    need="optional",
    note="a note",
)
ADDED = replace(
    FOUND,
    pin="tag",
    adds=Redirect("Deployment", "web", "x", file="/etc/a.json", content="{}", source="a/b@v1:c:1"),
    source="a/b@v1:c.go:1",
    outside="jobs",
    pulled_by="program",
)


UNKNOWN = UnreviewedProgram("one", KEY, "a/b:2", "2.0", "b", "1.0", ("x:1", "y:1"))
LOST = UnavailableReference(written("a/b:1"), "purged", "a/b#1", "a/c:1")


@pytest.mark.parametrize(
    "found",
    [
        FOUND,
        ADDED,
        replace(FOUND, place=None, overridden_by=(), pieces=(), variables=(), path=(), note=""),
        replace(FOUND, object=ObjectKey("v1", "Namespace", "", "x")),
    ],
)
def test_what_is_kept_reads_as_it_was_written(found: ImageUse) -> None:
    part = ComponentScan((found,), (ScanProblem("x", "y"),), (UNKNOWN,), (LOST,))
    assert unpack(ComponentScan, json.loads(json.dumps(pack(part)))) == part


def test_images_are_sorted_and_places_are_there_once() -> None:
    other = replace(FOUND, component="another", need="required")
    in_b = replace(FOUND, ref=B)
    found = [in_b, FOUND, replace(other, ref=B), in_b]
    problems = [ScanProblem("y", "b"), ScanProblem("x", "a"), ScanProblem("y", "b")]
    inventory = merge_scans("1.0", [ComponentScan(tuple(found), tuple(problems))])
    assert [(i.ref.text, i.need, len(i.found)) for i in inventory.images] == [
        ("a:1", "optional", 1),
        ("b:1", "required", 2),
    ]
    assert [f.component for f in inventory.images[1].found] == ["another", "one"]
    assert inventory.problems == (ScanProblem("x", "a"), ScanProblem("y", "b"))
    assert inventory == merge_scans(
        "1.0",
        [ComponentScan((one,)) for one in reversed(found)] + [ComponentScan((), tuple(problems))],
    )
    assert inventory.find_image(A) is inventory.images[0]
    assert inventory.find_image(written("c:1")) is None


def test_two_mentions_of_one_image_on_one_line_are_two_places() -> None:
    pieces = (
        (Replacement("reference", "x:a:1", 2, "a:1"),),
        (Replacement("reference", "a:1", 0, "a:1"),),
    )
    found = [replace(FOUND, pieces=one) for one in pieces]
    (image,) = merge_scans("1.0", [ComponentScan(tuple(found))]).images
    assert [place.pieces for place in image.found] == [pieces[1], pieces[0]]


def test_json_is_what_the_contract_says() -> None:
    assert to_json(merge_scans("1.0", [ComponentScan((FOUND,))])) == {
        "upstream": {"version": "1.0"},
        "images": [
            {
                "ref": "a:1",
                "need": "optional",
                "found": [
                    {
                        "component": "one",
                        "object": {
                            "apiVersion": "apps/v1",
                            "kind": "Deployment",
                            "namespace": "n",
                            "name": "web",
                        },
                        "field": "spec.containers[name=x].image",
                        "file": "a/b.yaml",
                        "line": 3,
                        "how": "pod-spec",
                        "redirect": "patch",
                        "need": "optional",
                        "overridden_by": [
                            {"file": "k.yaml", "line": 1},
                            {"file": "k.yaml", "line": 2},
                        ],
                        "note": "a note",
                    }
                ],
            }
        ],
        "problems": [],
        "unknown": [],
        "lost": [],
    }


def test_admission_takes_what_nothing_else_redirects() -> None:
    content = merge_scans("1", [ComponentScan((FOUND, replace(FOUND, redirect="none")))])
    (image,) = set_default_redirect(content, "admission").images
    assert sorted(found.redirect for found in image.found) == ["admission", "patch"]


def test_admission_does_not_take_what_is_pulled_outside_users_namespaces() -> None:
    away = replace(FOUND, redirect="none", outside="jobs")
    inventory = merge_scans("1", [ComponentScan((away,))])
    (image,) = set_default_redirect(inventory, "admission").images
    assert [found.redirect for found in image.found] == ["none"]


def test_admission_does_not_see_what_a_program_copies_itself() -> None:
    copied = replace(FOUND, redirect="none", pulled_by="program")
    content = merge_scans("1", [ComponentScan((copied,))])
    assert set_default_redirect(content, "admission") == content
    assert content.images[0].found[0].to_json()["pulled_by"] == "program"


def test_places_that_differ_in_what_is_said_of_them_alone_have_an_order() -> None:
    notes = [replace(FOUND, how="catalogue", note=str(number)) for number in range(20)]
    (image,) = merge_scans("1", [ComponentScan(tuple(reversed(notes)))]).images
    assert [place.note for place in image.found] == sorted(place.note for place in notes)
