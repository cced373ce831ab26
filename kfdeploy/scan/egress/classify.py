"""Tell what an address outside the cluster is for, how much it matters, and what to do about it.

The first rule that matches applies.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kfdeploy.scan.egress.text import EgressMention

_INSTALLERS = "pip uv python conda npm apt apk rpm go cargo gem helm r spacy spark"
_PACKAGE_TOOLS = frozenset(_INSTALLERS.split())
_WAY_OUT = {
    "pip": "set PIP_INDEX_URL{on} to the site's package index, and PIP_TRUSTED_HOST where its"
    " certificate is not trusted there; or an image that has the packages",
    "uv": "set UV_DEFAULT_INDEX{on} to the site's package index; or an image that has the packages",
    "python": "set PIP_INDEX_URL{on} to the site's package index; or an image that has the"
    " packages",
    "conda": "set CONDA_CHANNEL_ALIAS{on} to the site's channel mirror; or an image that has the"
    " packages",
    "npm": "set NPM_CONFIG_REGISTRY{on} to the site's registry; or an image that has the packages",
    "apt": "mount a sources.list of the site's mirror at /etc/apt/sources.list.d{on}; or an image"
    " that has the packages",
    "apk": "mount /etc/apk/repositories with the site's mirror{on}; or an image that has the"
    " packages",
    "rpm": "mount a .repo file of the site's mirror at /etc/yum.repos.d{on}; or an image that has"
    " the packages",
    "go": "set GOPROXY and GONOSUMDB{on} to the site's module proxy; or an image that has the"
    " program",
    "cargo": "set CARGO_SOURCE_CRATES_IO_REPLACE_WITH{on} to the site's registry; or an image that"
    " has the program",
    "gem": "set BUNDLE_MIRROR__ALL{on} to the site's mirror; or an image that has the packages",
    "r": "mount an Rprofile.site that sets options(repos) to the site's mirror{on}; or an image"
    " that has the packages",
    "helm": "pull the chart beforehand and serve it from the site's registry; change the address in"
    " {setting}",
    "spark": "set spark.jars.ivySettings or spark.jars.repositories to the site's Maven mirror; or"
    " an image that has the jars",
    "spacy": "set PIP_INDEX_URL{on} to an index that has the model as a package; or an image that"
    " has it",
    "git": "mirror the repository and set GIT_CONFIG_COUNT=1, GIT_CONFIG_KEY_0=url.MIRROR.insteadOf"
    " and GIT_CONFIG_VALUE_0 (the part of the address that MIRROR replaces){on}; or patch"
    " {setting}",
    "hub": "set HF_ENDPOINT{on} to the site's mirror of the hub; or HF_HUB_OFFLINE=1 with the files"
    " in a volume as HF_HOME; or a {kind} of the site's own that reads them elsewhere",
    "s3": "copy the data to the site's object store and set AWS_ENDPOINT_URL{on}, for KServe the"
    " annotation serving.kserve.io/s3-endpoint of the credentials' Secret; or patch {setting}",
    "bucket": "copy the data to the site's object store and patch {setting} to its address; or"
    " mount it as a volume",
    "oci": "name it in images.extra, so that it is mirrored, and patch {setting} to the private"
    " registry",
    "package-url": "serve the file from inside and patch {setting}; or an image that has it",
    "model": "copy the model to the site's object store or a volume and patch {setting}",
    "dataset": "copy the data to the site's object store or a volume and patch {setting}",
    "torch-hub": "mount the files as TORCH_HOME{on}; or an image that has them",
    "nltk": "mount the files as NLTK_DATA{on}; or an image that has them",
    "web-asset": "serve the file from inside and patch {setting}; without it the page is only"
    " plainer",
    "webhook": "patch {setting} to a receiver that the cluster reaches, or take it out",
    "schema": "patch {setting} to a copy inside, or take it out; most readers take it as a name"
    " only",
    "identity": "patch {setting} to the site's own identity provider or certificate authority",
    "telemetry": "patch {setting} to a collector of the site's, or take it out to switch it off",
    "link": "patch {setting} to the site's own pages, or leave it: the link is dead, nothing else",
    "other": "patch {setting} to an address that the cluster reaches",
}


@dataclass(frozen=True, slots=True)
class EgressContext:
    """The place of an address.

    Attributes:
        kind: the kind of its object.
        setting: the field in an operator's words: a variable, a flag, a key or a field.
        keys: the keys above it, the nearest first, with the name of a variable or a flag.
        container: the name of its container, or "".
        is_page: whether its string is HTML, SVG or other markup.
        before: the text before it on its line.
    """

    kind: str
    setting: str
    keys: tuple[str, ...] = ()
    container: str = ""
    is_page: bool = False
    before: str = ""


@dataclass(frozen=True, slots=True)
class EgressPurpose:
    """What an address is for, how much it matters, and what to do about it.

    `what` is an `EgressKind`, `need` a `Need`.
    """

    what: str
    need: str
    why: str
    way_out: str


@dataclass(frozen=True, slots=True)
class _PurposeRule:
    """A purpose, and patterns that must all match: the nearest key, all keys, and the address.

    An empty pattern matches.
    """

    what: str
    way: str
    why: str
    key: str = ""
    keys: str = ""
    address: str = ""

    def matches(self, key: str, keys: str, address: str) -> bool:
        return (
            (not self.key or bool(re.search(self.key, key)))
            and (not self.keys or bool(re.search(self.keys, keys)))
            and (not self.address or bool(re.search(self.address, address)))
        )


_MODEL_FILE = (
    r"\.(?:safetensors|gguf|ggml|onnx|pth?|ckpt|h5|keras|tflite|joblib|pkl|mar|pmml|bst)(?:$|[?#])"
)
_DATA_FILE = r"\.(?:csv|tsv|parquet|arrow|jsonl|npz|npy|tfrecords?|avro|orc|ubyte\.gz)(?:$|[?#])"
_STORES = re.compile(r"^(?:abfss?|adl|az|azure|cos|gcs|gs|obs|oss|wasbs?|hdfs|webhdfs|kaggle):")
_S3 = re.compile(r"^s3[an]?:|amazonaws\.com|^minio\.|play\.min\.io|digitaloceanspaces")
_OCI = re.compile(r"^(?:oci|docker)://")
_DATA_OF_HUB = "the data is fetched from a hub"
_LINK = "a link on a page: the browser follows it when somebody clicks it"
_ASSET = "the browser of whoever opens the page fetches it"
_STORE = "an object store is written or read"
_RULES = (
    _PurposeRule("webhook", "webhook", "the API server calls it", key=r"^clientconfig$"),
    _PurposeRule(
        "other",
        "link",
        _LINK,
        key=r"^(?:links?|href|homepage|website)$|link$"
        r"|(?:docs?|documentation|repository|licen[cs]e|help|support|home)_?(?:ur[il]|links?)?$",
        address=r"^https?:",
    ),
    _PurposeRule(
        "identity",
        "identity",
        "keys and tokens of users are checked or fetched there",
        key=r"jwks|issuer|oidc|oauth|sso|saml|(?:^|_)idp|ldap|authoriz|userinfo|redeem|introspect"
        r"|(?:token|auth|login|logout|sign_?in)_?(?:ur[il]|endpoint|server)",
    ),
    _PurposeRule(
        "identity",
        "identity",
        "certificates and keys are asked for there",
        keys=r"(?:^| )(?:acme|vault|venafi|spire|cloudkms)(?: |$)|certificate_?authorit|ca_addr",
    ),
    _PurposeRule(
        "identity",
        "identity",
        "keys and tokens of users are checked or fetched there",
        address=r"^ldaps?:|accounts\.google\.com|login\.microsoftonline\.com|letsencrypt\.org"
        r"|github\.com/login|/\.well-known/|oidc\.eks\.|cognito-idp\.",
    ),
    _PurposeRule(
        "telemetry",
        "telemetry",
        "measurements, traces or usage data are sent there",
        keys=r"otel|otlp|telemetry|tracing|trace_|zipkin|jaeger|metrics?(?: |_|$)|prometheus"
        r"|remote_?write|statsd|sentry|datadog|dd_|analytics|usage|loki|logging|log_(?:ur[il]|host)",
    ),
    _PurposeRule(
        "telemetry",
        "telemetry",
        "measurements, traces or usage data are sent there",
        address=r"sentry\.io|datadoghq\.|honeycomb\.io|newrelic\.com|nr-data\.net|signoz\."
        r"|google-analytics\.|googletagmanager\.|segment\.(?:io|com)|posthog\.|scarf\.sh"
        r"|usage-stats|telemetry",
    ),
    _PurposeRule(
        "webhook",
        "webhook",
        "events are sent there",
        keys=r"web_?hook|call_?back|notif|slack|alert|event_?sink",
    ),
    _PurposeRule(
        "webhook", "webhook", "events are sent there", address=r"hooks\.slack\.com|webhook"
    ),
    _PurposeRule(
        "git",
        "git",
        "a git repository is read",
        address=r"^(?:git|ssh|git\+\w+)(?:://|@)|\.git(?:$|[@#?/])|^git@",
    ),
    _PurposeRule(
        "git",
        "git",
        "a git repository is read",
        keys=r"(?:^| |_)(?:git|repo|git_?repo|repo_ur[il]|git_?sync\w*)(?: |_|$)",
        address=r"github\.com|gitlab|bitbucket|/git/",
    ),
    _PurposeRule(
        "package-install",
        "package-url",
        "packages are fetched from it",
        address=r"\b(?:pypi|pythonhosted|npmjs|goproxy|golang|crates|anaconda|rubygems|cran)\."
        r"|\bmaven\d?\.|\b(?:deb|security)\.debian\.|\.ubuntu\.com|\balpinelinux\."
        r"|download\.pytorch\.org/whl",
    ),
    _PurposeRule(
        "package-install",
        "package-url",
        "packages are fetched from it",
        key=r"index_?ur[il]|pypi|pip_|goproxy|npm_|maven|ivy|jars?$|packages?$|conda_?channel",
    ),
    _PurposeRule(
        "package-install",
        "package-url",
        "a package or program is fetched",
        address=r"\.(?:whl|deb|rpm|apk|jar|egg|conda|wasm)(?:$|[?#])|/releases/download/",
    ),
    _PurposeRule(
        "schema", "schema", "a schema is named; a validator may fetch it", key=r"schema|xsd$"
    ),
    _PurposeRule(
        "schema",
        "schema",
        "a schema is named; a validator may fetch it",
        address=r"json-schema\.org|\.xsd(?:$|#)|[./]schema\.json|openapi\.(?:json|ya?ml)",
    ),
    _PurposeRule("dataset", "hub", _DATA_OF_HUB, keys=r"data_?set", address=r"^hf:"),
    _PurposeRule(
        "dataset", "hub", _DATA_OF_HUB, address=r"huggingface\.co/datasets/|^hf://datasets/"
    ),
    _PurposeRule(
        "model",
        "hub",
        "the model is fetched from a hub",
        address=r"^hf:|huggingface\.co(?:$|[/:])|^modelscope:",
    ),
    _PurposeRule("dataset", "dataset", "data is fetched", address=_DATA_FILE),
    _PurposeRule(
        "model", "model", "a model is fetched", address=_MODEL_FILE + r"|^(?:oci|gs|s3)://\S*model"
    ),
    _PurposeRule(
        "web-asset",
        "web-asset",
        _ASSET,
        address=r"\.(?:css|m?js|woff2?|ttf|otf|svg|png|jpe?g|gif|ico|webp)(?:$|[?#])"
        r"|fonts\.(?:googleapis|gstatic)\.com|cdn|unpkg\.com|jsdelivr\.net|gstatic\.com",
    ),
    _PurposeRule(
        "web-asset",
        "web-asset",
        _ASSET,
        keys=r"(?:^| |_)(?:icons?|logos?|fonts?|favicon|stylesheets?|cdn|css|script_src)(?: |_|$)",
    ),
    _PurposeRule("dataset", "dataset", "data is fetched", keys=r"data_?set"),
    _PurposeRule(
        "model",
        "model",
        "a model is fetched",
        keys=r"(?:^| |_)models?(?: |_|$)|storage_?uri|predictor|transformer|explainer|pretrained",
    ),
    _PurposeRule(
        "other",
        "bucket",
        _STORE,
        keys=r"root|logs?(?: |_|$|dir)|artifacts?|output|backup|warehouse|event",
        address=rf"{_STORES.pattern}|{_S3.pattern}",
    ),
)
_ASSET_BEFORE = re.compile(
    r"(?:\bsrc|\bsrcset|\bposter|xlink:href|url)\s*[=(]\s*[\"']?$|<link\b[^>]*href\s*=\s*[\"']?$"
    r"|<(?:image|use)\b[^>]*href\s*=\s*[\"']?$|@import\s+[\"']?$|\b(?:fetch|import|importScripts)\(\s*[\"']$"
)
_LINK_BEFORE = re.compile(r"<a\b[^>]*href\s*=\s*[\"']?$", re.IGNORECASE)
_LATER = re.compile(
    r"ConfigMap|Secret|\w*(?:Runtime|Template|Class|StorageContainer|Policy|PodDefault)$"
)
"""Kinds that do nothing by themselves until somebody or something uses them."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[-.]")


def classify_address(spot: EgressMention, context: EgressContext) -> EgressPurpose:
    """Return the purpose of an address, from its tool, its keys and its text."""
    address = spot.address.text
    what, way, why = (
        _classify_by_tool(spot.tool, address)
        or _classify_by_page(context)
        or _classify_by_rules(address, context)
        or _classify_otherwise(spot.tool, address)
    )
    if way in ("model", "dataset", "other", "bucket"):
        if _S3.search(address):
            way = "s3"
        elif _STORES.match(address):
            way = "bucket"
    if _OCI.match(address) and what in ("model", "dataset", "other", "package-install"):
        way = "oci"
    on = f" on container {context.container}" if context.container else ""
    return EgressPurpose(
        what,
        _decide_need(what, way, context),
        why,
        _WAY_OUT[way].format(on=on, setting=context.setting, kind=context.kind),
    )


_Purpose = tuple[str, str, str]
"""An `EgressKind`, a key of _WAY_OUT, and why."""
_TOOL_PURPOSES: dict[str, _Purpose] = {
    "hub": ("model", "hub", "fetched from a hub"),
    "hub-dataset": ("dataset", "hub", "fetched from a hub"),
    "torch-hub": ("model", "torch-hub", "torch.hub fetches it with its repository"),
    "nltk": ("dataset", "nltk", "nltk fetches it"),
    "git": ("git", "git", "git reads it"),
}


def _classify_by_tool(tool: str, address: str) -> _Purpose | None:
    if tool in _PACKAGE_TOOLS:
        is_url = "://" in address
        why = f"{tool} fetches it" if is_url else "packages are installed when it runs"
        return "package-install", tool, why
    return _TOOL_PURPOSES.get(tool)


def _classify_by_page(context: EgressContext) -> _Purpose | None:
    if not context.is_page:
        return None
    if _LINK_BEFORE.search(context.before):
        return "other", "link", _LINK
    if _ASSET_BEFORE.search(context.before):
        return "web-asset", "web-asset", _ASSET
    return None


def _classify_by_rules(address: str, context: EgressContext) -> _Purpose | None:
    names = [_CAMEL.sub("_", key.lstrip("-$")).lower() for key in context.keys]
    nearest = names[0] if names else ""
    words = " ".join((*names, context.container.replace("-", "_")))
    for rule in _RULES:
        if rule.matches(nearest, words, address):
            return rule.what, rule.way, rule.why
    return None


def _classify_otherwise(tool: str, address: str) -> _Purpose:
    if tool:
        return "other", "other", f"{tool} fetches it"
    if _OCI.match(address):
        return "other", "oci", "it is pulled from a registry, not as a container's image"
    if _STORES.match(address) or _S3.search(address):
        return "other", "bucket", _STORE
    return "other", "other", "a setting names it"


def _decide_need(what: str, way: str, context: EgressContext) -> str:
    if way == "link":
        return "user-choice"
    if what in ("telemetry", "web-asset", "schema"):
        return "optional"
    if what == "webhook" and context.keys[:1] != ("clientConfig",):
        return "optional"
    if what == "identity":
        return "required"
    return "optional" if _LATER.match(context.kind) else "required"
