"""The registry client, against real registries; made answers only for faults."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.errors import UserError
from kfdeploy.http.pool import ConnectionPool
from kfdeploy.http.proxy import is_loopback
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.access import AccessResolver, RegistryAccess
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.settings import AccessOptions
from tests.support.answers import Reply, answering
from tests.support.registries import (
    PASSWORD,
    USER,
    Registry,
    docker_config,
    free_port,
    serve_registry,
)
from tests.support.standins import make_standin, push_standins
from tests.support.workspaces import mirror_settings

REFS = ("gcr.io/a/one:v1", "gcr.io/a/two:v1", "redis")


def client(root: Path, hosts: dict[str, Any] | None = None, **wire: float) -> RegistryClient:
    settings = mirror_settings({"private": {"host": "private.invalid"}, "hosts": hosts or {}})
    return RegistryClient(AccessResolver(settings, root), pool=ConnectionPool(**wire))


def at(host: str, path: str = "gcr.io/a/one", tag: str = "v1", digest: str = "") -> ImageRef:
    return ImageRef(host, path, tag, digest)


@pytest.fixture(autouse=True)
def no_own_sign_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker-config"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's data, filled once and served with different settings."""
    folder = tmp_path_factory.mktemp("registry") / "data"
    with serve_registry(folder) as registry:
        push_standins(registry.host, REFS)
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[Registry]:
    with serve_registry(folder) as registry:
        yield registry


@pytest.fixture(scope="module")
def tls(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serve_registry(folder, tls=True) as registry:
        yield registry


# -- digests and manifests -----------------------------------------------------------------------


def test_digest_behind_a_tag(plain: Registry, tmp_path: Path) -> None:
    with client(tmp_path) as c:
        for ref in REFS:
            image = ImageRef.parse(ref).with_default_tag()
            path = f"{image.host}/{image.path}"
            assert c.get_digest(at(plain.host, path, image.tag)) == make_standin(ref).digest


def test_an_image_that_is_not_there_has_no_digest(plain: Registry, tmp_path: Path) -> None:
    with client(tmp_path) as c:
        assert c.get_digest(at(plain.host, tag="v2")) is None
        assert c.get_digest(at(plain.host, path="no/such")) is None
        with pytest.raises(RegistryError) as raised:
            c.get_manifest(at(plain.host, tag="v2"))
    assert raised.value.kind == "gone"
    assert raised.value.message == (
        f"{plain.host}/gcr.io/a/one:v2: not found: {plain.host} has no such image"
    )


def test_a_manifest_comes_with_the_bytes_of_its_digest(plain: Registry, tmp_path: Path) -> None:
    image = make_standin("gcr.io/a/one:v1")
    with client(tmp_path) as c:
        manifest = c.get_manifest(at(plain.host))
        again = c.get_manifest(at(plain.host, digest=image.digest))
    assert (manifest.digest, manifest.media_type) == (image.digest, image.media_type)
    assert manifest.body == image.manifests[image.digest][1]
    assert again == manifest


def test_connections_are_kept_and_shared(plain: Registry, tmp_path: Path) -> None:
    with client(tmp_path) as c:
        for _ in range(20):
            c.get_digest(at(plain.host))
        assert len(c.transport._pool._all) == 1
        with ThreadPoolExecutor(4) as pool:
            found = set(pool.map(lambda _: c.get_digest(at(plain.host)), range(40)))
        assert len(c.transport._pool._all) <= 4
    assert found == {make_standin("gcr.io/a/one:v1").digest}


# -- signing in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_sign_in_from_dockers_config(kind: Any, folder: Path, tmp_path: Path) -> None:
    with serve_registry(folder, auth=kind) as registry:
        docker_config(tmp_path / "docker", registry)
        hosts = {registry.host: {"credentials": {"dockerConfig": "docker"}}}
        with client(tmp_path, hosts) as c:
            c.check_host(registry.host)
            assert c.get_digest(at(registry.host)) == make_standin("gcr.io/a/one:v1").digest
            assert (
                c.get_digest(at(registry.host, "gcr.io/a/two"))
                == make_standin("gcr.io/a/two:v1").digest
            )


def test_dockers_own_config_is_the_default(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_registry(folder, auth="basic") as registry:
        monkeypatch.setenv("DOCKER_CONFIG", str(docker_config(tmp_path / "docker", registry)))
        with client(tmp_path) as c:
            assert c.get_digest(at(registry.host)) == make_standin("gcr.io/a/one:v1").digest


def test_anonymous_tokens_need_no_sign_in(folder: Path, tmp_path: Path) -> None:
    with serve_registry(folder, auth="token") as registry, client(tmp_path) as c:
        assert c.get_digest(at(registry.host)) == make_standin("gcr.io/a/one:v1").digest


def test_a_credential_helper_is_asked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "bin" / "docker-credential-mine"
    helper.parent.mkdir()
    answer = json.dumps({"ServerURL": "x", "Username": USER, "Secret": PASSWORD})
    helper.write_text(f"#!/bin/sh\ncat > {tmp_path}/asked\necho '{answer}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}{os.pathsep}{os.environ['PATH']}")
    with serve_registry(folder, auth="basic") as registry:
        hosts = {registry.host: {"credentials": {"helper": "mine"}}}
        with client(tmp_path, hosts) as c:
            assert c.get_digest(at(registry.host)) == make_standin("gcr.io/a/one:v1").digest
        assert (tmp_path / "asked").read_text() == registry.host


def test_a_missing_helper_is_named(folder: Path, tmp_path: Path) -> None:
    with serve_registry(folder, auth="basic") as registry:
        hosts = {registry.host: {"credentials": {"helper": "not-there"}}}
        with client(tmp_path, hosts) as c, pytest.raises(UserError) as raised:
            c.get_digest(at(registry.host))
    assert raised.value.message.startswith("docker-credential-not-there returned no credential for")


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_a_wrong_password_is_told_and_not_shown(kind: Any, folder: Path, tmp_path: Path) -> None:
    with serve_registry(folder, auth=kind) as registry:
        wrong = Registry(registry.host, folder, None, USER, "hunter2", 0)
        docker_config(tmp_path / "docker", wrong)
        hosts = {registry.host: {"credentials": {"dockerConfig": "docker"}}}
        with client(tmp_path, hosts) as c, pytest.raises(RegistryError) as raised:
            c.get_digest(at(registry.host))
    error = raised.value
    assert error.kind == "denied"
    assert f"denied with the credential for {registry.host}" in error.message
    assert "hunter2" not in f"{error.message}{error.hint}{c.__dict__}"


def test_without_a_sign_in_the_hint_says_how(folder: Path, tmp_path: Path) -> None:
    with (
        serve_registry(folder, auth="basic") as registry,
        client(tmp_path) as c,
        pytest.raises(RegistryError) as raised,
    ):
        c.get_digest(at(registry.host))
    assert raised.value.message == (f"{registry.host}/gcr.io/a/one: 401: denied without a sign-in")
    assert (raised.value.hint or "").startswith(
        f"sign in (`docker login {registry.host}`), or set"
        f" registries.hosts['{registry.host}'].credentials"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", ":1: broken JSON"),
        ("[]", ": must be a JSON object"),
        ('{"auths": {"HOST": {"auth": "czNjcmV0"}}}', ": an entry of 'auths' is malformed"),
        ('{"auths": {"HOST": "s3cret"}}', ": an entry of 'auths' is malformed"),
    ],
)
def test_a_broken_docker_config_is_named(
    text: str, message: str, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "config.json"
    with serve_registry(folder, auth="basic") as registry:
        file.write_text(text.replace("HOST", registry.host))
        hosts = {registry.host: {"credentials": {"dockerConfig": str(tmp_path)}}}
        with client(tmp_path, hosts) as c, pytest.raises(UserError) as raised:
            c.get_digest(at(registry.host))
    assert raised.value.message == f"{file}{message}"


def test_a_token_is_asked_for_once_for_each_repository(tmp_path: Path) -> None:
    def reply(method: str, path: str, number: int) -> Reply:
        if path.startswith("/token"):
            return Reply(200, b'{"token": "T"}')
        if number == 0:
            challenge = f'Bearer realm="http://{served.host}/token",service="s"'
            return Reply(401, headers={"Www-Authenticate": challenge})
        return Reply(200, headers={"Docker-Content-Digest": "sha256:" + "a" * 64})

    with answering(reply) as served, client(tmp_path) as c:
        for path in ("x/a", "x/a", "x/b", "x/a"):
            c.get_digest(at(served.host, path))
    assert [(path.partition("?")[0], signed) for _, path, signed in served.requests] == [
        ("/v2/x/a/manifests/v1", ""),
        ("/token", ""),
        ("/v2/x/a/manifests/v1", "Bearer T"),
        ("/v2/x/a/manifests/v1", "Bearer T"),
        ("/token", ""),
        ("/v2/x/b/manifests/v1", "Bearer T"),
        ("/v2/x/a/manifests/v1", "Bearer T"),
    ]
    assert served.requests[1][1] == "/token?service=s&scope=repository%3Ax%2Fa%3Apull"


def test_an_expired_token_is_renewed(tmp_path: Path) -> None:
    tokens = iter("AB")
    refused: list[str] = []

    def reply(method: str, path: str, number: int) -> Reply:
        if path.startswith("/token"):
            return Reply(200, json.dumps({"access_token": next(tokens)}).encode())
        signed = served.requests[number][2]
        if signed in {"", *refused}:
            challenge = f'Bearer realm="http://{served.host}/token"'
            return Reply(401, headers={"Www-Authenticate": challenge})
        return Reply(200, headers={"Docker-Content-Digest": "sha256:" + "a" * 64})

    with answering(reply) as served, client(tmp_path) as c:
        assert c.get_digest(at(served.host))
        refused.append("Bearer A")
        assert c.get_digest(at(served.host))
    assert served.requests[-1][2] == "Bearer B"


def test_an_identity_token_is_exchanged(tmp_path: Path) -> None:
    def reply(method: str, path: str, number: int) -> Reply:
        if path == "/token":
            return Reply(200 if method == "POST" else 500, b'{"access_token": "T"}')
        if served.requests[number][2] != "Bearer T":
            challenge = f'Bearer realm="http://{served.host}/token"'
            return Reply(401, headers={"Www-Authenticate": challenge})
        return Reply(200, headers={"Docker-Content-Digest": "sha256:" + "a" * 64})

    with answering(reply) as served:
        config = {"auths": {served.host: {"identitytoken": "R"}}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        hosts = {served.host: {"credentials": {"dockerConfig": "."}}}
        with client(tmp_path, hosts) as c:
            assert c.get_digest(at(served.host))


def test_a_sign_in_is_not_sent_on_to_another_host(tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64
    with answering(lambda *_: Reply(200, headers={"Docker-Content-Digest": digest})) as other:

        def reply(method: str, path: str, number: int) -> Reply:
            if served.requests[number][2] == "":
                return Reply(401, headers={"Www-Authenticate": 'Basic realm="x"'})
            return Reply(307, headers={"Location": f"http://{other.host}{path}"})

        with answering(reply) as served:
            docker_config(tmp_path, Registry(served.host, tmp_path, None, "u", "p", 0))
            hosts = {served.host: {"credentials": {"dockerConfig": "."}}}
            with client(tmp_path, hosts) as c:
                assert c.get_digest(at(served.host)) == digest
    assert [signed for _, _, signed in other.requests] == [""]


# -- TLS -----------------------------------------------------------------------------------------


def test_a_ca_of_its_own(tls: Registry, tmp_path: Path) -> None:
    with client(tmp_path, {tls.host: {"ca": str(tls.ca)}}) as c:
        assert c.get_digest(at(tls.host)) == make_standin("gcr.io/a/one:v1").digest


def test_certificates_may_go_unchecked(tls: Registry, tmp_path: Path) -> None:
    with client(tmp_path, {tls.host: {"skipTlsVerify": True}}) as c:
        assert c.get_digest(at(tls.host)) == make_standin("gcr.io/a/one:v1").digest


def problem(c: RegistryClient, ref: ImageRef) -> RegistryError:
    with c, pytest.raises(RegistryError) as raised:
        c.get_digest(ref)
    return raised.value


def test_an_unknown_ca_is_told_with_where_to_set_it(tls: Registry, tmp_path: Path) -> None:
    error = problem(client(tmp_path, {tls.host: {"plainHttp": False}}), at(tls.host))
    assert error.kind == "tls"
    assert error.message == f"{tls.host}: certificate: signed by a CA that is not trusted here"
    assert error.hint == f"set registries.hosts['{tls.host}'].ca to a PEM file with its CA"


def test_the_wrong_ca_is_told(tls: Registry, tmp_path: Path) -> None:
    from tests.support.registries import make_certificate

    ca, _, _ = make_certificate(tmp_path)
    error = problem(client(tmp_path, {tls.host: {"ca": ca.name}}), at(tls.host))
    assert "is not the CA that signed it" in (error.hint or "")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_is_none(content: str | None, tls: Registry, tmp_path: Path) -> None:
    if content:
        (tmp_path / "ca.pem").write_text(content)
    error = problem(client(tmp_path, {tls.host: {"ca": "ca.pem"}}), at(tls.host))
    assert error.message.startswith(f"registries.hosts['{tls.host}'].ca: {tmp_path}/ca.pem: no ")


def test_plain_http_where_tls_is_spoken_is_told(tls: Registry, tmp_path: Path) -> None:
    error = problem(client(tmp_path), at(tls.host))
    assert error.kind == "nonsense"


def test_tls_where_plain_http_is_spoken_is_told(plain: Registry, tmp_path: Path) -> None:
    error = problem(client(tmp_path, {plain.host: {"plainHttp": False}}), at(plain.host))
    assert error.message == f"{plain.host}: the server does not speak TLS"
    assert "plainHttp: true" in (error.hint or "")


# -- faults --------------------------------------------------------------------------------------


def test_a_name_that_does_not_exist(tmp_path: Path) -> None:
    error = problem(client(tmp_path), at("registry.invalid"))
    assert error.message == "registry.invalid: no such host name"


def test_a_registry_that_is_down_is_given_up_once_for_all_images(tmp_path: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    with client(tmp_path) as c:
        start = time.monotonic()
        for _ in range(20):
            with pytest.raises(RegistryError) as raised:
                c.get_digest(at(host))
        assert time.monotonic() - start < 8
    assert raised.value.message == f"{host}: connection refused"


def test_a_silent_server_is_not_waited_for_long(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        with client(tmp_path, read_seconds=0.2) as c, pytest.raises(RegistryError) as raised:
            c.get_digest(at(host), patience=0.3)
    assert raised.value.message == f"{host}: no answer in time"


HTML = {"Content-Type": "text/html"}


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, b"<html>sign in</html>", HTML),
        (404, b"<html>no</html>", HTML),
        (418, b"", {}),
        (200, b"{}", {"Content-Type": "application/json"}),
        (200, b"[1]", {}),
        (302, b"", {}),
    ],
)
def test_what_is_no_registry_is_told(
    status: int, body: bytes, headers: dict[str, str], tmp_path: Path
) -> None:
    with answering(lambda *_: Reply(status, body, headers)) as served:
        error = problem(client(tmp_path), at(served.host))
    assert error.kind == "nonsense"
    assert error.message.startswith(f"{served.host}: not a registry: /v2/")


def test_what_is_no_http_is_told(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        host = f"127.0.0.1:{server.getsockname()[1]}"

        def babble() -> None:
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-nothing\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=babble)
        thread.start()
        error = problem(client(tmp_path), at(host))
        thread.join()
    assert error.message == f"{host}: not a registry: the answer is not HTTP"


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_registry_is_asked_again(status: int, tmp_path: Path) -> None:
    good = Reply(200, headers={"Docker-Content-Digest": "sha256:" + "a" * 64})
    busy = Reply(status, headers={"Retry-After": "0"})
    with (
        answering(lambda _m, _p, number: good if number else busy) as served,
        client(tmp_path) as c,
    ):
        assert c.get_digest(at(served.host))
    assert len(served.requests) == 2


def test_retry_after_is_waited_for(tmp_path: Path) -> None:
    good = Reply(200, headers={"Docker-Content-Digest": "sha256:" + "a" * 64})
    busy = Reply(429, headers={"Retry-After": "1"})
    with (
        answering(lambda _m, _p, number: good if number else busy) as served,
        client(tmp_path) as c,
    ):
        start = time.monotonic()
        c.get_digest(at(served.host))
        assert time.monotonic() - start >= 1


def test_longer_than_patience_is_not_waited_for(tmp_path: Path) -> None:
    with answering(lambda *_: Reply(429, headers={"Retry-After": "3600"})) as served:
        error = problem(client(tmp_path), at(served.host))
    assert (error.kind, len(served.requests)) == ("busy", 1)
    assert "rate limit reached" in error.message


def test_a_connection_that_the_server_closed_is_opened_again(tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        text = f"HTTP/1.1 200 OK\r\nDocker-Content-Digest: {digest}\r\nContent-Length: 0\r\n\r\n"

        def serve() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                connection.recv(4096)
                connection.sendall(text.encode())
                connection.close()  # though it promised to keep it

        thread = threading.Thread(target=serve)
        thread.start()
        with client(tmp_path) as c:
            assert c.get_digest(at(host)) == digest
            time.sleep(0.1)
            assert c.get_digest(at(host)) == digest
        thread.join()


def test_content_with_another_digest_is_refused(tmp_path: Path) -> None:
    body = b'{"schemaVersion": 2, "manifests": []}'
    wanted = "sha256:" + "0" * 64
    with (
        answering(lambda *_: Reply(200, body)) as served,
        client(tmp_path) as c,
        pytest.raises(RegistryError) as raised,
    ):
        c.get_manifest(at(served.host, digest=wanted))
    assert raised.value.kind == "content"


def test_schema_1_is_told(tmp_path: Path) -> None:
    with (
        answering(lambda *_: Reply(200, b'{"schemaVersion": 1}')) as served,
        client(tmp_path) as c,
        pytest.raises(RegistryError, match="Docker's schema 1"),
    ):
        c.get_manifest(at(served.host))


def test_a_digest_is_computed_for_a_registry_that_leaves_it_out(tmp_path: Path) -> None:
    image = make_standin("gcr.io/a/one:v1")
    media_type, body = image.manifests[image.digest]
    headers = {"Content-Type": media_type}
    with answering(lambda *_: Reply(200, body, headers)) as served, client(tmp_path) as c:
        assert c.get_digest(at(served.host)) == image.digest


def test_closing_ends_requests_under_way(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        c = client(tmp_path)
        start = time.monotonic()
        threading.Timer(0.3, c.close).start()
        with pytest.raises(RegistryError, match="interrupted"):
            c.get_digest(at(host))
        assert time.monotonic() - start < 3


# -- reach ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.1.2.3", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("x.localhost:1", True),
        ("127.0.0.1.example.com", False),
        ("10.0.0.1:5000", False),
        ("registry.corp", False),
    ],
)
def test_plain_http_by_default_only_on_loopback(host: str, loopback: bool, tmp_path: Path) -> None:
    assert is_loopback(host) is loopback
    assert RegistryAccess.from_settings(host, None, tmp_path, "").plain_http is loopback
    access = AccessOptions()
    assert RegistryAccess.from_settings(host, access, tmp_path, "").plain_http is loopback


def test_tls_settings_on_loopback_mean_tls(tmp_path: Path) -> None:
    access = AccessOptions(ca="ca.pem")
    assert not RegistryAccess.from_settings("localhost:5000", access, tmp_path, "").plain_http


def test_docker_hub_is_asked_at_its_api(tmp_path: Path) -> None:
    reach = RegistryAccess.from_settings("docker.io", None, tmp_path, "")
    assert reach.url == "https://registry-1.docker.io"


def test_paths_are_relative_to_the_workspace(tmp_path: Path) -> None:
    private = {"host": "r.corp", "ca": "ca.pem", "credentials": {"dockerConfig": "/etc/docker"}}
    reach = AccessResolver(mirror_settings({"private": private}), tmp_path)("r.corp")
    assert reach.ca == tmp_path / "ca.pem"
    assert reach.login.docker_config == Path("/etc/docker")


def test_proxies_of_the_environment_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = "sha256:" + "a" * 64
    with answering(lambda *_: Reply(200, headers={"Docker-Content-Digest": digest})) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
        monkeypatch.setenv("no_proxy", "direct.invalid")
        with client(tmp_path, {"far.invalid": {"plainHttp": True}}) as c:
            assert c.get_digest(at("far.invalid")) == digest
        with (
            client(tmp_path, {"direct.invalid": {"plainHttp": True}}) as c,
            pytest.raises(RegistryError, match="no such host name"),
        ):
            c.get_digest(at("direct.invalid"))
    assert [path for _, path, _ in proxy.requests] == [
        "http://far.invalid/v2/gcr.io/a/one/manifests/v1"
    ]
