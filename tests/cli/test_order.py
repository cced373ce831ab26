"""`kfdeploy render --explain-order`."""

from __future__ import annotations

from tests.conftest import Runner, Site, tree


def test_the_order_is_explained_instead_of_counted(small_site: Site, kfdeploy: Runner) -> None:
    before = tree(small_site.root)
    told = kfdeploy("render", "--explain-order", cwd=small_site.root).stdout.splitlines()
    assert told[0] == "wave 1"
    assert not any(line.startswith("releases/") for line in told)
    assert tree(small_site.root) == before
    found = kfdeploy("render", "--explain-order", "--output", "json", cwd=small_site.root).json
    usual = kfdeploy("render", "--output", "json", cwd=small_site.root).json
    assert set(found) == {"waves", "edges"}
    assert found["waves"] == usual["waves"]
    assert [name for wave in found["waves"] for name in wave if f"  {name}" in told]
    for edge in found["edges"]:
        assert set(edge) == {"from", "to", "reasons"}
        assert f"    after {edge['from']}" in told
        for reason in edge["reasons"]:
            assert set(reason) == {"why", "first", "then", "field", "ready"}


def test_explaining_with_check_writes_nothing(small_site: Site, kfdeploy: Runner) -> None:
    arguments = ("render", "--explain-order", "--set", "other", "--check")
    done = kfdeploy(*arguments, cwd=small_site.root, check=3)
    assert done.stdout.startswith("wave 1\n")
    assert not (small_site.root / "releases" / "other").exists()
