"""The digests of what environments get that name platforms, against a real registry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

import pytest

from kfdeploy.cache import Cache
from kfdeploy.codec import to_json
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.lock.result import Resolution
from kfdeploy.oci.manifest import Manifest, select_platforms
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.access import AccessResolver, RegistryAccess
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.manifest_cache import ManifestCache
from kfdeploy.workspace.settings import Workspace
from tests.support.answers import Reply, answering
from tests.support.refs import resolve, written
from tests.support.registries import Registry, free_port, serve_registry
from tests.support.standins import (
    DOCKER_LIST,
    OCI_INDEX,
    OCI_MANIFEST,
    Standin,
    make_standin,
    push_standins,
)

X, ARM = "linux/amd64", "linux/arm64"


def named(fits: Callable[[Standin], bool]) -> str:
    """A reference whose stand-in is as it is wanted."""
    refs = (f"quay.io/platforms/image{number}:v1" for number in count())
    return next(ref for ref in refs if fits(make_standin(ref)))


INDEX = named(lambda i: i.media_type == OCI_INDEX and set(i.platforms) == {X, ARM, "linux/s390x"})
PAIR = named(lambda i: i.media_type == OCI_INDEX and set(i.platforms) == {X, ARM})
DOCKER = named(lambda i: i.media_type == DOCKER_LIST and "linux/arm64/v8" in i.platforms)
ATTESTED = named(lambda i: len(i.manifests) == len(i.platforms) + 2)
SINGLE = named(lambda i: len(i.manifests) == 1)
REFS = (INDEX, PAIR, DOCKER, ATTESTED, SINGLE)


@pytest.fixture(autouse=True)
def no_own_sign_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker-config"))


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serve_registry(tmp_path_factory.mktemp("public") / "data") as registry:
        push_standins(registry.host, REFS)
        yield registry


def workspace(host: str, environments: Mapping[str, Sequence[str]]) -> Workspace:
    return Workspace.model_validate(
        {
            "upstream": {"source": "upstream"},
            "components": [{"name": "a", "path": "a"}],
            "registries": {"private": {"host": "private.invalid"}, "sources": {"*": host}},
            "environments": {n: {"platforms": list(p)} for n, p in environments.items()},
        }
    )


def index_of(ref: str) -> Manifest:
    image = make_standin(ref)
    return Manifest.parse(image.manifests[image.digest][1], image.media_type)


def test_each_list_of_platforms_has_the_digest_of_the_reduced_index(
    public: Registry, tmp_path: Path
) -> None:
    environments = {"all": (), "one": (X,), "two": (ARM, X), "same": (X, ARM, X)}
    result = resolve(REFS, workspace(public.host, environments), root=tmp_path)
    assert result.failures == ()
    for ref in (INDEX, PAIR, DOCKER, ATTESTED):
        image = result.lock.by_id[written(ref)]
        assert image.digest == make_standin(ref).digest
        assert image.size == make_standin(ref).size
        assert dict(image.reduced) == {
            "linux/amd64": select_platforms(index_of(ref), (X,)).digest,
            "linux/amd64,linux/arm64": select_platforms(index_of(ref), (X, ARM)).digest,
        }
    # What has no other platforms is the index itself.
    assert result.lock.by_id[written(PAIR)].digest_for((X, ARM)) == make_standin(PAIR).digest
    assert result.lock.by_id[written(INDEX)].digest_for((X, ARM)) not in (
        "",
        make_standin(INDEX).digest,
    )
    assert lockfile.loads(lockfile.dumps(result.lock)) == result.lock


def test_a_single_manifest_stays_what_it_is(public: Registry, tmp_path: Path) -> None:
    result = resolve([SINGLE], workspace(public.host, {"one": (X,)}), root=tmp_path)
    (image,) = result.lock
    assert (dict(image.reduced), result.notes, result.failures) == ({}, (), ())
    assert image.digest_for((X,)) == image.digest == make_standin(SINGLE).digest


def test_without_platforms_nothing_is_reduced(public: Registry, tmp_path: Path) -> None:
    result = resolve(REFS, workspace(public.host, {"default": ()}), root=tmp_path)
    assert "kfdeploy.io/reduced" not in lockfile.dumps(result.lock)


def test_an_image_with_none_of_the_platforms_is_a_failure_and_locked_for_the_others(
    public: Registry, tmp_path: Path
) -> None:
    environments = {"edge": ("linux/arm64",), "lab": ("linux/riscv64",), "all": ()}
    result = resolve([PAIR, SINGLE], workspace(public.host, environments), root=tmp_path)
    assert {image.id.text for image in result.lock} == {PAIR, SINGLE}
    hint = (
        "name another image in images.substitutes[{!r}] of kfdeploy.yaml, leave it out by"
        " images.exclude, or change environments.{}.platforms"
    )
    expected = {
        (PAIR, "lab", "linux/riscv64", "linux/amd64, linux/arm64"),
        (SINGLE, "edge", "linux/arm64", "linux/amd64"),
        (SINGLE, "lab", "linux/riscv64", "linux/amd64"),
    }
    assert {(f.id.text, f.reason, f.hint) for f in result.failures} == {
        (
            ref,
            f"the environment {name} wants {wanted}, and the image has {has}",
            hint.format(ref, name),
        )
        for ref, name, wanted, has in expected
    }
    image = result.lock.by_id[written(PAIR)]
    assert image.digest_for(("linux/riscv64",)) == ""
    assert image.digest_for(()) == image.digest
    assert image.digest_for(("linux/arm64",)) == select_platforms(index_of(PAIR), (ARM,)).digest


def test_environments_with_the_same_wish_are_named_together(
    public: Registry, tmp_path: Path
) -> None:
    wish = ("linux/riscv64", "linux/s390x")
    space = workspace(public.host, {"one": wish, "two": wish[::-1]})
    (failure,) = resolve([PAIR], space, root=tmp_path).failures
    assert failure.reason == (
        "the environments one and two want linux/riscv64, linux/s390x, and the image has"
        " linux/amd64, linux/arm64"
    )
    assert failure.hint.endswith(
        " or change environments.one.platforms and environments.two.platforms"
    )


def test_an_image_that_lacks_some_is_noted(public: Registry, tmp_path: Path) -> None:
    space = workspace(public.host, {"mixed": ("linux/amd64", "linux/s390x")})
    result = resolve([INDEX, PAIR, SINGLE], space, root=tmp_path)
    assert result.failures == ()
    assert to_json(result.notes) == [
        {
            "ref": ref,
            "about": "platforms",
            "reason": "the environment mixed wants linux/amd64, linux/s390x, and it has no"
            f" linux/s390x, but {has}",
        }
        for ref, has in sorted({PAIR: "linux/amd64, linux/arm64", SINGLE: "linux/amd64"}.items())
    ]


class _Nobody(AccessResolver):
    def __init__(self) -> None:
        """No registry is to be asked."""

    def __call__(self, host: str) -> RegistryAccess:
        pytest.fail(f"{host} was asked")


def test_what_is_read_is_in_the_cache_for_the_mirror(public: Registry, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    resolve(REFS, workspace(public.host, {"one": (X,)}), root=tmp_path, cache=cache)
    with RegistryClient(_Nobody()) as nobody:
        stock = ManifestCache(nobody, cache)
        for ref in REFS:
            tree = stock.get_cached_tree(make_standin(ref).digest)
            assert tree is not None
            assert {manifest.digest for manifest in tree.manifests} == set(
                make_standin(ref).manifests
            )


def asked(public: Registry, tmp_path: Path, before: Lock, cache: Cache | None) -> Counted:
    """Lock again for an environment that is new, through a registry that tells what it is asked."""

    def reply(method: str, path: str, number: int) -> Reply:
        image = images[path.removeprefix("/v2/").partition("/manifests/")[0]]
        name = path.rpartition("/")[2]
        media_type, body = image.manifests[image.digest if name == "v1" else name]
        digest = image.digest if name == "v1" else name
        headers = {"Docker-Content-Digest": digest, "Content-Type": media_type}
        return Reply(200, body if method == "GET" else b"", headers)

    images = {image.path: make_standin(image.id.text) for image in before}
    with answering(reply) as served:
        space = workspace(served.host, {"one": (X,), "two": (X, ARM)})
        result = resolve(
            [i.id.text for i in before], space, root=tmp_path, previous=before, cache=cache
        )
    return result, [(method, path.rpartition("/")[2]) for method, path, _ in served.requests]


Counted = tuple[Resolution, list[tuple[str, str]]]


def test_a_new_environment_asks_for_indexes_alone_and_the_next_time_for_nothing(
    public: Registry, tmp_path: Path
) -> None:
    before = resolve(REFS, workspace(public.host, {"default": ()}), root=tmp_path).lock
    first, requests = asked(public, tmp_path, before, None)
    fresh = resolve(REFS, workspace(public.host, {"a": (X,), "b": (X, ARM)}), root=tmp_path).lock
    assert first.lock == fresh
    indexes = {make_standin(ref).digest for ref in REFS} - {make_standin(SINGLE).digest}
    assert {name for method, name in requests if method == "GET"} == indexes
    again, requests = asked(public, tmp_path, first.lock, None)
    assert again.lock == fresh
    assert {method for method, _ in requests} == {"HEAD"}


def test_a_new_environment_asks_for_nothing_that_is_in_the_cache(
    public: Registry, tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "cache")
    space = workspace(public.host, {"default": ()})
    before = resolve(REFS, space, root=tmp_path, cache=cache).lock
    result, requests = asked(public, tmp_path, before, cache)
    assert all(image.digest_for((X,)) for image in result.lock)
    assert {method for method, _ in requests} == {"HEAD"}


def test_lists_that_no_environment_names_any_more_go(public: Registry, tmp_path: Path) -> None:
    before = resolve([INDEX], workspace(public.host, {"a": (X,), "b": (ARM,)}), root=tmp_path).lock
    for offline in (False, True):
        space = workspace(public.host, {"a": (X,)})
        after = resolve([INDEX], space, root=tmp_path, previous=before, offline=offline).lock
        assert set(after.by_id[written(INDEX)].reduced) == {"linux/amd64"}


def test_offline_keeps_what_is_locked_then_takes_the_cache_then_fails(
    public: Registry, tmp_path: Path
) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    one = workspace(nobody, {"one": (X,)})
    cache = Cache(tmp_path / "cache")
    before = resolve(REFS, workspace(public.host, {"one": (X,)}), root=tmp_path, cache=cache).lock
    kept = resolve(REFS, one, root=tmp_path, previous=before, offline=True)
    assert (kept.lock, kept.failures) == (before, ())

    two = workspace(nobody, {"one": (X,), "two": (ARM,)})
    cached = resolve(REFS, two, root=tmp_path, previous=before, offline=True, cache=cache)
    assert (
        cached.lock.by_id[written(INDEX)].digest_for((ARM,))
        == select_platforms(index_of(INDEX), (ARM,)).digest
    )
    assert [failure.id.text for failure in cached.failures] == [SINGLE]

    bare = resolve([INDEX], two, root=tmp_path, previous=before, offline=True)
    assert bare.lock.by_id[written(INDEX)] == before.by_id[written(INDEX)]
    assert to_json(bare.failures) == [
        {
            "ref": INDEX,
            "reason": "the environment two wants linux/arm64; its index can't be read: it is not in"
            " the cache, and no registry may be asked",
            "hint": "run `kfdeploy lock` again where its source can be reached",
        }
    ]


def test_a_digest_whose_registry_is_down_is_locked_but_not_reduced(tmp_path: Path) -> None:
    down = f"127.0.0.1:{free_port()}"
    found = f"gcr.io/a/b@{make_standin(INDEX).digest}"
    result = resolve([found], workspace(down, {"one": (X,), "all": ()}), root=tmp_path)
    (image,) = result.lock
    assert (image.digest, image.digest_for((X,))) == (make_standin(INDEX).digest, "")
    (failure,) = result.failures
    assert failure.reason == (
        "the environment one wants linux/amd64; its index can't be read:"
        f" {down}: connection refused"
    )


def test_what_is_for_no_platform_stays_and_is_noted(tmp_path: Path) -> None:
    """An artifact, such as a chart: nothing can be taken from it."""
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()
    digest = Manifest.parse(body, OCI_MANIFEST).digest
    headers = {"Docker-Content-Digest": digest, "Content-Type": OCI_MANIFEST}
    with answering(lambda *_: Reply(200, body, headers)) as served:
        space = workspace(served.host, {"one": (X,)})
        result = resolve(["gcr.io/chart:1"], space, root=tmp_path)
    (image,) = result.lock
    assert image.digest_for((X,)) == digest
    assert [note.reason for note in result.notes] == [
        "the environment one wants linux/amd64, and nothing says what it has"
    ]
    assert result.failures == ()


def test_a_lock_from_before_has_no_digest_for_the_platforms(
    public: Registry, tmp_path: Path
) -> None:
    lock = resolve(REFS, workspace(public.host, {"default": ()}), root=tmp_path).lock
    lacking = {image.id.text for image in lock if not image.digest_for((X,))}
    assert lacking == set(REFS) - {SINGLE}


def test_a_single_manifest_of_another_platform_has_no_digest() -> None:
    digest = make_standin(SINGLE).digest
    image = LockedImage(written(SINGLE), lock_ref(digest), {"linux/arm64/v8": digest}, 1)
    assert image.digest_for(("linux/amd64",)) == ""
    assert image.digest_for(("linux/amd64", "linux/arm64")) == digest


def lock_ref(digest: str) -> ImageRef:
    return ImageRef("quay.io", "platforms/image", "", digest)
