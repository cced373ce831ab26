"""kfdeploy.yaml changed in place: what is not changed keeps its bytes."""

from __future__ import annotations

import pytest

from kfdeploy.upgrade.settings_edit import ListedComponent, SettingsChanges, edit_settings

FILE = """\
# ours
upstream:
    source: '../kubeflow-1'   # beside it
    ref: "1"
    remotes:
        https://github.com/: ../r/github.com   # a mirror

components:
  # the first of all
  - name: a
    path: apps/a/base          # why this one

  # what nobody needs
  - {name: b, path: "apps/b"}
  - path: apps/c
    name: c
    values:
    - values/c.yaml
  # behind all

registries: {private: {host: r.example}}
"""


def entries(*found: tuple[int | None, str, str]) -> list[ListedComponent]:
    return [ListedComponent(*one) for one in found]


SAME = entries((0, "a", "apps/a/base"), (1, "b", "apps/b"), (2, "c", "apps/c"))


def test_nothing_to_change_keeps_the_bytes() -> None:
    assert edit_settings(FILE, SettingsChanges("../kubeflow-1", None, SAME)) == FILE
    assert edit_settings(FILE, SettingsChanges("../kubeflow-1", "1", SAME)) == FILE


def test_source_and_ref_keep_their_quotes_and_comments() -> None:
    text = edit_settings(FILE, SettingsChanges("../kubeflow-2", "2", SAME))
    assert text == FILE.replace("../kubeflow-1'", "../kubeflow-2'").replace('"1"', '"2"')


def test_remotes_are_set_and_added() -> None:
    remotes = {"https://github.com/": "../s/github.com", "https://h.example/": "../s/h.example"}
    text = edit_settings(FILE, SettingsChanges("../kubeflow-1", "1", SAME, remotes))
    assert text == FILE.replace(
        "../r/github.com   # a mirror\n",
        "../s/github.com   # a mirror\n        https://h.example/: ../s/h.example\n",
    )


def test_a_dropped_component_takes_the_comment_above_it_along() -> None:
    listed = entries((0, "a", "applications/a"), (2, "c", "apps/c"))
    assert edit_settings(FILE, SettingsChanges("../kubeflow-1", None, listed)) == FILE.replace(
        '  # what nobody needs\n  - {name: b, path: "apps/b"}\n', ""
    ).replace("apps/a/base  ", "applications/a  ")


def test_a_new_component_is_written_as_the_first_is() -> None:
    listed = [
        SAME[0],
        ListedComponent(None, "m", "apps/n"),
        *SAME[1:],
        ListedComponent(None, "z", "apps/1.10"),
    ]
    text = edit_settings(FILE, SettingsChanges("../kubeflow-1", None, listed))
    new = "  - name: m\n    path: apps/n\n"
    assert text == FILE.replace("# why this one\n", f"# why this one\n{new}").replace(
        "c.yaml\n", "c.yaml\n  - name: z\n    path: apps/1.10\n"
    )


def test_one_goes_and_another_comes_and_back() -> None:
    there = [SAME[0], SAME[1], ListedComponent(None, "m", "apps/n")]
    text = edit_settings(FILE, SettingsChanges("../kubeflow-1", None, there))
    assert "apps/c" not in text
    back = entries((0, "a", "apps/a/base"), (1, "b", "apps/b"), (None, "c", "apps/c"))
    assert edit_settings(text, SettingsChanges("../kubeflow-1", None, back)) == FILE.replace(
        "  - path: apps/c\n    name: c\n    values:\n    - values/c.yaml\n",
        "  - name: c\n    path: apps/c\n",
    )


OTHER_WAYS = {
    "flow": (
        """\
upstream: {source: up}
components: [{name: a, path: a}, {name: b, path: b}]
""",
        """\
upstream: {source: new, ref: v2, remotes: {"https://h/": r}}
components: [{name: b, path: c}, {name: "no", path: m}]
""",
    ),
    "no line end": (
        """\
upstream:
  source: up # x
components:
- name: a
  path: a
-   name: b
    path: b""",
        """\
upstream:
  source: new # x
  ref: v2
  remotes: {"https://h/": r}
components:
-   name: b
    path: c
- name: "no"
  path: m
""",
    ),
    "empty remotes": (
        """\
upstream:
  source: up
  remotes: {}
components:
- name: a
  path: a
- name: b
  path: b
# end
""",
        """\
upstream:
  source: new
  ref: v2
  remotes: {"https://h/": r}
components:
- name: b
  path: c
- name: "no"
  path: m
# end
""",
    ),
}


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_other_ways_to_write_it(way: str) -> None:
    text, expected = OTHER_WAYS[way]
    listed = entries((1, "b", "c"), (None, "no", "m"))
    assert (
        edit_settings(text, SettingsChanges("new", "v2", listed, {"https://h/": "r"})) == expected
    )
