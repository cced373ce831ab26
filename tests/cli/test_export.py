"""`kfdeploy export`: what nodes are told of the mirror, in each format."""

from __future__ import annotations

import importlib
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from kfdeploy.cli import export
from kfdeploy.cli.common import app
from kfdeploy.export import formats
from kfdeploy.export.formats import registries_yaml
from kfdeploy.export.routes import Route, UpstreamHost
from kfdeploy.http.pool import ConnectionPool, HttpRequest
from kfdeploy.images import lockfile, sources_file
from kfdeploy.oci.reference import ImageRef
from tests.conftest import Runner, Site, edit_workspace, tree
from tests.support.refs import written
from tests.support.registries import make_certificate

FORMATS = (
    *("hosts-toml", "registries-yaml", "idms"),
    *("regsync", "skopeo-sync", "hauler", "zarf", "cyclonedx"),
)
REGISTRY = "mirror.example.net"


@pytest.fixture(scope="module")
def root(small_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a private registry that has a name, a CA, and other environments."""
    folder = small_site.copy(tmp_path_factory.mktemp("export") / "ws")
    aside = tmp_path_factory.mktemp("ca")
    (folder / "ca.pem").write_bytes(make_certificate(aside)[0].read_bytes())
    edit_workspace(
        folder,
        {
            "registries.private": {"host": REGISTRY, "prefix": "kf/mirror", "ca": "ca.pem"},
            "environments": {
                "default": {},
                "flat": {"registry": {"prefix": "kf", "naming": {"maxDepth": 3}}},
                "bare": {"registry": {"prefix": "", "naming": {"keepHost": False}}},
                "plain": {"registry": {"host": "10.0.0.5:5000", "plainHttp": True}},
                "lax": {"registry": {"skipTlsVerify": True}},
                "same": {"registry": {"host": "registry.example.com"}},
            },
        },
    )
    return folder


def exported(kfdeploy: Runner, root: Path, name: str, env: str = "default") -> dict[str, str]:
    found: dict[str, str] = kfdeploy(
        "export", name, "--env", env, "--output", "json", "-q", cwd=root
    ).json
    return found


def mirrored(root: Path) -> dict[str, ImageRef]:
    """The references of all images that the mirror holds."""
    covered = {
        i.ref
        for i in sources_file.parse_sources((root / sources_file.NAME).read_text())
        if i.covered
    }
    locked = lockfile.read_lock(root / "images.lock")
    return {image.id.text: image.id.parsed for image in locked if image.id in covered}


# -- containerd ------------------------------------------------------------------------------------


def test_each_upstream_host_has_a_hosts_toml(root: Path, kfdeploy: Runner) -> None:
    files = exported(kfdeploy, root, "hosts-toml")
    hosts = {ref.host for ref in mirrored(root).values()}
    assert {"docker.io"} < hosts
    folders = {re.sub(r":(\d+)$", r"_\1_", host) for host in hosts}
    assert {n.split("/")[1] for n in files} == folders | {REGISTRY}
    assert files[f"certs.d/{REGISTRY}/ca.crt"] == (root / "ca.pem").read_text()
    docker = tomllib.loads(files["certs.d/docker.io/hosts.toml"])
    assert docker == {
        "server": "https://registry-1.docker.io",
        "host": {
            f"https://{REGISTRY}/v2/kf/mirror/docker.io": {
                "capabilities": ["pull", "resolve"],
                "override_path": True,
                "ca": f"../{REGISTRY}/ca.crt",
            }
        },
    }
    own = tomllib.loads(files[f"certs.d/{REGISTRY}/hosts.toml"])
    assert own["host"][f"https://{REGISTRY}"]["ca"] == "ca.crt"
    assert "override_path" not in own["host"][f"https://{REGISTRY}"]


def test_every_image_is_found_where_the_mirror_put_it(root: Path, kfdeploy: Runner) -> None:
    """As containerd joins a URL: the host's own, then the repository."""
    files = exported(kfdeploy, root, "hosts-toml")
    for ref, target in targets(root, "kf/mirror").items():
        host = ImageRef.parse(ref).host
        name = re.sub(r":(\d+)$", r"_\1_", host)
        (url,) = tomllib.loads(files[f"certs.d/{name}/hosts.toml"])["host"]
        assert f"{url}/{ImageRef.parse(ref).path}" == f"https://{REGISTRY}/v2/{target}"


def targets(root: Path, prefix: str) -> dict[str, str]:
    """Where the lock's own path annotation puts each image."""
    locked = lockfile.read_lock(root / "images.lock")
    return {ref: f"{prefix}/{locked.by_id[written(ref)].path}" for ref in mirrored(root)}


def test_http_and_no_verification_are_said_only_where_the_site_says_so(
    root: Path, kfdeploy: Runner
) -> None:
    plain = exported(kfdeploy, root, "hosts-toml", "plain")
    (url,) = tomllib.loads(plain["certs.d/docker.io/hosts.toml"])["host"]
    assert url == "http://10.0.0.5:5000/v2/kf/mirror/docker.io"
    # With a TLS setting beside it containerd would try HTTPS first.
    assert not [n for n, text in plain.items() if "ca =" in text or "skip_verify" in text]
    assert "http://10.0.0.5:5000" in plain["certs.d/10.0.0.5_5000_/hosts.toml"]
    lax = exported(kfdeploy, root, "hosts-toml", "lax")
    assert all("skip_verify = true" in t for n, t in lax.items() if n.endswith(".toml"))
    assert not [t for t in exported(kfdeploy, root, "hosts-toml").values() if "skip_verify" in t]


def test_without_host_and_prefix_the_root_is_v2(root: Path, kfdeploy: Runner) -> None:
    files = exported(kfdeploy, root, "hosts-toml", "bare")
    (url,) = tomllib.loads(files["certs.d/docker.io/hosts.toml"])["host"]
    assert url == f"https://{REGISTRY}/v2"


def test_a_path_that_max_depth_joins_is_an_error_that_names_image_and_setting(
    root: Path, kfdeploy: Runner
) -> None:
    said = kfdeploy("export", "hosts-toml", "--env", "flat", cwd=root, check=1)
    joined = {ref: t for ref, t in targets(root, "kf").items() if t.count("/") > 2}
    named = set(
        re.findall(r"error: (\S+): registries.private.naming.maxDepth makes it kf/", said.stderr)
    )
    assert joined
    repositories = {ImageRef.parse(ref).repository for ref in joined}
    assert {ImageRef.parse(ref).repository for ref in named} == repositories
    assert len(named) == len(repositories)
    assert said.stdout == ""


# -- K3s and RKE2 ----------------------------------------------------------------------------------


def rewritten(mirror: dict[str, Any], repository: str) -> set[str]:
    """What a host's rules make of a repository: every rule that changes it, as any may be first."""
    out = set()
    for pattern, new in mirror.get("rewrite", {}).items():
        changed = re.sub(pattern, new.replace("$1", r"\1"), repository)
        if changed != repository:
            out.add(changed)
    return out or {repository}


@pytest.mark.parametrize("env", ["default", "flat", "bare"])
def test_rewrite_rules_lead_every_image_to_its_place(
    env: str, root: Path, kfdeploy: Runner
) -> None:
    data = YAML(typ="safe").load(
        exported(kfdeploy, root, "registries-yaml", env)["registries.yaml"]
    )
    idms = list(YAML(typ="safe").load_all(exported(kfdeploy, root, "idms", env)["idms.yaml"]))
    places = {e["source"]: e["mirrors"] for e in idms[0]["spec"]["imageDigestMirrors"]}
    for ref in mirrored(root).values():
        mirror = data["mirrors"][ref.host]
        assert mirror["endpoint"] == [f"https://{REGISTRY}"]
        (found,) = rewritten(mirror, ref.path)
        assert [f"{REGISTRY}/{found}"] == places[ref.repository]
    assert data["configs"][REGISTRY]["tls"]["ca_file"].startswith("/etc/rancher/")
    assert set(data["configs"][REGISTRY]) == {"tls"}


def test_no_rule_has_a_backslash_which_k3s_would_copy_into_toml(
    root: Path, kfdeploy: Runner
) -> None:
    text = exported(kfdeploy, root, "registries-yaml", "flat")["registries.yaml"]
    assert "\\" not in text
    assert '"^istio/' in text


def test_a_dot_in_a_repository_is_a_dot_in_its_rule() -> None:
    route = Route("a.b/c/d", "kf/x/a.b-c-d", (written("x.example/a.b/c/d:1"),))
    other = Route("a-b/c", "kf/x/a-b-c", (written("x.example/a-b/c:1"),))
    rules = dict(registries_yaml.rewrite_rules(UpstreamHost("x.example", (route, other))))
    assert rewritten({"rewrite": rules}, "a.b/c/d") == {"kf/x/a.b-c-d"}
    assert rewritten({"rewrite": rules}, "a-b/c/d") == {"a-b/c/d"}


def test_k3s_speaks_http_to_the_registry_itself_too(root: Path, kfdeploy: Runner) -> None:
    files = exported(kfdeploy, root, "registries-yaml", "plain")
    assert set(files) == {"registries.yaml"}
    data = YAML(typ="safe").load(files["registries.yaml"])
    assert data["mirrors"]["10.0.0.5:5000"]["endpoint"] == ["http://10.0.0.5:5000"]
    assert "configs" not in data


# -- OpenShift -------------------------------------------------------------------------------------


def test_both_sets_have_a_rule_a_repository(root: Path, kfdeploy: Runner) -> None:
    text = exported(kfdeploy, root, "idms", "flat")["idms.yaml"]
    digest, tag = YAML(typ="safe").load_all(text)
    assert (digest["kind"], tag["kind"]) == ("ImageDigestMirrorSet", "ImageTagMirrorSet")
    assert digest["apiVersion"] == tag["apiVersion"] == "config.openshift.io/v1"
    rules = digest["spec"]["imageDigestMirrors"]
    assert rules == tag["spec"]["imageTagMirrors"]
    assert {r["source"] for r in rules} == {ref.repository for ref in mirrored(root).values()}
    assert all(len(r["mirrors"]) == 1 and r["mirrors"][0].count("/") <= 3 for r in rules)


def test_what_openshift_keeps_elsewhere_is_said(root: Path, kfdeploy: Runner) -> None:
    assert "additionalTrustedCA" in kfdeploy("export", "idms", cwd=root).stderr
    plain = kfdeploy("export", "idms", "--env", "plain", cwd=root)
    assert "10.0.0.5:5000 to spec.registrySources.insecureRegistries" in plain.stderr


# -- the registry really has them there ------------------------------------------------------------


def asked_for(url: str, tag: str) -> str:
    """The digest that a registry has for a tag of a repository's URL."""
    types = ("vnd.oci.image.index.v1", "vnd.oci.image.manifest.v1")
    docker = ("distribution.manifest.list.v2", "distribution.manifest.v2")
    accept = [f"application/{t}+json" for t in types]
    accept += [f"application/vnd.docker.{t}+json" for t in docker]
    request = HttpRequest("HEAD", f"{url}/manifests/{tag}", {"Accept": ", ".join(accept)})
    response = ConnectionPool().send(request)
    assert response.status == 200
    return response.headers["docker-content-digest"]


def test_a_node_that_follows_each_format_finds_every_image(
    small_site: Site, kfdeploy: Runner
) -> None:
    certs = exported(kfdeploy, small_site.root, "hosts-toml")
    rancher = YAML(typ="safe").load(
        exported(kfdeploy, small_site.root, "registries-yaml")["registries.yaml"]
    )
    locked = lockfile.read_lock(small_site.root / "images.lock").by_id
    asked = 0
    for name, ref in mirrored(small_site.root).items():
        if not locked[written(name)].tag:
            continue
        folder = re.sub(r":(\d+)$", r"_\1_", ref.host)
        (url,) = tomllib.loads(certs[f"certs.d/{folder}/hosts.toml"])["host"]
        assert (
            asked_for(f"{url}/{ref.path}", locked[written(name)].tag)
            == locked[written(name)].digest
        )
        mirror = rancher["mirrors"][ref.host]
        (path,) = rewritten(mirror, ref.path)
        (endpoint,) = mirror["endpoint"]
        assert (
            asked_for(f"{endpoint}/v2/{path}", locked[written(name)].tag)
            == locked[written(name)].digest
        )
        asked += 1
    assert asked > 20


def test_skopeo_finds_them_by_the_rules_of_openshift(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    """The library that CRI-O pulls with, told the rules as OpenShift tells them to it."""
    text = exported(kfdeploy, small_site.root, "idms")["idms.yaml"]
    _, tags = YAML(typ="safe").load_all(text)
    conf = tmp_path / "registries.conf"
    conf.write_text(
        "".join(
            f'[[registry]]\nlocation = "{rule["source"]}"\nblocked = true\n'
            f'[[registry.mirror]]\nlocation = "{rule["mirrors"][0]}"\ninsecure = true\n'
            for rule in tags["spec"]["imageTagMirrors"]
        )
    )
    locked = lockfile.read_lock(small_site.root / "images.lock").by_id
    some = [name for name in mirrored(small_site.root) if locked[written(name)].tag][::8]
    assert len(some) > 3
    for name in some:
        words = [
            "skopeo",
            f"--registries-conf={conf}",
            "inspect",
            "--no-tags",
            "--format",
            "{{.Digest}}",
            f"docker://{name}",
        ]
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stdout.strip() == locked[written(name)].digest, done.stderr


# -- which images, and where to --------------------------------------------------------------------


def test_an_excluded_image_is_in_no_format(
    small_site: Site, kfdeploy: Runner, tmp_path: Path
) -> None:
    root = small_site.copy(tmp_path / "ws")
    (ref, *_) = (r for r in mirrored(root).values() if r.host == "docker.io")
    alike = [str(r) for r in mirrored(root) if ImageRef.parse(r).repository == ref.repository]
    gone = [{"ref": r, "reason": "not here"} for r in alike]
    edit_workspace(root, {"images.exclude": gone})
    kfdeploy("lock", "--offline", cwd=root)
    text = kfdeploy("export", "idms", "-q", cwd=root).stdout
    assert f"source: {ref.repository}\n" not in text
    assert "source: docker.io/" in text


@pytest.mark.parametrize("name", FORMATS)
def test_written_files_are_what_stdout_says_and_stay_the_same(
    name: str, root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    to = tmp_path / "out"
    assert kfdeploy("export", name, "--to", to, "--check", "-q", cwd=root, check=3).stdout
    assert not to.exists()
    kfdeploy("export", name, "--to", to, cwd=root)
    files = exported(kfdeploy, root, name)
    assert {n: text.encode() for n, text in files.items()} == tree(to)
    stream = kfdeploy("export", name, "-q", cwd=root).stdout
    for file, text in files.items():
        assert text in stream
        assert (f"# {file}\n" in stream) == (len(files) > 1)
    again = kfdeploy("export", name, "--to", to, cwd=root).stdout
    assert ", 0 written, 0 removed" in again
    kfdeploy("export", name, "--to", to, "--check", cwd=root)


def test_files_of_hosts_that_are_gone_are_removed_and_peoples_are_not(
    root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    to = tmp_path / "out"
    kfdeploy("export", "hosts-toml", "--to", to, cwd=root)
    old = to / "certs.d/gone.example.com/hosts.toml"
    mine = to / "certs.d/mine.example.com/hosts.toml"
    for path in (old, mine):
        path.parent.mkdir()
    old.write_text((to / "certs.d/docker.io/hosts.toml").read_text())
    mine.write_text('server = "https://mine.example.com"\n')
    check = kfdeploy("export", "hosts-toml", "--to", to, "--check", cwd=root, check=3)
    assert check.stdout == "stale: certs.d/gone.example.com/hosts.toml\n"
    kfdeploy("export", "hosts-toml", "--to", to, cwd=root)
    assert not old.parent.exists()
    assert mine.exists()


def test_an_unknown_format_is_wrong_use_and_lists_those_there_are(
    root: Path, kfdeploy: Runner
) -> None:
    said = kfdeploy("export", "hosts.toml", cwd=root, check=2).stderr
    assert said.startswith("error: hosts.toml: there is no such format\n  hint: ")
    assert all(name in said for name in FORMATS)
    assert "export needs a FORMAT" in kfdeploy("export", cwd=root, check=2).stderr
    kfdeploy("export", "idms", "--check", cwd=root, check=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "ca.pem: no such file or directory"),
        ("hello\n", "ca.pem: no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n", "contains a private key"),
        ("-----BEGIN CERTIFICATE-----\n" * 8000, "more than 131072 bytes"),
    ],
    ids=["missing", "none", "key", "bundle"],
)
def test_a_ca_file_that_will_not_do_is_named(
    text: str | None, message: str, root: Path, kfdeploy: Runner, tmp_path: Path
) -> None:
    folder = tmp_path / "ws"
    folder.mkdir()
    for name in ("kfdeploy.yaml", "images.lock", sources_file.NAME):
        (folder / name).write_bytes((root / name).read_bytes())
    if text is not None:
        (folder / "ca.pem").write_text(text)
    said = kfdeploy("export", "hosts-toml", cwd=folder, check=1).stderr
    assert message in said
    assert "Traceback" not in said


def test_nobody_is_led_from_the_private_registry_to_itself(root: Path, kfdeploy: Runner) -> None:
    assert "registry.example.com" in {ref.host for ref in mirrored(root).values()}
    files = exported(kfdeploy, root, "idms", "same")
    assert "source: registry.example.com" not in files["idms.yaml"]


# -- the command line ------------------------------------------------------------------------------


def test_help_lists_each_format_with_its_line(kfdeploy: Runner) -> None:
    said = " ".join(kfdeploy("export", "--help").stdout.split())
    for known in formats.FORMATS:
        assert f"{known.name} {known.summary}" in said, known.name
        assert f"{known.audience}:" in said


def test_a_format_shows_the_options_that_it_has_alone(kfdeploy: Runner) -> None:
    flux, idms = (kfdeploy("export", name, "--help").stdout for name in ("flux", "idms"))
    argocd, gitlab = (kfdeploy("export", name, "--help").stdout for name in ("argocd", "gitlab-ci"))
    assert "--interval" in flux and "--secret" in flux and "SET" in flux
    assert "--repo" in argocd and "--interval" not in argocd
    assert "--gap" in gitlab and "SET" not in gitlab
    for option in ("--interval", "--repo", "--gap", "SET"):
        assert option not in idms
    for said in (flux, idms, argocd, gitlab):
        assert all(f" {option} " in said for option in ("--to", "--env", "--check", "--output"))


def test_options_may_stand_before_the_format_and_others_options_are_taken(
    root: Path, kfdeploy: Runner
) -> None:
    """The form of old scripts, from when `export` was one command."""
    expected = kfdeploy("export", "idms", "--env", "flat", cwd=root)
    before = kfdeploy("export", "-q", f"-C{root}", "--env", "flat", "idms")
    assert before.stdout == expected.stdout
    after = kfdeploy("export", "--name", "zarf", "idms", "--gap", "--env=flat", cwd=root)
    assert (after.stdout, after.stderr) == (expected.stdout, expected.stderr)
    assert "unexpected extra argument" in kfdeploy("export", "idms", "x", cwd=root, check=2).stderr


MADE_UP = '''"""A list of the mirror's images."""

from dataclasses import dataclass
from typing import Annotated

from kfdeploy.export.format import ExportedFiles, ExportFormat, ExportOption
from kfdeploy.export.mirror_material import MirrorMaterial, gather_mirror


@dataclass(frozen=True)
class ListOptions:
    bullet: Annotated[str, ExportOption("--bullet", "What each line begins with.")] = "-"


@dataclass(frozen=True)
class Images:
    notes: tuple[str, ...]
    lines: list[str]


def gather(request):
    material = gather_mirror(request)
    lines = [f"{request.options.bullet} {copy.target.reference}" for copy in material.copies]
    return Images(material.notes, lines)


def export(images):
    return ExportedFiles({"images.txt": "\\n".join(images.lines) + "\\n"}, ("images.txt",))


FORMAT = ExportFormat(
    name="made-up",
    summary="a plain list",
    audience="People",
    gather=gather,
    export=export,
    options=ListOptions,
)
'''


def test_a_new_format_is_one_module_and_its_line_in_the_list(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "made_up.py").write_text(MADE_UP)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path)])
    made_up = importlib.import_module("kfdeploy.export.formats.made_up")
    monkeypatch.setattr(formats, "FORMATS", [*formats.FORMATS, made_up.FORMAT])

    def run(*words: str) -> str:
        assert export.exports in [group.typer_instance for group in app.registered_groups]
        typer.main.get_command(app)(["export", *words], standalone_mode=False)
        return capsys.readouterr().out

    said = run("--help")
    assert "People:\n  made-up  a plain list\n" in said
    assert "--bullet" not in said
    own = run("made-up", "--help")
    assert "--bullet" in own and "What each line begins with." in own
    assert "--bullet" not in run("idms", "--help")
    lines = run("made-up", "-C", str(root), "--bullet", "*").splitlines()
    assert len(lines) > 20
    assert all(line.startswith(f"* {REGISTRY}/kf/mirror/") for line in lines)
    run("made-up", "-C", str(root), "--to", str(tmp_path / "out"))
    assert (tmp_path / "out/images.txt").read_text().startswith("- ")
