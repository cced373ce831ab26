"""The mirror between real registries."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.cache import Cache
from kfdeploy.codec import to_json
from kfdeploy.errors import UserError
from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.mirror import mirror
from kfdeploy.mirror.plan import MirrorPlan, MirrorSummary
from kfdeploy.mirror.progress import MirrorEvent, MirrorProgress, format_seconds
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.settings import MirrorSettings
from kfdeploy.wording import format_bytes
from kfdeploy.workspace.settings import Workspace
from tests.support.answers import Reply, answering
from tests.support.refs import written
from tests.support.registries import Registry, docker_config, free_port, serve_registry
from tests.support.relay import relay
from tests.support.standins import make_standin, push_standins

REFS = (*(f"gcr.io/a/app{n}:v{n}" for n in range(8)), "redis:6", "docker.io/library/redis:6")
TARGETS = len(REFS) - 1
JSON = "application/json"


@pytest.fixture(autouse=True)
def no_own_sign_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker-config"))


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serve_registry(tmp_path_factory.mktemp("public") / "data") as registry:
        push_standins(registry.host, REFS)
        yield registry


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Registry]:
    with serve_registry(tmp_path / "private") as registry:
        yield registry


def locked(found: str, image: str = "") -> LockedImage:
    made = make_standin(image or found)
    source = ImageRef.parse(image or found)
    at = ImageRef(source.host, source.path, "", made.digest)
    return LockedImage(written(found), at, made.platforms, made.size)


LOCK = Lock([locked(ref) for ref in REFS])


def workspace(source: str, private: dict[str, Any]) -> Workspace:
    return Workspace.model_validate(
        {
            "upstream": {"source": "upstream"},
            "components": [{"name": "a", "path": "a"}],
            "registries": {"private": {"prefix": "kf", **private}, "sources": {"*": source}},
        }
    )


def settings(space: Workspace) -> MirrorSettings:
    return space.resolve_mirror_settings(space.environments["default"])


def opened(space: Workspace, root: Path) -> AbstractContextManager[mirror.MirrorEndpoints]:
    return mirror.open_endpoints(settings(space), root, Cache(root / "cache"))


def plan(lock: Lock, space: Workspace, root: Path) -> MirrorPlan:
    with opened(space, root) as sides:
        return mirror.plan_mirror(lock, settings(space), client=sides.client)


def run(
    lock: Lock, space: Workspace, root: Path, events: list[MirrorEvent] | None = None, jobs: int = 4
) -> MirrorSummary:
    watch = MirrorProgress(None if events is None else events.append)
    with opened(space, root) as sides:
        todo = mirror.plan_mirror(lock, settings(space), client=sides.client)
        known = mirror.find_known_places(todo, sides)
        return mirror.run_mirror(
            todo, sides.origin, sides.destination, jobs=jobs, known=known, progress=watch
        )


def has(registry: Registry, space: Workspace, root: Path, path: str, tag: str) -> str | None:
    with opened(space, root) as sides:
        return sides.client.get_digest(ImageRef(registry.host, path, tag))


def test_everything_arrives_at_its_digest(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    space = workspace(public.host, {"host": private.host})
    events: list[MirrorEvent] = []
    summary = run(LOCK, space, tmp_path, events)
    assert (len(summary.copied), summary.present, summary.failed) == (TARGETS, (), ())
    for image in LOCK:
        assert has(private, space, tmp_path, f"kf/{image.path}", image.tag) == image.digest
    finished = [event for event in events if event.state == "copied"]
    assert [event.done for event in finished] == list(range(1, TARGETS + 1))
    assert finished[-1].bytes_done == finished[-1].bytes_total == summary.tally.moved


def test_a_layer_that_images_share_is_sent_once_and_mounted(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    space = workspace(public.host, {"host": private.host})
    unique = {
        digest: len(data) for i in LOCK for digest, data in make_standin(i.id.text).blobs.items()
    }
    placed = {
        (i.path, digest): len(data)
        for i in LOCK
        for digest, data in make_standin(i.id.text).blobs.items()
    }
    tally = run(LOCK, space, tmp_path).tally
    assert tally.moved == sum(unique.values())
    assert tally.mounted == sum(placed.values()) - tally.moved > 0
    assert (tally.skipped, tally.retried, tally.retries) == (0, 0, 0)


def test_what_is_there_is_mounted_for_what_is_new(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    space = workspace(public.host, {"host": private.host})
    first, second = make_standin(LOCK.images[1].id.text), make_standin(LOCK.images[2].id.text)
    run(Lock(LOCK.images[1:2]), space, tmp_path)
    tally = run(Lock(LOCK.images[1:3]), space, tmp_path).tally
    assert tally.moved == sum(len(b) for d, b in second.blobs.items() if d not in first.blobs)


def test_a_second_run_copies_nothing(public: Registry, private: Registry, tmp_path: Path) -> None:
    space = workspace(public.host, {"host": private.host})
    run(LOCK, space, tmp_path)
    events: list[MirrorEvent] = []
    summary = run(LOCK, space, tmp_path, events)
    assert (summary.copied, len(summary.present), summary.failed) == ((), TARGETS, ())
    assert {event.state for event in events} == {"present"}
    assert summary.format_lines() == [f"0 copied (0 B sent), {TARGETS} present, 0 failed"]


def test_nothing_to_do_is_one_request_an_image(tmp_path: Path) -> None:
    digests = {f"/v2/kf/{i.path}/manifests/{i.tag}": i.digest for i in LOCK}

    def reply(method: str, path: str, number: int) -> Reply:
        return Reply(200, headers={"Docker-Content-Digest": digests[path]})

    with answering(reply) as served:
        summary = run(LOCK, workspace("unused.invalid", {"host": served.host}), tmp_path)
    assert len(summary.present) == TARGETS
    assert sorted(served.requests) == sorted(("HEAD", path, "") for path in digests)


def test_the_plan_says_what_would_be_copied(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    space = workspace(public.host, {"host": private.host})
    push_standins(private.host, ["gcr.io/a/app0:v0"], path_of=lambda r: f"kf/{r.host}/{r.path}")
    push_standins(private.host, ["x/y:z"], path_of=lambda r: "kf/gcr.io/a/app1")
    lock = Lock([locked("gcr.io/a/app0:v0"), replace(locked("gcr.io/a/app1:v1"), size=None)])
    moved = Lock([*lock, replace(locked("gcr.io/a/app2:v2"), size=3 * 1024 * 1024)])
    todo = plan(moved, space, tmp_path)
    assert todo.format_lines() == [
        f"gcr.io/a/app1:v1 -> {private.host}/kf/gcr.io/a/app1:v1 (size unknown)",
        f"gcr.io/a/app2:v2 -> {private.host}/kf/gcr.io/a/app2:v2 (3.0 MiB)",
        "2 to copy (3.0 MiB at most and 1 of unknown size), 1 present",
    ]
    content = to_json(todo)
    assert (content["bytes"], content["unknownSizes"]) == (3 * 1024 * 1024, 1)
    assert content["present"][0]["refs"] == ["gcr.io/a/app0:v0"]
    assert content["copy"][0] == {
        "refs": ["gcr.io/a/app1:v1"],
        "from": f"{public.host}/gcr.io/a/app1@{make_standin('gcr.io/a/app1:v1').digest}",
        "to": f"{private.host}/kf/gcr.io/a/app1:v1",
        "digest": make_standin("gcr.io/a/app1:v1").digest,
        "bytes": None,
        "state": "copy",
    }


def test_a_tag_with_another_image_is_replaced(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    space = workspace(public.host, {"host": private.host})
    push_standins(private.host, ["other/image:v1"], path_of=lambda r: "kf/gcr.io/a/app1")
    lock = Lock([locked("gcr.io/a/app1:v1")])
    (item,) = plan(lock, space, tmp_path).items
    assert (item.state, item.replaces) == ("replace", make_standin("other/image:v1").digest)
    assert len(run(lock, space, tmp_path).copied) == 1
    assert has(private, space, tmp_path, "kf/gcr.io/a/app1", "v1") == lock.images[0].digest


def test_a_substitute_goes_where_the_original_would(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    space = workspace(public.host, {"host": private.host})
    run(Lock([locked("ghcr.io/gone/x:9", image="gcr.io/a/app3:v3")]), space, tmp_path)
    there = has(private, space, tmp_path, "kf/ghcr.io/gone/x", "9")
    assert there == make_standin("gcr.io/a/app3:v3").digest


def test_a_reference_by_digest_gets_a_tag_from_it(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    made = make_standin("gcr.io/a/app3:v3")
    found = f"gcr.io/a/app3@{made.digest}"
    image = LockedImage(written(found), ImageRef("gcr.io", "a/app3", "", made.digest))
    space = workspace(public.host, {"host": private.host})
    run(Lock([image]), space, tmp_path)
    tag = f"digest-{made.digest[7:19]}"
    assert has(private, space, tmp_path, "kf/gcr.io/a/app3", tag) == made.digest


def test_two_images_on_one_target_are_an_error_before_anything_is_asked(tmp_path: Path) -> None:
    naming = {"keepHost": False}
    space = workspace("s.invalid", {"host": "private.invalid", "naming": naming})
    lock = Lock([locked("gcr.io/a/x:1"), locked("ghcr.io/a/x:1")])
    with pytest.raises(UserError, match=r"gcr\.io/a/x:1 and ghcr\.io/a/x:1 are different images"):
        plan(lock, space, tmp_path)


def test_what_fails_is_collected_and_the_rest_is_copied(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    space = workspace(public.host, {"host": private.host})
    lost = LockedImage(
        written("no/such:1"), ImageRef("docker.io", "no/such", "", "sha256:" + "0" * 64)
    )
    events: list[MirrorEvent] = []
    summary = run(Lock([*LOCK, lost]), space, tmp_path, events)
    assert len(summary.copied) == TARGETS
    (failed,) = summary.failed
    assert failed.item.ids == (written("no/such:1"),)
    assert failed.error.message == (
        f"{failed.item.source}: not found: {public.host} has no such image"
    )
    assert summary.list_errors() == [failed.error]
    assert to_json(summary)["failed"][0]["refs"] == ["no/such:1"]
    (event,) = [event for event in events if event.state == "failed"]
    assert event.format_line().startswith(f"[{event.done}/{TARGETS + 1}] failed no/such:1: ")


def test_a_private_registry_that_is_down_is_one_error(tmp_path: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    with pytest.raises(UserError) as raised:
        plan(LOCK, workspace("s.invalid", {"host": host}), tmp_path)
    assert [str(e) for e in raised.value.list_errors()] == [f"{host}: connection refused"]


def test_a_private_registry_that_answers_nonsense_is_told(tmp_path: Path) -> None:
    html = Reply(200, b"<html/>", {"Content-Type": "text/html"})
    with answering(lambda *_: html) as served, pytest.raises(UserError) as raised:
        plan(Lock([LOCK.images[0]]), workspace("s.invalid", {"host": served.host}), tmp_path)
    assert "not a registry" in raised.value.message


def test_tls_and_sign_in_to_the_private_registry(public: Registry, tmp_path: Path) -> None:
    with serve_registry(tmp_path / "guarded", tls=True, auth="basic") as guarded:
        settings = {"host": guarded.host, "ca": str(guarded.ca)}
        space = workspace(public.host, settings)
        with pytest.raises(UserError, match="denied without a sign-in") as raised:
            plan(LOCK, space, tmp_path)
        assert "registries.private.credentials" in (raised.value.list_errors()[0].hint or "")
        docker_config(tmp_path / "docker", guarded)
        space = workspace(public.host, {**settings, "credentials": {"dockerConfig": "docker"}})
        assert len(run(LOCK, space, tmp_path).copied) == TARGETS


def test_a_registry_that_keeps_another_digest_is_found_out(
    public: Registry, tmp_path: Path
) -> None:
    other = make_standin("other/image:v1").digest

    def reply(method: str, path: str, number: int) -> Reply:
        if method == "PUT" and "/manifests/" in path:
            return Reply(201, headers={"Docker-Content-Digest": other})
        begun = {"Content-Type": JSON, "Location": "/upload"}
        return Reply({"POST": 202, "PUT": 201}.get(method, 404), headers=begun)

    lock = Lock([locked("gcr.io/a/app1:v1")])
    with answering(reply) as served:
        space = workspace(public.host, {"host": served.host})
        (failed,) = run(lock, space, tmp_path).failed
    child = make_standin("gcr.io/a/app1:v1").platforms["linux/amd64"]
    assert failed.error.message == (
        f"{served.host}/kf/gcr.io/a/app1@{child}: pushed as {child}, but the"
        f" registry has {other} there"
    )


def test_interrupted_and_run_again_it_goes_on(
    public: Registry, private: Registry, tmp_path: Path
) -> None:
    interrupted: list[float] = []
    timers: list[threading.Timer] = []
    with relay(public.host, bytes_per_second=1500) as slow:
        space = workspace(slow, {"host": private.host})

        def interrupt() -> None:
            interrupted.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        def note(event: MirrorEvent) -> None:
            if event.state == "copied" and not timers:
                timers.append(threading.Timer(0.02, interrupt))
                timers[0].start()

        with opened(space, tmp_path) as sides:
            todo = mirror.plan_mirror(LOCK, settings(space), client=sides.client)
            with pytest.raises(KeyboardInterrupt):
                mirror.run_mirror(
                    todo,
                    sides.origin,
                    sides.destination,
                    jobs=2,
                    progress=MirrorProgress(note),
                    stop=sides.client.close,
                )
            assert time.monotonic() - interrupted[0] < 5
    space = workspace(public.host, {"host": private.host})
    todo = plan(LOCK, space, tmp_path)
    assert len(todo.present) >= 1
    assert all(item.state == "copy" for item in todo.to_copy)
    summary = run(LOCK, space, tmp_path)
    assert len(summary.copied) == len(todo.to_copy)
    assert len(plan(LOCK, space, tmp_path).to_copy) == 0


def test_bytes_are_written_for_people() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 1536, 5 * 1024**3, 3 * 1024**4)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "5.0 GiB",
        "3.0 TiB",
    ]


def test_the_rate_and_the_time_left_are_those_of_late() -> None:
    now = [100.0]
    watch = MirrorProgress(clock=lambda: now[0])
    watch.record_plan(9, [], lambda: (1000, True))
    now[0] = 110.0
    watch.count_moved(250)
    shown = watch.take_snapshot()
    assert (shown.rate, shown.seconds_left) == (25.0, 30.0)
    assert shown.format_line() == "0 of 9 images, 250 B of 1000 B, 25 B/s, 30 s left"
    watch.record_wait("ghcr.io", 58)
    assert watch.take_snapshot().waiting == ("waiting 58 s for ghcr.io",)


def test_times_are_written_for_people() -> None:
    assert [format_seconds(n) for n in (5, 89, 90, 3600, 5400)] == [
        "5 s",
        "89 s",
        "2 min",
        "60 min",
        "1 h 30 min",
    ]
