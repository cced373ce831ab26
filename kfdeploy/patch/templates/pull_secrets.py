"""Runs the profile controller's sync.py, and adds image pull secrets to what it answers.

sync.py is metacontroller's hook for user namespaces: it is asked for the objects that a namespace
must have. Each answer gets a copy of the Secrets that KFDEPLOY_PULL_SECRETS names (a JSON list),
read from files of these names. sync.py is not changed and does not see the copies, which it would
count. Whatever fails here leaves its answer as it is. A Secret's content is never printed.
"""

import base64
import io
import json
import os
import runpy
import socketserver
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("KFDEPLOY_PULL_SECRETS_DIR", "/etc/kfdeploy/pull-secrets"))
NAMES: list[str] = json.loads(os.environ.get("KFDEPLOY_PULL_SECRETS", "[]"))
TYPE, KEY = "kubernetes.io/dockerconfigjson", ".dockerconfigjson"
KIND = "Secret.v1"
Secrets = dict[str, dict[str, Any]]


def log_message(text: str) -> None:
    print(f"kfdeploy: {text}", file=sys.stderr, flush=True)


def read_secret(name: str) -> str:
    """The Secret's value as it is now, in base64; empty where there is none that can be used."""
    try:
        data = (FOLDER / name).read_bytes()
        json.loads(data)
    except FileNotFoundError:
        log_message(
            f"no Secret {name} with {KEY} in this controller's namespace: nothing added or removed"
        )
        return ""
    except (OSError, ValueError) as error:
        log_message(
            f"the Secret {name} can't be used ({type(error).__name__}): nothing added or removed"
        )
        return ""
    return base64.b64encode(data).decode()


def remove_copies(body: bytes) -> tuple[bytes, str, Secrets]:
    """The request without our copies; the namespace, if it is a user's; the copies by name."""
    request = json.loads(body)
    meta = request["object"]["metadata"]
    is_on = (meta.get("labels") or {}).get("pipelines.kubeflow.org/enabled") == "true"
    seen: Secrets = request["attachments"].get(KIND) or {}
    ours: Secrets = {}
    for key in [f"{meta['name']}/{name}" for name in NAMES]:
        if key in seen and seen[key].get("type") == TYPE:
            ours[key.partition("/")[2]] = seen.pop(key)
    return json.dumps(request).encode(), meta["name"] if is_on else "", ours


def add_copies(answer: bytes, namespace: str, ours: Secrets) -> bytes:
    """The answer with a copy of each Secret."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if not namespace or not answer or b" 200 " not in head.split(b"\r\n", 1)[0]:
        return answer
    desired = json.loads(body)
    taken = {o["metadata"]["name"] for o in desired["attachments"] if o["kind"] == "Secret"}
    for name in NAMES:
        old = (ours.get(name, {}).get("data") or {}).get(KEY, "")
        new = read_secret(name) or old
        if not new or name in taken:
            continue
        if old and old != new:
            # It is left out once: metacontroller deletes the old copy, sees it go, and asks again.
            # Its strategy for Secrets here, OnDelete, never changes one that exists.
            log_message(f"the Secret {name} has changed: its copy in {namespace} is made anew")
            continue
        meta = {"name": name, "namespace": namespace}
        copy = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": TYPE}
        desired["attachments"].append({**copy, "data": {KEY: new}})
    fresh = json.dumps(desired).encode()
    lines = [x for x in head.split(b"\r\n") if not x.lower().startswith(b"content-length:")]
    if len(lines) < len(head.split(b"\r\n")):
        lines.append(b"Content-Length: %d" % len(fresh))
    return b"\r\n".join([*lines, b"", fresh])


def wrap_handler(handler: Any) -> Any:
    """The hook's handler, between what it reads and what it writes."""

    class PullSecretsHandler(handler):  # type: ignore[misc]
        rfile: Any
        wfile: Any

        def do_POST(self) -> None:
            source, sink = self.rfile, self.wfile
            body = source.read(int(self.headers.get("content-length") or 0))
            request, namespace = body, ""
            ours: Secrets = {}
            try:
                request, namespace, ours = remove_copies(body)
            except Exception as error:
                log_message(
                    f"a request was not understood ({type(error).__name__}): passed on as it is"
                )
            if self.headers.get("content-length"):
                self.headers.replace_header("content-length", str(len(request)))
            self.rfile, self.wfile = io.BytesIO(request), io.BytesIO()
            try:
                super().do_POST()
            finally:
                answer = self.wfile.getvalue()
                self.rfile, self.wfile = source, sink
                sink.write(self.try_add_copies(answer, namespace, ours))

        def try_add_copies(self, answer: bytes, namespace: str, ours: Secrets) -> bytes:
            try:
                return add_copies(answer, namespace, ours)
            except Exception as error:
                log_message(f"an answer was not understood ({type(error).__name__}): sent as it is")
                return answer

    return PullSecretsHandler if hasattr(handler, "do_POST") else handler


def run_script(script: str) -> None:
    """Run the script as the program, with each server's handler wrapped."""
    plain = socketserver.BaseServer.__init__

    def init_server(self: Any, address: Any, handler: Any) -> None:
        plain(self, address, wrap_handler(handler))

    setattr(socketserver.BaseServer, "__init__", init_server)  # noqa: B010
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(script).resolve().parent)
    log_message(f"user namespaces get the pull secrets {', '.join(NAMES)}")
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    run_script(sys.argv[1])
