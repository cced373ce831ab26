"""`kfdeploy export` for tools that copy images, each run by the tool that its file is for.

Hauler and Zarf are not among the set-up's programs: what their files say is held against what these
tools do with them (docs/exports.md).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import Runner, Served, Site, edit_workspace, need_programs
from tests.support.registries import Registry, docker_config, serve_registry
from tests.support.standins import push_standins

FEW = ("registry.example.com/[!k]*", "registry.example.com/ka*", "quay.example.com/*")
"""Without these there are some of Docker Hub, one alone on its host, and two known by digest."""


@dataclass(frozen=True, slots=True)
class Place:
    """A workspace with an empty private registry, and a copy of the sources'."""

    root: Path
    public: Registry
    private: Registry
    sign_ins: Path
    out: Path

    def run(self, *words: str | Path) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            cwd=self.out,
            env={**os.environ, "DOCKER_CONFIG": str(self.sign_ins)}
            | {"REGISTRY_AUTH_FILE": str(self.sign_ins / "config.json")},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def missing(self, kfdeploy: Runner, env: str = "default") -> dict[str, str]:
        """What kfdeploy's own mirror would copy: each tag's digest, by the tag."""
        words = ("mirror", "--dry-run", "--output", "json", "--env", env)
        plan = kfdeploy(*words, cwd=self.root).json
        assert plan["copy"] or plan["present"]
        return {item["to"]: item["digest"] for item in plan["copy"]}


@pytest.fixture(scope="module")
def few(small_site: Site, kfdeploy: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small site with few images."""
    root = small_site.copy(tmp_path_factory.mktemp("few") / "ws")
    gone = [{"ref": ref, "reason": "few are enough"} for ref in FEW]
    edit_workspace(root, {"images.exclude": gone})
    kfdeploy("lock", "--offline", cwd=root)
    return root


@pytest.fixture
def place(few: Path, registries: Served, tmp_path: Path) -> Iterator[Place]:
    """The private registry asks for a sign-in and has a certificate of a CA of its own."""
    shutil.copytree(registries.public_folder, tmp_path / "public")
    shutil.copytree(few, tmp_path / "ws", symlinks=True)
    (tmp_path / "out").mkdir()
    with (
        serve_registry(tmp_path / "public") as public,
        serve_registry(tmp_path / "private", tls=True, auth="basic") as private,
    ):
        sign_ins = docker_config(tmp_path / "docker", private)
        edit_workspace(
            tmp_path / "ws",
            {
                "registries.sources": {"*": public.host},
                "registries.private": {
                    "host": private.host,
                    "prefix": "kf",
                    "ca": str(private.ca),
                    "credentials": {"dockerConfig": str(sign_ins)},
                },
                "environments": {
                    "default": {},
                    "flat": {"registry": {"prefix": "flat", "naming": {"maxDepth": 2}}},
                },
            },
        )
        yield Place(tmp_path / "ws", public, private, sign_ins, tmp_path / "out")


def test_regsync_copies_every_image_with_what_belongs_to_it(place: Place, kfdeploy: Runner) -> None:
    need_programs("regsync", "oras")
    target, digest = next(iter(place.missing(kfdeploy).items()))
    repository = target.rpartition(":")[0].partition("/kf/")[2]
    kind = "application/vnd.example.sbom"
    signature = f"{repository}:{digest.replace(':', '-')}.sig"
    (place.out / "sbom").write_text("what is in it\n")
    layer = ("--plain-http", "sbom:text/plain")
    subject = f"{place.public.host}/{repository}@{digest}"
    place.run("oras", "attach", "--artifact-type", kind, layer[0], subject, layer[1])
    place.run("oras", "push", layer[0], f"{place.public.host}/{signature}", layer[1])

    kfdeploy("export", "regsync", "--to", place.out, cwd=place.root)
    place.run("regsync", "once", "-c", "regsync.yaml")

    assert place.missing(kfdeploy) == {}
    at, ca = f"{place.private.host}/kf", ("--ca-file", str(place.private.ca))
    found = place.run("oras", "discover", "--format", "json", *ca, f"{at}/{repository}@{digest}")
    assert [r["artifactType"] for r in json.loads(found)["referrers"]] == [kind]
    place.run("oras", "manifest", "fetch", *ca, f"{at}/{signature}")


@pytest.mark.parametrize("env", ["default", "flat"])
def test_skopeo_sync_and_its_script_copy_every_image(
    env: str, place: Place, kfdeploy: Runner
) -> None:
    need_programs("skopeo")
    assert place.missing(kfdeploy, env)
    done = kfdeploy("export", "skopeo-sync", "--env", env, "--to", place.out, cwd=place.root)
    assert "note: run `sh skopeo-sync/sync.sh`" in done.stderr
    script = (place.out / "skopeo-sync" / "sync.sh").read_text()
    assert ("\nsync kf/" in script, "\nsync flat/" in script) == (env == "default", False)
    place.run("sh", "skopeo-sync/sync.sh")
    assert place.missing(kfdeploy, env) == {}
    for path in place.out.rglob("*"):
        assert not path.is_file() or place.private.password not in path.read_text()


# -- what Hauler and Zarf do with their files ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """One export: its files, and what was said besides."""

    files: Mapping[str, str]
    notes: str

    def all(self, name: str) -> Iterator[str]:
        """The files of that name, in whatever folder."""
        yield from (text for path, text in self.files.items() if Path(path).name == name)


def said(kfdeploy: Runner, root: Path, name: str, env: str = "default") -> Said:
    done = kfdeploy("export", name, "--env", env, "--output", "json", cwd=root)
    return Said(done.json, done.stderr)


@pytest.fixture
def named(few: Path, tmp_path: Path) -> Path:
    """A workspace whose registries have names; nobody asks them."""
    root = tmp_path / "named"
    shutil.copytree(few, root, symlinks=True)
    edit_workspace(
        root,
        {
            "registries.sources": {},
            "registries.private": {"host": "mirror.example.net", "prefix": "kf"},
            "environments": {
                "default": {},
                "flat": {"registry": {"naming": {"maxDepth": 2}}},
                "bare": {"registry": {"prefix": "", "naming": {"keepHost": False}}},
            },
        },
    )
    return root


def plan(kfdeploy: Runner, root: Path, env: str = "default") -> dict[str, str]:
    """Each target with its source, as regsync is told."""
    data = YAML(typ="safe").load(said(kfdeploy, root, "regsync", env).files["regsync.yaml"])
    return {entry["target"]: entry["source"] for entry in data["sync"]}


def digests(pairs: Mapping[str, str]) -> dict[str, str]:
    return {target: source.rpartition("@")[2] for target, source in pairs.items()}


def path_of(reference: str) -> str:
    """A reference without its host, tag and digest."""
    path = reference.partition("@")[0].partition("/")[2]
    return path.rpartition(":")[0] if ":" in path else path


def tags(made: Said) -> dict[str, str]:
    lines = [line for text in made.all("tags.txt") for line in text.splitlines()]
    return dict(line.split() for line in lines if not line.startswith("#"))


def hauled(made: Said) -> tuple[dict[str, str], set[str]]:
    """What `hauler store sync` and `copy`, and then the tags, put where; what it pulls by tag."""
    out, by_tag, named = {}, set(), tags(made)
    for text in made.all("images.yaml"):
        (where,) = [
            line.rpartition("registry://")[2] for line in text.splitlines()[1:3] if ":" in line
        ]
        for image in YAML(typ="safe").load(text)["spec"]["images"]:
            if "rewrite" in image:
                assert image["rewrite"].partition("/")[0] == where
                by_tag.add(image["rewrite"])
            else:
                at = f"{where}/{path_of(image['name'])}"
                digest = image["name"].rpartition("@")[2]
                out[f"{at}:{named.pop(f'{at}@{digest}')}"] = digest
    assert not named
    return out, by_tag


@pytest.mark.parametrize("env", ["default", "bare"])
def test_hauler_takes_all_by_digest_where_no_path_changes(
    env: str, named: Path, kfdeploy: Runner
) -> None:
    made = said(kfdeploy, named, "hauler", env)
    assert hauled(made) == (digests(plan(kfdeploy, named, env)), set())
    stores = {name for name in made.files if name.endswith("images.yaml")}
    assert ("hauler/kf/docker.io/images.yaml" in stores) == (env == "default")
    assert "set those of hauler/tags.txt" in made.notes


def test_hauler_renames_only_what_it_pulls_by_tag(named: Path, kfdeploy: Runner) -> None:
    # The two that are known by digest had a stand-in with a tag.
    proxied = {"registries.sources": {"*": "proxy.example.net/hub"}, "images.substitutes": {}}
    edit_workspace(named, proxied)
    made = said(kfdeploy, named, "hauler")
    by_digest, by_tag = hauled(made)
    wanted = plan(kfdeploy, named)
    assert by_digest == {}
    left = {target for target in wanted if ":digest-" in target}
    assert by_tag == set(wanted) - left
    assert left
    for target in left:
        assert f"copy {wanted[target]} to {target} by other means" in made.notes
    assert f"{len(by_tag)} images are pulled by tag" in made.notes
    assert "hauler/tags.txt" not in made.files


def zarfed(made: Said, host: str) -> dict[str, str]:
    """Each target with its source, as Zarf pulls and pushes and the tags are set."""
    out, named = {}, tags(made)
    for name, text in made.files.items():
        if not name.endswith("zarf.yaml"):
            continue
        config = tomllib.loads(made.files[name.replace("zarf.yaml", "zarf-config.toml")])
        changes = config.get("package", {}).get("create", {}).get("registry_override", [])
        at = config["init"]["registry"]["url"]
        assert at.partition("/")[0] == host
        (component,) = YAML(typ="safe").load(text)["components"]
        for image in component["images"]:
            target = f"{at}/{path_of(image)}@{image.rpartition('@')[2]}"
            source = image
            for old, new in sorted((c.split("=") for c in changes), reverse=True):
                if image.startswith(old):
                    source = image.replace(old, new, 1)
                    break
            plain = f"{source.partition('/')[0]}/{path_of(source)}@{source.rpartition('@')[2]}"
            out[f"{target.partition('@')[0]}:{named.pop(target)}"] = plain
    assert not named
    return out


@pytest.mark.parametrize("proxy", ["", "proxy.example.net/hub"])
@pytest.mark.parametrize("env", ["default", "bare"])
def test_zarf_takes_all_by_digest_from_where_sources_says(
    env: str, proxy: str, named: Path, kfdeploy: Runner
) -> None:
    edit_workspace(named, {"registries.sources": {"*": proxy} if proxy else {}})
    made = said(kfdeploy, named, "zarf", env)
    assert zarfed(made, "mirror.example.net") == plan(kfdeploy, named, env)
    for text in made.all("zarf.yaml"):
        package = YAML(typ="safe").load(text)
        assert package["kind"] == "ZarfPackageConfig"
        assert package["metadata"]["version"] == "1.0.0"


def test_what_zarf_cannot_rename_is_left_out_and_said(named: Path, kfdeploy: Runner) -> None:
    made = said(kfdeploy, named, "zarf", "flat")
    assert made.files == {}
    for target, source in plan(kfdeploy, named, "flat").items():
        assert f"zarf can't rename an image; copy {source} to {target} by other means" in made.notes


# -- how registries are reached, and no secrets ----------------------------------------------------


def test_how_each_registry_is_reached_is_said_without_a_secret(
    named: Path, kfdeploy: Runner, place: Place
) -> None:
    assert place.private.ca
    shutil.copyfile(place.private.ca, named / "ca.pem")
    edit_workspace(
        named,
        {
            "registries.private.skipTlsVerify": True,
            "registries.private.credentials": {"dockerConfig": str(place.sign_ins)},
            "registries.sources": {"docker.io": "proxy.example.net/hub"},
            "registries.hosts": {
                "proxy.example.net": {"ca": "ca.pem", "credentials": {"helper": "corp"}},
                "gcr.example.com": {"plainHttp": True},
            },
        },
    )
    text = said(kfdeploy, named, "regsync").files["regsync.yaml"]
    assert YAML(typ="safe").load(text)["creds"] == [
        {"registry": "gcr.example.com", "tls": "disabled"},
        {"registry": "mirror.example.net", "tls": "insecure"},
        {
            "registry": "proxy.example.net",
            "regcert": (named / "ca.pem").read_text(),
            "credHelper": "docker-credential-corp",
        },
    ]
    files = said(kfdeploy, named, "skopeo-sync").files
    of = YAML(typ="safe").load(files["skopeo-sync/kf/docker.io/library/sync.yaml"])
    assert of["proxy.example.net"].pop("images").keys() >= {"hub/library/mysql"}
    assert of == {"proxy.example.net": {"cert-dir": "certs/proxy.example.net"}}
    assert files["skopeo-sync/certs/proxy.example.net/ca.crt"] == (named / "ca.pem").read_text()
    of = YAML(typ="safe").load(files["skopeo-sync/kf/gcr.example.com/kubebuilder/sync.yaml"])
    assert of["gcr.example.com"]["tls-verify"] is False
    assert "--dest-tls-verify=false" in files["skopeo-sync/sync.sh"]
    (package,) = [
        text
        for name, text in said(kfdeploy, named, "zarf").files.items()
        if name.endswith("docker.io/zarf.yaml")
    ]
    create, mirror = package.splitlines()[1:3]
    assert "--insecure-skip-tls-verify" in mirror
    assert "--insecure-skip-tls-verify" not in create


def test_a_ca_of_a_source_that_will_not_do_is_named(named: Path, kfdeploy: Runner) -> None:
    (named / "ca.pem").write_text("hello\n")
    edit_workspace(
        named,
        {
            "registries.sources": {"*": "proxy.example.net"},
            "registries.hosts": {"proxy.example.net": {"ca": "ca.pem"}},
        },
    )
    done = kfdeploy("export", "regsync", cwd=named, check=1)
    where = "registries.hosts['proxy.example.net'].ca: ca.pem: no certificate in it"
    assert done.stderr == f"error: {where}\n  hint: name a PEM file\n"


# -- the bill of materials -------------------------------------------------------------------------


def bom(kfdeploy: Runner, root: Path, env: str = "default") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(said(kfdeploy, root, "cyclonedx", env).files["bom.json"])
    return content


def test_the_bill_of_materials_is_valid_and_names_every_image(
    named: Path, kfdeploy: Runner
) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from packageurl import PackageURL

    text = said(kfdeploy, named, "cyclonedx").files["bom.json"]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    content = json.loads(text)
    assert content["metadata"]["component"]["version"] == "1.0.0"
    images = {c["bom-ref"]: c for c in content["components"] if c["type"] == "container"}
    wanted = digests(plan(kfdeploy, named))
    mirrored = {}
    for image in images.values():
        (place,) = [p["value"] for p in image["properties"] if p["name"] == "kfdeploy:mirror"]
        url = PackageURL.from_string(image["purl"])
        digest = place.rpartition("@")[2]
        assert (url.type, url.version) == ("oci", digest)
        assert url.qualifiers["repository_url"].endswith(f"/{url.name}")
        assert image["hashes"] == [{"alg": "SHA-256", "content": digest.partition(":")[2]}]
        mirrored[place.partition("@")[0]] = digest
    assert {t: d for t, d in wanted.items() if ":digest-" not in t}.items() <= mirrored.items()
    assert set(mirrored.values()) == set(wanted.values())


def test_each_component_depends_on_the_images_that_it_names(place: Place, kfdeploy: Runner) -> None:
    extra = "registry.example.com/kubeflow/extra:1"
    push_standins(place.public.host, [extra])
    edit_workspace(place.root, {"images.exclude": None, "images.extra": [extra]})
    kfdeploy("lock", cwd=place.root)
    content = bom(kfdeploy, place.root)
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in content["dependencies"]}
    images = {c["bom-ref"]: c for c in content["components"] if c["type"] == "container"}
    parts = {c["bom-ref"]: c["name"] for c in content["components"] if c["type"] == "application"}
    assert set(needs) == {"kubeflow", *parts, *images}
    assert set(needs["kubeflow"]) == {*parts, f"image:{extra}"}
    for ref, name in parts.items():
        named_by = {
            image
            for image, component in images.items()
            for p in component["properties"]
            if p["name"] == "kfdeploy:found" and p["value"].startswith(f"{name}: ")
        }
        assert set(needs[ref]) == named_by


def test_the_serial_number_follows_from_the_content(named: Path, kfdeploy: Runner) -> None:
    first, again = bom(kfdeploy, named), bom(kfdeploy, named)
    other = bom(kfdeploy, named, "bare")
    assert first == again
    assert first["serialNumber"] != other["serialNumber"]
    assert "timestamp" not in json.dumps(first)
