"""`destroy`: a set out of its cluster, and what users have made stays."""

from __future__ import annotations

from tests.support.places import (
    Body,
    Place,
    config_map,
    definition,
    deployment,
    list_outcomes,
    namespace,
    wait_until,
)


def claim(ns: str) -> Body:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": ns},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def write(place: Place) -> None:
    ns = place.name
    place.write(
        {
            "base": [namespace(ns), definition(f"{ns}.test")],
            "one": [deployment("d", ns), config_map("c", ns), claim(ns)],
            "two": [config_map("later", ns)],
        },
        waves=[["base"], ["one"], ["two"]],
    )


def user_thing(ns: str) -> Body:
    meta = {"name": "mine", "namespace": ns}
    return {"apiVersion": f"{ns}.test/v1", "kind": "Thing", "metadata": meta}


def test_last_wave_first_and_data_stays(place: Place) -> None:
    ns = place.name
    write(place)
    place.apply()
    place.live.cluster.create(user_thing(ns), config_map("users", ns))
    done = place.destroy("--yes")
    assert done.stdout.splitlines() == [
        "remove two: 1 object",
        "remove one: 2 objects",
        f"  keeps PersistentVolumeClaim {ns}/data",
        "remove base: 0 objects",
        f"  keeps Namespace {ns}",
        f"keeps CustomResourceDefinition things.{ns}.test and its 1 object",
        "releases/default: 3 releases removed",
    ]
    steps = [line for line in done.stderr.splitlines() if line.startswith("removes")]
    assert steps == ["removes two", "removes one", "removes base"]
    for kind, name in (
        *(("namespace", ns), ("pvc", "data"), ("configmap", "users")),
        *((f"things.{ns}.test", "mine"), ("customresourcedefinition", f"things.{ns}.test")),
    ):
        assert place.get(kind, name), name
    for kind, name in (("deployment", "d"), ("configmap", "c"), ("configmap", "later")):
        assert place.get(kind, name) is None, name
    assert place.revisions() == {}
    assert place.get("configmap", "kfdeploy-set", place.helm) is None
    # again: nothing to do, and that is fine
    assert (
        place.destroy("--yes").stdout.splitlines()[-1]
        == "releases/default: nothing of it is in the cluster"
    )
    # and back, with the user's data as it was
    claimed = place.get("pvc", "data")["metadata"]["uid"]
    back = place.apply("--output", "json")
    assert set(list_outcomes(back).values()) == {"installed"}
    assert place.get("pvc", "data")["metadata"]["uid"] == claimed
    assert set(list_outcomes(place.apply("--output", "json")).values()) == {"unchanged"}


def test_without_yes_and_a_terminal_nothing_goes(place: Place) -> None:
    write(place)
    place.apply()
    before = place.revisions()
    done = place.destroy()
    assert done.stderr.splitlines()[-1] == "nothing was removed: run the same command with --yes"
    assert done.stdout.splitlines()[-1] == "releases/default: 3 releases would be removed"
    tried = place.destroy("--dry-run", "--yes", "--output", "json").json
    assert (tried["set"], tried["removed"], tried["data"]) == ("default", False, [])
    assert [one["release"] for one in tried["releases"]] == ["two", "one", "base"]
    assert tried["customResources"] == {f"things.{place.name}.test": 0}
    assert place.revisions() == before
    assert place.get("deployment", "d")


def test_data_goes_when_it_is_named(place: Place) -> None:
    ns = place.name
    write(place)
    place.apply()
    place.live.cluster.create(user_thing(ns))
    wrong = place.destroy("--delete-data", "Namespace/other", "--yes", check=2)
    assert wrong.stderr == (
        "error: --delete-data Namespace/other: the set has no such Namespace,"
        " PersistentVolumeClaim, PersistentVolume, Profile or CustomResourceDefinition\n"
        "  hint: `kfdeploy destroy --dry-run` lists what stays\n"
    )
    data = [
        *("--delete-data", f"PersistentVolumeClaim/{ns}/data"),
        *("--delete-data", f"things.{ns}.test"),
    ]
    done = place.destroy(*data, "--yes")
    assert f"DELETES PersistentVolumeClaim {ns}/data, and all that is in it" in done.stdout
    wait_until(lambda: place.get("pvc", "data") is None)
    wait_until(lambda: place.get("customresourcedefinition", f"things.{ns}.test") is None)
    assert place.get("namespace", ns)
    assert set(list_outcomes(place.apply("--output", "json")).values()) == {"installed"}


def test_what_others_have_is_not_touched(place: Place) -> None:
    """An object of the set that another Helm release has taken since, and one that was moved."""
    ns = place.name
    write(place)
    place.apply()
    notes = ("meta.helm.sh/release-name=other", "meta.helm.sh/release-namespace=elsewhere")
    place.live.cluster.kubectl("annotate", "configmap", "c", "-n", ns, "--overwrite", *notes)
    done = place.destroy("--yes")
    assert f"  keeps ConfigMap {ns}/c" in done.stdout.splitlines()
    assert place.get("configmap", "c")
    assert place.get("deployment", "d") is None
