"""User names and passwords for registries: the files of podman and docker, and docker's credential helpers.

Source: containers-auth.json(5); https://github.com/docker/docker-credential-helpers, README.md.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import shutil
import subprocess
import tempfile

from rootless import files, log, paths, xdg
from rootless.errors import RootlessError, one_line
from rootless.image.reference import DOCKER_HUB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_HUB_KEY = "https://index.docker.io/v1/"
"""What docker calls Docker Hub, in its files and to helpers."""
_FILES_OF_PODMAN = "containers-auth.json"
"""In the list of credential-helpers, it stands for the files."""
_TOKEN_USER = "<token>"  # noqa: S105 - a helper says by this name that the secret is an identity token
_PATIENCE = 60
"""Seconds for a credential helper, which may ask the user to unlock a key ring."""


class Credentials:
    """How to log in to a registry.

    Attributes:
        user, password: empty for an identity token.
        token: an identity token, which is exchanged for a bearer token.
    """

    __slots__ = ("password", "token", "user")

    def __init__(self, user: str, password: str, token: str = "") -> None:
        self.user = user
        self.password = password
        self.token = token

    def basic(self) -> str:
        """Return the value of a header Authorization, RFC 7617."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find(registry: str, repository: str, helpers: tuple[str, ...] = ()) -> Credentials | None:
    """Return the credentials for a repository; the most specific entry of the first file that has one.

    Args:
        registry: host and port.
        repository: the name there.
        helpers: credential-helpers of registries.conf.

    Raises:
        RootlessError: `RL-REGISTRY-CREDENTIALS`: a file or helper is broken.
    """
    for helper in helpers or (_FILES_OF_PODMAN,):
        found = _in_files(registry, repository) if helper == _FILES_OF_PODMAN else _from_helper(helper, registry)
        if found:
            if log.is_debug():
                log.debug(f"credentials for {registry}: user {found.user or 'of an identity token'}")
            return found
    return None


def auth_file() -> str:
    """Return the file that `login` writes: podman's own.

    Raises:
        RootlessError: `RL-REGISTRY-CREDENTIALS`: the user has no home.
    """
    path = next(iter(_files()), "")
    if not path:
        raise _wrong("find auth.json", "HOME and XDG_RUNTIME_DIR are not set", "export REGISTRY_AUTH_FILE=/your/file")
    return path


def save(registry: str, credentials: Credentials) -> str:
    """Remember credentials, and return where: a file, or the helper that the file names for this registry.

    Raises:
        RootlessError: `RL-REGISTRY-CREDENTIALS`: they cannot be written.
    """
    path = auth_file()
    data = _read(path)
    helper = _helper_for(data, registry)
    if helper:
        secret = {"ServerURL": _server(registry), "Username": credentials.user, "Secret": credentials.password}
        _call_helper(helper, "store", json.dumps(secret))
        return f"docker-credential-{helper}"
    auth = base64.b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()
    _write(path, {**data, "auths": {**_table(data, "auths"), registry: {"auth": auth}}})
    return path


def forget(registry: str) -> bool:
    """Remove the credentials of a registry, or of all if it is empty; return whether there were any.

    Raises:
        RootlessError: `RL-REGISTRY-CREDENTIALS`: the file cannot be written.
    """
    path = auth_file()
    data = _read(path)
    auths = _table(data, "auths")
    helper = _helper_for(data, registry) if registry else ""
    if helper:
        _call_helper(helper, "erase", _server(registry))
        return True
    kept = {key: value for key, value in auths.items() if registry and registry_of(key) != registry}
    if len(kept) == len(auths):
        return False
    _write(path, {**data, "auths": kept})
    return True


def _files() -> Iterator[str]:
    """Yield the files that may exist, the first one first, as podman has them.

    podman uses /run/containers/UID where there is no XDG_RUNTIME_DIR, which only root can create.
    """
    chosen = paths.variable("REGISTRY_AUTH_FILE")
    if chosen:
        yield chosen
        return
    if xdg.runtime():
        yield f"{xdg.runtime()}/containers/auth.json"
    elif os.geteuid() == 0:
        yield "/run/containers/0/auth.json"
    if xdg.config():
        yield f"{xdg.config()}/containers/auth.json"
    docker = paths.variable("DOCKER_CONFIG") or (paths.variable("HOME") and f"{paths.variable('HOME')}/.docker")
    if docker:
        yield f"{docker}/config.json"


def _is_anothers(path: str, opened: int | None = None) -> bool:
    """Whether root was led to the file of a user, by a variable that sudo keeps: it names programs to execute.

    What `path` names may be exchanged: what it names first decides whether it is opened, the descriptor whether it is
    read.
    """
    if os.geteuid() != 0 or path == paths.variable("REGISTRY_AUTH_FILE"):
        return False
    return os.stat(path if opened is None else opened).st_uid != 0


def _in_files(registry: str, repository: str) -> Credentials | None:
    for path in _files():
        data = _read(path, own=True)
        helper = _helper_for(data, registry)
        found = _from_helper(helper, registry) if helper else None
        found = found or _in_auths(_table(data, "auths"), registry, repository, path)
        store = data.get("credsStore")
        if not found and isinstance(store, str) and store:
            found = _from_helper(store, registry)
        if found:
            return found
    return None


def _in_auths(auths: dict[str, Any], registry: str, repository: str, path: str) -> Credentials | None:
    """Return the entry for the longest part of ``registry/repository`` that has one."""
    whole = {key.rstrip("/"): value for key, value in auths.items() if "/" in key and "://" not in key}
    name = f"{registry}/{repository}"
    while "/" in name:
        if name in whole:
            return _decoded(whole[name], path)
        name = name.rpartition("/")[0]
    entry = auths.get(registry) or next((value for key, value in auths.items() if registry_of(key) == registry), None)
    return _decoded(entry, path) if entry else None


def _decoded(entry: object, path: str) -> Credentials | None:
    """Return the credentials of an entry; None for an empty one, which docker writes beside a credsStore."""
    if not isinstance(entry, dict):
        return None
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials("", "", token)
    auth = entry.get("auth")
    if not auth:
        user, password = entry.get("username"), entry.get("password")
        return Credentials(user, password) if isinstance(user, str) and isinstance(password, str) else None
    try:
        text = base64.b64decode(auth, validate=True).decode()
    except (binascii.Error, ValueError, TypeError):
        text = ""
    user, colon, password = text.partition(":")
    if not colon:
        raise _wrong(f"read {path}", "an auth in it is not the base64 form of USER:PASSWORD", "log in again")
    return Credentials(user, password.strip("\0"))


def _helper_for(data: dict[str, Any], registry: str) -> str:
    """Return the name of the helper that a file has for one registry; empty if none."""
    helpers = _table(data, "credHelpers")
    name = next((value for key, value in helpers.items() if registry_of(key) == registry), "")
    return name if isinstance(name, str) else ""


def _from_helper(helper: str, registry: str) -> Credentials | None:
    answer = _call_helper(helper, "get", _server(registry))
    if not answer:
        return None
    try:
        data = json.loads(answer)
        user, secret = data["Username"], data["Secret"]
    except (ValueError, KeyError, TypeError):
        raise _wrong(f"docker-credential-{helper} get", "its answer is no JSON with Username and Secret", "") from None
    return Credentials("", "", str(secret)) if user == _TOKEN_USER else Credentials(str(user), str(secret))


def _call_helper(helper: str, action: str, text: str) -> str:
    """Return what a helper prints; nothing if it has no credentials."""
    what = f"docker-credential-{helper} {action}"
    program = shutil.which(f"docker-credential-{helper}") if "/" not in helper else None
    if not program:
        fix = "install it, or remove it from the configuration of docker or podman"
        raise _wrong(what, "it is not installed", fix)
    try:
        done = subprocess.run(
            [program, action], input=text, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _wrong(what, str(error), "") from error
    if done.returncode == 0:
        return done.stdout
    said = (done.stdout + done.stderr).strip()
    if action == "get" and "credentials not found" in said:
        return ""
    raise _wrong(what, one_line(said)[:300] or f"it exited with {done.returncode}", "")


def _server(registry: str) -> str:
    return _HUB_KEY if registry == DOCKER_HUB else registry


def registry_of(key: str) -> str:
    """Return the registry of a key, which old versions of docker write as a URL."""
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DOCKER_HUB if host in ("index.docker.io", "registry-1.docker.io") else host


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _read(path: str, *, own: bool = False) -> dict[str, Any]:
    """Return what a file has; nothing if there is none, or if it has to be the caller's `own` and is not."""
    try:
        if own and _is_anothers(path):
            return {}
        with open(path, "rb") as file:
            data = {} if own and _is_anothers(path, file.fileno()) else json.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _wrong(f"read {path}", str(error.strerror), "") from error
    except ValueError as error:
        raise _wrong(f"read {path}", f"it is not JSON: {error}", "correct it, or log in again") from None
    return data if isinstance(data, dict) else {}


def _write(path: str, data: dict[str, Any]) -> None:
    directory = os.path.dirname(os.path.abspath(path))
    try:
        files.make_private(directory)
        fd, temporary = tempfile.mkstemp(prefix=".auth.", dir=directory)
        try:
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(data, file, indent="\t")
                file.write("\n")
            os.replace(temporary, path)
        except BaseException:
            files.unlink(temporary)
            raise
    except OSError as error:
        raise _wrong(f"write {path}", str(error.strerror), "name another file: REGISTRY_AUTH_FILE=FILE") from error


def _wrong(what: str, cause: str, fix: str) -> RootlessError:
    return RootlessError(what, cause=cause, fix=fix, code="RL-REGISTRY-CREDENTIALS")
