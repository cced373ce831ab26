"""Typed values as JSON, for results and for caches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from kfdeploy.codec import MisfitData, pack, to_json, unpack
from kfdeploy.oci.reference import ImageRef


@dataclass(frozen=True)
class Leaf:
    name: str
    path: tuple[str | int, ...] = ()


@dataclass(frozen=True)
class Tree:
    image: ImageRef
    is_large: bool
    state: Literal["new", "old"]
    size: int | None = None
    leaf: Leaf | None = None
    leaves: tuple[Leaf, ...] = ()
    pair: tuple[str, Leaf] = ("", Leaf(""))
    names: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Renamed:
    tree: Tree

    def to_json(self) -> dict[str, Any]:
        return {"theTree": self.tree}


IMAGE = ImageRef.parse("mysql:8")
SMALL = Tree(IMAGE, False, "new")
LARGE = Tree(
    IMAGE,
    True,
    "old",
    3,
    Leaf("a", ("spec", 0)),
    (Leaf("b"), Leaf("c")),
    ("d", Leaf("e")),
    frozenset("xyz"),
    {"n": 1},
)


@pytest.mark.parametrize("tree", [SMALL, LARGE])
def test_what_is_packed_is_unpacked_alike(tree: Tree) -> None:
    assert unpack(Tree, json.loads(json.dumps(pack(tree)))) == tree


def test_a_set_is_packed_in_one_order() -> None:
    assert pack(LARGE)[7] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, "No-Image:"),
        (0, 1),
        (1, 1),
        (1, None),
        (2, "other"),
        (3, "3"),
        (3, True),
        (4, ["a"]),
        (4, "a"),
        (5, [["b", []], "c"]),
        (5, {}),
        (6, ["d"]),
        (7, [1]),
        (8, {"n": "1"}),
        (8, []),
    ],
)
def test_what_does_not_fit_is_refused(at: int, value: object) -> None:
    packed = json.loads(json.dumps(pack(LARGE)))
    packed[at] = value
    with pytest.raises(MisfitData):
        unpack(Tree, packed)


@pytest.mark.parametrize("data", [None, {}, [], "x", [1, 2]])
def test_another_number_of_values_is_refused(data: object) -> None:
    with pytest.raises(MisfitData):
        unpack(Leaf, data)


def test_types_that_json_does_not_tell_apart_are_refused() -> None:
    @dataclass
    class Either:
        value: Leaf | tuple[str, ...]

    with pytest.raises(TypeError):
        pack(Either(()))


def test_a_result_has_its_fields_in_camel_case() -> None:
    assert to_json({"found": [SMALL]}) == {
        "found": [
            {
                "image": "docker.io/library/mysql:8",
                "isLarge": False,
                "state": "new",
                "size": None,
                "leaf": None,
                "leaves": [],
                "pair": ["", {"name": "", "path": []}],
                "names": [],
                "counts": {},
            }
        ]
    }


def test_a_result_of_other_keys_says_so_itself() -> None:
    assert to_json(Renamed(SMALL)) == {"theTree": to_json(SMALL)}


def test_what_has_no_json_form_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        to_json([object()])
