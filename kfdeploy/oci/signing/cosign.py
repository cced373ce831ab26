"""Read signatures of images: cosign's simple signing, and sigstore's bundle.

Simple signing (cosign's SIGNATURE_SPEC): a layer is the signed payload, which names the image's
digest, and the signature is the layer's annotation. Bundle v0.3 (sigstore's protobuf-specs): a
layer of JSON with either a DSSE envelope around an in-toto statement whose subject is the image, or
a signature of the image's manifest itself. Only signatures by key are read: certificates, entries
of a transparency log and time stamps are ignored.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION: Final = "dev.cosignproject.cosign/signature"
CERTIFICATE_ANNOTATION: Final = "dev.sigstore.cosign/certificate"
SIGSTORE_BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT: Final = "application/vnd.in-toto+json"
SIGN_PREDICATE: Final = "https://sigstore.dev/cosign/sign/v1"
_SIMPLE_TYPE: Final = "cosign container image signature"


class MalformedSignature(ValueError):
    """A signature can't be read; the message says why."""


@dataclass(frozen=True, slots=True)
class UnverifiedSignature:
    """A signature that nobody has checked yet.

    Attributes:
        data: what was signed; None where that is the image's manifest itself.
        digests: of the images that ``data`` says are signed; worth nothing before it is checked.
        by_certificate: it says that it was made with a certificate's key.
    """

    signature: bytes = field(repr=False)
    data: bytes | None = field(repr=False)
    digests: frozenset[str]
    by_certificate: bool = False


def is_signature_layer(media_type: str) -> bool:
    return media_type in {SIMPLE_SIGNING, SIGSTORE_BUNDLE}


def parse_signature(
    media_type: str, annotations: Mapping[str, Any], body: bytes
) -> UnverifiedSignature | None:
    """Return the signature in a layer.

    Returns:
        None for a bundle with an attestation: that says something about an image (what is in it,
            how it was built, that a scan failed), not that it may be used.

    Raises:
        MalformedSignature: it can't be read.
    """
    content = _parse_json(body)
    if media_type == SIMPLE_SIGNING:
        return _parse_simple_signing(content, annotations, body)
    return _parse_bundle(content)


def _parse_simple_signing(
    content: Mapping[str, Any], annotations: Mapping[str, Any], body: bytes
) -> UnverifiedSignature:
    critical = _require_mapping(content, "critical")
    if critical.get("type") != _SIMPLE_TYPE:
        raise MalformedSignature(f"its payload's critical.type is not {_SIMPLE_TYPE!r}")
    digest = _require_text(_require_mapping(critical, "image"), "docker-manifest-digest")
    signature = _decode_base64(annotations, SIGNATURE_ANNOTATION)
    return UnverifiedSignature(
        signature, body, frozenset({digest}), bool(annotations.get(CERTIFICATE_ANNOTATION))
    )


def _parse_bundle(content: Mapping[str, Any]) -> UnverifiedSignature | None:
    # `certificate` and `x509CertificateChain` are the other kinds.
    by_certificate = "publicKey" not in _require_mapping(content, "verificationMaterial")
    if "messageSignature" in content:
        message = _require_mapping(content, "messageSignature")
        return UnverifiedSignature(
            _decode_base64(message, "signature"), None, frozenset(), by_certificate
        )
    envelope = _require_mapping(content, "dsseEnvelope")
    kind = _require_text(envelope, "payloadType")
    if kind != STATEMENT:
        return None
    payload = _decode_base64(envelope, "payload")
    statement = _parse_json(payload)
    if statement.get("predicateType") != SIGN_PREDICATE:
        return None
    signatures = envelope.get("signatures")
    # The bundle's specification allows one, unlike DSSE's.
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise MalformedSignature("its envelope must have exactly one signature")
    if not isinstance(signatures[0], dict):
        raise MalformedSignature("signatures[0] is missing")
    signature = _decode_base64(signatures[0], "sig")
    return UnverifiedSignature(
        signature, _encode_pae(kind, payload), _parse_subjects(statement), by_certificate
    )


def _parse_subjects(statement: Mapping[str, Any]) -> frozenset[str]:
    subjects = statement.get("subject")
    if not isinstance(subjects, list):
        raise MalformedSignature("its statement has no subject")
    return frozenset(
        f"{algorithm}:{value}"
        for subject in subjects
        if isinstance(subject, dict) and isinstance(subject.get("digest"), dict)
        for algorithm, value in subject["digest"].items()
    )


def _encode_pae(kind: str, payload: bytes) -> bytes:
    """Return DSSE's encoding of what is signed: type and payload, with their lengths in bytes."""
    name = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def _parse_json(body: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedSignature("not JSON") from error
    if not isinstance(content, dict):
        raise MalformedSignature("not a JSON object")
    return content


def _require_mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    if not isinstance(value, dict):
        raise MalformedSignature(f"{key} is missing")
    return value


def _require_text(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str):
        raise MalformedSignature(f"{key} is missing")
    return value


def _decode_base64(content: Mapping[str, Any], key: str) -> bytes:
    text = _require_text(content, key)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise MalformedSignature(f"{key} is not base64") from error
