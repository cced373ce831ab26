"""The content hash at the end of a name that kustomize generated.

A generated ConfigMap or Secret is called ``NAME-HASH``, so that a workload that reads it rolls when
the content changes. The hash is the first ten hex digits of a SHA-256, spelled without vowels and
digits that look like letters, so that it never spells a word (kustomize api/hasher/hasher.go). A
name such as ``katib-controller`` therefore has none, though its end has ten letters.
"""

from __future__ import annotations

import re
from typing import Final

from kfdeploy.kubernetes.objects import ObjectKey

HASH_PATTERN: Final = "[2456789bcdfghkmt]{10}"
"""Regular expression of a hash, without the hyphen before it."""
_SUFFIX: Final = re.compile(rf"(?<=.)-{HASH_PATTERN}\Z")
_GENERATED_KINDS: Final = ("ConfigMap", "Secret")


def strip_hash(name: str) -> str:
    """Return a name without the content hash at its end."""
    return _SUFFIX.sub("", name)


def strip_name_hash(key: ObjectKey) -> str:
    """Return an object's name without the content hash, of the kinds that kustomize generates."""
    return strip_hash(key.name) if key.kind in _GENERATED_KINDS else key.name
