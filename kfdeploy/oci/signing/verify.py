"""Sign files and check signatures by key: of a file beside it, and of images in a registry.

Only the key counts. Whom a certificate names, and what a transparency log says, can't be looked up
where there is no internet.
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
from kfdeploy.oci.signing.cosign import MalformedSignature, UnverifiedSignature
from kfdeploy.oci.signing.keys import (
    PASSWORD_VARIABLE,
    PublicKey,
    load_private_key,
    load_public_key,
    sign_bytes,
)

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
    """Return a detached signature, as `cosign sign-blob` and `openssl dgst -sha256 -sign` make it.

    Args:
        key_file: PEM file of a private key.
        password: for an encrypted key; by default the value of KFDEPLOY_KEY_PASSWORD.

    Returns:
        One line of base64.

    Raises:
        UserError: the key can't be used, or not with this password.
    """
    if password is None:
        password = os.environ.get(PASSWORD_VARIABLE)
    key = load_private_key(key_file, password)
    return base64.b64encode(sign_bytes(key, data)) + b"\n"


def verify_blob(data: bytes, signature: bytes, key_file: Path) -> None:
    """Check a detached signature: in base64, or bare as openssl writes it.

    Args:
        key_file: PEM file of a public key.

    Raises:
        UserError: the signature is not of this data by this key; or the key can't be used.
    """
    key = load_public_key(key_file)
    forms = [signature]
    with contextlib.suppress(binascii.Error):
        forms.append(base64.b64decode(b"".join(signature.split()), validate=True))
    if not any(key.has_signed(form, data) for form in forms):
        raise UserError(
            f"the signature is not by {key_file}, or the signed data was changed",
            hint="do not use it; get the data and the public key again, each by another way",
        )


# --- of an image ----------------------------------------------------------------------------------


class UnsignedImage(UserError):
    """An image does not have a signature that it must have."""


class SignatureReader(Protocol):
    """Reads an image's signatures from a registry or a bundle.

    Both methods raise RegistryError: of kind ``gone`` for what is not there, and ``content`` for
    what is not the content that its digest names.
    """

    def get_manifest(self, digest: str) -> Manifest: ...

    def get_blob(self, digest: str) -> bytes: ...


@dataclass(frozen=True, slots=True)
class RegistrySignatureReader:
    """Reads signatures from the repository of ``ref``."""

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
    """The rules of `images.signatures`. An image that several match must satisfy each."""

    rules: tuple[SignatureRule, ...] = ()

    @classmethod
    def from_settings(cls, settings: Iterable[SignatureSetting], root: Path) -> SignatureRules:
        """Return the rules that kfdeploy.yaml has.

        Args:
            root: the workspace, which paths are relative to.

        Raises:
            UserError: keys that can't be used; all of them, each with the key path that names it.
        """
        rules: list[SignatureRule] = []
        errors: list[UserError] = []
        for index, setting in enumerate(settings):
            where = f"images.signatures[{index}]"
            found: list[PublicKey] = []
            for number, name in enumerate(setting.keys):
                try:
                    found.append(load_public_key(root / Path(name).expanduser(), name))
                except UserError as error:
                    message = f"{where}.keys[{number}]: {error.message}"
                    errors.append(UserError(message, hint=error.hint))
            rules.append(SignatureRule(where, setting.images, tuple(found)))
        raise_all(errors)
        return cls(tuple(rules))

    def find_for(self, image: ImageRef) -> tuple[SignatureRule, ...]:
        """Return the rules for an image, by what is locked: its substitute, where it has one."""
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
        attached: what is known to belong to it, such as from the lock.
        search: returns what belongs to it now; called at most once, and only where no signature
            among ``attached`` is good.

    Raises:
        UnsignedImage: a signature is missing, or none is good; the message does not name the image.
        RegistryError: the registry can't be asked.
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
    """Return why no signature is good; empty when one is."""
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
    """Yield a manifest's signatures, without attestations; one that can't be read is an error."""
    layer_count = 0
    for attachment in sorted(set(attached)):
        if attachment.subject != digest or not _may_be_signature(attachment):
            continue
        try:
            layers = list(iter_entries(reader.get_manifest(attachment.digest).content, "layers"))
        except (MalformedManifest, RegistryError) as error:
            yield _as_malformed(attachment.digest, error)
            continue
        for layer in layers:
            if not cosign.is_signature_layer(str(layer.get("mediaType"))):
                continue
            layer_count += 1
            if layer_count > LAYERS_MAX:
                return
            try:
                found = _read_signature(layer, reader)
            except (MalformedSignature, RegistryError) as error:
                yield _as_malformed(attachment.digest, error)
            else:
                if found is not None:
                    yield found


def _may_be_signature(attachment: Attachment) -> bool:
    if attachment.kind == "tag":
        return attachment.name.endswith(".sig")
    return attachment.name == cosign.SIGSTORE_BUNDLE or attachment.name in _OTHER_TYPES


def _read_signature(
    layer: Mapping[str, Any], reader: SignatureReader
) -> UnverifiedSignature | None:
    digest, size, annotations = (layer.get(key) for key in ("digest", "size", "annotations"))
    if not isinstance(digest, str) or not is_digest(digest) or not isinstance(size, int):
        raise MalformedSignature("a layer has no digest or no size")
    if size > LAYER_BYTES_MAX:
        raise MalformedSignature(f"{digest} has {size} bytes, more than any signature")
    known = annotations if isinstance(annotations, dict) else {}
    return cosign.parse_signature(str(layer["mediaType"]), known, reader.get_blob(digest))


def _as_malformed(digest: str, error: Exception) -> MalformedSignature:
    if isinstance(error, RegistryError):
        if error.is_inconclusive:
            raise error
        return MalformedSignature(error.message)
    return MalformedSignature(f"{digest}: {error}")
