"""Versions of operators: what tags mean, and which ranges hold them."""

from __future__ import annotations

import pytest

from kfdeploy.catalogue.versions import Version, VersionRange, closest_version


@pytest.mark.parametrize(
    ("tag", "shown"),
    [
        ("v1.10.0", "1.10.0"),
        ("2.16.0", "2.16.0"),
        ("1.28.0-distroless", "1.28.0"),
        ("v2.1.0-rc.1", "2.1.0-rc.1"),
        ("v1-3f15cb8", None),
        ("latest", None),
        ("RELEASE.2019-08-14T20-37-41Z", None),
        ("26.03", "26.3"),
        ("", None),
    ],
)
def test_a_tag_is_a_version_when_it_begins_with_a_dotted_number(
    tag: str, shown: str | None
) -> None:
    version = Version.parse(tag)
    assert (str(version) if version else None) == shown


def test_versions_are_ordered_by_number_and_a_candidate_comes_before_its_release() -> None:
    texts = ["1.9.10", "1.10.0-rc.2", "1.10.0", "1.10", "2.0", "1.9.2"]
    ordered = sorted(filter(None, map(Version.parse, texts)))
    assert [str(v) for v in ordered] == ["1.9.2", "1.9.10", "1.10.0-rc.2", "1.10.0", "1.10", "2.0"]


@pytest.mark.parametrize(
    ("text", "version", "inside"),
    [
        ("1.9.2", "1.9.2", True),
        ("1.9.2", "1.9.3", False),
        ("1.9.0 - 1.10.0", "1.9.7", True),
        ("1.9.0 - 1.10.0", "1.10.0", True),
        ("1.9.0 - 1.10.0", "1.10.1", False),
        ("any", "7.0", True),
    ],
)
def test_a_range_holds_both_its_ends(text: str, version: str, inside: bool) -> None:
    assert (Version.parse(version) in VersionRange.parse(text)) == inside


def test_only_any_holds_a_program_without_a_version() -> None:
    assert None in VersionRange.parse("any")
    assert None not in VersionRange.parse("1.9.2")


@pytest.mark.parametrize("text", ["", "latest", "1.9.0-1.10.0", "2.0 - 1.0", "1"])
def test_anything_else_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a version|is higher than"):
        VersionRange.parse(text)


@pytest.mark.parametrize(
    ("version", "known", "nearest"),
    [
        ("2.15.0", ["2.5.0", "2.16.0"], "2.16.0"),
        ("2.15.0", ["2.14.0", "2.16.0"], "2.14.0"),
        ("2.15.0", ["2.14.0", "2.14.9", "2.16.0"], "2.14.9"),
        ("1.10.0", ["1.9.0", "1.9.2"], "1.9.2"),
        ("1.8.0", ["1.9.2", "1.7.0"], "1.7.0"),
        ("1.8.0", ["1.9.0", "1.7.3"], "1.7.3"),
        ("1.9.7", ["1.9.9", "1.9.2"], "1.9.9"),
        ("2.0.0", ["1.99.0", "4.0.0"], "1.99.0"),
        ("3.0.0", ["2.1.0", "4.0.5"], "2.1.0"),
        ("1.9", ["1.9.1", "1.8.0"], "1.9.1"),
        ("1.9.2-rc.1", ["1.9.1", "1.9.2"], "1.9.2"),
        ("1.0.0", [], None),
        (None, ["1.9.2", "2.0.0", "1.7.0"], "2.0.0"),
    ],
)
def test_the_nearest_version_is_the_closest_by_major_then_minor_then_patch(
    version: str | None, known: list[str], nearest: str | None
) -> None:
    """Of two as close it is the lower one; without a version, the latest."""
    asked = Version.parse(version) if version else None
    found = closest_version(asked, [one for one in map(Version.parse, known) if one])
    assert (str(found) if found else None) == nearest
