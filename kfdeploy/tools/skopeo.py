"""Copying images from registry to registry with skopeo (1.9 and later).

What skopeo would take from the machine it runs on (trust policy, mirrors and aliases in
registries.conf, sign-ins, CAs) is written into a private folder for as long as a `Skopeo` is
open, so that a copy does the same everywhere. Sign-ins travel in a file there with mode 0600.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kfdeploy.errors import UserError
from kfdeploy.model.image import ImageRef
from kfdeploy.tools import process
from kfdeploy.tools.credentials import auth_file
from kfdeploy.tools.reach import Reach
from kfdeploy.tools.registry import Client

PROGRAM: Final = "skopeo"
OLDEST: Final = (1, 9)
"""Debian 12's; `--all` and `--preserve-digests` together are older, 1.9 is what is tested."""
_RETRIES: Final = 2
_ANY_IMAGE: Final = '{"default": [{"type": "insecureAcceptAnything"}]}\n'
"""No signature is asked for: the digest says which image it is."""


class CopyFailed(UserError):
    """skopeo could not copy an image; ``hopeless`` when trying again can't help."""

    def __init__(self, message: str, *, hint: str | None, hopeless: bool) -> None:
        super().__init__(message, hint=hint)
        self.hopeless = hopeless


def version() -> tuple[int, ...]:
    """skopeo's version, such as (1, 9, 3).

    Raises:
        UserError: it is missing, says nothing that is a version, or is too old.
    """
    text = process.run([PROGRAM, "--version"], timeout=30).stdout.decode("utf-8", "replace")
    found = parse_version(text)
    if found < OLDEST:
        raise UserError(
            f"skopeo {'.'.join(map(str, found))} is too old: it takes"
            f" {'.'.join(map(str, OLDEST))} or later",
            hint="`kfdeploy doctor` says how to install skopeo",
        )
    return found


def parse_version(text: str) -> tuple[int, ...]:
    """The version in what ``skopeo --version`` prints ("skopeo version 1.22.2 commit: ...")."""
    match = re.search(r"\bversion v?(\d+(?:\.\d+)+)", text)
    if match is None:
        raise UserError(
            f"`skopeo --version` says {text.strip()[:80]!r}, which is no version",
            hint="`kfdeploy doctor` says how to install skopeo",
        )
    return tuple(int(part) for part in match[1].split("."))


@dataclass(frozen=True, slots=True)
class Skopeo:
    """skopeo with everything it needs in ``folder``; safe for threads."""

    folder: Path
    reaches: dict[str, Reach]
    cancelled: threading.Event

    def copy(self, source: ImageRef, destination: ImageRef) -> None:
        """Copy an image with all platforms; its digest stays.

        Args:
            source: with a digest; a tag is left out, as skopeo refuses both together.
            destination: with a tag.

        Raises:
            CopyFailed: with skopeo's last words.
            KeyboardInterrupt: ``cancelled`` was set.
        """
        if not source.digest or not destination.tag:
            raise ValueError(f"{source} -> {destination}: not from a digest to a tag")
        argv = [
            PROGRAM,
            "--policy",
            str(self.folder / "policy.json"),
            "--registries.d",
            str(self.folder / "registries.d"),
            "copy",
            "--all",
            "--preserve-digests",
            "--quiet",
            "--retry-times",
            str(_RETRIES),
            "--authfile",
            str(self.folder / "auth.json"),
            *self._access("src", source.host),
            *self._access("dest", destination.host),
            f"docker://{source.repository}@{source.digest}",
            f"docker://{destination.repository}:{destination.tag}",
        ]
        lines: list[str] = []
        try:
            process.stream(
                argv,
                lines.append,
                env={"CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf")},
                cancelled=self.cancelled,
                what=str(destination),
            )
        except process.ProgramFailed as error:
            if self.cancelled.is_set():
                raise KeyboardInterrupt from error
            raise _failed(source, destination, lines, error) from error

    def _access(self, side: str, host: str) -> list[str]:
        reach = self.reaches[host]
        options: list[str] = []
        if reach.plain_http or reach.skip_tls_verify:
            options.append(f"--{side}-tls-verify=false")
        if reach.ca is not None:
            options += [f"--{side}-cert-dir", str(self.folder / _folder_name(host))]
        return options


@contextlib.contextmanager
def opened(client: Client, hosts: Iterable[str], cancelled: threading.Event) -> Iterator[Skopeo]:
    """skopeo with sign-ins and CAs for these hosts, which are gone when the block ends.

    Raises:
        UserError: skopeo is missing or too old, a CA file can't be read, a sign-in can't be had.
    """
    version()
    reaches = {host: client.reach(host) for host in sorted(set(hosts))}
    signed_in = {
        host: credential
        for host in reaches
        if (credential := client.exchange.credential(host)) is not None
    }
    folder = Path(tempfile.mkdtemp(prefix="kfdeploy-skopeo-"))  # mode 0700
    try:
        (folder / "policy.json").write_text(_ANY_IMAGE)
        (folder / "registries.conf").touch()
        (folder / "registries.d").mkdir()
        descriptor = os.open(folder / "auth.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(auth_file(signed_in))
        for host, reach in reaches.items():
            if reach.ca is not None:
                _add_ca(reach, folder / _folder_name(host))
        yield Skopeo(folder, reaches, cancelled)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _add_ca(reach: Reach, folder: Path) -> None:
    assert reach.ca is not None
    folder.mkdir()
    try:
        shutil.copyfile(reach.ca, folder / "ca.crt")
    except OSError as error:
        reason = (error.strerror or "can't be read").lower()
        raise UserError(f"{reach.setting}.ca: {reach.ca}: {reason}") from error


def _folder_name(host: str) -> str:
    return "ca-" + re.sub(r"[^A-Za-z0-9.-]", "-", host)


_HOPELESS: Final = (
    "unauthorized",
    "denied",
    "manifest unknown",
    "name unknown",
    "certificate",
    "http: server gave HTTP response to HTTPS client",
    "no space left",
    "preserve digests",
)


def _failed(
    source: ImageRef, destination: ImageRef, lines: list[str], error: process.ProgramFailed
) -> CopyFailed:
    """skopeo's last words, without its time stamps."""
    said = [_message(line) for line in lines if line.strip()]
    last = said[-1] if said else error.message
    low = last.lower()
    side, setting = (
        (destination.host, "the private registry")
        if "trying to reuse blob" in low or "writing " in low or "uploading" in low
        else (source.host, "the source")
    )
    hint: str | None = None
    if "unauthorized" in low or "denied" in low:
        hint = f"{setting}: `docker login {side}`, with the right to " + (
            "push" if side == destination.host else "pull"
        )
    elif "no space left" in low:
        hint = "the disk of this machine (TMPDIR) or of the registry is full"
    elif "preserve digests" in low:
        hint = "the registry does not take this image's format as it is; it must accept OCI"
    elif "manifest unknown" in low:
        hint = "gone from its source: run `kfdeploy lock`, which says how to set a substitute"
    return CopyFailed(
        f"{source} -> {destination}: {last}",
        hint=hint,
        hopeless=any(words.lower() in low for words in _HOPELESS),
    )


def _message(line: str) -> str:
    match = re.search(r'level=(?:fatal|error|warning) msg="(.*)"', line)
    return match[1].replace('\\"', '"') if match else line.strip()
