"""What lets the cluster's own programs reach the private registry: its CA, and pull secrets.

No object is added to a release: what pods need travels in their template's annotations, so that
they are replaced when it changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any, Final

from kfdeploy.catalogue.facts import WorkloadProgram
from kfdeploy.catalogue.records import RegistryReader
from kfdeploy.errors import UserError
from kfdeploy.kubernetes import workload
from kfdeploy.kubernetes.objects import Object, Path
from kfdeploy.patchfile import pod_files
from kfdeploy.patchfile.patch_file import format_operation, target_yaml
from kfdeploy.patchfile.pod_files import PodFile
from kfdeploy.patchfile.writer import append_items, describe_object, quote_literal
from kfdeploy.workspace.settings import Workspace
from kfdeploy.yamltext.emit import quote_scalar

_CERT_DIR: Final = "SSL_CERT_DIR"
_SYSTEM_DIRS: Final = "/etc/ssl/certs:/etc/pki/tls/certs"
"""Go reads its first bundle file and, instead of these folders, those of the variable (Go 1.26
crypto/x509/root_unix.go, root_linux.go): with these named too the image's own roots stay."""
_CA_FOLDER: Final = "/etc/kfdeploy/registry-ca"
_CODE_FOLDER: Final = "/etc/kfdeploy/code"
_SECRETS_FOLDER: Final = "/etc/kfdeploy/pull-secrets"
_SECRETS_VOLUME: Final = "kfdeploy-pull-secrets"
CODE: Final = FilePath(__file__).parent / "templates" / "pull_secrets.py"
_HOOK: Final = "/hooks/sync.py"


def build_access_patches(
    workspace: Workspace, item: Object, readers: Sequence[tuple[WorkloadProgram, RegistryReader]]
) -> Iterator[tuple[str, str]]:
    """Purpose and body of each patch of one object.

    Args:
        asks: the programs that ask registries, as the catalogue knows them.

    Raises:
        UserError: a controller takes SSL_CERT_DIR from where a patch can't see it.
    """
    environments = workspace.environments.values()
    if any(workspace.resolve_registry(environment).ca for environment in environments):
        wanted = {
            fact.container
            for program, fact in readers
            if program.object == item.key and fact.ca == f"env {_CERT_DIR}"
        }
        containers = [c for c in workload.list_containers(item.body) if c[1].get("name") in wanted]
        if containers:
            yield "ca", _patch_ca(item, containers)
    if any(environment.image_pull_secrets for environment in environments):
        for path, container in workload.list_containers(item.body):
            command = container.get("command") or ()
            if item.key.name == "kubeflow-pipelines-profile-controller" and _HOOK in command:
                yield "namespaces", _patch_profile_hook(item, path, container)
        roles = {fact.role for _, fact in readers}
        if item.key.kind == "ClusterRole" and item.key.name in roles:
            yield "secrets", _grant_secret_read(item)


def _patch_ca(item: Object, containers: Sequence[tuple[Path, dict[str, Any]]]) -> str:
    names = tuple(str(container["name"]) for _, container in containers)
    file = PodFile("registry-ca", "{{ .Values.registryCa | toJson }}", _CA_FOLDER, names, True)
    body = f"# {describe_object(item.key)}: trusts the private registry, which it asks itself\n"
    body += target_yaml(item.key) + "patch:\n"
    for path, container in containers:
        body += format_operation("test", (*path, "name"), quote_scalar(str(container["name"])))
    body += "{{- if .Values.registryCa }}\n"
    body += "".join(pod_files.build_file_operations(item.body, (file,)))
    for path, container in containers:
        body += _extend_cert_dir(item, path, container)
    return body + "{{- end }}\n"


def _extend_cert_dir(item: Object, path: Path, container: dict[str, Any]) -> str:
    for index, variable in enumerate(container.get("env") or ()):
        if variable.get("name") == _CERT_DIR:
            value = variable.get("value")
            if not value:
                raise UserError(
                    f"{item.key}: container {container['name']} takes {_CERT_DIR} from elsewhere,"
                    " so that the private registry's CA can't be added to it",
                    hint="set it to a plain value by a patch of your own in the upstream",
                )
            there: Path = (*path, "env", index, "value")
            return format_operation("test", there, quote_scalar(value)) + format_operation(
                "replace", there, quote_scalar(f"{value}:{_CA_FOLDER}")
            )
    return append_items(
        container,
        path,
        "env",
        [f'{{name: {_CERT_DIR}, value: "{_SYSTEM_DIRS}:{_CA_FOLDER}"}}'],
    )


def _patch_profile_hook(item: Object, path: Path, container: dict[str, Any]) -> str:
    """The profile controller's hook started by ours, with the pull secrets as files beside it."""
    command = list(container["command"])
    name = str(container["name"])
    code = quote_literal(CODE.read_text(encoding="utf-8"))
    file = PodFile("pull-secrets.py", code, _CODE_FOLDER, (name,), True)
    body = f"# {describe_object(item.key)}: user namespaces get copies of the pull secrets\n"
    body += target_yaml(item.key) + "patch:\n"
    at = command.index(_HOOK)
    body += format_operation("test", (*path, "name"), quote_scalar(name))
    body += format_operation("test", (*path, "command", at), _HOOK)
    body += "{{- if .Values.imagePullSecrets }}\n"
    body += "".join(pod_files.build_file_operations(item.body, (file,)))
    spec = path[: path.index("containers")]
    body += format_operation("add", (*spec, "volumes", "-"), _SECRETS_AS_FILES)
    mount = f"{{name: {_SECRETS_VOLUME}, mountPath: {_SECRETS_FOLDER}, readOnly: true}}"
    body += format_operation("add", (*path, "volumeMounts", "-"), mount)
    body += format_operation("add", (*path, "command", at), f"{_CODE_FOLDER}/{file.name}")
    names = "{name: KFDEPLOY_PULL_SECRETS, value: {{ .Values.imagePullSecrets | toJson | toJson }}}"
    return body + append_items(container, path, "env", [names]) + "{{- end }}\n"


def _grant_secret_read(item: Object) -> str:
    """A controller's right to read the pull secrets, by their names, wherever they are."""
    body = (
        f"# {describe_object(item.key)}: may read the pull secrets, with which it asks registries\n"
    )
    body += target_yaml(item.key) + "patch:\n"
    # Also for an environment that has none: a patch that holds nothing is no patch.
    body += format_operation("test", ("metadata", "name"), quote_scalar(item.key.name))
    body += "{{- if .Values.imagePullSecrets }}\n"
    names = "{{ .Values.imagePullSecrets | toJson }}"
    rule = f'{{apiGroups: [""], resources: [secrets], resourceNames: {names}, verbs: [get]}}'
    return body + format_operation("add", ("rules", "-"), rule) + "{{- end }}\n"


_SECRETS_AS_FILES: Final = f"""
    name: {_SECRETS_VOLUME}
    projected:
      sources:
{{{{- range .Values.imagePullSecrets }}}}
      - secret:
          name: {{{{ toJson . }}}}
          optional: true
          items: [{{key: .dockerconfigjson, path: {{{{ toJson . }}}}}}]
{{{{- end }}}}"""
"""Optional: without the Secret the controller runs as upstream's does. Renewed files show by
themselves, as they would not by subPath."""
