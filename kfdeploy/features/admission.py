"""Images that nothing redirects at their source are rewritten, or refused, when pods are made.

In users' namespaces only: an operator's own pods are redirected at the source, so that no operator
meets an object that is not as it wrote it.
"""

from __future__ import annotations

from pathlib import Path

from kfdeploy.features.addition import Addition

RELEASE = "kfdeploy-admission"
_TEMPLATES = Path(__file__).parent.parent / "templates" / "admission"


def addition() -> Addition:
    """The policies. What they hold comes from the environment, as with every patch."""
    return Addition(
        RELEASE,
        {
            path.name: path.read_text(encoding="utf-8")
            for path in sorted(_TEMPLATES.glob("*.yaml.gotmpl"))
        },
    )
