"""A real API server, asked as `apply` asks it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kfdeploy.kubernetes.cluster import client as tool
from kfdeploy.kubernetes.cluster.errors import ApiError, ClusterUnreachable
from kfdeploy.kubernetes.objects import Object, ObjectKey
from tests.support.cluster import Cluster

NAMESPACE = "tool-cluster"
MAP = ObjectKey("v1", "ConfigMap", NAMESPACE, "x")


def body(**data: str) -> dict[str, object]:
    meta = {"name": "x", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


@pytest.fixture(scope="module")
def asked(cluster: Cluster) -> Iterator[tool.Cluster]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("KUBECONFIG", str(cluster.kubeconfig))
        cluster.namespace(NAMESPACE)
        with tool.connect("test", patience=5) as opened:
            yield opened


def test_an_object_comes_is_changed_and_goes(asked: tool.Cluster) -> None:
    assert asked.version.startswith("1.")
    assert asked.get(MAP) is None
    made = asked.create(body(a="1"))
    with pytest.raises(ApiError) as refused:
        asked.create(body(a="1"))
    assert (refused.value.status, refused.value.reason) == (409, "AlreadyExists")
    assert str(refused.value) == (
        "create ConfigMap tool-cluster/x: the API server answered 409 AlreadyExists: configmaps"
        ' "x" already exists'
    )
    assert asked.patch(MAP, {"data": {"b": "2"}})["data"] == {"a": "1", "b": "2"}
    with pytest.raises(ApiError) as refused:
        asked.replace({**made, "data": {}})
    assert refused.value.reason == "Conflict"
    listed = asked.list("v1", "ConfigMap", namespace=NAMESPACE, fields="metadata.name=x")
    assert [ObjectKey.from_body(item) for item in listed] == [MAP]
    assert "data" not in asked.list("v1", "ConfigMap", namespace=NAMESPACE, metadata=True)[0]
    assert asked.delete(MAP, dry_run=True)
    assert asked.delete(MAP)
    assert not asked.delete(MAP)


def test_server_side_apply_takes_the_objects_own_words(asked: tool.Cluster) -> None:
    text = (
        "apiVersion: v1\nkind: ConfigMap\n"
        f"metadata: {{name: x, namespace: {NAMESPACE}}}\ndata: {{mode: '0644'}}\n"
    )
    left = asked.apply(Object(text), manager="somebody")
    assert left["data"] == {"mode": "0644"}
    with pytest.raises(ApiError) as refused:
        asked.apply(body(mode="1"))
    assert refused.value.reason == "Conflict"
    assert 'conflict with "somebody"' in refused.value.causes[0]["message"]
    assert asked.apply(body(mode="1"), force=True, dry_run=True)["data"] == {"mode": "1"}
    assert asked.get(MAP)["data"] == {"mode": "0644"}  # type: ignore[index]
    asked.delete(MAP)


def test_a_kind_that_is_not_served_has_no_objects(asked: tool.Cluster) -> None:
    key = ObjectKey("none.test/v1", "Nothing", "", "x")
    assert (asked.get(key), asked.list("none.test/v1", "Nothing"), asked.delete(key)) == (
        None,
        [],
        False,
    )
    with pytest.raises(ApiError, match=r"Nothing x: .* none\.test/v1 Nothing is not served"):
        asked.create({"apiVersion": "none.test/v1", "kind": "Nothing", "metadata": {"name": "x"}})


def test_pages_are_put_together(asked: tool.Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "_PAGE_SIZE", 2)
    roles = asked.list("rbac.authorization.k8s.io/v1", "ClusterRole")
    assert len({role["metadata"]["name"] for role in roles}) == len(roles) > 50


def test_a_context_that_is_not_there_is_said(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    with pytest.raises(ClusterUnreachable) as error, tool.connect("nowhere"):
        pass
    assert str(error.value) == (
        "cannot connect to the cluster of the context nowhere: kubectl exited 1: error: context"
        ' "nowhere" does not exist'
    )


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "kubeconfig"
    config.write_text(
        '{"apiVersion": "v1", "kind": "Config", "current-context": "a",'
        ' "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],'
        ' "users": [{"name": "a", "user": {"token": "secret"}}],'
        ' "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}]}'
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    with (
        pytest.raises(ClusterUnreachable, match=r"the API server does not answer: .*refused"),
        tool.connect(None, patience=0.5),
    ):
        pass


def test_the_proxy_ends_with_kfdeploy_even_when_that_is_killed(cluster: Cluster) -> None:
    script = (
        "import time\nfrom kfdeploy.kubernetes.cluster import client as cluster\n"
        "with cluster.connect(None) as c:\n    print(c.path, flush=True)\n    time.sleep(60)\n"
    )
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        socket = child.stdout.readline().strip()
        assert _who_has(socket)
        os.kill(child.pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while _who_has(socket) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _who_has(socket)


def _who_has(word: str) -> list[str]:
    """Processes with this in an argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found
