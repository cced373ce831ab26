"""`images.sources.yaml` reads as it was written, and says what is covered and why not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kfdeploy.errors import UserError
from kfdeploy.images import sources_file
from kfdeploy.images.inventory import ComponentScan, ImageUse, SourceLocation, merge_scans
from kfdeploy.kubernetes.objects import ObjectKey
from kfdeploy.workspace.settings import Images
from tests.support.refs import written

SHA = "sha256:" + "ab" * 32
KEY = ObjectKey("v1", "ConfigMap", "n", 'odd "name"')


def found(
    ref: str, need: str = "required", redirect: str = "patch", pulled_by: str = ""
) -> ImageUse:
    return ImageUse(
        written(ref),
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
                found("mysql:8.4"),
                found(f"ghcr.io/a/b:1@{SHA}", "optional", "env X"),
                found(f"ghcr.io/a/c@{SHA}", redirect="none"),
                found("a/b", "user-choice"),
            )
        )
    ],
)


def test_it_reads_as_it_was_written() -> None:
    images = sources_file.collect_source_images(INVENTORY, Images(extra=("extra/one:1",)))
    assert sources_file.parse_sources(sources_file.dump_sources(INVENTORY, images)) == images
    assert sources_file.parse_sources(sources_file.dump_sources(INVENTORY, ())) == ()


def test_each_image_has_its_neutral_path_and_tag() -> None:
    listed = {
        image.ref.text: image for image in sources_file.collect_source_images(INVENTORY, Images())
    }
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
        image.ref.text: image.why_not
        for image in sources_file.collect_source_images(INVENTORY, settings)
    }
    assert listed["mysql:8.4"] == "excluded: we have one"
    assert listed["a/b"] == ""
    listed = {
        image.ref.text: image.why_not
        for image in sources_file.collect_source_images(INVENTORY, Images())
    }
    assert listed["a/b"] == "user-choice: not among images.needs"


def test_a_place_that_nothing_redirects_is_for_a_person_to_decide() -> None:
    def none(ref: str, need: str = "required", redirect: str = "none") -> ImageUse:
        return found(ref, need, redirect)

    content = merge_scans(
        "1.0",
        [
            ComponentScan(
                (
                    none("a/one:1"),
                    found("a/one:1"),
                    none("a/two:1", need="user-choice"),
                    none("a/five:1", need="user-choice"),
                    found("a/five:1"),
                    none("a/three:1", redirect="admission"),
                    none("a/four:1"),
                )
            )
        ],
    )
    settings = Images.model_validate({"exclude": [{"ref": "a/four*", "reason": "not here"}]})
    listed = sources_file.collect_source_images(content, settings)
    assert [image.ref.text for image in listed if image.lacks_redirect] == ["a/one:1"]
    assert {image.ref.text: image.redirects for image in listed if image.is_loose} == {
        "a/two:1": ("none",),
        "a/five:1": ("patch",),
    }


def test_what_a_program_copies_itself_says_so() -> None:
    def copied(ref: str, need: str = "required") -> ImageUse:
        return found(ref, need, redirect="none", pulled_by="program")

    content = merge_scans(
        "1.0",
        [
            ComponentScan(
                (
                    copied("a/one:1"),
                    found("a/two:1", redirect="none"),
                    copied("a/three:1", "user-choice"),
                    copied("a/four:1", "user-choice"),
                    found("a/four:1"),
                )
            )
        ],
    )
    images = sources_file.parse_sources(
        sources_file.dump_sources(content, sources_file.collect_source_images(content, Images()))
    )
    assert [image.ref.text for image in images if image.is_copied] == ["a/one:1", "a/three:1"]


def test_an_image_that_a_place_needs_by_tag_says_so() -> None:
    content = merge_scans(
        "1.0", [ComponentScan((replace(found("a/one:1"), pin="tag"), found("a/two:1")))]
    )
    images = sources_file.parse_sources(
        sources_file.dump_sources(content, sources_file.collect_source_images(content, Images()))
    )
    assert {image.ref.text: image.by_tag for image in images} == {"a/one:1": True, "a/two:1": False}


def test_an_image_has_the_normalised_references_that_mean_it() -> None:
    (mysql, *_) = [
        i
        for i in sources_file.collect_source_images(INVENTORY, Images())
        if i.ref.text == "mysql:8.4"
    ]
    tag = "docker.io/library/mysql:8.4"
    assert tuple(map(str, mysql.list_aliases(SHA))) == (tag, f"docker.io/library/mysql@{SHA}")
    assert tuple(map(str, mysql.list_aliases(""))) == (tag,)
    (pinned,) = [
        i
        for i in sources_file.collect_source_images(INVENTORY, Images())
        if i.ref.text.startswith("ghcr.io/a/c")
    ]
    other = "sha256:" + "cd" * 32
    assert tuple(map(str, pinned.list_aliases(other))) == (
        f"ghcr.io/a/c@{other}",
        f"ghcr.io/a/c@{SHA}",
    )
    assert tuple(map(str, pinned.list_aliases(SHA))) == (f"ghcr.io/a/c@{SHA}",)


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
