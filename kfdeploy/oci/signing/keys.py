"""Read keys from PEM files, and make and check signatures with them.

ECDSA on NIST's curves, RSA (PKCS #1 v1.5) and Ed25519: what cosign and openssl make, except
Ed25519ph, which cosign 3 uses for Ed25519 keys. The `cryptography` package, which does not have
that, does the work; it is imported only where a key is used.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kfdeploy.errors import UserError
from kfdeploy.files import read_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    RawPublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
    RawPrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

PASSWORD_VARIABLE: Final = "KFDEPLOY_KEY_PASSWORD"
RSA_BITS_MIN: Final = 2048
_MAKE_PUBLIC: Final = "`openssl pkey -in KEY -pubout -out KEY.pub` writes the public key"
_MAKE_PRIVATE: Final = (
    "`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes-256-cbc -out KEY` makes"
    " one, and `cosign import-key-pair --key KEY` makes cosign's of it"
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key.

    Attributes:
        name: its file, as it was named.
        fingerprint: SHA-256 of its DER form, in hex.
    """

    name: str
    fingerprint: str
    key: RawPublicKey = field(repr=False, compare=False)

    @property
    def is_ed25519(self) -> bool:
        from cryptography.hazmat.primitives.asymmetric import ed25519

        return isinstance(self.key, ed25519.Ed25519PublicKey)

    def has_signed(self, signature: bytes, data: bytes) -> bool:
        """Return whether a signature is of this data by this key.

        With ECDSA, the hash is SHA-256, as in cosign's older formats whatever the curve, or the one
        that fits the curve, as in sigstore's bundles.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

        key = self.key
        with contextlib.suppress(InvalidSignature):
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
            elif isinstance(key, rsa.RSAPublicKey):
                key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
            else:
                key.verify(signature, data)
            return True
        if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size > 256:
            fitting = hashes.SHA384() if key.curve.key_size == 384 else hashes.SHA512()
            with contextlib.suppress(InvalidSignature):
                key.verify(signature, data, ec.ECDSA(fitting))
                return True
        return False


def load_public_key(file: Path, name: str = "") -> PublicKey:
    """Return the public key in a PEM file.

    Args:
        name: how errors name the file; by default its path.

    Raises:
        UserError: no such file, no public key in it, or an unsupported kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    name = name or str(file)
    data = read_bytes(file)
    if b"PRIVATE KEY-----" in data:
        raise UserError(f"{name}: a private key, but a public key is needed", hint=_MAKE_PUBLIC)
    if b"-----BEGIN CERTIFICATE-----" in data:
        raise UserError(
            f"{name}: a certificate, but a public key is needed",
            hint="`openssl x509 -in FILE -pubkey -noout` prints its key",
        )
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"{name}: no public key in PEM form (-----BEGIN PUBLIC KEY-----)", hint=_MAKE_PUBLIC
        ) from error
    kinds = (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey)
    if not isinstance(key, kinds):
        raise _unsupported_key(name)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        raise UserError(
            f"{name}: an RSA key of {key.key_size} bits: fewer than {RSA_BITS_MIN} are not safe"
        )
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return PublicKey(name, hashlib.sha256(der).hexdigest(), key)


def load_private_key(file: Path, password: str | None) -> RawPrivateKey:
    """Return the private key in a PEM file (PKCS #8, or the older forms for EC and RSA).

    Args:
        password: for an encrypted key.

    Raises:
        UserError: no such file, no private key in it, an unsupported kind, or the password is
            missing or wrong; the message has neither key nor password.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    data = read_bytes(file)
    if b"PRIVATE KEY-----" not in data:
        what = "a public key" if b"PUBLIC KEY-----" in data else "no private key in PEM form"
        raise UserError(f"{file}: {what}, but a private key is needed", hint=_MAKE_PRIVATE)
    if b"SIGSTORE PRIVATE KEY-----" in data or b"COSIGN PRIVATE KEY-----" in data:
        raise UserError(
            f"{file}: a private key in cosign's own format, which only cosign reads",
            hint=_MAKE_PRIVATE,
        )
    is_encrypted = b"ENCRYPTED" in data
    if is_encrypted and not password:
        raise UserError(
            f"{file}: the private key is encrypted, and there is no password",
            hint=f"put it into the environment variable {PASSWORD_VARIABLE}",
        )
    secret = password.encode() if is_encrypted and password else None
    # From None: the library's own messages may show bytes of the key.
    try:
        key = serialization.load_pem_private_key(data, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if is_encrypted:
            raise UserError(
                f"{file}: the private key can't be decrypted: the password is wrong, or the file is"
                " damaged",
                hint=f"the password is taken from the environment variable {PASSWORD_VARIABLE}",
            ) from None
        raise UserError(
            f"{file}: the private key is damaged, or of a kind that is not supported",
            hint=_MAKE_PRIVATE,
        ) from None
    kinds = (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)
    if not isinstance(key, kinds):
        raise _unsupported_key(str(file))
    return key


def sign_bytes(key: RawPrivateKey, data: bytes) -> bytes:
    """Return the signature of data: with SHA-256, except for Ed25519, which hashes by itself."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(data)


def _unsupported_key(name: str) -> UserError:
    return UserError(f"{name}: a key of another kind than ECDSA, RSA and Ed25519")
