"""Check the policies of a release set: that they compile, and rewrite what rests on them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kfdeploy.errors import UserError
from kfdeploy.features.feature import RenderedSet
from kfdeploy.kubernetes.objects import Object, split_objects


@dataclass(frozen=True, slots=True)
class _PolicyPair:
    """The kinds that do one thing: the API server's own, and Kyverno's."""

    native: str
    kyverno: str


_REWRITING: Final = _PolicyPair("MutatingAdmissionPolicy", "MutatingPolicy")
_REFUSING: Final = _PolicyPair("ValidatingAdmissionPolicy", "ValidatingPolicy")
_PAIRS: Final = (_REWRITING, _REFUSING)
NATIVE_KINDS: Final = tuple(pair.native for pair in _PAIRS)
KINDS: Final = frozenset((*NATIVE_KINDS, *(pair.kyverno for pair in _PAIRS)))
_EXPRESSION_MAX: Final = 100_000
"""Characters that an expression may have (google/cel-go@v0.26.0:parser/parser.go:69)."""


def find_long_expressions(objects: Sequence[Object]) -> Iterator[UserError]:
    """Return an error for each policy with an expression that is too long for CEL."""
    for item in objects:
        if len(item.text) <= _EXPRESSION_MAX or item.key.kind not in KINDS:
            continue
        variables = item.body["spec"].get("variables") or ()
        longest = max((len(str(each.get("expression"))) for each in variables), default=0)
        if longest > _EXPRESSION_MAX:
            yield UserError(
                f"{item.origin}: an expression has {longest} characters, and CEL takes"
                f" {_EXPRESSION_MAX}",
                hint="these are more images than admission can have: leave some out by"
                " images.needs, images.extra or images.exclude",
            )


def find_unenforced_images(content: RenderedSet) -> Iterator[str]:
    """Return a sentence for each image that rests on admission and that no policy rewrites."""
    resting = {ref: i for ref, i in content.images.items() if "admission" in i.redirects}
    if not resting:
        return
    found = [
        item
        for text in content.manifests
        for item in (split_objects(text) if "Policy" in text else ())
        if "Policy" in item.text
    ]
    if lacking := _find_lacking_kind(found):
        yield (
            f"{next(iter(resting))} rests on admission, and the set has no {lacking}:"
            " run `kfdeploy patch` and `kfdeploy render`"
        )
        return
    rewriting = "".join(
        item.text for item in found if item.key.kind in (_REWRITING.native, _REWRITING.kyverno)
    )
    for ref, image in sorted(resting.items()):
        known = json.dumps(image.mirror.removeprefix(f"{content.registry}/"))
        if image.is_mirrored and known not in rewriting:
            yield f"{ref} rests on admission, and no policy of the set leads it to {image.mirror}"


def _find_lacking_kind(found: Sequence[Object]) -> str:
    """Return the kind of object without which nothing is rewritten, or nothing refused."""
    bound = {
        (item.key.kind.removesuffix("Binding"), str(item.body["spec"].get("policyName")))
        for item in found
        if item.key.kind.endswith("PolicyBinding")
    }
    for pair in _PAIRS:
        policies = [item.key for item in found if item.key.kind in (pair.native, pair.kyverno)]
        if not policies:
            return pair.native
        for key in policies:
            # Without its binding a policy of the API server's does nothing; Kyverno's need none.
            if key.kind == pair.native and (key.kind, key.name) not in bound:
                return f"{pair.native}Binding of {key.name}"
    return ""
