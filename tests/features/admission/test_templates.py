"""The admission policies' templates, without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from kfdeploy import go_template
from kfdeploy.programs import helmfile
from tests.conftest import need_programs
from tests.support.admission import MANY, TEMPLATES, filled, images, values


def test_no_expression_of_six_hundred_images_is_too_long() -> None:
    policy = filled(values(images=images(MANY)))["MutatingAdmissionPolicy"]
    longest = max(len(each["expression"]) for each in policy["spec"]["variables"])
    assert longest < 60_000  # CEL takes 100,000


def test_two_tags_of_one_digest_give_one_key() -> None:
    known = images(["mysql:8.4", "mysql:8"])
    known["mysql:8"]["keys"][1] = known["mysql:8.4"]["keys"][1]
    policy = filled(values(images=known))["MutatingAdmissionPolicy"]
    maps = [each for each in policy["spec"]["variables"] if each["name"].startswith("mirror")]
    keys = [line.split('": "')[0] for each in maps for line in each["expression"].split("\n")[1:-1]]
    assert len(keys) == len(set(keys)) == 3


def test_both_policies_read_references_alike() -> None:
    objects = filled(values())
    policies = [objects[f"{kind}AdmissionPolicy"] for kind in ("Mutating", "Validating")]
    for name in ("places", "references"):
        first, second = (
            [each for each in policy["spec"]["variables"] if each["name"] == name]
            for policy in policies
        )
        assert first == second
    constraints = [policy["spec"]["matchConstraints"] for policy in policies]
    assert constraints[0] == constraints[1]


def test_kyverno_gets_the_same_expressions() -> None:
    native, kyverno = filled(values()), filled(values(api="kyverno"))
    assert list(kyverno) == ["MutatingPolicy", "ValidatingPolicy"]
    for kind in ("Mutating", "Validating"):
        ours, theirs = native[f"{kind}AdmissionPolicy"], kyverno[f"{kind}Policy"]
        assert theirs["apiVersion"] == "policies.kyverno.io/v1"
        assert theirs["spec"] | ours["spec"] == theirs["spec"]
        assert theirs["spec"]["autogen"] == {"podControllers": {"controllers": []}}


def test_pull_secrets_have_a_policy_of_their_own_where_there_are_any() -> None:
    assert filled(values(), "pull-secrets") == {}
    native = filled(values(imagePullSecrets=["a"]), "pull-secrets")
    assert list(native) == ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"]
    (theirs,) = filled(values(api="kyverno", imagePullSecrets=["a"]), "pull-secrets").values()
    assert theirs["apiVersion"] == "policies.kyverno.io/v1"
    assert theirs["spec"] | native["MutatingAdmissionPolicy"]["spec"] == theirs["spec"]


@pytest.mark.parametrize("api", ["v1", "v1beta1", "kyverno"])
def test_helmfile_fills_them_alike(api: str, tmp_path: Path) -> None:
    need_programs("helmfile", "helm")
    settings = values(api=api, imagePullSecrets=["mirror"], allowed=["quay.io"])
    for path in sorted(TEMPLATES.iterdir()):
        copy = tmp_path / path.name
        copy.write_text(path.read_text())
        ours = go_template.render(path.read_text(), {"Values": settings})
        theirs = helmfile.fill_template(copy, settings, "default")
        yaml = YAML(typ="safe")
        assert (yaml.load(theirs) or None) == yaml.load(ours)
