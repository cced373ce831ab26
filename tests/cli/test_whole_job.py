"""Every command of the main job, on the small upstream and on the real releases."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import DATA, RELEASES, Runner, Site, edit_workspace, need_programs, tree


@pytest.fixture(params=["small", *RELEASES], scope="module")
def site(request: pytest.FixtureRequest) -> Site:
    if request.param == "small":
        small: Site = request.getfixturevalue("small_site")
        return small
    made: Callable[[str], Site] = request.getfixturevalue("real_site")
    return made(request.param)


def test_scan_says_the_same_in_every_format(site: Site, kfdeploy: Runner) -> None:
    found = kfdeploy("scan", "--format", "json", "-C", site.root).json
    assert kfdeploy("scan", "--output", "json", "-C", site.root).json == found
    assert found["upstream"] == {"version": site.version}
    refs = [image["ref"] for image in found["images"]]
    assert refs == sorted(refs) == list(site.refs)
    rows = list(
        csv.DictReader(io.StringIO(kfdeploy("scan", "--format", "csv", cwd=site.root).stdout))
    )
    assert [(r["ref"], r["field"], r["line"]) for r in rows] == [
        (image["ref"], place["field"], str(place.get("line") or ""))
        for image in found["images"]
        for place in image["found"]
    ]
    table = kfdeploy("scan", cwd=site.root).stdout.splitlines()
    assert [line.split()[0] for line in table[:-1]] == refs
    assert table[-1] == f"{len(refs)} images"


def test_scan_gives_the_json_of_the_contract(site: Site, kfdeploy: Runner) -> None:
    found = kfdeploy("scan", "--format", "json", cwd=site.root).json
    assert {"upstream", "images", "problems"} <= found.keys()
    for problem in found["problems"]:
        assert {"what", "where"} <= problem.keys()
    hows = "pod-spec env argument config custom-resource script assembled catalogue image-content"
    for image in found["images"]:
        assert image["need"] in ("required", "optional", "user-choice"), image
        assert image["found"], image
        for place in image["found"]:
            assert {"component", "object", "field", "how", "redirect"} <= place.keys(), place
            assert {"apiVersion", "kind", "name"} <= place["object"].keys(), place
            assert place["how"] in hows.split(), place
            first = place["redirect"].split()[0]
            assert first in ("patch", "env", "flag", "config", "admission", "none"), place


def test_a_file_and_line_that_scan_names_are_there(site: Site, kfdeploy: Runner) -> None:
    found = kfdeploy("scan", "--format", "json", cwd=site.root).json
    places = [place for image in found["images"] for place in image["found"] if place.get("file")]
    assert places
    for place in places:
        lines = (site.root / "upstream" / place["file"]).read_text().splitlines()
        assert 1 <= place["line"] <= len(lines), place


def test_why_tells_each_place_with_file_and_line(site: Site, kfdeploy: Runner) -> None:
    found = kfdeploy("scan", "--format", "json", cwd=site.root).json
    image = max(found["images"], key=lambda i: len(i["found"]))
    assert kfdeploy("why", image["ref"], "--output", "json", cwd=site.root).json["images"] == [
        image
    ]
    said = kfdeploy("why", image["ref"], cwd=site.root).stdout
    for place in image["found"]:
        assert place["field"] in said
        if place.get("file"):
            assert f"{place['file']}:{place['line']}" in said


def test_lock_is_a_carvel_images_lock_of_every_covered_image(site: Site) -> None:
    lock = YAML(typ="safe").load(site.root / "images.lock")
    assert (lock["apiVersion"], lock["kind"]) == ("imgpkg.carvel.dev/v1alpha1", "ImagesLock")
    ids = [image["annotations"]["kbld.carvel.dev/id"] for image in lock["images"]]
    summary = json.loads((site.set / "summary.json").read_text())
    assert sorted(ids) == sorted(set(site.refs) - set(summary["notMirrored"]))
    assert all("@sha256:" in image["image"] for image in lock["images"])
    assert site.private not in (site.root / "images.lock").read_text()


def test_nothing_is_left_to_do_when_all_is_done(site: Site, kfdeploy: Runner) -> None:
    before = tree(site.root)
    for command in ("vendor", "lock", "patch", "render"):
        done = kfdeploy(command, "--check", cwd=site.root)
        assert json.loads(kfdeploy(command, "--check", "--output", "json", cwd=site.root).stdout)
        assert "error" not in done.stderr
    assert tree(site.root) == before


def test_a_second_mirror_copies_nothing(site: Site, kfdeploy: Runner) -> None:
    copied = int(site.steps["mirror"].stdout.split(" copied ")[0])
    assert copied > 0
    plan = kfdeploy("mirror", "--dry-run", cwd=site.root).stdout
    assert plan == f"0 to copy (0 B at most), {copied} present\n"
    again = kfdeploy("mirror", cwd=site.root).stdout
    assert again.startswith("0 copied "), again
    assert again.endswith(f", {copied} present, 0 failed\n"), again


def test_verify_accepts_the_set(site: Site, kfdeploy: Runner) -> None:
    report = kfdeploy("verify", "--output", "json", cwd=site.root).json
    assert report["failures"] == []
    assert report["foreign"] == []
    assert report["askedRegistry"] is True
    offline = kfdeploy("verify", "--offline", cwd=site.root).stdout
    assert offline.startswith("releases/default: verified: ")
    assert "the registry was not asked" in offline


def test_every_image_of_the_set_is_of_the_private_registry(site: Site) -> None:
    summary = json.loads((site.set / "summary.json").read_text())
    home = f"{site.private}/{site.prefix}"
    assert summary["registry"] == home
    assert summary["unpinned"] == []
    assert all(image["mirror"].startswith(f"{home}/") for image in summary["images"].values())


def test_the_patches_name_no_private_registry(site: Site) -> None:
    files = tree(site.root / "patches") | {"h": (site.root / "helmfile.yaml.gotmpl").read_bytes()}
    assert len(files) > 20
    for name, content in files.items():
        assert site.private.encode() not in content, name
        assert site.public.encode() not in content, name


def test_the_small_site_names_the_images_that_are_expected(small_site: Site) -> None:
    truth = YAML(typ="safe").load(DATA / "expected-images.yaml")
    expected = {image["ref"] for image in truth["images"] if image.get("in_example", True)}
    assert set(small_site.refs) == expected


# -- step by step ------------------------------------------------------------------------------


def test_check_says_what_would_change_before_and_nothing_after(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    need_programs("kustomize")
    root = tmp_path / "site"
    init = ("init", root, "--upstream", DATA / "upstream", "--ref", "1.0.0", "--registry", "r.io/k")
    kfdeploy(*init, "--check", check=3)
    assert not root.exists()
    kfdeploy(*init)
    (root / "kfdeploy.yaml").write_bytes((small_site.root / "kfdeploy.yaml").read_bytes())
    for command, first in (
        ("vendor", "upstream.lock"),
        ("lock", "images.lock"),
        ("patch", "helmfile.yaml.gotmpl"),
        ("render", "releases/default/SHA256SUMS"),
    ):
        before = tree(root)
        kfdeploy(command, "--check", cwd=root, check=3)
        assert tree(root) == before, f"{command} --check wrote something"
        assert not (root / first).exists()
        kfdeploy(command, cwd=root)
        assert (root / first).is_file()
        kfdeploy(command, "--check", cwd=root)
    assert tree(root) == tree(small_site.root)


def test_check_of_mirror_is_whether_an_image_is_missing(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "site")
    kfdeploy("mirror", "--check", cwd=root)
    edit_workspace(root, {"registries.private.prefix": "never/filled"})
    said = kfdeploy("mirror", "--check", cwd=root, check=3).stdout
    assert "never/filled" in said
    kfdeploy("mirror", "--dry-run", cwd=root)
    kfdeploy("mirror", "--check", cwd=root, check=3)


def test_commands_before_their_turn_say_which_comes_first(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    (tmp_path / "kfdeploy.yaml").write_bytes((small_site.root / "kfdeploy.yaml").read_bytes())

    def refused(*arguments: str) -> str:
        return kfdeploy(*arguments, cwd=tmp_path, check=1).stderr

    for command in (("scan",), ("why", "x"), ("lock",), ("patch",), ("render",)):
        assert "hint: run `kfdeploy vendor`" in refused(*command), command
    assert refused("mirror") == (
        "error: the workspace has no images.lock yet\n  hint: run `kfdeploy lock`\n"
    )
    assert refused("verify") == (
        "error: there is no release set yet\n  hint: run `kfdeploy render`\n"
    )
    shutil.rmtree(tmp_path / ".kfdeploy", ignore_errors=True)
    assert [path.name for path in tmp_path.iterdir()] == ["kfdeploy.yaml"]


def test_results_go_to_stdout_and_progress_to_stderr(small_site: Site, kfdeploy: Runner) -> None:
    done = kfdeploy("lock", "--check", cwd=small_site.root)
    assert "locking: " in done.stderr
    assert "locking: " not in done.stdout
    quiet = kfdeploy("lock", "--check", "--quiet", cwd=small_site.root)
    assert quiet.stderr == ""
    assert quiet.stdout == done.stdout


def test_json_goes_alone_to_stdout_for_every_command(small_site: Site, kfdeploy: Runner) -> None:
    shapes = {
        ("vendor", "--check"): {"version", "files", "remotes", "changes"},
        ("scan",): {"upstream", "images", "problems"},
        ("why", "mysql:8.4"): {"images"},
        ("lock", "--check"): {"locked", "failures", "moved", "notes", "changed"},
        ("mirror", "--dry-run"): {"copy", "present", "bytes"},
        ("patch", "--check"): {"files", "new", "changed", "stale", "edited"},
        ("render", "--check"): {"set", "changed", "environment", "registry", "images", "releases"},
        ("verify",): {"images", "failures", "foreign", "notes", "askedRegistry"},
        ("doctor",): {"findings"},
    }
    for command, keys in shapes.items():
        done = kfdeploy(*command, "--output", "json", cwd=small_site.root, check=None)
        assert done.code == 0 or command == ("doctor",), str(done)
        assert keys <= done.json.keys(), (command, done.json.keys())


def test_a_pipe_that_closes_early_is_no_error_message(small_site: Site, kfdeploy: Runner) -> None:
    import subprocess

    done = subprocess.run(
        f"{kfdeploy.command[0]} scan --format json | head -c 10",
        shell=True,
        cwd=small_site.root,
        env=kfdeploy.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == '{\n  "upstr'
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
