"""The profile controller's hook with pull secrets: real processes, asked as metacontroller asks."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.patch.registry_access import CODE
from tests.conftest import DATA, ROOT

KEY, TYPE = ".dockerconfigjson", "kubernetes.io/dockerconfigjson"
LOGIN = '{"auths": {"registry.example.com": {"auth": "c2VjcmV0LXdvcmQ="}}}'
RENEWED = '{"auths": {"registry.example.com": {"auth": "bmV3LXdvcmQ="}}}'

# As the hooks of kubeflow/pipelines 2.5.0 and 2.16.0 are built: a factory that closes over its
# settings, a handler in it, `object` and `attachments` taken from the request, a status by the
# number of attachments, an answer without a Content-Length. 2.16.0 answers with the Secret that is
# there already and makes another one only where there is none.
HOOK = """\
from http.server import BaseHTTPRequestHandler, HTTPServer
import json, os

def server_factory(port, keeps):
    class Controller(BaseHTTPRequestHandler):
        def sync(self, parent, attachments):
            namespace = parent.get("metadata", {}).get("name")
            labels = parent.get("metadata", {}).get("labels", {})
            if labels.get("pipelines.kubeflow.org/enabled") != "true":
                return {"status": {}, "attachments": []}
            if "boom" in namespace:
                raise RuntimeError("the object store is down")
            ready = len(attachments["Secret.v1"]) == 1 and len(attachments["ConfigMap.v1"]) == 1
            out = [{"apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": "launcher", "namespace": namespace}, "data": {}}]
            print("Received request:\\n", json.dumps(parent, sort_keys=True))
            there = attachments["Secret.v1"].get(f"{namespace}/artifact")
            made = {"apiVersion": "v1", "kind": "Secret",
                    "metadata": {"name": "artifact", "namespace": namespace},
                    "data": {"accesskey": "bWFkZQ=="}}
            out.insert(0, there if keeps and there else made)
            return {"status": {"kubeflow-pipelines-ready": ready and "True" or "False"},
                    "attachments": out}

        def do_POST(self):
            observed = json.loads(self.rfile.read(int(self.headers.get("content-length"))))
            desired = self.sync(observed["object"], observed["attachments"])
            self.send_response(200)
            self.send_header("Content-type", "application/json")
            self.end_headers()
            self.wfile.write(bytes(json.dumps(desired), "utf-8"))

    return HTTPServer(("127.0.0.1", int(port)), Controller)

if __name__ == "__main__":
    server_factory(os.environ["CONTROLLER_PORT"], KEEPS).serve_forever()
"""
WITH_LENGTH = """\
import http.server, json, os

class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = os.environ["ANSWER"].encode()
        self.send_response(int(os.environ.get("STATUS", "200")))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

place = ("127.0.0.1", int(os.environ["CONTROLLER_PORT"]))
http.server.ThreadingHTTPServer(place, Hook).serve_forever()
"""
HOOKS = {"2.5.0": HOOK.replace("KEEPS", "False"), "2.16.0": HOOK.replace("KEEPS", "True")}


@dataclass
class Running:
    """A hook that is served, and what it said."""

    port: int
    log: Path
    secrets: Path

    def ask(self, request: Any) -> Any:
        return json.loads(self.raw(request)[1])

    def raw(self, request: Any) -> tuple[int, bytes]:
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        url = f"http://127.0.0.1:{self.port}/sync"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body), timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    @property
    def said(self) -> str:
        return self.log.read_text()


@contextlib.contextmanager
def serving(
    folder: Path, hook: str, *, names: list[str] | None, env: dict[str, str] | None = None
) -> Iterator[Running]:
    """Run a hook by itself (``names`` is None) or by way of our program."""
    folder.mkdir(parents=True, exist_ok=True)
    secrets = folder / "secrets"
    secrets.mkdir(exist_ok=True)
    script = folder / "sync.py"
    script.write_text(hook)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        **os.environ,
        "CONTROLLER_PORT": str(port),
        "KFP_VERSION": "2.16.0",
        "KFDEPLOY_PULL_SECRETS": json.dumps(names),
        "KFDEPLOY_PULL_SECRETS_DIR": str(secrets),
        "PYTHONUNBUFFERED": "1",
        **(env or {}),
    }
    log = folder / "log"
    words = [sys.executable, *([] if names is None else [str(CODE)]), str(script)]
    with log.open("wb") as out:
        process = subprocess.Popen(words, env=variables, stdout=out, stderr=out)
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
            time.sleep(0.02)
        yield Running(port, log, secrets)
    finally:
        process.terminate()
        process.wait(10)


@dataclass
class Cluster:
    """What metacontroller v4.11.22 does with an answer: it deletes what is not wanted, makes what
    is missing, and by OnDelete leaves alone what is there (its manage_children.go).
    """

    namespace: str
    enabled: bool = True
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    peoples: tuple[str, ...] = ()

    def request(self) -> dict[str, Any]:
        labels = {"pipelines.kubeflow.org/enabled": "true" if self.enabled else "false"}
        groups: dict[str, dict[str, Any]] = {"Secret.v1": {}, "ConfigMap.v1": {}}
        for key, body in self.objects.items():
            kind, _, name = key.partition("/")
            groups[f"{kind}.v1"][f"{self.namespace}/{name}"] = body
        return {
            "controller": {"kind": "DecoratorController"},
            "object": {"kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}},
            "attachments": groups,
            "related": {},
            "finalizing": False,
        }

    def sync(self, hook: Running) -> Any:
        answer = hook.ask(self.request())
        wanted = {f"{o['kind']}/{o['metadata']['name']}": o for o in answer["attachments"]}
        for key in self.objects.keys() - wanted.keys():
            del self.objects[key]
        for key, body in wanted.items():
            if key not in self.peoples:
                self.objects.setdefault(key, {**body, "metadata": {**body["metadata"], "uid": key}})
        return answer

    def value(self, name: str) -> str:
        body = self.objects[f"Secret/{name}"]
        assert body["type"] == TYPE
        assert body["metadata"]["namespace"] == self.namespace
        assert list(body["data"]) == [KEY]
        return base64.b64decode(body["data"][KEY]).decode()


@pytest.fixture(params=sorted(HOOKS))
def hook(request: pytest.FixtureRequest) -> str:
    return HOOKS[request.param]


@pytest.fixture
def wrapped(hook: str, tmp_path: Path) -> Iterator[Running]:
    with serving(tmp_path / "wrapped", hook, names=["regcred", "other.example"]) as running:
        (running.secrets / "regcred").write_text(LOGIN)
        (running.secrets / "other.example").write_text(LOGIN)
        yield running


def test_a_namespace_gets_what_sync_py_wants_and_the_pull_secrets(
    hook: str, wrapped: Running, tmp_path: Path
) -> None:
    one, two = Cluster("alice"), Cluster("alice")
    with serving(tmp_path / "plain", hook, names=None) as plain:
        for _ in range(3):
            answer = one.sync(wrapped)
            wanted = two.sync(plain)
            assert answer["attachments"][: len(wanted["attachments"])] == wanted["attachments"]
            # Also the status, which counts Secrets: it never sees ours.
            assert {**answer, "attachments": 0} == {**wanted, "attachments": 0}
    assert answer["status"] == {"kubeflow-pipelines-ready": "True"}
    assert one.objects.keys() - two.objects.keys() == {"Secret/regcred", "Secret/other.example"}
    assert one.value("regcred") == one.value("other.example") == LOGIN


def test_a_renewed_secret_is_taken_over_without_a_restart(wrapped: Running) -> None:
    cluster = Cluster("alice")
    cluster.sync(wrapped)
    (wrapped.secrets / "regcred").write_text(RENEWED)
    cluster.sync(wrapped)  # gone, which makes metacontroller ask again
    assert "Secret/regcred" not in cluster.objects
    assert cluster.value("other.example") == LOGIN
    cluster.sync(wrapped)
    assert cluster.value("regcred") == RENEWED
    before = dict(cluster.objects)
    cluster.sync(wrapped)
    assert cluster.objects == before


@pytest.mark.parametrize("content", [None, "", "not json"], ids=["absent", "empty", "broken"])
def test_a_secret_that_is_not_there_adds_and_takes_nothing(
    content: str | None, wrapped: Running
) -> None:
    (wrapped.secrets / "regcred").unlink()
    if content is not None:
        (wrapped.secrets / "regcred").write_text(content)
    fresh, known = Cluster("alice"), Cluster("bob")
    fresh.sync(wrapped)
    assert "Secret/regcred" not in fresh.objects
    assert fresh.value("other.example") == LOGIN
    lines = [line for line in wrapped.said.splitlines() if line.startswith("kfdeploy: ")]
    assert any("Secret regcred" in line and "nothing added" in line for line in lines)
    (wrapped.secrets / "regcred").write_text(LOGIN)
    known.sync(wrapped)
    (wrapped.secrets / "regcred").unlink()
    known.sync(wrapped)
    assert known.value("regcred") == LOGIN


def test_a_name_that_is_no_longer_wanted_goes(hook: str, wrapped: Running, tmp_path: Path) -> None:
    cluster = Cluster("alice")
    cluster.sync(wrapped)
    with serving(tmp_path / "later", hook, names=["regcred"]) as later:
        (later.secrets / "regcred").write_text(LOGIN)
        cluster.sync(later)
    assert "Secret/other.example" not in cluster.objects
    assert cluster.value("regcred") == LOGIN


def test_a_secret_of_a_persons_own_stays(wrapped: Running) -> None:
    """Metacontroller shows only what it made itself, and leaves alone what exists."""
    cluster = Cluster("alice", peoples=("Secret/regcred",))
    for _ in range(2):
        answer = cluster.sync(wrapped)
    assert answer["status"] == {"kubeflow-pipelines-ready": "True"}
    assert "Secret/regcred" not in cluster.objects


def test_a_secret_that_sync_py_makes_itself_is_its_own(hook: str, tmp_path: Path) -> None:
    with serving(tmp_path / "x", hook, names=["artifact"]) as running:
        (running.secrets / "artifact").write_text(LOGIN)
        cluster = Cluster("alice")
        for _ in range(2):
            answer = cluster.sync(running)
        (secret,) = [o for o in answer["attachments"] if o["kind"] == "Secret"]
        assert secret["data"] == {"accesskey": "bWFkZQ=="}


def test_a_namespace_without_pipelines_gets_nothing(wrapped: Running) -> None:
    answer = Cluster("kube-system", enabled=False).sync(wrapped)
    assert answer == {"status": {}, "attachments": []}


def test_where_sync_py_fails_so_does_the_whole(hook: str, wrapped: Running, tmp_path: Path) -> None:
    """The connection ends without an answer, which metacontroller takes for a failure."""
    with serving(tmp_path / "plain", hook, names=None) as plain:
        for running in (plain, wrapped):
            for request in (Cluster("boom").request(), b"no json", b"{}"):
                with pytest.raises(OSError, match=r"without response|reset"):
                    running.raw(request)
            assert Cluster("alice").sync(running)["attachments"]
    assert "the object store is down" in wrapped.said


@pytest.mark.parametrize(
    ("answer", "status"),
    [("{}", 200), ("no json", 200), ('{"attachments": [{}]}', 200), ('{"a": 1}', 500), ("", 200)],
)
def test_an_answer_that_is_not_understood_is_passed_on(
    answer: str, status: int, tmp_path: Path
) -> None:
    env = {"ANSWER": answer, "STATUS": str(status)}
    with serving(tmp_path / "x", WITH_LENGTH, names=["regcred"], env=env) as running:
        (running.secrets / "regcred").write_text(LOGIN)
        assert running.raw(Cluster("alice").request()) == (status, answer.encode())


def test_another_servers_answer_keeps_a_true_length(tmp_path: Path) -> None:
    env = {"ANSWER": '{"attachments": []}'}
    with serving(tmp_path / "x", WITH_LENGTH, names=["regcred"], env=env) as running:
        (running.secrets / "regcred").write_text(LOGIN)
        cluster = Cluster("alice")
        cluster.sync(running)
        assert cluster.value("regcred") == LOGIN


def test_no_value_is_ever_logged(wrapped: Running) -> None:
    cluster = Cluster("alice")
    for content in (LOGIN, RENEWED, "broken c2VjcmV0LXdvcmQ=", LOGIN):
        (wrapped.secrets / "regcred").write_text(content)
        cluster.sync(wrapped)
        cluster.sync(wrapped)
    values = (LOGIN, RENEWED, "broken c2VjcmV0LXdvcmQ=", "c2VjcmV0LXdvcmQ", "bmV3LXdvcmQ")
    for value in values:
        assert value not in wrapped.said
        assert base64.b64encode(value.encode()).decode() not in wrapped.said


def hooks_of_upstreams() -> list[Path]:
    folders = [DATA / "upstream", *(ROOT.parent / "shared" / "upstream").glob("kubeflow-*")]
    return sorted(p for f in folders for p in f.rglob("pipelines-profile-controller/sync.py"))


@pytest.mark.parametrize("script", hooks_of_upstreams(), ids=lambda path: path.parts[-9])
def test_the_hooks_of_the_upstreams_at_hand(script: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "x", script.read_text(), names=["regcred"]) as running:
        (running.secrets / "regcred").write_text(LOGIN)
        cluster = Cluster("alice")
        assert [o["kind"] for o in running.ask(cluster.request())["attachments"]][-1] == "Secret"
