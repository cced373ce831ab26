"""`lock` records what belongs to images, and lets in only what is signed where it must be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.codec import to_json
from kfdeploy.errors import UserError
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.lock.resolve import LockEvent
from kfdeploy.lock.result import Resolution
from kfdeploy.oci.attachments import Attachment
from kfdeploy.oci.reference import ImageRef
from kfdeploy.workspace.settings import Workspace
from tests.support.answers import Answering, Reply, answering
from tests.support.refs import resolve, written
from tests.support.registries import Registry, free_port, serve_registry
from tests.support.signing import SBOM, Signer, attach, bundle, referrer, simple
from tests.support.standins import Standin, make_standin, push

APP, PLAIN = "quay.io/acme/app:v1", "quay.io/acme/plain:v1"
PATH = "quay.io/acme/app"
JSON = {"Content-Type": "application/json"}
RULE = [{"images": "quay.io/acme/*", "keys": ["acme.pub"]}]


@pytest.fixture(autouse=True)
def no_own_sign_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker-config"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serve_registry(tmp_path_factory.mktemp("public") / "data") as registry:
        yield registry


@pytest.fixture
def public(server: Registry, request: pytest.FixtureRequest) -> str:
    """A place in the registry of the test's own, with two images that nobody has signed."""
    place = f"{server.host}/{request.node.name.lower().strip('_')[:60].strip('_-[]')}"
    for ref in (APP, PLAIN):
        put(place, ref, make_standin(ref))
    return place


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "acme")


def put(place: str, ref: str, image: Standin) -> None:
    host, _, prefix = place.partition("/")
    path, _, tag = ref.rpartition(":")
    push(host, image, f"{prefix}/{path}", tag)


def add(place: str, what: Standin, subject: str, suffix: str = "", path: str = PATH) -> None:
    host, _, prefix = place.partition("/")
    attach(host, f"{prefix}/{path}", what, subject, suffix)


def workspace(place: str, **images: Any) -> Workspace:
    return Workspace.model_validate(
        {
            "upstream": {"source": "upstream"},
            "components": [{"name": "a", "path": "a"}],
            "registries": {"private": {"host": "private.invalid"}, "sources": {"*": place}},
            "images": images,
        }
    )


def locked(
    place: str, root: Path, refs: Sequence[str] = (APP, PLAIN), *, images: Any = None, **more: Any
) -> Resolution:
    return resolve(refs, workspace(place, **(images or {})), root=root, **more)


def digest(ref: str = APP) -> str:
    return make_standin(ref).digest


# -- what belongs to images ------------------------------------------------------------------------


def test_signatures_and_sboms_are_locked_with_their_image(
    public: str, tmp_path: Path, signer: Signer
) -> None:
    signature, sbom = simple(signer, digest()), referrer(make_standin(APP), SBOM, b"{}")
    add(public, signature, digest(), "sig")
    add(public, sbom, digest())
    result = locked(public, tmp_path)
    assert (result.failures, result.notes, result.warnings) == ((), (), ())
    assert result.lock.by_id[written(APP)].attached == (
        Attachment(digest(), "referrer", SBOM, sbom.digest),
        Attachment(digest(), "tag", f"sha256-{digest()[7:]}.sig", signature.digest),
    )
    assert result.lock.by_id[written(PLAIN)].attached == ()
    assert lockfile.loads(lockfile.dumps(result.lock)) == result.lock


def test_they_are_left_out_where_nobody_wants_them(public: str, tmp_path: Path) -> None:
    before = locked(public, tmp_path).lock
    assert before.by_id[written(APP)].attached == ()
    for previous in (None, before):
        result = locked(public, tmp_path, images={"attached": False}, previous=previous)
        assert result.lock.by_id[written(APP)].attached is None
        assert "attached" not in lockfile.dumps(result.lock)


def test_what_is_known_of_a_digest_is_asked_for_again_only_to_refresh(
    public: str, tmp_path: Path, signer: Signer
) -> None:
    before = locked(public, tmp_path).lock
    add(public, simple(signer, digest()), digest(), "sig")
    again = locked(public, tmp_path, previous=before).lock
    assert again == before
    fresh = locked(public, tmp_path, previous=before, refresh=True).lock
    assert [one.kind for one in fresh.by_id[written(APP)].attached or ()] == ["tag"]


def test_of_another_digest_nothing_is_known(public: str, tmp_path: Path, signer: Signer) -> None:
    add(public, simple(signer, digest()), digest(), "sig")
    before = locked(public, tmp_path).lock
    moved = make_standin("quay.io/acme/moved:v1")
    put(public, APP, moved)
    after = locked(public, tmp_path, previous=before).lock.by_id[written(APP)]
    assert (after.digest, after.attached) == (moved.digest, ())


def test_a_lock_made_before_is_completed(public: str, tmp_path: Path, signer: Signer) -> None:
    add(public, simple(signer, digest()), digest(), "sig")
    before = Lock([replace(image, attached=None) for image in locked(public, tmp_path).lock])
    after = locked(public, tmp_path, previous=before).lock
    assert after.by_id[written(APP)].attached
    assert after.by_id[written(PLAIN)].attached == ()


def registry_of(*refs: str) -> Any:
    """A registry's answers: these images, without a list of referrers or any tag of cosign's."""
    images = {f"/v2/{ref.rpartition(':')[0]}/manifests/": make_standin(ref) for ref in refs}

    def reply(method: str, path: str, number: int) -> Reply:
        for start, image in images.items():
            name = path.removeprefix(start)
            if name in {"v1", *image.manifests}:
                kind, body = image.manifests[image.digest if name == "v1" else name]
                found = image.digest if name == "v1" else name
                return Reply(200, body, {"Content-Type": kind, "Docker-Content-Digest": found})
            if path.rpartition("/")[2] in image.blobs:
                return Reply(200, image.blobs[path.rpartition("/")[2]])
        return Reply(404, b"{}", JSON)

    return reply


def about_signatures(served: Answering) -> int:
    return sum("/referrers/" in path or "/sha256-" in path for _, path, _ in served.requests)


def test_a_new_image_costs_four_requests_more_and_a_known_one_none(tmp_path: Path) -> None:
    refs = [f"quay.io/acme/app{number}:v1" for number in range(5)]
    with answering(registry_of(*refs)) as served:
        first = locked(served.host, tmp_path, refs, jobs=1)
        # One of them finds that there is no list of referrers.
        assert about_signatures(served) == 4 * len(refs) + 1
        served.requests.clear()
        again = locked(served.host, tmp_path, refs, jobs=1, previous=first.lock)
        assert about_signatures(served) == 0
        assert len(served.requests) == len(refs)
    assert again.lock == first.lock
    assert all(image.attached == () for image in first.lock)


def test_all_images_come_first_and_then_what_must_be_signed(tmp_path: Path, signer: Signer) -> None:
    refs = [f"quay.io/{name}/app:v1" for name in ("a", "b", "must")]
    settings = {"signatures": [{"images": "quay.io/must/*", "keys": ["acme.pub"]}]}
    events: list[LockEvent] = []
    with answering(registry_of(*refs)) as served:
        result = locked(
            served.host, tmp_path, refs, jobs=1, images=settings, on_event=events.append
        )
        paths = [path for _, path, _ in served.requests if path != "/v2/"]
    about = [path for path in paths if "/referrers/" in path or "/sha256-" in path]
    assert paths[-len(about) :] == about
    assert about[0].startswith("/v2/quay.io/must/app/")
    assert [event.done for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.total for event in events] == [3, 3, 3, 6, 6, 6]
    assert [event.id.text for event in events if event.state == "failed"] == ["quay.io/must/app:v1"]
    assert [failure.id.text for failure in result.failures] == ["quay.io/must/app:v1"]


def test_a_registry_that_limits_requests_costs_a_note_each_and_no_image(tmp_path: Path) -> None:
    refs = [f"quay.io/acme/app{number}:v1" for number in range(5)]
    answers = registry_of(*refs)

    def reply(method: str, path: str, number: int) -> Reply:
        if "/referrers/" in path or "/sha256-" in path:
            return Reply(429, headers={"Retry-After": "60"})
        found: Reply = answers(method, path, number)
        return found

    with answering(reply) as served:
        result = locked(served.host, tmp_path, refs, jobs=1)
        assert about_signatures(served) == 1
    assert result.failures == ()
    assert to_json(result.notes) == [
        {
            "ref": ref,
            "about": "attached",
            "reason": f"{served.host}: 429: rate limit reached",
        }
        for ref in refs
    ]
    assert all(image.attached is None and image.size for image in result.lock)


def test_a_refresh_that_fails_keeps_what_was_known(
    public: str, tmp_path: Path, signer: Signer
) -> None:
    add(public, simple(signer, digest()), digest(), "sig")
    before = locked(public, tmp_path, [APP]).lock

    def reply(method: str, path: str, number: int) -> Reply:
        if path.endswith("/manifests/v1"):
            return Reply(200, headers={"Docker-Content-Digest": digest()})
        return Reply(429, headers={"Retry-After": "60"})

    with answering(reply) as served:
        result = locked(served.host, tmp_path, [APP], previous=before, refresh=True)
    assert result.lock == before
    assert [note.about for note in result.notes] == ["attached"]


def test_offline_keeps_what_is_known(public: str, tmp_path: Path, signer: Signer) -> None:
    add(public, simple(signer, digest()), digest(), "sig")
    before = locked(public, tmp_path).lock
    nobody = f"127.0.0.1:{free_port()}"
    assert locked(nobody, tmp_path, previous=before, offline=True).lock == before


# -- what must be signed ---------------------------------------------------------------------------


def test_only_what_is_signed_is_locked(public: str, tmp_path: Path, signer: Signer) -> None:
    add(public, simple(signer, digest()), digest(), "sig")
    result = locked(public, tmp_path, images={"signatures": RULE})
    assert [image.id.text for image in result.lock] == [APP]
    assert to_json(result.failures) == [
        {
            "ref": PLAIN,
            "reason": "it has no signature by acme.pub (images.signatures[0])",
            "hint": f"do not use it until its publisher has signed {digest(PLAIN)}, or change"
            " images.signatures[0] in kfdeploy.yaml",
        }
    ]


def test_a_bundle_among_the_referrers_will_do(public: str, tmp_path: Path, signer: Signer) -> None:
    add(public, bundle(signer, make_standin(APP)), digest())
    result = locked(public, tmp_path, [APP], images={"signatures": RULE})
    assert result.failures == ()


def test_signatures_are_checked_where_they_are_not_locked(
    public: str, tmp_path: Path, signer: Signer
) -> None:
    add(public, simple(signer, digest()), digest(), "sig")
    settings = {"signatures": RULE, "attached": False}
    result = locked(public, tmp_path, images=settings)
    assert [image.id.text for image in result.lock] == [APP]
    assert [failure.id.text for failure in result.failures] == [PLAIN]


def test_an_unchanged_digest_is_checked_again(public: str, tmp_path: Path, signer: Signer) -> None:
    before = locked(public, tmp_path).lock
    result = locked(public, tmp_path, [APP], images={"signatures": RULE}, previous=before)
    (failure,) = result.failures
    assert failure.is_refused
    add(public, simple(signer, digest()), digest(), "sig")
    result = locked(public, tmp_path, [APP], images={"signatures": RULE}, previous=before)
    assert result.failures == ()


def test_a_tag_that_was_moved_to_something_unsigned_leaves_the_signed_one(
    public: str, tmp_path: Path, signer: Signer
) -> None:
    add(public, simple(signer, digest()), digest(), "sig")
    before = locked(public, tmp_path, images={"signatures": RULE}).lock
    put(public, APP, make_standin("quay.io/evil/app:v1"))
    result = locked(public, tmp_path, [APP], images={"signatures": RULE}, previous=before)
    assert [(failure.id.text, failure.is_refused) for failure in result.failures] == [(APP, False)]


def test_neither_stays_where_the_earlier_one_is_not_signed_either(
    public: str, tmp_path: Path, signer: Signer
) -> None:
    before = locked(public, tmp_path).lock
    put(public, APP, make_standin("quay.io/evil/app:v1"))
    result = locked(public, tmp_path, [APP], images={"signatures": RULE}, previous=before)
    assert [(failure.id.text, failure.is_refused) for failure in result.failures] == [(APP, True)]


def test_a_signature_that_can_not_be_asked_for_fails_and_refuses_nothing(
    public: str, tmp_path: Path, signer: Signer
) -> None:
    before = locked(public, tmp_path, [APP], images={"attached": False}).lock

    def reply(method: str, path: str, number: int) -> Reply:
        if path.endswith("/manifests/v1"):
            return Reply(200, headers={"Docker-Content-Digest": digest()})
        return Reply(429, headers={"Retry-After": "60"})

    with answering(reply) as served:
        result = locked(served.host, tmp_path, [APP], images={"signatures": RULE}, previous=before)
    (failure,) = result.failures
    assert failure.reason.startswith(f"{served.host}: 429: rate limit reached")
    assert not failure.is_refused


def test_a_substitute_is_what_must_be_signed(public: str, tmp_path: Path, signer: Signer) -> None:
    add(public, simple(signer, digest()), digest(), "sig")
    settings = {"substitutes": {PLAIN: APP}, "signatures": RULE}
    result = locked(public, tmp_path, [PLAIN], images=settings)
    assert result.failures == ()
    settings["signatures"] = [{"images": "quay.io/acme/plain", "keys": ["acme.pub"]}]
    result = locked(public, tmp_path, [PLAIN], images=settings)
    assert result.warnings == ("images.signatures[0]: no image is 'quay.io/acme/plain'",)


def test_offline_lets_nothing_new_in_that_must_be_signed(
    public: str, tmp_path: Path, signer: Signer
) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    named = f"quay.io/acme/new@{digest()}"
    before = locked(public, tmp_path).lock
    result = locked(
        nobody,
        tmp_path,
        [APP, named],
        images={"signatures": RULE},
        previous=before,
        offline=True,
    )
    assert [image.id.text for image in result.lock] == [APP]
    assert to_json(result.notes) == [
        {
            "ref": APP,
            "about": "signature",
            "reason": "no registry may be asked",
        }
    ]
    assert to_json(result.failures) == [
        {
            "ref": named,
            "reason": "its signature can't be checked without asking its registry"
            " (images.signatures[0])",
            "hint": "run `kfdeploy lock` where the sources can be reached",
        }
    ]


def test_a_key_that_is_not_there_is_an_error_before_anybody_is_asked(tmp_path: Path) -> None:
    with answering(lambda *_: Reply(404, b"{}", JSON)) as served:
        with pytest.raises(UserError, match=r"^images\.signatures\[0\]\.keys\[0\]: .*acme\.pub: "):
            locked(served.host, tmp_path, images={"signatures": RULE})
        assert served.requests == []


def test_the_same_lock_whatever_the_order(public: str, tmp_path: Path, signer: Signer) -> None:
    add(public, simple(signer, digest()), digest(), "sig")
    add(public, referrer(make_standin(APP), SBOM, b"{}"), digest())
    texts = {
        lockfile.dumps(locked(public, tmp_path, refs, jobs=jobs).lock)
        for refs in ((APP, PLAIN), (PLAIN, APP))
        for jobs in (1, 8)
    }
    assert len(texts) == 1


def test_where_an_attached_manifest_lies(public: str, tmp_path: Path, signer: Signer) -> None:
    """All that copying it takes: repository and digest, a tag or the subject."""
    signature = simple(signer, digest())
    add(public, signature, digest(), "sig")
    image = locked(public, tmp_path, [APP]).lock.by_id[written(APP)]
    (one,) = image.attached or ()
    assert one.ref_in(image.image) == ImageRef("quay.io", "acme/app", "", signature.digest)
    assert json.loads(signature.manifests[one.digest][1])["layers"]
    assert (one.subject, one.tag) == (image.digest, f"sha256-{digest()[7:]}.sig")
