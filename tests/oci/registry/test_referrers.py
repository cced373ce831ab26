"""What belongs to an image, asked of registries with a list of referrers and without one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.oci.attachments import Attachment
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.access import AccessResolver
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.registry.referrers import AttachmentFinder
from kfdeploy.oci.registry.settings import MirrorSettings, PrivateRegistry
from tests.support.answers import Answering, Reply, answering
from tests.support.registries import Registry, serve_registry
from tests.support.signing import SBOM, Signer, attach, referrer, simple
from tests.support.standins import OCI_INDEX, Standin, make_standin, push

D, E, F = (f"sha256:{letter * 64}" for letter in "def")
PATH = "quay.io/acme/app"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
JSON = {"Content-Type": "application/json"}
GONE = Reply(404, b"{}", JSON)
INDEX = {"Content-Type": OCI_INDEX}


@pytest.fixture
def finder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AttachmentFinder]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker-config"))
    settings = MirrorSettings(PrivateRegistry(host="private.invalid"))
    with RegistryClient(AccessResolver(settings, tmp_path)) as client:
        yield AttachmentFinder(client, patience=0.1)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A real one, without a list of referrers."""
    with serve_registry(tmp_path_factory.mktemp("public") / "data") as served:
        yield served


def at(host: str, digest: str = D, path: str = PATH) -> ImageRef:
    return ImageRef(host, path, "", digest)


def listing(*entries: tuple[str, object], **headers: str) -> Reply:
    manifests = [{"digest": digest, "artifactType": kind} for digest, kind in entries]
    body = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    return Reply(200, body, {**INDEX, **headers})


def lists(reply: Callable[[str], Reply]) -> Callable[[str, str, int], Reply]:
    """A registry that has no tags, and whose list of referrers is ``reply(target)``."""
    return lambda method, path, number: reply(path) if "/referrers/" in path else GONE


def asked(served: Answering) -> list[str]:
    return [
        f"{method} {path.removeprefix(f'/v2/{PATH}/')}"
        for method, path, _ in served.requests
        if path != "/v2/"
    ]


def signed_image(host: str, tmp_path: Path, path: str) -> tuple[Standin, Standin, Standin]:
    """An image of several platforms with a signature by tag and an SBOM as referrer."""
    image = make_standin("quay.io/acme/app:v1", kind=0)
    signature = simple(Signer(tmp_path, "key"), image.digest)
    sbom = referrer(image, SBOM, b"{}")
    push(host, image, path, "v1")
    attach(host, path, signature, image.digest, "sig")
    attach(host, path, sbom, image.digest)
    return image, signature, sbom


def test_tags_and_the_index_of_a_registry_without_a_list(
    registry: Registry, finder: AttachmentFinder, tmp_path: Path
) -> None:
    image, signature, sbom = signed_image(registry.host, tmp_path, "tags/app")
    found = finder.find_for_image(
        at(registry.host, image.digest, "tags/app"), image.platforms.values()
    )
    tag = f"sha256-{image.digest[7:]}.sig"
    assert found == (
        Attachment(image.digest, "referrer", SBOM, sbom.digest),
        Attachment(image.digest, "tag", tag, signature.digest),
    )


def test_attestations_and_sboms_under_cosigns_tags(
    registry: Registry, finder: AttachmentFinder, tmp_path: Path
) -> None:
    image = make_standin("quay.io/acme/app:v1", kind=5)
    push(registry.host, image, "kinds/app", "v1")
    for suffix in ("att", "sbom"):
        what = referrer(image, SBOM, suffix.encode())
        attach(registry.host, "kinds/app", what, image.digest, suffix)
    found = finder.find_for_image(at(registry.host, image.digest, "kinds/app"), ())
    assert [one.name.rpartition(".")[2] for one in found] == ["att", "sbom"]


def test_platforms_are_asked_about_where_the_image_has_something(
    registry: Registry, finder: AttachmentFinder, tmp_path: Path
) -> None:
    image, _, _ = signed_image(registry.host, tmp_path, "deep/app")
    platform = next(iter(image.platforms.values()))
    attach(registry.host, "deep/app", simple(Signer(tmp_path, "b"), platform), platform, "sig")
    found = finder.find_for_image(
        at(registry.host, image.digest, "deep/app"), image.platforms.values()
    )
    assert {one.subject for one in found} == {image.digest, platform}


def test_a_manifest_costs_four_requests_and_an_image_with_nothing_no_more(
    finder: AttachmentFinder,
) -> None:
    with answering(lists(lambda target: listing())) as served:
        assert finder.find_for_image(at(served.host), [E, F]) == ()
    assert sorted(asked(served)) == [
        f"GET referrers/{D}",
        f"HEAD manifests/sha256-{D[7:]}.att",
        f"HEAD manifests/sha256-{D[7:]}.sbom",
        f"HEAD manifests/sha256-{D[7:]}.sig",
    ]


def test_where_there_is_no_list_it_is_asked_for_once(finder: AttachmentFinder) -> None:
    with answering(lambda *_: GONE) as served:
        for digest in (D, E, F):
            assert finder.find_for_image(at(served.host, digest), ()) == ()
    gets = [line for line in asked(served) if line.startswith("GET")]
    assert gets == [
        f"GET referrers/{D}",
        f"GET manifests/sha256-{D[7:]}",
        f"GET manifests/sha256-{E[7:]}",
        f"GET manifests/sha256-{F[7:]}",
    ]
    assert len(asked(served)) == 1 + 3 * 4


@pytest.mark.parametrize(
    "reply",
    [
        Reply(404, b"404 page not found\n", {"Content-Type": "text/plain"}),
        Reply(400, b"{}", JSON),
        Reply(405, b"{}", JSON),
        Reply(200, b"<html>", {"Content-Type": "text/html"}),
        Reply(200, b"{}", JSON),
    ],
    ids=["404", "400", "405", "a page", "other JSON"],
)
def test_what_says_that_there_is_no_list(reply: Reply, finder: AttachmentFinder) -> None:
    index = listing((E, BUNDLE))

    def answer(method: str, path: str, number: int) -> Reply:
        if "/referrers/" in path:
            return reply
        return index if path.endswith(f"sha256-{D[7:]}") else GONE

    with answering(answer) as served:
        assert finder.find_for_image(at(served.host), ()) == (Attachment(D, "referrer", BUNDLE, E),)


def test_a_list_that_was_there_is_asked_for_again(finder: AttachmentFinder) -> None:
    def reply(target: str) -> Reply:
        return GONE if D in target else listing((F, BUNDLE))

    with answering(lists(reply)) as served:
        assert finder.find_for_image(at(served.host, E), ())
        assert not finder.find_for_image(at(served.host, D), ())
        assert finder.find_for_image(at(served.host, E), ())


@pytest.mark.parametrize(
    "link",
    [
        '</v2/{path}/referrers/{digest}?n=1&last={e}>; rel="next"',
        "<https://elsewhere.invalid/other/{digest}?n=1&last={e}>; rel=next",
        '<?n=1&last={e}>; title="x"; rel="next"',
    ],
)
def test_a_list_of_several_pages_is_read_to_the_end(link: str, finder: AttachmentFinder) -> None:
    header = link.format(path=PATH, digest=D, e=E)

    def reply(target: str) -> Reply:
        if target.endswith(f"?n=1&last={E}"):
            return listing((F, SBOM))
        return listing((E, BUNDLE), Link=header)

    with answering(lists(reply)) as served:
        found = finder.find_for_image(at(served.host), ())
    assert [one.digest for one in found] == [F, E]  # by their types


def test_a_list_without_an_end_is_an_error(finder: AttachmentFinder) -> None:
    def reply(target: str) -> Reply:
        return listing((E, BUNDLE), Link='<?n=1>; rel="next"')

    with answering(lists(reply)) as served, pytest.raises(RegistryError) as raised:
        finder.find_for_image(at(served.host), ())
    assert raised.value.message == (
        f"{served.host}/{PATH}@{D}: its list of referrers has no end within 1000 of them"
    )


def test_a_list_that_breaks_off_is_an_error(finder: AttachmentFinder) -> None:
    def reply(target: str) -> Reply:
        return GONE if "?" in target else listing((E, BUNDLE), Link='<?n=1>; rel="next"')

    with answering(lists(reply)) as served, pytest.raises(RegistryError) as raised:
        finder.find_for_image(at(served.host), ())
    assert raised.value.message.endswith("its list of referrers breaks off after 1 of them")


def test_more_referrers_than_anybody_has_are_an_error(finder: AttachmentFinder) -> None:
    many = [(f"sha256:{number:064x}", BUNDLE) for number in range(1001)]
    with (
        answering(lists(lambda _: listing(*many))) as served,
        pytest.raises(RegistryError, match="no end within 1000 of them"),
    ):
        finder.find_for_image(at(served.host), ())


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000])
def test_a_list_that_is_none_is_an_error(body: bytes, finder: AttachmentFinder) -> None:
    with (
        answering(lists(lambda _: Reply(200, body, INDEX))) as served,
        pytest.raises(RegistryError) as raised,
    ):
        finder.find_for_image(at(served.host), ())
    assert raised.value.message == f"{served.host}/{PATH}@{D}: its list of referrers is not JSON"


def test_nothing_that_a_registry_makes_up_gets_through(finder: AttachmentFinder) -> None:
    entries: list[tuple[Any, Any]] = [
        (E, "x\n- image: evil"),
        ("sha256:short", BUNDLE),
        (None, BUNDLE),
        (7, BUNDLE),
    ]
    with answering(lists(lambda _: listing(*entries))) as served:
        found = finder.find_for_image(at(served.host), ())
    assert found == (Attachment(D, "referrer", "unknown", E),)


def test_a_registry_that_limits_requests_is_not_asked_on(finder: AttachmentFinder) -> None:
    with answering(lambda *_: Reply(429, headers={"Retry-After": "60"})) as served:
        for digest in (D, E, F):
            with pytest.raises(RegistryError, match="429: rate limit reached"):
                finder.find_for_image(at(served.host, digest), ())
    assert len(served.requests) == 1
