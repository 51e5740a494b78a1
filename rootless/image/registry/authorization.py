"""How a registry wants requests to be authorized: the challenge in its answer, and the token that satisfies it.

Source: RFC 7235; distribution specification, "Token Authentication Specification" and "OAuth2 Token Authentication".
"""

from __future__ import annotations

import json
import threading
from urllib.parse import urlencode, urlsplit

from rootless import log
from rootless.errors import RootlessError, one_line
from rootless.image.registry.http import Http, read_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.image.registry.credentials import Credentials

_LARGEST_TOKEN = 1 << 20  # bytes of an answer
_OK = 200
_CLIENT = "rootless"


class Challenge:
    """One way to authorize: `scheme` in lower case, and its parameters, whose names are in lower case."""

    __slots__ = ("parameters", "scheme")

    def __init__(self, scheme: str, parameters: dict[str, str]) -> None:
        self.scheme = scheme
        self.parameters = parameters


def challenges(headers: Sequence[str]) -> list[Challenge]:
    """Return what the headers WWW-Authenticate of an answer offer; unintelligible parts are left out."""
    found: list[Challenge] = []
    for header in headers:
        text = header
        while text := text.lstrip(" ,\t"):
            word, text = _word(text)
            text = text.lstrip()
            if text.startswith("=") and found:
                value, text = _value(text[1:].lstrip())
                found[-1].parameters.setdefault(word.lower(), value)
            elif word:
                found.append(Challenge(word.lower(), {}))
            else:
                break
    return found


class Authorization:
    """The header Authorization for a repository of one registry. Threads may share it."""

    __slots__ = ("_credentials", "_host", "_http", "_lock", "_repository", "header")

    def __init__(self, http: Http, host: str, repository: str, credentials: Credentials | None) -> None:
        """Begin without one.

        Args:
            http: for requests of tokens.
            host: of the registry, for messages.
            repository: which is to be pulled; empty to log in.
            credentials: for the registry; None for an anonymous caller.
        """
        self._http = http
        self._host = host
        self._repository = repository
        self._credentials = credentials
        self._lock = threading.Lock()
        self.header = ""

    def satisfy(self, headers: Sequence[str], used: str) -> bool:
        """Get what the answer 401 to a request with the header `used` demands; return whether there is something new.

        Raises:
            RootlessError: `RL-REGISTRY-AUTH`: the credentials are refused, or the realm is unacceptable.
        """
        with self._lock:
            if self.header != used:
                return True  # another thread was first
            for challenge in challenges(headers):
                if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                    self.header = f"Bearer {self._token(challenge.parameters)}"
                    return self.header != used
                if challenge.scheme == "basic" and self._credentials and self._credentials.user:
                    self.header = self._credentials.basic()
                    return self.header != used
            return False

    def _token(self, parameters: dict[str, str]) -> str:
        """Return a bearer token from the realm, to which the credentials go, as docker and podman do.

        The registry that the user named chooses its realm. Other hosts, to which it redirects, choose none.
        """
        realm = parameters["realm"]
        scheme = urlsplit(realm).scheme
        if scheme != "https" and not (scheme == "http" and self._http.insecure):
            raise _refused(
                self._host,
                f"the registry wants credentials sent to {one_line(realm[:200])}, which is not encrypted",
                "",
            )
        scope = f"repository:{self._repository}:pull" if self._repository else ""
        asked = {"service": parameters.get("service", ""), "scope": parameters.get("scope", scope)}
        asked = {name: value for name, value in asked.items() if value}
        credentials = self._credentials
        if credentials and credentials.token:
            form = {"grant_type": "refresh_token", "client_id": _CLIENT, "refresh_token": credentials.token, **asked}
            answer = self._http.get(realm, {}, fields=form)
        else:
            headers = {"Authorization": credentials.basic()} if credentials else {}
            asked |= {"account": credentials.user} if credentials else {}
            answer = self._http.get(f"{realm}{'&' if '?' in realm else '?'}{urlencode(asked)}", headers)
        content = read_all(answer, _LARGEST_TOKEN)
        if answer.status != _OK:
            if answer.status in (401, 403):
                raise refused_credentials(self._host, known=bool(credentials))
            raise _refused(
                self._host, f"{urlsplit(realm).netloc} gives no token: status {answer.status}", "try again later"
            )
        try:
            data = json.loads(content)
            token = data.get("token") or data.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise _refused(self._host, f"the answer of {urlsplit(realm).netloc} holds no token", "")
        if log.is_debug():
            log.debug(f"token from {urlsplit(realm).netloc}, scope {asked.get('scope', 'none')}")
        return token


def refused_credentials(host: str, *, known: bool) -> RootlessError:
    """Return the error for a registry that refuses the caller.

    Args:
        host: of the registry.
        known: whether the caller has credentials.
    """
    if known:
        return _refused(
            host, "the registry refuses the user name or the password", f"log in again: rootless login {host}"
        )
    return _refused(host, "the registry asks for a user name and a password", f"log in: rootless login {host}")


def _refused(host: str, cause: str, fix: str) -> RootlessError:
    return RootlessError(f"registry {host}", cause=cause, fix=fix, code="RL-REGISTRY-AUTH")


def _word(text: str) -> tuple[str, str]:
    end = next((index for index, character in enumerate(text) if character in '=, \t"'), len(text))
    return text[:end], text[end:]


def _value(text: str) -> tuple[str, str]:
    """Return a token or quoted string, and the rest."""
    if not text.startswith('"'):
        return _word(text)
    value, position = "", 1
    while position < len(text) and text[position] != '"':
        position += text[position] == "\\"
        value += text[position : position + 1]
        position += 1
    return value, text[position + 1 :]
