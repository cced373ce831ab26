"""References in texts: literals, values and words, and what is documentation."""

from __future__ import annotations

import pytest

from kfdeploy.scan.content.candidate import LIKELY
from kfdeploy.scan.content.text import TextCandidate, detect_language, find_candidates


def likely(text: str, tongue: str) -> dict[str, TextCandidate]:
    found = [
        spot for spot in find_candidates(text.encode(), tongue) if spot.candidate.score >= LIKELY
    ]
    return {spot.candidate.ref: spot for spot in found}


@pytest.mark.parametrize(
    ("name", "start", "tongue"),
    [
        ("a/main.go", b"", "go"),
        ("app/server.min.js", b"", "script"),
        ("x/entrypoint", b"#!/usr/bin/env python3\n", "python"),
        ("x/entrypoint", b"#!/bin/bash\n", "shell"),
        ("x/.env", b"", "settings"),
        ("x/Dockerfile.dev", b"", "build"),
        ("x/values.yaml", b"", "yaml"),
        ("x/whatever", b"words", ""),
    ],
)
def test_a_file_s_language_is_told_by_its_name_or_first_line(
    name: str, start: bytes, tongue: str
) -> None:
    assert detect_language(name, start) == tongue


PYTHON = '''
"""Runs acme/documented:1.0.0 for you."""
# acme/commented:1.0.0
BASE_IMAGE = "python:3.9"
IMAGES = {"a": "acme/first:2.13.0", 'b': 'acme/second:2.13.0-gpu'}
def f(image=None):
    """
    Args: image, such as acme/inside:1.0.0
    """
    url = "https://ghcr.io/v2/acme/thing:1.0.0"
    name = os.environ.get("SERVER_IMAGE", "docker.io/acme/server")
    return f"ghcr.io/acme/joined:{VERSION}"
'''


def test_python_literals_are_found_and_comments_and_docstrings_are_not() -> None:
    found = likely(PYTHON, "python")
    assert set(found) == {
        "python:3.9",
        "acme/first:2.13.0",
        "acme/second:2.13.0-gpu",
        "docker.io/acme/server",
        "ghcr.io/acme/joined",
    }
    assert found["python:3.9"].line == 4
    assert found["python:3.9"].key == "BASE_IMAGE"
    assert found["docker.io/acme/server"].names == ("SERVER_IMAGE",)
    assert found["ghcr.io/acme/joined"].candidate.joined


@pytest.mark.parametrize(
    ("text", "tongue"),
    [
        ('about = "A name. E.g. `acme/thing:2.1.2`."', "python"),
        ("description: A name. E.g. `acme/thing:2.1.2`.", "yaml"),
        ('{"description": "E.g. `acme/thing:2.1.2`."}', "json"),
        ('const about = "such as `acme/thing:2.1.2`"', "go"),
        ("""warn("The default will switch from 'acme/thing:2.1.2' to another")""", "python"),
    ],
)
def test_quotes_inside_a_longer_text_are_no_literal(text: str, tongue: str) -> None:
    assert likely(text, tongue) == {}
    assert set(likely("const image = `acme/thing:2.1.2`", "script")) == {"acme/thing:2.1.2"}


GO = """
package x
// acme/commented:1.0.0
const DefaultImage = "acme/thing:latest"
var x = flag.String("launcher-image", "ghcr.io/acme/launcher:latest", "usage")
var y = "see https://acme.dev/a:1 or main.go:12"
var z = fmt.Sprintf("quay.io/acme/solver:%s", version)
"""


def test_go_literals_are_found_with_the_flag_beside_them() -> None:
    found = likely(GO, "go")
    assert set(found) == {
        "acme/thing:latest",
        "ghcr.io/acme/launcher:latest",
        "quay.io/acme/solver",
    }
    assert found["ghcr.io/acme/launcher:latest"].names == ("--launcher-image",)


def test_a_bundle_s_literals_are_found_in_its_one_long_line() -> None:
    noise = "var a={b:1,c:22};x.y='z-index:10';t=\"10:30\";" * 2000
    text = (
        noise
        + '({value:"tensorflow/tensorflow:1.7.1"}),({value:"tensorflow/tensorflow:2.2.2"})'
        + noise
        + "const{VIEWER_IMAGE_NAME:n='acme/viewer',TF_IMAGE='acme/tf'}=process.env;"
        + noise
    )
    found = likely(text, "script")
    assert {"tensorflow/tensorflow:1.7.1", "tensorflow/tensorflow:2.2.2"} <= set(found)
    assert set(found) <= {
        "tensorflow/tensorflow:1.7.1",
        "tensorflow/tensorflow:2.2.2",
        "acme/viewer",
        "acme/tf",
    }
    assert found["acme/tf"].names == ("TF_IMAGE",)


YAML = """
# image: acme/commented:1.0.0
apiVersion: batch/v1
spec:
  image: acme/plain:1.0.0
  other: "ghcr.io/acme/quoted:v1"
  launcherImage: acme/named
  command: ["docker", "run", "alpine:3.10"]
  ports: [80:8080]
  time: 12:30
"""


def test_yaml_values_are_found() -> None:
    assert {"acme/plain:1.0.0", "ghcr.io/acme/quoted:v1", "acme/named", "alpine:3.10"} == set(
        likely(YAML, "yaml")
    )


def test_shell_commands_and_defaults_are_found() -> None:
    text = "# docker pull acme/no:1.0\nIMAGE=${IMAGE:-acme/fallback:1.0.0}\ndocker pull redis:7.2\n"
    assert {"acme/fallback:1.0.0", "redis:7.2"} <= set(likely(text, "shell"))
    assert "acme/no:1.0" not in likely(text, "shell")


def test_what_an_image_is_built_from_is_not_reported() -> None:
    text = "FROM golang:1.24 AS build\nFROM alpine:3.10\nCOPY --from=acme/tool:1.0 /a /a\n"
    assert likely(text, "build") == {}


def test_a_settings_file_s_values_are_found() -> None:
    text = 'RUNNER_IMAGE=acme/runner:3.1.0\n[x]\nhelper = "quay.io/acme/helper:v2"\n'
    assert set(likely(text, "settings")) == {"acme/runner:3.1.0", "quay.io/acme/helper:v2"}


def test_lines_are_counted_from_where_a_piece_begins() -> None:
    (spot,) = find_candidates(b'\n\nIMAGE = "alpine:3.10"\n', "python", first_line=100)
    assert spot.line == 102
