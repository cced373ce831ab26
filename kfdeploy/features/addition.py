"""A release of new objects, which belongs to no component of the upstream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FeatureRelease:
    """One release of a feature.

    Attributes:
        release: its name, and that of its folder below ``patches/``.
        objects: file name to text, one object a file. Texts are templates over the same values as
            patches; one that is empty when it is filled gives no object.
    """

    release: str
    objects: Mapping[str, str]
