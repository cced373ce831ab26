"""Fields that differ between two bodies of one object.

`differences` looks at what a set wants and a cluster has: only fields that the set names, and not
those that the API server defaults or a controller owns. `changes` looks at two sets' bodies: all.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kfdeploy.kubernetes.diff import lists
from kfdeploy.kubernetes.diff.lists import MergeKeys, Step
from kfdeploy.kubernetes.diff.values import is_same_as_absent, is_same_value

Body = Mapping[str, Any]
HIDDEN: Final = "(not shown)"
"""Stands for the value of a Secret."""


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """One field that differs.

    Attributes:
        path: its steps; an item of a list is named by its merge key, else by its index.
        field: the path for people.
        was: what an old set or the cluster has; None where it is absent.
        becomes: what the new set, or the one to apply, has; None where it is absent.
    """

    path: tuple[Step, ...]
    was: Any
    becomes: Any

    @property
    def field(self) -> str:
        return lists.format_steps(self.path)

    @property
    def is_hidden(self) -> bool:
        """Whether only that it differs may be shown."""
        return HIDDEN in (self.was, self.becomes)

    def to_json(self) -> dict[str, Any]:
        return {"field": self.field, "old": self.was, "new": self.becomes}


def diff_live(wanted: Body, live: Body) -> list[FieldDifference]:
    """Fields that a set wants and the cluster has otherwise.

    Nothing is said of fields that the set does not name, of items that others added to a list
    with a merge key, of what Helm and the API server write themselves, of a CA that is injected,
    and of what a known controller keeps for itself.
    """
    walk = _BodyDiff(one_sided=True, custom=is_custom_resource(wanted))
    found = walk.diff_mapping(_normalize_body(live), _normalize_body(wanted), ())
    return [_redact_secret(one, wanted) for one in found if not _is_controller_owned(one, wanted)]


def diff_bodies(old: Body, new: Body) -> list[FieldDifference]:
    """Every field that differs between two sets' bodies of one object."""
    found = _BodyDiff(one_sided=False).diff_mapping(_normalize_body(old), _normalize_body(new), ())
    return [_redact_secret(one, new) for one in found]


def diff_dry_run(wanted: Body, live: Body, after: Body) -> list[FieldDifference]:
    """What an apply of ``wanted`` changes of a live object, as the API server tried it.

    Args:
        after: what it would leave.
    """
    found = _BodyDiff(one_sided=False).diff_mapping(
        _normalize_body(live), _normalize_body(after), ()
    )
    return [_redact_secret(one, wanted) for one in found if not _is_controller_owned(one, wanted)]


def is_schema_field(one: FieldDifference) -> bool:
    """A field of a definition's schemas or columns; nobody decides by reading hundreds of them."""
    of_version = one.path[:2] == ("spec", "versions")
    return of_version and ("schema" in one.path or "additionalPrinterColumns" in one.path)


def diff_values(was: Any, becomes: Any, path: tuple[Step, ...]) -> Iterator[FieldDifference]:
    """Every difference of two values of the field at ``path``."""
    return _BodyDiff(one_sided=False).diff_field(was, becomes, path)


# -- what is compared ------------------------------------------------------------------------------

_HELM: Final = "app.kubernetes.io/managed-by"
_NOT_COMPARED: Final = frozenset(
    (
        "meta.helm.sh/release-name",
        "meta.helm.sh/release-namespace",
        "kubectl.kubernetes.io/last-applied-configuration",
        "deployment.kubernetes.io/revision",
    )
)


def _normalize_body(body: Body) -> dict[str, Any]:
    """A body as the API server would store it, without what identifies the object or reports."""
    out = {key: value for key, value in body.items() if key not in ("status", "apiVersion", "kind")}
    meta = body.get("metadata") or {}
    out["metadata"] = {
        name: {k: v for k, v in (meta.get(name) or {}).items() if not _is_tool_metadata(k, v)}
        for name in ("labels", "annotations")
    }
    if meta.get("finalizers"):
        out["metadata"]["finalizers"] = meta["finalizers"]
    if is_secret(body):
        texts = out.pop("stringData", None) or {}
        encoded = {name: _encode_base64(value) for name, value in texts.items()}
        data = {name: _unwrap_base64(value) for name, value in (out.get("data") or {}).items()}
        out["data"] = {**data, **encoded}
    return out


_OWN_GROUPS: Final = frozenset(
    (
        *("", "apps", "batch", "autoscaling", "policy", "events.k8s.io", "storage.k8s.io"),
        *("admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io"),
        *("certificates.k8s.io", "coordination.k8s.io", "discovery.k8s.io", "node.k8s.io"),
        *("flowcontrol.apiserver.k8s.io", "networking.k8s.io", "rbac.authorization.k8s.io"),
        *("resource.k8s.io", "scheduling.k8s.io", "storagemigration.k8s.io"),
    )
)


def _is_tool_metadata(name: str, value: Any) -> bool:
    """A mark that Helm, kubectl or a controller puts on whatever it handles."""
    return name in _NOT_COMPARED or (name == _HELM and value == "Helm")


def is_custom_resource(body: Body) -> bool:
    """Whether the object's kind comes from a CustomResourceDefinition or another API server."""
    return str(body.get("apiVersion", "")).rpartition("/")[0] not in _OWN_GROUPS


def is_secret(body: Body) -> bool:
    return body.get("kind") == "Secret" and body.get("apiVersion") == "v1"


def _encode_base64(value: Any) -> str:
    return base64.b64encode(str(value).encode()).decode()


def _unwrap_base64(value: Any) -> Any:
    """Base64 as the API server stores it, without YAML's line ends."""
    return "".join(value.split()) if isinstance(value, str) else value


def _redact_secret(one: FieldDifference, body: Body) -> FieldDifference:
    """The difference, without a Secret's values."""
    if not is_secret(body) or one.path[:1] != ("data",):
        return one
    return FieldDifference(
        one.path, *(None if side is None else HIDDEN for side in _get_sides(one))
    )


def _get_sides(one: FieldDifference) -> tuple[Any, Any]:
    return one.was, one.becomes


# -- what others own -------------------------------------------------------------------------------

_PLACEHOLDERS: Final = ("", "Cg==", "Cgo=", None)
"""What upstreams write where a CA will be injected: nothing, or a line end in base64."""
_INJECTED: Final = (
    "cert-manager.io/inject-ca-from",
    "cert-manager.io/inject-ca-from-secret",
    "cert-manager.io/inject-apiserver-ca",
)


def _is_controller_owned(one: FieldDifference, wanted: Body) -> bool:
    """Whether a controller writes this field by its design."""
    meta = wanted.get("metadata") or {}
    path = one.path
    if path[-1] == "caBundle":
        marks = meta.get("annotations") or {}
        return one.becomes in _PLACEHOLDERS or any(name in marks for name in _INJECTED)
    if path == ("metadata", "labels", _HELM):
        return one.was is None  # Helm's own mark, which `_stored` has left out
    # The controller manager fills an aggregated role with the rules of those that it selects.
    return path[0] == "rules" and bool(wanted.get("aggregationRule"))


# -- the walk --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _BodyDiff:
    """A walk over two bodies.

    Attributes:
        one_sided: fields that only the first has are nobody's business.
        custom: of a custom resource, whose lists are replaced as a whole unless its definition
            says otherwise.
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
        if _is_equal(was, becomes):
            return
        key = _last_name(path)
        if self.one_sided and becomes is None and not self.is_atomic(path[:-1]):
            return
        if self.one_sided and (was is None or was == "") and is_same_as_absent(becomes, key):
            return
        if isinstance(was, Mapping) and isinstance(becomes, Mapping):
            yield from self.diff_mapping(was, becomes, path)
        elif isinstance(was, list) and isinstance(becomes, list):
            yield from self.diff_list(was, becomes, path)
        elif not (
            _is_scalar(was)
            and _is_scalar(becomes)
            and is_same_value(was, becomes, _last_name(path[:-1]), key, loose=self.one_sided)
        ):
            yield FieldDifference(path, was, becomes)

    def diff_list(
        self, was: Sequence[Any], becomes: Sequence[Any], path: tuple[Step, ...]
    ) -> Iterator[FieldDifference]:
        key = _last_name(path)
        pairs = lists.pair_items(key, was, becomes, guess=not self.one_sided)
        if pairs is not None:
            yield from self.diff_items(*pairs, path)
        elif key == "finalizers" and self.one_sided:
            if not set(becomes) <= set(was):
                yield FieldDifference(path, was, becomes)
        elif self._can_pair_by_index(was, becomes):
            for index, (one, two) in enumerate(zip(was, becomes, strict=True)):
                name = two.get("name")
                alike = isinstance(name, str) and one.get("name") == name
                step: Step = (("name", name),) if alike else index
                yield from self.diff_field(one, two, (*path, step))
        elif self.one_sided and len(was) == len(becomes):
            if any(
                any(self.diff_field(one, two, (*path, 0)))
                for one, two in zip(was, becomes, strict=True)
            ):
                yield FieldDifference(path, was, becomes)
        else:
            yield FieldDifference(path, was, becomes)

    def _can_pair_by_index(self, was: Sequence[Any], becomes: Sequence[Any]) -> bool:
        """Whether items can be told by their place: as many, and between sets mostly the same."""
        if len(was) != len(becomes) or not all(isinstance(i, Mapping) for i in (*was, *becomes)):
            return False
        other = sum(one != two for one, two in zip(was, becomes, strict=True))
        return self.one_sided or other == 1 or other * 2 <= len(was)

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
        """Whether this mapping is replaced as a whole (`structType=atomic`)."""
        return path[-1:] in _WHOLE or (path == ("spec", "selector") and not self.custom)


_WHOLE: Final = (("nodeSelector",), ("matchLabels",))


def _last_name(path: tuple[Step, ...]) -> str:
    """The last name on the path: that of the field, or of the list that the item is in."""
    return next((step for step in reversed(path) if isinstance(step, str)), "")


def _is_scalar(value: Any) -> bool:
    return value is not None and not isinstance(value, (Mapping, list))


def _is_equal(was: Any, becomes: Any) -> bool:
    """Python's equality, in which true is 1."""
    if was != becomes:
        return False
    if isinstance(was, (str, type(None))):
        return True
    if isinstance(was, (bool, int, float)):
        return isinstance(was, bool) == isinstance(becomes, bool)
    return True
