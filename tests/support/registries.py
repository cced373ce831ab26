"""A real registry on a free loopback port, for as long as a block runs.

    with serve_registry(tmp_path / "registry") as registry:
        registry.host   # 127.0.0.1:PORT

Debian's ``docker-registry`` is taken where there is one, else ``registry`` of the distribution
project, else ``crane registry serve`` (which speaks neither TLS nor any sign-in).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.support.markers import require_servers
from tests.support.tokens import serve_tokens

USER: Final = "puller"
PASSWORD: Final = "let-me-in"
# bcrypt of PASSWORD at the lowest cost: the registry computes it for each request.
_HTPASSWD: Final = "$2b$04$abcdefghijklmnopqrstuudxA/1BY5FxPYA69jUrJOJFmTyoe9T1a"
MEMORY: Final = "KFDEPLOY_TESTS_MEMORY"
"""Environment variable: a folder in memory, for what registries of tests store."""
_START_SECONDS: Final = 20.0
_LISTED: Final = Path(__file__).resolve().parents[2] / ".tools" / "bin"

Auth = Literal["basic", "token"]


class NoRegistry(RuntimeError):
    """No program here can be the registry asked for, or it didn't start."""


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry.

    Attributes:
        host: ``127.0.0.1:PORT``.
        folder: what it stores; serving the same folder again shows the same images.
        ca: PEM file of the CA that signed its certificate; None when it speaks plain HTTP.
        user: empty when it asks for no sign-in.
        password: empty likewise.
        pid: of the server, for tests that kill it.
    """

    host: str
    folder: Path
    ca: Path | None
    user: str
    password: str
    pid: int

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://{self.host}"


@contextlib.contextmanager
def serve_registry(
    folder: Path,
    *,
    tls: bool = False,
    auth: Auth | None = None,
    port: int | None = None,
    name: str = "127.0.0.1",
    deletes: bool = True,
) -> Iterator[Registry]:
    """Run a registry that keeps its data in ``folder`` until the block ends.

    Args:
        tls: HTTPS, with a certificate signed by a CA of its own (`Registry.ca`).
        auth: ``basic`` or ``token`` (the Bearer flow, with a token server of its own); USER and
            PASSWORD get in.
        port: a fixed port; a free one when left out.
        name: how the host is called, ``127.0.0.1`` or ``localhost``.
        deletes: whether manifests can be deleted.

    Raises:
        NoRegistry: no program for it, or it does not answer.
    """
    _make(folder)
    aside = folder.parent / f".{folder.name}.server"
    aside.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        ca, certificate, key = make_certificate(aside) if tls else (None, None, None)
        realm = None
        if auth == "token":
            realm = stack.enter_context(serve_tokens(aside, user=USER, password=PASSWORD))
        for attempt in range(3):
            number = port or free_port()
            config = _config(folder, aside, number, certificate, key, auth, realm, deletes)
            process = stack.enter_context(_started(config, aside, number, folder))
            if _answers(process, number, ca):
                break
            if port is not None or attempt == 2:
                words = (aside / "log").read_text(errors="replace")[-2000:]
                raise NoRegistry(f"the registry did not start on port {number}:\n{words}")
        yield Registry(
            host=f"{name}:{number}",
            folder=folder,
            ca=ca,
            user=USER if auth else "",
            password=PASSWORD if auth else "",
            pid=process.pid,
        )


def _make(folder: Path) -> None:
    """The folder for what a registry stores; in memory where tests ask for that.

    A registry waits for the disk several times for each blob, which is most of what tests of small
    images take. A folder that is on another file system than temporary files stays there.
    """
    memory = os.environ.get(MEMORY, "")
    folder.parent.mkdir(parents=True, exist_ok=True)
    usual = Path(tempfile.gettempdir()).stat().st_dev
    if not memory or folder.exists() or folder.parent.stat().st_dev != usual:
        folder.mkdir(exist_ok=True)
        return
    folder.symlink_to(tempfile.mkdtemp(dir=memory))


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_certificate(folder: Path) -> tuple[Path, Path, Path]:
    """A CA and a certificate for loopback: (CA, certificate, key) as PEM files in ``folder``."""
    ca, ca_key = folder / "ca.crt", folder / "ca.key"
    certificate, key, request = folder / "server.crt", folder / "server.key", folder / "server.csr"
    names = folder / "server.ext"
    if not certificate.exists():
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        authority = ("-addext", "keyUsage=critical,keyCertSign", "-subj", "/CN=stand-in CA")
        _openssl("req", "-x509", *new, *authority, "-keyout", ca_key, "-out", ca, "-days", "3650")
        _openssl("req", *new, "-subj", "/CN=localhost", "-keyout", key, "-out", request)
        names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        signer = ("-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "3650")
        _openssl("x509", "-req", "-in", request, *signer, "-extfile", names, "-out", certificate)
    return ca, certificate, key


def docker_config(folder: Path, *registries: Registry) -> Path:
    """Write Docker's ``config.json`` with their sign-ins into ``folder``; returns the folder."""
    import base64

    folder.mkdir(parents=True, exist_ok=True)
    auths = {
        r.host: {"auth": base64.b64encode(f"{r.user}:{r.password}".encode()).decode()}
        for r in registries
    }
    file = folder / "config.json"
    file.write_text(json.dumps({"auths": auths}))
    file.chmod(0o600)
    return folder


def _config(
    folder: Path,
    aside: Path,
    port: int,
    certificate: Path | None,
    key: Path | None,
    auth: Auth | None,
    realm: str | None,
    deletes: bool,
) -> Path:
    http_section: dict[str, object] = {"addr": f"127.0.0.1:{port}", "secret": "stand-in"}
    if certificate:
        http_section["tls"] = {"certificate": str(certificate), "key": str(key)}
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder)},
            "delete": {"enabled": deletes},
            "cache": {"blobdescriptor": "inmemory"},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": http_section,
    }
    if auth == "basic":
        passwords = aside / "htpasswd"
        passwords.write_text(f"{USER}:{_HTPASSWD}\n")
        config["auth"] = {"htpasswd": {"realm": "stand-in", "path": str(passwords)}}
    elif auth == "token":
        config["auth"] = {
            "token": {
                "realm": realm,
                "service": "stand-in",
                "issuer": "stand-in",
                "rootcertbundle": str(aside / "token.crt"),
            }
        }
    file = aside / "config.yml"
    file.write_text(json.dumps(config))  # JSON is YAML
    return file


@contextlib.contextmanager
def _started(
    config: Path, aside: Path, port: int, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    require_servers("a registry")
    argv = _program(config, port, folder)
    # OTEL_*: version 3 of the registry would otherwise export traces over the network.
    env = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with (aside / "log").open("wb") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _program(config: Path, port: int, folder: Path) -> list[str]:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), str(_LISTED)))
    if found := shutil.which("docker-registry", path=path) or shutil.which("registry", path=path):
        return [found, "serve", str(config)]
    text = config.read_text()
    if (found := shutil.which("crane", path=path)) and '"tls"' not in text and '"auth"' not in text:
        address = f"127.0.0.1:{port}"
        return [found, "registry", "serve", "--address", address, "--disk", str(folder)]
    raise NoRegistry("none of docker-registry, registry and crane is on PATH")


def _answers(process: subprocess.Popen[bytes], port: int, ca: Path | None) -> bool:
    context = ssl.create_default_context(cafile=str(ca)) if ca else None
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        connection: http.client.HTTPConnection
        if context:
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=2)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/v2/")
            if connection.getresponse().status in {200, 401}:
                return process.poll() is None
        except OSError:
            time.sleep(0.02)
        finally:
            connection.close()
    return False


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
