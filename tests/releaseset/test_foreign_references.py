"""References that lead elsewhere are seen in a release set's bytes, however they are dressed."""

from __future__ import annotations

import pytest

from kfdeploy.releaseset.foreign_references import find_foreign_references

HOME = "reg.test:5000/kf"
MINE = f"{HOME}/ghcr.io/a/b:1@sha256:" + "0" * 64
KNOWN = ("mysql:8.4", "mysql", "tensorflow/tensorflow", "ghcr.io/a/b:1", "a/b:1")

SEEN = {
    "a field": ("image: ghcr.io/x/y:2", "ghcr.io/x/y:2"),
    "in quotes": ('image: "ghcr.io/x/y:2"', "ghcr.io/x/y:2"),
    "by digest": ("  x: ghcr.io/x/y@sha256:" + "1" * 64, "ghcr.io/x/y@sha256:" + "1" * 64),
    "a known one without host": ("- mysql:8.4", "mysql:8.4"),
    "a known one without tag": ("x: tensorflow/tensorflow", "tensorflow/tensorflow"),
    "an unknown one under image": ("  image: redis:7", "redis:7"),
    "a known word under image": ("- image: mysql", "mysql"),
    "a variable": ("value: ghcr.io/x/y:2", "ghcr.io/x/y:2"),
    "a flag": ("- --image=ghcr.io/x/y:2", "ghcr.io/x/y:2"),
    "a known one in a flag": ("- --image=a/b:1", "a/b:1"),
    "JSON": ('x: \'{"image": "ghcr.io/x/y:2", "n": 1}\'', "ghcr.io/x/y:2"),
    "shell": ("docker run ghcr.io/x/y:2 sh", "ghcr.io/x/y:2"),
    "a shell default": ("IMAGE=${IMAGE:-a/b:1}", "a/b:1"),
    "a list": ("images: [ghcr.io/x/y:2, x]", "ghcr.io/x/y:2"),
    "behind a line end in quotes": ('x: "a\\nghcr.io/x/y:2\\n"', "ghcr.io/x/y:2"),
    "beside one that leads home": (f"{MINE} ghcr.io/x/y:2", "ghcr.io/x/y:2"),
    "localhost": ("x: localhost:5000/a/b:1", "localhost:5000/a/b:1"),
    "home's host in a path": (f"x: evil.test/{HOME}/a:1", "evil.test/reg.test:5000"),
    "behind a name": ("x: sidecar:a/b:1", "a/b:1"),
    "a host that only begins like home": ("x: reg.test:50001/kf/a:1", "reg.test:50001/kf/a:1"),
    "a prefix that only begins like home": ("x: reg.test:5000/kfx/a:1", "reg.test:5000/kfx/a:1"),
}  # fmt: skip


@pytest.mark.parametrize("case", SEEN)
def test_a_foreign_reference_is_seen(case: str) -> None:
    line, reference = SEEN[case]
    found = [
        f.reference
        for f in find_foreign_references("f", f"a: 1\n{line}\n", known=KNOWN, registry=HOME)
    ]
    assert reference in found


QUIET = {
    "home": f"image: {MINE}",
    "home behind a name": f"x: sidecar:{MINE} ${{IMAGE:-{MINE}}} $({MINE})",
    "home behind a line end in quotes": f'x: "a\\n{MINE}\\n"',
    "home in JSON": f'x: \'{{"image": "{MINE}"}}\'',
    "a url": "x: https://ghcr.io/x/y:2",
    "a comment": "# image: ghcr.io/x/y:2",
    "documentation": "_example: |\n  image: ghcr.io/x/y:2\nother: 1",
    "a description": "description: |\n  uses ghcr.io/x/y:2\nother: 1",
    "a note": "annotations:\n  note: was ghcr.io/x/y:2\nother: 1",
    "host and port": "x: svc.ns:8080",
    "group and version": "apiVersion: serving.kserve.io/v1beta1",
    "a template": 'image: "{{ .ProxyImage }}"',
    "a known word elsewhere": "name: mysql",
    "a half": "image: proxyv2",
    "a word": "image: true",
}


@pytest.mark.parametrize("case", QUIET)
def test_what_leads_home_or_nowhere_is_not(case: str) -> None:
    assert list(find_foreign_references("f", QUIET[case], known=KNOWN, registry=HOME)) == []


def test_file_and_line_are_named() -> None:
    (found,) = find_foreign_references(
        "charts/x.yaml", "a: 1\n\nx: ghcr.io/x/y:2\n", known=(), registry=HOME
    )
    assert str(found) == "charts/x.yaml:3: ghcr.io/x/y:2"


def test_of_a_schema_only_defaults_count() -> None:
    text = (
        "image:\n  description: ghcr.io/a/b:1\n  example: ghcr.io/a/b:1\n  default: ghcr.io/x:1\n"
    )
    found = find_foreign_references("f", text, known=(), registry=HOME, is_crd=True)
    assert [f.line for f in found] == [4]
