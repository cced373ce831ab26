"""Kustomizations as values, and what their references point to."""

from __future__ import annotations

import pytest

from kfdeploy.redact import redact_url
from kfdeploy.upstream.component import component_names, local_header, locate_upstream_line
from kfdeploy.upstream.kustomization.parse import (
    InvalidKustomization,
    parse_kustomization,
    replace_references,
)
from kfdeploy.upstream.kustomization.plugins import parse_plugins
from kfdeploy.upstream.remote import (
    LocalPath,
    NotRemote,
    RemoteFile,
    RemoteRepo,
    classify_reference,
    parse_repo,
)

# The clone URL, the folder and the ref that kustomize 5.8 reads from each.
REPOSITORIES = [
    ("github.com/o/r", "https://github.com/o/r", "", ""),
    ("GitHub.com/o/r/d/e?ref=v1", "https://github.com/o/r", "d/e", "v1"),
    ("github.com:o/r/d", "https://github.com/o/r", "d", ""),
    ("http://github.com/o/r/d", "https://github.com/o/r", "d", ""),
    ("https://github.com/o/r/m/base/?ref=v3.7.3", "https://github.com/o/r", "m/base", "v3.7.3"),
    (
        "https://github.com/o/r//config/default?ref=v0",
        "https://github.com/o/r",
        "config/default",
        "v0",
    ),
    ("https://github.com/o/r.git/d", "https://github.com/o/r.git", "d", ""),
    ("https://h.example/o/r.git//d?version=main", "https://h.example/o/r.git", "d", "main"),
    ("https://h.example/g/sub/r.git", "https://h.example/g/sub/r.git", "", ""),
    ("https://h.example/a/b/c//d", "https://h.example/a/b/c", "d", ""),
    ("https://h.example/o/r?ref=a/b", "https://h.example/o/r", "", "a/b"),
    ("https://h.example/o/r?version=a&ref=b", "https://h.example/o/r", "", "b"),
    ("https://u@h.example/o/p/_git/r/d", "https://u@h.example/o/p/_git/r", "d", ""),
    ("git@github.com:o/r/d", "git@github.com:o/r", "d", ""),
    ("git@github.com/o/r", "git@github.com:o/r", "", ""),
    ("ssh://git@github.com/o/r//d?ref=v1", "git@github.com:o/r", "d", "v1"),
    ("ssh://git@ssh.github.com:443/o/r.git", "ssh://git@ssh.github.com:443/o/r.git", "", ""),
    ("git@h.example:g/s/r.git//d", "git@h.example:g/s/r.git", "d", ""),
    ("git@h.example:o/r/d", "git@h.example:o/r", "d", ""),
    ("ssh://h.example:7999/o/r/d", "ssh://h.example:7999/o/r", "d", ""),
    ("git::https://h.example/o/r", "https://h.example/o/r", "", ""),
    ("file:///a/b/r?ref=v1", "file:///a/b/r", "", "v1"),
    ("file:///a/b/r//d", "file:///a/b/r", "d", ""),
    ("file:///a/b/r.git/d", "file:///a/b/r.git", "d", ""),
]


@pytest.mark.parametrize(("text", "clone", "path", "ref"), REPOSITORIES)
def test_a_git_url_is_read_as_kustomize_reads_it(
    text: str, clone: str, path: str, ref: str
) -> None:
    repo = parse_repo(text)
    assert (repo.clone_url, repo.path, repo.ref) == (clone, path, ref)


@pytest.mark.parametrize(
    "text",
    [
        "/tmp",
        "../../tmp",
        "src/github.com/o/r/d",
        "word",
        "gh:o/r",
        "git::___",
        "ssh://h.example",
        "https://h.example?ref=v1",
        "https://github.com/one.yaml",
        "https://github.com/o/r.git//d/../../out",
        "github.com!o/r.git//d",
        "file:////a//b",
        "git@ssh://github.com/o/r.git//d",
        "h.example/o/r//d?ref=v1",
    ],
)
def test_what_kustomize_does_not_fetch_is_no_repository(text: str) -> None:
    with pytest.raises(NotRemote):
        parse_repo(text)


@pytest.mark.parametrize(
    ("query", "timeout", "submodules"),
    [
        ("", 27, True),
        ("timeout=61", 61, True),
        ("timeout=1m30s", 90, True),
        ("timeout=0", 27, True),
        ("timeout=-5s", 27, True),
        ("submodules=false", 27, False),
        ("submodules=0&timeout=5", 5, False),
        ("submodules=maybe", 27, True),
        ("submodules=false;timeout=5", 27, True),
    ],
)
def test_query_gives_timeout_and_submodules(query: str, timeout: float, submodules: bool) -> None:
    repo = parse_repo(f"https://github.com/o/r?{query}")
    assert (repo.timeout, repo.submodules) == (timeout, submodules)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("https://github.com/o/r/releases/download/v1/manifests.yaml", RemoteFile),
        ("https://raw.githubusercontent.com/o/r/v1/x.yaml?token=t", RemoteFile),
        ("https://h.example/x.yml", RemoteFile),
        ("https://github.com/o/r/d?ref=v1", RemoteRepo),
        ("https://github.com/o/r.git", RemoteRepo),
        ("https://github.com/o/r//d", RemoteRepo),
        ("o/r//d?ref=v1", RemoteRepo),
        ("github.com/o/r/d.yaml", RemoteRepo),
        ("../base", LocalPath),
        ("github.com-sa.yaml", LocalPath),
        ("./a?b", LocalPath),
    ],
)
def test_a_url_is_a_file_or_a_repository(text: str, kind: type) -> None:
    assert isinstance(classify_reference(text), kind)


def test_a_field_for_files_takes_a_repository_s_url_for_a_file() -> None:
    url = "https://github.com/o/r/d?ref=v1"
    assert classify_reference(url, "file") == RemoteFile(url)
    assert classify_reference("github.com/o/r", "file") == LocalPath("github.com/o/r")
    assert isinstance(classify_reference("https://github.com/o/r/d/x.yaml", "folder"), RemoteRepo)


@pytest.mark.parametrize(
    ("url", "mount"),
    [
        ("https://github.com/o/r.git//d?ref=v1", "github.com/o/r@v1"),
        ("git@github.com:o/r//d?ref=v1", "github.com/o/r@v1"),
        ("ssh://git@h.example:7999/o/r", "h.example:7999/o/r@HEAD"),
        ("file:///a/r.git?ref=v1", "file/a/r@v1"),
    ],
)
def test_one_repository_has_one_place_however_it_is_written(url: str, mount: str) -> None:
    assert parse_repo(url).mount == mount


def test_a_file_s_place_is_host_and_path() -> None:
    assert RemoteFile("https://u:p@h.example//a/../b.yaml").mount == "h.example/b.yaml"
    assert RemoteFile("https://h.example/b.yaml?x=1/2").mount == "h.example/b.yaml?x=1_2"


def test_secrets_in_urls_are_not_shown() -> None:
    assert redact_url("https://u:secret@h/o/r") == "https://h/o/r"
    assert redact_url("https://token@h/o/r") == "https://h/o/r"
    assert redact_url("ssh://git@h/o/r") == "ssh://git@h/o/r"
    assert redact_url("git@h:o/r") == "git@h:o/r"


EVERYTHING = """\
# a comment with an é
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namePrefix: kf-
resources:
- ../base  # the base
- 'quoted.yaml'
- https://github.com/o/r?ref=v1
bases: ["old"]
components:
- c
crds: [crd.yaml]
configurations:
- params.yaml
transformers:
- t.yaml
- |-
  kind: X
  path: inline
openapi: {path: schema.json}
patches:
- path: p.yaml
  target: {kind: Deployment, name: d}
- patch: |-
    - op: remove
      path: /x
patchesStrategicMerge:
- smp.yaml
- |-
  kind: Deployment
patchesJson6902:
- path: j.yaml
  target: {kind: Service, name: s}
replacements:
- path: r.yaml
configMapGenerator:
- name: cm
  files:
  - key=dir/f.txt
  - g.txt
  envs: [e.env]
  env: one.env
  literals:
  - A="x=y"
secretGenerator:
- name: s
  behavior: merge
  files: [k=secret.txt]
images:
- name: a/b
  newName: r.example/b
  newTag: "1.0"
helmGlobals: {chartHome: mycharts}
helmCharts:
- name: web
  valuesFile: v.yaml
  additionalValuesFiles: [w.yaml]
"""


def test_every_field_that_names_a_path_is_found() -> None:
    found = {(r.field, r.value) for r in parse_kustomization(EVERYTHING).references}
    assert found == {
        ("resources[0]", "../base"),
        ("resources[1]", "quoted.yaml"),
        ("resources[2]", "https://github.com/o/r?ref=v1"),
        ("bases[0]", "old"),
        ("components[0]", "c"),
        ("crds[0]", "crd.yaml"),
        ("configurations[0]", "params.yaml"),
        ("transformers[0]", "t.yaml"),
        ("openapi.path", "schema.json"),
        ("patches[0].path", "p.yaml"),
        ("patchesStrategicMerge[0]", "smp.yaml"),
        ("patchesJson6902[0].path", "j.yaml"),
        ("replacements[0].path", "r.yaml"),
        ("configMapGenerator[0].files[0]", "dir/f.txt"),
        ("configMapGenerator[0].files[1]", "g.txt"),
        ("configMapGenerator[0].envs[0]", "e.env"),
        ("configMapGenerator[0].env", "one.env"),
        ("secretGenerator[0].files[0]", "secret.txt"),
        ("helmCharts[0].valuesFile", "v.yaml"),
        ("helmCharts[0].additionalValuesFiles[0]", "w.yaml"),
        ("helmGlobals.chartHome", "mycharts"),
    }


def test_lines_are_the_text_s() -> None:
    read = parse_kustomization(EVERYTHING)
    lines = EVERYTHING.splitlines()
    for reference in read.references:
        assert reference.value in lines[reference.line - 1]
    image = read.images[0]
    assert image.new_tag is not None and image.new_name is not None
    assert lines[image.new_tag.line - 1].strip() == 'newTag: "1.0"'
    assert (image.name.value, image.new_tag.value) == ("a/b", "1.0")
    inline = next(p for p in read.patches if p.inline)
    assert inline.inline is not None
    assert lines[inline.inline.line - 1].strip() == "- op: remove"
    assert read.fields["namePrefix"] == 4


def test_generators_have_their_keys_and_literals() -> None:
    one, two = parse_kustomization(EVERYTHING).generators
    assert [(f.key, f.value) for f in one.files] == [("key", "dir/f.txt"), ("g.txt", "g.txt")]
    assert [(x.key, x.value) for x in one.literals] == [("A", "x=y")]
    assert [e.value for e in one.envs] == ["e.env", "one.env"]
    assert (one.kind, two.kind, two.behavior) == ("ConfigMap", "Secret", "merge")


def test_patches_are_paths_or_inline_with_their_target() -> None:
    patches = {p.field: p for p in parse_kustomization(EVERYTHING).patches}
    assert patches["patches[0]"].target == {"kind": "Deployment", "name": "d"}
    assert patches["patchesStrategicMerge[0]"].path is not None
    assert patches["patchesStrategicMerge[1]"].inline is not None


def test_rewriting_nothing_changes_nothing() -> None:
    read = parse_kustomization(EVERYTHING)
    assert replace_references(read.text, {r: r.value for r in read.references}) == EVERYTHING


@pytest.mark.parametrize(
    ("text", "new", "expected"),
    [
        ("resources:\n- ../a # why\n", "../../b", "resources:\n- ../../b # why\n"),
        ("resources:\n- 'a'\n", "b c", "resources:\n- 'b c'\n"),
        ('resources: ["a", ]\n', "b", 'resources: ["b", ]\n'),
        ("resources:\n- a\n", "it's: x #y", "resources:\n- 'it''s: x #y'\n"),
        ("resources:\n- a\n", "@v/x", "resources:\n- '@v/x'\n"),
        ("resources:\n- a\n", "h.example:7999/r@v1/x", "resources:\n- h.example:7999/r@v1/x\n"),
        ("resources:\n- >-\n  a\n- z\n", "b", "resources:\n- b\n- z\n"),
        ("resources:\r\n- a\r\n", "b", "resources:\r\n- b\r\n"),
        ("# é ü 漢\nresources:\n- a\n", "b", "# é ü 漢\nresources:\n- b\n"),
        ("\ufeffresources:\n- a\n", "b", "resources:\n- b\n"),
    ],
)
def test_rewriting_keeps_layout_and_comments(text: str, new: str, expected: str) -> None:
    read = parse_kustomization(text)
    assert replace_references(read.text, {read.references[0]: new}) == expected


def test_rewriting_keeps_a_generator_s_key() -> None:
    read = parse_kustomization("configMapGenerator:\n- files:\n  - key=a.txt\n")
    changed = replace_references(read.text, {read.references[0]: "../a.txt"})
    assert changed == "configMapGenerator:\n- files:\n  - key=../a.txt\n"


def test_an_alias_is_rewritten_where_its_anchor_is() -> None:
    read = parse_kustomization("x: &a p.yaml\npatches:\n- path: *a\n- path: *a\n")
    assert [r.value for r in read.references] == ["p.yaml", "p.yaml"]
    changed = replace_references(read.text, dict.fromkeys(read.references, "../p.yaml"))
    assert "../p.yaml" in changed and changed.count("p.yaml") == 1


def test_field_names_match_without_regard_to_case() -> None:
    assert [r.value for r in parse_kustomization("Resources:\n- a\n").references] == ["a"]


def test_only_the_first_document_counts() -> None:
    assert [
        r.value for r in parse_kustomization("resources: [a]\n---\nresources: [b]\n").references
    ] == ["a"]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("resources:\n- a\n b: [\n", 3, "broken YAML"),
        ("resources: {\n", 1, "broken YAML"),
        ("- a\n", 1, "not a mapping"),
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("a: b\nb: \x01\n", 2, "broken YAML"),
        ("resources: *x\n", 1, "broken YAML"),
    ],
)
def test_a_broken_kustomization_is_named_by_line(text: str, line: int, message: str) -> None:
    with pytest.raises(InvalidKustomization) as caught:
        parse_kustomization(text)
    assert caught.value.line == line
    assert message in caught.value.message


@pytest.mark.parametrize(
    "text", ["resources:\n", "resources: null\n", "patches: {}\n", "images: x"]
)
def test_fields_of_another_shape_hold_no_reference(text: str) -> None:
    assert parse_kustomization(text).references == ()


def test_plugins_name_their_paths() -> None:
    text = "kind: PatchTransformer\npath: p.yaml\n---\nkind: ConfigMapGenerator\nfiles: [k=f]\n"
    assert [(r.field, r.key, r.value) for r in parse_plugins(text)] == [
        ("[0].path", "", "p.yaml"),
        ("[1].files[0]", "k=", "f"),
    ]


def test_a_url_in_a_flow_mapping_is_read_as_go_reads_it() -> None:
    read = parse_kustomization(
        "# é\nresources: [https://github.com/o/r?ref=v1, b]\nimages: [{name: a:b}]\n"
    )
    assert [r.value for r in read.references] == ["https://github.com/o/r?ref=v1", "b"]
    assert "[x, y]" in replace_references(read.text, dict(zip(read.references, "xy", strict=True)))


def test_charts_are_looked_for_where_kustomize_does() -> None:
    read = parse_kustomization(
        "helmCharts:\n- {name: web, version: 1.2.3, repo: https://h.example}\n- name: db\n"
    )
    assert [c.resolve_folder("charts") for c in read.charts] == [
        "charts/web-1.2.3/web",
        "charts/db",
    ]


def test_component_names_skip_what_is_generic() -> None:
    paths = [
        "common/cert-manager/overlays/kubeflow",
        "common/cert-manager/kubeflow-issuer/base",
        "applications/jupyter/jupyter-web-app/upstream/overlays/istio",
        "applications/kserve/kserve",
        "applications/profiles/pss",
    ]
    assert component_names(paths) == (
        "cert-manager",
        "kubeflow-issuer",
        "jupyter-web-app",
        "kserve",
        "profiles",
    )


def test_a_component_name_that_is_taken_gets_its_parent_s() -> None:
    paths = [
        "common/a/web/base",
        "common/b/web/base",
        "common/b/web/overlays/x",
        "common/b/web/base",
    ]
    assert component_names(paths) == ("web", "b-web", "web-overlays-x", "web-base")


def test_component_names_fit_a_release() -> None:
    assert component_names(["apps/My_App.v2/base", "base", "x/" + "y" * 80]) == (
        "my-app-v2",
        "base",
        "y" * 53,
    )


def test_a_generated_line_leads_back_to_its_original() -> None:
    header = local_header("applications/x/kustomization.yml")
    place = "_local/applications/x/kustomization.yaml"
    assert locate_upstream_line(place, 6, header) == ("applications/x/kustomization.yml", 5)
    assert locate_upstream_line("applications/x/a.yaml", 6, header) == ("applications/x/a.yaml", 6)
