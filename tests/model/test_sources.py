"""`images.sources.yaml` reads as it was written, and says what is covered and why not."""

from __future__ import annotations

import pytest

from kfdeploy.errors import UserError
from kfdeploy.model import sources
from kfdeploy.model.inventory import Found, Place, gather
from kfdeploy.model.objects import ObjectKey
from kfdeploy.model.workspace import Images

SHA = "sha256:" + "ab" * 32
KEY = ObjectKey("v1", "ConfigMap", "n", 'odd "name"')


def found(need: str = "required", redirect: str = "patch") -> Found:
    return Found(
        *("one", KEY, "data[a: b]", ("data", "a: b"), "config", redirect),
        place=Place("a b.yaml", 3),
        overridden_by=(Place("k.yaml", 1),),
        need=need,
        note='says "x"',
    )


INVENTORY = gather(
    "1.0",
    [
        ("mysql:8.4", found()),
        (f"ghcr.io/a/b:1@{SHA}", found("optional", "env X")),
        (f"ghcr.io/a/c@{SHA}", found(redirect="none")),
        ("a/b", found("user-choice")),
    ],
    [],
)


def test_it_reads_as_it_was_written() -> None:
    images = sources.listed(INVENTORY, Images(extra=("extra/one:1",)))
    assert sources.parse(sources.dump(INVENTORY, images)) == images
    assert sources.parse(sources.dump(INVENTORY, ())) == ()


def test_each_image_has_its_neutral_path_and_tag() -> None:
    listed = {image.ref: image for image in sources.listed(INVENTORY, Images())}
    assert {ref: (image.path, image.tag, image.digest) for ref, image in listed.items()} == {
        "mysql:8.4": ("docker.io/library/mysql", "8.4", ""),
        f"ghcr.io/a/b:1@{SHA}": ("ghcr.io/a/b", "1", SHA),
        f"ghcr.io/a/c@{SHA}": ("ghcr.io/a/c", "", SHA),
        "a/b": ("docker.io/a/b", "latest", ""),
    }


def test_what_is_not_covered_says_why() -> None:
    settings = Images.model_validate(
        {"exclude": [{"ref": "mysql*", "reason": "we have one"}], "extra": ["a/b"]}
    )
    listed = {image.ref: image.why_not for image in sources.listed(INVENTORY, settings)}
    assert listed["mysql:8.4"] == "excluded: we have one"
    assert listed["a/b"] == ""
    listed = {image.ref: image.why_not for image in sources.listed(INVENTORY, Images())}
    assert listed["a/b"] == "user-choice: not among images.needs"


def test_an_image_with_a_place_that_nothing_redirects_is_not_redirected() -> None:
    listed = {image.ref: image.is_redirected for image in sources.listed(INVENTORY, Images())}
    assert [ref for ref, yes in listed.items() if not yes] == [f"ghcr.io/a/c@{SHA}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("images: [\n", "images.sources.yaml: "),
        ("images:\n- ref: x\n", "images.sources.yaml: not a list of images as `lock` writes it"),
        ("", "images.sources.yaml: not a list of images as `lock` writes it"),
        ("- a\n", "images.sources.yaml: not a list of images as `lock` writes it"),
    ],
)
def test_what_is_no_such_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        sources.parse(text)
    assert caught.value.message.startswith(message)
    assert caught.value.hint == "`kfdeploy lock` writes the file anew"
