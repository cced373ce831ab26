"""Pydantic types for YAML files that people write, and JSON Schemas of them for editors.

A model's annotations are the only description of a format: what pydantic checks, and what the JSON
Schema says. Pydantic has no annotation for a rule over several keys; those here give both as well.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

T = TypeVar("T")

Text = Annotated[str, Field(min_length=1)]
"""A string that is not empty."""


def _replace_null(value: object) -> object:
    return () if value is None else value


OptionalList = Annotated[tuple[T, ...], BeforeValidator(_replace_null)]
"""A list. A key without a value is an empty list."""


@dataclass(frozen=True, slots=True)
class TextFormat:
    """Annotate a string that has a format of its own.

    Attributes:
        parse: returns the value of a string; its ValueError says what is wrong.
        pattern: a regular expression for editors, which may accept more.
        description: the format in words, for editors.
    """

    parse: Callable[[str], object]
    pattern: str
    description: str

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            self.parse, core_schema.str_schema(min_length=1)
        )

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "pattern": self.pattern, "description": self.description}


class KeyRule(ABC):
    """Annotate a mapping with a rule over several of its keys. A key without a value is absent."""

    @abstractmethod
    def find_mistake(self, keys: set[str]) -> str:
        """Return what is wrong with the keys that are there; empty if nothing is."""

    @abstractmethod
    def to_json_schema(self) -> JsonSchemaValue:
        """Return the rule as JSON Schema."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def check(data: object, validate: Callable[[object], object]) -> object:
            value = validate(data)
            if isinstance(data, Mapping):
                present = {str(key) for key, item in data.items() if item is not None}
                if mistake := self.find_mistake(present):
                    raise ValueError(mistake)
            return value

        return core_schema.no_info_wrap_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core)
        return {**schema, "allOf": [*schema.get("allOf", ()), self.to_json_schema()]}


@dataclass(frozen=True)
class ExactlyOne(KeyRule):
    """One of these keys is there, and only one."""

    keys: tuple[str, ...]

    def find_mistake(self, keys: set[str]) -> str:
        found = [key for key in self.keys if key in keys]
        if len(found) == 1:
            return ""
        return f"needs exactly one of {', '.join(self.keys)}; has {', '.join(found) or 'none'}"

    def to_json_schema(self) -> JsonSchemaValue:
        return {"oneOf": [{"required": [key]} for key in self.keys]}


@dataclass(frozen=True)
class OnlyWith(KeyRule):
    """A key is there if and only if one of certain others is."""

    key: str
    others: tuple[str, ...]

    def find_mistake(self, keys: set[str]) -> str:
        found = next((key for key in self.others if key in keys), None)
        if (found is not None) == (self.key in keys):
            return ""
        if found is not None:
            return f"{found} needs {self.key}"
        one_of = "one of " if len(self.others) > 1 else ""
        return f"{self.key} needs {one_of}{', '.join(self.others)}"

    def to_json_schema(self) -> JsonSchemaValue:
        return {
            "dependentRequired": {other: [self.key] for other in self.others},
            "dependentSchemas": {
                self.key: {"anyOf": [{"required": [other]} for other in self.others]}
            },
        }


@dataclass(frozen=True)
class Needs(KeyRule):
    """A key needs another one beside it."""

    key: str
    other: str

    def find_mistake(self, keys: set[str]) -> str:
        is_broken = self.key in keys and self.other not in keys
        return f"{self.key} needs {self.other}" if is_broken else ""

    def to_json_schema(self) -> JsonSchemaValue:
        return {"dependentRequired": {self.key: [self.other]}}


class _EditorSchema(GenerateJsonSchema):
    """A JSON Schema without titles of fields and without defaults that only mean "left out"."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default") in ("", (), None):
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])


def dump_json_schema(model: type[BaseModel], title: str) -> str:
    """Return the JSON Schema (draft 2020-12) of a file that a model describes, for editors."""
    content = {
        "$schema": GenerateJsonSchema.schema_dialect,
        **model.model_json_schema(schema_generator=_EditorSchema),
        "title": title,
    }
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
