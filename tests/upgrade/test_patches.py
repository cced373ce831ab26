"""People's patches tried on another release."""

from __future__ import annotations

import pytest

from kfdeploy.kubernetes.objects import Object, split_objects
from kfdeploy.patchfile.patch_file import parse_patch
from kfdeploy.upgrade.patches import PatchCheck, PatchContext, check_patches

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: n}
spec:
  replicas: 1
  template:
    spec:
      containers:
      - name: main
        image: i:1
        resources: {limits: {memory: 1Gi}}
      - name: proxy
        image: p:1
"""
CONFIG = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: web-config-7g2b4d5fk9, namespace: n}
data: {size: "1"}
"""
JSON = """\
target: {group: apps, version: v1, kind: Deployment, namespace: n, name: web}
patch:
- {op: replace, path: PATH, value: 2}
"""
MERGE = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: n}
spec:
  template:
    spec:
      containers:
      - name: main
        image: mine:1
        resources: {limits: {memory: 2Gi}}
"""


def objects(*texts: str) -> tuple[Object, ...]:
    return tuple(split_objects("---\n".join(texts)))


def trial(patch: str, before: str, now: str, **elsewhere: str) -> PatchCheck:
    context = PatchContext(
        "one",
        objects(before, CONFIG),
        objects(now, CONFIG),
        {"one": objects(now, CONFIG), **{name: objects(t) for name, t in elsewhere.items()}},
    )
    return check_patches([parse_patch("p.yaml", patch)], ["p.yaml"], context)["p.yaml"]


def notes(found: PatchCheck) -> list[tuple[str, str, str, tuple[str, ...]]]:
    return [(note.object, note.field, note.what, note.suggestions) for note in found.notes]


def replicas(path: str = "/spec/replicas") -> str:
    return JSON.replace("PATH", path)


@pytest.mark.parametrize("patch", [replicas(), MERGE], ids=["json", "merge"])
def test_a_patch_of_what_did_not_change_holds(patch: str) -> None:
    other = DEPLOYMENT.replace("p:1", "p:2")
    assert trial(patch, DEPLOYMENT, other) == PatchCheck("p.yaml", "holds")


def test_another_value_than_before_is_to_be_looked_at() -> None:
    found = trial(replicas(), DEPLOYMENT, DEPLOYMENT.replace("replicas: 1", "replicas: 3"))
    assert found.state == "look"
    assert notes(found) == [("Deployment n/web", "/spec/replicas", "was 1, is 3", ())]
    merged = trial(MERGE, DEPLOYMENT, DEPLOYMENT.replace("1Gi", "4Gi"))
    assert notes(merged) == [
        (
            "Deployment n/web",
            "spec.template.spec.containers.main.resources.limits.memory",
            "was '1Gi', is '4Gi'",
            (),
        )
    ]


def test_a_field_that_is_gone_no_longer_matches() -> None:
    found = trial(replicas(), DEPLOYMENT, DEPLOYMENT.replace("replicas", "replicaCount"))
    assert found.state == "misfit"
    assert notes(found) == [
        (
            "Deployment n/web",
            "/spec/replicas",
            "there is nothing at /spec/replicas (no replicas)",
            ("replicaCount",),
        )
    ]


def test_a_container_of_another_name_at_the_same_place_is_said() -> None:
    patch = replicas("/spec/template/spec/containers/0/resources/limits/memory")
    found = trial(patch, DEPLOYMENT, DEPLOYMENT.replace("name: main", "name: manager"))
    assert found.state == "look"
    assert found.notes[0].what == "container 0 was 'main', is 'manager'"


def test_a_merge_that_would_add_a_container_that_was_renamed_no_longer_matches() -> None:
    found = trial(MERGE, DEPLOYMENT, DEPLOYMENT.replace("name: main", "name: manager"))
    assert found.state == "misfit"
    assert notes(found) == [
        (
            "Deployment n/web",
            "spec.template.spec.containers",
            "container main no longer exists; the patch would add it",
            ("containers: manager, proxy",),
        )
    ]


def test_an_object_that_is_gone_has_its_nearest_named() -> None:
    renamed = DEPLOYMENT.replace("name: web,", "name: web-server,")
    found = trial(replicas(), DEPLOYMENT, renamed)
    assert notes(found) == [
        (
            "",
            "",
            "there is no Deployment n/web for it to change",
            ("apps/v1 Deployment n/web-server",),
        )
    ]
    moved = DEPLOYMENT.replace("namespace: n}", "namespace: other}")
    found = trial(replicas(), DEPLOYMENT, CONFIG, two=moved)
    assert found.notes[0].suggestions == ("apps/v1 Deployment other/web of component two",)
    assert trial(replicas(), DEPLOYMENT, CONFIG).notes[0].suggestions == ()


def test_the_version_of_an_object_counts() -> None:
    found = trial(replicas(), DEPLOYMENT, DEPLOYMENT.replace("apps/v1", "apps/v2"))
    assert found.notes[0].suggestions == ("apps/v2 Deployment n/web",)


def test_a_name_that_fits_more_than_before_is_to_be_looked_at() -> None:
    patch = replicas().replace("name: web}", "name: web.*}")
    more = DEPLOYMENT + "---\n" + DEPLOYMENT.replace("name: web,", "name: web-2,")
    found = trial(patch, DEPLOYMENT, more)
    assert notes(found) == [
        ("Deployment n/web-2", "", "is matched by the patch, and was not before", ())
    ]
    found = trial(patch, more, DEPLOYMENT)
    assert notes(found) == [("Deployment n/web-2", "", "is no longer matched by the patch", ())]


def test_a_content_hash_that_changed_is_the_same_object() -> None:
    patch = """\
target: {version: v1, kind: ConfigMap, namespace: n, name: "web-config-.*"}
patch: [{op: replace, path: /data/size, value: "2"}]
"""
    context = PatchContext(
        "one", objects(CONFIG), objects(CONFIG.replace("7g2b4d5fk9", "9g2b4d5fk7")), {}
    )
    found = check_patches([parse_patch("p.yaml", patch)], ["p.yaml"], context)
    assert found["p.yaml"].state == "holds"
