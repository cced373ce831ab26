"""A mutating admission webhook on loopback, for as long as a block runs."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.registries import make_certificate

Answer = Callable[[Mapping[str, Any]], list[dict[str, Any]]]


@contextlib.contextmanager
def serve_webhook(folder: Path, answer: Answer) -> Iterator[dict[str, str]]:
    """Answer reviews by a JSON patch, made from the review's ``request``.

    Yields the ``clientConfig`` by which an API server finds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ca, certificate, key = make_certificate(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            patch = json.dumps(answer(review["request"])).encode()
            response = {
                "uid": review["request"]["uid"],
                "allowed": True,
                "patchType": "JSONPatch",
                "patch": base64.b64encode(patch).decode(),
            }
            body = json.dumps({**review, "response": response}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        bundle = base64.b64encode(ca.read_bytes()).decode()
        yield {"url": f"https://localhost:{server.server_port}/", "caBundle": bundle}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
