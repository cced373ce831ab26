"""Trust the certificate authorities that the system trusts."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import Final

_BUNDLES: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Alpine
    Path("/etc/pki/tls/certs/ca-bundle.crt"),  # Fedora, RHEL
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),  # CentOS, RHEL
    Path("/etc/ssl/ca-bundle.pem"),  # openSUSE
    Path("/etc/ssl/cert.pem"),  # Alpine, macOS
)
"""Where systems keep their certificates: a part of Go's list (crypto/x509/root_linux.go)."""
_HASHED_NAME: Final = re.compile(r"[0-9a-f]{8}\.\d+")


def create_tls_context(ca: Path | None = None, *, verify: bool = True) -> ssl.SSLContext:
    """Return a context that trusts the system's store, or SSL_CERT_FILE and SSL_CERT_DIR.

    Args:
        ca: PEM file that is trusted in addition.
        verify: False to take any certificate.

    Raises:
        OSError: ``ca`` can't be read; ssl.SSLError when it holds no certificate.
    """
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif (bundle := _find_other_bundle()) is not None:
        context.load_verify_locations(bundle)
    if ca is not None:
        context.load_verify_locations(ca)
    return context


def _find_other_bundle() -> Path | None:
    """Return the system's bundle where OpenSSL has none at the place it was built for.

    A Python that was not built for this system looks in another's folders, finds nothing, and then
    trusts nobody.
    """
    paths = ssl.get_default_verify_paths()
    if paths.openssl_cafile_env in os.environ or paths.openssl_capath_env in os.environ:
        return None
    if Path(paths.openssl_cafile).is_file() or _has_hashed_names(Path(paths.openssl_capath)):
        return None
    return next((bundle for bundle in _BUNDLES if bundle.is_file()), None)


def _has_hashed_names(folder: Path) -> bool:
    """Return whether OpenSSL can look certificates up in a folder, by the hash of their subject."""
    return folder.is_dir() and any(_HASHED_NAME.fullmatch(path.name) for path in folder.iterdir())
