"""Helm's record of a release, and its marks on objects.

A record is one Secret a revision (helm v4 pkg/storage/driver/secrets.go).
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from kfdeploy.kubernetes.accessors import (
    Body,
    get_annotations,
    get_labels,
    get_mapping,
    get_text,
)
from kfdeploy.kubernetes.objects import Object, ObjectKey, split_objects

DIGEST: Final = "kfdeploy.io/digest"
"""Annotation of a set's chart: the digest of the release that it installs."""
OWNER: Final = "meta.helm.sh/release-name"
OWNER_NAMESPACE: Final = "meta.helm.sh/release-namespace"
POLICY: Final = "helm.sh/resource-policy"
SELECTOR: Final = "owner=helm"
"""Label selector of the Secrets that are Helm's records."""
_USER_DATA_KINDS: Final = frozenset(
    ("Namespace", "PersistentVolumeClaim", "PersistentVolume", "CustomResourceDefinition")
)
_FAILED_DESCRIPTION: Final = "ended by kfdeploy: whoever was at it had been stopped"


class ReleaseOwner(NamedTuple):
    """The Helm release that an object says it belongs to; two empty texts for none."""

    release: str
    namespace: str


def get_release_owner(body: Body) -> ReleaseOwner:
    """Return the release in Helm's annotations of an object."""
    notes = get_annotations(body)
    return ReleaseOwner(get_text(notes, OWNER), get_text(notes, OWNER_NAMESPACE))


@dataclass(frozen=True)
class HelmRevision:
    """One revision of a release.

    Attributes:
        status: ``deployed``, ``failed``, ``pending-upgrade``, ``superseded`` ...
        digest: digest of the set's release that it installed; empty if the chart is not kfdeploy's.
        manifest: all its objects, as YAML.
        at: time of its last deployment; None if Helm does not say it.
        secret: name of the Secret.
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
        """Whether Helm works on it, or was stopped while it did."""
        return self.status.startswith("pending-") or self.status == "uninstalling"

    @property
    def objects(self) -> tuple[Object, ...]:
        return tuple(split_objects(self.manifest, f"Helm's record of {self.name}"))


def parse_revision(secret: Mapping[str, Any]) -> HelmRevision:
    """Return the revision that a Secret records.

    Raises:
        ValueError, KeyError, TypeError, OSError, EOFError: Helm could not read it either.
    """
    data = _unpack_release(secret)
    info = get_mapping(data, "info")
    return HelmRevision(
        name=data["name"],
        revision=int(data["version"]),
        status=str(info.get("status", "unknown")),
        digest=get_text(get_annotations(data.get("chart")), DIGEST),
        manifest=str(data.get("manifest", "")),
        at=_parse_time(get_text(info, "last_deployed")),
        secret=secret["metadata"]["name"],
    )


def _unpack_release(secret: Mapping[str, Any]) -> dict[str, Any]:
    packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
    data: dict[str, Any] = json.loads(gzip.decompress(packed))
    return data


def mark_failed(secret: Mapping[str, Any]) -> dict[str, Any]:
    """Return a revision's Secret with the revision marked as failed."""
    data = _unpack_release(secret)
    data["info"] = {
        **get_mapping(data, "info"),
        "status": "failed",
        "description": _FAILED_DESCRIPTION,
    }
    packed = gzip.compress(json.dumps(data, separators=(",", ":")).encode(), mtime=0)
    text = base64.b64encode(base64.b64encode(packed)).decode()
    labels = {**get_labels(secret), "status": "failed"}
    return {
        **secret,
        "metadata": {**secret["metadata"], "labels": labels},
        "data": {**secret["data"], "release": text},
    }


def _parse_time(text: str) -> datetime | None:
    """Parse a time as Go writes it, with nanoseconds, which Python does not read."""
    seconds, _, rest = text.partition(".")
    zone = rest.lstrip("0123456789")
    fraction = rest.removesuffix(zone)[:6]
    try:
        return datetime.fromisoformat(f"{seconds}.{fraction:0<6}{zone}" if rest else text)
    except ValueError:
        return None


def is_user_data(key: ObjectKey) -> bool:
    """Return whether an object is, or holds, users' data: it is deleted only when named."""
    if key.kind == "Profile":
        return key.group == "kubeflow.org"
    return key.kind in _USER_DATA_KINDS
