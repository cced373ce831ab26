"""Images inside longer strings: what is a mention, where it is, and what only looks like one."""

from __future__ import annotations

import random
import time

import pytest

from kfdeploy.images.mentions import (
    Mention,
    find_mentions,
    find_tag_default,
    is_plausible,
    is_strong,
    version_variables,
)
from tests.support.refs import written

SHA = "sha256:" + "0123456789abcdef" * 4


def refs(text: str) -> list[str]:
    return [mention.ref.text for mention in find_mentions(text)]


FOUND: dict[str, tuple[str, list[str]]] = {
    "end of a line": ("run ghcr.io/a/b:1\nnext", ["ghcr.io/a/b:1"]),
    "end of a sentence": ("see ghcr.io/a/b:1.", ["ghcr.io/a/b:1"]),
    "before a colon": ("pulled ghcr.io/a/b:1: ok", ["ghcr.io/a/b:1"]),
    "between commas": ("ghcr.io/a/b:1,ghcr.io/c:2", ["ghcr.io/a/b:1", "ghcr.io/c:2"]),
    "in brackets": ("(ghcr.io/a/b:1) [ghcr.io/c:2]", ["ghcr.io/a/b:1", "ghcr.io/c:2"]),
    "in quotes": ("'ghcr.io/a:1' \"ghcr.io/b:2\" `ghcr.io/c:3`", ["ghcr.io/a:1", "ghcr.io/b:2"]),
    "after a word and a colon": ("sidecar:ghcr.io/a/b:1", ["ghcr.io/a/b:1"]),
    "by digest alone": (f"x ghcr.io/a@{SHA} y", [f"ghcr.io/a@{SHA}"]),
    "by tag and digest": (f"x ghcr.io/a:1@{SHA} y", [f"ghcr.io/a:1@{SHA}"]),
    "a registry with a port": ("x reg.example.com:5000/a/b:1", ["reg.example.com:5000/a/b:1"]),
    "a registry by address": ("x 10.0.0.1:5000/a/b:1", ["10.0.0.1:5000/a/b:1"]),
    "on localhost": ("x localhost:5000/a:1", ["localhost:5000/a:1"]),
    "two that differ by a suffix": ("x.io/a:1 x.io/a:1-gpu", ["x.io/a:1", "x.io/a:1-gpu"]),
    "a tag in upper case": ("ghcr.io/a/b:V1.0-RC", ["ghcr.io/a/b:V1.0-RC"]),
    # -- YAML
    "yaml": ("a: 1\nimage: a/b:1\n", ["a/b:1"]),
    "yaml without slash": ("image: mysql:8.4\n", ["mysql:8.4"]),
    "yaml with a tag of two digits": ("image: postgres:15\n", ["postgres:15"]),
    "yaml without tag": ("image: tensorflow/tensorflow\n", ["tensorflow/tensorflow"]),
    "yaml, a word in a pod": ("containers:\n- name: x\n  image: mysql\n", ["mysql"]),
    "flow yaml": ("{image: c/d:1, images: [a/b:1, x:8.4]}", ["c/d:1", "a/b:1", "x:8.4"]),
    "list under images": ("images:\n- a/b:1\n- c/d:2\n", ["a/b:1", "c/d:2"]),
    "list of lists": ("images: [[a/b:1], [[c/d:2]]]\n", ["a/b:1", "c/d:2"]),
    "options of a form": (
        "image:\n  value: a/b:1\n  options:\n  - a/b:1\n  - c/d:2\n",
        ["a/b:1", "a/b:1", "c/d:2"],
    ),
    "group of a form": ("imageGroupOne:\n  value: a/b:1\n", ["a/b:1"]),
    "a key with another word": ("resizeImage: a/b:1\nstageImage: c:2\n", ["a/b:1", "c:2"]),
    "several documents": ("image: a/b:1\n---\nimage:\n  value: c/d:2\n", ["a/b:1", "c/d:2"]),
    "yaml inside yaml": ("x: |\n  image: a/b:1\n  y: |\n    image: c/d:2\n", ["a/b:1", "c/d:2"]),
    "block scalar": ("image: |\n  a/b:1\nx: >-\n  ghcr.io/c:2\n", ["a/b:1", "ghcr.io/c:2"]),
    "anchor and alias": ("x: &i a/b:1\nimage: *i\n", ["a/b:1"]),
    "merge key": ("a: &a {image: 'a/b:1'}\nb: {<<: *a}\n", ["a/b:1"]),
    "keys that are no strings": ("1: {image: 'a:1'}\n? [x]\n: {image: 'c:2'}\n", ["a:1", "c:2"]),
    "a label that names an image": ("sidecar.istio.io/proxyImage: a/b:1\n", ["a/b:1"]),
    "dotted key": ("spark.kubernetes.container.image=a/b:1\n", ["a/b:1"]),
    "windows line ends": ("image: a/b:1\r\nx: ghcr.io/c:2\r\n", ["a/b:1", "ghcr.io/c:2"]),
    "tab": ("image:\ta/b:1\n", ["a/b:1"]),
    # -- JSON
    "json": ('{"image": "a/b:1"}', ["a/b:1"]),
    "json, space before the colon": ('{"image" : "a/b:1","x":"1"}', ["a/b:1"]),
    "json without tag": ('{"image" : "tensorflow/tensorflow"}', ["tensorflow/tensorflow"]),
    "json in json": ('{"x": "{\\"image\\": \\"a/b:1\\"}"}', ["a/b:1"]),
    "json with escapes": ('{"x": "one\\nghcr.io/a:1\\ttwo"}', ["ghcr.io/a:1"]),
    # -- INI and properties
    "ini": ("[x]\nimage = a/b:1\ndriver_image=c/d:2\n", ["a/b:1", "c/d:2"]),
    "list in properties": ("IMAGES=a/b:1,c/d:2, e/f:3\n", ["a/b:1", "c/d:2", "e/f:3"]),
    # -- scripts
    "shell variable": ("IMAGE=a/b:1; echo\n", ["a/b:1"]),
    "shell default": ("IMAGE=${IMAGE:-a/b:1}\nX=${X:-ghcr.io/c:2}\n", ["a/b:1", "ghcr.io/c:2"]),
    "shell default, set": (': "${IMAGE:=a/b:1}"\n', ["a/b:1"]),
    "flags": ("kubectl run x --image=a/b:1 --image mysql:8.4\n", ["a/b:1", "mysql:8.4"]),
    "a flag's value that is a setting": ("helm upgrade --set image=a/b:1\n", ["a/b:1"]),
    "docker": ("docker run --rm ghcr.io/a:1 sh -c x\n", ["ghcr.io/a:1"]),
    "make": ("IMAGE ?= a/b:1\nIMAGE := c/d:2\n", ["a/b:1", "c/d:2"]),
    "javascript": ("const image = 'a/b:1'; let fooImage = \"c/d:2\";\n", ["a/b:1", "c/d:2"]),
    "python": ("os.environ.get('IMAGE', 'a/b:1')\n", ["a/b:1"]),
    # -- Go templates
    "template around": ("{{ if .X }}\nimage: busybox:1.28\n{{ end }}\n", ["busybox:1.28"]),
    "template's default": ('{{ default "ghcr.io/a:1" .X }}\n', ["ghcr.io/a:1"]),
    "xml": ("<image>ghcr.io/a:1</image>", ["ghcr.io/a:1"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_a_mention_is_found(case: str) -> None:
    text, expected = FOUND[case]
    found = refs(text)
    assert found[: len(expected)] == expected
    assert set(found) == set(expected) or case == "in quotes"


NONE = {
    "url": "https://ghcr.io/a/b:1 http://x.y:443/a:1",
    "oci": "oci://ghcr.io/a/b:1 docker://ghcr.io/a:1",
    "buckets": "s3://bucket.x/a:1 gs://x.y/z:1 minio-service.kubeflow:9000/bucket",
    "mail": "me@example.com/x:1 git@github.com:a/b.git",
    "source repository": "github.com/a/b:main github.com/a/b@v1.2.3",
    "file": "/usr/lib/python3.11/a.py:12 ./a.b/c:1 ../x.io/a:1",
    "group and version": "apiVersion: serving.kserve.io/v1beta1\nimage.x.io/v1: 1\n",
    "namespace and name": "gateway: kubeflow/kubeflow-gateway\n",
    "host and port": "a: ml-pipeline.kubeflow:8887\nimage: registry.x:5000\nimageHost: svc:8080\n",
    "label": "app.kubernetes.io/name:foo sidecar.istio.io/inject:true networking.knative.dev/x:y",
    "template": "image: {{ .ProxyImage }}\nimage: {{.Hub}}/a:1\nx: ghcr.io/a:{{ .Tag }}\n",
    "half of a template": "x: a.io/a:1-{{ .Arch }} a.io/a:1$SUFFIX a.io/a:1%s a.io/%s/b:1",
    "placeholder": "image: $VIEWER_IMAGE\nimage: IMAGE_URL\nimage: ${HUB}/a:1\nimage: {image}\n",
    "f-string": 'image = f"{image}:{tag}"\n',
    "empty": 'image: ""\nimage:\nimage: null\nimage: ~\nimage: 5\nimage: true\n',
    "empty in a pod": 'containers:\n- image: ""\n- image: null\n- image:\n- image: "{{ .X }}"\n',
    "other keys": "imagePullPolicy: a/b:1\nimagePullSecrets: [a/b:1]\nimageVersion: a/b:1\n",
    "hash": f"image: {SHA}\nx: {SHA}\n{SHA[7:]}\n",
    "ipv6": "[::1]:5000/a/b:1 [2001:db8::1]:5000/a:1",
    "comment": "# ghcr.io/a:1\n  // ghcr.io/a:2\n; ghcr.io/a:3\n",
    "comment behind": 'x: 1 # was ghcr.io/a:1\ny: "a\'b" # ghcr.io/a:2\n',
    "docstring": 'def f():\n    """Runs ghcr.io/a:1.\n\n    image: a/b:1\n    """\n',
    "upper-case repository": "x ghcr.io/A/b:1",
    "prose": "The image, foo/bar or so, is in namespace/name: x.",
    "time": "12:30/12:40 1.2.3.4/5:6",
    "no separator": "ghcr.io a/b 1:2",
    "nothing": "",
}


@pytest.mark.parametrize("case", NONE)
def test_what_only_looks_like_one_is_none(case: str) -> None:
    assert refs(NONE[case]) == []


def test_a_number_sign_in_quotes_starts_no_comment() -> None:
    assert refs('x: "a # b" ghcr.io/a:1\nimage: a/b#c:1 # ghcr.io/c:2\n') == ["ghcr.io/a:1"]
    assert refs("#!/bin/sh\nrun ghcr.io/a:1 # ghcr.io/c:2\n") == ["ghcr.io/a:1"]


@pytest.mark.parametrize(
    "before", ["", "数: 说明 你好\n", 'x: "😀😀"\n', "é: ü\r\n", "\ufeff", "a: \u2028b\n"]
)
@pytest.mark.parametrize(
    "text",
    [
        "image: a/b:1\nx: ghcr.io/c:2\n",
        '{"图": "你😀", "image": "a/b:1"}',
        "IMAGE=${IMAGE:-a/b:1}\n",
        "image: a/b\nversion: v1\n",
    ],
)
def test_spans_count_in_characters(before: str, text: str) -> None:
    value = before + text
    mentions = find_mentions(value)
    assert mentions or before == "\ufeff"
    for mention in mentions:
        for part in mention.parts:
            assert value[part.start : part.end] == part.text
            assert not part.context or part.context in value
            if part.context:
                at = part.offset
                assert part.context[at : at + len(part.text)] == part.text


JOINED = {
    "hub, image and tag": (
        '{"x": {"hub": "gcr.io/x", "y": {"image": "proxyv2"}, "tag": "1.2"}, "z": {"hub": ""}}',
        {"gcr.io/x/proxyv2:1.2": ("hub", "tag")},
    ),
    "two images below one hub": (
        "hub: gcr.io/x\ntag: 1.2\na: {image: one}\nb: {image: two}\nc: {image: one}\n",
        {"gcr.io/x/one:1.2": ("hub", "tag"), "gcr.io/x/two:1.2": ("hub", "tag")},
    ),
    "name and version": (
        '{"art": {"image" : "kserve/art-explainer", "defaultImageVersion": "latest"}}',
        {"kserve/art-explainer:latest": ("name", "tag")},
    ),
    "name and two versions": (
        '{"image": "a/serving", "defaultImageVersion": "2", "defaultGpuImageVersion": "2-gpu"}',
        {
            "a/serving:2": ("name", "tag"),
            "a/serving:2-gpu": ("name", "tag"),
        },
    ),
    "repository and tag": (
        "image:\n  repository: ghcr.io/a\n  tag: v1\n  pullPolicy: Always\n",
        {"ghcr.io/a:v1": ("name", "tag")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", JOINED)
def test_halves_are_joined_and_are_none_alone(case: str) -> None:
    text, expected = JOINED[case]
    found = find_mentions(text)
    assert {mention.ref.text: tuple(p.role for p in mention.parts) for mention in found} == expected
    assert all(mention.is_assembled for mention in found)
    for mention in found:
        for part in mention.parts:
            assert part.text in part.context


@pytest.mark.parametrize(
    "text",
    [
        "hub: ''\ntag: '1'\nimage: x\n",
        "hub: gcr.io/x\ntag: ''\nproxy: {image: x}\n",
        "image: kserve/art\nversion: ''\n",
        "x: {repository: kubeflow/manifests, tag: v1}\n",
    ],
)
def test_halves_that_lack_the_other_half_are_not_joined(text: str) -> None:
    assert not [mention for mention in find_mentions(text) if mention.is_assembled]


def test_a_name_joined_from_a_hub_stands_where_its_image_is() -> None:
    text = '{"hub": "gcr.io/x",\n"tag": "1",\n"proxy": {"image": "proxyv2"}}'
    (mention,) = find_mentions(text)
    assert text[: mention.leading_span.start].count("\n") == 2
    assert mention.leading_span.text == "proxyv2"


def test_a_scripts_default_may_stand_on_a_line_of_its_own() -> None:
    text = (
        'settings["server_image"] = server_image or os.environ.get(\n'
        '    "SERVER_IMAGE", "ghcr.io/kubeflow/server"\n)\n'
        'settings["server_tag"] = server_tag or \\\n'
        '    os.environ.get("SERVER_TAG") or os.environ["KFP_VERSION"]\n'
        'image = f"{settings["server_image"]}:{settings["server_tag"]}"\n'
    )
    (mention,) = find_mentions(text)
    assert (mention.ref.text, mention.variables) == (
        "ghcr.io/kubeflow/server",
        ("SERVER_IMAGE", "SERVER_TAG"),
    )
    assert version_variables(text) == ("KFP_VERSION",)


def test_a_script_joins_the_default_of_two_variables() -> None:
    text = (
        'A = os.environ.get("A_IMAGE", "ghcr.io/x/a")\n'
        'T = os.environ.get("A_TAG", "1.0")\nB = os.environ.get("B_IMAGE", "ghcr.io/x/b:2")\n'
    )
    first, second = sorted(find_mentions(text), key=lambda mention: mention.ref)
    assert (first.ref.text, first.variables) == ("ghcr.io/x/a", ("A_IMAGE", "A_TAG"))
    assert (second.ref.text, second.variables) == ("ghcr.io/x/b:2", ())
    assert find_tag_default(text, "A_TAG") == "1.0"
    assert find_tag_default("echo ${A_TAG:-v2}", "A_TAG") == "v2"
    assert find_tag_default(text, "B_TAG") is None


@pytest.mark.parametrize(
    ("text", "context"),
    [
        ("IMAGE=${IMAGE:-a/b:1}", "IMAGE:-a/b:1"),
        ("x:ghcr.io/a:1", "x:ghcr.io/a:1"),
        ("x: 1\nimage: a/b", "image: a/b"),
        ('{"image": "a/b"}', 'image": "a/b'),
        ("--image=a/b:1", ""),
        ("image: a/b:1", ""),
        ("run ghcr.io/a:1.", ""),
    ],
)
def test_a_mention_that_its_neighbours_do_not_bound_has_a_context(text: str, context: str) -> None:
    (mention,) = find_mentions(text)
    part = mention.parts[0]
    assert part.context.strip('"') == context
    if context:
        assert part.context[part.offset :].startswith(mention.ref.text)


def test_an_alias_to_itself_ends() -> None:
    assert refs("image: &a\n- *a\n- a/b:1\n") == ["a/b:1"]
    bomb = "\n".join(f"x{n}: &x{n} [*x{n - 1}, *x{n - 1}, *x{n - 1}]" for n in range(1, 40))
    assert refs(f"image:\n  x0: &x0 [a/b:1]\n  {bomb.replace(chr(10), chr(10) + '  ')}\n") == [
        "a/b:1"
    ]


N = 1 << 20
BIG = {
    "letters": "a" * N + ":",
    "dots": "a." * (N // 2) + ":",
    "labels": "ab." * (N // 3) + "/:",
    "slashes": "a/" * (N // 2) + ":",
    "dashes": "a-" * (N // 2) + ":",
    "underscores": "a_" * (N // 2) + ":",
    "spaces": "image" + " " * N + ":",
    "keys": "image:" * (N // 6),
    "digits": "1." * (N // 2) + ":5000/a:",
    "quotes": '"' * N + ":",
    "docstrings": '\n"""' * (N // 4) + ":",
    "opened docstrings": "'''\n\"\"\"x" * (N // 8) + ":",
    "comments": "a # 'b\n" * (N // 7) + ":",
    "quotes before a comment": "'" + 'a "b" #' * (N // 7) + "\n:",
    "variables": '("A' + "_IMAGE" * (N // 6) + '", x/y',
    "defaults": '("A_IMAGE", "a/b" ' * (N // 18) + "A_TAG",
    "prose": "the quick brown fox: jumps/over the lazy dog.\n" * (N // 46),
    "base64": "".join(random.Random(1).choices("ABCabc0123/+", k=N)) + ":",
    "open lists": "[" * 20000 + "image",
    "open objects": '{"image":' * 2000,
    "flow yaml that libyaml refuses": "x: {image: a/b:1}\n" + "y: {u: a/b:c, d: 1}\n" * (N // 20),
    "a log": "2024-01-01T00:00:00Z INFO pod/x image ghcr.io/a/b:1 pulled\n" + "x: y\n" * (N // 5),
}  # fmt: skip


@pytest.mark.parametrize("case", BIG)
def test_a_megabyte_takes_about_a_second(case: str) -> None:
    """Measured at up to 0.9 s on one busy core; a pattern that backtracks would take minutes."""
    started = time.process_time()
    find_mentions(BIG[case])
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("value", "plausible", "strong"),
    [
        ("mysql:8.4", True, False),
        ("mysql", False, False),
        ("a/b", True, False),
        ("ghcr.io/a", True, False),
        ("ghcr.io/a:1", True, True),
        ("postgres:15", True, False),
        ("svc:8080", False, False),
        ("a.b:80", False, False),
        (SHA, False, False),
        ("github.com/a/b:main", True, False),
        ("registry.istio.io/release/pilot:1.28", True, True),
        ("registry.k8s.io/pause:3.10", True, True),
        ("", False, False),
        ("a b", False, False),
    ],
)
def test_a_whole_value(value: str, plausible: bool, strong: bool) -> None:
    assert (is_plausible(value), is_strong(value)) == (plausible, strong)


def test_a_whole_mention_is_its_string() -> None:
    mention = Mention.from_value(written("a/b:1"))
    assert (mention.ref.text, mention.parts[0].start, mention.parts[0].end) == ("a/b:1", 0, 5)
    assert not mention.is_assembled
