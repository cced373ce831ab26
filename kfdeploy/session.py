"""One run on a workspace: its settings, an environment, and what was read so far.

Offers the packages that work on a whole workspace, and the commands, each thing once: the rendered
components, the inventory, the lock, the catalogue, and the release sets by name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kfdeploy.cache import Cache
from kfdeploy.errors import DIFFERENCE, WRONG_USE, UserError
from kfdeploy.files import read_text
from kfdeploy.images import lockfile
from kfdeploy.images.lockfile import Lock
from kfdeploy.oci.reference import WrittenRef
from kfdeploy.oci.registry.settings import MirrorSettings
from kfdeploy.progress import Progress
from kfdeploy.workspace import settings_file
from kfdeploy.workspace.settings import Environment, Workspace
from kfdeploy.workspace.settings_file import WorkspaceFile

# Imported where it is needed: `mirror` and `verify` are called often and do without it.
if TYPE_CHECKING:
    from kfdeploy.catalogue.load import CatalogueLoader
    from kfdeploy.images.inventory import ComponentScan, Inventory
    from kfdeploy.images.sources_file import SourceImage
    from kfdeploy.releaseset.summary import SetSummary
    from kfdeploy.scan.egress.report import EgressReport
    from kfdeploy.upstream.build import RenderedComponent

OWN_CATALOGUE = "catalogue"
_RENDER = "run `kfdeploy render`"


@dataclass
class Session:
    """Hold a workspace and its environment, and read each of its parts at most once."""

    root: Path
    file: WorkspaceFile
    environment_name: str
    progress: Progress
    _rendered: tuple[RenderedComponent, ...] | None = field(default=None, repr=False)
    _scanned: dict[str, ComponentScan] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, directory: Path, env: str, *, quiet: bool) -> Session:
        """Read ``kfdeploy.yaml``.

        Args:
            env: the name of an environment; empty for ``default``, or else the first.

        Raises:
            UserError: mistakes in the file, no such environment, or an unfinished upgrade.
        """
        file = settings_file.read_workspace(directory)
        if (directory / settings_file.UNFINISHED).is_dir():
            raise UserError(
                "an upgrade of this workspace was stopped while it was written",
                hint="run `kfdeploy vendor --upgrade`: it writes the rest",
            )
        names = list(file.workspace.environments)
        name = env or ("default" if "default" in names else names[0])
        if name not in names:
            raise UserError(
                f"--env {name}: kfdeploy.yaml has no such environment; it has {', '.join(names)}",
                exit_code=WRONG_USE,
            )
        return cls(directory, file, name, Progress(quiet=quiet))

    @property
    def workspace(self) -> Workspace:
        return self.file.workspace

    @property
    def environment(self) -> Environment:
        return self.workspace.environments[self.environment_name]

    @property
    def mirror_settings(self) -> MirrorSettings:
        return self.workspace.resolve_mirror_settings(self.environment)

    def locate_key(self, key: str) -> str:
        return self.file.locate_key(key)

    @cached_property
    def cache(self) -> Cache:
        return Cache(self.root / ".kfdeploy" / "cache")

    @cached_property
    def facts(self) -> CatalogueLoader:
        """The catalogue: the site's entries in ``catalogue/`` come before kfdeploy's own."""
        from kfdeploy.catalogue.load import CatalogueLoader

        return CatalogueLoader(self.root / OWN_CATALOGUE)

    @cached_property
    def version(self) -> str:
        """The version of the vendored upstream."""
        path = self.root / "upstream.lock"
        if not path.is_file():
            raise UserError("the workspace has no upstream.lock yet", hint="run `kfdeploy vendor`")
        from kfdeploy.upstream import lockfile as upstreamlock

        return upstreamlock.UpstreamLock.parse(read_text(path)).upstream.version

    def known_version(self) -> str:
        """Return the version of the vendored upstream, or else ``upstream.ref``, even if empty."""
        if (self.root / "upstream.lock").is_file():
            return self.version
        return self.workspace.upstream.ref or ""

    def render_components(self, jobs: int | None = None) -> tuple[RenderedComponent, ...]:
        """Build the components, once in a run.

        Each component is scanned as soon as it is built, while others are still being built.
        """
        if self._rendered is None:
            from kfdeploy.scan import scan
            from kfdeploy.upstream import build

            facts, version = self.facts, self.version

            def scan_component(item: RenderedComponent) -> None:
                name = item.component.name
                self._scanned[name] = scan.scan_component(version, item, self.cache, facts)

            components = self.workspace.components
            with self.progress.count_items("building") as advance:
                done: list[str] = []

                def count_built(name: str) -> None:
                    done.append(name)
                    advance(name, len(done), len(components))

                self._rendered = build.render_components(
                    self.root,
                    components,
                    self.environment,
                    self.cache,
                    jobs=jobs or os.cpu_count() or 2,
                    on_done=count_built,
                    on_rendered=scan_component,
                )
        return self._rendered

    def build_inventory(self) -> Inventory:
        """Return all images of the components, with the places that name them."""
        from kfdeploy.images import feature_images
        from kfdeploy.scan import scan

        facts = self.facts
        found = scan.scan(
            self.version, self.render_components(), self.cache, facts=facts, known=self._scanned
        )
        return feature_images.add_features(found, self.workspace.list_enabled_features())

    def scan_egress(self) -> EgressReport:
        """Return the addresses outside the cluster that components use, besides images."""
        from kfdeploy.scan.egress import scan as egress

        return egress.scan(self.version, self.render_components(), self.cache, facts=self.facts)

    def read_lock(self, *, required: bool) -> Lock:
        """Read ``images.lock``; return an empty lock where there is none and none is required."""
        path = self.root / "images.lock"
        if path.is_file():
            return lockfile.read_lock(path)
        if required:
            raise UserError("the workspace has no images.lock yet", hint="run `kfdeploy lock`")
        return Lock(())

    def read_sources(self) -> Sequence[SourceImage]:
        """Read ``images.sources.yaml``.

        Raises:
            UserError: there is none, or the components name an image that it does not list.
        """
        from kfdeploy.images import sources_file as sources

        path = self.root / sources.NAME
        if not path.is_file():
            raise UserError(f"the workspace has no {sources.NAME} yet", hint="run `kfdeploy lock`")
        listed = sources.parse_sources(read_text(path))
        named = {image.ref for image in self.build_inventory().images}
        missing = sorted(named - {image.ref for image in listed})
        if missing:
            raise UserError(
                f"{sources.NAME} does not list {', '.join(map(str, missing))}",
                hint="the upstream or the components have changed: run `kfdeploy lock`",
            )
        return listed

    def read_tag_only_refs(self) -> frozenset[WrittenRef]:
        """Return the images that some place names by tag alone; none where tags may move.

        Only a registry with ``immutableTags`` treats them otherwise.
        """
        from kfdeploy.images import sources_file as sources

        path = self.root / sources.NAME
        if (
            not self.workspace.resolve_registry(self.environment).immutable_tags
            or not path.is_file()
        ):
            return frozenset()
        return frozenset(i.ref for i in sources.parse_sources(read_text(path)) if i.by_tag)

    def would_change(self, name: str, text: str) -> bool:
        """Return whether a file of the workspace has another text, or does not exist."""
        path = self.root / name
        return not path.is_file() or read_text(path) != text

    def resolve_set_name(self, given: str) -> str:
        """Return the name of a set to write: the given one, or the environment's.

        Raises:
            UserError: it is no plain folder name.
        """
        name = given or self.environment_name
        if name in (".", "..") or "/" in name or name.startswith("."):
            raise UserError(f"--set {name}: must be a plain folder name", exit_code=WRONG_USE)
        return name

    def find_set(self, given: str) -> Path:
        """Return the folder of a release set.

        Args:
            given: its name or its path; empty for the only one that there is.

        Raises:
            UserError: there is none, or there are several and none was named.
        """
        releases = self.root / "releases"
        if given:
            for folder in (releases / given, Path(given)):
                if folder.is_dir():
                    return folder
        found = sorted(p for p in releases.iterdir() if p.is_dir()) if releases.is_dir() else []
        found = [folder for folder in found if not folder.name.startswith(".")]
        names = ", ".join(folder.name for folder in found)
        if given:
            raise UserError(
                f"{given}: there is no such release set",
                exit_code=WRONG_USE,
                hint=f"there {'is' if len(found) == 1 else 'are'} {names}" if found else _RENDER,
            )
        if not found:
            raise UserError("there is no release set yet", hint=_RENDER)
        if len(found) > 1:
            raise UserError(
                f"there are several release sets: {names}",
                exit_code=WRONG_USE,
                hint="name one of them",
            )
        return found[0]

    def adopt_set_environment(self, summary: SetSummary, *, explicit: bool) -> None:
        """Switch to the environment that a set was rendered for.

        Args:
            explicit: whether the operator named the session's environment.

        Raises:
            UserError: the operator named another environment, or its registry or platforms have
                changed since.
        """
        name = summary.environment
        if explicit and name != self.environment_name:
            raise UserError(
                f"the set was rendered for the environment {name}, not {self.environment_name}",
                exit_code=WRONG_USE,
            )
        if name not in self.workspace.environments:
            raise UserError(
                f"the set was rendered for the environment {name}, which kfdeploy.yaml"
                " does not have"
            )
        self.environment_name = name
        registry = self.workspace.resolve_registry(self.environment)
        wanted = "/".join(part for part in (registry.host, registry.prefix) if part)
        if summary.registry != wanted:
            raise UserError(
                f"the set was rendered for the registry {summary.registry}, but kfdeploy.yaml"
                f" says {wanted}",
                hint="run `kfdeploy mirror` and `kfdeploy render`",
                exit_code=DIFFERENCE,
            )
        platforms = self.environment.platforms
        if (rendered := summary.platforms) != tuple(platforms):
            raise UserError(
                f"the set was rendered for {', '.join(rendered) or 'all platforms'}, but"
                f" kfdeploy.yaml says {', '.join(platforms) or 'all'}",
                hint="run `kfdeploy lock`, `kfdeploy mirror` and `kfdeploy render`",
                exit_code=DIFFERENCE,
            )
