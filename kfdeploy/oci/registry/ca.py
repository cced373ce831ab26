"""Read the PEM file of a registry's certificate authority."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kfdeploy.errors import UserError
from kfdeploy.files import read_text
from kfdeploy.oci.registry.access import RegistryAccess
from kfdeploy.oci.registry.settings import PrivateRegistry

_SETTING: Final = "the private registry's ca"
_LARGEST: Final = 128 * 1024
"""Bytes. It travels in an annotation, and Kubernetes allows 256 KiB for all of an object's."""


def read_registry_ca(registry: PrivateRegistry, root: Path) -> str:
    """Return the text of the private registry's CA file; empty where its ``ca`` is not set.

    Args:
        root: the workspace, which the path is relative to.

    Raises:
        UserError: the file can't be read, is too large for an annotation, or holds no certificate,
            or a private key.
    """
    path = RegistryAccess.from_settings(registry.host, registry, root, "").ca
    if path is None:
        return ""
    text = _read_pem(path, _SETTING)
    if len(text.encode()) > _LARGEST:
        raise UserError(
            f"{_SETTING}: {path}: more than {_LARGEST} bytes; a pod's annotation has to hold it",
            hint="name a PEM file with the registry's CA alone, not a system's whole bundle",
        )
    return text


def read_ca(access: RegistryAccess) -> str:
    """Return the text of the file with a registry's CA, of any size; empty where none is set.

    Raises:
        UserError: the file can't be read, or holds no certificate, or a private key.
    """
    return "" if access.ca is None else _read_pem(access.ca, f"{access.setting}.ca")


def _read_pem(path: Path, setting: str) -> str:
    text = read_text(path)
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise UserError(f"{setting}: {path}: no certificate in it", hint="name a PEM file")
    if "PRIVATE KEY-----" in text:
        raise UserError(
            f"{setting}: {path}: contains a private key, but the file gets into public manifests",
            hint="name a PEM file with the registry's CA certificate alone",
        )
    return text
