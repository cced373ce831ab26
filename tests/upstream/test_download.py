"""Downloads, from real servers on loopback."""

from __future__ import annotations

import base64
import contextlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.http import tls
from kfdeploy.upstream.download import DownloadError, download_file
from tests.support.answers import Reply, answering
from tests.support.registries import free_port, make_certificate

FILE = b"kind: ConfigMap\n"


@contextlib.contextmanager
def serve_https(folder: Path) -> Iterator[tuple[str, Path]]:
    """Serve FILE over HTTPS; give its URL, and the PEM file of the CA that signed for it."""
    ca, certificate, key = make_certificate(folder)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(FILE)))
            self.end_headers()
            self.wfile.write(FILE)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_port}/f.yaml", ca
        server.shutdown()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kfdeploy.upstream.download.retry_delay", lambda tries: 0.0)


# -- whom it trusts --------------------------------------------------------------------------------


def test_a_ca_in_ssl_cert_file_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_https(tmp_path) as (url, ca):
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        assert download_file(url) == FILE


def test_a_ca_in_the_systems_store_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "certs"
    store.mkdir()
    with serve_https(tmp_path) as (url, ca):
        shutil.copy(ca, store / "site.pem")
        # What update-ca-certificates does for /etc/ssl/certs.
        subprocess.run(["openssl", "rehash", store], check=True, capture_output=True)
        monkeypatch.setenv("SSL_CERT_DIR", str(store))
        assert download_file(url) == FILE


def test_the_systems_bundle_is_read_where_python_looks_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = ssl.get_default_verify_paths()._replace(
        openssl_cafile=str(tmp_path / "no.pem"), openssl_capath=str(tmp_path / "no-certs")
    )
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with serve_https(tmp_path) as (url, ca):
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nowhere)
        monkeypatch.setattr(tls, "_BUNDLES", (tmp_path / "other.crt", ca))
        assert download_file(url) == FILE


def test_an_unknown_ca_is_refused_and_the_hint_says_where_to_add_it(tmp_path: Path) -> None:
    with serve_https(tmp_path) as (url, _), pytest.raises(DownloadError) as caught:
        download_file(url)
    assert caught.value.message == (
        f"can't fetch {url}: certificate: signed by a CA that is not trusted here"
    )
    assert caught.value.hint == (
        "add the CA to the system's certificate store, or name its PEM file in SSL_CERT_FILE"
    )


# -- what it follows and sends ---------------------------------------------------------------------


def test_redirects_are_followed_without_the_password(tmp_path: Path) -> None:
    with answering(lambda *_: Reply(200, FILE)) as other:
        to = {"Location": f"http://{other.host}/f.yaml"}
        with answering(lambda *_: Reply(302, headers=to)) as served:
            assert download_file(f"http://me:s3cret@{served.host}/f.yaml") == FILE
    pair = base64.b64encode(b"me:s3cret").decode()
    assert served.requests == [("GET", "/f.yaml", f"Basic {pair}")]
    assert other.requests == [("GET", "/f.yaml", "")]


def test_a_password_is_never_in_a_message() -> None:
    port = free_port()
    with pytest.raises(DownloadError) as caught:
        download_file(f"http://me:s3cret@127.0.0.1:{port}/f.yaml")
    assert caught.value.message == (
        f"can't fetch http://127.0.0.1:{port}/f.yaml: connection refused"
    )


def test_the_environments_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda *_: Reply(200, FILE)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
        assert download_file("http://far.invalid/a b.yaml?x=é") == FILE
    assert [path for _, path, _ in proxy.requests] == ["http://far.invalid/a%20b.yaml?x=%C3%A9"]


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502])
def test_a_busy_server_is_asked_again(status: int) -> None:
    good, busy = Reply(200, FILE), Reply(status, headers={"Retry-After": "0"})
    with answering(lambda _m, _p, number: good if number else busy) as served:
        assert download_file(f"http://{served.host}/f.yaml") == FILE
    assert len(served.requests) == 2


def test_a_server_that_stays_busy_is_given_up() -> None:
    with (
        answering(lambda *_: Reply(503)) as served,
        pytest.raises(DownloadError, match="the server answers 503"),
    ):
        download_file(f"http://{served.host}/f.yaml")
    assert len(served.requests) == 3


def test_a_missing_file_is_not_asked_for_again() -> None:
    with answering(lambda *_: Reply(404)) as served, pytest.raises(DownloadError) as caught:
        download_file(f"http://{served.host}/f.yaml")
    assert (
        caught.value.message == f"can't fetch http://{served.host}/f.yaml: the server answers 404"
    )
    assert len(served.requests) == 1


def test_a_file_that_is_too_large_is_refused() -> None:
    with answering(lambda *_: Reply(200, FILE)) as served:
        url = f"http://{served.host}/f.yaml"
        assert download_file(url, max_bytes=len(FILE)) == FILE
        with pytest.raises(DownloadError, match="larger than 15 B"):
            download_file(url, max_bytes=len(FILE) - 1)


def test_a_download_that_breaks_off_is_begun_again() -> None:
    """`http.client` takes the end of a connection for the end of a file."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/f.yaml"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(FILE)}\r\n\r\n".encode()

        def serve() -> None:
            for body in (FILE[:5], FILE):
                connection, _ = server.accept()
                connection.recv(4096)
                connection.sendall(head + body)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        assert download_file(url) == FILE
        thread.join()


@pytest.mark.parametrize("url", ["http://h.example:port/f", "http://[::1/f"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(DownloadError, match="not a valid URL"):
        download_file(url)
