"""Signatures by key: of files, together with openssl; and of images, as cosign makes them."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from kfdeploy.errors import UserError
from kfdeploy.oci.attachments import Attachment, cosign_tags
from kfdeploy.oci.manifest import Manifest
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.signing import verify
from kfdeploy.oci.signing.verify import SignatureRules, UnsignedImage
from kfdeploy.workspace.settings import Images
from tests.support.signing import BUNDLE, SIMPLE, Signer, artifact, bundle, message, simple
from tests.support.standins import Standin, make_standin

DATA = b"sums of a bundle\n" * 50
COSIGN: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "signatures" / "cosign.json").read_text()
)
EC = ("EC", "ec_paramgen_curve:P-256")
KINDS = {
    "P-256": EC,
    "P-384": ("EC", "ec_paramgen_curve:P-384"),
    "P-521": ("EC", "ec_paramgen_curve:P-521"),
    "RSA": ("RSA", "rsa_keygen_bits:2048"),
}
PASSWORD = "correct horse"


def openssl(*arguments: str | Path, **more: Any) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, **more)


def pair(folder: Path, algorithm: str, option: str = "", *more: str) -> tuple[Path, Path]:
    """A private key in PKCS #8 and its public one."""
    private, public = folder / "key.pem", folder / "key.pub"
    chosen = ("-pkeyopt", option) if option else ()
    openssl("genpkey", "-algorithm", algorithm, *chosen, *more, "-out", private)
    openssl("pkey", "-in", private, "-passin", f"pass:{PASSWORD}", "-pubout", "-out", public)
    return private, public


# -- of a file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_and_we_check_each_others_signatures(kind: str, tmp_path: Path) -> None:
    private, public = pair(tmp_path, *KINDS[kind])
    file, ours, theirs = (tmp_path / name for name in ("data", "ours", "theirs"))
    file.write_bytes(DATA)
    line = tmp_path / "line"
    line.write_bytes(verify.sign_blob(DATA, private))
    openssl("base64", "-d", "-A", "-in", line, "-out", ours)
    openssl("dgst", "-sha256", "-verify", public, "-signature", ours, file)
    openssl("dgst", "-sha256", "-sign", private, "-out", theirs, file)
    verify.verify_blob(DATA, theirs.read_bytes(), public)
    openssl("base64", "-in", theirs, "-out", line)  # in lines of 64
    verify.verify_blob(DATA, line.read_bytes(), public)


def test_ed25519(tmp_path: Path) -> None:
    private, public = pair(tmp_path, "ED25519")
    verify.verify_blob(DATA, verify.sign_blob(DATA, private), public)


def test_the_signature_is_one_line_of_base64(tmp_path: Path) -> None:
    private, _ = pair(tmp_path, *EC)
    made = verify.sign_blob(DATA, private)
    assert made == base64.b64encode(base64.b64decode(made)) + b"\n"


@pytest.mark.parametrize("form", ["ec", "rsa"])
def test_older_forms_of_private_keys(form: str, tmp_path: Path) -> None:
    private, public = pair(tmp_path, *(EC if form == "ec" else KINDS["RSA"]))
    old, locked = tmp_path / "old.pem", tmp_path / "locked.pem"
    traditional = ("-traditional",) if form == "rsa" else ()
    openssl(form, "-in", private, *traditional, "-out", old)
    openssl(form, "-in", private, *traditional, "-aes128", "-passout", "pass:x", "-out", locked)
    assert f"BEGIN {form.upper()} PRIVATE KEY" in old.read_text()
    verify.verify_blob(DATA, verify.sign_blob(DATA, old), public)
    verify.verify_blob(DATA, verify.sign_blob(DATA, locked, "x"), public)


def test_the_password_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = pair(tmp_path, *EC, "-aes-256-cbc", "-pass", f"pass:{PASSWORD}")
    monkeypatch.setenv("KFDEPLOY_KEY_PASSWORD", PASSWORD)
    verify.verify_blob(DATA, verify.sign_blob(DATA, private), public)


def test_a_password_that_is_not_needed_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = pair(tmp_path, *EC)
    monkeypatch.setenv("KFDEPLOY_KEY_PASSWORD", PASSWORD)
    verify.verify_blob(DATA, verify.sign_blob(DATA, private), public)


def test_an_encrypted_key_without_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, _ = pair(tmp_path, *EC, "-aes-256-cbc", "-pass", f"pass:{PASSWORD}")
    monkeypatch.delenv("KFDEPLOY_KEY_PASSWORD", raising=False)
    error = failing(lambda: verify.sign_blob(DATA, private))
    assert error.message == f"{private}: the private key is encrypted, and there is no password"
    assert error.hint == "put it into the environment variable KFDEPLOY_KEY_PASSWORD"


def test_a_wrong_password_is_told_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, _ = pair(tmp_path, *EC, "-aes-256-cbc", "-pass", f"pass:{PASSWORD}")
    monkeypatch.setenv("KFDEPLOY_KEY_PASSWORD", "wrong horse")
    error = failing(lambda: verify.sign_blob(DATA, private))
    assert error.message == (
        f"{private}: the private key can't be decrypted: the password is wrong, or the file is"
        " damaged"
    )
    assert "horse" not in repr(error.hint)
    assert error.__cause__ is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or directory"),
        ("", "no private key in PEM form, but a private key is needed"),
        ("public", "a public key, but a private key is needed"),
        (
            "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n",
            "a private key in cosign's own format, which only cosign reads",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "the private key is damaged, or of a kind that is not supported",
        ),
        ("x25519", "a key of another kind than ECDSA, RSA and Ed25519"),
    ],
)
def test_what_is_no_private_key(content: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "k"
    if content == "public":
        file = pair(tmp_path, *EC)[1]
    elif content == "x25519":
        file = pair(tmp_path, "X25519")[0]
    elif content is not None:
        file.write_text(content)
    error = failing(lambda: verify.sign_blob(DATA, file, "x"))
    assert error.message.lower() == f"{file}: {message}".lower()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or directory"),
        ("", "no public key in PEM form (-----BEGIN PUBLIC KEY-----)"),
        ("private", "a private key, but a public key is needed"),
        ("-----BEGIN CERTIFICATE-----\n", "a certificate, but a public key is needed"),
        ("small", "an RSA key of 1024 bits: fewer than 2048 are not safe"),
        ("x25519", "a key of another kind than ECDSA, RSA and Ed25519"),
    ],
)
def test_what_is_no_public_key(content: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "k"
    if content == "private":
        file = pair(tmp_path, *EC)[0]
    elif content == "small":
        file = pair(tmp_path, "RSA", "rsa_keygen_bits:1024")[1]
    elif content == "x25519":
        file = pair(tmp_path, "X25519")[1]
    elif content is not None:
        file.write_text(content)
    error = failing(lambda: verify.verify_blob(DATA, b"", file))
    assert error.message.lower() == f"{file}: {message}".lower()


@pytest.mark.parametrize("case", ["data", "signature", "key", "nothing", "words"])
def test_what_does_not_belong_together_is_refused(case: str, tmp_path: Path) -> None:
    private, public = pair(tmp_path, *EC)
    made = verify.sign_blob(DATA, private)
    signed_by = Signer(tmp_path, "other").file if case == "key" else public
    given = {"signature": b"AAAA" + made[4:], "nothing": b"", "words": b"no signature"}
    data = DATA + b" " if case == "data" else DATA
    error = failing(lambda: verify.verify_blob(data, given.get(case, made), signed_by))
    assert error.message == (f"the signature is not by {signed_by}, or the signed data was changed")


def test_the_library_is_imported_only_for_keys() -> None:
    code = (
        "import sys; import kfdeploy.cli.images, kfdeploy.lock.resolve,"
        " kfdeploy.oci.signing.verify;"
        " print('cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# -- of an image -----------------------------------------------------------------------------------


class Stored:
    """Manifests and blobs in memory."""

    def __init__(self, *images: Standin) -> None:
        self.manifests = {d: Manifest(d, k, b) for i in images for d, (k, b) in i.manifests.items()}
        self.blobs = {digest: data for image in images for digest, data in image.blobs.items()}

    def get_manifest(self, digest: str) -> Manifest:
        if digest not in self.manifests:
            raise RegistryError("gone", f"{digest}: not there")
        return self.manifests[digest]

    def get_blob(self, digest: str) -> bytes:
        data = self.blobs[digest]
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise RegistryError("content", f"{digest}: another content")
        return data


APP = make_standin("quay.io/acme/app:v1", kind=0)
OTHER = make_standin("quay.io/acme/other:v1", kind=5)
LOCKED = ImageRef("quay.io", "acme/app", "", APP.digest)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "acme")


def rules(folder: Path, *settings: tuple[str, str]) -> SignatureRules:
    listed = [{"images": pattern, "keys": keys.split()} for pattern, keys in settings]
    return SignatureRules.from_settings(
        Images.model_validate({"signatures": listed}).signatures, folder
    )


def attached(what: Standin, suffix: str = "", subject: str = APP.digest) -> Attachment:
    if suffix:
        return Attachment(subject, "tag", cosign_tags(subject)[0], what.digest)
    return Attachment(subject, "referrer", BUNDLE, what.digest)


def judge(folder: Path, what: Standin, suffix: str = "", keys: str = "acme.pub") -> str:
    """Why it is no signature of APP; empty when it is one."""
    try:
        verify.check_signatures(
            LOCKED,
            rules(folder, ("quay.io/acme/*", keys)),
            Stored(APP, what),
            [attached(what, suffix)],
        )
    except UnsignedImage as error:
        assert error.hint == (
            f"do not use it until its publisher has signed {APP.digest}, or change"
            " images.signatures[0] in kfdeploy.yaml"
        )
        return error.message.removesuffix(" (images.signatures[0])")
    return ""


def failing(act: Callable[[], object]) -> UserError:
    with pytest.raises(UserError) as raised:
        act()
    return raised.value


@pytest.mark.parametrize("case", [name for name in COSIGN["images"] if "attestation" not in name])
def test_what_cosign_signs_is_signed(case: str, tmp_path: Path) -> None:
    content = COSIGN["images"][case]
    own, other = case.partition("-")[0], "rsa" if case.startswith("p") else "p256"
    for name, text in COSIGN["keys"].items():
        (tmp_path / f"{name}.pub").write_text(text)
    image, stored, belongs = real(content)
    verify.check_signatures(image, rules(tmp_path, ("*", f"{own}.pub")), stored, belongs)
    verify.check_signatures(
        image, rules(tmp_path, ("*", f"{other}.pub {own}.pub")), stored, belongs
    )
    error = failing(
        lambda: verify.check_signatures(
            image, rules(tmp_path, ("*", f"{other}.pub")), stored, belongs
        )
    )
    assert error.message == (
        f"its signature is not by {other}.pub, or has been changed (images.signatures[0])"
    )


def test_an_attestation_by_cosign_is_no_signature(tmp_path: Path) -> None:
    (tmp_path / "p256.pub").write_text(COSIGN["keys"]["p256"])
    image, stored, belongs = real(COSIGN["images"]["p256-attestation"])
    with pytest.raises(UnsignedImage, match=r"it has no signature by p256\.pub"):
        verify.check_signatures(image, rules(tmp_path, ("*", "p256.pub")), stored, belongs)


def real(content: dict[str, Any]) -> tuple[ImageRef, Stored, list[Attachment]]:
    """One image of the file that cosign signed."""
    stored = Stored()
    manifests = [Manifest.parse(text.encode()) for text in content["manifests"]]
    image = Manifest.parse(content["image"].encode())
    stored.manifests = {each.digest: each for each in (image, *manifests)}
    blobs = [text.encode() for text in content["blobs"]]
    stored.blobs = {f"sha256:{hashlib.sha256(blob).hexdigest()}": blob for blob in blobs}
    is_tag = content["tag"].endswith(".sig")
    kind: Literal["tag", "referrer"] = "tag" if is_tag else "referrer"
    name = content["tag"] if is_tag else BUNDLE
    belongs = [Attachment(image.digest, kind, name, each.digest) for each in manifests]
    return ImageRef("quay.io", "acme/app", "", image.digest), stored, belongs


def test_each_form_is_a_signature(signer: Signer, tmp_path: Path) -> None:
    assert judge(tmp_path, simple(signer, APP.digest), "sig") == ""
    assert judge(tmp_path, bundle(signer, APP)) == ""
    assert judge(tmp_path, message(signer, APP)) == ""


def test_the_keys_of_another_are_told(signer: Signer, tmp_path: Path) -> None:
    Signer(tmp_path, "else")
    told = "its signature is not by else.pub, or has been changed"
    assert judge(tmp_path, simple(signer, APP.digest), "sig", "else.pub") == told
    assert judge(tmp_path, bundle(signer, APP), keys="else.pub") == told
    assert judge(tmp_path, message(signer, APP), keys="else.pub") == told


def test_a_signature_of_another_image_is_told(signer: Signer, tmp_path: Path) -> None:
    told = f"its signature by acme.pub is of another image: {OTHER.digest}"
    assert judge(tmp_path, simple(signer, OTHER.digest), "sig") == told
    assert judge(tmp_path, bundle(signer, APP, digest=OTHER.digest)) == told
    told = "its signature is not by acme.pub, or has been changed"
    assert judge(tmp_path, message(signer, APP, of=b"another manifest")) == told


def test_an_attestation_is_no_signature(signer: Signer, tmp_path: Path) -> None:
    scan = bundle(signer, APP, predicate="https://cosign.sigstore.dev/attestation/vuln/v1")
    assert judge(tmp_path, scan) == "it has no signature by acme.pub"


def test_a_certificate_is_told(signer: Signer, tmp_path: Path) -> None:
    Signer(tmp_path, "else")

    def certified(content: dict[str, Any]) -> None:
        content["verificationMaterial"] = {"certificate": {"rawBytes": "AAAA"}}

    told = "it is signed with a certificate, and not by else.pub"
    assert judge(tmp_path, bundle(signer, APP, change=certified), keys="else.pub") == told
    old = simple(signer, APP.digest, dev_sigstore_cosign__certificate="-----BEGIN")
    assert judge(tmp_path, old, "sig", "else.pub") == told


def test_ed25519ph_is_told_to_be_unknown(signer: Signer, tmp_path: Path) -> None:
    pair(tmp_path, "ED25519")
    assert judge(tmp_path, bundle(signer, APP), keys="key.pub") == (
        "its signature is not by key.pub, or has been changed; Ed25519ph, which cosign 3 makes with"
        " Ed25519 keys, can't be checked"
    )


def _without(*keys: str | int) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def _with(value: object, *keys: str | int) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_without("critical"), "critical is missing"),
        (_with("x", "critical"), "critical is missing"),
        (
            _with("atomic container signature", "critical", "type"),
            "its payload's critical.type is not 'cosign container image signature'",
        ),
        (_without("critical", "image"), "image is missing"),
        (_with(1, "critical", "image", "docker-manifest-digest"), "docker-manifest-digest is"),
    ],
)
def test_a_damaged_payload_is_told(
    change: Callable[[Any], None], told: str, signer: Signer, tmp_path: Path
) -> None:
    made = simple(signer, APP.digest, change=change)
    assert judge(tmp_path, made, "sig").startswith(
        f"its signature is damaged: {made.digest}: {told}"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_without("dsseEnvelope"), "dsseEnvelope is missing"),
        (_without("verificationMaterial"), "verificationMaterial is missing"),
        (_without("dsseEnvelope", "payload"), "payload is missing"),
        (_with("?", "dsseEnvelope", "payload"), "payload is not base64"),
        (_with("ü", "dsseEnvelope", "payload"), "payload is not base64"),
        (_with("AAAA", "dsseEnvelope", "payload"), "not JSON"),
        (_with("W10=", "dsseEnvelope", "payload"), "not a JSON object"),
        (_with([], "dsseEnvelope", "signatures"), "its envelope must have exactly one signature"),
        (_with([1], "dsseEnvelope", "signatures"), "signatures[0] is missing"),
        (_with("?", "dsseEnvelope", "signatures", 0, "sig"), "sig is not base64"),
    ],
)
def test_a_damaged_bundle_is_told(
    change: Callable[[Any], None], told: str, signer: Signer, tmp_path: Path
) -> None:
    made = bundle(signer, APP, change=change)
    assert judge(tmp_path, made) == f"its signature is damaged: {made.digest}: {told}"


@pytest.mark.parametrize("text", ["?", "MEUCIQ"])
def test_a_signature_that_is_no_base64_is_told(text: str, signer: Signer, tmp_path: Path) -> None:
    made = simple(signer, APP.digest, dev_cosignproject_cosign__signature=text)
    assert judge(tmp_path, made, "sig") == (
        f"its signature is damaged: {made.digest}: dev.cosignproject.cosign/signature is not base64"
    )


@pytest.mark.parametrize("text", ["", "AAAA"])
def test_a_signature_of_other_bytes_does_not_pass(
    text: str, signer: Signer, tmp_path: Path
) -> None:
    made = simple(signer, APP.digest, dev_cosignproject_cosign__signature=text)
    told = "its signature is not by acme.pub, or has been changed"
    assert judge(tmp_path, made, "sig") == told


def test_a_changed_bundle_does_not_pass(signer: Signer, tmp_path: Path) -> None:
    other = bundle(signer, OTHER)
    envelope = json.loads(next(b for b in other.blobs.values() if len(b) > 2))["dsseEnvelope"]
    made = bundle(signer, APP, change=_with(envelope["payload"], "dsseEnvelope", "payload"))
    assert judge(tmp_path, made) == "its signature is not by acme.pub, or has been changed"


def test_what_is_not_there_or_has_other_content_is_told(signer: Signer, tmp_path: Path) -> None:
    made = simple(signer, APP.digest)
    stored = Stored(APP, made)
    for digest in made.blobs:
        stored.blobs[digest] = b"changed"
    wanted = rules(tmp_path, ("*", "acme.pub"))
    with pytest.raises(
        UnsignedImage, match=r"its signature is damaged: sha256:.*: another content"
    ):
        verify.check_signatures(LOCKED, wanted, stored, [attached(made, "sig")])
    with pytest.raises(UnsignedImage, match=r"its signature is damaged: sha256:.*: not there"):
        verify.check_signatures(LOCKED, wanted, Stored(APP), [attached(made, "sig")])


def test_a_layer_without_an_end_is_not_read(signer: Signer, tmp_path: Path) -> None:
    made = artifact(SIMPLE, b" " * (1024 * 1024 + 1), {})
    assert judge(tmp_path, made, "sig").endswith("has 1048577 bytes, more than any signature")


def test_one_good_signature_among_bad_ones_will_do(signer: Signer, tmp_path: Path) -> None:
    bad = [simple(Signer(tmp_path, "else"), APP.digest), simple(signer, OTHER.digest)]
    bad.append(bundle(signer, APP, change=_without("dsseEnvelope")))
    good = bundle(signer, APP)
    belongs = [attached(bad[0], "sig"), attached(bad[1], "sig"), attached(bad[2]), attached(good)]
    wanted = rules(tmp_path, ("*", "acme.pub"))
    verify.check_signatures(LOCKED, wanted, Stored(APP, *bad, good), belongs)
    with pytest.raises(UnsignedImage, match="is of another image"):
        verify.check_signatures(LOCKED, wanted, Stored(APP, *bad, good), belongs[:-1])


def test_what_belongs_to_another_manifest_does_not_count(signer: Signer, tmp_path: Path) -> None:
    made = bundle(signer, APP)
    belongs = [attached(made, subject=OTHER.digest)]
    wanted = rules(tmp_path, ("*", "acme.pub"))
    with pytest.raises(UnsignedImage, match=r"it has no signature by acme\.pub"):
        verify.check_signatures(LOCKED, wanted, Stored(APP, made), belongs)


def test_a_registry_that_can_not_be_asked_is_no_verdict(signer: Signer, tmp_path: Path) -> None:
    class Busy(Stored):
        def get_blob(self, digest: str) -> bytes:
            raise RegistryError("busy", "429")

    made = bundle(signer, APP)
    wanted = rules(tmp_path, ("*", "acme.pub"))
    with pytest.raises(RegistryError, match="429"):
        verify.check_signatures(LOCKED, wanted, Busy(APP, made), [attached(made)])


def test_what_was_signed_since_is_looked_for_once(signer: Signer, tmp_path: Path) -> None:
    made = bundle(signer, APP)
    searches: list[int] = []

    def search() -> list[Attachment]:
        searches.append(1)
        return [attached(made)]

    wanted = rules(tmp_path, ("quay.io/*", "acme.pub"), ("*", "acme.pub"))
    verify.check_signatures(LOCKED, wanted, Stored(APP, made), [], search)
    assert len(searches) == 1
    verify.check_signatures(LOCKED, wanted, Stored(APP, made), [attached(made)], search)
    assert len(searches) == 1


# -- which images ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "image", "matches"),
    [
        ("*", "redis:6", True),
        ("docker.io/library/redis", "redis:6", True),
        ("docker.io/*", "redis", True),
        ("quay.io/acme/*", "quay.io/acme/a/b:v1", True),
        ("quay.io/acme/*", "quay.io/acme-evil/a:v1", False),
        ("quay.io/acme/a", "quay.io/acme/ab:v1", False),
        ("quay.io/*/a", "quay.io/x/y/a", True),
        ("QUAY.io/acme/*", "quay.io/acme/a", True),
        ("quay.io/acme/?", "quay.io/acme/a", False),
        ("quay.io/acme/[a]", "quay.io/acme/a", False),
        ("localhost:5000/*", "localhost:5000/a", True),
        ("*.acme.example/*", "reg.acme.example/a", True),
    ],
)
def test_patterns_are_of_host_and_path(
    pattern: str, image: str, matches: bool, signer: Signer, tmp_path: Path
) -> None:
    found = rules(tmp_path, (pattern, "acme.pub")).find_for(ImageRef.parse(image))
    assert bool(found) is matches


def test_each_rule_that_matches_must_be_satisfied(signer: Signer, tmp_path: Path) -> None:
    other = Signer(tmp_path, "scanner")
    one, two = bundle(signer, APP), bundle(other, APP)
    wanted = rules(tmp_path, ("*", "acme.pub"), ("quay.io/*", "scanner.pub"))
    verify.check_signatures(LOCKED, wanted, Stored(APP, one, two), [attached(one), attached(two)])
    with pytest.raises(UnsignedImage, match=r"not by scanner\.pub.* \(images\.signatures\[1\]\)"):
        verify.check_signatures(LOCKED, wanted, Stored(APP, one), [attached(one)])


def test_an_image_that_no_rule_matches_needs_no_signature(signer: Signer, tmp_path: Path) -> None:
    verify.check_signatures(LOCKED, rules(tmp_path, ("gcr.io/*", "acme.pub")), Stored(), None)


def test_every_key_that_can_not_be_used_is_named(signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "empty.pub").write_text("")
    with pytest.raises(UserError) as raised:
        rules(tmp_path, ("*", "acme.pub empty.pub"), ("gcr.io/*", "none.pub"))
    assert [error.message.replace(str(tmp_path), "") for error in raised.value.list_errors()] == [
        (
            "images.signatures[0].keys[1]: empty.pub: no public key in PEM form"
            " (-----BEGIN PUBLIC KEY-----)"
        ),
        "images.signatures[1].keys[0]: /none.pub: no such file or directory",
    ]
