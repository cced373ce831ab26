"""Releases: as few parts as the order allows, upstream's order otherwise, and cycles."""

from __future__ import annotations

from typing import Any

import pytest

from kfdeploy.cli.report import order
from kfdeploy.codec import to_json
from kfdeploy.errors import UserError
from tests.releaseset.order.made import (
    crd,
    deployment,
    derive,
    made,
    names,
    rule,
    service,
    webhooks,
)

THING = made("Thing", "x", "n", "t.test/v1")
HOOK = [deployment("hook"), service("hook")]
JUDGING = (
    "Deployment n/hook must be ready: it judges Thing n/x (ValidatingWebhookConfiguration c"
    " webhooks[name=hook.test].clientConfig.service)"
)
JUDGE = webhooks("Validating", "hook", rule("things"), name="c")


def reads(name: str, config: str, **more: Any) -> dict[str, object]:
    volumes = [{"name": "v", "configMap": {"name": config}}]
    return deployment(name, volumes=volumes, **more)


def config(name: str) -> dict[str, object]:
    return made("ConfigMap", name, "n")


def test_upstreams_order_stays_where_nothing_says_otherwise() -> None:
    found = derive({name: [config(name)] for name in ("c", "a", "b")})
    assert [part.name for part in found.releases] == ["c", "a", "b"]
    assert found.waves == [["c", "a", "b"]]
    assert not any(part.needs or part.waits for part in found.releases)


def test_what_is_needed_comes_first_and_the_rest_stays() -> None:
    found = derive({"a": [reads("w", "late")], "b": [config("b")], "c": [config("late")]})
    assert [(part.name, part.needs) for part in found.releases] == [
        ("b", ()),
        ("c", ()),
        ("a", ("c",)),
    ]
    assert found.waves == [["b", "c"], ["a"]]


def test_what_follows_from_others_is_left_out_of_needs() -> None:
    space = made("Namespace", "n")
    found = derive({"a": [space], "b": [crd("Thing"), config("b")], "c": [THING]})
    assert {part.name: part.needs for part in found.releases} == {"a": (), "b": ("a",), "c": ("b",)}
    assert [(edge.first, edge.then) for edge in found.dependencies] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]


def test_a_component_is_split_where_its_own_webhook_judges_its_objects() -> None:
    found = derive({"a": [*HOOK, JUDGE, crd("Thing"), THING, config("rest")], "b": [config("b")]})
    assert dict(names(found)) == {
        "a": ["hook", "hook", "c", "things.t.test", "rest"],
        "a-after": ["x"],
        "b": ["b"],
    }
    assert [(part.name, part.component, part.waits) for part in found.releases] == [
        ("a", "a", True),
        ("a-after", "a", False),
        ("b", "b", False),
    ]


def test_a_webhook_that_judges_only_others_splits_nothing() -> None:
    found = derive({"b": [THING], "a": [*HOOK, JUDGE, crd("Thing")]})
    assert [(part.name, part.needs, part.waits) for part in found.releases] == [
        ("a", (), True),
        ("b", ("a",), False),
    ]


def test_what_depends_on_a_later_part_goes_with_it() -> None:
    judge = webhooks("Mutating", "hook", rule("configmaps", group=""), name="c")
    found = derive({"a": [*HOOK, judge, config("x"), reads("w", "x"), deployment("free")]})
    assert dict(names(found)) == {"a": ["hook", "hook", "c", "free"], "a-after": ["x", "w"]}


def test_two_components_that_need_each_other_are_split_once() -> None:
    content = {
        "a": [config("a"), reads("wa", "b")],
        "b": [config("b"), reads("wb", "a")],
        "c": [config("c")],
    }
    assert dict(names(derive(content))) == {
        "a": ["a", "wa"],
        "b": ["b"],
        "b-after": ["wb"],
        "c": ["c"],
    }


def test_one_component_in_the_middle_of_several_circles_is_the_one_that_is_split() -> None:
    """Any other choice would split two."""
    content = {
        "a": [config("a"), reads("wa", "m")],
        "b": [config("b"), reads("wb", "m")],
        "middle": [config("m"), reads("w1", "a"), reads("w2", "b")],
    }
    assert dict(names(derive(content))) == {
        "middle": ["m"],
        "a": ["a", "wa"],
        "b": ["b", "wb"],
        "middle-after": ["w1", "w2"],
    }


def test_pods_and_what_they_read_in_one_release_do_not_mind_each_other() -> None:
    content = {"a": [config("x"), reads("w", "x"), reads("v", "x")]}
    assert [part.name for part in derive(content).releases] == ["a"]


def test_a_name_that_is_taken_is_not_used_twice() -> None:
    found = derive({"a": [*HOOK, JUDGE, crd("Thing"), THING], "a-after": [config("b")], "z": []})
    assert [part.name for part in found.releases] == ["a", "a-after-2", "a-after", "z"]


def test_the_same_set_gives_the_same_order() -> None:
    content = {
        "z": [*HOOK, JUDGE, crd("Thing"), THING],
        "y": [config("a"), reads("wa", "b")],
        "x": [config("b"), reads("wb", "a")],
    }
    one, other = derive(content), derive(content)
    assert to_json(one) == to_json(other)
    assert list(names(one)) == list(names(other))


def test_a_circle_is_an_error_that_names_it() -> None:
    pods = rule("pods", group="")
    one = webhooks("Mutating", "one", pods, objectSelector={"matchLabels": {"app": "two"}})
    two = webhooks("Mutating", "two", pods, objectSelector={"matchLabels": {"app": "one"}})
    with pytest.raises(UserError) as raised:
        derive(
            {
                "first": [deployment("one"), service("one"), one],
                "second": [deployment("two"), service("two"), two],
            }
        )
    assert raised.value.message == (
        "the releases need each other in a circle: first -> second because Deployment n/one must"
        " be ready: it changes the pods of Deployment n/two (MutatingWebhookConfiguration one"
        " webhooks[name=one.test].clientConfig.service), second -> first because Deployment n/two"
        " must be ready: it changes the pods of Deployment n/one (MutatingWebhookConfiguration two"
        " webhooks[name=two.test].clientConfig.service)"
    )
    assert raised.value.hint == (
        "a patch can take one of these fields away, or keep a webhook from the object by its"
        " selectors"
    )


def test_the_order_is_told_wave_by_wave_with_its_reasons() -> None:
    space = made("Namespace", "n")
    found = derive({"s": [space], "a": [*HOOK, JUDGE, crd("Thing"), THING]})
    assert list(order.format_order(found)) == [
        "wave 1",
        "  s",
        "wave 2",
        "  a (the next wait until it is ready)",
        "    after s",
        "      Namespace n holds Deployment n/hook and 1 more (metadata.namespace)",
        "wave 3",
        "  a-after",
        "    after s",
        "      Namespace n holds Thing n/x (metadata.namespace)",
        "    after a",
        "      CustomResourceDefinition things.t.test defines Thing n/x (kind)",
        f"      {JUDGING}",
        "      ValidatingWebhookConfiguration c judges Thing n/x (webhooks[name=hook.test].rules)",
    ]
    told = to_json(found)
    assert told["waves"] == [["s"], ["a"], ["a-after"]]
    first, *_ = told["edges"]
    assert (first["from"], first["to"]) == ("s", "a")
    assert first["reasons"][0] == {
        "why": "namespace",
        "first": {"apiVersion": "v1", "kind": "Namespace", "name": "n"},
        "then": {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "namespace": "n",
            "name": "hook",
        },
        "field": "metadata.namespace",
        "ready": False,
    }


def test_a_webhook_that_gets_its_ca_in_the_cluster_is_trusted_first() -> None:
    """Its workload is ready a moment before; the API server would not yet trust it."""
    content = {"a": [*HOOK, JUDGE], "b": [crd("Thing"), THING], "c": [config("c")]}
    trusts = {part.name: [str(key) for key in part.trusts] for part in derive(content).releases}
    assert trusts == {"a": [], "b": ["ValidatingWebhookConfiguration c"], "c": []}
    known = webhooks("Validating", "hook", rule("things"), name="c")
    known["webhooks"][0]["clientConfig"]["caBundle"] = "Y2E="
    found = derive({**content, "a": [*HOOK, known]})
    assert not any(part.trusts for part in found.releases)
