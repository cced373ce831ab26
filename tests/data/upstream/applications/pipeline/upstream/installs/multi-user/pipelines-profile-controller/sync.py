"""What every user's namespace gets, as a metacontroller hook.

Images come from the environment; what stands here is the default. Up to 2.3 this was
registry.example.com/pipeline/frontend-of-old:2.3.0.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

FRONTEND_IMAGE = os.environ.get("FRONTEND_IMAGE", "registry.example.com/pipeline/frontend")
FRONTEND_TAG = os.environ.get("FRONTEND_TAG", "2.4.0")
VISUALIZATION_SERVER_IMAGE = os.environ.get(
    "VISUALIZATION_SERVER_IMAGE", "registry.example.com/pipeline/visualization-server"
)
VISUALIZATION_SERVER_TAG = os.environ.get("VISUALIZATION_SERVER_TAG") or os.environ["KFP_VERSION"]


def deployment(name, namespace, image, tag):
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": name, "image": f"{image}:{tag}"}]},
            },
        },
    }


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers["Content-Length"])
        namespace = json.loads(self.rfile.read(length))["object"]["metadata"]["name"]
        children = [
            deployment("ml-pipeline-ui-artifact", namespace, FRONTEND_IMAGE, FRONTEND_TAG),
            deployment(
                "ml-pipeline-visualizationserver",
                namespace,
                VISUALIZATION_SERVER_IMAGE,
                VISUALIZATION_SERVER_TAG,
            ),
        ]
        body = json.dumps({"status": {}, "attachments": children}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    HTTPServer(("", int(os.environ.get("CONTROLLER_PORT", "8080"))), Hook).serve_forever()
