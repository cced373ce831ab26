"""The settings of `admission`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from kfdeploy.features.feature import FeatureSettings
from kfdeploy.oci.reference import ImageRef, InvalidImageRef


class AdmissionSettings(FeatureSettings):
    """Policies in user namespaces: known images are led to the private registry, others refused."""

    images: bool = Field(
        True,
        description="Rewrite and refuse images; false: pods only get the pull secrets they lack.",
    )
    policies: Literal["auto", "v1", "v1beta1", "kyverno"] = Field(
        "auto",
        description="auto takes the API server's own policies: v1 from Kubernetes 1.36 on, v1beta1"
        " for 1.34 and 1.35 (a feature gate there), and Kyverno's before that.",
    )
    namespace_selector: dict[str, Any] = Field(
        default_factory=lambda: {"matchLabels": {"app.kubernetes.io/part-of": "kubeflow-profile"}},
        description="Label selector of the namespaces in which users' pods run.",
    )
    allow: tuple[str, ...] = Field(
        (), description="Registries, or paths in one, that pods may use besides the private one."
    )

    @field_validator("allow")
    @classmethod
    def _validate_allow(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in value:
            try:
                host = ImageRef.parse(f"{prefix.rstrip('/')}/x").host
            except InvalidImageRef as error:
                raise ValueError(str(error)) from error
            if host != prefix.partition("/")[0]:
                raise ValueError(f"{prefix!r} names no registry; Docker Hub's is docker.io")
        return value
