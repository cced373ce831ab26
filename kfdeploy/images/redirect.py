"""Redirects of images that no manifest names: something that a patch adds to an object."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import Field

from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.objects import Object, ObjectKey, get_field
from kfdeploy.yamltext.fields import ExactlyOne, OnlyWith, Text, TextFormat

_ONE_SOURCE = r"[\w.-]+/[\w.-]+(?:@[^\s:;]+(?::[^\s;:]+:\d+(?:-\d+)?(?:,\s*\d+(?:-\d+)?)*)?|#\d+)"


def _check_sources(text: str) -> str:
    for source in text.split("; "):
        if not re.fullmatch(_ONE_SOURCE, source):
            raise ValueError(f"{source!r} is not OWNER/REPO@TAG:path:line or OWNER/REPO#ISSUE")
    return text


FactSource = Annotated[
    str,
    TextFormat(
        _check_sources,
        f"^{_ONE_SOURCE}(?:; {_ONE_SOURCE})*$",
        "OWNER/REPO@TAG:path:line, or OWNER/REPO#ISSUE; several are separated by '; '",
    ),
]
"""Where a fact was read."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Something that a patch adds to an object so that a program takes an image elsewhere.

    One of ``flag``, ``env``, ``key`` (of a ConfigMap), ``field`` (a dotted path), or ``file``: a
    path in the container that gets ``content`` in place of the image's own file, so that nothing
    asks for the image any more.
    """

    kind: Annotated[Text, Field(description="kind of the object that a patch adds to")]
    name: Annotated[Text, Field(description="its name, without a content hash")]
    container: Annotated[Text, Field(description="for flag, env and file")] = ""
    flag: Text = ""
    env: Text = ""
    key: Annotated[Text, Field(description="a key of a ConfigMap's data")] = ""
    field: Annotated[Text, Field(description="a dotted path")] = ""
    file: Annotated[Text, Field(description="replaces the image's own file of this path")] = ""
    content: str = ""
    value: Annotated[
        Literal["{ref}", "{repository}", "{tag}"], Field(description="what is written")
    ] = "{ref}"
    source: FactSource = ""

    def __str__(self) -> str:
        if self.env:
            return f"env {self.env}"
        if self.flag:
            return f"flag {self.flag}"
        if self.key or self.file:
            return f"config {self.key or self.file.rpartition('/')[2]}"
        return "patch"

    def is_of(self, key: ObjectKey) -> bool:
        """Return whether an object is the one to change; a content hash in its name is ignored."""
        return key.kind == self.kind and is_same_name(key.name, self.name)

    def is_set(self, body: dict[str, Any], config: Sequence[Object]) -> bool:
        """Return whether the manifest sets it, so that the compiled-in default is not used.

        Args:
            config: the component's objects, for variables that come from a ConfigMap.
        """
        if self.key:
            return bool((body.get("data") or {}).get(self.key))
        if self.field:
            try:
                return bool(get_field(body, tuple(self.field.split("."))))
            except KeyError:
                return False
        for _, container in workload.list_containers(body):
            if container.get("name") == self.container:
                return self._is_set_in(container, config)
        return False

    def _is_set_in(self, container: dict[str, Any], config: Sequence[Object]) -> bool:
        if self.flag:
            words = [*(container.get("command") or ()), *(container.get("args") or ())]
            flag = self.flag.lstrip("-")
            return any(
                str(word).startswith("-") and str(word).lstrip("-").partition("=")[0] == flag
                for word in words
            )
        if self.file:
            mounts = container.get("volumeMounts") or ()
            return any(mount.get("mountPath") == self.file for mount in mounts)
        if any(variable.get("name") == self.env for variable in container.get("env") or ()):
            return True
        names = {
            (source.get("configMapRef") or {}).get("name")
            for source in container.get("envFrom") or ()
        }
        return any(
            self.env in (item.body.get("data") or {})
            for item in config
            if not item.is_crd and item.key.kind == "ConfigMap" and item.key.name in names
        )


RedirectRecord = Annotated[
    Redirect,
    ExactlyOne(("flag", "env", "key", "field", "file")),
    OnlyWith("container", ("flag", "env", "file")),
    OnlyWith("content", ("file",)),
]
"""A redirect as a file has it, with the rules over its keys."""


def is_same_name(name: str, pattern: str) -> bool:
    """Return whether a name fits a pattern; a content hash behind the name is ignored."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}-??????????")
