"""Images that nothing redirects at their source are rewritten, or refused, when pods are made.

In users' namespaces only: an operator's own pods are redirected at the source, so that no operator
meets an object that is not as it wrote it. Pods also get the pull secrets that they lack.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kfdeploy.features.addition import FeatureRelease
from kfdeploy.workspace.settings import Workspace

RELEASE = "kfdeploy-admission"
_TEMPLATES = Path(__file__).parent / "templates"


def build_admission_release(*, images: bool) -> FeatureRelease:
    """The policies. What they hold comes from the environment, as with every patch.

    Args:
        images: with those that rewrite and refuse; without them pods get pull secrets alone.
    """
    pattern = "*.yaml.gotmpl" if images else "*-pull-secrets.yaml.gotmpl"
    return FeatureRelease(
        RELEASE,
        {path.name: path.read_text(encoding="utf-8") for path in sorted(_TEMPLATES.glob(pattern))},
    )


def iter_admission_notes(workspace: Workspace, name: str) -> Iterator[str]:
    """What an operator may not expect of an environment."""
    settings, environment = workspace.features.admission, workspace.environments[name]
    if environment.image_pull_secrets and not settings.enabled:
        yield (
            f"environments.{name}.imagePullSecrets: pods that operators make in users' namespaces"
            " name them only where their service accounts do; features.admission adds them"
            " (with images: false, nothing else)"
        )
    guessed = "kube_version" not in environment.model_fields_set and settings.policies == "auto"
    if settings.enabled and guessed:
        yield (
            f"environments.{name} has no kubeVersion: the admission policies are those of"
            f" {environment.kube_version}"
            f" ({settings.select_policy_api(environment.kube_version)}), which the"
            " cluster must serve"
        )
