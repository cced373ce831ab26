"""The release set's files, held against the Helm that takes them."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from kfdeploy.kubernetes.objects import split_objects
from kfdeploy.releaseset import format
from kfdeploy.releaseset.format import RenderedRelease
from tests.conftest import need_programs

ODD = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: templates
  namespace: elsewhere
data:
  config: |
    image: "{{ .ProxyImage }}"
    {{- if .Values.x }}{{ fail "never" }}{{ end }}
  note: '{{ include "nothing" . }} {{/* kept */}} {{ "{{" }}'
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: none
mode: 0644
data: {yes: "on"}
"""


def release(name: str = "one", manifests: str = ODD, **more: Any) -> RenderedRelease:
    return RenderedRelease(name, manifests, "", 2, 0, 0, **more)


def written(folder: Path, made: RenderedRelease) -> Path:
    for name, text in format.chart_files(made, "26.03").items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "charts" / made.name


def helm(folder: Path, *arguments: str | Path) -> str:
    need_programs("helm")
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": str(folder / "none")}
    done = subprocess.run(
        ["helm", *arguments], env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_helm_gives_the_manifests_as_they_are(tmp_path: Path) -> None:
    chart = written(tmp_path, release())
    out = helm(tmp_path, "template", "one", chart, "--namespace", "records")
    assert [item.body for item in split_objects(out)] == [item.body for item in split_objects(ODD)]
    assert "mode: 0644" in out
    assert "records" not in out


def record(folder: Path, chart: Path) -> dict[str, Any]:
    """What Helm would store, without a cluster."""
    out = helm(folder, "install", "one", chart, "--dry-run=client", "--output", "json")
    found: dict[str, Any] = json.loads(out)
    return found


def test_helm_stores_the_manifests_once(tmp_path: Path) -> None:
    found = record(tmp_path, written(tmp_path, release()))
    assert json.dumps(found).count("ProxyImage") == 1
    assert "ProxyImage" in found["manifest"]


def big(seed: int, lines: int) -> str:
    source = random.Random(seed)
    words = ["".join(source.choices("abcdefghij", k=8)) for _ in range(400)]
    body = "".join(f"    {' '.join(source.choices(words, k=9))}\n" for _ in range(lines))
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: big\ndata:\n  x: |\n{body}"


@pytest.mark.parametrize("lines", [40, 4000])
def test_the_stored_size_is_what_helm_would_store(tmp_path: Path, lines: int) -> None:
    """Helm adds the chart's metadata and its own words, under 2 KB."""
    manifests = big(1, lines)
    found = record(tmp_path, written(tmp_path, release(manifests=manifests)))
    text = json.dumps(found, separators=(",", ":")).encode()
    stored = len(base64.b64encode(gzip.compress(text, 9)))
    said = format.stored_size(manifests)
    assert said <= stored <= said * 1.02 + 2048


def test_there_is_room_between_what_is_good_and_what_helm_takes() -> None:
    assert format.STORED_GOOD + 64 * 1024 < format.STORED_MAX


@pytest.mark.parametrize(
    ("upstream", "version"),
    [
        ("26.03", "26.3.0"),
        ("1.10.2", "1.10.2"),
        ("v1.10.2", "1.10.2"),
        ("v1.10.0-rc.1", "1.10.0-rc.1"),
        ("26.03.1", "26.3.1"),
        ("master", "0.0.0"),
        ("", "0.0.0"),
        ("release-1.9", "1.9.0"),
    ],
)
def test_a_charts_version_is_one_that_helm_takes(upstream: str, version: str) -> None:
    assert format.chart_version(upstream) == version


def test_releases_need_others_and_crds_go_first() -> None:
    releases = [
        RenderedRelease("a", "", "crd", 1, 1, 0, wait=True),
        RenderedRelease(
            "b", "", "", 1, 0, 0, needs=("a",), trusts=("validatingwebhookconfiguration/x",)
        ),
    ]
    text = format.dump_helmfile(releases, "records", "ctx", "1.34.0")
    data = YAML(typ="safe").load(text)
    first, second = data["releases"]
    assert (first["namespace"], second["needs"]) == ("records", ["records/a"])
    assert (first["wait"], "wait" in second) == (True, False)
    for hook in first["hooks"]:
        assert (hook["events"], hook["command"]) == (["presync"], "kubectl")
    assert [hook["args"] for hook in first["hooks"]] == [
        ["apply", "--server-side", "--force-conflicts", "-f", "crds/a.yaml", "--context=ctx"],
        *(
            ["wait", f"--for={what}", "--timeout=60s", "-f", "crds/a.yaml", "--context=ctx"]
            for what in ("jsonpath={.status.conditions[0].type}", "condition=Established")
        ),
    ]
    (hook,) = second["hooks"]
    assert hook["args"] == [
        *("wait", "--for=jsonpath={.webhooks[0].clientConfig.caBundle}", "--timeout=120s"),
        *("validatingwebhookconfiguration/x", "--context=ctx"),
    ]
    assert data["helmDefaults"]["kubeContext"] == "ctx"


def test_without_a_context_the_callers_is_used() -> None:
    text = format.dump_helmfile(
        [RenderedRelease("a", "", "crd", 1, 1, 0)], "records", None, "1.34.0"
    )
    assert "ontext" not in text
