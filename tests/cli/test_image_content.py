"""`scan --image-content` and `scan --source`, as an operator calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Runner, Site, edit_workspace
from tests.support import goprograms
from tests.support.archives import Image, layer, layout, push
from tests.support.registries import free_port

CACHE = "registry.example.com/pipeline/cache-server:2.4.0"
LIKELY = {
    "alpine:3.10",
    "ghcr.io/acme/delivery:latest",
    "ghcr.io/acme/viewer",
    "quay.io/acme/executor",
    "filebrowser/filebrowser:latest",
    "registry.acme.dev/team/templated:4.5.6",
}
SCRIPT = b'import os\nIMAGE = os.environ.get("HELPER_IMAGE", "docker.io/acme/helper:0.3.1")\n'


@pytest.fixture
def root(small_site: Site, tmp_path: Path) -> Path:
    return small_site.copy(tmp_path / "site")


def operator() -> Image:
    program = goprograms.small().read_bytes()
    return Image(
        [
            layer({"bin/operator": program, "opt/helper.py": SCRIPT, "opt/gone.py": SCRIPT}),
            layer({"opt/.wh.gone.py": b"", "usr/share/doc/x/a.yaml": b"image: acme/doc:1.0\n"}),
        ],
        {
            "org.opencontainers.image.source": "https://github.com/acme/cache",
            "org.opencontainers.image.version": "2.4.0",
        },
    )


def by_ref(found: Any) -> dict[str, Any]:
    return {item["ref"]: item for item in found["images"][0]["found"]}


def test_an_image_in_a_layout_is_looked_into_and_its_entries_make_it_known(
    root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    bundle = layout(tmp_path / "bundle", {CACHE: operator()})
    ask = ("scan", "--image-content", "--quiet", "--from", bundle, "--image", CACHE)
    found = kfdeploy(*ask, "--output", "json", cwd=root).json
    items = by_ref(found)
    digest = "quay.io/acme/cache-server@sha256:" + "0123456789abcdef" * 4
    news = {ref for ref, item in items.items() if item["status"] == "new" and item["likely"]}
    assert news == {*LIKELY, digest, "docker.io/acme/helper:0.3.1"}
    assert items["alpine:3.10"]["names"][0] == "--init-container-image"
    assert [place["file"] for place in items["docker.io/acme/helper:0.3.1"]["places"]] == [
        "opt/helper.py"
    ]
    entries = found["entries"]
    assert "source: acme/cache@2.4.0" in entries
    assert '- "*/pipeline/cache-server"' in entries
    assert "flag: --init-container-image" in entries
    assert "env: HELPER_IMAGE" in entries

    (root / "catalogue").mkdir()
    (root / "catalogue" / "cache.yaml").write_text(entries)
    again = kfdeploy(*ask, "--output", "json", cwd=root).json
    assert again["entries"] == ""
    assert by_ref(again)["alpine:3.10"]["status"] == "hidden"
    assert again["images"][0]["known"]
    scanned = kfdeploy("scan", "--format", "json", "--quiet", cwd=root).json
    (hidden,) = [one for one in scanned["images"] if one["ref"] == "alpine:3.10"]
    assert [place["redirect"] for place in hidden["found"]] == ["flag --init-container-image"]


def test_what_the_manifests_name_is_no_news(root: Path, kfdeploy: Runner, tmp_path: Path) -> None:
    code = b'IMAGE = "registry.example.com/pipeline/cleanup:2.4.0"\nOTHER_IMAGE = "acme/x:1.0.0"\n'
    bundle = layout(tmp_path / "bundle", {CACHE: Image([layer({"a.py": code})])})
    ask = ("scan", "--image-content", "--quiet", "--from", bundle, "--image", CACHE)
    found = by_ref(kfdeploy(*ask, "--output", "json", cwd=root).json)
    assert found["registry.example.com/pipeline/cleanup:2.4.0"]["status"] == "manifest"
    assert found["acme/x:1.0.0"]["status"] == "new"
    text = kfdeploy(*ask, cwd=root).stdout
    assert "acme/x:1.0.0  NEW" in text
    assert "registry.example.com/pipeline/cleanup:2.4.0  in the manifests" in text
    assert kfdeploy(*ask, "--format", "refs", cwd=root).stdout.split() == sorted(found)


def test_all_covered_workloads_are_read_from_the_private_registry(
    root: Path, kfdeploy: Runner, small_site: Site
) -> None:
    done = kfdeploy("scan", "--image-content", "--output", "json", cwd=root)
    images = {one["image"]: one for one in done.json["images"]}
    assert CACHE in images
    assert all(one["read"].startswith(f"{small_site.private}/") for one in images.values())
    assert all(one["layers"] and not one["problems"] for one in images.values())
    assert "searching" in done.stderr


def test_an_image_of_the_private_registry_is_named_as_it_is_there(
    root: Path, kfdeploy: Runner, small_site: Site
) -> None:
    push(small_site.private, "team/operator", "v1", operator())
    name = f"{small_site.private}/team/operator:v1"
    done = kfdeploy("scan", "--image", name, "--format", "refs", "--quiet", cwd=root)
    assert set(done.stdout.split()) >= LIKELY


def test_a_damaged_layer_is_an_error_and_the_rest_is_shown(
    root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    made = operator()
    bundle = layout(tmp_path / "bundle", {CACHE: made})
    first = bundle / "blobs" / "sha256" / json.loads(made.manifest)["layers"][0]["digest"][7:]
    first.write_bytes(first.read_bytes()[:-3000])
    ask = ("scan", "--image-content", "--quiet", "--from", bundle, "--image", CACHE)
    done = kfdeploy(*ask, cwd=root, check=1)
    assert f"error: {CACHE}: layer sha256:" in done.stderr
    assert "ends in the middle" in done.stderr
    assert "not match its digest" not in done.stderr


def test_an_image_that_is_not_there_is_an_error_with_a_way_out(
    root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    bundle = layout(tmp_path / "bundle", {"acme/other:1": operator()})
    ask = ("scan", "--image-content", "--quiet", "--from", bundle, "--image", CACHE)
    said = kfdeploy(*ask, cwd=root, check=1).stderr
    assert said == f"error: {CACHE}: {bundle}: has no image {CACHE} (it has acme/other:1)\n"
    said = kfdeploy("scan", "--image", "acme/unknown:1", "--quiet", cwd=root, check=1).stderr
    assert "not in images.lock" in said
    assert "kfdeploy mirror" in said


def test_a_registry_that_is_down_is_said_once(root: Path, kfdeploy: Runner) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    edit_workspace(root, {"registries.private.host": nobody})
    said = kfdeploy("scan", "--image-content", "--quiet", cwd=root, check=1).stderr.splitlines()
    assert len([line for line in said if line.startswith("error:")]) == 1, said
    assert said[0].startswith(f"error: {nobody}: connection refused")


CONFIG = """package config
// const Old = "acme/commented:1.0.0"
const WaitImageDefault = "alpine:3.10"
"""
MAIN = """package main
func main() {
	flag.StringVar(&config.WaitImage, "wait-container-image",
		config.WaitImageDefault, "The image that waits")
}
"""


def checkout(folder: Path) -> Path:
    files = {
        "go.mod": "module github.com/acme/operator\n",
        "pkg/config/config.go": CONFIG,
        "main.go": MAIN,
        "pkg/config/config_test.go": 'package config\nvar x = "acme/test:1.0.0"\n',
        "vendor/github.com/a/b/b.go": 'package b\nvar x = "acme/vendored:1.0.0"\n',
        "docs/a.yaml": "image: acme/documented:1.0.0\n",
        "Dockerfile": "FROM golang:1.24\n",
        "config/manager.yaml": "apiVersion: apps/v1\nkind: Deployment\nimage: acme/operator:1.0\n",
        "ui/server.ts": "export const X = process.env.VIEWER_IMAGE || 'acme/viewer:2.0.0';\n",
        "sdk/client.py": 'BASE = os.getenv("BASE_IMAGE", "acme/base:3.11")\n',
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_checkout_is_looked_into_with_lines_and_redirects(
    kfdeploy: Runner, tmp_path: Path
) -> None:
    folder = checkout(tmp_path / "operator@v1.2.0")
    found = kfdeploy("scan", "--source", folder, "--output", "json", cwd=tmp_path).json
    items = {item["ref"]: item for item in found["images"][0]["found"]}
    places = {
        ref: (item["status"], item["places"][0]["file"], item["places"][0]["line"])
        for ref, item in items.items()
    }
    assert places == {
        "alpine:3.10": ("hidden", "pkg/config/config.go", 3),
        "acme/viewer:2.0.0": ("new", "ui/server.ts", 1),
        "acme/base:3.11": ("new", "sdk/client.py", 1),
        "acme/operator:1.0": ("manifest", "config/manager.yaml", 3),
    }
    assert items["alpine:3.10"]["names"] == ["--wait-container-image"]
    assert items["acme/viewer:2.0.0"]["names"] == ["VIEWER_IMAGE"]
    assert items["acme/base:3.11"]["names"] == ["BASE_IMAGE"]
    assert "source: acme/operator@v1.2.0:ui/server.ts:1" in found["entries"]


def test_the_same_checkout_gives_the_same_bytes(kfdeploy: Runner, tmp_path: Path) -> None:
    folder = checkout(tmp_path / "operator")
    texts = {kfdeploy("scan", "--source", folder, cwd=tmp_path).stdout for _ in range(2)}
    assert len(texts) == 1


def test_a_checkout_and_images_at_once_are_wrong_use(kfdeploy: Runner, tmp_path: Path) -> None:
    said = kfdeploy("scan", "--source", ".", "--image-content", cwd=tmp_path, check=2).stderr
    assert said.startswith("error: --source searches a checkout")


def test_a_checkout_that_is_not_there_is_an_error(kfdeploy: Runner, tmp_path: Path) -> None:
    said = kfdeploy("scan", "--source", "nowhere", cwd=tmp_path, check=1).stderr
    assert said == "error: --source nowhere: no such folder\n"
