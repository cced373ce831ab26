"""Find addresses and installs in a string: a value, a script, YAML, JSON, INI or a web page.

Text for people is skipped: comments, docstrings and descriptions. So are the names of XML
namespaces and document types, which look like URLs and which nothing connects to.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from kfdeploy.images.mentions import TextSpans, comment_spans
from kfdeploy.scan.egress.addresses import HOST, ExternalAddress, parse_host, parse_url

_URL = re.compile(r"(?<![\w+.-])(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>[^\s\"'<>`\\,;|]+)")
_GIT = re.compile(r"(?<![\w.@/-])git@(?P<host>[\w.-]+):(?P<path>[\w./~-]+)", re.ASCII)
_KEYED_HOST = re.compile(
    r"(?<![\w.-])(?P<key>[A-Za-z_-][\w.-]*)[\"']?[ \t]*[:=][ \t]*[\"']?"
    rf"(?P<host>{HOST}(?::\d{{1,5}}/?)?)"
    r"(?=[\s\"',;}\])]|$)",
    re.ASCII,
)
_WHOLE_HOST = re.compile(rf"{HOST}(?::\d{{1,5}}(?:/\S*)?)?", re.ASCII)
_FETCHED_HOST = re.compile(
    rf"\b(?:curl|wget)\b[^\n;|&]*?[ \t](?P<host>{HOST}(?:[:/]\S*)?)", re.ASCII
)
_CLOUD_HOST = re.compile(
    r"(?<![\w.@/-])(?:[a-z0-9-]+\.)*(?:amazonaws\.com|(?:blob|file|dfs)\.core\.windows\.net"
    r"|storage\.googleapis\.com|storage\.cloud\.google\.com|aliyuncs\.com|digitaloceanspaces\.com"
    r"|huggingface\.co|play\.min\.io|datadoghq\.(?:com|eu)|ingest\.sentry\.io|letsencrypt\.org)"
    r"(?::\d+)?(?![\w/.:-])",
    re.ASCII,
)
_ADDRESS_KEY = re.compile(
    r"(?:^|[_.-])(?:end_?points?|hosts?|host_?names?|servers?|addr(?:ess)?(?:es)?|ur[il]s?|issuer"
    r"|brokers?|bootstrap|proxy|collector|receiver|upstream)$"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_KEY = re.compile(
    r"(?P<indent>[ \t]*(?:-[ \t]+)*)[\"']?(?P<key>[A-Za-z_$@][\w.$/@-]*)[\"']?[ \t]*[:=]"
)
_NEAR_KEY = re.compile(r"[\"']?(?P<key>[A-Za-z_$@][\w.$/@:-]*)[\"']?[ \t]*[:=][ \t]*[\"'\[({ ]*$")
_PROSE = (
    "description|desc|readme|help|notes?|comments?|warning|summary|title|tooltip|copyright|banner"
)
_PROSE_BLOCK = re.compile(
    rf"^(?P<indent>[ \t]*)(?:-[ \t]+)?[\"']?(?:{_PROSE})[\"']?:[ \t]*[|>][+-]?\d?[ \t]*\n"
    r"(?:(?P=indent)[ \t]+[^\n]*(?:\n|$)|[ \t]*\n)*",
    re.MULTILINE | re.IGNORECASE,
)
_PROSE_LINE = re.compile(
    rf"(?<![\w.-])[\"']?(?:{_PROSE})[\"']?:[ \t]*"
    r"(?:\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|[^|>\"'\s][^\n]*)",
    re.IGNORECASE,
)
_NAMES = re.compile(
    r"\bxmlns(?::\w+)?[ \t]*=[ \t]*(?:\"[^\"]*\"|'[^']*')|<!DOCTYPE[^>\[]*"
    r"|\"@(?:type|context)\"[ \t]*:[ \t]*\"[^\"]*\"|<(?:rdf|cc|dc|sodipodi|inkscape):[^>]*>"
)
_TEMPLATE_COMMENT = re.compile(r"\{\{-?\s*/\*.*?\*/\s*-?\}\}", re.DOTALL)
_PROSE_KEY = re.compile(rf"(?:{_PROSE})", re.IGNORECASE)

_BETWEEN = r"(?:[ \t\"',\[\]]|\\\n|\n[ \t]*-[ \t])+"
_OPTIONS = rf"(?:-[\w=.-]+{_BETWEEN})*"


def _join_words(*words: str) -> str:
    return _BETWEEN.join(words)


_TOOLS = {
    "pip": _join_words(r"pip[\d.]*", rf"{_OPTIONS}(?:install|download|wheel)"),
    "uv": rf"uv{_BETWEEN}(?:pip{_BETWEEN}install|tool{_BETWEEN}(?:install|run)|add|sync)|uvx",
    "python": _join_words(r"(?:pipx|poetry|pdm|easy_install)", r"(?:install|add|run|\w[\w.-]+)"),
    "conda": _join_words(
        r"(?:conda|mamba|micromamba)",
        rf"{_OPTIONS}(?:install|create|env{_BETWEEN}(?:create|update))",
    ),
    "npm": rf"(?:npm|pnpm|yarn){_BETWEEN}{_OPTIONS}(?:install|ci|add|i)|npx",
    "apt": _join_words(r"apt(?:-get)?", rf"{_OPTIONS}(?:install|update|upgrade)"),
    "apk": _join_words("apk", rf"{_OPTIONS}(?:add|update|upgrade)"),
    "rpm": _join_words(r"(?:yum|dnf|microdnf|zypper)", rf"{_OPTIONS}(?:install|update|upgrade)"),
    "go": _join_words("go", rf"(?:install|get|mod{_BETWEEN}download)"),
    "cargo": _join_words("cargo", "install"),
    "gem": _join_words(r"(?:gem|bundle)", "install"),
    "helm": rf"helm{_BETWEEN}(?:repo{_BETWEEN}(?:add|update)|pull|install|upgrade|dependency)",
    "hub": rf"(?:huggingface-cli|hf){_BETWEEN}download|ollama{_BETWEEN}(?:pull|run)",
    "spacy": _join_words("spacy", "download"),
    "spark": r"--packages|spark\.jars\.packages",
}
_INSTALL = re.compile(
    r"(?<![\w./-])(?:/(?:usr/(?:local/)?)?s?bin/)?(?:"
    + "|".join(f"(?P<{tool}>{words})" for tool, words in _TOOLS.items())
    + r")(?![\w-])(?P<rest>(?:=?[^\n;&|)\\]|\\\n|\\(?!n))*)"
)
_LISTED = re.compile(r"(?:\n[ \t]*-[ \t][^\n]*)+")
_ALONE = frozenset(("update", "upgrade", "sync", "ci"))
_NO_PACKAGE = re.compile(r"[.~]?/|\.$|\$|\{|-$|[<>]|\d*$|.*\.(?:txt|ya?ml|toml|cfg|lock)$")
_WITH_VALUE = re.compile(
    r"-[rcfetnp]|--(?:requirement|constraint|find-links|target|prefix|name|file|editable|root"
    r"|(?:extra-)?index-url|trusted-host|timeout|retries|proxy|cert|repository|version|namespace"
    r"|local-dir|cache-dir|channel|python-version|platform)|-i"
)
_INDEX = re.compile(
    rf"(?:-i|--(?:default-)?index-url|--index|--registry|--channel|--repo(?:sitory)?){_BETWEEN}?[=]?"
    r"(?P<url>\w+://[^\s\"',]+)"
)
_CALLS = re.compile(
    r"\b(?P<call>install\.packages|packages_to_install|from_pretrained|SentenceTransformer"
    r"|load_dataset|snapshot_download|hf_hub_download|hub\.load|nltk\.download)"
    r"\s*(?:=\s*\[|\()\s*(?:c\()?(?:repo_id\s*=\s*|model_id\s*=\s*)?(?P<first>[\"'][^\"'\n]+[\"'])"
    r"(?P<more>(?:\s*,\s*[\"'][^\"'\n]+[\"'])*)"
)
_CALL_TOOLS = {
    "install.packages": "r",
    "packages_to_install": "pip",
    "load_dataset": "hub-dataset",
    "nltk.download": "nltk",
    "hub.load": "torch-hub",
}
_RUNTIME_ENV = re.compile(
    r"(?<![\w.-])[\"']?(?P<tool>pip|conda)[\"']?:[ \t]*"
    r"(?P<list>\[[^\]\n]*\]|(?:\n[ \t]*-[ \t]+[^\n]+)+)"
)
_LINES_ABOVE = 400
"""The number of lines above an address that are searched for its keys."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FILE = re.compile(r"\.(?:ya?ml|json|txt|py|sh|bin|pt|tar|gz|zip|model|sock|so)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EgressMention:
    """An address or an install in a string.

    Attributes:
        start: its offset in the string.
        end: the offset behind it.
        address: the address; for an install, its text is the command.
        tool: the program that connects (``pip``, ``git``, ``hub`` ...), if the string says so.
        keys: the keys above it in the string, the nearest first.
    """

    start: int
    end: int
    address: ExternalAddress
    tool: str = ""
    keys: tuple[str, ...] = ()


def is_prose(key: str) -> bool:
    """Return whether a key holds text for people."""
    return bool(_PROSE_KEY.fullmatch(key))


def is_address_key(key: str) -> bool:
    """Return whether a key, variable or flag holds an address, by its name: ``DB_HOST``."""
    return bool(_ADDRESS_KEY.search(_CAMEL.sub("_", key.lstrip("-")).lower()))


def is_hub_id(value: str) -> bool:
    """Return whether a value has the form of a model or dataset at a hub: ``ORGANISATION/NAME``."""
    return bool(_HUB_ID.fullmatch(value)) and not _FILE.search(value)


def find_egress_mentions(value: str, key: str = "") -> tuple[EgressMention, ...]:
    """Return the addresses and installs in a string, in order.

    Args:
        value: the string.
        key: the name of the field, variable or flag that holds it.
    """
    skipped = TextSpans([*comment_spans(value), *_find_skipped_spans(value)])

    def is_relevant(spot: EgressMention) -> bool:
        return not skipped.has_overlap(spot.start, spot.end)

    installs = sorted(filter(is_relevant, _find_installs(value)), key=lambda spot: spot.start)
    starts = [spot.start for spot in installs]
    found: dict[int, EgressMention] = {}
    urls = list(filter(is_relevant, _find_urls(value)))
    url_spans = TextSpans([(spot.start, spot.end) for spot in urls])
    hosts = (
        spot
        for spot in filter(is_relevant, _find_hosts(value, key))
        if not url_spans.has_overlap(spot.start, spot.end)
    )
    for spot in (*urls, *hosts):
        at = bisect_right(starts, spot.start) - 1
        if at >= 0 and spot.start < installs[at].end:
            spot = replace(spot, tool=installs[at].tool)
        found.setdefault(spot.start, spot)
    for spot in installs:
        if spot.address.text:
            found.setdefault(spot.start, spot)
    return tuple(found[start] for start in sorted(found))


def _find_skipped_spans(value: str) -> Iterator[tuple[int, int]]:
    for pattern in (_PROSE_BLOCK, _PROSE_LINE, _NAMES, _TEMPLATE_COMMENT):
        for match in pattern.finditer(value):
            yield match.span()


def _find_urls(value: str) -> Iterator[EgressMention]:
    if "://" in value:
        for match in _URL.finditer(value):
            rest = _trim_url_end(match["rest"])
            outer = re.match(r"(?P<scheme>[a-z]+)://(?P<rest>.*)", rest)  # k8s://https://HOST
            scheme = outer["scheme"] if outer else match["scheme"]
            address = parse_url(scheme, outer["rest"] if outer else rest)
            if address is not None:
                end = match.start("rest") + len(rest)
                tool = _tool_before(value, match.start())
                yield EgressMention(
                    match.start(), end, address, tool, _find_enclosing_keys(value, match.start())
                )
    for match in _GIT.finditer(value):
        if parse_host(match["host"]):
            address = ExternalAddress("ssh", match["host"].lower(), match[0])
            yield EgressMention(
                *match.span(), address, "git", _find_enclosing_keys(value, match.start())
            )


def _trim_url_end(rest: str) -> str:
    """Return a URL without punctuation and closing brackets that do not belong to it."""
    while rest and rest[-1] in ".,:!?)]}*_":
        if rest[-1] in ")]}" and rest.count("([{"[")]}".index(rest[-1])]) >= rest.count(rest[-1]):
            break
        rest = rest[:-1]
    return rest


def _tool_before(value: str, start: int) -> str:
    """Return the program on the command line whose argument starts here."""
    line = value[value.rfind("\n", 0, start) + 1 : start]
    command = re.split(r"[;&|(]", line)[-1]
    match = re.search(r"(?<![\w.-])(git|curl|wget|kubectl|kustomize)\b", command)
    return match[1] if match else ""


def _find_hosts(value: str, key: str) -> Iterator[EgressMention]:
    if "." not in value:
        return
    if is_address_key(key) and _WHOLE_HOST.fullmatch(value):
        address = parse_host(value)
        if address is not None:
            yield EgressMention(0, len(value), address)
        return
    for match in _KEYED_HOST.finditer(value):
        if is_address_key(match["key"]) and (address := parse_host(match["host"])):
            start = match.start("host")
            yield EgressMention(
                start, match.end("host"), address, "", _find_enclosing_keys(value, start)
            )
    for match in _FETCHED_HOST.finditer(value):
        if address := parse_host(match["host"]):
            yield EgressMention(
                *match.span("host"),
                address,
                "curl",
                _find_enclosing_keys(value, match.start("host")),
            )
    for match in _CLOUD_HOST.finditer(value):
        if address := parse_host(match[0]):
            yield EgressMention(
                *match.span(), address, "", _find_enclosing_keys(value, match.start())
            )


# --- installs -------------------------------------------------------------------------------------


def _find_installs(value: str) -> Iterator[EgressMention]:
    yield from _find_install_commands(value)
    yield from _find_install_calls(value)
    yield from _find_runtime_environments(value)


def _find_install_commands(value: str) -> Iterator[EgressMention]:
    """Yield commands such as ``pip install NAME``, on a line or as a list of words."""
    listed_end = 0
    for match in _INSTALL.finditer(value):
        if match.start() < listed_end:
            continue
        tool = next(name for name in _TOOLS if match[name])
        command, rest, end = match[tool], match["rest"], match.end()
        if "\n" in command and (more := _LISTED.match(value, end)):
            rest, end = rest + more[0], more.end()
            listed_end = end
        packages = _parse_packages(rest)
        if packages is None:
            continue
        text = _describe_install(tool, command, packages, rest)
        yield EgressMention(
            match.start(tool),
            end,
            ExternalAddress("", "", text),
            tool,
            _find_enclosing_keys(value, match.start()),
        )


def _describe_install(tool: str, command: str, packages: Sequence[str], rest: str) -> str:
    """Return a command with its packages; empty if its URLs, or nothing, say what it fetches."""
    words = [word for word in re.split(_BETWEEN, command) if word and not word.startswith("-")]
    if tool == "spark":
        words = [command]
        packages = list(takewhile(lambda word: ":" in word, packages))
    if tool == "helm" and "://" in rest:
        packages = []  # names that the caller gives to charts and repositories
    files = _parse_requirement_files(rest)
    if packages or files or words[-1] in _ALONE:
        return " ".join((*words, *packages, *files))
    return ""


def _find_install_calls(value: str) -> Iterator[EgressMention]:
    """Yield calls in code such as ``install.packages("NAME")`` and ``from_pretrained("ID")``."""
    for match in _CALLS.finditer(value):
        tool = _CALL_TOOLS.get(match["call"], "hub")
        names = re.findall(r"[\"']([^\"']+)[\"']", match["first"] + match["more"])
        if tool == "hub":
            names = [
                name for name in names[:1] if is_hub_id(name) or match["call"] != "from_pretrained"
            ]
        if names and not names[0].startswith(("/", ".")):
            text = f"{tool} install {' '.join(names)}" if tool in ("pip", "r") else names[0]
            yield EgressMention(*match.span(), ExternalAddress("", "", text), tool)


def _find_runtime_environments(value: str) -> Iterator[EgressMention]:
    """Yield lists of packages in Ray's ``runtime_env``, and others of their form."""
    for match in _RUNTIME_ENV.finditer(value):
        packages = _parse_packages(re.sub(r"(?m)^[ \t]*-[ \t]+|[\[\]\n]", " ", match["list"]))
        if packages:
            text = f"{match['tool']} install {' '.join(packages)}"
            yield EgressMention(*match.span(), ExternalAddress("", "", text), match["tool"])


def _parse_packages(rest: str) -> list[str] | None:
    """Return the packages that a command names; None if all come from the cluster or the disk."""
    if "--no-index" in rest or "--offline" in rest:
        return None
    index = _INDEX.search(rest)
    if index is not None:
        scheme, _, behind = index["url"].partition("://")
        if parse_url(scheme, behind) is None:
            return None
    packages: list[str] = []
    is_value = False
    for word in filter(None, re.split(_BETWEEN, rest.removeprefix("="))):
        if is_value or word.startswith("-"):
            is_value = not is_value and bool(_WITH_VALUE.fullmatch(word))
            continue
        if word.startswith("#"):
            break
        if "://" not in word and not _NO_PACKAGE.match(word):
            packages.append(word.strip("()"))
    return packages


def _parse_requirement_files(rest: str) -> list[str]:
    """Return the requirement files in a command's arguments."""
    return [
        f"-r {name}"
        for name in re.findall(rf"(?:-r|--requirement|--file|-f){_BETWEEN}?=?([\w./-]+\.\w+)", rest)
    ]


# --- keys -----------------------------------------------------------------------------------------


def _find_enclosing_keys(value: str, start: int) -> tuple[str, ...]:
    """Return the keys above a place in YAML, JSON, INI or a script, the nearest first.

    Indentation tells which lines are above it.
    """
    begin = value.rfind("\n", 0, start) + 1
    out = []
    near = _NEAR_KEY.search(value[begin:start])
    if near:
        out.append(near["key"])
    head = _KEY.match(value, begin, start)
    line = value[begin:start]
    indent = len(line) - len(line.lstrip(" \t-"))
    if head and (not near or head["key"] != near["key"]):
        out.append(head["key"])
    if not near and not head and line.strip(" \t\"'"):
        indent += 1
    for _ in range(_LINES_ABOVE):
        if not indent or not begin:
            break
        end, begin = begin - 1, value.rfind("\n", 0, begin - 1) + 1
        match = _KEY.match(value, begin, end)
        if match and len(match["indent"]) < indent:
            out.append(match["key"])
            indent = len(match["indent"])
    return tuple(out)
