"""What of a layer's files is looked at, and what later layers hide."""

from __future__ import annotations

import pytest

from kfdeploy.scan.content.candidate import Candidate
from kfdeploy.scan.content.layer import (
    LayerScan,
    LocatedCandidate,
    best_candidates,
    escape_path,
    is_skipped,
    normalize_path,
    visible_candidates,
)


def find(path: str, ref: str = "acme/x:1.0.0", score: int = 60) -> LocatedCandidate:
    return LocatedCandidate(Candidate(ref, score, ()), path, 1)


def layer(*paths: str, finds: tuple[str, ...] = ()) -> LayerScan:
    out = LayerScan("")
    for path in (*paths, *finds):
        out.add_member(path)
    for path in finds:
        out.add_candidate(find(path))
    return out


@pytest.mark.parametrize(
    ("upper", "hidden"),
    [
        (("a/b/x.py",), {"a/b/x.py"}),
        (("a/b/.wh.x.py",), {"a/b/x.py"}),
        (("a/.wh.b",), {"a/b/x.py", "a/b/y.py"}),
        (("a/b/.wh..wh..opq",), {"a/b/x.py", "a/b/y.py"}),
        ((".wh..wh..opq",), {"a/b/x.py", "a/b/y.py", "z.py"}),
        (("a/b/.wh.x",), set()),
        (("other/.wh.b", "b/.wh..wh..opq"), set()),
    ],
)
def test_what_a_later_layer_says_of_a_file(upper: tuple[str, ...], hidden: set[str]) -> None:
    paths = ("a/b/x.py", "a/b/y.py", "z.py")
    seen = {one.path for _, one in visible_candidates([layer(finds=paths), layer(*upper)])}
    assert seen == set(paths) - hidden


def test_a_lower_layer_hides_nothing_above_it() -> None:
    assert [one.path for _, one in visible_candidates([layer("x.py"), layer(finds=("x.py",))])] == [
        "x.py"
    ]


def test_a_layer_that_is_not_trusted_has_no_finds_and_still_hides() -> None:
    upper = layer("x.py")
    upper.trusted = False
    below = layer(finds=("x.py", "y.py"))
    assert [one.path for _, one in visible_candidates([below, upper])] == ["y.py"]
    below.trusted = False
    assert list(visible_candidates([below])) == []


@pytest.mark.parametrize(
    "path",
    [
        "usr/share/doc/x/config.yaml",
        "app/node_modules/a/README",
        "opt/venv/lib/python3.11/site-packages/a-1.0.dist-info/METADATA",
        "opt/venv/lib/python3.11/site-packages/docker/docs/a.py",
        "var/lib/dpkg/status",
        "lib/apk/db/installed",
        "src/pkg/config/config_test.go",
        "app/tests/x.py",
        "app/main.spec.ts",
        "usr/lib/libfoo.so.1.2.3",
        "app/bundle.js.map",
        "app/logo.png",
    ],
)
def test_documentation_tests_and_media_are_not_looked_at(path: str) -> None:
    assert is_skipped(path)


@pytest.mark.parametrize(
    "path",
    [
        "manager",
        "server/dist/server.js",
        "opt/venv/lib/python3.11/site-packages/kfp/dsl/component_factory.py",
        "samples/core/condition/condition.yaml",
        "etc/config/initContainer.yaml",
        "config/sample_config.json",
    ],
)
def test_programs_code_and_settings_are_looked_at(path: str) -> None:
    assert not is_skipped(path)


@pytest.mark.parametrize(
    ("path", "same"),
    [("a/./b//c", "a/b/c"), ("a/../../b", "b"), ("../../etc/x", "etc/x"), ("a/b/", "a/b")],
)
def test_a_member_s_name_is_one_path_from_the_root(path: str, same: str) -> None:
    assert normalize_path(path) == same


def test_what_steers_a_terminal_is_spelled_out() -> None:
    assert escape_path("a\x1b[31m\u202eb\n") == "a\\u001b[31m\\u202eb\\u000a"


def test_of_each_reference_in_a_file_the_likeliest_place_is_kept() -> None:
    finds = [find("a", score=40), find("a", score=90), find("b", score=50), find("a", "y/z:1", 60)]
    assert [(one.path, one.candidate.score) for one in best_candidates(finds)] == [
        ("a", 90),
        ("b", 50),
        ("a", 60),
    ]
