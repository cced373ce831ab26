"""What `scan --egress` lists, held against what people read in the manifests."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kfdeploy.catalogue import load
from kfdeploy.codec import to_json
from kfdeploy.images.inventory import NEEDS
from kfdeploy.session import Session
from tests.conftest import DATA, RELEASES, Runner, Site
from tests.support.workspaces import deployment, workspace

RealSite = Callable[[str], Site]
KEYS = (
    *("what", "target", "need", "component", "object", "field", "file", "line", "why", "wayOut"),
    "source",
)


@cache
def _answer(root: Path) -> Any:
    return to_json(Session.open(root, "", quiet=True).scan_egress())


def of_manifests(site: Site) -> list[Any]:
    """What stands in the manifests; what the catalogue adds has tests of its own."""
    return [record for record in _answer(site.root)["egress"] if record["file"]]


def lines(records: list[Any]) -> list[str]:
    return sorted(
        f"{r['what']} {r['need']} {r['target']} {r['component']} {r['file']}:{r['line']}"
        for r in records
    )


def listed(name: str) -> list[str]:
    text = (DATA / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


# -- the releases ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", RELEASES)
def test_a_release_reaches_for_what_was_read_in_it(real_site: RealSite, version: str) -> None:
    assert lines(of_manifests(real_site(version))) == listed(f"egress-{version}.txt")


def test_the_small_upstream_reaches_for_what_was_read_in_it(small_site: Site) -> None:
    assert lines(of_manifests(small_site)) == listed("egress-small.txt")


URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s\"'<>`\\]*")
IGNORED = {
    "a Service, or the pod itself": r"\w+://(?:localhost|127\.0\.0\.1|[\w-]+|[\w-]+\.[\w-]+)(?::\d+)?(?=/|\W*$)"
    r"|\w+://[\w-]+\.[\w-]+\.svc(?:\.cluster\.local)?(?=[:/]|\W*$)",
    "a host that is filled in when it runs": r"\w+://\$|dns:///istiod\.\$|xds:///",
    "names an owner for Istio": r"kubernetes://",
    "an answer of oauth2-proxy's own": r"static://200",
    "a prefix or a pattern of what may be asked for": r"\w+://$|https://\(\.\+\?\)",
    "a name of an XML namespace or document type": r"http://www\.(?:w3\.org|figma\.com)/",
}
"""What looks like a URL in the manifests and leads nowhere outside, by reason."""
COMMENT = re.compile(r"^\s*(?:#|- #).*$", re.MULTILINE)


def strings(site: Site) -> Iterator[tuple[str, str, str]]:
    """Component, key and text of every string in the manifests.

    Without metadata, which is for people, documentation blocks and comments. A list's strings have
    its key, and are one text: a command may be split into words.
    """
    for item in Session.open(site.root, "", quiet=True).render_components():
        for document in item.objects:
            if not document.is_crd:
                body = {k: v for k, v in document.body.items() if k != "metadata"}
                for key, text in below("", body):
                    yield item.component.name, key, COMMENT.sub("", text)


def below(key: str, node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name not in ("_example", "metadata"):
                yield from below(name, value)
    elif isinstance(node, list):
        if words := [value for value in node if isinstance(value, str)]:
            yield key, " ".join(words)
        for value in node:
            if not isinstance(value, str):
                yield from below(key, value)
    elif isinstance(node, str):
        yield key, node


@pytest.mark.parametrize("version", RELEASES)
def test_every_url_in_the_manifests_is_listed_or_explained(
    real_site: RealSite, version: str
) -> None:
    known = {record["target"] for record in of_manifests(real_site(version))}
    ignored = re.compile("|".join(IGNORED.values()))
    left = {
        (component, url)
        for component, _, text in strings(real_site(version))
        for url in urls(text)
        if url not in known and not ignored.match(url)
    }
    assert left == set()


def urls(text: str) -> list[str]:
    return [match[0].rstrip(",;)") for match in URL.finditer(text)]


@pytest.mark.parametrize("version", RELEASES)
def test_each_reason_to_pass_over_a_url_is_needed(real_site: RealSite, version: str) -> None:
    there = {url for _, _, text in strings(real_site(version)) for url in urls(text)}
    unused = [why for why, rule in IGNORED.items() if not any(re.match(rule, u) for u in there)]
    assert unused == []


INSTALL = re.compile(
    r"\b(?:pip3?|npm|apt(?:-get)?|apk|conda|go|gem|cargo|helm|git)[\s\"',-]+(?:install|add|clone|get)\b"
    r"|from_pretrained|load_dataset|\bhf\b(?!:)|huggingface-cli|model_id|\b(?:curl|wget) [^\n]*"
)
NO_INSTALL = re.compile(
    r"wget -q (?:-S -O - |--spider )http://(?:127\.0\.0\.1|localhost):\d+/\S*"  # probes
)


@pytest.mark.parametrize("version", RELEASES)
def test_nothing_installs_or_fetches_by_name_in_the_manifests(
    real_site: RealSite, version: str
) -> None:
    left = {
        (component, match[0])
        for component, _, text in strings(real_site(version))
        for match in INSTALL.finditer(text)
        if not NO_INSTALL.match(match[0])
    }
    assert left == set()


HOST = re.compile(
    r"(?<![\w.@/:-])(?:[a-z0-9-]+\.)+(?:com|org|net|io|co|dev|ai|cloud|gov|edu)(?::\d+)?(?![\w./-])"
)
NAMES = {
    # groups of the API
    *("apiGroups", "apiGroup", "group", "groups", "clusterRoleSelectors", "resourceNames"),
    *("name", "key", "audience", "driver", "domainTemplate", "kubernetes.podspec-dryrun"),
}
"""Keys of names that are written like hosts: groups, webhooks, resources, labels, audiences."""
NO_HOST = re.compile(
    # Katib's kinds of trials; the trainer's limits of concurrency, and its lease
    r"(?:\w+\.)?(?:v1(?:alpha1)?\.)?(?:trainer\.)?kubeflow\.org"
    r"|example\.com"  # the domain that the site answers for
    r"|data-plane\.knative\.dev"  # a name in a certificate
    r"|(?:[a-z-]+\.)*istio\.io|nvidia\.com"  # annotations and resources in templates
    r"|workloadcertificates\.security\.cloud\.google\.com"  # a volume's driver, in one too
)


@pytest.mark.parametrize("version", RELEASES)
def test_no_host_stands_alone_in_the_manifests(real_site: RealSite, version: str) -> None:
    known = {record["target"] for record in of_manifests(real_site(version))}
    left = {
        (component, key, match[0])
        for component, key, text in strings(real_site(version))
        for match in HOST.finditer(URL.sub("", text))
        if key not in NAMES and match[0] not in known and not NO_HOST.fullmatch(match[0])
    }
    assert left == set()


@pytest.mark.parametrize("version", RELEASES)
def test_no_crd_has_a_webhook_by_url(real_site: RealSite, version: str) -> None:
    session = Session.open(real_site(version).root, "", quiet=True)
    crds = [o.text for item in session.render_components() for o in item.objects if o.is_crd]
    assert crds
    hooks = [m[0] for text in crds for m in re.finditer(r"clientConfig:\n(?: +.*\n){1,8}", text)]
    assert all("service:" in hook and "url:" not in hook for hook in hooks)


# -- through the front door ------------------------------------------------------------------------

OBJECTS = (
    deployment("d", "python:3.11")
    + """\
        command: [pip, install]
        args:
        - kfp==2.0
        env:
        - name: ISSUER_URL
          value: https://login.corp.example/realms/a
        - name: API
          value: http://thing.dev:8080
---
apiVersion: v1
kind: Service
metadata:
  name: thing
  namespace: dev
---
apiVersion: v1
kind: ConfigMap
metadata: {name: m, namespace: n}
data:
  conf.yaml: |
    # https://docs.example.org
    store:
      endpoint: s3.amazonaws.com
"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, kfdeploy: Runner) -> Path:
    return workspace(tmp_path_factory.mktemp("egress"), kfdeploy, OBJECTS)


def test_each_address_has_its_place_and_way_out(site: Path, kfdeploy: Runner) -> None:
    answer = kfdeploy("scan", "--egress", "--format", "json", cwd=site).json
    assert answer["upstream"] == {"version": "1.0"}
    assert answer["unread"] == []
    assert all(tuple(record) == KEYS for record in answer["egress"])
    assert [(r["what"], r["target"], r["line"]) for r in answer["egress"]] == [
        ("package-install", "pip install kfp==2.0", 13),
        ("identity", "https://login.corp.example/realms/a", 18),
        ("other", "s3.amazonaws.com", 35),
    ]
    assert {r["file"] for r in answer["egress"]} == {"apps/one/objects.yaml"}
    first = answer["egress"][0]
    assert first["object"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "namespace": "n",
        "name": "d",
    }
    assert first["field"] == "spec.template.spec.containers[name=main].command[0]"
    assert "PIP_INDEX_URL on container main" in first["wayOut"]
    assert all(r["need"] in NEEDS and r["source"] == "manifest" for r in answer["egress"])


def test_output_json_is_the_same_as_format_json(site: Path, kfdeploy: Runner) -> None:
    by_format = kfdeploy("scan", "--egress", "--format", "json", cwd=site).stdout
    assert kfdeploy("scan", "--egress", "--output", "json", cwd=site).stdout == by_format


def test_the_table_names_address_place_and_way_out(site: Path, kfdeploy: Runner) -> None:
    table = kfdeploy("scan", "--egress", cwd=site).stdout
    assert "package-install  required     pip install kfp==2.0" in table
    assert "one: apps/one/objects.yaml:13" in table
    assert "way out: set PIP_INDEX_URL on container main" in table
    assert table.endswith("\n3 addresses outside the cluster\n")


def test_programs_that_nobody_has_read_are_named(tmp_path: Path, kfdeploy: Runner) -> None:
    site = workspace(tmp_path, kfdeploy, deployment("d", "registry.example/tool:1.2"))
    said = kfdeploy("scan", "--egress", cwd=site).stderr
    assert said.endswith(
        "note: nobody has reviewed which addresses these use: registry.example/tool:1.2\n"
        "  to search: `kfdeploy scan` names their images and the command for each\n"
    )
    assert "note:" not in kfdeploy("scan", "--egress", "--format", "csv", cwd=site).stderr
    answer = kfdeploy("scan", "--egress", "--output", "json", cwd=site).json
    assert answer["unread"] == ["registry.example/tool:1.2"]


def test_csv_and_refs_have_a_line_each(site: Path, kfdeploy: Runner) -> None:
    rows = list(
        csv.DictReader(
            kfdeploy("scan", "--egress", "--format", "csv", cwd=site).stdout.splitlines()
        )
    )
    refs = kfdeploy("scan", "--egress", "--format", "refs", cwd=site).stdout.splitlines()
    assert tuple(rows[0]) == KEYS
    assert [row["target"] for row in rows] == refs


FACTS = """\
component: thing
programs: ["*/library/python"]
read: [{versions: '3.11', source: example-org/thing@v1}]
egress:
- what: telemetry
  target: https://stats.example.org
  when: it counts its users at start
  way_out: env NO_STATS=1
  need: optional
  source: example-org/thing@v1:main.py:3
"""


def test_what_a_sites_catalogue_knows_is_added_with_its_source(
    tmp_path: Path, kfdeploy: Runner
) -> None:
    site = workspace(tmp_path, kfdeploy, OBJECTS)
    (site / "catalogue").mkdir()
    (site / "catalogue" / "thing.yaml").write_text(FACTS)
    answer = kfdeploy("scan", "--egress", "--output", "json", cwd=site).json["egress"]
    (record,) = [r for r in answer if r["source"] != "manifest"]
    assert record == {
        "what": "telemetry",
        "target": "https://stats.example.org",
        "need": "optional",
        "component": "one",
        "object": {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "n", "name": "d"},
        "field": "container main",
        "file": None,
        "line": None,
        "why": "it counts its users at start",
        "wayOut": "env NO_STATS=1",
        "source": "example-org/thing@v1:main.py:3",
    }


def test_a_fact_that_was_read_at_another_version_says_so(tmp_path: Path, kfdeploy: Runner) -> None:
    site = workspace(tmp_path, kfdeploy, OBJECTS)
    (site / "catalogue").mkdir()
    (site / "catalogue" / "thing.yaml").write_text(FACTS.replace("3.11", "3.12"))
    answer = kfdeploy("scan", "--egress", "--output", "json", cwd=site).json
    (record,) = [r for r in answer["egress"] if r["source"] != "manifest"]
    assert record["unread"] == "thing 3.11"
    assert answer["unread"] == ["thing 3.11"]
    table = kfdeploy("scan", "--egress", cwd=site).stdout
    assert "way out: env NO_STATS=1\n  reviewed at another version: thing 3.11 runs here\n" in table


RUNTIME = """
---
apiVersion: serving.kserve.io/v1alpha1
kind: ClusterServingRuntime
metadata: {name: server}
spec:
  containers:
  - name: kserve-container
    image: python:3.11
"""


def test_a_program_that_only_a_custom_resource_names_has_its_facts(
    tmp_path: Path, kfdeploy: Runner
) -> None:
    site = workspace(tmp_path, kfdeploy, RUNTIME)
    (site / "catalogue").mkdir()
    (site / "catalogue" / "thing.yaml").write_text(FACTS)
    (record,) = kfdeploy("scan", "--egress", "--output", "json", cwd=site).json["egress"]
    assert record["target"] == "https://stats.example.org"
    assert record["object"]["kind"] == "ClusterServingRuntime"
    assert record["field"] == "spec.containers[name=kserve-container].image"


@pytest.mark.slow
def test_every_fact_of_the_catalogue_is_listed_somewhere(real_site: RealSite, beside: Path) -> None:
    roots = (real_site("26.03").root, real_site("1.10.2").root, beside)
    listed_facts = {
        (r["what"], r["target"], r["source"]) for root in roots for r in _answer(root)["egress"]
    }
    known = {
        (fact.what, fact.target, fact.source)
        for entry in load.load_catalogue().entries
        for fact in entry.egress
        if not fact.versions  # others may hold for other releases alone
    }
    assert known - listed_facts == set()


@pytest.mark.parametrize("version", RELEASES)
def test_every_program_of_a_release_was_read(real_site: RealSite, version: str) -> None:
    answer = _answer(real_site(version).root)
    assert answer["unread"] == []
    assert not [r for r in answer["egress"] if "unread" in r]


def test_what_the_catalogue_knows_of_an_address_in_a_manifest_goes_to_its_place(
    tmp_path: Path, kfdeploy: Runner
) -> None:
    site = workspace(tmp_path, kfdeploy, OBJECTS)
    (site / "catalogue").mkdir()
    facts = FACTS.replace("https://stats.example.org", "s3.amazonaws.com")
    (site / "catalogue" / "thing.yaml").write_text(facts.replace("telemetry", "other"))
    answer = kfdeploy("scan", "--egress", "--output", "json", cwd=site).json["egress"]
    (record,) = [r for r in answer if r["target"] == "s3.amazonaws.com"]
    assert (record["file"], record["line"]) == ("apps/one/objects.yaml", 35)
    assert (record["need"], record["why"]) == ("optional", "it counts its users at start")
    assert record["wayOut"].startswith("env NO_STATS=1; or copy the data to")
    assert record["source"] == "example-org/thing@v1:main.py:3"


def test_a_fact_of_a_program_that_several_components_run_is_given_once(
    real_site: RealSite,
) -> None:
    records = _answer(real_site("26.03").root)["egress"]
    facts = [(r["what"], r["target"], r["why"], r["source"]) for r in records if not r["file"]]
    assert facts
    assert len(facts) == len(set(facts))
    istio = {r["component"] for r in records if r["source"].startswith("istio/")}
    assert istio == {"istio-install"}


def test_a_second_answer_comes_from_the_cache_and_is_the_same(site: Path) -> None:
    first = Session.open(site, "", quiet=True).scan_egress()
    assert Session.open(site, "", quiet=True).scan_egress() == first
    assert first.records
