"""Which components a workspace has at another release."""

from __future__ import annotations

from collections.abc import Iterable

from kfdeploy.upgrade.components import ComponentMigration, migrate_components
from kfdeploy.upstream.component import ExampleComponent, component_names
from kfdeploy.workspace.settings import Component


def example(*paths: str) -> list[ExampleComponent]:
    names = component_names(paths)
    return [ExampleComponent(name, path, 1) for name, path in zip(names, paths, strict=True)]


def listed(*found: str, **more: Component) -> list[Component]:
    """Components as the example has them; one that is changed by its name."""
    names = component_names(found)
    return [
        more.get(name) or Component(name=name, path=path)
        for name, path in zip(names, found, strict=True)
    ]


def followed(
    components: list[Component],
    old: list[ExampleComponent],
    new: list[ExampleComponent],
    *there: str,
) -> ComponentMigration:
    """To an upstream that has what its example lists, and folders besides."""
    folders = {*there, *(component.path for component in new)}

    def ending_in(end: str) -> Iterable[str]:
        return sorted(folder for folder in folders if folder.partition("/")[2] == end)

    return migrate_components(
        components,
        old,
        new,
        version="2",
        can_build=lambda component, path: path in folders,
        find_folders=ending_in,
    )


def paths(found: ComponentMigration) -> list[str]:
    return [f"{entry.name}={entry.path}" for entry in found.entries]


OLD = ("apps/a/base", "apps/b/upstream", "apps/c")
NEW = ("applications/a/overlays/x", "applications/n", "apps/b/upstream", "apps/z")


def test_the_same_component_is_known_by_its_path_or_by_its_name() -> None:
    found = followed(listed(*OLD), example(*OLD), example(*NEW))
    assert paths(found) == [
        "a=applications/a/overlays/x",
        "n=applications/n",
        "b=apps/b/upstream",
        "z=apps/z",
    ]
    assert [(c.name, c.state) for c in found.changes] == [
        ("a", "moved"),
        ("b", "same"),
        ("c", "dropped"),
        ("n", "new"),
        ("z", "new"),
    ]
    assert found.changes[2].why == "the example of 2 does not list it"


def test_there_and_back_is_the_same_list() -> None:
    there = followed(listed(*OLD), example(*OLD), example(*NEW))
    at_new = [Component(name=entry.name, path=entry.path) for entry in there.entries]
    back = followed(at_new, example(*NEW), example(*OLD))
    assert paths(back) == ["a=apps/a/base", "b=apps/b/upstream", "c=apps/c"]


def test_what_a_person_took_out_stays_out() -> None:
    found = followed(listed(*OLD)[1:], example(*OLD), example(*NEW))
    assert paths(found) == ["n=applications/n", "b=apps/b/upstream", "z=apps/z"]
    assert found.absent == ("a",)


def test_what_a_person_added_stays_where_it_is() -> None:
    mine = Component(name="n", path="extra/mine")
    components = [*listed(*OLD)[:1], mine, *listed(*OLD)[1:]]
    found = followed(components, example(*OLD), example(*NEW), "extra/mine")
    # The name is taken, so the new one has another.
    assert paths(found) == [
        "a=applications/a/overlays/x",
        "n-2=applications/n",
        "n=extra/mine",
        "b=apps/b/upstream",
        "z=apps/z",
    ]


def test_what_a_person_added_before_upstream_did_is_not_there_twice() -> None:
    components = [*listed(*OLD), Component(name="mine", path="apps/z")]
    found = followed(components, example(*OLD), example(*NEW))
    assert paths(found)[-1] == "mine=apps/z"
    assert sum("apps/z" in path for path in paths(found)) == 1


def test_another_overlay_that_a_person_chose_stays() -> None:
    components = listed(*OLD)
    components[0] = Component(name="a", path="apps/a/overlays/gke")
    found = followed(components, example(*OLD), example(*NEW), "apps/a/overlays/gke")
    assert paths(found)[:2] == ["a=apps/a/overlays/gke", "n=applications/n"]
    assert found.absent == ("a",)


def test_another_overlay_follows_the_first_folder() -> None:
    components = listed(*OLD)
    components[0] = Component(name="a", path="apps/a/overlays/gke")
    found = followed(components, example(*OLD), example(*NEW), "applications/a/overlays/gke")
    assert "a=applications/a/overlays/gke" in paths(found)
    assert found.changes[0].state == "moved"


def test_a_dropped_component_that_a_person_changed_stays_where_it_still_is() -> None:
    changed = Component(name="c", path="apps/c", namespace="mine")
    found = followed(listed(*OLD, c=changed), example(*OLD), example(*NEW), "apps/c")
    assert paths(found)[-1] == "c=apps/c"
    assert found.changes[2].why == (
        "the example of 2 does not list it; it stays, as you changed it"
    )
    gone = followed(listed(*OLD, c=changed), example(*OLD), example(*NEW))
    assert gone.changes[2].state == "dropped"
    assert gone.changes[2].why == "2 has nothing at its path"


def test_a_person_s_own_that_is_nowhere_is_not_dropped() -> None:
    components = [*listed(*OLD), Component(name="b", path="apps/b/overlays/mine")]
    found = followed(components, example(*OLD), example(*NEW))
    (lost,) = found.unmatched
    assert (lost.index, lost.component.path) == (3, "apps/b/overlays/mine")
    assert lost.candidates == ("apps/b/upstream",)
