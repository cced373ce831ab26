"""Write the patches that let programs of the cluster reach the private registry.

They get its CA and the pull secrets. No object is added to a release: what pods need is in
annotations of their template, so that they are replaced when it changes.
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
from kfdeploy.patchfile.pod_files import PodFile, build_file_operations
from kfdeploy.patchfile.quoting import quote_literal
from kfdeploy.patchfile.writer import JsonPatchText, ObjectPatch
from kfdeploy.workspace.settings import Workspace

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
) -> Iterator[ObjectPatch]:
    """Yield the patches of one object, if an environment has a CA or pull secrets.

    Args:
        readers: the programs that ask registries, as the catalogue knows them.

    Raises:
        UserError: a controller takes SSL_CERT_DIR from where a patch can't see it.
    """
    environments = workspace.environments.values()
    if any(workspace.resolve_registry(environment).ca for environment in environments):
        yield from _patch_ca(item, readers)
    if any(environment.image_pull_secrets for environment in environments):
        yield from _patch_profile_hook(item)
        yield from _grant_secret_read(item, readers)


def _patch_ca(
    item: Object, readers: Sequence[tuple[WorkloadProgram, RegistryReader]]
) -> Iterator[ObjectPatch]:
    """Yield the patch that makes a controller trust the private registry, which it asks itself."""
    asking = {
        reader.container
        for program, reader in readers
        if program.object == item.key and reader.ca == f"env {_CERT_DIR}"
    }
    containers = [
        (path, container)
        for path, container in workload.list_containers(item.body)
        if container.get("name") in asking
    ]
    if not containers:
        return
    names = tuple(str(container["name"]) for _, container in containers)
    file = PodFile("registry-ca", "{{ .Values.registryCa | toJson }}", _CA_FOLDER, names, True)
    text = JsonPatchText(item.key, "trusts the private registry, which it asks itself")
    for (path, _), name in zip(containers, names, strict=True):
        text.test_text((*path, "name"), name)
    with text.only_if(".Values.registryCa"):
        text.extend(build_file_operations(item.body, (file,)))
        for path, container in containers:
            _extend_cert_dir(text, item, path, container)
    yield ObjectPatch(item.key, "ca", str(text))


def _extend_cert_dir(
    text: JsonPatchText, item: Object, path: Path, container: dict[str, Any]
) -> None:
    for index, variable in enumerate(container.get("env") or ()):
        if variable.get("name") != _CERT_DIR:
            continue
        value = variable.get("value")
        if not value:
            raise UserError(
                f"{item.key}: container {container['name']} takes {_CERT_DIR} from elsewhere,"
                " so that the private registry's CA can't be added to it",
                hint="set it to a plain value by a patch of your own in the upstream",
            )
        field: Path = (*path, "env", index, "value")
        text.test_text(field, value)
        text.replace(field, quote_literal(f"{value}:{_CA_FOLDER}"))
        return
    folders = f"{_SYSTEM_DIRS}:{_CA_FOLDER}"
    text.append_items(container, path, "env", [f'{{name: {_CERT_DIR}, value: "{folders}"}}'])


def _patch_profile_hook(item: Object) -> Iterator[ObjectPatch]:
    """Yield the patch that starts the profile controller's hook by ours, with the pull secrets."""
    if item.key.name != "kubeflow-pipelines-profile-controller":
        return
    for path, container in workload.list_containers(item.body):
        command = list(container.get("command") or ())
        if _HOOK not in command:
            continue
        name, index = str(container["name"]), command.index(_HOOK)
        code = quote_literal(CODE.read_text(encoding="utf-8"))
        file = PodFile("pull-secrets.py", code, _CODE_FOLDER, (name,), True)
        spec = path[: path.index("containers")]
        mount = f"{{name: {_SECRETS_VOLUME}, mountPath: {_SECRETS_FOLDER}, readOnly: true}}"
        text = JsonPatchText(item.key, "user namespaces get copies of the pull secrets")
        text.test_text((*path, "name"), name)
        text.test((*path, "command", index), _HOOK)
        with text.only_if(".Values.imagePullSecrets"):
            text.extend(build_file_operations(item.body, (file,)))
            text.add((*spec, "volumes", "-"), _SECRETS_AS_FILES)
            text.add((*path, "volumeMounts", "-"), mount)
            text.add((*path, "command", index), f"{_CODE_FOLDER}/{file.name}")
            text.append_items(container, path, "env", [_SECRETS_VARIABLE])
        yield ObjectPatch(item.key, "namespaces", str(text))


def _grant_secret_read(
    item: Object, readers: Sequence[tuple[WorkloadProgram, RegistryReader]]
) -> Iterator[ObjectPatch]:
    """Yield the patch that lets a controller read the pull secrets, by name, in all namespaces."""
    if item.key.kind != "ClusterRole" or item.key.name not in {r.role for _, r in readers}:
        return
    text = JsonPatchText(item.key, "may read the pull secrets, with which it asks registries")
    # Also for an environment that has none: a patch that holds nothing is no patch.
    text.test_text(("metadata", "name"), item.key.name)
    with text.only_if(".Values.imagePullSecrets"):
        text.add(("rules", "-"), _SECRETS_RULE)
    yield ObjectPatch(item.key, "secrets", str(text))


_SECRETS_VARIABLE: Final = (
    "{name: KFDEPLOY_PULL_SECRETS, value: {{ .Values.imagePullSecrets | toJson | toJson }}}"
)
_SECRETS_RULE: Final = (
    '{apiGroups: [""], resources: [secrets],'
    " resourceNames: {{ .Values.imagePullSecrets | toJson }}, verbs: [get]}"
)
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
