"""An API server as the stand-ins speak to it: plain JSON with the administrator's certificate.

Cheap on purpose: a connection a thread that is kept open, one watch a kind, and only the names of
objects whose content nobody here reads. A server that was restarted, refuses or is slow is asked
again; where its port changed, ``admin.kubeconfig`` says so.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.support.markers import require_servers

Body = dict[str, Any]
NAMES: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_NAME_LISTS: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
_ASK_AGAIN_SECONDS: Final = 0.3
_ANSWER_SECONDS: Final = 60.0
_QUIET_SECONDS: Final = 300  # after which a watch begins anew
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0


class ApiError(RuntimeError):
    """The API server refused."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status: Final = status


class Api:
    """The API server of the cluster that keeps its data in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
        self._mine = threading.local()

    def connect(self) -> http.client.HTTPSConnection:
        """A new connection to where the server is now."""
        config = json.loads((self._folder / "admin.kubeconfig").read_text())
        server = urlsplit(config["clusters"][0]["cluster"]["server"])
        return http.client.HTTPSConnection(
            server.hostname or "", server.port, context=self._context, timeout=_ANSWER_SECONDS
        )

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Any:
        """Ask once.

        Raises:
            ApiError: with what the server said.
            OSError, http.client.HTTPException: there was no answer.
        """
        connection = getattr(self._mine, "connection", None)
        if connection is None:
            connection = self._mine.connection = self.connect()
        data = None if body is None else json.dumps(body).encode()
        try:
            headers = {"Content-Type": content_type, "Accept": accept}
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            said = response.read()
        except (OSError, http.client.HTTPException):
            self._mine.connection = None
            connection.close()
            raise
        if response.status >= 400:
            raise ApiError(response.status, said.decode(errors="replace"))
        return json.loads(said)

    def find(self, path: str) -> Any:
        """As ``call("GET", ...)``; None for what is not there."""
        try:
            return self.call("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def make(self, path: str, body: Body) -> bool:
        """Create; False when it was there before."""
        try:
            self.call("POST", path, body)
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        return True

    def watch(self, kind: str, path: str, events: queue.SimpleQueue[Event], *, names: bool) -> None:
        """Put what is there, and then what changes, into ``events``, in a thread of its own.

        ``(kind, "SYNC", [objects])`` begins it, and comes again whenever changes may have been
        missed: what is not listed is gone. A kind that is not served is an empty one.
        """
        target = (kind, path, events, names)
        threading.Thread(target=self._watch, args=target, name=f"watch {kind}", daemon=True).start()

    def _watch(self, kind: str, path: str, events: queue.SimpleQueue[Event], names: bool) -> None:
        served: bool | None = None
        while True:
            try:
                accept = _NAME_LISTS if names else "application/json"
                found = self.call("GET", path, accept=accept)
            except ApiError as error:
                if error.status == 404 and served is not False:
                    served = False
                    events.put((kind, "SYNC", []))
                time.sleep(_ASK_AGAIN_SECONDS)
                continue
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(_ASK_AGAIN_SECONDS)
                continue
            served = True
            events.put((kind, "SYNC", found["items"] or []))
            try:
                self._follow(kind, path, found["metadata"]["resourceVersion"], events, names)
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(_ASK_AGAIN_SECONDS)

    def _follow(
        self,
        kind: str,
        path: str,
        version: str,
        events: queue.SimpleQueue[Event],
        names: bool,
    ) -> None:
        """Until the server ends it."""
        mark = "&" if "?" in path else "?"
        query = f"{mark}watch=1&resourceVersion={version}&timeoutSeconds={_QUIET_SECONDS}"
        with contextlib.closing(self.connect()) as connection:
            connection.timeout = _QUIET_SECONDS + _ANSWER_SECONDS
            accept = NAMES if names else "application/json"
            connection.request("GET", path + query, headers={"Accept": accept})
            response = connection.getresponse()
            if response.status != 200:
                raise OSError(f"watch {path}: {response.status}")
            while line := response.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                events.put((kind, event["type"], event["object"]))


Event = tuple[str, str, Any]
"""Kind, ``SYNC``, ``ADDED``, ``MODIFIED`` or ``DELETED``, and the object (a list for SYNC)."""


class Seen:
    """What watches have shown so far: kind to (namespace, name) to object."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[tuple[str, str], Body]] = {}

    def take(self, event: Event) -> tuple[list[Body], list[Body]]:
        """Note an event; returns the objects it shows, and those that are gone by it."""
        kind, how, content = event
        known = self._kinds.setdefault(kind, {})
        if how == "SYNC":
            fresh = {name_of(item): item for item in content}
            gone = [item for name, item in known.items() if name not in fresh]
            self._kinds[kind] = fresh
            return content, gone
        if how == "DELETED":
            known.pop(name_of(content), None)
            return [], [content]
        known[name_of(content)] = content
        return [content], []

    def of(self, kind: str) -> Mapping[tuple[str, str], Body]:
        return self._kinds.get(kind, {})

    def synced(self, *kinds: str) -> bool:
        return all(kind in self._kinds for kind in kinds)


def name_of(item: Body) -> tuple[str, str]:
    """Namespace (empty for what is in none) and name."""
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# -- a stand-in is a process of its own -----------------------------------------------------------


class NotStarted(RuntimeError):
    """A stand-in ended before it was ready, or said nothing for too long."""


@contextlib.contextmanager
def serve_process(module: str, folder: Path, *arguments: str) -> Iterator[int]:
    """Run ``python -m MODULE ARGUMENTS`` until the block ends; yields its process id.

    It says ``ready`` in a line of its own (`say_ready`), and ends with its standard input, so
    that a test that is killed leaves none behind. Its log is ``MODULE.log`` in ``folder``.

    Raises:
        NotStarted: with its log.
    """
    require_servers(module)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{module.rpartition('.')[2]}.log"
    with log.open("wb") as opened:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=Path(__file__).resolve().parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=opened,
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        late = threading.Timer(_START_SECONDS, process.kill)
        late.start()
        said = process.stdout.readline()
        late.cancel()
        if said != b"ready\n":
            raise NotStarted(f"{module} did not start:\n{log.read_text(errors='replace')[-3000:]}")
        yield process.pid
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def say_ready() -> None:
    """Tell who started this process that it is at work."""
    print("ready", flush=True)


def end_with_input() -> None:
    """End this process when whoever started it ends, or closes its standard input."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
