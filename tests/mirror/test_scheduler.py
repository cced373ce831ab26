"""What the mirror's workers are given, and in which order; with a clock that stands."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from kfdeploy.images.naming import MirrorRef
from kfdeploy.mirror.plan import MirrorItem
from kfdeploy.mirror.scheduler import TransferScheduler, TransferTask
from kfdeploy.oci.manifest import OCI_MANIFEST, ImageTree, Manifest, load_image_tree
from kfdeploy.oci.reference import ImageRef
from tests.support.refs import written

PRIVATE = "private.test"


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Run:
    """A board with images whose layers are given by name and size."""

    images: dict[str, dict[str, int]]
    hosts: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    jobs: int = 4
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.board = TransferScheduler(
            [self.item(name) for name in self.images],
            source=lambda item: item.source.host,
            destination=lambda item: PRIVATE,
            place=lambda item: item.repository.path,
            jobs=self.jobs,
            known={digest(layer): place for layer, place in self.known.items()},
            clock=self.clock,
        )

    def item(self, name: str) -> MirrorItem:
        host = self.hosts.get(name, "source.test")
        target = MirrorRef(ImageRef(PRIVATE, name), "v1", "sha256:0")
        source = ImageRef(host, name, "", "sha256:0")
        return MirrorItem((written(name),), source, target, "sha256:0", 1, "copy", push_tag="v1")

    def take(self) -> TransferTask:
        task = self.board.take_task()
        assert task is not None
        return task

    def read_all(self) -> None:
        for _ in self.images:
            task = self.take()
            assert task.kind == "read"
            self.board.finish_read(task, made(self.images[task.image.item.ids[0].text]))

    def finish(self) -> list[str]:
        """Do all that is left, one after the other; returns what was done."""
        done = []
        while (task := self.board.take_task()) is not None:
            done.append(shown(task))
            if task.kind == "read":
                self.board.finish_read(task, made(self.images[task.image.item.ids[0].text]))
            elif task.kind == "seal":
                self.board.finish_seal(task)
            else:
                self.board.finish_placement(task)
        return done


def digest(layer: str) -> str:
    return f"sha256:{layer}"


def made(layers: dict[str, int]) -> ImageTree:
    import json

    described = [{"digest": digest(name), "size": size} for name, size in layers.items()]
    body = json.dumps({"schemaVersion": 2, "layers": described}).encode()
    root = Manifest.parse(body, OCI_MANIFEST)
    return load_image_tree(root, lambda child: root)


def shown(task: TransferTask) -> str:
    name = task.image.item.ids[0]
    if task.placement is None:
        return f"{task.kind} {name}"
    layer = task.placement.blob.digest.partition(":")[2]
    return f"{task.kind} {layer} to {task.placement.place}"


def test_a_shared_blob_is_carried_once_and_mounted_where_else_it_is_needed() -> None:
    run = Run({"a": {"base": 9, "own-a": 1}, "b": {"base": 9, "own-b": 1}, "c": {"base": 9}})
    assert run.finish() == [
        *("read a", "read b", "read c"),
        *("carry base to a", "mount base to b", "mount base to c", "seal c"),
        *("carry own-a to a", "seal a", "carry own-b to b", "seal b"),
    ]
    assert run.board.bytes_found == 11


def test_what_the_destination_has_is_mounted_from_the_beginning() -> None:
    run = Run({"a": {"base": 9, "own": 1}}, known={"base": "elsewhere"})
    assert run.finish() == ["read a", "mount base to a", "carry own to a", "seal a"]
    assert run.board.bytes_found == 1


def test_the_largest_blob_of_an_image_goes_first() -> None:
    run = Run({"a": {"small": 1, "large": 9, "middle": 5}})
    assert [done.split()[1] for done in run.finish()[1:4]] == ["large", "middle", "small"]


def test_two_tags_of_a_repository_share_its_blobs() -> None:
    run = Run({"a": {"base": 9}})
    second = Run({"a": {"base": 9}}).item("a")
    run.images["a2"] = {"base": 9}
    run.board = TransferScheduler(
        [
            run.item("a"),
            MirrorItem(
                (written("a2"),),
                second.source,
                second.target,
                "",
                1,
                "copy",
                push_tag="v2",
            ),
        ],
        source=lambda item: "source.test",
        destination=lambda item: PRIVATE,
        place=lambda item: "a",
        jobs=2,
        clock=run.clock,
    )
    assert run.finish() == ["read a", "read a2", "carry base to a", "seal a", "seal a2"]


def test_a_blob_that_one_source_lacks_is_asked_of_another() -> None:
    run = Run({"a": {"base": 9}, "b": {"base": 9}}, hosts={"b": "other.test"})
    run.read_all()
    task = run.take()
    assert shown(task) == "carry base to a"
    # a's own source has failed, and a has no other; b is at another registry.
    assert [image.item.name for image in run.board.fail_task(task)] == ["a"]
    task = run.take()
    assert (shown(task), task.image.item.source.host) == ("carry base to b", "other.test")


def test_what_fails_takes_nothing_else_along_and_its_other_blobs_stay_where_they_are() -> None:
    run = Run({"a": {"bad": 9, "own": 1}, "b": {"fine": 5}})
    run.read_all()
    task = run.take()
    assert shown(task) == "carry bad to a"
    assert len(run.board.fail_task(task)) == 1
    assert run.finish() == ["carry fine to b", "seal b"]


def test_a_registry_that_wants_silence_gets_it_while_others_are_served() -> None:
    run = Run({"a": {"one": 9}, "b": {"two": 1}}, hosts={"b": "other.test"})
    run.read_all()
    busy = run.take()
    run.board.retry_later(busy, 58, struggling_host="source.test", is_silent=True)
    task = run.take()
    assert shown(task) == "carry two to b"
    run.board.finish_placement(task)
    run.board.finish_seal(run.take())
    run.clock.now += 58
    assert shown(run.take()) == "carry one to a"


@pytest.mark.parametrize("struggles", [0, 1])
def test_a_registry_that_struggles_gets_fewer_workers_until_it_has_recovered(
    struggles: int,
) -> None:
    images = {f"i{n}": {f"l{n}": 1} for n in range(8)}
    run = Run(images, jobs=4)
    for _ in range(struggles):
        run.board.retry_later(run.take(), 0, struggling_host="source.test")
        # What was on its way with it counts once.
        run.board.retry_later(run.take(), 0, struggling_host="source.test")
    taken = [run.take() for _ in range(2 if struggles else 4)]
    host = run.board._hosts["source.test"]
    assert host.active == int(host.limit) == len(taken)
    for task in taken:
        run.board.finish_read(task, made(images[task.image.item.ids[0].text]))
    run.finish()
    assert host.limit == 4


def test_blobs_that_the_destination_lost_are_seen_to_again_but_not_for_ever() -> None:
    run = Run({"a": {"one": 9, "two": 1}})
    run.read_all()
    for _ in range(2):
        for _ in range(2):
            run.board.finish_placement(run.take())
        task = run.take()
        assert task.kind == "seal"
        assert run.board.reopen_image(task)
    for _ in range(2):
        run.board.finish_placement(run.take())
    task = run.take()
    assert not run.board.reopen_image(task)
    assert run.board.fail_task(task) == [task.image]
    assert run.board.take_task() is None


def test_who_waits_is_woken_when_all_is_given_up() -> None:
    run = Run({"a": {"one": 9}, "b": {"two": 1}})
    run.take()
    assert len(run.board.abandon_images()) == 2
    assert run.board.take_task() is None
