"""The options of an upgrade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class UpgradeOptions:
    """Hold what the operator asks for.

    Attributes:
        upstream: the new ``upstream.source``; empty for the same.
        ref: the new ``upstream.ref``; empty for what the source says.
        remotes: more entries of ``upstream.remotes``.
        offline: ask no registry for the digests of new images.
        jobs: registries' requests at a time.
    """

    upstream: str = ""
    ref: str = ""
    remotes: Mapping[str, str] = field(default_factory=dict)
    offline: bool = False
    jobs: int = 8

    @property
    def names_release(self) -> bool:
        """Whether they name another release; without one an unfinished upgrade is finished."""
        return bool(self.upstream or self.ref)
