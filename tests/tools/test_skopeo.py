"""skopeo between real registries."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.errors import UserError
from kfdeploy.model.image import ImageRef
from kfdeploy.model.workspace import Registries
from kfdeploy.tools import skopeo
from kfdeploy.tools.reach import Reaches
from kfdeploy.tools.registry import Client
from tests.support.registries import (
    PASSWORD,
    USER,
    Registry,
    docker_config,
    free_port,
    serve_registry,
)
from tests.support.relay import relay
from tests.support.standins import fill, make

KINDS = {f"gcr.io/a/kind{kind}:v1": kind for kind in range(7)}
REF = "gcr.io/a/one:v1"
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="no skopeo on PATH")


def client(root: Path, hosts: dict[str, Any] | None = None) -> Client:
    registries = Registries.model_validate(
        {"private": {"host": "private.invalid"}, "hosts": hosts or {}}
    )
    return Client(Reaches(registries, registries.private, root))


@pytest.fixture(autouse=True)
def no_own_sign_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker-config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "no-runtime"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serve_registry(tmp_path_factory.mktemp("source") / "data") as registry:
        fill(registry.host, [REF, *KINDS])
        yield registry


def copy(c: Client, source: ImageRef, destination: ImageRef) -> None:
    with skopeo.opened(c, [source.host, destination.host], threading.Event()) as program:
        program.copy(source, destination)


def at(host: str, ref: str = REF) -> ImageRef:
    image = ImageRef.parse(ref)
    return ImageRef(host, f"{image.host}/{image.path}", image.tag, make(ref).digest)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("skopeo version 1.9.3\n", (1, 9, 3)),
        ("skopeo version 1.22.2 commit: 0123abc", (1, 22, 2)),
        ("skopeo version 1.14.2-dev", (1, 14, 2)),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, ...]) -> None:
    assert skopeo.parse_version(text) == version


def test_what_is_no_version_is_an_error() -> None:
    with pytest.raises(UserError, match="is no version"):
        skopeo.parse_version("hello")


def fake(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "skopeo").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "skopeo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_too_old_a_skopeo_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path / "bin", "echo skopeo version 1.4.1", monkeypatch)
    with pytest.raises(UserError, match=r"^skopeo 1\.4\.1 is too old: it takes 1\.9 or later$"):
        skopeo.version()


def test_a_missing_skopeo_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="skopeo is not on PATH"):
        skopeo.version()


@needs_skopeo
@pytest.mark.parametrize("ref", KINDS)
def test_every_kind_of_image_keeps_its_digest(ref: str, source: Registry, tmp_path: Path) -> None:
    with serve_registry(tmp_path / "data") as private, client(tmp_path) as c:
        there = ImageRef(private.host, "kf/x", "v1")
        copy(c, at(source.host, ref), there)
        assert c.digest(there) == make(ref).digest


@needs_skopeo
def test_tls_and_sign_ins_on_both_sides(source: Registry, tmp_path: Path) -> None:
    with (
        serve_registry(source.folder, tls=True, auth="token") as one,
        serve_registry(tmp_path / "two", tls=True, auth="basic") as two,
    ):
        docker_config(tmp_path / "docker", one, two)
        credentials = {"dockerConfig": "docker"}
        hosts = {
            one.host: {"ca": str(one.ca), "credentials": credentials},
            two.host: {"ca": str(two.ca), "credentials": credentials},
        }
        # A realm without TLS is refused for a registry with it, so the client itself is not asked.
        with client(tmp_path, hosts) as c:
            there = ImageRef(two.host, "kf/x", "v1")
            copy(c, at(one.host), there)
            assert c.digest(there) == make(REF).digest


@needs_skopeo
def test_certificates_may_go_unchecked(source: Registry, tmp_path: Path) -> None:
    with (
        serve_registry(tmp_path / "two", tls=True) as two,
        client(tmp_path, {two.host: {"skipTlsVerify": True}}) as c,
    ):
        copy(c, at(source.host), ImageRef(two.host, "kf/x", "v1"))


def test_secrets_are_in_a_private_file_and_never_in_argv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    fake(
        tmp_path / "bin",
        f'[ "$1" = --version ] && exec echo skopeo version 1.9.3; echo "$@" >{seen}; env >>{seen}',
        monkeypatch,
    )
    registry = Registry("r.corp", tmp_path, None, USER, PASSWORD, 0)
    docker_config(tmp_path / "docker", registry)
    with client(tmp_path, {"r.corp": {"credentials": {"dockerConfig": "docker"}}}) as c:
        hosts = ["r.corp", "s.corp"]
        with skopeo.opened(c, hosts, threading.Event()) as program:
            file = program.folder / "auth.json"
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(program.folder.stat().st_mode) == 0o700
            secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            assert json.loads(file.read_text()) == {"auths": {"r.corp": {"auth": secret}}}
            digest = "sha256:" + "0" * 64
            program.copy(ImageRef("s.corp", "a", "v1", digest), ImageRef("r.corp", "kf/a", "v1"))
        assert not program.folder.exists()
    words = seen.read_text()
    assert f"docker://s.corp/a@{digest} docker://r.corp/kf/a:v1" in words
    assert PASSWORD not in words and secret not in words


def failure(c: Client, source: ImageRef, destination: ImageRef) -> skopeo.CopyFailed:
    with c, pytest.raises(skopeo.CopyFailed) as raised:
        copy(c, source, destination)
    return raised.value


@needs_skopeo
def test_an_image_that_is_gone_is_told_and_not_retried(source: Registry, tmp_path: Path) -> None:
    with serve_registry(tmp_path / "two") as two:
        gone = ImageRef(source.host, "no/such", "", "sha256:" + "0" * 64)
        error = failure(client(tmp_path), gone, ImageRef(two.host, "x", "v1"))
    assert error.hopeless
    assert error.message.startswith(f"{gone} -> {two.host}/x:v1: ")
    assert "manifest unknown" in error.message
    assert "level=" not in error.message
    assert "substitute" in (error.hint or "")


@needs_skopeo
def test_a_refused_push_says_where_to_sign_in(source: Registry, tmp_path: Path) -> None:
    with serve_registry(tmp_path / "two", auth="basic") as two:
        error = failure(client(tmp_path), at(source.host), ImageRef(two.host, "x", "v1"))
    assert error.hopeless
    assert error.hint == f"the private registry: `docker login {two.host}`, with the right to push"


@needs_skopeo
def test_a_registry_that_is_down_may_be_tried_again(source: Registry, tmp_path: Path) -> None:
    there = ImageRef(f"127.0.0.1:{free_port()}", "x", "v1")
    error = failure(client(tmp_path), at(source.host), there)
    assert not error.hopeless
    assert "refused" in error.message


@needs_skopeo
def test_a_copy_can_be_broken_off(source: Registry, tmp_path: Path) -> None:
    cancelled = threading.Event()
    with (
        serve_registry(tmp_path / "two") as two,
        relay(source.host, bytes_per_second=1000) as slow,
        client(tmp_path) as c,
        skopeo.opened(c, [slow, two.host], cancelled) as program,
    ):
        threading.Timer(0.7, cancelled.set).start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            program.copy(at(slow), ImageRef(two.host, "x", "v1"))
        assert time.monotonic() - start < 5
        assert c.digest(ImageRef(two.host, "x", "v1")) is None
