"""Images are read from a real registry, a layout folder, and what a Docker engine answers."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import pytest

from kfdeploy.errors import UserError
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.access import AccessResolver
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.settings import MirrorSettings, PrivateRegistry
from kfdeploy.scan.content.image_sources import (
    DockerDaemon,
    OciLayout,
    StoredImage,
    UnreadableImage,
    load_registry_image,
    scan_saved_image,
)
from kfdeploy.scan.content.layer import LayerScan, visible_candidates
from kfdeploy.scan.content.tar_stream import ScanLimits
from tests.support.answers import Reply, answering
from tests.support.archives import (
    INDEX,
    MANIFEST,
    Chunks,
    Image,
    as_json,
    digest,
    layer,
    layout,
    push,
    saved_long_ago,
    tar,
)
from tests.support.archives import saved as docker_save
from tests.support.registries import serve_registry

LIMITS = ScanLimits()


def code(name: str) -> bytes:
    return f'{name.upper()}_IMAGE = "ghcr.io/acme/{name}:1.0"\n'.encode()


def image() -> Image:
    """Three layers: the second deletes a file, a folder's content, and replaces another file."""
    return Image(
        [
            layer(
                {
                    "app/kept.py": code("kept"),
                    "app/deleted.py": code("deleted"),
                    "old/deep/gone.py": code("gone"),
                    "opaque/below.py": code("below"),
                    "app/replaced.py": code("replaced"),
                }
            ),
            layer(
                {
                    "app/.wh.deleted.py": b"",
                    ".wh.old": b"",
                    "opaque/.wh..wh..opq": b"",
                    "opaque/above.py": code("above"),
                    "app/replaced.py": b"IMAGE = 'docker.io/acme/new:2.0'\n",
                },
                "zstd",
            ),
            layer({"etc/app.yaml": b"image: ghcr.io/acme/settings:1.0\n"}),
        ],
        {"org.opencontainers.image.source": "https://github.com/acme/operator"},
    )


SEEN = [
    "docker.io/acme/new:2.0",
    "ghcr.io/acme/above:1.0",
    "ghcr.io/acme/kept:1.0",
    "ghcr.io/acme/settings:1.0",
]


def refs(layers: list[LayerScan]) -> list[str]:
    return sorted(find.candidate.ref for _, find in visible_candidates(layers))


def looked(stored: StoredImage) -> list[LayerScan]:
    return [blob.scan(LIMITS) for blob in stored.layers]


def damage(layers: list[LayerScan]) -> list[str]:
    return [one.damage for one in layers if one.damage]


def client(host: str, root: Path) -> RegistryClient:
    return RegistryClient(AccessResolver(MirrorSettings(PrivateRegistry(host=host)), root))


# -- a registry ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_registry(tmp_path_factory.mktemp("registry")) as registry:
        push(registry.host, "acme/operator", "v1", image())
        yield registry.host


def test_what_a_later_layer_deletes_or_replaces_is_not_found(host: str, tmp_path: Path) -> None:
    with client(host, tmp_path) as asked:
        stored = load_registry_image(asked, ImageRef(host, "acme/operator", "v1"))
        layers = looked(stored)
    assert refs(layers) == SEEN
    assert damage(layers) == []
    assert stored.labels["org.opencontainers.image.source"] == "https://github.com/acme/operator"


def test_an_image_that_a_registry_lacks_is_an_error(host: str, tmp_path: Path) -> None:
    with client(host, tmp_path) as asked, pytest.raises(UserError, match="v2"):
        load_registry_image(asked, ImageRef(host, "acme/operator", "v2"))


def test_connections_are_kept_after_a_layer_was_read(host: str, tmp_path: Path) -> None:
    with client(host, tmp_path) as asked:
        for _ in range(3):
            assert (
                refs(looked(load_registry_image(asked, ImageRef(host, "acme/operator", "v1"))))
                == SEEN
            )
        assert len(asked.transport._pool._all) == 1


def test_a_large_layer_is_streamed_and_not_held(host: str, tmp_path: Path) -> None:
    big = Image([layer({"data.unknown": os.urandom(40 << 20), "x.py": code("last")}, "none")])
    push(host, "acme/big", "v1", big)
    with client(host, tmp_path) as asked:
        layers = looked(load_registry_image(asked, ImageRef(host, "acme/big", "v1")))
    assert refs(layers) == ["ghcr.io/acme/last:1.0"]


def registry_with(blobs: dict[str, bytes], manifest: bytes) -> Any:
    def reply(method: str, path: str, number: int) -> Reply:
        if "/manifests/" in path:
            return Reply(200, manifest, {"Content-Type": MANIFEST})
        found = blobs.get(path.rpartition("/")[2])
        return Reply(404) if found is None else Reply(200, found)

    return answering(reply)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content[:-50], "ends after"),
        (lambda content: content + b"\0" * 10, "has more than the"),
        (lambda content: b"\0" * len(content), "does not match its digest"),
    ],
    ids=["short", "long", "other"],
)
def test_a_registry_that_gives_other_bytes_is_damage(
    change: Any, said: str, tmp_path: Path
) -> None:
    good = Image([layer({"x.py": code("x")}, "none")])
    blobs = {digest(good.layers[0]): change(good.layers[0])}
    with registry_with(blobs, good.manifest) as served, client(served.host, tmp_path) as asked:
        (found,) = looked(load_registry_image(asked, ImageRef(served.host, "acme/x", "1")))
    assert said in found.damage


def test_a_layer_that_is_missing_is_damage_of_that_layer_alone(tmp_path: Path) -> None:
    good = image()
    blobs = {digest(content): content for content in good.layers[:2]}
    with registry_with(blobs, good.manifest) as served, client(served.host, tmp_path) as asked:
        layers = looked(load_registry_image(asked, ImageRef(served.host, "acme/x", "1")))
    assert len(damage(layers)) == 1
    assert refs(layers) == [ref for ref in SEEN if "settings" not in ref]


# -- a layout folder -------------------------------------------------------------------------------


def test_a_layout_folder_is_read_by_name_and_by_digest(tmp_path: Path) -> None:
    made = image()
    found = OciLayout(layout(tmp_path / "bundle", {"acme/operator:v1": made}))
    assert found.list_names() == ["acme/operator:v1"]
    for name in ("acme/operator:v1", made.digest):
        assert refs(looked(found.load_image(name))) == SEEN


def test_an_index_in_a_layout_gives_one_platform(tmp_path: Path) -> None:
    folder = layout(tmp_path / "bundle", {"x": image()})
    other = Image([layer({"x.py": code("arm")})])
    index = as_json(
        {
            "schemaVersion": 2,
            "manifests": [
                {**other.descriptor(), "platform": {"os": "linux", "architecture": "arm64"}},
                {**other.descriptor(), "platform": {"os": "unknown", "architecture": "unknown"}},
                image().descriptor(),
            ],
        }
    )
    (folder / "blobs" / digest(index).replace(":", "/")).write_bytes(index)
    top = {"mediaType": INDEX, "digest": digest(index), "size": len(index)}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    stored = OciLayout(folder).load_image(digest(index))
    assert stored.platform == "linux/amd64"
    assert refs(looked(stored)) == SEEN


@pytest.mark.parametrize(
    "wrong",
    ["sha256:../../../../etc/passwd", "../x", "sha256:" + "A" * 64, 17, None, "sha256:" + "0" * 63],
)
def test_a_layout_s_digests_lead_nowhere_else(wrong: object, tmp_path: Path) -> None:
    folder = layout(tmp_path / "bundle", {"x": image()})
    text = as_json({"schemaVersion": 2, "manifests": [{"digest": wrong}]})
    (folder / "index.json").write_bytes(text)
    with pytest.raises(UserError, match="without a digest"):
        OciLayout(folder).list_names()


def test_a_pipe_or_link_in_place_of_a_blob_is_damage(tmp_path: Path) -> None:
    made = image()
    folder = layout(tmp_path / "bundle", {"x": made})
    first, second = (folder / "blobs" / digest(one).replace(":", "/") for one in made.layers[:2])
    first.unlink()
    os.mkfifo(first)
    second.unlink()
    second.symlink_to("/etc/passwd")
    layers = looked(OciLayout(folder).load_image("x"))
    assert len(damage(layers)) == 2
    assert refs(layers) == ["ghcr.io/acme/settings:1.0"]


def test_a_manifest_that_is_not_its_digest_is_refused(tmp_path: Path) -> None:
    made = image()
    folder = layout(tmp_path / "bundle", {"x": made})
    (folder / "blobs" / made.digest.replace(":", "/")).write_bytes(made.manifest + b" ")
    with pytest.raises(UnreadableImage, match="does not match its digest"):
        OciLayout(folder).load_image("x")


def test_a_folder_that_is_no_layout_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it has no file oci-layout"):
        OciLayout(tmp_path)


# -- a Docker engine -------------------------------------------------------------------------------


class _Engine(ThreadingMixIn, UnixStreamServer):
    """What answers on an engine's socket; only `GET /images/NAME/get`, as there is no engine."""

    daemon_threads = True
    answers: dict[str, bytes]
    closes_early = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, _Engine)
        name = self.path.partition("/images/")[2].removesuffix("/get")
        content = self.server.answers.get(name)
        if content is None:
            body = b'{"message": "No such image"}'
            self.send_response(404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(content), 5000):
            piece = content[at : at + 5000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if self.server.closes_early and at > len(content) // 2:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
        self.wfile.write(b"0\r\n\r\n")

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[_Engine]:
    place = tmp_path / "docker.sock"
    with _Engine(str(place), _Handler) as server:
        server.answers = {}
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(engine: _Engine, name: str) -> tuple[list[LayerScan], list[str]]:
    return DockerDaemon(f"unix://{engine.server_address!s}").scan_image(name, LIMITS)


def test_an_engine_s_image_is_read_from_its_one_stream(engine: _Engine) -> None:
    engine.answers["acme/operator:v1"] = docker_save(image(), "acme/operator:v1")
    layers, problems = ask(engine, "acme/operator:v1")
    assert (refs(layers), problems, damage(layers)) == (SEEN, [], [])


def test_an_image_that_the_engine_lacks_is_an_error(engine: _Engine) -> None:
    with pytest.raises(UserError, match="No such image"):
        ask(engine, "nothing")


def test_an_engine_that_breaks_off_is_a_problem(engine: _Engine) -> None:
    engine.closes_early = True
    long = Image([layer({"x.unknown": os.urandom(100_000), "y.py": code("y")})])
    engine.answers["x"] = docker_save(long, "x")
    _, problems = ask(engine, "x")
    assert any("ends in the middle" in one or "broke off" in one for one in problems), problems


def test_no_engine_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not return it|can be reached"):
        DockerDaemon(f"unix://{tmp_path}/nothing.sock").scan_image("x", LIMITS)


def test_the_older_layout_of_docker_save_is_read_with_its_links() -> None:
    one = tar({"a.py": code("a"), "b.py": code("b")})
    two = tar({".wh.a.py": b""})
    content = saved_long_ago([one, two, one, two])
    layers, problems = scan_saved_image(Chunks(iter([content])), LIMITS)
    assert (len(layers), problems, damage(layers)) == (4, [], [])
    assert refs(layers) == ["ghcr.io/acme/b:1.0"]


def test_the_older_layout_s_layers_are_checked_against_the_configuration() -> None:
    content = saved_long_ago([tar({"a.py": code("a")})], wrong=True)
    layers, _ = scan_saved_image(Chunks(iter([content])), LIMITS)
    assert "does not match its digest" in layers[0].damage
    assert refs(layers) == []


@pytest.mark.parametrize(
    "files",
    [
        {"manifest.json": b"{"},
        {"manifest.json": b"[]"},
        {"manifest.json": b'[{"Layers": ["../../etc/passwd"], "Config": "/x"}]'},
        {"index.json": b'{"manifests": [{"digest": "sha256:../.."}]}'},
        {"x": b""},
    ],
)
def test_an_archive_that_does_not_say_its_layers_is_a_problem(files: dict[str, bytes]) -> None:
    layers, problems = scan_saved_image(Chunks(iter([tar({**files})])), LIMITS)
    assert layers == []
    assert problems
