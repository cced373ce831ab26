"""What an object makes something reach for outside the cluster: one table a rule."""

from __future__ import annotations

import base64
import json
import time

import pytest

from kfdeploy.kubernetes.objects import Object
from kfdeploy.scan.egress.addresses import is_outside
from kfdeploy.scan.egress.endpoints import ExternalEndpoint, find_endpoints, find_namespaces
from kfdeploy.scan.egress.text import find_egress_mentions


def found(text: str) -> list[ExternalEndpoint]:
    return list(find_endpoints(Object(text)))


def answers(text: str) -> list[tuple[str, str, str]]:
    return [(r.purpose.what, r.address.text, r.purpose.need) for r in found(text)]


def config(value: str, key: str = "k", kind: str = "ConfigMap") -> str:
    data = json.dumps({key: value})
    return f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: c, namespace: n}}\ndata: {data}\n"


def pod(kind: str = "Deployment", image: str = "example.com/a:1", **container: object) -> str:
    one = json.dumps({"name": "c", "image": image, **container})
    return (
        f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: d, namespace: n}}\n"
        f"spec:\n  template:\n    spec:\n      containers: [{one}]\n"
    )


def env(name: str, value: str) -> str:
    return pod(env=[{"name": name, "value": value}])


@pytest.mark.parametrize(
    "host",
    [
        "huggingface.co",
        "s3.amazonaws.com",
        "minio.corp.example",
        "kafka.prod.corp",
        "8.8.8.8",
        "169.254.169.254",
        "[2606:4700:4700::1111]",
    ],
)
def test_a_host_with_a_domain_lies_outside(host: str) -> None:
    assert is_outside(host)


@pytest.mark.parametrize(
    "host",
    [
        "minio",
        "localhost",
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "[::1]",
        "dex.auth",
        "seaweedfs.kubeflow",
        "istiod.istio-system.svc",
        "a.b.svc.cluster.local",
        "a.b.svc.corp.example",
        "jaeger-collector.observability",
    ],
)
def test_services_loopback_and_private_addresses_lie_inside(host: str) -> None:
    assert not is_outside(host)


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (["pip", "install", "kfp==2.0"], "pip install kfp==2.0"),
        (["sh", "-c", "python -m pip install -q a b && python x.py"], "pip install a b"),
        (["sh", "-c", "pip3 install -r requirements.txt"], "pip3 install -r requirements.txt"),
        (["bash", "-c", "apt-get -y install git \\\n  curl"], "apt-get install git curl"),
        (["sh", "-c", "apk add --no-cache jq"], "apk add jq"),
        (["sh", "-c", "conda install -y -c conda-forge x"], "conda install x"),
        (["npm", "ci"], "npm ci"),
        (["npx", "serve"], "npx serve"),
        (["go", "install", "example.com/x@v1"], "go install example.com/x@v1"),
        (["helm", "repo", "add", "x", "https://charts.example.org"], "https://charts.example.org"),
        (["pip", "install", "git+https://example.org/a.git"], "git+https://example.org/a.git"),
        (["spark-submit", "--packages", "a:b:1,c:d:2", "x.py"], "--packages a:b:1 c:d:2"),
        (["python", "-c", "import pip\npip.main(['install'])\n#"], None),
    ],
)
def test_an_install_names_its_packages(command: list[str], wanted: str | None) -> None:
    expected = [("package-install", wanted, "required")] if wanted else []
    assert answers(pod(command=command[:1], args=command[1:])) == expected
    assert answers(pod(command=command)) == expected


@pytest.mark.parametrize(
    "script",
    [
        "pip install --no-index --find-links /wheels x",
        "pip install /wheels/x.whl",
        "pip install --index-url http://devpi.tools.svc/simple x",
        "pip --version",
        "# pip install x",
        "echo 'see apt(8)'; update-ca-certificates",
        "curl -sf http://localhost:8080/healthz",
        "wget -q http://${HOST}:8080/x",
        "git status",
    ],
)
def test_what_stays_inside_is_no_install(script: str) -> None:
    assert answers(pod(command=["sh", "-c", f"set -e\n{script}\n"])) == []


def test_the_way_out_of_an_install_names_the_variable_and_the_container() -> None:
    (reach,) = found(pod(command=["pip", "install", "x"]))
    assert "PIP_INDEX_URL on container c" in reach.purpose.way_out


@pytest.mark.parametrize(
    ("script", "what", "target"),
    [
        ("git clone https://github.com/a/b", "git", "https://github.com/a/b"),
        ("git clone git@github.com:a/b.git", "git", "git@github.com:a/b.git"),
        ("curl -L https://x.example/m.safetensors", "model", "https://x.example/m.safetensors"),
        ("curl -L https://x.example/train.csv", "dataset", "https://x.example/train.csv"),
        ("curl -LO files.example.org/x", "other", "files.example.org/x"),
        ("kubectl apply -f https://x.example/a.yaml", "other", "https://x.example/a.yaml"),
        ("huggingface-cli download a/b", "model", "huggingface-cli download a/b"),
        ("python -c 'load_dataset(\"squad\")'", "dataset", "squad"),
        ("python -c 'X.from_pretrained(\"a/b\")'", "model", "a/b"),
    ],
)
def test_what_a_script_fetches(script: str, what: str, target: str) -> None:
    (reach,) = found(pod(command=["sh", "-c", f"set -e\n{script}\n"]))
    assert (reach.purpose.what, reach.address.text) == (what, target)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("STORAGE_URI", "hf://a/b", "model"),
        ("DATASET_URI", "hf://a/b", "dataset"),
        ("MODEL_ID", "a/b", "model"),
        ("HF_DATASET_NAME", "a/b", "dataset"),
        ("MINIO_HOST", "s3.amazonaws.com", "other"),
        ("S3_ENDPOINT", "https://s3.amazonaws.com", "other"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otel.corp.example:4318", "telemetry"),
        ("SENTRY_DSN", "https://k@o1.ingest.sentry.io/2", "telemetry"),
        ("OIDC_PROVIDER", "https://login.corp.example/realms/a", "identity"),
        ("JWKS_URL", "https://login.corp.example/keys", "identity"),
        ("LDAP", "ldaps://ldap.corp.example", "identity"),
        ("SLACK_URL", "https://hooks.slack.com/services/x", "webhook"),
        ("GIT_SYNC_REPO", "https://github.com/a/b", "git"),
        ("PIP_INDEX_URL", "https://pypi.corp.example/simple", "package-install"),
        ("GOPROXY", "https://modules.corp.example", "package-install"),
        ("WAREHOUSE", "abfss://c@a.dfs.core.windows.net/x", "other"),
        ("MASTER", "k8s://https://api.corp.example:6443", "other"),
        ("LOGO_URL", "https://x.example/a.png", "web-asset"),
        ("HTTP_PROXY", "http://proxy.corp.example:3128", "other"),
    ],
)
def test_a_variable_says_what_its_address_is_for(name: str, value: str, what: str) -> None:
    (reach,) = found(env(name, value))
    assert reach.purpose.what == what


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL_ID", "/mnt/models"),
        ("MODEL_NAME", "iris"),
        ("GATEWAY", "kubeflow/kubeflow-gateway"),
        ("METRICS_DOMAIN", "knative.dev/serving"),
        ("LEASE", "trainer.kubeflow.org"),
        ("URL", "http://minio-service.kubeflow:9000"),
        ("URL", "http://$(HOST):80"),
        ("OWNER", "kubernetes://apis/apps/v1/namespaces/a/deployments/b"),
        ("NO_PROXY", "https://a.example.org"),
        ("ROOT", "minio://mlpipeline/v2"),
        ("IMAGE", "registry.example.com/a/b:1"),
        ("PREFIX", "gs://"),
        ("MASTER", "k8s://https://kubernetes.default.svc:443"),
        ("BUCKET", "s3://$(BUCKET)/x"),
        ("PATTERN", "https://(.+?).blob.core.windows.net/(.+)"),
    ],
)
def test_names_templates_and_services_are_no_address(name: str, value: str) -> None:
    assert answers(env(name, value)) == []


def test_a_model_flag_of_a_serving_image_names_a_model_of_the_hub() -> None:
    serving = pod(image="vllm/vllm-openai:1", args=["--model", "a/b", "--port=80"])
    assert answers(serving) == [("model", "a/b", "required")]
    assert answers(pod(args=["--model", "a/b"])) == []
    assert answers(pod(args=["--model_id=a/b"])) == [("model", "a/b", "required")]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("issuer: https://login.corp.example\n# https://a.example/doc\n", ["identity"]),
        ("s3:\n  endpoint: s3.amazonaws.com\n  bucket: b\n", ["other"]),
        ("tracing:\n  zipkin:\n    address: z.corp.example:9411\n", ["telemetry"]),
        ("models:\n- name: x\n  readme: |-\n    pip install y\n  uri: s3://b/m\n", ["model"]),
        ('{"documentationItems": [{"link": "https://a.example/"}]}', ["other"]),
        ('{"description": "see https://a.example/"}', []),
        ('{"$schema": "https://json-schema.org/draft/2020-12/schema"}', ["schema"]),
        ("typed_config:\n  '@type': type.googleapis.com/envoy.X\n", []),
        ("admins:\n- email: user@example.com\n", []),
        ("domain: example.com\n", []),
        ("runtime_env:\n  pip:\n  - torch\n", ["package-install"]),
        (
            "- apiVersion: v1\n  command:\n  - pip\n  - install\n  - x\n  name: a\n",
            ["package-install"],
        ),
    ],
)
def test_text_in_a_config_map(text: str, wanted: list[str]) -> None:
    assert [what for what, _, _ in answers(config(text))] == wanted


SVG = (
    '<?xml version="1.0"?>\n<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/a.dtd">'
    '\n<svg xmlns="http://www.w3.org/2000/svg" xmlns:f="http://www.figma.com/figma/ns"/>'
)
HTML = (
    '<html><link rel="stylesheet" href="https://fonts.googleapis.com/css?family=X">'
    '<script src="https://cdn.example.org/x"></script><a href="https://a.example/">doc</a></html>'
)


def test_names_in_markup_are_passed_over_and_what_a_browser_loads_is_not() -> None:
    assert answers(config(SVG)) == []
    assert answers(config(HTML)) == [
        ("web-asset", "https://fonts.googleapis.com/css?family=X", "optional"),
        ("web-asset", "https://cdn.example.org/x", "optional"),
        ("other", "https://a.example/", "user-choice"),
    ]


def test_documentation_blocks_labels_and_annotations_are_passed_over() -> None:
    assert answers(config("endpoint: https://a.example", key="_example")) == []
    text = (
        "metadata:\n  name: c\n  annotations: {docs: 'https://a.example', x/y: 'https://b.example'}"
    )
    assert answers(f"apiVersion: v1\nkind: ConfigMap\n{text}\n") == []


def test_an_annotation_that_a_program_reads_is_listed() -> None:
    text = "metadata:\n  name: c\n  annotations: {serving.kserve.io/s3-endpoint: s3.amazonaws.com}"
    (reach,) = found(f"apiVersion: v1\nkind: Secret\n{text}\n")
    assert reach.address.text == "s3.amazonaws.com"


def test_a_secrets_data_is_read_and_no_password_shown() -> None:
    url = base64.b64encode(b"https://user:secret@git.corp.example/a.git").decode()
    (reach,) = found(config(url, kind="Secret"))
    assert (reach.purpose.what, reach.address.text) == ("git", "https://git.corp.example/a.git")
    assert reach.text == url


WEBHOOK = """\
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: w}
webhooks:
- name: a.example.com
  clientConfig: CLIENT
"""


def test_a_webhook_by_url_is_required_and_one_by_service_is_none() -> None:
    url = "{url: 'https://hook.corp.example/check'}"
    assert answers(WEBHOOK.replace("CLIENT", url)) == [
        ("webhook", "https://hook.corp.example/check", "required")
    ]
    assert answers(WEBHOOK.replace("CLIENT", "{service: {name: a, namespace: b}}")) == []


def test_of_a_crd_only_the_conversion_webhooks_url_is_looked_at() -> None:
    crd = (
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n"
        "  name: x.x.io\nspec:\n  conversion:\n    webhook:\n      clientConfig:\n"
        "        url: https://hook.corp.example/convert\n"
        "  versions:\n  - schema: {description: 'https://a.example/'}\n"
    )
    assert answers(crd) == [("webhook", "https://hook.corp.example/convert", "required")]
    assert answers(crd.replace("        url", "        path")) == []


@pytest.mark.parametrize(
    ("kind", "spec", "wanted"),
    [
        ("Service", "{type: ExternalName, externalName: db.corp.example}", ["other"]),
        ("Service", "{type: ExternalName, externalName: a.b.svc.cluster.local}", []),
        ("ServiceEntry", "{hosts: [api.corp.example], location: MESH_EXTERNAL}", ["other"]),
        ("WasmPlugin", "{url: 'oci://ghcr.io/a/plugin:1'}", ["other"]),
        ("WasmPlugin", "{url: 'https://x.example/a.wasm'}", ["package-install"]),
        ("ClusterIssuer", "{acme: {server: 'https://ca.corp.example/directory'}}", ["identity"]),
        ("RequestAuthentication", "{jwtRules: [{issuer: 'https://i.corp.example'}]}", ["identity"]),
        ("AuthorizationPolicy", "{rules: [{when: [{values: ['https://i.corp.example']}]}]}", []),
        ("Gateway", "{servers: [{hosts: [kubeflow.corp.example]}]}", []),
        ("InferenceService", "{predictor: {storageUri: 'gs://b/x'}}", ["model"]),
        ("Application", "{descriptor: {links: [{url: 'https://a.example'}]}}", []),
    ],
)
def test_kinds_with_a_meaning_of_their_own(kind: str, spec: str, wanted: list[str]) -> None:
    text = f"apiVersion: x/v1\nkind: {kind}\nmetadata: {{name: a, namespace: n}}\nspec: {spec}\n"
    assert [what for what, _, _ in answers(text)] == wanted


def test_what_only_lies_ready_is_optional() -> None:
    runtime = pod(kind="ClusterTrainingRuntime", command=["pip", "install", "x"])
    assert answers(runtime) == [("package-install", "pip install x", "optional")]


def test_a_name_that_ends_like_a_domain_is_a_service_where_its_namespace_is_there() -> None:
    (reach,) = found(env("URL", "http://api.dev:80"))
    there = find_namespaces([Object("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: dev\n")])
    assert reach.address.is_inside(there)
    assert not reach.address.is_inside(frozenset())


@pytest.mark.parametrize(
    "text",
    [
        "a" * 300_000,
        "a." * 150_000,
        "a: b.c.example.org\n" * 20_000,
        "url: https://a.example.org/x\n" * 20_000,
        "pip install x\n" * 20_000,
        "- pip\n- install\n" * 20_000,
        "curl " * 60_000,
        "description: " * 30_000,
        " " * 300_000,
        "-" * 300_000,
        "<!DOCTYPE " * 30_000,
        "http://" * 40_000,
    ],
)
def test_a_hostile_text_costs_seconds_at_most(text: str) -> None:
    started = time.process_time()
    list(find_egress_mentions(text, "endpoint"))
    assert time.process_time() - started < 10


def test_a_comment_of_a_go_template_is_passed_over() -> None:
    template = (
        "spec:\n"
        "  {{/* safe since 1.22: https://example.org/pull/1. */}}\n"
        "  {{- /* two\n  lines: https://example.org/2 */ -}}\n"
        "  url: https://example.org/3\n"
    )
    assert answers(config(template)) == [("other", "https://example.org/3", "optional")]
