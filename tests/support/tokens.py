"""A token server on loopback for a registry that wants Bearer tokens.

It speaks the distribution project's token protocol: ``GET realm?service=..&scope=..`` with Basic
sign-in answers a signed JWT that the registry checks against ``token.crt``. Everybody may pull;
pushing takes the user and password.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


@contextlib.contextmanager
def serve_tokens(folder: Path, *, user: str, password: str) -> Iterator[str]:
    """Run the token server; yields its realm URL and leaves ``token.crt`` in ``folder``."""
    key, certificate = folder / "token.key", folder / "token.crt"
    if not certificate.exists():
        new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tokens"]
        files = ["-keyout", str(key), "-out", str(certificate), "-days", "3650"]
        subprocess.run([*new, *files], check=True, capture_output=True)
    lines = certificate.read_text().splitlines()
    chain = ["".join(line for line in lines if "-----" not in line)]
    basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            signed_in = self.headers.get("Authorization")
            if signed_in is not None and signed_in != basic:
                self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "no"}]})
                return
            access = []
            for scope in (s for value in query.get("scope", []) for s in value.split()):
                kind, _, rest = scope.partition(":")
                name, _, actions = rest.rpartition(":")
                granted = [a for a in actions.split(",") if a == "pull" or signed_in]
                access.append({"type": kind, "name": name, "actions": granted})
            now = int(time.time())
            claims = {
                "iss": "stand-in",
                "sub": user if signed_in else "",
                "aud": query.get("service", [""])[0],
                "exp": now + 300,
                "nbf": now - 10,
                "iat": now - 10,
                "jti": "1",
                "access": access,
            }
            token = _sign({"typ": "JWT", "alg": "RS256", "x5c": chain}, claims, key)
            self._answer(200, {"token": token, "expires_in": 300})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/token"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _sign(header: dict[str, Any], claims: dict[str, Any], key: Path) -> str:
    signed = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
    with tempfile.NamedTemporaryFile() as file:
        file.write(signed.encode())
        file.flush()
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(key), file.name],
            check=True,
            capture_output=True,
        ).stdout
    return f"{signed}.{_b64(signature)}"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
