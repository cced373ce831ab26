"""Where images are pulled from, and where the private registry has them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from kfdeploy.errors import UserError
from kfdeploy.images.lockfile import LockedImage
from kfdeploy.images.naming import MirrorNaming, PullSources
from kfdeploy.oci.reference import ImageRef, host_qualified_path, is_image_ref
from kfdeploy.oci.registry.settings import PrivateRegistry, RepositoryNaming
from tests.support.refs import written

D = "sha256:" + "0123456789abcdef" * 4
E = "sha256:" + "f" * 64


def mirror(
    prefix: str = "kf",
    keep_host: bool = True,
    max_depth: int | None = None,
    max_length: int | None = None,
    platforms: tuple[str, ...] = (),
) -> MirrorNaming:
    naming = RepositoryNaming(keep_host=keep_host, max_depth=max_depth, max_length=max_length)
    return MirrorNaming(PrivateRegistry(host="reg.corp", prefix=prefix, naming=naming), platforms)


def locked(found: str, digest: str = D, image: str = "") -> LockedImage:
    source = ImageRef.parse(image or found)
    locked_as = ImageRef(source.host, source.path, "", digest)
    return LockedImage(written(found), locked_as)


@pytest.mark.parametrize(
    ("found", "rendered"),
    [
        ("redis:6", f"reg.corp/kf/docker.io/library/redis:6@{D}"),
        ("redis", f"reg.corp/kf/docker.io/library/redis:latest@{D}"),
        (f"redis@{D}", f"reg.corp/kf/docker.io/library/redis@{D}"),
        (f"redis:6@{D}", f"reg.corp/kf/docker.io/library/redis:6@{D}"),
        ("gcr.io/a/b:v1", f"reg.corp/kf/gcr.io/a/b:v1@{D}"),
        ("localhost:5000/x:1", f"reg.corp/kf/localhost-5000/x:1@{D}"),
        ("[::1]:5000/x:1", f"reg.corp/kf/1--5000/x:1@{D}"),
        ("Host/x:1", f"reg.corp/kf/host/x:1@{D}"),
    ],
)
def test_target_is_prefix_host_path_of_the_reference_found(found: str, rendered: str) -> None:
    target = mirror().mirror_ref(locked(found))
    assert str(target.pinned_reference) == rendered
    assert is_image_ref(rendered)


def test_a_reference_without_a_tag_is_pushed_by_its_digest() -> None:
    target = mirror().mirror_ref(locked(f"redis@{D}"))
    assert str(target.reference) == "reg.corp/kf/docker.io/library/redis:digest-0123456789ab"


def test_a_substitute_keeps_the_target_of_the_original() -> None:
    target = mirror().mirror_ref(locked("gcr.io/gone/x:1", E, image="ghcr.io/here/y"))
    assert str(target.pinned_reference) == f"reg.corp/kf/gcr.io/gone/x:1@{E}"


def test_without_prefix_the_host_comes_first() -> None:
    assert (
        str(mirror("").mirror_ref(locked("redis")).repository) == "reg.corp/docker.io/library/redis"
    )


def test_the_host_may_be_dropped() -> None:
    target = mirror(keep_host=False).mirror_ref(locked("gcr.io/a/b:1"))
    assert str(target.repository) == "reg.corp/kf/a/b"


@pytest.mark.parametrize(
    ("depth", "path"),
    [
        (6, "kf/gcr.io/a/b/c"),
        (5, "kf/gcr.io/a/b/c"),
        (4, "kf/gcr.io/a/b-c"),
        (3, "kf/gcr.io/a-b-c"),
        (2, "kf/gcr.io-a-b-c"),
    ],
)
def test_depth_counts_the_prefix_and_joins_the_rest(depth: int, path: str) -> None:
    target = mirror(max_depth=depth).mirror_ref(locked("gcr.io/a/b/c:1"))
    assert str(target.repository) == f"reg.corp/{path}"
    assert is_image_ref(str(target.pinned_reference))


def test_a_prefix_that_uses_up_the_depth_is_an_error() -> None:
    with pytest.raises(UserError, match="maxDepth: 2 leaves no element") as raised:
        mirror("a/b", max_depth=2)
    assert raised.value.hint == "set it to 3 or more; the prefix counts"


LONG = "kf/gcr.io/ab/c__d-e"
SUM = hashlib.sha256(LONG.encode()).hexdigest()[:8]


@pytest.mark.parametrize(
    ("length", "path"),
    [
        (255, LONG),
        (len(LONG), LONG),
        (18, f"kf/gcr.io-{SUM}"),  # not `kf/gcr.io/-`: that is no name
        (13, f"kf/g-{SUM}"),
        (16, f"kf/gcr-{SUM}"),  # not `kf/gcr.-`
    ],
)
def test_a_path_that_is_too_long_is_cut_and_ends_in_its_sum(length: int, path: str) -> None:
    target = mirror(max_length=length).mirror_ref(locked("gcr.io/ab/c__d-e:1"))
    assert str(target.repository) == f"reg.corp/{path}"
    assert len(path) <= length
    assert is_image_ref(str(target.pinned_reference))


@pytest.mark.parametrize("length", range(13, 60))
def test_a_cut_path_is_legal_and_short_enough_wherever_it_is_cut(length: int) -> None:
    found = "ghcr.io/a/b.c/d__e/f---g/h_i/j.k.l-m/n:1"
    path = mirror(max_length=length, max_depth=5).repository_path(locked(found).path)
    assert len(path) <= length
    assert path.startswith("kf/g")
    assert is_image_ref(f"reg.corp/{path}")


def test_paths_that_begin_alike_stay_apart() -> None:
    paths = {
        mirror(max_length=30).repository_path(f"docker.io/{'a' * 40}/{name}") for name in "xyz"
    }
    assert len(paths) == 3
    assert len({path[:-9] for path in paths}) == 1


def test_a_prefix_that_uses_up_the_length_is_an_error() -> None:
    with pytest.raises(UserError) as raised:
        mirror("kf/mirror", max_length=19)
    assert raised.value.message == (
        "registries.private.naming.maxLength: 19 leaves no room for an image below the prefix"
        " 'kf/mirror'"
    )
    assert raised.value.hint == "set it to 20 or more; the prefix counts"
    assert (
        mirror("kf/mirror", max_length=20).repository_path("gcr.io/abcd").startswith("kf/mirror/g-")
    )
    assert mirror("", max_length=10).repository_path("gcr.io/abcdef").startswith("g-")


def test_what_is_pushed_where_no_tag_is_moved() -> None:
    target = mirror().mirror_ref(locked("redis:6"))
    assert target.digest_tag == "digest-0123456789ab"
    error = target.immovable_tag_error(written("redis:6"), E)
    assert error.message == (
        f"redis:6: reg.corp/kf/docker.io/library/redis:6 is {E} and would have to be {D}: manifests"
        " can name this image by its tag alone, and with registries.private.immutableTags no tag"
        " is moved"
    )
    assert error.hint == (
        "delete the tag in the registry, or mirror below another registries.private.prefix"
    )


def test_an_environments_platforms_decide_the_digest() -> None:
    image = replace(locked("redis:6"), reduced={"linux/amd64,linux/arm64": E})
    both = mirror(platforms=("linux/amd64", "linux/arm64"))
    target = both.mirror_ref(image)
    assert (target.digest, target.push_tag) == (E, "6")
    assert str(target.pinned_reference) == f"reg.corp/kf/docker.io/library/redis:6@{E}"
    assert mirror().mirror_ref(image).digest == D
    by_digest = replace(locked(f"redis@{D}"), reduced=image.reduced)
    assert both.mirror_ref(by_digest).push_tag == "digest-ffffffffffff"


def test_what_is_not_locked_for_the_platforms_is_named() -> None:
    images = [locked("redis:6"), replace(locked("redis:7"), reduced={"linux/amd64": E})]
    images.append(locked("a/b:1"))
    with pytest.raises(UserError) as raised:
        mirror(platforms=("linux/amd64",)).mirror_refs(images)
    assert [(error.message, error.hint) for error in raised.value.list_errors()] == [
        ("a/b:1 is not locked for linux/amd64", "run `kfdeploy lock`"),
        ("redis:6 is not locked for linux/amd64", "run `kfdeploy lock`"),
    ]


def test_two_images_on_one_target_are_an_error_that_names_both() -> None:
    with pytest.raises(UserError) as raised:
        mirror(keep_host=False).mirror_refs([locked("gcr.io/a/b:1", D), locked("ghcr.io/a/b:1", E)])
    assert raised.value.message == (
        "gcr.io/a/b:1 and ghcr.io/a/b:1 are different images and would both be reg.corp/kf/a/b:1"
    )


def test_all_such_pairs_are_named() -> None:
    pairs = [
        locked(f"{host}/a/{name}:1", d) for host, d in (("x.io", D), ("y.io", E)) for name in "pq"
    ]
    with pytest.raises(UserError) as raised:
        mirror(keep_host=False).mirror_refs(pairs)
    assert len(raised.value.list_errors()) == 2


def test_one_image_under_two_names_is_no_clash() -> None:
    targets = mirror().mirror_refs([locked("redis:6"), locked("docker.io/library/redis:6")])
    assert len({t.pinned_reference for t in targets.values()}) == 1
    assert set(map(str, targets)) == {"redis:6", "docker.io/library/redis:6"}


def test_other_tags_of_one_repository_are_no_clash() -> None:
    assert len(mirror().mirror_refs([locked("redis:6", D), locked("redis:7", E)])) == 2


def test_too_long_a_repository_is_an_error() -> None:
    with pytest.raises(UserError, match="more than 255 characters") as raised:
        mirror("p" * 200).mirror_refs([locked("gcr.io/" + "a" * 100)])
    assert raised.value.hint == (
        "set registries.private.naming.maxLength: 255, which cuts it; or shorten"
        " registries.private.prefix, or set naming.keepHost: false"
    )
    assert mirror("p" * 200, max_length=255).mirror_refs([locked("gcr.io/" + "a" * 100)])


def test_neutral_path_is_legal_for_every_host() -> None:
    for found in ("redis", "localhost:5000/x", "[fe80::1]/x", "A.B/c", "a_b.example/x"):
        assert is_image_ref(f"reg.corp/{host_qualified_path(ImageRef.parse(found))}")


@pytest.mark.parametrize(
    ("found", "asked"),
    [
        ("redis:6", "proxy.corp/hub/library/redis:6"),
        ("docker.io/a/b", "proxy.corp/hub/a/b"),
        ("docker.io/kserve/x:1", "other.corp:5000/x:1"),
        ("docker.io/kserve-x/x:1", "proxy.corp/hub/kserve-x/x:1"),
        ("docker.io/kserve/exact:1", "exact.corp/place:1"),
        (f"gcr.io/a:1@{D}", f"all.corp/kf/gcr.io/a:1@{D}"),
        ("localhost:5000/a:1", "all.corp/kf/localhost-5000/a:1"),
    ],
)
def test_longest_source_prefix_wins_on_element_boundaries(found: str, asked: str) -> None:
    sources = PullSources(
        {
            "*": "all.corp/kf",
            "index.docker.io": "proxy.corp/hub/",
            "docker.io/kserve": "other.corp:5000",
            "docker.io/kserve/exact": "exact.corp/place",
        }
    )
    assert str(sources.resolve_ref(ImageRef.parse(found))) == asked


def test_without_a_rule_an_image_is_asked_where_it_is() -> None:
    ref = ImageRef.parse("gcr.io/a:1")
    assert PullSources({"docker.io": "proxy.corp"}).resolve_ref(ref) == ref


def test_mistakes_in_sources_are_reported_all_at_once() -> None:
    with pytest.raises(UserError) as raised:
        PullSources({"docker.io": "proxy/hub", "Gcr.io/A": "x.y", "quay.io": "https://x.y"})
    messages = [error.message for error in raised.value.list_errors()]
    assert messages == [
        "registries.sources['Gcr.io/A']: 'Gcr.io/A' is no HOST[/PATH]",
        (
            "registries.sources['docker.io']: 'proxy/hub' does not begin with a registry host:"
            " it needs a dot, a port, or to be localhost"
        ),
        "registries.sources['quay.io']: 'https://x.y' is no HOST[/PATH]",
    ]
