"""Rewrite or refuse, when pods are made, the images that nothing redirects at their source.

In users' namespaces only: an operator's own pods are redirected at the source, so that no operator
meets an object that is not as it wrote it. Pods also get the pull secrets that they lack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

from kfdeploy.errors import UserError
from kfdeploy.features.admission import policies
from kfdeploy.features.admission.settings import AdmissionSettings
from kfdeploy.features.feature import (
    Feature,
    FeatureEnvironment,
    FeatureRelease,
    RenderedSet,
)
from kfdeploy.kubernetes.objects import Object

RELEASE: Final = "kfdeploy-admission"
_UNSERVED: Final = (
    "features.admission.policies in kfdeploy.yaml has to be what the cluster can do: v1 from"
    " Kubernetes 1.36 on; v1beta1 with the API server's"
    " --feature-gates=MutatingAdmissionPolicy=true and"
    " --runtime-config=admissionregistration.k8s.io/v1beta1=true; kyverno where Kyverno 1.19 or"
    " later is installed"
)


class AdmissionFeature(Feature[AdmissionSettings]):
    """Policies over pods in user namespaces."""

    name = "admission"
    settings_model = AdmissionSettings
    names_upstream = policies.KINDS
    unserved_hints: ClassVar[Mapping[str, str]] = dict.fromkeys(
        (*policies.KINDS, *(f"{kind}Binding" for kind in policies.NATIVE_KINDS)), _UNSERVED
    )

    @property
    def default_redirect(self) -> str:
        """Return the word for images that only a policy rewrites, where policies judge images."""
        return "admission" if self.settings.images else ""

    def build_releases(self) -> Iterator[FeatureRelease]:
        """Return the policies; without ``images`` those that add pull secrets alone."""
        pattern = "*.yaml.gotmpl" if self.settings.images else "*-pull-secrets.yaml.gotmpl"
        yield FeatureRelease(RELEASE, self.read_templates(pattern))

    def list_notes(self, environment: FeatureEnvironment) -> Iterator[str]:
        """Return what users' pods lack while this is off, and which policies were chosen."""
        if environment.image_pull_secrets and not self.enabled:
            yield (
                f"environments.{environment.name}.imagePullSecrets: pods that operators make in"
                " users' namespaces name them only where their service accounts do;"
                " features.admission adds them (with images: false, nothing else)"
            )
        is_guess = self.settings.policies == "auto" and not environment.names_kube_version
        if self.enabled and is_guess:
            yield (
                f"environments.{environment.name} has no kubeVersion: the admission policies are"
                f" those of {environment.kube_version} ({self.build_values(environment)['api']}),"
                " which the cluster must serve"
            )

    def check_objects(self, objects: Sequence[Object]) -> Iterator[UserError]:
        """Return policies whose map of images no API server compiles."""
        return policies.find_long_expressions(objects)

    def check_set(self, content: RenderedSet) -> Iterator[str]:
        """Return the images that are said to rest on admission, and that no policy rewrites."""
        return policies.find_unenforced_images(content)
