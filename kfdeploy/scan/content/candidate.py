"""Decide whether a piece of text may name an image, and how likely it is.

A score gives an order, not a probability. In the operators that the rules were tuned on, more than
four in five texts at LIKELY or above were images (docs/image-content.md). Texts below POSSIBLE are
dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from kfdeploy.oci.reference import ImageRef, InvalidImageRef

Bounds = Literal["exact", "quoted", "word", "unsure"]
"""How the ends of a text were found: a Go constant of exactly this length, a quoted literal, a word
between blanks or other signs, or a guess among neighbours."""

LIKELY: Final = 50
POSSIBLE: Final = 30
TOKEN: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/:@%${}<>-"
"""Bytes that references and placeholders in them consist of."""

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
_HOST_ALONE: Final = re.compile(r"[\d.]+|localhost|.*\.(?:svc|local|com|io|org|net)")
_IP_HOST: Final = re.compile(r"\d+(?:\.\d+){3}(?::\d+)?")
_MARK: Final = re.compile(r"[%{$<]")
_PLACEHOLDER: Final = re.compile(r"%[a-zA-Z+#]*|\$?\{.*|\$\w+.*|<[\w-]+>.*")
_JOINT: Final = re.compile(r":v?$|:[\w.]+[.-]$")
"""The end of a reference that a program completes at run time: at the tag, or inside it."""
_ENDS_AT_TAG: Final = re.compile(r":v?$")
"""The end of a whole constant that gets its version at run time: no tag is just ``v``."""
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
        ref: the text, without placeholders.
        score: 0 to 100.
        evidence: the reasons for the score, in words.
        joined: whether the program appends a tag, or a part of one, at run time.
        near: flags and variables next to it.
    """

    ref: str
    score: int
    evidence: tuple[str, ...]
    joined: bool = False
    near: tuple[str, ...] = ()


def is_image_key(key: str) -> bool:
    """Return whether the name of a variable, flag or field says that its value is an image."""
    return bool(_IMAGE_KEY.search(key)) and not _OTHER_KEY.search(key)


def judge_token(
    token: str,
    *,
    bounds: Bounds,
    key: str = "",
    near: Sequence[str] = (),
    prose: bool = False,
) -> Candidate | None:
    """Return a token as a candidate with a score, or None if it is unlikely to be an image.

    Args:
        bounds: how the token's ends were found.
        key: the variable, flag or field whose value the token is.
        near: flags and variables next to it.
        prose: whether the token is a part of a longer text.
    """
    form = _parse_token(token, whole=bounds in ("exact", "quoted"))
    if form is None:
        return None
    text, joined = form
    keyed = bool(key) and is_image_key(key)
    if _is_bare(text) and not joined and (bounds == "word" or not keyed):
        return None
    form_reasons = _score_form(text, joined)
    if not form_reasons:
        return None
    reasons = [
        *form_reasons,
        *_score_context(bounds, key if keyed else "", near, prose),
        *([(-60, "looks like an example")] if _MADE_UP.search(text) else ()),
    ]
    score = max(0, min(100, sum(points for points, _ in reasons)))
    if score < POSSIBLE:
        return None
    evidence = tuple(words for _, words in reasons if words)
    return Candidate(text, score, evidence, joined, tuple(near))


_Reason = tuple[int, str]
"""Points for a score, and the evidence in words; empty words are not shown."""
_BOUNDS_REASONS: Final[dict[Bounds, _Reason]] = {
    "exact": (0, "a constant of just this length"),
    "quoted": (0, "a quoted literal"),
    "unsure": (-15, "its ends are a guess"),
    "word": (0, ""),
}


def _score_context(
    bounds: Bounds, image_key: str, near: Sequence[str], prose: bool
) -> Iterator[_Reason]:
    if image_key:
        yield 35, f"value of {image_key}"
    if near:
        yield 25, f"beside {', '.join(near[:2])}"
    yield _BOUNDS_REASONS[bounds]
    if image_key:
        return
    if prose:  # mostly help and error messages
        yield -45, "inside a longer text"
    elif bounds == "word":
        yield -15, ""


def looks_like_reference(token: str, *, whole: bool) -> bool:
    """Return whether a token has the form of a reference. This is cheap; ask it first."""
    return _parse_token(token, whole=whole) is not None


def is_official(name: str) -> bool:
    """Return whether a name is one of Docker Hub's official images."""
    return name in _OFFICIAL


@lru_cache(maxsize=4096)
def _parse_token(token: str, *, whole: bool) -> tuple[str, bool] | None:
    """Return the reference in a token, and whether a program completes it; None if it has none."""
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
    """Return whether a reference is not surely a file, a media type, a host or an import path."""
    name = text.partition("@")[0]
    last = ref.path.rpartition("/")[2]
    is_source_host = not _KNOWN.fullmatch(ref.host) and _NO_REGISTRY.fullmatch(ref.host)
    is_too_short = not re.search(r"[a-z]", ref.path) or (len(last) < 2 and "." not in text)
    is_host_and_port = "/" not in text and _HOST_ALONE.fullmatch(name)
    is_ip_path = _IP_HOST.fullmatch(ref.host) and not (ref.tag or ref.digest)
    return bool(ref.host) and not (
        _MEDIA.match(text)
        or is_source_host
        or _FILE.search(name.rpartition("/")[2])
        or is_too_short
        or is_host_and_port
        or is_ip_path
    )


def _is_bare(text: str) -> bool:
    """Return whether a reference has no host, tag or digest: only its key tells that it is one."""
    ref = ImageRef.parse(text)
    return not (ref.tag or ref.digest) and text.partition("/")[0] != ref.host


def _score_form(text: str, joined: bool) -> list[_Reason]:
    """Return what the text alone says for an image; nothing if it has no evidence."""
    ref = ImageRef.parse(text)
    if ref.digest:
        return [(90, "has a digest")]
    tag = _score_tag(ref.tag, joined)
    host = text.partition("/")[0] if "/" in text else ""
    if host in (ref.host, "index.docker.io"):
        if _KNOWN.fullmatch(host):
            return _score_known_host(ref, host, joined)
        return [(20 + tag if ref.tag else 0, "has a host and a tag")]
    if "/" in text:
        words = "name and tag" if ref.tag else "a name"
        return [(15 + tag if ref.tag or joined else 20, words)]
    if text.partition(":")[0] in _OFFICIAL:
        return [(25 + tag if ref.tag else 20, "the name of an official image")]
    return [(tag - 5, "name and tag")] if ref.tag else []


def _score_known_host(ref: ImageRef, host: str, joined: bool) -> list[_Reason]:
    is_registry = f"{host} is a registry"
    if ref.tag or joined:
        return [(90, is_registry), (0, "has a tag" if ref.tag else "a tag is joined to it")]
    has_project = "/" in ref.path or host in _ONE_IS_ENOUGH
    return [(70 if has_project else 30, is_registry)]


def _score_tag(tag: str, joined: bool) -> int:
    if tag.partition("-")[0] in _WORDS or _VERSION.fullmatch(tag):
        return 45
    if joined:
        return 20
    if re.fullmatch(r"\d{1,3}", tag):
        return 20
    if tag.isdigit():
        return 0
    return 25 if re.search(r"\d", tag) else 10
