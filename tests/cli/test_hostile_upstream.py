"""An upstream that somebody prepared: nothing of it is run, and nothing is written elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kfdeploy.patchfile.quoting import escape_comment, quote_literal
from tests.conftest import Runner, need_programs, tree
from tests.support.workspaces import workspace

RUN = "{{ exec `sh` (list `-c` `id > PWNED`) }}"
NAMESPACE = 'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: "{}"\n'
NAMES = {
    "a template": f"x{RUN}",
    "a path": "x/../../../../ESCAPED",
    "the folder above": "..",
    "a line of its own": "x\\nkind: Secret",
    "a terminal's escape": "x\\e[2J",
    "text that runs backwards": "x\\u202Egnp",
    "a quote": "x'y",
    "too long": "x" * 254,
}
PLACE = r"error: (apps/one/objects\.yaml:[24]|component one): metadata\.name: "
"""The component alone where YAML spells the name otherwise than it is."""
COMMANDS = (("scan",), ("lock", "--offline"), ("patch",), ("render", "--unpinned"))


@pytest.fixture(autouse=True)
def _kustomize() -> None:
    need_programs("kustomize")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_no_object_can_have_is_refused_with_file_and_line(
    tmp_path: Path, kfdeploy: Runner, name: str
) -> None:
    site = workspace(tmp_path, kfdeploy, NAMESPACE.format(name))
    before = tree(tmp_path)
    for command in COMMANDS:
        done = kfdeploy(*command, cwd=site, check=1)
        assert re.search(PLACE, done.stderr)
        assert "\x1b[2J" not in done.stderr and "\u202e" not in done.stderr
    assert {path for path in tree(tmp_path) if "PWNED" in path or "ESCAPED" in path} == set()
    assert {path: data for path, data in tree(tmp_path).items() if path in before} == before


WEBHOOK = f"""\
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata:
  name: 'w{RUN}'
webhooks: []
"""


def test_a_webhook_whose_name_would_run_in_a_hook_of_the_set_is_refused(
    tmp_path: Path, kfdeploy: Runner
) -> None:
    site = workspace(tmp_path, kfdeploy, WEBHOOK)
    done = kfdeploy("patch", cwd=site, check=1)
    assert "apps/one/objects.yaml:4: metadata.name: 'w{{ exec" in done.stderr


CONTAINER = f"""\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: d, namespace: n}}
spec:
  selector: {{matchLabels: {{a: b}}}}
  template:
    metadata: {{labels: {{a: b}}}}
    spec:
      containers:
      - name: 'c{RUN}'
        image: quay.io/acme/tool:1
        env:
        - {{name: TOOL_IMAGE, value: 'quay.io/acme/tool:1 {RUN}'}}
"""


def test_values_with_templates_in_them_stay_text_in_patches_and_set(
    tmp_path: Path, kfdeploy: Runner
) -> None:
    site = workspace(tmp_path, kfdeploy, CONTAINER)
    kfdeploy("lock", "--offline", cwd=site, check=None)
    kfdeploy("patch", cwd=site)
    done = kfdeploy("render", "--unpinned", cwd=site, check=None)
    assert done.code == 0, done.stderr
    assert not [path for path in tree(tmp_path) if "PWNED" in path]
    rendered = list(site.glob("releases/*/charts/*/charts/objects/objects.yaml"))
    assert rendered
    assert any(RUN in path.read_text() for path in rendered)


def test_a_generated_patch_never_asks_helmfile(tmp_path: Path, kfdeploy: Runner) -> None:
    """What an upstream got into a generated file, by whatever way, is not run."""
    from kfdeploy.patchfile.patch_file import mark_generated

    site = workspace(tmp_path, kfdeploy, CONTAINER.replace(RUN, ""))
    kfdeploy("lock", "--offline", cwd=site, check=None)
    kfdeploy("patch", cwd=site)
    body = f"target: {{kind: Deployment}}\npatch:\n- op: add\n  path: /x\n  value: '{RUN}'\n"
    (site / "patches/one/x.images.yaml.gotmpl").write_text(mark_generated(body))
    done = kfdeploy("render", "--unpinned", cwd=site, check=1)
    assert "patches/one/x.images.yaml.gotmpl: a generated file has a template" in done.stderr
    assert not [path for path in tree(tmp_path) if "PWNED" in path]


@pytest.mark.parametrize("folder", ["app\n\nhelm:\n  namespace: injected", "a{{b", 'a"b', "a#b"])
def test_a_folder_name_of_upstream_is_no_yaml_of_ours(
    tmp_path: Path, kfdeploy: Runner, folder: str
) -> None:
    up = tmp_path / "up"
    (up / folder).mkdir(parents=True)
    (up / "example").mkdir()
    (up / folder / "kustomization.yaml").write_text("resources: []\n")
    (up / "example/kustomization.yaml").write_text(
        f"resources:\n- {quote_literal(f'../{folder}')}\n"
        if "{{" not in folder
        else f"resources:\n- '../{folder}'\n"
    )
    site = tmp_path / "ws"
    kfdeploy("init", site, "--upstream", up, "--ref", "1", "--registry", "r.test", check=None)
    done = kfdeploy("vendor", cwd=site, check=None)
    assert done.code != 0
    settings = site / "kfdeploy.yaml"
    if settings.exists():
        assert (
            not settings.read_text().startswith("helm:") and "\nhelm:" not in settings.read_text()
        )


@pytest.mark.parametrize("text", ["x{{ y }}", "{{", "a\nb", "\x1b[1m", "{{{{"])
def test_a_comment_of_a_template_has_no_action_and_no_second_line(text: str) -> None:
    shown = escape_comment(text)
    assert "{{" not in shown and shown.isprintable() and shown.isascii()
