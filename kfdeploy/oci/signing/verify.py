"""Signatures by key: of a file, beside it; and of images, as cosign puts them into a registry.

What counts is the key. Who a certificate names, and what a transparency log says, can't be looked
up where there is no internet.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from kfdeploy.errors import UserError, raise_all
from kfdeploy.oci.attachments import UNKNOWN_ARTIFACT_TYPE, Attachment
from kfdeploy.oci.manifest import MalformedManifest, Manifest, iter_entries
from kfdeploy.oci.reference import ImageRef, is_digest
from kfdeploy.oci.registry.client import RegistryClient
from kfdeploy.oci.registry.errors import RegistryError
from kfdeploy.oci.signing import cosign
from kfdeploy.oci.signing import keys as keyfiles
from kfdeploy.oci.signing.cosign import MalformedSignature, UnverifiedSignature
from kfdeploy.oci.signing.keys import PASSWORD_VARIABLE, PublicKey

LAYERS_MAX: Final = 200
"""Signatures of one image that are looked at; each costs a request."""
LAYER_BYTES_MAX: Final = 1024 * 1024
_OTHER_TYPES: Final = frozenset(
    {
        # What a list says that does not know a manifest's own artifact type.
        UNKNOWN_ARTIFACT_TYPE,
        "application/vnd.oci.empty.v1+json",
        "application/vnd.oci.image.config.v1+json",
        # Cosign's first try at referrers, with simple signing in it.
        "application/vnd.dev.cosign.artifact.sig.v1+json",
    }
)


# --- of a file ------------------------------------------------------------------------------------


def sign_blob(data: bytes, key_file: Path, password: str | None = None) -> bytes:
    """A detached signature, as `cosign sign-blob` and `openssl dgst -sha256 -sign` make it.

    Args:
        key_file: PEM file of a private key.
        password: for an encrypted key; by default what KFDEPLOY_KEY_PASSWORD says.

    Returns:
        One line of base64.

    Raises:
        UserError: the key can't be used, or not with this password.
    """
    if password is None:
        password = os.environ.get(PASSWORD_VARIABLE)
    key = keyfiles.load_private_key(key_file, password)
    return base64.b64encode(keyfiles.sign_bytes(key, data)) + b"\n"


def verify_blob(data: bytes, signature: bytes, key_file: Path) -> None:
    """Check a detached signature: in base64, or bare as openssl writes it.

    Args:
        key_file: PEM file of a public key.

    Raises:
        UserError: the signature is not of this data by this key; or the key can't be used.
    """
    key = keyfiles.load_public_key(key_file)
    forms = [signature]
    with contextlib.suppress(binascii.Error):
        forms.append(base64.b64decode(b"".join(signature.split()), validate=True))
    if not any(key.has_signed(form, data) for form in forms):
        raise UserError(
            f"the signature is not by {key_file}, or what it is of has been changed",
            hint="do not use it; get it and the public key again, each by another way",
        )


# --- of an image ----------------------------------------------------------------------------------


class UnsignedImage(UserError):
    """An image has not the signature that it must have."""


class SignatureReader(Protocol):
    """Where an image's signatures are read: a registry, or a bundle.

    Both raise RegistryError, of kind ``gone`` or ``content`` for what is not there or has another
    content than its digest says.
    """

    def get_manifest(self, digest: str) -> Manifest: ...

    def get_blob(self, digest: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class RegistrySignatureReader:
    """Reads in the repository of ``ref``."""

    client: RegistryClient
    ref: ImageRef

    def get_manifest(self, digest: str) -> Manifest:
        return self.client.get_manifest(ImageRef(self.ref.host, self.ref.path, "", digest))

    def get_blob(self, digest: str) -> bytes:
        return self.client.get_blob(self.ref, digest)


@dataclass(frozen=True, slots=True)
class SignatureRule:
    """Which images must be signed, and by whom.

    Attributes:
        where: its key in kfdeploy.yaml.
        pattern: of HOST/PATH; ``*`` is any text, with ``/`` too.
        keys: one of them must have signed.
    """

    where: str
    pattern: str
    keys: tuple[PublicKey, ...]

    def matches(self, image: ImageRef) -> bool:
        pieces = map(re.escape, self.pattern.lower().split("*"))
        return bool(re.fullmatch(".*".join(pieces), image.repository.lower()))


class SignatureSetting(Protocol):
    """One entry of `images.signatures` in kfdeploy.yaml."""

    @property
    def images(self) -> str:
        """Pattern of the images that must be signed."""

    @property
    def keys(self) -> Sequence[str]:
        """PEM files of public keys."""


@dataclass(frozen=True, slots=True)
class SignatureRules:
    """What `images.signatures` asks for. An image that several match must satisfy each."""

    rules: tuple[SignatureRule, ...] = ()

    @classmethod
    def from_settings(cls, settings: Iterable[SignatureSetting], root: Path) -> SignatureRules:
        """From kfdeploy.yaml; paths are relative to ``root``, the workspace.

        Raises:
            UserError: keys that can't be used, all of them, each with where it is named.
        """
        rules: list[SignatureRule] = []
        errors: list[UserError] = []
        for index, setting in enumerate(settings):
            where = f"images.signatures[{index}]"
            found: list[PublicKey] = []
            for number, name in enumerate(setting.keys):
                try:
                    found.append(keyfiles.load_public_key(root / Path(name).expanduser(), name))
                except UserError as error:
                    message = f"{where}.keys[{number}]: {error.message}"
                    errors.append(UserError(message, hint=error.hint))
            rules.append(SignatureRule(where, setting.images, tuple(found)))
        raise_all(errors)
        return cls(tuple(rules))

    def find_for(self, image: ImageRef) -> tuple[SignatureRule, ...]:
        """The rules for an image, by what is locked: its substitute, where it has one."""
        return tuple(rule for rule in self.rules if rule.matches(image))


def check_signatures(
    image: ImageRef,
    rules: SignatureRules,
    reader: SignatureReader,
    attached: Iterable[Attachment] | None,
    search: Callable[[], Iterable[Attachment]] | None = None,
) -> None:
    """Check the signatures that an image must have.

    Args:
        image: what is locked, at its digest.
        reader: where its signatures are read.
        attached: what is known to belong to it, such as the lock's.
        search: looks for what belongs to it; called at most once, and only where no signature
            among ``attached`` will do.

    Raises:
        Unsigned: one is missing, or none is good; the message does not name the image.
        RegistryError: it can't be read, or searched for.
    """
    found: list[Attachment] | None = None
    for rule in rules.find_for(image):
        known = found if found is not None else list(attached or ())
        problem = _find_problem(image.digest, rule, known, reader)
        if problem and found is None and search is not None:
            # It may have been signed since.
            found = list(search())
            problem = _find_problem(image.digest, rule, found, reader)
        if problem:
            raise UnsignedImage(
                f"{problem} ({rule.where})",
                hint=f"do not use it until its publisher has signed {image.digest}, or change"
                f" {rule.where} in kfdeploy.yaml",
            )


def _find_problem(
    digest: str, rule: SignatureRule, attached: Iterable[Attachment], reader: SignatureReader
) -> str:
    """Why no signature will do; empty when one does."""
    # Of several, what comes closest to a good signature says most.
    problems: dict[int, str] = {}
    names = " or ".join(key.name for key in rule.keys)
    for found in _read_signatures(digest, attached, reader):
        if isinstance(found, MalformedSignature):
            problems.setdefault(1, f"its signature is damaged: {found}")
            continue
        data = reader.get_manifest(digest).body if found.data is None else found.data
        key = next((key for key in rule.keys if key.has_signed(found.signature, data)), None)
        if key is not None and (found.data is None or digest in found.digests):
            return ""
        if key is not None:
            others = ", ".join(sorted(found.digests)) or "none"
            problems.setdefault(0, f"its signature by {key.name} is of another image: {others}")
        elif found.by_certificate:
            problems.setdefault(3, f"it is signed with a certificate, and not by {names}")
        else:
            problem = f"its signature is not by {names}, or has been changed"
            if any(key.is_ed25519 for key in rule.keys):
                problem += "; Ed25519ph, which cosign 3 makes with Ed25519 keys, can't be checked"
            problems.setdefault(2, problem)
    return problems[min(problems)] if problems else f"it has no signature by {names}"


def _read_signatures(
    digest: str, attached: Iterable[Attachment], reader: SignatureReader
) -> Iterator[UnverifiedSignature | MalformedSignature]:
    """Signatures of a manifest, good ones and others; attestations are none."""
    looked_at = 0
    for one in sorted(set(attached)):
        if one.subject != digest or not _may_be_signature(one):
            continue
        try:
            layers = list(iter_entries(reader.get_manifest(one.digest).content, "layers"))
        except (MalformedManifest, RegistryError) as error:
            yield _as_malformed(one.digest, error)
            continue
        for layer in layers:
            if not cosign.is_signature_layer(str(layer.get("mediaType"))):
                continue
            looked_at += 1
            if looked_at > LAYERS_MAX:
                return
            try:
                found = _read_signature(layer, reader)
            except (MalformedSignature, RegistryError) as error:
                yield _as_malformed(one.digest, error)
            else:
                if found is not None:
                    yield found


def _may_be_signature(one: Attachment) -> bool:
    if one.kind == "tag":
        return one.name.endswith(".sig")
    return one.name == cosign.SIGSTORE_BUNDLE or one.name in _OTHER_TYPES


def _read_signature(
    layer: Mapping[str, Any], reader: SignatureReader
) -> UnverifiedSignature | None:
    digest, size, annotations = (layer.get(key) for key in ("digest", "size", "annotations"))
    if not isinstance(digest, str) or not is_digest(digest) or not isinstance(size, int):
        raise MalformedSignature("a layer without digest and size")
    if size > LAYER_BYTES_MAX:
        raise MalformedSignature(f"{digest} has {size} bytes: no signature is as long")
    known = annotations if isinstance(annotations, dict) else {}
    return cosign.parse_signature(str(layer["mediaType"]), known, reader.get_blob(digest))


def _as_malformed(digest: str, error: Exception) -> MalformedSignature:
    if isinstance(error, RegistryError):
        if error.is_inconclusive:
            raise error
        return MalformedSignature(error.message)
    return MalformedSignature(f"{digest}: {error}")
