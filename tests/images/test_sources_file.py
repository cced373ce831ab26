"""`images.sources.yaml` reads as it was written, and says what is covered and why not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kfdeploy.errors import UserError
from kfdeploy.images import sources_file
from kfdeploy.images.inventory import ComponentScan, ImageUse, SourceLocation, merge_scans
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.workspace.settings import Images

SHA = "sha256:" + "ab" * 32
KEY = ObjectKey("v1", "ConfigMap", "n", 'odd "name"')


def found(need: str = "required", redirect: str = "patch", pulled_by: str = "") -> ImageUse:
    return ImageUse(
        *("one", KEY, "data[a: b]", ("data", "a: b"), "config", redirect),
        place=SourceLocation("a b.yaml", 3),
        overridden_by=(SourceLocation("k.yaml", 1),),
        need=need,
        note='says "x"',
        pulled_by=pulled_by,
    )


INVENTORY = merge_scans(
    "1.0",
    [
        ComponentScan(
            (
                ("mysql:8.4", found()),
                (f"ghcr.io/a/b:1@{SHA}", found("optional", "env X")),
                (f"ghcr.io/a/c@{SHA}", found(redirect="none")),
                ("a/b", found("user-choice")),
            )
        )
    ],
)


def test_it_reads_as_it_was_written() -> None:
    images = sources_file.collect_source_images(INVENTORY, Images(extra=("extra/one:1",)))
    assert sources_file.parse_sources(sources_file.dump_sources(INVENTORY, images)) == images
    assert sources_file.parse_sources(sources_file.dump_sources(INVENTORY, ())) == ()


def test_each_image_has_its_neutral_path_and_tag() -> None:
    listed = {image.ref: image for image in sources_file.collect_source_images(INVENTORY, Images())}
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
    listed = {
        image.ref: image.why_not
        for image in sources_file.collect_source_images(INVENTORY, settings)
    }
    assert listed["mysql:8.4"] == "excluded: we have one"
    assert listed["a/b"] == ""
    listed = {
        image.ref: image.why_not
        for image in sources_file.collect_source_images(INVENTORY, Images())
    }
    assert listed["a/b"] == "user-choice: not among images.needs"


def test_a_place_that_nothing_redirects_is_for_a_person_to_decide() -> None:
    none = found(redirect="none")
    content = merge_scans(
        "1.0",
        [
            ComponentScan(
                (
                    ("a/one:1", none),
                    ("a/one:1", found()),
                    ("a/two:1", replace(none, need="user-choice")),
                    ("a/five:1", replace(none, need="user-choice")),
                    ("a/five:1", found()),
                    ("a/three:1", replace(none, redirect="admission")),
                    ("a/four:1", none),
                )
            )
        ],
    )
    settings = Images.model_validate({"exclude": [{"ref": "a/four*", "reason": "not here"}]})
    listed = sources_file.collect_source_images(content, settings)
    assert [image.ref for image in listed if image.lacks_redirect] == ["a/one:1"]
    assert {image.ref: image.redirects for image in listed if image.is_loose} == {
        "a/two:1": ("none",),
        "a/five:1": ("patch",),
    }


def test_what_a_program_copies_itself_says_so() -> None:
    copied = found(redirect="none", pulled_by="program")
    choice = replace(copied, need="user-choice")
    content = merge_scans(
        "1.0",
        [
            ComponentScan(
                (
                    ("a/one:1", copied),
                    ("a/two:1", found(redirect="none")),
                    ("a/three:1", choice),
                    ("a/four:1", choice),
                    ("a/four:1", found()),
                )
            )
        ],
    )
    images = sources_file.parse_sources(
        sources_file.dump_sources(content, sources_file.collect_source_images(content, Images()))
    )
    assert [image.ref for image in images if image.is_copied] == ["a/one:1", "a/three:1"]


def test_an_image_that_a_place_needs_by_tag_says_so() -> None:
    content = merge_scans(
        "1.0", [ComponentScan((("a/one:1", replace(found(), pin="tag")), ("a/two:1", found())))]
    )
    images = sources_file.parse_sources(
        sources_file.dump_sources(content, sources_file.collect_source_images(content, Images()))
    )
    assert {image.ref: image.by_tag for image in images} == {"a/one:1": True, "a/two:1": False}


def test_an_image_has_the_normalised_references_that_mean_it() -> None:
    (mysql, *_) = [
        i for i in sources_file.collect_source_images(INVENTORY, Images()) if i.ref == "mysql:8.4"
    ]
    tag = "docker.io/library/mysql:8.4"
    assert mysql.reference_keys(SHA) == (tag, f"docker.io/library/mysql@{SHA}")
    assert mysql.reference_keys("") == (tag,)
    (pinned,) = [
        i
        for i in sources_file.collect_source_images(INVENTORY, Images())
        if i.ref.startswith("ghcr.io/a/c")
    ]
    other = "sha256:" + "cd" * 32
    assert pinned.reference_keys(other) == (f"ghcr.io/a/c@{other}", f"ghcr.io/a/c@{SHA}")
    assert pinned.reference_keys(SHA) == (f"ghcr.io/a/c@{SHA}",)


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
        sources_file.parse_sources(text)
    assert caught.value.message.startswith(message)
    assert caught.value.hint == "`kfdeploy lock` writes the file anew"
