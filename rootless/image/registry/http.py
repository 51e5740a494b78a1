"""HTTP requests to registries, by urllib3: TLS with certs.d, proxies, redirects that leak no credentials, retries.

Source: distribution specification; containers-certs.d(5).
"""

from __future__ import annotations

import os
import ssl
import time
from urllib.parse import unquote, urlencode, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from rootless import __version__, log, paths, xdg
from rootless.errors import RootlessError, one_line
from rootless.image.registry.registries_conf import SYSTEM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from urllib3 import BaseHTTPResponse

_TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as dead; $ROOTLESS_REGISTRY_TIMEOUT overrides it."""
_CONNECT_TIMEOUT = 15.0
_TRIES = 3
_FIRST_PAUSE = 0.25  # seconds, doubled each time
_LONGEST_WAIT = 15
"""Seconds that a registry may ask to wait before the next request; a longer wait is an error that says so."""
_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)
_FORM = "application/x-www-form-urlencoded"
_TOO_MANY = 429
_SERVER_ERROR = 500
_CONNECTIONS = 8


class Answer:
    """The answer to a request; its body has not been read.

    Attributes:
        status: of HTTP.
        headers: of the answer.
        url: of the request that it answers, after redirects, without what may be secret.
        by_origin: whether the host that was asked first has answered, not one that it redirected to.
    """

    __slots__ = ("_response", "by_origin", "headers", "status", "url")

    def __init__(self, response: BaseHTTPResponse, url: str, *, by_origin: bool) -> None:
        self._response = response
        self.status = response.status
        self.headers = response.headers
        self.url = url.partition("?")[0]
        self.by_origin = by_origin

    def read(self, most: int) -> bytes:
        """Return the next bytes of the body, at most as many; none at its end.

        Raises:
            RootlessError: `RL-REGISTRY-NETWORK`: the connection broke, or was silent for too long.
        """
        try:
            return self._response.read(most)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(self.url, error) from error

    def close(self) -> None:
        """Give the connection back, or close it if the body was not read to its end."""
        self._response.close()
        self._response.release_conn()


class Http:
    """Requests to one registry and to the hosts that it redirects to. Threads may share it.

    Attributes:
        insecure: whether plain HTTP and unverified certificates are accepted.
    """

    __slots__ = ("_pools", "_timeout", "insecure")

    def __init__(self, *, insecure: bool) -> None:
        self.insecure = insecure
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._timeout = urllib3.Timeout(connect=min(_CONNECT_TIMEOUT, timeout()), read=timeout())

    def get(
        self, url: str, headers: Mapping[str, str], *, fields: dict[str, str] | None = None, retry: bool = True
    ) -> Answer:
        """Return the answer to a GET, or to a POST of a form if there are `fields`; the caller reads and closes it.

        Redirects are followed; the header Authorization goes to the first host only. Answers of 500 and more, and
        broken connections, are tried again if `retry`, and so is 429 if the wait is short.

        Raises:
            RootlessError: `RL-REGISTRY-NETWORK`: there is no answer; `RL-REGISTRY`: the redirects are unacceptable.
        """
        for attempt in range(_TRIES if retry else 1):
            last = attempt == _TRIES - 1 or not retry
            try:
                answer = self._follow(url, dict(headers), fields)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if (
                    last
                    or isinstance(error.__cause__, ssl.SSLCertVerificationError)
                    or "CERTIFICATE_VERIFY" in str(error)
                ):
                    raise unreachable(url, error) from error
                wait = _FIRST_PAUSE * 2**attempt
                log.debug(f"{url}: {error}; again in {wait} s")
            else:
                if last or not _is_passing(answer):
                    return answer
                wait = float(_seconds(answer.headers.get("Retry-After"))) or _FIRST_PAUSE * 2**attempt
                answer.close()
                log.debug(f"{url}: status {answer.status}; again in {wait} s")
            time.sleep(wait)
        raise AssertionError

    def _follow(self, url: str, headers: dict[str, str], fields: dict[str, str] | None) -> Answer:
        origin = _origin(url)
        for _ in range(_REDIRECTS + 1):
            if log.is_debug():
                log.debug(f"{'POST' if fields else 'GET'} {url.partition('?')[0]}")
            response = self._pool(url).request(
                "POST" if fields else "GET",
                url,
                body=urlencode(fields) if fields else None,
                headers={"User-Agent": f"rootless/{__version__}", "Accept-Encoding": "identity"}
                | ({"Content-Type": _FORM} if fields else {})
                | headers,
                redirect=False,
                retries=False,
                timeout=self._timeout,
                preload_content=False,
                decode_content=False,
            )
            target = response.headers.get("Location")
            if response.status not in _MOVED or not target:
                return Answer(response, url, by_origin=_origin(url) == origin)
            response.close()
            url = self._target(url, target)
            fields = None
            if _origin(url) != origin:
                headers.pop("Authorization", None)
        raise RootlessError(
            f"get {url.partition('?')[0]}", cause=f"more than {_REDIRECTS} redirects", code="RL-REGISTRY"
        )

    def _target(self, url: str, location: str) -> str:
        """Return the address that a redirect leads to."""
        target = urljoin(url, location)
        scheme = urlsplit(target).scheme
        if scheme == "https" or (scheme == "http" and self.insecure):
            return target
        raise RootlessError(
            f"get {url.partition('?')[0]}",
            cause=f"it redirects to {one_line(target[:200])}, which is not encrypted",
            fix="set insecure = true for it in registries.conf, if you trust the network",
            code="RL-REGISTRY",
        )

    def _pool(self, url: str) -> urllib3.PoolManager:
        """Return the connections to the host of a URL, with the certificates that are configured for that host."""
        parts = urlsplit(url)
        origin = _origin(url)
        if origin not in self._pools:
            context = tls_context(parts.netloc.rpartition("@")[2], insecure=self.insecure)
            proxy = getproxies().get(parts.scheme)
            if proxy and not proxy_bypass(parts.hostname or ""):
                proxy = proxy if "://" in proxy else f"http://{proxy}"
                headers = urllib3.make_headers(
                    proxy_basic_auth=unquote(urlsplit(proxy).netloc.rpartition("@")[0]) or None
                )
                self._pools[origin] = urllib3.ProxyManager(
                    proxy, proxy_headers=headers, ssl_context=context, maxsize=_CONNECTIONS
                )
            else:
                self._pools[origin] = urllib3.PoolManager(ssl_context=context, maxsize=_CONNECTIONS)
        return self._pools[origin]


def read_all(answer: Answer, limit: int) -> bytes:
    """Return the body of an answer and close it.

    Raises:
        RootlessError: `RL-REGISTRY-NETWORK`: the connection broke; `RL-REGISTRY`: it has more than `limit` bytes.
    """
    content = b""
    try:
        while len(content) <= limit and (piece := answer.read(limit + 1 - len(content))):
            content += piece
    finally:
        answer.close()
    if len(content) > limit:
        raise RootlessError(f"get {answer.url}", cause=f"the answer has more than {limit} bytes", code="RL-REGISTRY")
    return content


def unreachable(url: str, error: Exception) -> RootlessError:
    """Return the error for a connection that fails."""
    host = urlsplit(url).netloc or url
    text = str(error)
    fix = "check the network, and the proxy in https_proxy"
    places = f"{SYSTEM}/certs.d/{host} or ~/.config/containers/certs.d/{host}"
    if "CERTIFICATE_VERIFY" in text:
        fix = f"put the certificate of its authority into {places}"
    elif "CERTIFICATE_REQUIRED" in text or "ALERT_UNKNOWN_CA" in text:
        fix = f"put your certificate and its key into {places} as client.cert and client.key"
    elif "WRONG_VERSION_NUMBER" in text or "HTTP_REQUEST" in text or "RECORD_LAYER" in text:
        fix = f"set insecure = true for {host} in registries.conf, if it serves plain HTTP and you trust the network"
    return RootlessError(
        f"reach the registry {host}", cause=one_line(_reason(error))[:300], fix=fix, code="RL-REGISTRY-NETWORK"
    )


def timeout() -> float:
    """Return the seconds without a byte after which a connection counts as dead."""
    try:
        return max(0.1, float(paths.variable("ROOTLESS_REGISTRY_TIMEOUT") or _TIMEOUT))
    except ValueError:
        return _TIMEOUT


def tls_context(host: str, *, insecure: bool) -> ssl.SSLContext:
    """Return how to speak TLS with a host: the system's authorities, and what certs.d has for it.

    Args:
        host: with the port, if the name of the image has one.
        insecure: whether any certificate is accepted.

    Raises:
        RootlessError: `RL-REGISTRY-CERTIFICATE`: a certificate or key cannot be read.
    """
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    directory = next((path for path in _certificate_directories(host) if os.path.isdir(path)), "")
    for name in sorted(os.listdir(directory)) if directory else ():
        path = f"{directory}/{name}"
        try:
            if name.endswith(".crt"):
                context.load_verify_locations(path)
            elif name.endswith(".cert"):
                context.load_cert_chain(path, path.removesuffix(".cert") + ".key")
        except (OSError, ssl.SSLError) as error:
            raise RootlessError(
                f"read {path}",
                cause=str(error),
                fix="it takes NAME.crt of an authority, or NAME.cert and NAME.key of a client",
                code="RL-REGISTRY-CERTIFICATE",
            ) from error
    return context


def _certificate_directories(host: str) -> Iterator[str]:
    if xdg.config():
        yield f"{xdg.config()}/containers/certs.d/{host}"
    yield f"{SYSTEM}/certs.d/{host}"
    yield f"/etc/docker/certs.d/{host}"


def _origin(url: str) -> str:
    """Return scheme, host and port of a URL, as web browsers compare them (RFC 6454)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _is_passing(answer: Answer) -> bool:
    """Whether another attempt in some seconds may succeed."""
    if answer.status == _TOO_MANY:
        return 0 < _seconds(answer.headers.get("Retry-After")) <= _LONGEST_WAIT
    return bool(answer.status >= _SERVER_ERROR)


def _seconds(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0  # noqa: PLR2004 - digits


def _reason(error: Exception) -> str:
    """Return the innermost reason, without the names of Python's classes around it."""
    reason = getattr(error, "reason", None) or error.__cause__ or error.__context__
    if isinstance(reason, Exception) and reason is not error:
        return _reason(reason)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    return text.rpartition(">: ")[2] or type(error).__name__
