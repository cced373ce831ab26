"""Find the fields that differ between two bodies of one object.

`diff_live` compares a set's object with a cluster's: only fields that the set names, without those
that the API server defaults or that a controller owns. `diff_bodies` compares the objects of two
sets: all fields.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.kubernetes.accessors import (
    Body,
    get_annotations,
    get_api_group,
    get_mapping,
    get_metadata,
)
from kfdeploy.kubernetes.diff import lists
from kfdeploy.kubernetes.diff.lists import MergeKeys, Step
from kfdeploy.kubernetes.diff.values import is_same_as_absent, is_same_value

HIDDEN: Final = "(not shown)"
"""Stands for a value of a Secret."""


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """One field that differs.

    Attributes:
        path: the field's steps. A list's item is named by its merge key, or else by its index.
        was: the value of the old set or of the cluster; None if absent.
        becomes: the value of the new set, or of the set to apply; None if absent.
    """

    path: tuple[Step, ...]
    was: Any
    becomes: Any

    @property
    def field(self) -> str:
        """The path, for people."""
        return lists.format_steps(self.path)

    @property
    def is_hidden(self) -> bool:
        """Whether the values are secret: only the fact that they differ may be shown."""
        return HIDDEN in (self.was, self.becomes)

    def to_json(self) -> dict[str, Any]:
        return {"field": self.field, "old": self.was, "new": self.becomes}


def diff_live(wanted: Body, live: Body) -> list[FieldDifference]:
    """Return the fields of a set's object that the cluster has otherwise.

    Left out are fields that the set does not name, items that others added to a list with a merge
    key, what Helm and the API server write themselves, an injected CA, and what a known controller
    owns.
    """
    walk = _BodyDiff(one_sided=True, custom=is_custom_resource(wanted))
    found = walk.diff_mapping(_normalize_body(live), _normalize_body(wanted), ())
    return _select_own(found, wanted)


def diff_bodies(old: Body, new: Body) -> list[FieldDifference]:
    """Return all fields that differ between two sets' bodies of one object."""
    found = _BodyDiff(one_sided=False).diff_mapping(_normalize_body(old), _normalize_body(new), ())
    return [_redact_secret(difference, new) for difference in found]


def diff_dry_run(wanted: Body, live: Body, after: Body) -> list[FieldDifference]:
    """Return the fields that an apply of ``wanted`` would change in a live object.

    Args:
        after: the object that a dry run of the apply returned.
    """
    walk = _BodyDiff(one_sided=False)
    found = walk.diff_mapping(_normalize_body(live), _normalize_body(after), ())
    return _select_own(found, wanted)


def _select_own(found: Iterable[FieldDifference], wanted: Body) -> list[FieldDifference]:
    """Return the differences that no controller makes, without a Secret's values."""
    return [
        _redact_secret(difference, wanted)
        for difference in found
        if not _is_controller_owned(difference, wanted)
    ]


def is_schema_field(difference: FieldDifference) -> bool:
    """Return whether a field is of a definition's schemas or columns.

    There may be hundreds of them, and nobody decides by reading them.
    """
    path = difference.path
    is_of_version = path[:2] == ("spec", "versions")
    return is_of_version and ("schema" in path or "additionalPrinterColumns" in path)


def diff_values(was: Any, becomes: Any, path: tuple[Step, ...]) -> Iterator[FieldDifference]:
    """Yield the differences of two values of the field at ``path``."""
    return _BodyDiff(one_sided=False).diff_field(was, becomes, path)


# -- what is compared ------------------------------------------------------------------------------

_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
_NOT_COMPARED: Final = frozenset(
    (
        "meta.helm.sh/release-name",
        "meta.helm.sh/release-namespace",
        "kubectl.kubernetes.io/last-applied-configuration",
        "deployment.kubernetes.io/revision",
    )
)


def _normalize_body(body: Body) -> dict[str, Any]:
    """Return a body as the API server would store it, without its identity and its status."""
    out = {key: value for key, value in body.items() if key not in ("status", "apiVersion", "kind")}
    metadata = get_metadata(body)
    out["metadata"] = {
        name: {k: v for k, v in get_mapping(metadata, name).items() if not _is_tool_metadata(k, v)}
        for name in ("labels", "annotations")
    }
    if metadata.get("finalizers"):
        out["metadata"]["finalizers"] = metadata["finalizers"]
    if is_secret(body):
        out.pop("stringData", None)
        out["data"] = {
            **{name: _unwrap_base64(value) for name, value in get_mapping(body, "data").items()},
            **{
                name: _encode_base64(value)
                for name, value in get_mapping(body, "stringData").items()
            },
        }
    return out


_BUILTIN_GROUPS: Final = frozenset(
    (
        *("", "apps", "batch", "autoscaling", "policy", "events.k8s.io", "storage.k8s.io"),
        *("admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io"),
        *("certificates.k8s.io", "coordination.k8s.io", "discovery.k8s.io", "node.k8s.io"),
        *("flowcontrol.apiserver.k8s.io", "networking.k8s.io", "rbac.authorization.k8s.io"),
        *("resource.k8s.io", "scheduling.k8s.io", "storagemigration.k8s.io"),
    )
)


def _is_tool_metadata(name: str, value: Any) -> bool:
    """Return whether Helm, kubectl or a controller puts this mark on whatever it handles."""
    return name in _NOT_COMPARED or (name == _MANAGED_BY and value == "Helm")


def is_custom_resource(body: Body) -> bool:
    """Return whether the object's kind is of a CustomResourceDefinition or another API server."""
    return get_api_group(body) not in _BUILTIN_GROUPS


def is_secret(body: Body) -> bool:
    return body.get("kind") == "Secret" and body.get("apiVersion") == "v1"


def _encode_base64(value: Any) -> str:
    return base64.b64encode(str(value).encode()).decode()


def _unwrap_base64(value: Any) -> Any:
    """Return base64 as the API server stores it, without YAML's line ends."""
    return "".join(value.split()) if isinstance(value, str) else value


def _redact_secret(difference: FieldDifference, body: Body) -> FieldDifference:
    """Return the difference without a Secret's values."""
    if not is_secret(body) or difference.path[:1] != ("data",):
        return difference
    was, becomes = (
        None if value is None else HIDDEN for value in (difference.was, difference.becomes)
    )
    return FieldDifference(difference.path, was, becomes)


# -- what others own -------------------------------------------------------------------------------

_PLACEHOLDERS: Final = ("", "Cg==", "Cgo=", None)
"""What upstreams write where a CA is injected later: nothing, or a line end in base64."""
_INJECTED_BY: Final = (
    "cert-manager.io/inject-ca-from",
    "cert-manager.io/inject-ca-from-secret",
    "cert-manager.io/inject-apiserver-ca",
)


def _is_controller_owned(difference: FieldDifference, wanted: Body) -> bool:
    """Return whether a controller writes this field by its design."""
    path = difference.path
    if path[-1] == "caBundle":
        notes = get_annotations(wanted)
        return difference.becomes in _PLACEHOLDERS or any(name in notes for name in _INJECTED_BY)
    if path == ("metadata", "labels", _MANAGED_BY):
        return difference.was is None  # Helm's own mark, which `_normalize_body` has left out
    # The controller manager fills an aggregated role with the rules of those that it selects.
    return path[0] == "rules" and bool(wanted.get("aggregationRule"))


# -- the walk --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _BodyDiff:
    """A walk over two bodies.

    Attributes:
        one_sided: ignore fields that only the first has.
        custom: the bodies are a custom resource's. Its lists are replaced as a whole unless its
            definition says otherwise.
    """

    one_sided: bool
    custom: bool = False

    def diff_mapping(
        self, was: Body, becomes: Body, path: tuple[Step, ...]
    ) -> Iterator[FieldDifference]:
        whole = not self.one_sided or self.is_atomic(path)
        names = [*becomes, *(name for name in was if whole and name not in becomes)]
        for name in names:
            yield from self.diff_field(was.get(name), becomes.get(name), (*path, str(name)))

    def diff_field(
        self, was: Any, becomes: Any, path: tuple[Step, ...]
    ) -> Iterator[FieldDifference]:
        if _is_equal(was, becomes) or self._is_ignored(was, becomes, path):
            return
        if isinstance(was, Mapping) and isinstance(becomes, Mapping):
            yield from self.diff_mapping(was, becomes, path)
        elif isinstance(was, list) and isinstance(becomes, list):
            yield from self.diff_list(was, becomes, path)
        elif not self._is_same_scalar(was, becomes, path):
            yield FieldDifference(path, was, becomes)

    def _is_ignored(self, was: Any, becomes: Any, path: tuple[Step, ...]) -> bool:
        """Return whether a one-sided walk leaves a field out: unwanted, or wanted as if absent."""
        if not self.one_sided:
            return False
        if becomes is None and not self.is_atomic(path[:-1]):
            return True
        return was in (None, "") and is_same_as_absent(becomes, _last_name(path))

    def _is_same_scalar(self, was: Any, becomes: Any, path: tuple[Step, ...]) -> bool:
        if not (_is_scalar(was) and _is_scalar(becomes)):
            return False
        parent, key = _last_name(path[:-1]), _last_name(path)
        return is_same_value(was, becomes, parent, key, loose=self.one_sided)

    def diff_list(
        self, was: Sequence[Any], becomes: Sequence[Any], path: tuple[Step, ...]
    ) -> Iterator[FieldDifference]:
        pairs = lists.pair_items(_last_name(path), was, becomes, guess=not self.one_sided)
        if pairs is not None:
            yield from self.diff_items(*pairs, path)
        elif self._can_pair_by_index(was, becomes):
            yield from self._diff_by_index(was, becomes, path)
        elif not self._is_same_list(was, becomes, path):
            yield FieldDifference(path, was, becomes)

    def _diff_by_index(
        self, was: Sequence[Body], becomes: Sequence[Body], path: tuple[Step, ...]
    ) -> Iterator[FieldDifference]:
        for index, (before, after) in enumerate(zip(was, becomes, strict=True)):
            name = after.get("name")
            has_name = isinstance(name, str) and before.get("name") == name
            step: Step = (("name", name),) if has_name else index
            yield from self.diff_field(before, after, (*path, step))

    def _is_same_list(
        self, was: Sequence[Any], becomes: Sequence[Any], path: tuple[Step, ...]
    ) -> bool:
        """Return whether a live list has what is wanted, item by item."""
        if not self.one_sided:
            return False
        if _last_name(path) == "finalizers":  # others add their own
            return set(becomes) <= set(was)
        if len(was) != len(becomes):
            return False
        items = zip(was, becomes, strict=True)
        return not any(any(self.diff_field(*item, (*path, 0))) for item in items)

    def _can_pair_by_index(self, was: Sequence[Any], becomes: Sequence[Any]) -> bool:
        """Return whether an index identifies an item: as many, and between sets mostly equal."""
        items = (*was, *becomes)
        if len(was) != len(becomes) or not all(isinstance(item, Mapping) for item in items):
            return False
        changed = sum(before != after for before, after in zip(was, becomes, strict=True))
        return self.one_sided or changed == 1 or changed * 2 <= len(was)

    def diff_items(
        self, was: Mapping[MergeKeys, Any], becomes: Mapping[MergeKeys, Any], path: tuple[Step, ...]
    ) -> Iterator[FieldDifference]:
        if (orders := lists.compare_order(_last_name(path), was, becomes)) is not None:
            yield FieldDifference(path, *orders)
        whole = not self.one_sided or self.custom or lists.is_replaced_whole(path)
        for keys, item in becomes.items():
            yield from self.diff_field(was.get(keys), item, (*path, keys))
        for keys, item in was.items():
            if keys not in becomes and whole:
                yield FieldDifference((*path, keys), item, None)

    def is_atomic(self, path: tuple[Step, ...]) -> bool:
        """Return whether this mapping is replaced as a whole (`structType=atomic`)."""
        return path[-1:] in _ATOMIC or (path == ("spec", "selector") and not self.custom)


_ATOMIC: Final = (("nodeSelector",), ("matchLabels",))


def _last_name(path: tuple[Step, ...]) -> str:
    """Return the last key of a path: the field's, or that of the list that has the item."""
    return next((step for step in reversed(path) if isinstance(step, str)), "")


def _is_scalar(value: Any) -> bool:
    return value is not None and not isinstance(value, (Mapping, list))


def _is_equal(was: Any, becomes: Any) -> bool:
    """Return whether two values are equal. In Python true is 1; here it is not."""
    if was != becomes:
        return False
    is_number = isinstance(was, int | float)
    return not is_number or isinstance(was, bool) == isinstance(becomes, bool)
