"""References as Docker reads them: examples of ours, and the reference library's own tables.

The library's tables are read where the Go module cache has them:
``go mod download github.com/distribution/reference@v0.6.0``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kfdeploy.oci.reference import ImageRef, InvalidImageRef, is_image_ref

D = "sha256:" + "0123456789abcdef" * 4
MODULE = "github.com/distribution/reference@v0.6.0"


@pytest.mark.parametrize(
    ("text", "host", "path", "tag", "digest"),
    [
        ("redis", "docker.io", "library/redis", "", ""),
        ("redis:6", "docker.io", "library/redis", "6", ""),
        ("redis:5000", "docker.io", "library/redis", "5000", ""),
        ("docker.io/redis", "docker.io", "library/redis", "", ""),
        ("index.docker.io/redis", "docker.io", "library/redis", "", ""),
        ("index.docker.io/a/b", "docker.io", "a/b", "", ""),
        ("kubeflow/katib:v1", "docker.io", "kubeflow/katib", "v1", ""),
        ("gcr.io/a", "gcr.io", "a", "", ""),
        ("gcr.io/a/b:v1", "gcr.io", "a/b", "v1", ""),
        ("localhost/a", "localhost", "a", "", ""),
        ("localhost:5000", "docker.io", "library/localhost", "5000", ""),
        ("localhost:5000/a:1", "localhost:5000", "a", "1", ""),
        ("host:5000/a", "host:5000", "a", "", ""),
        ("Host/a", "Host", "a", "", ""),
        ("[::1]:5000/a:1", "[::1]:5000", "a", "1", ""),
        # A digest alone is a repository called sha256, to `ParseNormalizedNamed`.
        (D, "docker.io", "library/sha256", D.partition(":")[2], ""),
        ("a__b/c-d--e.f_g", "docker.io", "a__b/c-d--e.f_g", "", ""),
        ("a:_T.-x", "docker.io", "library/a", "_T.-x", ""),
        ("a:" + "t" * 128, "docker.io", "library/a", "t" * 128, ""),
        (f"a@{D}", "docker.io", "library/a", "", D),
        (f"gcr.io/a:v1@{D}", "gcr.io", "a", "v1", D),
        ("gcr.io/a@sha512:" + "f" * 128, "gcr.io", "a", "", "sha512:" + "f" * 128),
        ("gcr.io/" + "a" * 255, "gcr.io", "a" * 255, "", ""),
        # The first element looks like a host by its dot and is none: Docker adds no host.
        ("a_b.example/x:1", "", "a_b.example/x", "1", ""),
    ],
)
def test_reference_is_read_as_docker_reads_it(
    text: str, host: str, path: str, tag: str, digest: str
) -> None:
    assert ImageRef.parse(text) == ImageRef(host, path, tag, digest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        "redis\n",
        "Redis",
        "a/B",
        "gcr.io/A/b",
        "gcr.io/",
        "/a",
        "a//b",
        "a/",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "a._b",
        ":tag",
        "a:",
        "a:-t",
        "a:t/b",
        "a:" + "t" * 129,
        "a:t:t",
        f"@{D}",
        "0123456789abcdef" * 4,
        "a@sha256:" + "f" * 63,
        "a@sha256:" + "f" * 65,
        "a@sha256:" + "F" * 64,
        "a@md5:" + "f" * 32,
        f"a@SHA{D[3:]}",
        f"a@{D}:tag",
        "https://gcr.io/a",
        "gcr.io/" + "a" * 256,
        "host:port/a",
        "[::1]",
        "[fe80::1%eth0]:5000/a",
        "é/a",
        "gcr.io/a:é",
        "$(image)",
        "${REGISTRY}/a",
    ],
)
def test_what_docker_refuses_is_refused(text: str) -> None:
    assert not is_image_ref(text)
    with pytest.raises(InvalidImageRef):
        ImageRef.parse(text)


def test_tag_and_digest_keeps_digest() -> None:
    ref = ImageRef.parse(f"nginx:1.27@{D}")
    assert (ref.tag, ref.digest) == ("1.27", D)
    assert str(ref) == f"docker.io/library/nginx:1.27@{D}"
    assert ref.with_default_tag() == ref


def test_latest_is_added_only_where_neither_tag_nor_digest_is() -> None:
    assert ImageRef.parse("nginx").with_default_tag().tag == "latest"
    assert ImageRef.parse("nginx:1").with_default_tag().tag == "1"
    assert ImageRef.parse(f"nginx@{D}").with_default_tag().tag == ""


def test_what_is_written_is_read_the_same() -> None:
    for text in ("redis", f"gcr.io/a/b:v1@{D}", "localhost:5000/x", "a_b.example/x:1"):
        ref = ImageRef.parse(text)
        assert ImageRef.parse(str(ref)) == ref


def test_upper_case_is_named_as_the_reason() -> None:
    with pytest.raises(InvalidImageRef, match="lower case"):
        ImageRef.parse("gcr.io/Team/app:V1")


# -- the reference library's own tables ----------------------------------------------------------


def _library() -> Path | None:
    places = [Path.home() / "go" / "pkg" / "mod"]
    if os.environ.get("GOPATH"):
        places.insert(0, Path(os.environ["GOPATH"]) / "pkg" / "mod")
    if os.environ.get("GOMODCACHE"):
        places.insert(0, Path(os.environ["GOMODCACHE"]))
    if go := shutil.which("go"):
        asked = subprocess.run([go, "env", "GOMODCACHE"], capture_output=True, text=True)
        places.insert(0, Path(asked.stdout.strip() or "/nowhere"))
    return next((p / MODULE for p in places if (p / MODULE).is_dir()), None)


LIBRARY = _library()
needs_library = pytest.mark.skipif(
    LIBRARY is None, reason=f"not in the Go module cache: go mod download {MODULE}"
)


def _function(file: str, name: str) -> str:
    """A test function's text, without comments."""
    assert LIBRARY is not None
    text = (LIBRARY / file).read_text(encoding="utf-8")
    body = text[text.index(f"func {name}(") :]
    body = body[: body.index("\n}\n")]
    return re.sub(r"(?m)(^|,)[ \t]*//.*$", r"\1", body)


def _text(expression: str) -> str:
    """The value of a Go string expression: literals and strings.Repeat, joined by +."""
    result = ""
    for repeated, times, literal in re.findall(
        r'strings\.Repeat\("([^"]*)", (\d+)\)|"((?:[^"\\]|\\.)*)"', expression
    ):
        result += repeated * int(times) if times else literal
    return result


def _rows(file: str, function: str) -> Iterator[dict[str, str]]:
    """The rows of a table of structs: field name to the field's Go expression."""
    body = _function(file, function)
    rows = re.findall(r"\n\t\t\{\n(.*?)\n\t\t\},", body, re.DOTALL)
    assert len(rows) > 5, f"{function}: the table has another form"
    for row in rows:
        yield dict(re.findall(r"(\w+):\s*(.+?),?[ \t]*(?:\n|$)", row.replace(":\n", ": ")))


def _strings(function: str, variable: str) -> list[str]:
    body = _function("normalize_test.go", function)
    start = body.index(f"{variable} := []string{{")
    found = [_text(line) for line in body[start : body.index("\n\t}", start)].split("\n")[1:]]
    return [text for text in found if text]


@needs_library
@pytest.mark.parametrize(
    ("function", "valid", "invalid"),
    [
        ("TestValidateReferenceName", "validRepoNames", "invalidRepoNames"),
        ("TestValidateRemoteName", "validRepositoryNames", "invalidRepositoryNames"),
    ],
)
def test_library_names(function: str, valid: str, invalid: str) -> None:
    good, bad = _strings(function, valid), _strings(function, invalid)
    assert len(good) > 5 and len(bad) > 5
    assert [name for name in good if not is_image_ref(name)] == []
    assert [name for name in bad if is_image_ref(name)] == []


@needs_library
def test_library_normalised_names() -> None:
    for row in _rows("normalize_test.go", "TestParseRepositoryInfo"):
        value = {key: _text(expression) for key, expression in row.items()}
        for key in ("FamiliarName", "FullName", "AmbiguousName"):
            if value[key]:
                ref = ImageRef.parse(value[key])
                assert (ref.host, ref.path) == (value["Domain"], value["RemoteName"])
                assert str(ref) == value["FullName"]


@needs_library
def test_library_split_hosts() -> None:
    for row in _rows("normalize_test.go", "TestNormalizedSplitHostname"):
        ref = ImageRef.parse(_text(row["input"]))
        assert (ref.host, ref.path) == (_text(row["domain"]), _text(row["path"]))


@needs_library
def test_library_any_references() -> None:
    for row in _rows("normalize_test.go", "TestParseAnyReference"):
        text, expected = _text(row["Reference"]), _text(row["Equivalent"])
        if expected.startswith("sha256:"):
            # `ParseAnyReference` takes these as image IDs, `ParseNormalizedNamed` does not.
            assert not is_image_ref(text.removeprefix("sha256:"))
        else:
            assert str(ImageRef.parse(text)) == expected


@needs_library
def test_library_docker_references() -> None:
    for row in _rows("normalize_test.go", "TestParseDockerRef"):
        ref = ImageRef.parse(_text(row["input"])).with_default_tag()
        # What a runtime asks for: the digest alone, where there is one.
        asked = f"{ref.repository}@{ref.digest}" if ref.digest else str(ref)
        assert asked == _text(row["expected"])


@needs_library
def test_library_canonical_names() -> None:
    for row in _rows("reference_test.go", "TestParseNamed"):
        text = _text(row["input"])
        if "err" in row:
            assert str(ImageRef.parse(text)) != text
        else:
            ref = ImageRef.parse(text)
            assert (ref.host, ref.path) == (_text(row["domain"]), _text(row["path"]))


@needs_library
def test_library_parse_table() -> None:
    """`Parse` knows no default host, so hosts are compared only where they look like one."""
    for row in _rows("reference_test.go", "TestReferenceParse"):
        text = _text(row["input"])
        if "err" in row:
            assert not is_image_ref(text), text
            continue
        ref = ImageRef.parse(text)
        assert ref.tag == _text(row.get("tag", "")), text
        assert ref.digest == _text(row.get("digest", "")), text
        domain = _text(row.get("domain", ""))
        if re.search("[.:]", domain):
            assert ref.repository == _text(row["repository"]), text
            assert ref.host == domain


@needs_library
def test_library_reference_grammar() -> None:
    body = _function("regexp_test.go", "TestReferenceRegexp")
    rows = re.findall(
        r'input:\s*"([^"]+)",\s*match: (true|false),(?:\s*subs:\s*\[\]string\{([^}]*)\})?', body
    )
    assert len(rows) > 8
    for text, match, groups in rows:
        assert is_image_ref(text) == (match == "true"), text
        if match == "true":
            _, tag, digest = re.findall(r'"([^"]*)"', groups)
            assert (ImageRef.parse(text).tag, ImageRef.parse(text).digest) == (tag, digest)
