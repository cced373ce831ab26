"""HTTPS servers at the addresses of Services: they admit all, and convert by the version's name."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

Address = tuple[str, int]
_NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """One CA for all that is simulated: its certificate is what ``caBundle`` fields get."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate: Final = folder / "hooks-ca.crt"
        self._key = folder / "hooks-ca.key"
        if not self._key.exists():
            usage = ("-addext", "keyUsage=critical,keyCertSign", "-subj", "/CN=stand-in operators")
            out = ("-keyout", self._key, "-out", self.certificate)
            _openssl("req", "-x509", *_NEW_KEY, *usage, *out, "-days", "3650")

    def issue(self, name: str, hosts: tuple[str, ...]) -> tuple[Path, Path]:
        """A certificate for ``hosts``, made when first asked for: (certificate, key) files."""
        certificate, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        if not certificate.exists():
            request, names = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
            names.write_text(f"subjectAltName={','.join(f'DNS:{host}' for host in hosts)}\n")
            _openssl("req", *_NEW_KEY, "-subj", "/", "-keyout", key, "-out", request)
            signer = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
            dated = ("-days", "3650", "-extfile", names)
            _openssl("x509", "-req", "-in", request, *signer, *dated, "-out", certificate)
        return certificate, key


class HookServers:
    """The servers that run, each bound to one Service's ClusterIP and port."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._running: dict[Address, _Server] = {}

    def serve(self, wanted: dict[Address, str]) -> None:
        """Exactly these from now on: address to the Service's ``NAMESPACE``.

        Raises:
            OSError: an address cannot be bound; the other servers run.
        """
        for address in set(self._running) - set(wanted):
            self._running.pop(address).end()
        failed: OSError | None = None
        for address, namespace in wanted.items():
            if address not in self._running:
                files = self._authority.issue(f"hooks-{namespace}", (f"*.{namespace}.svc",))
                try:
                    self._running[address] = _Server(address, *files)
                except OSError as error:
                    failed = OSError(error.errno, f"{address[0]}:{address[1]}: {error.strerror}")
        if failed:
            raise failed

    @property
    def running(self) -> frozenset[Address]:
        return frozenset(self._running)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: Address, certificate: Path, key: Path) -> None:
        super().__init__(address, _Handler)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._open: set[socket.socket] = set()
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the request's own thread: a client that says nothing must not hold up the others.
        try:
            request.settimeout(30)
            secured = self._context.wrap_socket(request, server_side=True)
        except OSError:
            return
        self._open.add(secured)
        try:
            _Handler(secured, client_address, self)
        finally:
            self._open.discard(secured)
            secured.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of ours."""

    def end(self) -> None:
        """Listen no more, and hang up: the API server keeps its connections for the next call."""
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # the API server keeps the connection

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        response: dict[str, Any] = {"uid": request["uid"]}
        if review["kind"] == "ConversionReview":
            version = request["desiredAPIVersion"]
            response["convertedObjects"] = [
                {**each, "apiVersion": version} for each in request["objects"]
            ]
            response["result"] = {"status": "Success"}
        else:
            response["allowed"] = True
        kept = {"apiVersion": review["apiVersion"], "kind": review["kind"]}
        body = json.dumps({**kept, "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
