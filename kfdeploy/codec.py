"""Typed values as JSON: one way for results, both ways for caches.

`to_json` turns a result into what `json.dumps` takes. `pack` and `unpack` keep a value in a cache:
they follow the annotations of dataclasses, lose nothing and refuse what does not fit.

A class with a method `try_parse` is text in both: an image reference, for instance.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_NONE = type(None)
_SCALARS = frozenset((str, int, float, bool, _NONE))


class MisfitData(ValueError):
    """Data does not fit the type that is to be read from it."""


# --- results --------------------------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """Return the JSON form of a result.

    The keys of a dataclass are its fields' names in camel case. A class whose keys are others has a
    method `to_json`, which may return values that are converted in turn.

    Raises:
        TypeError: a type that has no JSON form.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, frozenset):
        return [to_json(item) for item in sorted(value)]
    if hasattr(value, "to_json"):
        return to_json(value.to_json())
    if hasattr(value, "try_parse"):
        return str(value)
    if is_dataclass(value):
        return {key: to_json(getattr(value, name)) for name, key in _list_keys(value.__class__)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


@cache
def _list_keys(cls: Any) -> tuple[tuple[str, str], ...]:
    return tuple((field.name, to_camel_case(field.name)) for field in fields(cls))


def to_camel_case(name: str) -> str:
    """Return a field's name as files and results have it: ``max_depth`` is ``maxDepth``."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


# --- caches ---------------------------------------------------------------------------------------


def pack(value: Any) -> Any:
    """Return the compact JSON form of a dataclass: a list of its fields' values.

    Raises:
        TypeError: an annotation without a JSON form.
    """
    cls: Any = type(value)
    return _converter_for(cls).pack(value)


def unpack(cls: type[T], data: Any) -> T:
    """Return the value that `pack` made ``data`` of.

    Raises:
        MisfitData: ``data`` is not the packed form of a ``cls``.
        TypeError: an annotation without a JSON form.
    """
    annotation: Any = cls
    value: T = _converter_for(annotation).unpack(data)
    return value


class _Converter:
    """Packs and unpacks values of one type."""

    # No dataclass: making one takes longer than the rest of this module, at every start.
    __slots__ = ("pack", "unpack")

    def __init__(self, pack: Callable[[Any], Any], unpack: Callable[[Any], Any]) -> None:
        self.pack = pack
        self.unpack = unpack


@cache
def _converter_for(annotation: Any) -> _Converter:
    """Return what converts values of a type; built once for each type."""
    origin, parameters = get_origin(annotation), get_args(annotation)
    if annotation in _SCALARS:
        return _convert_scalar(annotation)
    if origin is Literal:
        return _convert_choice(parameters)
    if origin in (Union, types.UnionType):
        return _convert_union(parameters)
    if origin is tuple and parameters[-1] is not Ellipsis:
        return _convert_fields(parameters, list, lambda values: tuple(values))
    if origin in (tuple, list, Sequence):
        return _convert_items(parameters[0], list if origin is list else tuple, list)
    if origin is frozenset:
        return _convert_items(parameters[0], frozenset, sorted)
    if origin in (dict, Mapping) and parameters[0] is str:
        return _convert_mapping(parameters[1])
    if hasattr(annotation, "try_parse"):
        return _convert_text(annotation)
    if is_dataclass(annotation):
        return _convert_dataclass(annotation)
    raise TypeError(f"{annotation} has no JSON form")


def _convert_scalar(expected: type[Any]) -> _Converter:
    def check(value: Any) -> Any:
        if type(value) is not expected:
            raise MisfitData(f"{value!r} is no {expected.__name__}")
        return value

    return _Converter(check, check)


def _convert_scalars(expected: frozenset[type[Any]]) -> _Converter:
    def check(value: Any) -> Any:
        if type(value) not in expected:
            raise MisfitData(f"{value!r} is none of {sorted(cls.__name__ for cls in expected)}")
        return value

    return _Converter(check, check)


def _convert_choice(choices: tuple[Any, ...]) -> _Converter:
    def check(value: Any) -> Any:
        if value not in choices:
            raise MisfitData(f"{value!r} is none of {choices}")
        return value

    return _Converter(check, check)


def _convert_union(members: tuple[Any, ...]) -> _Converter:
    """Scalars of several types, or one type that may be None."""
    if set(members) <= _SCALARS:
        return _convert_scalars(frozenset(members))
    others = [member for member in members if member is not _NONE]
    if len(others) != 1:
        raise TypeError(f"{members}: JSON does not tell these types apart")
    inner = _converter_for(others[0])
    return _Converter(
        lambda value: None if value is None else inner.pack(value),
        lambda data: None if data is None else inner.unpack(data),
    )


def _convert_items(
    item: Any, collect: Callable[[Any], Any], order: Callable[[Any], list[Any]]
) -> _Converter:
    inner = _converter_for(item)

    def unpack_items(data: Any) -> Any:
        if type(data) is not list:
            raise MisfitData(f"{data!r} is no list")
        return collect(map(inner.unpack, data))

    return _Converter(lambda values: [inner.pack(value) for value in order(values)], unpack_items)


def _convert_mapping(item: Any) -> _Converter:
    inner = _converter_for(item)

    def unpack_mapping(data: Any) -> Any:
        if type(data) is not dict:
            raise MisfitData(f"{data!r} is no mapping")
        return {key: inner.unpack(value) for key, value in data.items()}

    return _Converter(
        lambda values: {key: inner.pack(value) for key, value in values.items()}, unpack_mapping
    )


def _convert_text(cls: Any) -> _Converter:
    def unpack_text(data: Any) -> Any:
        value = cls.try_parse(data) if type(data) is str else None
        if value is None:
            raise MisfitData(f"{data!r} is no {cls.__name__}")
        return value

    return _Converter(str, unpack_text)


def _convert_dataclass(cls: Any) -> _Converter:
    hints = get_type_hints(cls)
    names = [field.name for field in fields(cls)]
    by_keyword = any(field.kw_only for field in fields(cls))
    return _convert_fields(
        tuple(hints[name] for name in names),
        lambda value: [getattr(value, name) for name in names],
        lambda values: cls(**dict(zip(names, values, strict=True))) if by_keyword else cls(*values),
    )


def _convert_fields(
    annotations: tuple[Any, ...],
    take_apart: Callable[[Any], list[Any]],
    build: Callable[[list[Any]], Any],
) -> _Converter:
    """A fixed number of values, each of its own type."""
    converters = [_converter_for(annotation) for annotation in annotations]
    packers = [converter.pack for converter in converters]
    unpackers = [converter.unpack for converter in converters]

    def unpack_fields(data: Any) -> Any:
        if type(data) is not list or len(data) != len(unpackers):
            raise MisfitData(f"{data!r} is no list of {len(unpackers)}")
        return build([convert(value) for convert, value in zip(unpackers, data, strict=True)])

    return _Converter(
        lambda value: [
            convert(part) for convert, part in zip(packers, take_apart(value), strict=True)
        ],
        unpack_fields,
    )
