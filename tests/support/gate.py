"""A door before a real registry that answers some requests itself, as registries with rules do.

with gate(registry.host, lambda method, path: Reply(404) if ... else None) as host:
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.answers import Reply

Rule = Callable[[str, str], Reply | None]


@contextlib.contextmanager
def gate(
    host: str, rule: Rule, sign_in: Callable[[str], Reply | None] = lambda _: None
) -> Iterator[str]:
    """Serve on a free loopback port; yields ``HOST:PORT``.

    Args:
        rule: called with method and path; gives the answer, or None to ask the registry.
        sign_in: likewise, with the header Authorization, which the registry does not see.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            given = self.headers.get("Authorization", "")
            reply = sign_in(given) or rule(self.command, self.path) or self._registry(body)
            self.send_response(reply.status)
            if not any(name.lower() == "content-length" for name in reply.headers):
                self.send_header("Content-Length", str(len(reply.body)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

        def _registry(self, body: bytes) -> Reply:
            connection = http.client.HTTPConnection(host, timeout=30)
            headers = {n: v for n, v in self.headers.items() if n.lower() != "authorization"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            kept = {n: v for n, v in answer.getheaders() if n.lower() not in {"date", "connection"}}
            connection.close()
            return Reply(answer.status, data, kept)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
