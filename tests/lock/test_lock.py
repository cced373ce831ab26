"""Tags to digests, against a real registry that holds stand-ins for everything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.codec import to_json
from kfdeploy.errors import UserError
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.lock.resolve import LockEvent
from kfdeploy.workspace.settings import Workspace
from tests.support.answers import Reply, answering
from tests.support.refs import resolve, written
from tests.support.registries import Registry, docker_config, free_port, serve_registry
from tests.support.standins import OCI_INDEX, OCI_MANIFEST, make_standin, push_standins

KINDS = {f"quay.io/kinds/kind{kind}:v1": kind for kind in range(7)}
REFS = ("redis:6", "docker.io/library/redis:6", "gcr.io/a/b:v1", "nginx", "ghcr.io/new/app:v2")
GONE = "sha256:" + "0" * 64


@pytest.fixture(autouse=True)
def no_own_sign_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker-config"))


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serve_registry(tmp_path_factory.mktemp("public") / "data") as registry:
        push_standins(registry.host, [*REFS, *KINDS])
        yield registry


def workspace(
    sources: dict[str, str],
    substitutes: dict[str, str] | None = None,
    hosts: dict[str, Any] | None = None,
) -> Workspace:
    return Workspace.model_validate(
        {
            "upstream": {"source": "upstream"},
            "components": [{"name": "a", "path": "a"}],
            "registries": {
                "private": {"host": "private.invalid"},
                "sources": sources,
                "hosts": hosts or {},
            },
            # What belongs to images is looked for in test_lock_attached.py.
            "images": {"substitutes": substitutes or {}, "attached": False},
        }
    )


def everywhere(registry: Registry) -> dict[str, str]:
    return {"*": registry.host}


def without_details(lock: Lock) -> Lock:
    return Lock([LockedImage(i.id, i.image) for i in lock])


def test_tags_become_digests_with_platforms_and_size(public: Registry, tmp_path: Path) -> None:
    result = resolve([*REFS, *KINDS], workspace(everywhere(public)), root=tmp_path)
    assert (result.failures, result.notes, result.moved) == ((), (), ())
    assert {image.id.text for image in result.lock} == {*REFS, *KINDS}
    for image in result.lock:
        made = make_standin(image.id.text)
        assert image.digest == made.digest
        assert image.platforms == made.platforms
        assert image.size == made.size


def test_every_kind_of_stand_in_is_among_them() -> None:
    assert len({make_standin(ref).media_type for ref in [*REFS, *KINDS]}) >= 3


def test_a_proxy_does_not_show_in_the_lock(public: Registry, tmp_path: Path) -> None:
    lock = resolve(["redis:6"], workspace(everywhere(public)), root=tmp_path).lock
    assert str(lock.by_id[written("redis:6")].image) == (
        f"docker.io/library/redis@{make_standin('redis:6').digest}"
    )


def test_one_image_under_two_names_is_asked_for_once(tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64
    with answering(lambda *_: Reply(200, headers={"Docker-Content-Digest": digest})) as served:
        ids = ["redis:6", "docker.io/library/redis:6"]
        result = resolve(ids, workspace({"*": served.host}), root=tmp_path)
    heads = [path for method, path, _ in served.requests if method == "HEAD"]
    assert heads == ["/v2/docker.io/library/redis/manifests/6"]
    assert [image.digest for image in result.lock] == [digest, digest]


def test_a_substitute_is_locked_under_the_id_of_the_original(
    public: Registry, tmp_path: Path
) -> None:
    space = workspace(everywhere(public), {"docker.io/old/app:v1": "ghcr.io/new/app:v2"})
    image = resolve(["old/app:v1"], space, root=tmp_path).lock.by_id[written("old/app:v1")]
    assert image.image.repository == "ghcr.io/new/app"
    assert image.digest == make_standin("ghcr.io/new/app:v2").digest
    assert (image.path, image.tag) == ("docker.io/old/app", "v1")


def test_what_is_gone_is_named_and_the_rest_is_locked(public: Registry, tmp_path: Path) -> None:
    ids = ["redis:6", "gcr.io/gone/x:1", f"gcr.io/a/b@{GONE}"]
    result = resolve(ids, workspace(everywhere(public)), root=tmp_path)
    assert [image.id.text for image in result.lock] == ["redis:6"]
    assert to_json(result.failures) == [
        {
            "ref": f"gcr.io/a/b@{GONE}",
            "reason": f"{public.host}/gcr.io/a/b@{GONE}: not found: {public.host} has no such"
            " image",
            "hint": f"gone from its source: set images.substitutes['gcr.io/a/b@{GONE}'] in"
            " kfdeploy.yaml to an image to take instead",
        },
        {
            "ref": "gcr.io/gone/x:1",
            "reason": f"not found: {public.host} has no gcr.io/gone/x:1",
            "hint": "gone from its source: set images.substitutes['gcr.io/gone/x:1'] in"
            " kfdeploy.yaml to an image to take instead",
        },
    ]


def test_a_substitute_that_is_gone_is_named_as_such(public: Registry, tmp_path: Path) -> None:
    space = workspace(everywhere(public), {"redis:6": "ghcr.io/no/such:1"})
    (failure,) = resolve(["redis:6"], space, root=tmp_path).failures
    assert failure.reason.startswith("its substitute ghcr.io/no/such:1: not found")
    assert failure.hint.startswith("gone from its source: change images.substitutes['redis:6']")


def test_a_digest_needs_no_network(tmp_path: Path) -> None:
    found = f"gcr.io/a/b:v1@{GONE}"
    down = f"127.0.0.1:{free_port()}"
    result = resolve([found], workspace({"*": down}), root=tmp_path)
    assert result.failures == ()
    image = result.lock.by_id[written(found)]
    assert (image.digest, image.tag, image.size, dict(image.platforms)) == (GONE, "v1", None, {})
    assert [note.reason for note in result.notes] == [f"{down}: connection refused"]
    assert "size" not in lockfile.dumps(result.lock)


def test_a_digest_gets_its_details_where_they_can_be_had(public: Registry, tmp_path: Path) -> None:
    made = make_standin("gcr.io/a/b:v1")
    found = f"gcr.io/a/b@{made.digest}"
    image = resolve([found], workspace(everywhere(public)), root=tmp_path).lock.by_id[
        written(found)
    ]
    assert (image.size, image.platforms, image.tag) == (made.size, made.platforms, "")


def test_a_registry_that_is_down_fails_each_of_its_images(public: Registry, tmp_path: Path) -> None:
    down = f"127.0.0.1:{free_port()}"
    space = workspace({"*": public.host, "gcr.io": down})
    result = resolve(["redis:6", "gcr.io/a/b:v1", "gcr.io/a/c:v1"], space, root=tmp_path)
    assert [image.id.text for image in result.lock] == ["redis:6"]
    assert {f.reason for f in result.failures} == {f"{down}: connection refused"}


def test_private_sources_are_signed_in_to(public: Registry, tmp_path: Path) -> None:
    with serve_registry(public.folder, tls=True, auth="basic") as guarded:
        space = workspace({"*": guarded.host}, hosts={guarded.host: {"ca": str(guarded.ca)}})
        (failure,) = resolve(["redis:6"], space, root=tmp_path).failures
        assert "denied without a sign-in" in failure.reason
        assert "docker login" in failure.hint and "images.substitutes['redis:6']" in failure.hint
        docker_config(tmp_path / "no-docker-config", guarded)
        result = resolve(["redis:6"], space, root=tmp_path)
    assert result.lock.by_id[written("redis:6")].digest == make_standin("redis:6").digest


def test_offline_locks_what_is_known(public: Registry, tmp_path: Path) -> None:
    space = workspace(everywhere(public))
    before = resolve(["redis:6", "nginx"], space, root=tmp_path).lock
    nobody = workspace({"*": f"127.0.0.1:{free_port()}"})
    ids = ["redis:6", f"nginx@{GONE}", "gcr.io/a/b:v1"]
    result = resolve(ids, nobody, root=tmp_path, previous=before, offline=True)
    assert result.lock.by_id[written("redis:6")] == before.by_id[written("redis:6")]
    assert result.lock.by_id[written(f"nginx@{GONE}")].digest == GONE
    (failure,) = result.failures
    assert (failure.id.text, failure.reason) == (
        "gcr.io/a/b:v1",
        "not locked yet, and no registry may be asked",
    )


def test_a_tag_that_moved_is_locked_anew_and_told(public: Registry, tmp_path: Path) -> None:
    space = workspace(everywhere(public))
    now = resolve(["redis:6"], space, root=tmp_path).lock
    image = now.by_id[written("redis:6")]
    other = LockedImage(written("redis:6"), make_ref(image, GONE), {}, 1)
    result = resolve(["redis:6"], space, root=tmp_path, previous=Lock([other]))
    assert result.lock == now
    assert to_json(result.moved) == [{"ref": "redis:6", "before": GONE, "now": image.digest}]


def make_ref(image: LockedImage, digest: str) -> Any:
    from kfdeploy.oci.reference import ImageRef

    return ImageRef(image.image.host, image.image.path, "", digest)


def test_locking_again_asks_only_whether_it_is_the_same(public: Registry, tmp_path: Path) -> None:
    space = workspace(everywhere(public))
    before = resolve(REFS, space, root=tmp_path).lock
    digests = {f"/v2/{i.path}/manifests/{i.tag}": i.digest for i in before}

    def reply(method: str, path: str, number: int) -> Reply:
        return Reply(200, headers={"Docker-Content-Digest": digests[path]})

    with answering(reply) as served:
        again = resolve(REFS, workspace({"*": served.host}), root=tmp_path, previous=before)
    assert again.lock == before
    assert {method for method, _, _ in served.requests} == {"HEAD"}
    assert len(served.requests) == len({image.path for image in before})


def test_an_index_that_is_not_whole_is_a_failure(tmp_path: Path) -> None:
    index = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                {
                    "mediaType": OCI_MANIFEST,
                    "digest": GONE,
                    "size": 1,
                    "platform": {"os": "linux", "architecture": "amd64"},
                }
            ],
        }
    ).encode()

    def reply(method: str, path: str, number: int) -> Reply:
        if path.endswith(GONE):
            return Reply(404, b"{}", {"Content-Type": "application/json"})
        return Reply(200, index, {"Content-Type": OCI_INDEX})

    with answering(reply) as served:
        result = resolve(["gcr.io/a:1"], workspace({"*": served.host}), root=tmp_path)
    (failure,) = result.failures
    assert failure.reason.startswith(f"{served.host}/gcr.io/a@{GONE}: not found")


def test_a_limit_on_asking_leaves_out_only_the_size(tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64

    def reply(method: str, path: str, number: int) -> Reply:
        if method == "HEAD":
            return Reply(200, headers={"Docker-Content-Digest": digest})
        return Reply(429, headers={"Retry-After": "600"})

    with answering(reply) as served:
        result = resolve(["gcr.io/a:1"], workspace({"*": served.host}), root=tmp_path)
    assert result.lock.by_id[written("gcr.io/a:1")].digest == digest
    assert [note.id.text for note in result.notes] == ["gcr.io/a:1"]


def test_windows_images_are_told_apart_by_version(tmp_path: Path) -> None:
    child = b'{"schemaVersion": 2, "layers": []}'
    versions = ("10.0.17763.1", "10.0.20348.2")
    children = []
    for version in versions:
        platform = {"os": "windows", "architecture": "amd64", "os.version": version}
        children.append({"mediaType": OCI_MANIFEST, "digest": _digest(child), "platform": platform})
    index = json.dumps({"schemaVersion": 2, "manifests": children}).encode()

    def reply(method: str, path: str, number: int) -> Reply:
        body = child if path.endswith(_digest(child)) else index
        return Reply(200, body, {"Docker-Content-Digest": _digest(body)})

    with answering(reply) as served:
        lock = resolve(["a:1"], workspace({"*": served.host}), root=tmp_path).lock
    assert set(lock.by_id[written("a:1")].platforms) == {f"windows({v})/amd64" for v in versions}
    assert lockfile.loads(lockfile.dumps(lock)) == lock


def _digest(data: bytes) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_the_order_of_answers_does_not_show(public: Registry, tmp_path: Path) -> None:
    space = workspace(everywhere(public))
    texts = {
        lockfile.dumps(resolve(ids, space, root=tmp_path, jobs=jobs).lock)
        for ids in (REFS, REFS[::-1])
        for jobs in (1, 8)
    }
    assert len(texts) == 1


def test_progress_counts_to_the_end(public: Registry, tmp_path: Path) -> None:
    events: list[LockEvent] = []
    ids = ["redis:6", "nginx", "gcr.io/gone/x:1"]
    resolve(ids, workspace(everywhere(public)), root=tmp_path, on_event=events.append)
    assert [event.done for event in events] == [1, 2, 3]
    assert {event.id.text: event.state for event in events} == {
        "redis:6": "locked",
        "nginx": "locked",
        "gcr.io/gone/x:1": "failed",
    }


def test_a_mistake_in_the_sources_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"registries\.sources\['docker\.io'\]"):
        resolve(["redis"], workspace({"docker.io": "nowhere"}), root=tmp_path)


def test_a_bug_in_the_consumer_leaves_no_thread_behind(public: Registry, tmp_path: Path) -> None:
    def broken(event: LockEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve(REFS, workspace(everywhere(public)), root=tmp_path, on_event=broken)
