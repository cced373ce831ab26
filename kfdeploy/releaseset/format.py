"""The files of a release set: charts, CRDs and ``helmfile.yaml``."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kfdeploy.errors import UserError
from kfdeploy.files import sha256_hex
from kfdeploy.kubernetes import helm_release
from kfdeploy.yamltext.emit import quote_scalar

STORED_MAX = 1024 * 1024
"""Bytes that a Secret's data may have (the API server's limit); Helm stores a release in one."""
STORED_GOOD = 900 * 1024
"""Bytes that a release may take and still grow at a site."""


@dataclass(frozen=True, slots=True)
class RenderedRelease:
    """One Helm release: final manifests of a component, or of a part of one.

    Attributes:
        crds: its CRDs, which are applied before its chart.
        objects: how many objects the manifests have.
        stored: bytes of Helm's record of it, estimated as Helm encodes it.
        needs: names of releases that come before it.
        wait: it is done only when its workloads are ready.
        trusts: ``KIND/NAME`` of webhook configurations that must have their CA before it.
    """

    name: str
    manifests: str
    crds: str
    objects: int
    crd_count: int
    stored: int
    needs: tuple[str, ...] = ()
    wait: bool = False
    component: str = ""
    trusts: tuple[str, ...] = ()


def release_digest(manifests: str, crds: str) -> str:
    """Return the digest of what a release installs: sha256 of its objects and CRDs, in hex."""
    return sha256_hex(f"{manifests}\0{crds}".encode())


def stored_size(manifests: str) -> int:
    """Return the size of Helm's record: JSON, gzip -9, base64 (helm v4 pkg/storage/driver/util.go).

    The manifests are in a subchart, whose files Helm does not store, so they count once.
    """
    record = json.dumps({"manifest": manifests}).encode()
    return len(base64.b64encode(gzip.compress(record, 9, mtime=0)))


def chart_version(upstream: str) -> str:
    """Return Kubeflow's version as the semantic version that Helm needs: 26.03 is 26.3.0."""
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?(?:-([0-9A-Za-z.-]+))?", upstream)
    if match is None:
        return "0.0.0"
    numbers = ".".join(str(int(part or 0)) for part in match.groups()[:3])
    return f"{numbers}-{match[4]}" if match[4] else numbers


def chart_files(release: RenderedRelease, version: str) -> dict[str, str]:
    """Return the files of a release's chart, path to text.

    Helm takes the manifests as they are (`.Files.Get`), so that upstream's own ``{{ }}`` survive.
    """
    folder = f"charts/{release.name}"
    inner = f"{folder}/charts/objects"
    head = f"apiVersion: v2\nversion: {chart_version(version)}\nappVersion: {json.dumps(version)}\n"
    return {
        f"{folder}/Chart.yaml": f"{head}name: {release.name}\nannotations:\n"
        f"  {helm_release.DIGEST}: {release_digest(release.manifests, release.crds)}\n",
        f"{inner}/Chart.yaml": f"{head}name: objects\n",
        f"{inner}/objects.yaml": release.manifests,
        f"{inner}/templates/objects.yaml": '{{ .Files.Get "objects.yaml" }}\n',
    }


def dump_helmfile(
    releases: Sequence[RenderedRelease], namespace: str, context: str | None, kube_version: str
) -> str:
    """Return the set's ``helmfile.yaml``, which needs nothing outside its folder."""
    lines = [
        "# Rendered by kfdeploy: final manifests; `helmfile apply` installs them.",
        "helmDefaults:",
        "  createNamespace: true",
        f"kubeVersion: {quote_scalar(kube_version)}",
    ]
    if context:
        lines.insert(2, f"  kubeContext: {quote_scalar(context)}")
    lines.append("releases:")
    for release in releases:
        lines += [
            f"- name: {release.name}",
            f"  namespace: {namespace}",
            f"  chart: ./charts/{release.name}",
            "  skipDeps: true",
            "  disableValidationOnInstall: true",
        ]
        if release.wait:
            lines.append("  wait: true")
        if release.needs:
            lines += ["  needs:", *(f"  - {namespace}/{name}" for name in release.needs)]
        if commands := list(_presync_commands(release)):
            lines.append("  hooks:")
        for words in commands:
            lines += [
                "  - events: [presync]",
                "    showlogs: true",
                "    command: kubectl",
                "    args:",
                *(f"    - {quote_scalar(word)}" for word in words),
                *([f"    - {quote_scalar(f'--context={context}')}"] if context else ()),
            ]
    text = "\n".join(lines) + "\n"
    if find_template_line(text):
        # Names with braces are refused when they are scanned; this is the second wall.
        raise UserError("the set's helmfile.yaml would hold a template, which Helmfile would run")
    return text


def find_template_line(helmfile: str) -> int:
    """Return the number of the first line of a set's ``helmfile.yaml`` with a template, else 0.

    Helmfile fills the words of hooks in a plain ``helmfile.yaml`` too, and can run programs there.
    """
    for number, line in enumerate(helmfile.splitlines(), 1):
        if "{{" in line:
            return number
    return 0


def _presync_commands(release: RenderedRelease) -> Iterator[tuple[str, ...]]:
    """Yield kubectl's arguments for what must be done before a release."""
    if release.crds:
        file = f"crds/{release.name}.yaml"
        yield ("apply", "--server-side", "--force-conflicts", "-f", file)
        # A kind is served a moment after its definition is there. At first the conditions are null,
        # which is an error for a kubectl that waits for one of them.
        for what in ("jsonpath={.status.conditions[0].type}", "condition=Established"):
            yield ("wait", f"--for={what}", "--timeout=60s", "-f", file)
    if release.trusts:
        ca = "--for=jsonpath={.webhooks[0].clientConfig.caBundle}"
        yield ("wait", ca, "--timeout=120s", *release.trusts)
