"""Look credentials up where Docker keeps them: config.json, credential helpers and stores.

Docker's own SDK reads them. It is imported only when a registry asks for a sign-in: that takes
longer than most commands take to run.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kfdeploy.errors import UserError

_SECTIONS: Final = ("auths", "credsStore", "credHelpers")
DOCKER_HUB: Final = "docker.io"
_DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Credential:
    """A user with a password, or an identity token (OAuth2 refresh token)."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic_header(self) -> str:
        """Return the value of an Authorization header for Basic."""
        return f"Basic {_encode_base64(f'{self.username}:{self.password}')}"


@dataclass(frozen=True, slots=True)
class CredentialSource:
    """Where to look for a credential.

    Attributes:
        docker_config: folder with config.json, or that file; None for Docker's own default.
        helper: NAME of a program docker-credential-NAME, asked before config.json.
    """

    docker_config: Path | None = None
    helper: str | None = None

    @property
    def config_file(self) -> Path:
        """Return the config.json to read."""
        folder = self.docker_config
        if folder is None:
            named = os.environ.get("DOCKER_CONFIG")
            folder = Path(named) if named else Path.home() / ".docker"
        return folder if folder.is_file() else folder / "config.json"


class Keyring:
    """Looks each credential up once; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[str, CredentialSource], Credential | None] = {}
        self._configs: dict[Path, Any] = {}

    def get(self, host: str, login: CredentialSource) -> Credential | None:
        """Return the credential for a registry; None when there is none.

        Raises:
            UserError: config.json is broken, a folder named for it has none, or a credential helper
                fails. Messages never repeat a secret.
        """
        with self._lock:
            key = (host, login)
            if key not in self._found:
                self._found[key] = self._find_credential(host, login)
            return self._found[key]

    def renew(self, host: str, login: CredentialSource, used: Credential | None) -> bool:
        """Look a credential up again; return whether it is now another one than ``used``.

        Of threads that were refused with the same one, the first looks it up, and the others get
        what it found.

        Raises:
            UserError: see `get`.
        """
        with self._lock:
            found = self._found.get((host, login))
            if found == used:
                self._configs.pop(login.config_file, None)
                found = self._found[host, login] = self._find_credential(host, login)
            return found is not None and found != used

    def _find_credential(self, host: str, login: CredentialSource) -> Credential | None:
        if login.helper:
            found = _query_helper(host, login.helper)
            if found is not None:
                return found
        config = self._get_config(login)
        if config is None:
            return None
        from docker.errors import DockerException

        try:
            entry = config.resolve_authconfig(host)
        except DockerException as error:
            helper = config.get_credential_store(host) or ""
            raise _helper_error(host, helper, str(login.config_file)) from error
        return _parse_auth_entry(entry or {})

    def _get_config(self, login: CredentialSource) -> Any:
        file = login.config_file
        if file not in self._configs:
            self._configs[file] = _read_docker_config(
                file, must_exist=login.docker_config is not None
            )
        return self._configs[file]


def _read_docker_config(file: Path, *, must_exist: bool) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if must_exist:
            raise UserError(
                f"{file}: no such file, though credentials.dockerConfig names it",
                hint=f"`docker --config {file.parent} login HOST` writes it",
            ) from None
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"{file}: {(reason or '').lower()}") from error
    try:
        content = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise UserError(
            f"{file}:{line}: broken JSON", hint="`docker login HOST` writes it again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: must be a JSON object")
    if not any(content.get(section) for section in _SECTIONS):
        return None
    from docker import auth
    from docker.errors import DockerException

    try:
        return auth.load_config(config_dict=content)
    except (DockerException, ValueError, AttributeError, TypeError) as error:
        # The cause may quote a secret, so the message leaves it out.
        raise UserError(
            f"{file}: an entry of 'auths' is malformed", hint="`docker login HOST` writes it again"
        ) from error


def _query_helper(host: str, helper: str) -> Credential | None:
    import warnings

    from docker import credentials

    with warnings.catch_warnings():
        # A missing program is an error of ours below.
        warnings.simplefilter("ignore")
        store = credentials.Store(helper)
    try:
        entry = store.get(_DOCKER_HUB_KEY if host == DOCKER_HUB else host)
    except credentials.CredentialsNotFound:
        return None
    except (credentials.StoreError, ValueError, KeyError) as error:
        raise _helper_error(host, helper, "credentials.helper") from error
    if entry.get("Username") == "<token>":
        return Credential(identity_token=entry["Secret"])
    return Credential(entry["Username"], entry["Secret"])


def _helper_error(host: str, helper: str, where: str) -> UserError:
    program = f"docker-credential-{helper}"
    return UserError(
        f"{program} returned no credential for {host} ({where})",
        hint=f"try `echo {host} | {program} get`; it must be on PATH",
    )


def _parse_auth_entry(entry: dict[str, Any]) -> Credential | None:
    if token := entry.get("IdentityToken"):
        return Credential(identity_token=token)
    username = entry.get("Username") or entry.get("username") or ""
    password = entry.get("Password") or entry.get("password") or ""
    return Credential(username, password) if username else None


def _encode_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
