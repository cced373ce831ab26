"""References as tests write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kfdeploy.lock.resolve import resolve_digests
from kfdeploy.lock.result import Resolution
from kfdeploy.oci.reference import WrittenRef
from kfdeploy.workspace.settings import Workspace

written = WrittenRef.parse


def resolve(refs: Iterable[str], workspace: Workspace, **more: Any) -> Resolution:
    """Lock references; see `resolve_digests`."""
    return resolve_digests(map(written, refs), workspace, **more)
