"""The catalogue's format: what it refuses, and what its records mean for a set of objects."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from kfdeploy.catalogue import hidden_images
from kfdeploy.catalogue import load as catalogue_file
from kfdeploy.catalogue.facts import Catalogue
from kfdeploy.catalogue.records import UnavailableImage, dump_schema
from kfdeploy.errors import UserError
from kfdeploy.images.inventory import ImageUse, SourceLocation
from kfdeploy.kubernetes.objects import Object, ObjectKey, split_objects
from kfdeploy.oci.reference import ImageRef
from kfdeploy.yamltext import nodes
from tests.support.refs import written

GOOD = """\
component: one
programs: ["*/org/operator"]
aliases: {v1-abc: 1.9.2}
read:
- {versions: 1.9.0 - 1.9.2, source: "a/b@v1.9.2"}
- {versions: 1.7.0, source: "a/b@v1.7.0"}
images:
- ref: alpine:3.10
  versions: 1.9.0 - 1.9.2
  need: required
  when: always
  source: "a/b@v1:c.go:1"
  redirect: {kind: Deployment, name: operator, container: main, flag: --init-image}
- refs: ["a/x:1", "a/y:1"]
  need: user-choice
  when: a page offers them
  source: "a/b@v1:c.ts:1; a/b#12"
- ref: a/agent:latest
  need: optional
  when: the agent is on
  source: "a/b@v1:c.go:2"
  outside: jobs
  objects: [{kind: DaemonSet, name: agent}]
- of: {kind: Runtime, name: big, field: "spec.image"}
  suffix: -gpu
  need: optional
  when: a GPU is asked for
  source: "a/b@v1:c.go:3"
sites:
- {kind: ConfigMap, name: settings, field: "data*", line: "^ *value:", need: optional, source: "a/b@v1:c.go:1"}
- {kind: ConfigMap, name: settings, need: user-choice, source: "a/b@v1:c.go:1"}
- {kind: "*", name: "*", ref: "*/solver*", need: required, source: "a/b@v1:c.go:1"}
- {kind: Runtime, name: "*", need: optional, pin: tag, why: w, versions: 1.9.2, source: "a/b@v1:c.go:1"}
lost:
- {ref: "gcr.io/gone/*", why: shut down, substitute: "docker.io/x/y:1", source: "a/b#1"}
"""  # noqa: E501
OPERATOR = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: operator, namespace: n, labels: {app.kubernetes.io/version: 1.7.0}}
spec:
  template:
    spec:
      containers:
      - {name: main, image: "IMAGE", args: ARGS, env: ENV}
"""
SCHEMA = jsonschema.Draft202012Validator(json.loads(dump_schema()))
CONFIG = ObjectKey("v1", "ConfigMap", "n", "settings")


def load(folder: Path, text: str = GOOD) -> Catalogue:
    (folder / "one.yaml").write_text(text)
    return catalogue_file.load_catalogue(folder)


def operator(
    image: str = "ghcr.io/org/operator:v1.9.1", args: str = "[]", env: str = "[]", more: str = ""
) -> list[Object]:
    text = OPERATOR.replace("IMAGE", image).replace("ARGS", args).replace("ENV", env)
    return list(split_objects(text + more))


def refs(facts: Catalogue, objects: list[Object]) -> dict[str, str]:
    """Hidden references and what redirects each."""
    programs = facts.find_programs(objects)
    return {
        found.ref.text: found.redirect
        for found in hidden_images.find_hidden_images("c", objects, programs, [])
    }


@pytest.mark.parametrize(
    ("key", "field", "line", "ref", "need"),
    [
        (CONFIG, "data.x", "  value: a/b", "a/b", "optional"),
        (CONFIG, "data.x", "  - a/b", "a/b", "user-choice"),
        (CONFIG, "other", "  value: a/b", "a/b", "user-choice"),
        (ObjectKey("v1", "ConfigMap", "n", "settings-42h88m2mfk"), "x", "", "a/b", "user-choice"),
        (ObjectKey("v1", "ConfigMap", "n", "settings-more"), "x", "", "a/b", None),
        (ObjectKey("v1", "Pod", "n", "x"), "x", "", "a.io/solver:1", "required"),
        (ObjectKey("v1", "Pod", "n", "x"), "x", "", "a.io/other:1", None),
    ],
)
def test_the_first_rule_that_fits_decides(
    tmp_path: Path, key: ObjectKey, field: str, line: str, ref: str, need: str | None
) -> None:
    rule = load(tmp_path).find_site_rule(key, field, line, ref)
    assert (rule.need if rule else None) == need


def test_a_rule_for_a_version_needs_the_program_at_it(tmp_path: Path) -> None:
    facts = load(tmp_path)
    runtime = ObjectKey("x/v1", "Runtime", "", "big")
    for tag, pinned in (("v1.9.2", True), ("v1.9.1", False)):
        programs = facts.find_programs(operator(f"ghcr.io/org/operator:{tag}"))
        assert (
            facts.find_site_rule(runtime, "spec.image", "", "a/b:1", programs) is not None
        ) == pinned
    assert facts.find_site_rule(runtime, "spec.image", "", "a/b:1") is None


@pytest.mark.parametrize(
    ("image", "version", "known"),
    [
        ("ghcr.io/org/operator:v1.9.2", "1.9.2", True),
        ("ghcr.io/org/operator:v1-abc", "1.9.2", True),
        ("ghcr.io/org/operator:v1.9.2-distroless", "1.9.2", True),
        ("ghcr.io/org/operator@sha256:" + "0" * 64, "1.7.0", True),
        ("ghcr.io/org/operator:v1.10.0", "1.10.0", False),
        ("ghcr.io/org/operator:main", "1.7.0", True),
        ("ghcr.io/org/other:v1.9.2", "1.9.2", False),
    ],
)
def test_a_programs_version_is_its_alias_its_tag_or_a_label(
    tmp_path: Path, image: str, version: str, known: bool
) -> None:
    (program,) = load(tmp_path).find_programs(operator(image))
    assert (str(program.version), program.is_known) == (version, known)


def test_hidden_images_belong_to_an_operator_at_a_version(tmp_path: Path) -> None:
    facts = load(tmp_path)
    always = {"a/x:1": "none", "a/y:1": "none"}
    assert refs(facts, operator()) == {"alpine:3.10": "flag --init-image", **always}
    assert refs(facts, operator("ghcr.io/org/operator:v1.7.0")) == always
    assert refs(facts, operator("ghcr.io/org/operator:v2.0.0")) == {}
    assert refs(facts, operator("ghcr.io/org/other:v1.9.2")) == {}


@pytest.mark.parametrize(
    "args", ['["--init-image=b:1"]', '["-init-image", "b:1"]', '["--x", "--init-image", "b:1"]']
)
def test_a_default_that_the_manifest_overrides_is_not_pulled(tmp_path: Path, args: str) -> None:
    assert "alpine:3.10" not in refs(load(tmp_path), operator(args=args))


def test_another_flag_that_begins_alike_overrides_nothing(tmp_path: Path) -> None:
    assert "alpine:3.10" in refs(load(tmp_path), operator(args='["--init-image-policy=Always"]'))


ENV = GOOD.replace("flag: --init-image", "env: INIT_IMAGE")


def test_a_variable_is_set_by_value_or_by_a_config_map(tmp_path: Path) -> None:
    facts = load(tmp_path, ENV)
    assert refs(facts, operator())["alpine:3.10"] == "env INIT_IMAGE"
    assert "alpine:3.10" not in refs(facts, operator(env="[{name: INIT_IMAGE, value: b}]"))
    config = (
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: e, namespace: n}\n"
        "data: {INIT_IMAGE: b}\n"
    )
    objects = operator(env="[], envFrom: [{configMapRef: {name: e}}]", more=config)
    assert "alpine:3.10" not in refs(facts, objects)


def test_an_image_may_need_another_object(tmp_path: Path) -> None:
    agent = "---\napiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: agent, namespace: n}\n"
    assert "a/agent:latest" not in refs(load(tmp_path), operator())
    assert "a/agent:latest" in refs(load(tmp_path), operator(more=agent))


def test_the_object_that_an_image_needs_is_the_one_that_pulls_it(tmp_path: Path) -> None:
    objects = operator(
        more="---\napiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: agent, namespace: n}\n"
    )
    programs = load(tmp_path).find_programs(objects)
    found = {
        use.ref.text: use for use in hidden_images.find_hidden_images("c", objects, programs, [])
    }
    assert found["a/agent:latest"].object.name == "agent"
    assert found["a/x:1"].object.name == programs[0].object.name != "agent"
    assert (found["a/agent:latest"].outside, found["a/x:1"].outside) == ("jobs", "")


@pytest.mark.parametrize(
    ("ref", "pin", "derived"),
    [
        ("a/big:1", "tag", ["a/big:1-gpu"]),
        ("a/big:1@sha256:" + "0" * 64, "tag", ["a/big:1-gpu"]),
        ("a/big:1", "", []),
        ("a/big", "tag", []),
    ],
)
def test_what_is_derived_from_a_site_goes_where_its_tag_goes(
    tmp_path: Path, ref: str, pin: str, derived: list[str]
) -> None:
    objects = operator()
    programs = load(tmp_path).find_programs(objects)
    site = ImageUse(
        ref=written(ref),
        component="c",
        object=ObjectKey("x/v1", "Runtime", "", "big"),
        field="spec.image",
        path=("spec", "image"),
        how="custom-resource",
        redirect="patch",
        place=SourceLocation("a.yaml", 3),
        pin=pin,
    )
    made = {
        use.ref.text: use
        for use in hidden_images.find_hidden_images("c", objects, programs, [site])
    }
    found = [name for name in made if name.startswith("a/big")]
    assert found == derived
    assert all(made[name].redirect == "patch" and not made[name].path for name in found)


def test_a_version_nobody_has_read_is_named_with_the_nearest_that_somebody_has(
    tmp_path: Path,
) -> None:
    facts = load(tmp_path)
    for tag, nearest in (("v1.10.0", "1.9.2"), ("v1.6.0", "1.7.0"), ("v1.8.0", "1.7.0")):
        (unknown,) = hidden_images.find_unknown_programs(
            "c", facts.find_programs(operator(f"ghcr.io/org/operator:{tag}"))
        )
        assert (unknown.entry, unknown.version, unknown.nearest) == ("one", tag[1:], nearest)
        assert ("alpine:3.10" in unknown.images) == (nearest != "1.7.0")
        assert unknown.scan_command.endswith(f"--image ghcr.io/org/operator:{tag}")
    (other,) = hidden_images.find_unknown_programs(
        "c", facts.find_programs(operator("ghcr.io/org/other:v1.9.2"))
    )
    assert (other.entry, other.nearest, other.images) == ("", "", ())
    assert list(hidden_images.find_unknown_programs("c", facts.find_programs(operator()))) == []


def test_a_fact_is_shown_where_it_was_read_at_the_version_that_runs(tmp_path: Path) -> None:
    read = "a/b@v1.9.0:c.go:1; a/b@1.9.1:c.go:2; a/b@v1.9.2:d.go:3"
    read += "; a/b@sdk-7:e.py:4; a/sdk@v7:e.py:4"
    facts = load(tmp_path, GOOD.replace('"a/b@v1:c.go:1"', f'"{read}"', 1))

    def shown(tag: str) -> str:
        objects = operator(f"ghcr.io/org/operator:{tag}")
        programs = facts.find_programs(objects)
        found = {
            use.ref.text: use
            for use in hidden_images.find_hidden_images("c", objects, programs, [])
        }
        return found["alpine:3.10"].source

    assert shown("v1.9.1") == "a/b@1.9.1:c.go:2; a/b@sdk-7:e.py:4; a/sdk@v7:e.py:4"
    assert shown("v1.9.2") == "a/b@v1.9.2:d.go:3; a/b@sdk-7:e.py:4; a/sdk@v7:e.py:4"
    assert shown("v1-abc") == shown("v1.9.2")  # its alias
    # Between two ends that were read: nothing is more its own than the other.
    ends = "a/b@v1.9.0:c.go:1; a/b@v1.9.2:d.go:3"
    (tmp_path / "other").mkdir()
    between = load(tmp_path / "other", GOOD.replace('"a/b@v1:c.go:1"', f'"{ends}"', 1))
    objects = operator("ghcr.io/org/operator:v1.9.1")
    programs = between.find_programs(objects)
    found = {
        use.ref.text: use for use in hidden_images.find_hidden_images("c", objects, programs, [])
    }
    assert found["alpine:3.10"].source == ends


def test_a_lost_image_is_known_by_its_reference_or_its_repository(tmp_path: Path) -> None:
    facts = load(tmp_path)
    lost = facts.find_unavailable(written("gcr.io/gone/minio:1"))
    assert lost is not None
    assert lost.substitute == "docker.io/x/y:1"
    assert facts.find_unavailable(written("gcr.io/other/minio:1")) is None


def test_the_tag_of_a_lost_image_may_be_its_substitutes_too() -> None:
    lost = UnavailableImage(
        ref="gcr.io/a/b:*", why="gone", source="a/b#1", substitute="docker.io/a/b:{tag}"
    )
    assert lost.substitute_for(ImageRef.parse("gcr.io/a/b:1.2")) == "docker.io/a/b:1.2"
    assert lost.substitute_for(ImageRef.parse("gcr.io/a/b")) == "docker.io/a/b:latest"
    assert lost.substitute_for(ImageRef.parse("gcr.io/a/b@sha256:" + "0" * 64)) == ""


@pytest.mark.parametrize(
    ("ref", "substitute"),
    [
        ("gcr.io/istio-release/pilot:1.24.3", "docker.io/istio/pilot:1.24.3"),
        (
            "gcr.io/kubebuilder/kube-rbac-proxy:v0.8.0",
            "registry.k8s.io/kubebuilder/kube-rbac-proxy:v0.8.0",
        ),
        (
            "gcr.io/ml-pipeline/argoexec:v3.4.17-license-compliance",
            "quay.io/argoproj/argoexec:v3.4.17",
        ),
        ("gcr.io/ml-pipeline/api-server:2.3.0", ""),
        ("gcr.io/arrikto/istio/pilot:1.14.1-1-g19df463bb", ""),
        ("gcr.io/google-containers/busybox", "ghcr.io/containerd/busybox"),
    ],
)
def test_images_of_other_releases_that_are_lost_are_known(ref: str, substitute: str) -> None:
    lost = catalogue_file.load_catalogue().find_unavailable(written(ref))
    assert lost is not None
    assert lost.substitute_for(ImageRef.parse(ref)) == substitute


def test_a_sites_own_entries_come_first(tmp_path: Path) -> None:
    load(tmp_path)
    own = tmp_path / "own"
    own.mkdir()
    mine = GOOD.replace("component: one", "component: mine").replace("alpine:3.10", "alpine:4")
    (own / "mine.yaml").write_text(mine)
    facts = catalogue_file.CatalogueLoader(own, tmp_path)
    assert "alpine:4" in refs(facts.load(), operator())
    assert "alpine:3.10" not in refs(facts.load(), operator())
    other = catalogue_file.CatalogueLoader(tmp_path / "none", tmp_path)
    assert facts.own_digest != other.own_digest == ""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("component: one\n", "", "1: component: is missing"),
        ("component: one\n", "component: one\nmore: 1\n", "2: more: unknown key"),
        ("component: one\n", "component: [\n", "3: broken YAML"),
        ("need: user-choice, ", "", "31: sites[1].need: is missing"),
        (
            "need: user-choice, source",
            "need: maybe, source",
            "31: sites[1].need: must be 'required', 'optional' or 'user-choice'",
        ),
        ("ref: alpine:3.10", "ref: Alpine", "8: images[0].ref: 'Alpine' is not an image"),
        ("  when: always\n", "", "8: images[0].when: is missing"),
        ("container: main, ", "", "13: images[0].redirect: flag needs container"),
        ("flag: --init", "word: --init", "13: images[0].redirect.word: unknown key"),
        (
            ", flag: --init-image",
            "",
            "13: images[0].redirect: needs exactly one of flag, env, key, field, file; has none",
        ),
        (
            "flag: --init",
            "env: A, flag: --init",
            "13: images[0].redirect: needs exactly one of flag, env, key, field, file; has flag",
        ),
        (
            "flag: --init",
            "key: a",
            "13: images[0].redirect: container needs one of flag, env",
        ),
        (
            "versions: 1.7.0",
            "versions: old",
            "6: read[1].versions: 'old' is not a version, a range",
        ),
        ("versions: 1.7.0", "versions: 1.1", "6: read[1].versions: must be a string, not 1.1; put"),
        ("versions: 1.9.2, so", "versions: x, so", "33: sites[3].versions: 'x' is not a version"),
        ("versions: 1.9.2, so", "versions: [any, x], so", "33: sites[3].versions[1]: 'x' is"),
        ("v1-abc: 1.9.2", "v1-abc: new", "3: aliases.v1-abc: 'new' is not a version"),
        ('"a/b@v1:c.go:2"', "memory", "21: images[2].source: 'memory' is not OWNER/REPO@TAG"),
        ("  suffix: -gpu\n", "", "24: images[3]: of needs suffix"),
        (
            'of: {kind: Runtime, name: big, field: "spec.image"}',
            "ref: a",
            "24: images[3]: suffix needs of",
        ),
        ("- ref: a/agent:latest\n", "- refs: [a]\n  ref: b\n", "18: images[2]: needs exactly one"),
        ("pin: tag, why: w,", "pin: tag,", "33: sites[3]: pin needs why"),
        ("pin: tag", "pin: digest", "33: sites[3].pin: must be 'tag'"),
        ('"docker.io/x/y:1"', "X", "35: lost[0].substitute: 'X' is not an image reference"),
        ('["a/x:1", "a/y:1"]', "a/x:1", "14: images[1].refs: must be a list"),
        ('["a/x:1", "a/y:1"]', "[]", "14: images[1].refs: must not be empty"),
        ("when: always", "when: x\n  pulled_by: me", "12: images[0].pulled_by: must be 'program'"),
        ("component: one\n", "component: [one]\n", "1: component: must be a string, not ['one']"),
        ("  when: always\n", "  when: 1\n", "11: images[0].when: must be a string, not 1"),
        ("  when: always\n", "  when: ''\n", "11: images[0].when: must not be empty"),
        ("suffix: -gpu\n", "suffix: -1\n", "25: images[3].suffix: must be a string, not -1"),
        ("ref: alpine:3.10", "ref: 3.10", "8: images[0].ref: must be a string, not 3.1; put a num"),
        ("{v1-abc: 1.9.2}", "[a]", "3: aliases: must be a mapping"),
        (
            "  when: always\n",
            "  when: always\n  digest: 'no'\n",
            "12: images[0].digest: must be true or false",
        ),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert str(caught.value).startswith(f"one.yaml:{message}")
    if "broken YAML" not in message:
        assert list(SCHEMA.iter_errors(nodes.load_document(GOOD.replace(old, new, 1)))), (
            "the JSON Schema"
        )


def test_all_mistakes_of_all_files_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("")
    with pytest.raises(UserError) as caught:
        load(tmp_path, "component: 1\nmore: 2\n")
    assert str(caught.value).splitlines() == [
        "one.yaml:1: component: must be a string, not 1; put a number in quotes",
        "one.yaml:2: more: unknown key",
        "other.yaml:1: the file: must be a mapping",
    ]


def test_a_tag_that_yaml_reads_as_a_number_may_be_an_alias(tmp_path: Path) -> None:
    (entry,) = load(tmp_path, GOOD.replace("v1-abc: 1.9.2", "20230801: 1.9.2")).entries
    assert list(entry.aliases) == ["20230801"]


def test_the_schema_for_editors_takes_what_is_taken() -> None:
    files = sorted(catalogue_file.FOLDER.glob("*.yaml"))
    assert len(files) > 30
    for text in (GOOD, *(path.read_text("utf-8") for path in files)):
        assert [error.message for error in SCHEMA.iter_errors(nodes.load_document(text))] == []
