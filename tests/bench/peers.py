"""What else copies images between registries, each as it copies many: one call, 8 at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kfdeploy.oci.reference import ImageRef
from tests.bench.measure import Place

WORKERS: Final = 8
SKOPEO_COPY: Final = (
    *("skopeo", "copy", "--quiet", "--all", "--preserve-digests"),
    *("--src-tls-verify=false", "--dest-tls-verify=false"),
)


@dataclass(frozen=True, slots=True)
class Copy:
    """One image: ``HOST:PORT/PATH`` of its source, its digest, and ``HOST:PORT/PATH:TAG``."""

    source: str
    digest: str
    target: str

    def at(self, hosts: dict[str, str]) -> Copy:
        """The same at other hosts."""
        source, target = self.source, self.target
        for before, now in hosts.items():
            source, target = source.replace(before, now), target.replace(before, now)
        return Copy(source, self.digest, target)


@dataclass(frozen=True, slots=True)
class Peer:
    """A program that copies; ``seconds`` lets it copy all once."""

    name: str
    seconds: Callable[[Place, Sequence[Copy], Path], float]


def crane(place: Place, copies: Sequence[Copy], scratch: Path) -> float:
    commands = [["crane", "copy", f"{one.source}@{one.digest}", one.target] for one in copies]
    return place.pool_seconds(commands, WORKERS)


def regsync(place: Place, copies: Sequence[Copy], scratch: Path) -> float:
    hosts = sorted({name.split("/", 1)[0] for one in copies for name in (one.source, one.target)})
    config = {
        "version": 1,
        # By itself it would send three requests at a time to a registry.
        "creds": [
            {"registry": host, "tls": "disabled", "reqConcurrent": WORKERS} for host in hosts
        ],
        "defaults": {"parallel": WORKERS},
        "sync": [
            {"source": f"{one.source}@{one.digest}", "target": one.target, "type": "image"}
            for one in copies
        ],
    }
    file = scratch / "regsync.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    return place.seconds("regsync", "-c", str(file), "-v", "warn", "once")


def skopeo_sync(place: Place, copies: Sequence[Copy], scratch: Path) -> float:
    """It keeps the last element of a path only, so what it copies lies apart, by digest."""
    images: dict[str, dict[str, list[str]]] = {}
    for one in copies:
        host, _, path = one.source.partition("/")
        images.setdefault(host, {}).setdefault(path, []).append(one.digest)
    file = scratch / "skopeo.yaml"
    content = {host: {"tls-verify": False, "images": found} for host, found in images.items()}
    file.write_text(json.dumps(content))
    argv = ["skopeo", "sync", "--all", "--src", "yaml", "--dest", "docker"]
    argv += ["--src-tls-verify=false", "--dest-tls-verify=false"]
    return place.seconds(*argv, str(file), f"{_host(copies)}/skopeo-sync")


PEERS: Final = (
    Peer("skopeo sync", skopeo_sync),
    Peer(f"crane copy, {WORKERS} at a time", crane),
    Peer(f"regsync once, parallel {WORKERS}", regsync),
)


def skopeo_copies(
    place: Place, layout: Path, names: dict[str, str], copies: Sequence[Copy]
) -> float:
    """Push images from an OCI image layout, 8 at a time.

    Args:
        names: digest to the name that an image has in the layout.
    """
    commands = [
        [*SKOPEO_COPY, f"oci:{layout}:{names[one.digest]}", f"docker://{one.target}"]
        for one in copies
    ]
    return place.pool_seconds(commands, WORKERS)


def copy_of(source: str, digest: str, target: str) -> Copy:
    """Of references that may have tags and digests."""
    ref = ImageRef.parse(source)
    return Copy(f"{ref.host}/{ref.path}", digest, target)


def _host(copies: Sequence[Copy]) -> str:
    return copies[0].target.split("/", 1)[0]
