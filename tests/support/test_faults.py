"""The proxy in front of registries: what passes is unharmed, what is counted is exact."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.faults import Faults, Faulty, Limit, faulty
from tests.support.registries import Registry, serve_registry
from tests.support.standins import Standin, make_standin, push_standins

REF = "gcr.io/a/app:v1"
BIG = bytes(range(256)) * 4000
DIGEST = f"sha256:{hashlib.sha256(BIG).hexdigest()}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serve_registry(tmp_path_factory.mktemp("faults") / "data") as served:
        push_standins(served.host, [REF])
        upload(served.host, "big", BIG)
        yield served


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Faulty]:
    with faulty(registry.host) as one:
        yield one


def ask(
    host: str, method: str, path: str, body: object = None, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(host, timeout=20)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)  # type: ignore[arg-type]
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def upload(host: str, repository: str, data: bytes, *, chunked: bool = False) -> int:
    """The status of the last answer."""
    response, _ = ask(host, "POST", f"/v2/{repository}/blobs/uploads/")
    location = urlsplit(str(response.getheader("location")))
    assert location.netloc == host
    if chunked:
        pieces = (data[at : at + 30000] for at in range(0, len(data), 30000))
        response, _ = ask(host, "PATCH", f"{location.path}?{location.query}", pieces)
        if response.status != 202:
            return response.status
        location, data = urlsplit(str(response.getheader("location"))), b""
    digest = f"sha256:{hashlib.sha256(BIG).hexdigest()}"
    target = f"{location.path}?{location.query}&digest={digest}"
    response, _ = ask(host, "PUT", target, data, Content_Type="application/octet-stream")
    return response.status


def image_bytes(image: Standin) -> int:
    return image.size + sum(len(data) for _, data in image.manifests.values())


@pytest.mark.parametrize("program", ["crane", "skopeo"])
def test_an_image_passes_unharmed_and_each_request_is_counted(
    program: str, registry: Registry, tmp_path: Path
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on PATH")
    image = make_standin(REF)
    with (
        serve_registry(tmp_path / "private") as private,
        faulty(registry.host) as source,
        faulty(private.host) as target,
    ):
        names = (f"{source.host}/{REF}", f"{target.host}/copy:v1")
        options = ["--all", "--preserve-digests", "--src-tls-verify=false"]
        argv = {
            "crane": ["crane", "copy", *names],
            "skopeo": [
                *("skopeo", "copy", *options, "--dest-tls-verify=false"),
                *(f"docker://{name}" for name in names),
            ],
        }[program]
        subprocess.run(argv, check=True, capture_output=True)
        _, top = ask(private.host, "GET", "/v2/copy/manifests/v1", Accept=image.media_type)
        assert f"sha256:{hashlib.sha256(top).hexdigest()}" == image.digest
        to, of = target.counts, source.counts
        assert to.received == image_bytes(image)
        assert to.of("PUT", "manifest") == len(image.manifests)
        assert to.of("PUT", "upload") == len(image.blobs)
        assert (of.of("GET", "blob"), of.served) == (len(image.blobs), image.size)
        assert (of.received, to.faults, of.faults) == (0, {}, {})
        assert 0 not in to.answers


def test_every_kind_of_request_passes(proxy: Faulty, registry: Registry) -> None:
    image = make_standin(REF)
    path = f"/v2/{REF.partition(':')[0]}"
    requests = [
        ("GET", "/v2/", 200),
        ("GET", "/v2/_catalog", 200),
        ("HEAD", f"{path}/manifests/v1", 200),
        ("GET", f"{path}/tags/list", 200),
        ("GET", f"{path}/referrers/{image.digest}", 404),
        ("GET", f"/v2/big/blobs/{DIGEST}", 200),
        ("POST", f"/v2/other/blobs/uploads/?mount={DIGEST}&from=big", 201),
        ("DELETE", f"/v2/other/blobs/{DIGEST}", 202),
    ]
    connection = http.client.HTTPConnection(proxy.host, timeout=20)
    for method, target, status in requests:
        connection.request(method, target, headers={"Accept": image.media_type})
        response = connection.getresponse()
        body = response.read()
        assert (method, target, response.status) == (method, target, status), body
        if target.startswith("/v2/big"):
            assert body == BIG
    connection.close()
    kinds = ["ping", "catalog", "manifest", "tags", "referrers", "blob", "mount", "blob"]
    assert [exchange.kind for exchange in proxy.exchanges] == kinds
    assert proxy.counts.served == len(BIG)
    proxy.forget()
    assert proxy.counts.of() == 0


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_passes_whole_and_in_chunks(proxy: Faulty, chunked: bool) -> None:
    assert upload(proxy.host, f"chunked-{chunked}".lower(), BIG, chunked=chunked) == 201
    assert proxy.counts.received == len(BIG)
    assert proxy.counts.of(kind="upload") == (3 if chunked else 2)


def test_who_waits_for_100_gets_it(proxy: Faulty) -> None:
    response, _ = ask(proxy.host, "POST", "/v2/expects/blobs/uploads/")
    location = urlsplit(str(response.getheader("location")))
    head = (
        f"PUT {location.path}?{location.query}&digest={DIGEST} HTTP/1.1\r\nHost: {proxy.host}\r\n"
        f"Content-Length: {len(BIG)}\r\nExpect: 100-continue\r\n\r\n"
    )
    address, _, port = proxy.host.partition(":")
    with socket.create_connection((address, int(port)), timeout=20) as client:
        client.sendall(head.encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 100 ")
        client.sendall(BIG)
        assert client.recv(4096).startswith(b"HTTP/1.1 201 ")
    assert proxy.counts.answers == {202: 1, 201: 1}


def test_a_body_is_reset_cut_or_changed(proxy: Faulty) -> None:
    blob = f"/v2/big/blobs/{DIGEST}"
    proxy.faults = Faults(seed=1, truncate=1)
    with pytest.raises(http.client.IncompleteRead):
        ask(proxy.host, "GET", blob)
    proxy.faults = Faults(seed=1, corrupt=1)
    _, body = ask(proxy.host, "GET", blob)
    assert sum(a != b for a, b in zip(body, BIG, strict=True)) == 1
    assert upload(proxy.host, "changed", BIG) == 400
    assert upload(proxy.host, "changed", BIG, chunked=True) == 400
    proxy.faults = Faults(seed=1, wrong_digest=1)
    response, body = ask(proxy.host, "HEAD", f"/v2/{REF.partition(':')[0]}/manifests/v1")
    assert response.status == 404  # asked without Accept, it is not there; no digest, no fault
    response, body = ask(proxy.host, "GET", blob)
    assert body == BIG
    assert response.getheader("Docker-Content-Digest") != DIGEST
    assert proxy.counts.faults == {"truncate": 1, "corrupt": 3, "wrong_digest": 1}
    proxy.faults = Faults(seed=1, reset=1)
    for _ in range(8):
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            ask(proxy.host, "GET", blob)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            upload(proxy.host, "reset", BIG)
    assert proxy.counts.faults["reset"] == 16
    proxy.faults = Faults()
    assert ask(proxy.host, "GET", blob)[1] == BIG


def test_a_stall_sends_nothing_more_and_leaves_the_connection_open(proxy: Faulty) -> None:
    proxy.faults = Faults(seed=1, stall=1, at_most=1)
    connection = http.client.HTTPConnection(proxy.host, timeout=0.3)
    connection.request("GET", f"/v2/big/blobs/{DIGEST}")
    with pytest.raises(TimeoutError):
        connection.getresponse().read()
    connection.close()
    assert ask(proxy.host, "GET", f"/v2/big/blobs/{DIGEST}")[1] == BIG
    assert proxy.counts.faults == {"stall": 1}


def test_half_of_the_5xx_come_after_the_work_is_done(proxy: Faulty) -> None:
    proxy.faults = Faults(seed=5, unavailable=1, methods=frozenset({"DELETE"}))
    path = "/v2/big/blobs/uploads/"
    done = []
    for _ in range(12):
        response, _ = ask(proxy.host, "POST", path)
        upload_path = urlsplit(str(response.getheader("location"))).path
        query = urlsplit(str(response.getheader("location"))).query
        assert ask(proxy.host, "DELETE", f"{upload_path}?{query}")[0].status >= 500
        done.append(ask(proxy.host, "GET", f"{upload_path}?{query}")[0].status == 404)
    assert 0 < sum(done) < 12


@pytest.mark.parametrize("window", ["bucket", "fixed"])
def test_what_is_over_the_limit_is_told_when_to_come_again(window: str, proxy: Faulty) -> None:
    proxy.faults = Faults(limit=Limit(3, 600, window=window))  # type: ignore[arg-type]
    answers = [ask(proxy.host, "GET", "/v2/")[0] for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    wait = 200 if window == "bucket" else 600
    assert abs(int(answers[-1].getheader("Retry-After") or 0) - wait) <= 5
    proxy.faults = Faults(limit=Limit(1, 600, retry_after=False))
    answers = [ask(proxy.host, "GET", "/v2/")[0] for _ in range(2)]
    assert [a.getheader("Retry-After") for a in answers] == [None, None]
    proxy.faults = Faults(limit=Limit(1, 0.05, window=window))  # type: ignore[arg-type]
    statuses: list[int] = []
    while statuses.count(200) < 3:
        statuses.append(ask(proxy.host, "GET", "/v2/")[0].status)
    assert proxy.counts.faults["limit"] == 3 + statuses.count(429)


def test_a_refused_upload_is_read_to_its_end_and_the_connection_goes_on(proxy: Faulty) -> None:
    proxy.faults = Faults(too_many=1, retry_after=7, methods=frozenset({"PUT"}))
    connection = http.client.HTTPConnection(proxy.host, timeout=20)
    connection.request("PUT", "/v2/x/manifests/v1", BIG)
    response = connection.getresponse()
    said = json.loads(response.read())
    assert (response.status, response.getheader("Retry-After")) == (429, "7")
    assert said["errors"][0]["code"] == "TOOMANYREQUESTS"
    connection.request("GET", "/v2/")
    assert connection.getresponse().status == 200
    assert proxy.counts.received == 0


def test_the_same_seed_hits_the_same_requests_in_whatever_order(registry: Registry) -> None:
    paths = [f"/v2/big/manifests/v{n}" for n in range(30)]
    hits = []
    for order in (paths, paths[::-1]):
        with faulty(registry.host, Faults(seed=9, unavailable=0.3)) as proxy:
            threads = [threading.Thread(target=ask, args=(proxy.host, "GET", p)) for p in order]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            hits.append(sorted(one.target for one in proxy.exchanges if one.fault))
    assert hits[0] == hits[1]
    assert 3 < len(hits[0]) < 20


def test_a_request_is_hit_no_more_often_than_said(proxy: Faulty) -> None:
    proxy.faults = Faults(unavailable=1, each=2)
    answers = [ask(proxy.host, "GET", "/v2/")[0].status for _ in range(4)]
    assert [status >= 500 for status in answers] == [True, True, False, False]


def test_stopped_it_refuses_and_started_it_is_back_on_its_port(proxy: Faulty) -> None:
    host = proxy.host
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.request("GET", "/v2/")
    connection.getresponse().read()
    proxy.stop()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        connection.request("GET", "/v2/")
        connection.getresponse()
    with pytest.raises(ConnectionRefusedError):
        ask(host, "GET", "/v2/")
    proxy.start()
    assert proxy.host == host
    assert ask(host, "GET", "/v2/")[0].status == 200


def test_who_speaks_tls_is_told_at_once_that_it_is_plain_http(proxy: Faulty) -> None:
    with pytest.raises(ssl.SSLError):
        http.client.HTTPSConnection(proxy.host, timeout=20).request("GET", "/v2/")
    assert proxy.exchanges == ()


def test_a_registry_that_is_down_resets() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with (
            faulty(f"127.0.0.1:{held.getsockname()[1]}") as proxy,
            pytest.raises((ConnectionError, http.client.HTTPException)),
        ):
            ask(proxy.host, "GET", "/v2/")
        assert proxy.counts.answers == {0: 1}
