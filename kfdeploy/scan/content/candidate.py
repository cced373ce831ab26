"""What may be an image in bytes that nobody described: its form, the evidence, and a score.

A score is only an order: from LIKELY on, more than four in five were images in the operators that
this was tuned on (docs/image-content.md); what is below POSSIBLE is not kept at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from kfdeploy.oci.reference import ImageRef, InvalidImageRef

Bounds = Literal["exact", "quoted", "word", "unsure"]
"""How sure the two ends of a reference are: a Go constant of just this length, a quoted literal,
a word between blanks or other signs, or a guess among neighbours."""

LIKELY: Final = 50
POSSIBLE: Final = 30
TOKEN: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/:@%${}<>-"
"""Bytes that a reference, and a placeholder in it, is written with."""

_KNOWN: Final = re.compile(
    r"(?:[\w-]+\.)?(?:docker\.io|quay\.io|gcr\.io|ghcr\.io|nvcr\.io|lscr\.io)"
    r"|registry\.k8s\.io|public\.ecr\.aws|mcr\.microsoft\.com|icr\.io|registry\.(?:[\w-]+\.)+[a-z]+"
    r"|[\w.-]+\.(?:pkg\.dev|azurecr\.io|amazonaws\.com|cr\.aliyuncs\.com)|registry\.gitlab\.com"
    r"|(?:docker|images?|cr|harbor|container-registry)\.(?:[\w-]+\.)+[a-z]+|cgr\.dev"
)
_ONE_IS_ENOUGH: Final = ("docker.io", "registry.k8s.io", "mcr.microsoft.com")
"""Registries with images right below the host; elsewhere one path element is a project."""
_NO_REGISTRY: Final = re.compile(
    r"(?:[\w-]+\.)*(?:github|gitlab|bitbucket|golang|google|googleapis|kubernetes|k8s|x-k8s"
    r"|githubusercontent|gopkg|sourceforge|apache|wikipedia|w3|ietf|json-schema|unpkg|jsdelivr)"
    r"\.(?:com|org|io|in|net)|(?:[\w-]+\.)*(?:istio\.io|knative\.dev|kubeflow\.org|kserve\.io"
    r"|cert-manager\.io|argoproj\.io|grpc\.io|etcd\.io|go\.uber\.org|go\.opencensus\.io"
    r"|go\.opentelemetry\.io|helm\.sh|cncf\.io|pypi\.org|npmjs\.org|npmjs\.com)"
)
"""Hosts of source code, label keys, API groups and documents."""
_OFFICIAL_NAMES: Final = """
adminer alpine amazoncorretto archlinux bash buildpack-deps busybox caddy cassandra centos
chronograf clojure composer consul couchbase couchdb debian docker eclipse-mosquitto
eclipse-temurin elasticsearch elixir erlang fedora fluentd gcc ghost golang gradle grafana
groovy haproxy haskell hello-world httpd influxdb ibmjava java jenkins jetty joomla jruby julia
kapacitor kibana kong logstash mariadb maven memcached mongo mongo-express mysql nats neo4j
nextcloud nginx node odoo openjdk oraclelinux percona perl phpmyadmin php postgres pypy python
r-base rabbitmq redis registry rockylinux ros ruby rust solr sonarqube spark storm swift
telegraf tomcat traefik ubuntu varnish vault wordpress zookeeper
"""
_OFFICIAL: Final = frozenset(_OFFICIAL_NAMES.split())
"""Names of Docker Hub's official images."""
_TAG_WORDS: Final = """
latest main master stable nightly edge dev develop release lts slim alpine bookworm bullseye
buster jammy focal noble canary debug nonroot rc beta alpha
"""
_WORDS: Final = frozenset(_TAG_WORDS.split())
_VERSION: Final = re.compile(r"v?\d+(?:\.\d+)+[\w.-]*|v\d+[\w.-]*|20\d{6}[\w.-]*|\d+-[a-z][\w.-]*")
_MADE_UP: Final = re.compile(
    r"example\.(?:com|org|net|io)|localhost|(?:^|[/.-])(?:my|your|some|foo|bar|baz|fake|dummy|test|example[\w-]*)"
    r"(?:[/.:-]|$)|(?:^|/)(?:image|repo|repository|registry|name|path)(?:[:/]|$)|127\.0\.0\.1"
)
_FILE: Final = re.compile(
    r"\.(?:go|py|pyx|js|jsx|ts|tsx|mjs|css|scss|html?|json|ya?ml|md|rst|txt|proto|c|h|cc|cpp|hpp"
    r"|java|rs|rb|sh|png|svg|jpe?g|gif|ico|woff2?|toml|sum|mod|xml|lock|so|a|o|sock|pem|crt|key)"
    r"(?=[:@]|$)"
)
_MEDIA: Final = re.compile(
    r"(?:application|audio|chemical|font|image|message|model|multipart|text|video)/"
)
_MARK: Final = re.compile(r"[%{$<]")
_PLACEHOLDER: Final = re.compile(r"%[a-zA-Z+#]*|\$?\{.*|\$\w+.*|<[\w-]+>.*")
_JOINT: Final = re.compile(r":v?$|:[\w.]+[.-]$")
"""Where a reference ends that something is joined to: at the tag, or inside it."""
_ENDS_AT_TAG: Final = re.compile(r":v?$")
"""A whole constant that ends so has its version joined to it: no tag is just ``v``."""
_SCHEME: Final = re.compile(r"(?:docker|docker-daemon|docker-pullable)://")
_IMAGE_KEY: Final = re.compile(r"image", re.IGNORECASE)
_OTHER_KEY: Final = re.compile(
    r"pull|secret|polic|version|_tag|-tag|tag$|type|size|count|hash|digest|url|uri|path|width"
    r"|height|icon|src|alt|file|dir|resiz|format|preview",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A text that may name an image.

    Attributes:
        ref: as it stands there; without what is put in at run time.
        score: 0 to 100.
        evidence: in words.
        joined: its tag (or more) is joined to it at run time.
        near: flags and variables that stand next to it.
    """

    ref: str
    score: int
    evidence: tuple[str, ...]
    joined: bool = False
    near: tuple[str, ...] = ()


def is_image_key(key: str) -> bool:
    """Whether a variable's, flag's or field's name says that its value is an image."""
    return bool(_IMAGE_KEY.search(key)) and not _OTHER_KEY.search(key)


def judge_token(
    token: str,
    *,
    bounds: Bounds,
    key: str = "",
    near: Sequence[str] = (),
    prose: bool = False,
) -> Candidate | None:
    """What a token says of itself, with what stands around it.

    Args:
        key: the variable, flag or field that it is the value of.
        near: flags and variables whose names stand next to it.
        prose: it is a part of a longer text.

    Returns:
        None where it is no image, or too little speaks for one.
    """
    form = _parse_token(token, whole=bounds in ("exact", "quoted"))
    if form is None:
        return None
    text, joined = form
    keyed = bool(key) and is_image_key(key)
    scored = _score_form(text, joined)
    if scored is None or (_is_bare(text) and not joined and (bounds == "word" or not keyed)):
        return None
    score, evidence = scored
    if keyed:
        score += 35
        evidence.append(f"value of {key}")
    if near:
        score += 25
        evidence.append(f"beside {', '.join(near[:2])}")
    if bounds == "exact":
        evidence.append("a constant of just this length")
    elif bounds == "quoted":
        evidence.append("a quoted literal")
    elif bounds == "unsure":
        score -= 15
        evidence.append("its ends are a guess")
    if prose and not keyed:  # mostly help and error messages
        score -= 45
        evidence.append("inside a longer text")
    elif bounds == "word" and not keyed:
        score -= 15
    if _MADE_UP.search(text):
        score -= 60
        evidence.append("looks like an example")
    score = max(0, min(100, score))
    found = Candidate(text, score, tuple(evidence), joined, tuple(near))
    return found if score >= POSSIBLE else None


def looks_like_reference(token: str, *, whole: bool) -> bool:
    """Whether a token has the form of a reference at all: cheap, before anything else is asked."""
    return _parse_token(token, whole=whole) is not None


def is_official(name: str) -> bool:
    """Whether a name is one of Docker Hub's official images."""
    return name in _OFFICIAL


@lru_cache(maxsize=4096)
def _parse_token(token: str, *, whole: bool) -> tuple[str, bool] | None:
    """The reference in a token, and whether something is joined to it; None if it has none."""
    text = token
    if (scheme := _SCHEME.match(text)) is not None:
        text = text[scheme.end() :]
    if "://" in text or text.startswith(("/", ".", "@", "-")):
        return None
    joined = False
    if (mark := _MARK.search(text)) is not None:
        at = mark.start()
        if not _PLACEHOLDER.fullmatch(text, at) or not _JOINT.search(text, 0, at):
            return None
        text, joined = text[:at], True
    if joined or (whole and _ENDS_AT_TAG.search(text)):
        text, joined = _JOINT.sub("", text), True
        if ":" in text.rpartition("/")[2]:  # a tag already: `vault:v1:` is some other format
            return None
    elif not whole:
        text = text.rstrip(".:-/")
    first, colon, rest = text.partition(":")
    if colon and "/" not in first and "/" in rest and not re.match(r"\d+/", rest):
        text = rest  # KEY:VALUE without a blank
    try:
        ref = ImageRef.parse(text)
    except InvalidImageRef:
        return None
    return (text, joined) if _may_be_image(text, ref) else None


def _may_be_image(text: str, ref: ImageRef) -> bool:
    """Nothing that is certainly something else: a file's line, a media type, an import path."""
    known = bool(_KNOWN.fullmatch(ref.host))
    if not ref.host or _MEDIA.match(text) or (not known and _NO_REGISTRY.fullmatch(ref.host)):
        return False
    name, _, _ = text.partition("@")
    if _FILE.search(name.rsplit("/", 1)[-1]):
        return False
    if not re.search(r"[a-z]", ref.path) or (
        len(ref.path.rsplit("/", 1)[-1]) < 2 and "." not in text
    ):
        return False
    # An address: HOST:PORT, not a name with a tag.
    if "/" not in text and re.fullmatch(r"[\d.]+|localhost|.*\.(?:svc|local|com|io|org|net)", name):
        return False
    return not re.fullmatch(r"\d+(?:\.\d+){3}(?::\d+)?", ref.host) or bool(ref.tag or ref.digest)


def _is_bare(text: str) -> bool:
    """Whether it has neither host nor tag nor digest: only its key can tell that it is one."""
    ref = ImageRef.parse(text)
    return not (ref.tag or ref.digest) and text.partition("/")[0] != ref.host


def _score_form(text: str, joined: bool) -> tuple[int, list[str]] | None:
    """Score and evidence of the text alone; None where nothing speaks for it."""
    ref = ImageRef.parse(text)
    host = text.partition("/")[0] if "/" in text else ""
    named = host == ref.host or host == "index.docker.io"
    depth = ref.path.count("/") + 1
    evidence = []
    if ref.digest:
        return 90, ["has a digest"]
    tag = _score_tag(ref.tag, joined)
    if named and _KNOWN.fullmatch(host):
        evidence.append(f"{host} is a registry")
        if ref.tag or joined:
            return 90, [*evidence, "has a tag" if ref.tag else "a tag is joined to it"]
        deep = depth > 1 or host in _ONE_IS_ENOUGH
        return (70 if deep else 30), evidence
    if named:
        return (20 + tag if ref.tag else 0), ["has a host and a tag"]
    if "/" in text:
        return (15 + tag if ref.tag or joined else 20), ["name and tag" if ref.tag else "a name"]
    if text.partition(":")[0] in _OFFICIAL:
        evidence = ["the name of an official image"]
        return (25 + tag if ref.tag else 20), evidence
    return (tag - 5, ["name and tag"]) if ref.tag else None


def _score_tag(tag: str, joined: bool) -> int:
    if tag.partition("-")[0] in _WORDS:
        return 45
    if _VERSION.fullmatch(tag):
        return 45
    if joined:
        return 20
    if re.fullmatch(r"\d{1,3}", tag):
        return 20
    if tag.isdigit():
        return 0
    return 25 if re.search(r"\d", tag) else 10
