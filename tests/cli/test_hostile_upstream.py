"""An upstream that somebody prepared: nothing of it is run, and nothing is written elsewhere."""

from __future__ import annotations

import hashlib
import re
import subprocess
import zlib
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


# -- paths -----------------------------------------------------------------------------------------


def _write_commit(repository: Path, tree_of: dict[str, object]) -> None:
    """Write a repository whose one commit has any names in its trees, as git itself would not."""

    def write(kind: str, body: bytes) -> str:
        data = b"%s %d\0" % (kind.encode(), len(body)) + body
        oid = hashlib.sha1(data).hexdigest()
        path = repository / "objects" / oid[:2] / oid[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zlib.compress(data))
        return oid

    def write_tree(entries: dict[str, object]) -> str:
        body = b""
        for name in sorted(entries, key=lambda n: n + "/" * isinstance(entries[n], dict)):
            entry = entries[name]
            if isinstance(entry, dict):
                mode, oid = b"40000", write_tree(entry)
            else:
                mode, oid = b"100644", write("blob", str(entry).encode())
            body += mode + b" " + name.encode() + b"\0" + bytes.fromhex(oid)
        return write("tree", body)

    subprocess.run(["git", "init", "-q", "--bare", str(repository)], check=True)
    who = "a <a@b> 0 +0000"
    commit = write(
        "commit",
        f"tree {write_tree(tree_of)}\nauthor {who}\ncommitter {who}\n\nx\n".encode(),
    )
    (repository / "refs/heads/main").write_text(f"{commit}\n")
    (repository / "HEAD").write_text("ref: refs/heads/main\n")


PLAIN: dict[str, object] = {
    "example": {"kustomization.yaml": "resources:\n- ../app\n"},
    "app": {"kustomization.yaml": "resources: []\n"},
}


@pytest.mark.parametrize(
    "entries",
    [
        {"..": {"..": {"OUTSIDE": "x"}}},
        {".git": {"config": "[core]\n\tfsmonitor = touch PWNED\n"}},
        {"app": {".GIT": {"config": "x"}}},
        {"app": {"..": {"x": "x"}}},
        {"a\nb": "x"},
    ],
    ids=["above", "git's own", "git's own in capitals", "above, further down", "a line break"],
)
def test_a_git_tree_that_would_write_elsewhere_is_refused(
    tmp_path: Path, kfdeploy: Runner, entries: dict[str, object]
) -> None:
    repository = tmp_path / "deep" / "up.git"
    _write_commit(repository, {**PLAIN, **entries})
    before = {path for path in tree(tmp_path) if "up.git" not in path}
    url = f"file://{repository}"
    done = kfdeploy("init", tmp_path / "deep/ws", "--upstream", url, "--ref", "main", check=None)
    done = kfdeploy("vendor", cwd=tmp_path / "deep/ws", check=None) if done.code == 0 else done
    assert done.code == 1 and "is no path that a repository may have" in done.stderr
    new = {path for path in tree(tmp_path) if "up.git" not in path} - before
    assert {path for path in new if not path.startswith("deep/ws/")} == set()
    assert not (tmp_path / "deep/ws/upstream").exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../etc/passwd", "p=/etc/passwd"])
@pytest.mark.parametrize("field", ["generators", "transformers"])
def test_an_inline_generator_names_no_file_outside(
    tmp_path: Path, kfdeploy: Runner, path: str, field: str
) -> None:
    site = workspace(tmp_path, kfdeploy, NAMESPACE.format("x"))
    plugin = (
        f"{field}:\n- |-\n  apiVersion: builtin\n  kind: ConfigMapGenerator\n"
        f"  metadata: {{name: s}}\n  name: s\n  files:\n  - {path}\n"
    )
    kustomization = tmp_path / "up/apps/one/kustomization.yaml"
    kustomization.write_text(kustomization.read_text() + plugin)
    done = kfdeploy("vendor", cwd=site, check=1)
    assert re.search(
        r"error: apps/one/kustomization\.yaml:\d+: .*(absolute|leads out)", done.stderr
    )


LINKS = {
    "through another": {"d/d/top": "../..", "esc": "d/d/top/../../.."},
    "straight": {"esc": "../.."},
    "absolute": {"esc": "/etc"},
    "two times": {"a/up": "..", "esc": "a/up/a/up/../x"},
    "in a circle": {"esc": "other", "other": "esc"},
}


@pytest.mark.parametrize("links", LINKS.values(), ids=LINKS)
def test_links_that_lead_out_together_are_refused(
    tmp_path: Path, kfdeploy: Runner, links: dict[str, str]
) -> None:
    site = workspace(tmp_path, kfdeploy, NAMESPACE.format("x"))
    for name, target in links.items():
        link = tmp_path / "up" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    done = kfdeploy("vendor", cwd=site, check=1)
    assert "esc is a link that leads out of it, or in a circle: " in done.stderr
