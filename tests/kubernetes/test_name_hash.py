"""The hash of the content in a generated name."""

from __future__ import annotations

import pytest

from kfdeploy.kubernetes import name_hash
from kfdeploy.kubernetes.objects import ObjectKey


@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("settings-2b4c5d6f7g", "settings"),
        ("a-b-98ffg564md", "a-b"),
        ("settings-98ffg564m", "settings-98ffg564m"),
        ("settings-98ffg564md5", "settings-98ffg564md5"),
        # Ten letters that no hash is made of: 0, 1, 3, a and e are spelled otherwise.
        ("katib-controller", "katib-controller"),
        ("settings-0123456789", "settings-0123456789"),
        ("-98ffg564md", "-98ffg564md"),
        ("settings-98ffg564md\n", "settings-98ffg564md\n"),
    ],
)
def test_a_hash_is_told_from_a_word(name: str, stripped: str) -> None:
    assert name_hash.strip_hash(name) == stripped


def test_only_generated_kinds_have_one() -> None:
    name = "settings-98ffg564md"
    keys = (ObjectKey("v1", kind, "n", name) for kind in ("ConfigMap", "Secret", "Service"))
    assert [name_hash.strip_name_hash(key) for key in keys] == ["settings", "settings", name]
