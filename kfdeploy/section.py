"""The base of every section of `kfdeploy.yaml`: the workspace's own, and those of features."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from kfdeploy.codec import to_camel_case


class Section(BaseModel):
    """A mapping of `kfdeploy.yaml`: keys in camel case, none unknown, values that do not change."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel_case, populate_by_name=True
    )
