"""What commands share: a workspace, an environment, and what was read of them so far."""

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
from kfdeploy.images.lockfile import Lock, LockedImage
from kfdeploy.oci.reference import ImageRef
from kfdeploy.oci.registry.settings import MirrorSettings
from kfdeploy.progress import Progress
from kfdeploy.workspace import settings_file
from kfdeploy.workspace.settings import Environment, Workspace
from kfdeploy.workspace.settings_file import WorkspaceFile

# What `mirror` and `verify` do without is imported where it is needed: both are called often.
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
    """One command's view of a workspace."""

    root: Path
    file: WorkspaceFile
    environment_name: str
    progress: Progress
    _rendered: tuple[RenderedComponent, ...] | None = field(default=None, repr=False)
    _scanned: dict[str, ComponentScan] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, directory: Path, env: str, *, quiet: bool) -> Session:
        """Read ``kfdeploy.yaml``.

        Raises:
            UserError: mistakes in it, or an environment that it does not have.
        """
        file = settings_file.read_workspace(directory)
        if (directory / settings_file.UNFINISHED).is_dir():
            raise UserError(
                "an upgrade of this workspace was stopped while it was written",
                hint="`kfdeploy vendor --upgrade` writes the rest of it",
            )
        names = list(file.workspace.environments)
        name = env or ("default" if "default" in names else names[0])
        if name not in names:
            raise UserError(
                f"--env {name}: kfdeploy.yaml has the environments {', '.join(names)}",
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
        """The catalogue: the site's own entries, in ``catalogue/``, before kfdeploy's."""
        from kfdeploy.catalogue.load import CatalogueLoader

        return CatalogueLoader(self.root / OWN_CATALOGUE)

    @cached_property
    def version(self) -> str:
        """The upstream's, as it was vendored."""
        path = self.root / "upstream.lock"
        if not path.is_file():
            raise UserError("the workspace has no upstream.lock yet", hint="run `kfdeploy vendor`")
        from kfdeploy.upstream import lockfile as upstreamlock

        return upstreamlock.UpstreamLock.parse(read_text(path)).upstream.version

    def known_version(self) -> str:
        """The upstream's as it was vendored, else as kfdeploy.yaml names it; it may be empty."""
        if (self.root / "upstream.lock").is_file():
            return self.version
        return self.workspace.upstream.ref or ""

    def render_components(self, jobs: int | None = None) -> tuple[RenderedComponent, ...]:
        """What the components render, built once a command.

        Each is scanned as soon as it is there, while others are built.
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
        from kfdeploy.images import feature_images
        from kfdeploy.scan import scan

        facts = self.facts
        found = scan.scan(
            self.version, self.render_components(), self.cache, facts=facts, known=self._scanned
        )
        return feature_images.add_features(found, self.workspace.list_enabled_features())

    def scan_egress(self) -> EgressReport:
        """What the components reach for outside the cluster, besides images."""
        from kfdeploy.scan.egress import scan as egress

        return egress.scan(self.version, self.render_components(), self.cache, facts=self.facts)

    def read_lock(self, *, required: bool) -> Lock:
        """``images.lock``; an empty one where there is none and none is required."""
        path = self.root / "images.lock"
        if path.is_file():
            return lockfile.read_lock(path)
        if required:
            raise UserError("the workspace has no images.lock yet", hint="run `kfdeploy lock`")
        return Lock(())

    def still_locked(self, ids: Sequence[str], previous: Lock) -> dict[str, LockedImage]:
        """What an earlier lock has for images that could not be asked for now, by id.

        A registry that is down for a night does not take a lock away: a digest stays good. What is
        now substituted by an image of another repository is another image.
        """
        instead = {
            ImageRef.parse(old).with_default_tag(): ImageRef.parse(new)
            for old, new in self.workspace.images.substitutes.items()
        }
        out = {}
        for found in ids:
            image = previous.by_id.get(found)
            if image is not None:
                wanted = ImageRef.parse(found).with_default_tag()
                if instead.get(wanted, wanted).repository == image.image.repository:
                    out[found] = image
        return out

    def read_sources(self) -> Sequence[SourceImage]:
        """What ``images.sources.yaml`` lists.

        Raises:
            UserError: it is not there, or no longer what the components name.
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
                f"{sources.NAME} does not list {', '.join(missing)}",
                hint="the upstream or the components have changed: run `kfdeploy lock`",
            )
        return listed

    def read_tag_only_refs(self) -> frozenset[str]:
        """Images that some place has by tag alone; asked only for a registry whose tags stay."""
        from kfdeploy.images import sources_file as sources

        path = self.root / sources.NAME
        if (
            not self.workspace.resolve_registry(self.environment).immutable_tags
            or not path.is_file()
        ):
            return frozenset()
        return frozenset(i.ref for i in sources.parse_sources(read_text(path)) if i.by_tag)

    def would_change(self, name: str, text: str) -> bool:
        path = self.root / name
        return not path.is_file() or read_text(path) != text

    def resolve_set_name(self, given: str) -> str:
        name = given or self.environment_name
        if name in (".", "..") or "/" in name or name.startswith("."):
            raise UserError(f"--set {name}: a plain folder name", exit_code=WRONG_USE)
        return name

    def find_set(self, given: str) -> Path:
        """A release set's folder: by name, by path, or the only one.

        Raises:
            UserError: there is none, or several and none was named.
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
        """Take the set's environment, or refuse another one that was asked for.

        Raises:
            UserError: it is of another environment, or for another registry or other platforms
                than this one's.
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
                f"the set was rendered for the registry {summary.registry}, and kfdeploy.yaml"
                f" says {wanted}",
                hint="run `kfdeploy mirror` and `kfdeploy render`",
                exit_code=DIFFERENCE,
            )
        platforms = self.environment.platforms
        if (rendered := summary.platforms) != tuple(platforms):
            raise UserError(
                f"the set was rendered for {', '.join(rendered) or 'all platforms'}, and"
                f" kfdeploy.yaml says {', '.join(platforms) or 'all'}",
                hint="run `kfdeploy lock`, `kfdeploy mirror` and `kfdeploy render`",
                exit_code=DIFFERENCE,
            )
