"""Keys made for a test, and signatures as cosign makes them, good ones and others.

What cosign itself made lies in tests/data/signatures.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kfdeploy.oci.attachments import build_fallback_index, cosign_tags, fallback_tag
from kfdeploy.oci.manifest import Manifest
from tests.support.standins import OCI_INDEX, OCI_MANIFEST, Standin, push

SIMPLE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
SBOM: Final = "application/spdx+json"
SIGN: Final = "https://sigstore.dev/cosign/sign/v1"

Change = Callable[[dict[str, Any]], None]


class Signer:
    """A P-256 key; ``file`` is its public half, ``private`` the other."""

    def __init__(self, folder: Path, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pub"
        self.file.write_bytes(
            self._key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def sign(self, data: bytes) -> str:
        return base64.b64encode(self._key.sign(data, ec.ECDSA(hashes.SHA256()))).decode()


def simple(
    signer: Signer, digest: str, *, change: Change | None = None, **annotations: str
) -> Standin:
    """What goes under ``sha256-HEX.sig``.

    Args:
        change: of the payload, before it is signed.
        annotations: instead of the layer's own; names with ``_`` for ``.`` and ``__`` for ``/``.
    """
    payload: dict[str, Any] = {
        "critical": {
            "identity": {"docker-reference": "quay.io/any/thing"},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    if change:
        change(payload)
    data = _json(payload)
    own = {"dev.cosignproject.cosign/signature": signer.sign(data)}
    return artifact(SIMPLE, data, own | {_key(name): text for name, text in annotations.items()})


def bundle(
    signer: Signer,
    subject: Standin,
    *,
    digest: str = "",
    predicate: str = SIGN,
    change: Change | None = None,
) -> Standin:
    """A referrer: sigstore's bundle with a signed statement about ``subject``.

    Args:
        digest: what the statement is about; by default the subject.
        change: of the whole bundle.
    """
    hexes = (digest or subject.digest).removeprefix("sha256:")
    kind = "application/vnd.in-toto+json"
    statement = _json(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": hexes}}],
            "predicateType": predicate,
            "predicate": {},
        }
    )
    pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(statement), statement)
    envelope = {
        "payload": base64.b64encode(statement).decode(),
        "payloadType": kind,
        "signatures": [{"sig": signer.sign(pae)}],
    }
    return _referrer_bundle(subject, {"dsseEnvelope": envelope}, change)


def message(signer: Signer, subject: Standin, *, of: bytes = b"") -> Standin:
    """A referrer: sigstore's bundle with a signature of the manifest itself, or of ``of``."""
    data = of or subject.manifests[subject.digest][1]
    signature = {
        "messageDigest": {
            "algorithm": "SHA2_256",
            "digest": base64.b64encode(hashlib.sha256(data).digest()).decode(),
        },
        "signature": signer.sign(data),
    }
    return _referrer_bundle(subject, {"messageSignature": signature}, None)


def referrer(subject: Standin, artifact_type: str, data: bytes) -> Standin:
    """Any other referrer, such as an SBOM."""
    return artifact(artifact_type, data, {}, subject=subject)


def artifact(
    kind: str, data: bytes, annotations: Mapping[str, str], *, subject: Standin | None = None
) -> Standin:
    """A manifest whose only layer is ``data``; of type ``kind``, as its layer is."""
    image = Standin()
    config = b"{}"
    content: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _described("application/vnd.oci.empty.v1+json", config),
        "layers": [{**_described(kind, data), "annotations": dict(annotations)}],
    }
    if subject is not None:
        content["artifactType"] = kind
        size = len(subject.manifests[subject.digest][1])
        about = {"mediaType": subject.media_type, "digest": subject.digest, "size": size}
        content["subject"] = about
    body = _json(content)
    image.digest, image.media_type = _sha256(body), OCI_MANIFEST
    image.manifests[image.digest] = (OCI_MANIFEST, body)
    image.blobs = {_sha256(each): each for each in (config, data)}
    return image


def attach(host: str, path: str, what: Standin, subject: str, suffix: str = "") -> None:
    """Push it as what belongs to the digest ``subject``.

    Args:
        suffix: of cosign's tag: ``sig``, ``att`` or ``sbom``; without one it is a referrer, in an
            index of its own under the fallback tag.
    """
    if suffix:
        tag = next(tag for tag in cosign_tags(subject) if tag.endswith(f".{suffix}"))
        push(host, what, path, tag)
        return
    push(host, what, path, what.digest)
    index = build_fallback_index([manifest(what)])
    top = Standin(index.digest, OCI_INDEX, {index.digest: (OCI_INDEX, index.body)})
    push(host, top, path, fallback_tag(subject))


def manifest(image: Standin) -> Manifest:
    """The top manifest of what was made."""
    return Manifest(image.digest, image.media_type, image.manifests[image.digest][1])


def _referrer_bundle(
    subject: Standin, content: Mapping[str, Any], change: Change | None
) -> Standin:
    whole = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": "any"}},
        **content,
    }
    if change:
        change(whole)
    return artifact(BUNDLE, _json(whole), {}, subject=subject)


def _key(name: str) -> str:
    return name.replace("__", "/").replace("_", ".")


def _described(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": _sha256(data), "size": len(data)}


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
