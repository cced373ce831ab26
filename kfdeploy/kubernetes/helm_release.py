"""What Helm keeps of a release: one Secret a revision (helm v4 pkg/storage/driver/secrets.go)."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kfdeploy.kubernetes.objects import Object, ObjectKey, split_objects

DIGEST: Final = "kfdeploy.io/digest"
"""Annotation of a set's chart: `releaseset.digest` of what it installs."""
OWNER: Final = "meta.helm.sh/release-name"
OWNER_NAMESPACE: Final = "meta.helm.sh/release-namespace"
POLICY: Final = "helm.sh/resource-policy"
SELECTOR: Final = "owner=helm"


@dataclass(frozen=True)
class HelmRevision:
    """One revision of a release.

    Attributes:
        status: ``deployed``, ``failed``, ``pending-upgrade``, ``superseded`` ...
        digest: of the set's release that it installed; empty for a chart that is not kfdeploy's.
        manifest: all its objects, as YAML.
        at: when it was last deployed, as Helm says; None where it does not.
        secret: the Secret's name.
    """

    name: str
    revision: int
    status: str
    digest: str
    manifest: str
    at: datetime | None
    secret: str

    @property
    def is_pending(self) -> bool:
        """Whether somebody is at it, or was when it was stopped."""
        return self.status.startswith("pending-") or self.status == "uninstalling"

    @property
    def objects(self) -> tuple[Object, ...]:
        return tuple(split_objects(self.manifest, f"Helm's record of {self.name}"))


def parse_revision(secret: Mapping[str, Any]) -> HelmRevision:
    """A record out of its Secret.

    Raises:
        ValueError: it is none that Helm would read.
    """
    data = _unpack_release(secret)
    info = data.get("info") or {}
    notes = ((data.get("chart") or {}).get("metadata") or {}).get("annotations") or {}
    return HelmRevision(
        name=data["name"],
        revision=int(data["version"]),
        status=str(info.get("status", "unknown")),
        digest=str(notes.get(DIGEST, "")),
        manifest=str(data.get("manifest", "")),
        at=_parse_time(str(info.get("last_deployed") or "")),
        secret=secret["metadata"]["name"],
    )


def _unpack_release(secret: Mapping[str, Any]) -> dict[str, Any]:
    packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
    data: dict[str, Any] = json.loads(gzip.decompress(packed))
    return data


def mark_failed(secret: Mapping[str, Any]) -> dict[str, Any]:
    """A revision's Secret, with the revision failed."""
    data = _unpack_release(secret)
    why = "ended by kfdeploy: whoever was at it had been stopped"
    data["info"] = {**(data.get("info") or {}), "status": "failed", "description": why}
    packed = gzip.compress(json.dumps(data, separators=(",", ":")).encode(), mtime=0)
    text = base64.b64encode(base64.b64encode(packed)).decode()
    labels = {**(secret["metadata"].get("labels") or {}), "status": "failed"}
    return {
        **secret,
        "metadata": {**secret["metadata"], "labels": labels},
        "data": {**secret["data"], "release": text},
    }


def _parse_time(text: str) -> datetime | None:
    """Go writes nanoseconds, which Python does not read."""
    head, dot, tail = text.partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    try:
        return datetime.fromisoformat(
            head + (f".{tail[:digits][:6]:0<6}{tail[digits:]}" if dot else "")
        )
    except ValueError:
        return None


def is_user_data(key: ObjectKey) -> bool:
    """Whether an object is, or holds, what users have made: it is never deleted unasked."""
    if key.kind == "Profile":
        return key.group == "kubeflow.org"
    return key.kind in (
        *("Namespace", "PersistentVolumeClaim", "PersistentVolume", "CustomResourceDefinition"),
    )
