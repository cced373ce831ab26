"""Find the addresses outside the cluster that an object makes programs connect to.

Like `images.sites`, it walks the fields of an object, but for addresses, installs at run time, and
names of models and datasets. Of a CRD only the URL of its conversion webhook counts.
"""

from __future__ import annotations

import base64
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kfdeploy.kubernetes.objects import Object, ObjectKey, Path, show_path
from kfdeploy.scan.egress.addresses import ExternalAddress, parse_host
from kfdeploy.scan.egress.classify import EgressContext, EgressPurpose, classify_address
from kfdeploy.scan.egress.text import EgressMention, find_egress_mentions, is_hub_id, is_prose

_SILENT = (
    "ClusterRole ClusterRoleBinding Role RoleBinding ServiceAccount NetworkPolicy Namespace"
    " AuthorizationPolicy PeerAuthentication PodDisruptionBudget HorizontalPodAutoscaler"
    " PriorityClass StorageClass PersistentVolumeClaim ResourceQuota LimitRange Lease"
    " APIService Application Certificate CertificateSigningRequest Image"
)
_NO_EGRESS = frozenset(_SILENT.split())
"""Kinds that grant, limit or describe. Addresses in them are only compared.
An Image (Knative's) is an image; an APIService can only name a Service."""
_SERVED = frozenset(
    ("Gateway", "Ingress", "HTTPRoute", "GRPCRoute", "TLSRoute", "VirtualService", "Sidecar")
)
"""Kinds whose hosts are names of the cluster itself."""
_HOST_NAMES = frozenset(("hosts", "host", "hostname", "hostnames"))
_HOST_FIELDS = frozenset(
    (
        ("Service", ("spec", "externalName")),
        ("ServiceEntry", ("spec", "hosts")),
        ("WasmPlugin", ("spec", "url")),
    )
)
"""Fields that hold a host, or several, without a scheme."""
_KIND = re.compile(r"^kind: [\"']?(\w+)", re.MULTILINE)
_NAMESPACE = re.compile(r"^  namespace: [\"']?([\w-]+)", re.MULTILINE)
_NAME = re.compile(r"^  name: [\"']?([\w.-]+)", re.MULTILINE)
_SIGNAL = re.compile(
    r"://|git@|(?:(?<![A-Za-z_])|(?<=\\[nrt]))(?:pip[\d.]*|pipx|uvx?|poetry|conda|mamba|micromamba"
    r"|npm|npx|pnpm|yarn|apt|apt-get|apk|yum|dnf|microdnf|zypper|cargo|gem|bundle|helm|hf"
    r"|huggingface-cli|ollama|spacy|curl|wget|install|go[\s\"',-]+(?:get|mod))(?![\w-])"
    r"|--(?:packages|model|tokenizer)\b|jars\.packages|install\.packages|packages_to_install"
    r"|from_pretrained|load_dataset|snapshot_download|hf_hub_download|hub\.load|nltk\.download"
    r"|SentenceTransformer|(?i:(?:model|dataset|repo)[_-]?(?:id|name)|pretrained)"
    r"|(?<![\w.@/-])(?:[a-z0-9-]+\.)+[a-z]{2,}(?::\d+)?(?![\w./-])"
)
"""An object or a string without a match has no endpoints. A line may end in two characters
(backslash and n), as in JSON."""
_RELEVANT_ANNOTATION = re.compile(
    r"(?:^|[/_.-])(?:auth-url|auth-signin|s3-endpoint|endpoint|issuer|webhook-url|server-url)$"
    r"|^proxy\.istio\.io/config$"
)
_PASSED = (
    "apiVersion kind matchLabels matchExpressions caBundle managedFields ownerReferences labels"
    " annotations supportedUriFormats apiGroups requestPrincipals audiences"
)
_SKIPPED = frozenset(_PASSED.split())
_HUB_KEY = re.compile(
    r"(?:^|_)(?:(?:hf|hub|huggingface)_?)?(?:model|base_model|tokenizer|draft_model|repo|dataset)_(?:id|name"
    r"(?:_or_path)?)$|(?:^|_)(?:pretrained|hf)_(?:model|dataset|repo)(?:_name(?:_or_path)?)?$"
)
_SERVING_IMAGE = re.compile(
    r"huggingface|vllm|text-generation|sglang|llama|tgi\b|lmdeploy|triton-llm"
)
_BLANK = re.compile(r"\s")
_PAGE = re.compile(
    r"^\s*<(?:\?xml|!DOCTYPE|html|svg|head|body|div|template)\b|</\w+>", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ExternalEndpoint:
    """An address outside the cluster in an object.

    Attributes:
        key: the object.
        path: the path of its string.
        field: the path as it is shown.
        start: the offset of ``text`` in the string.
        text: what to look for in the object's source file.
        address: the address.
        purpose: what it is for.
    """

    key: ObjectKey
    path: Path
    field: str
    start: int
    text: str
    address: ExternalAddress
    purpose: EgressPurpose


def find_namespaces(objects: Sequence[Object]) -> frozenset[str]:
    """Return the namespaces of objects, without parsing them."""
    out = set()
    for item in objects:
        if item.is_crd:
            continue
        kind = _KIND.search(item.text)
        out.update(_NAMESPACE.findall(item.text))
        if kind and kind[1] in ("Namespace", "Profile") and (name := _NAME.search(item.text)):
            out.add(name[1])
    return frozenset(out)


def find_endpoints(item: Object) -> Iterator[ExternalEndpoint]:
    """Yield the addresses that an object makes programs connect to, in document order.

    Raises:
        UserError: the object is not valid YAML.
    """
    if item.is_crd:
        if "clientConfig:" in item.text and re.search(r"^ +url:", item.text, re.MULTILINE):
            yield from _find_conversion_webhook(item)
        return
    kind = _KIND.search(item.text)
    if kind and kind[1] in _NO_EGRESS:
        return
    if not (kind and kind[1] == "Secret") and not _SIGNAL.search(item.text):
        return
    if item.key.kind not in _NO_EGRESS:
        yield from _EndpointWalker(item).find_all()


def _find_conversion_webhook(crd: Object) -> Iterator[ExternalEndpoint]:
    path: Path = ("spec", "conversion", "webhook", "clientConfig", "url")
    node: Any = crd.body
    for step in path:
        node = node.get(step) if isinstance(node, dict) else None
    if isinstance(node, str):
        yield from _EndpointWalker(crd).find_in_string(path, node, ())


@dataclass(frozen=True, slots=True)
class _Frame:
    """The keys above a field, the nearest first, and its container."""

    keys: tuple[str, ...] = ()
    container: str = ""
    image: str = ""


class _EndpointWalker:
    def __init__(self, item: Object) -> None:
        self.key = item.key
        self.body = item.body

    def find_all(self) -> Iterator[ExternalEndpoint]:
        yield from self._walk_node((), self.body, _Frame())

    def find_in_string(
        self, path: Path, value: str, keys: tuple[str, ...]
    ) -> Iterator[ExternalEndpoint]:
        yield from self._walk_string(path, value, _Frame((*keys, *_keys_of(path))))

    def _walk_node(self, path: Path, node: Any, frame: _Frame) -> Iterator[ExternalEndpoint]:
        if isinstance(node, str):
            yield from self._walk_string(path, node, frame)
        elif isinstance(node, list):
            for index, value in enumerate(node):
                yield from self._walk_node((*path, index), value, frame)
        elif isinstance(node, dict):
            inner = frame
            if isinstance(node.get("image"), str) and isinstance(node.get("name"), str):
                inner = _Frame(frame.keys, node["name"], node["image"])
            for name, value in node.items():
                if isinstance(name, str):
                    yield from self._walk_field((*path, name), node, value, inner)

    def _walk_field(
        self, path: Path, parent: dict[str, Any], value: Any, frame: _Frame
    ) -> Iterator[ExternalEndpoint]:
        name = str(path[-1])
        below = _Frame((name, *frame.keys), frame.container, frame.image)
        if name == "annotations" and isinstance(value, dict):
            yield from self._walk_annotations(path, value)
        elif self._is_skipped(path):
            return
        elif name == "env" and isinstance(value, list):
            yield from self._walk_env(path, value, below)
        elif name in ("command", "args") and isinstance(value, list):
            yield from self._walk_command(path, parent, value, below)
        elif self.key.kind == "Secret" and path[:-1] == ("data",):
            yield from self._walk_secret(path, value, below)
        elif self._holds_host(path, value):
            yield from self._walk_hosts(path, value, below)
        else:
            yield from self._walk_node(path, value, below)

    def _holds_host(self, path: Path, value: Any) -> bool:
        """Return whether a field holds hosts without a scheme, which no pattern would find."""
        if self.key.kind == "WasmPlugin" and "://" in str(value):
            return False
        return (self.key.kind, path) in _HOST_FIELDS

    def _walk_annotations(
        self, path: Path, annotations: dict[str, Any]
    ) -> Iterator[ExternalEndpoint]:
        for key, text in annotations.items():
            if isinstance(text, str) and _RELEVANT_ANNOTATION.search(str(key)):
                yield from self._walk_string((*path, key), text, _Frame((str(key),)))

    def _walk_command(
        self, path: Path, container: dict[str, Any], words: list[Any], frame: _Frame
    ) -> Iterator[ExternalEndpoint]:
        """Walk ``command`` and ``args`` together: the arguments belong to the command's program."""
        command, args = container.get("command"), container.get("args")
        if path[-1] == "args":
            if not isinstance(command, list):
                yield from self._walk_arguments([(path, words)], frame)
            return
        lists = [(path, words)]
        if isinstance(args, list):
            lists.append(((*path[:-1], "args"), args))
        yield from self._walk_arguments(lists, frame)

    def _is_skipped(self, path: Path) -> bool:
        name = path[-1]
        if name in _SKIPPED or (name == "_example" and path[0] == "data"):
            return True
        if self.key.kind in _SERVED and name in _HOST_NAMES:
            return True
        if path[0] == "metadata" or path[0] == "binaryData":
            return path != ("metadata",)
        return path[0] != "data" and is_prose(str(name))

    def _walk_env(
        self, path: Path, variables: list[Any], frame: _Frame
    ) -> Iterator[ExternalEndpoint]:
        for index, variable in enumerate(variables):
            if not isinstance(variable, dict) or not isinstance(variable.get("value"), str):
                continue
            name, value = str(variable.get("name", "")), variable["value"]
            if name.lower() == "no_proxy":
                continue
            keyed = _Frame((name, *frame.keys), frame.container, frame.image)
            here = (*path, index, "value")
            yield from self._find_hub_ids(here, value, name, 0, keyed) or self._walk_string(
                here, value, keyed
            )

    def _walk_arguments(
        self, lists: list[tuple[Path, list[Any]]], frame: _Frame
    ) -> Iterator[ExternalEndpoint]:
        """Yield the endpoints in the words of a command.

        Each word is read with its flag, and all words as one line, to find `pip` `install`. A word
        with blanks is a script and is read by itself.
        """
        words = [
            ((*path, index), word)
            for path, items in lists
            for index, word in enumerate(items)
            if isinstance(word, str)
        ]
        starts, line = [], ""
        for _, word in words:
            starts.append(len(line))
            line += "\n" if _BLANK.search(word) else f"{word} "
        joined: dict[int, list[EgressMention]] = {}
        for spot in find_egress_mentions(line):
            joined.setdefault(bisect_right(starts, spot.start) - 1, []).append(spot)
        flag = ""
        for at, (path, word) in enumerate(words):
            is_flag = word.startswith("-") and not _BLANK.search(word)
            name, equals, value = word.partition("=") if is_flag else (flag, "", word)
            keyed = _Frame((name, *frame.keys), frame.container, frame.image)
            shown = value if equals else word
            offset = len(word) - len(shown)
            found = self._find_hub_ids(path, word, name, offset, keyed)
            if found:
                yield from found
            elif _BLANK.search(word):
                yield from self._walk_string(path, word, keyed)
            else:
                own = {s.start + offset: s for s in find_egress_mentions(shown, name.lstrip("-"))}
                own.update({s.start - starts[at]: s for s in joined.get(at, ())})
                for start, spot in sorted(own.items()):
                    end = min(start + spot.end - spot.start, len(word))
                    yield self._make_endpoint(
                        path, replace(spot, start=start, end=end), word, keyed
                    )
            flag = word if is_flag and not equals else ""

    def _find_hub_ids(
        self, path: Path, value: str, name: str, offset: int, frame: _Frame
    ) -> list[ExternalEndpoint]:
        """Return the model or dataset that a variable or flag names in the form of a hub."""
        key = name.lstrip("-").replace("-", "_").lower()
        wanted = value[offset:]
        keyed = bool(_HUB_KEY.search(key)) or (
            key in ("model", "tokenizer", "served_model")
            and bool(_SERVING_IMAGE.search(frame.image))
        )
        if not keyed or not is_hub_id(wanted):
            return []
        tool = "hub-dataset" if "dataset" in key else "hub"
        spot = EgressMention(offset, len(value), ExternalAddress("hf", "", wanted), tool)
        return [self._make_endpoint(path, spot, value, frame)]

    def _walk_secret(self, path: Path, value: Any, frame: _Frame) -> Iterator[ExternalEndpoint]:
        try:
            text = base64.b64decode(value, validate=True).decode("utf-8")
        except (ValueError, TypeError):
            return
        for spot in find_egress_mentions(text, str(path[-1])):
            # The source file has the whole encoded value or nothing: look for the whole value.
            yield self._make_endpoint(path, spot, text, frame, shown=value)

    def _walk_hosts(self, path: Path, value: Any, frame: _Frame) -> Iterator[ExternalEndpoint]:
        if not isinstance(value, list):
            yield from self._walk_host(path, value, frame)
            return
        for index, host in enumerate(value):
            yield from self._walk_host((*path, index), host, frame)

    def _walk_host(self, path: Path, value: Any, frame: _Frame) -> Iterator[ExternalEndpoint]:
        if isinstance(value, str) and (address := parse_host(value)):
            yield self._make_endpoint(path, EgressMention(0, len(value), address), value, frame)

    def _walk_string(self, path: Path, value: str, frame: _Frame) -> Iterator[ExternalEndpoint]:
        if len(value) < 4 or not _SIGNAL.search(value):
            return
        key = next(iter(frame.keys), "")
        for spot in find_egress_mentions(value, key):
            yield self._make_endpoint(path, spot, value, frame)

    def _make_endpoint(
        self, path: Path, spot: EgressMention, value: str, frame: _Frame, shown: str | None = None
    ) -> ExternalEndpoint:
        field = show_path(self.body, path)
        keys = (*spot.keys, *(key for key in frame.keys if key not in ("data", "spec", "value")))
        if keys[:2] == ("url", "clientConfig"):
            keys = keys[1:]
        begin = value.rfind("\n", 0, spot.start) + 1
        context = EgressContext(
            kind=self.key.kind,
            setting=self._describe_setting(path, field, frame),
            keys=keys,
            container=frame.container,
            is_page=bool(_PAGE.search(value)),
            before=value[max(begin, spot.start - 200) : spot.start],
        )
        text = value[spot.start : spot.end].partition("\n")[0]
        start = spot.start
        if shown is not None:
            start, text = 0, shown
        return ExternalEndpoint(
            self.key, path, field, start, text, spot.address, classify_address(spot, context)
        )

    def _describe_setting(self, path: Path, field: str, frame: _Frame) -> str:
        of = f" of container {frame.container}" if frame.container else ""
        if path[-3:-2] == ("env",) and path[-1] == "value":
            return f"{frame.keys[0]}{of}"
        if path[-2:-1] in (("args",), ("command",)):
            return f"{frame.keys[0]}{of}" if frame.keys[0].startswith("-") else f"{path[-2]}{of}"
        if self.key.kind in ("ConfigMap", "Secret") and len(path) == 2:
            return f"key {path[1]} of {self.key.kind} {self.key.name}"
        return field


def _keys_of(path: Path) -> tuple[str, ...]:
    return tuple(step for step in reversed(path) if isinstance(step, str))
