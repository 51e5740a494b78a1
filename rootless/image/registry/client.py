"""The client of one registry: manifests, and blobs whose download continues where it broke.

Source: distribution specification, "Pull"; Docker Hub's documentation of its rate limit for the headers of 429.
"""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime

from rootless import log
from rootless.errors import RootlessError, one_line
from rootless.image.manifest import ACCEPTED, LARGEST_MANIFEST, digest_of
from rootless.image.reference import DOCKER_HUB, is_digest
from rootless.image.registry.authorization import Authorization, refused_credentials
from rootless.image.registry.http import Http, read_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from rootless.image.registry.credentials import Credentials
    from rootless.image.registry.http import Answer
    from rootless.image.registry.registries_conf import Place
    from rootless.image.store.blobs import Blob

_HUB_HOST = "registry-1.docker.io"
_CHUNK = 1 << 18
_TRIES = 5
"""How often in a row a download may break without having advanced."""
_AUTHORIZATIONS = 2
"""How often a request is authorized again: a token may have expired, and another thread's may expire next."""
_FIRST_PAUSE = 0.25  # seconds, doubled each time
_LARGEST_MESSAGE = 1 << 16  # bytes
_SHOWN = 200
_EPOCH_DIGITS = 10

_OK, _PARTIAL = 200, 206
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _BAD_RANGE, _TOO_MANY = 401, 403, 404, 416, 429


class StoppedError(Exception):
    """The download was stopped, because another one failed."""


class Client:
    """The client of a place that may have an image. Threads may share it.

    Attributes:
        host: of the registry, as in the names of its images.
    """

    __slots__ = ("_authorization", "_base", "_http", "_known", "_repository", "host")

    def __init__(self, place: Place, credentials: Credentials | None) -> None:
        self.host = place.reference.registry
        self._repository = place.reference.repository
        self._http = Http(insecure=place.insecure)
        self._known = bool(credentials)
        self._authorization = Authorization(self._http, self.host, self._repository, credentials)
        self._base = ""

    def log_in(self) -> None:
        """Let the registry check the credentials.

        Raises:
            RootlessError: `RL-REGISTRY-AUTH`: it refuses them.
        """
        answer = self._get("", {})
        if answer.status != _OK:
            raise self._failed(answer, f"log in to {self.host}")
        answer.close()

    def manifest(self, tag_or_digest: str) -> tuple[bytes, str]:
        """Return a manifest or index, verified, and its media type.

        Raises:
            RootlessError: `RL-REGISTRY-*`, `RL-IMAGE-NOT-FOUND`: the registry does not give it; `RL-IMAGE-DIGEST`: it
                is another one.
        """
        answer = self._get(f"{self._repository}/manifests/{tag_or_digest}", {"Accept": ", ".join(ACCEPTED)})
        separator = "@" if is_digest(tag_or_digest) else ":"
        what = f"pull {self.host}/{self._repository}{separator}{tag_or_digest}"
        if answer.status != _OK:
            raise self._failed(answer, what)
        content = read_all(answer, LARGEST_MANIFEST)
        found = digest_of(content)
        declared = tag_or_digest if is_digest(tag_or_digest) else answer.headers.get("Docker-Content-Digest", found)
        if found != declared and declared.startswith("sha256:"):
            raise RootlessError(
                what,
                cause=f"the manifest's digest is {found}, not {one_line(declared[:_SHOWN])}",
                code="RL-IMAGE-DIGEST",
            )
        return content, answer.headers.get("Content-Type", "")

    def download(self, blob: Blob, progress: Callable[[int], object], stop: threading.Event) -> None:
        """Download a blob, or the rest of it, and finish it.

        Args:
            blob: what to write to.
            progress: called with the number of bytes of each piece; a negative one if some of it begins again.
            stop: set by another thread, to end early.

        Raises:
            RootlessError: `RL-REGISTRY-*`: the registry does not give it; `RL-IMAGE-DIGEST`: it is another one;
                `RL-STORE`: it cannot be written.
            StoppedError: `stop` was set.
        """
        blob.resume(progress)
        resumed = blob.done > 0
        self._complete(blob, progress, stop)
        try:
            blob.finish()
        except RootlessError:
            if not resumed:
                raise
            # what an earlier process has left may be wrong, and not what came now
            progress(-blob.size)
            blob.restart()
            self._complete(blob, progress, stop)
            blob.finish()

    def _complete(self, blob: Blob, progress: Callable[[int], object], stop: threading.Event) -> None:
        furthest, failures = blob.done, 0
        while blob.done < blob.size:
            try:
                self._receive(blob, progress, stop)
            except RootlessError as error:
                failures = 0 if blob.done > furthest else failures + 1
                furthest = max(furthest, blob.done)
                if error.code != "RL-REGISTRY-NETWORK" or failures == _TRIES:
                    raise
                log.debug(f"{error}; again from byte {blob.done}")
                if stop.wait(_FIRST_PAUSE * 2 ** max(0, failures - 1)):
                    raise StoppedError from None
            else:
                return  # what is not there by now will not come: Blob.finish() says so

    def _receive(self, blob: Blob, progress: Callable[[int], object], stop: threading.Event) -> None:
        """Append to a blob until the answer ends."""
        headers = {"Range": f"bytes={blob.done}-"} if blob.done else {}
        answer = self._get(f"{self._repository}/blobs/{blob.digest}", headers)
        if answer.status == _BAD_RANGE or (answer.status == _PARTIAL and not _continues(answer, blob.done)):
            answer.close()
            answer = self._get(f"{self._repository}/blobs/{blob.digest}", {})
        try:
            if answer.status not in (_OK, _PARTIAL):
                raise self._failed(answer, f"pull the blob {blob.digest} of {self.host}/{self._repository}")
            if answer.status == _OK and blob.done:
                progress(-blob.done)
                blob.restart()
            while data := answer.read(_CHUNK):
                if stop.is_set():
                    raise StoppedError
                blob.write(data)
                progress(len(data))
        finally:
            answer.close()

    def _get(self, path: str, headers: dict[str, str]) -> Answer:
        """Return the answer of the registry; one that demands authorization is satisfied, if that is possible."""
        url = f"{self._base or self._find_base()}/v2/{path}"
        for attempt in range(_AUTHORIZATIONS + 1):
            used = self._authorization.header
            answer = self._http.get(url, headers | ({"Authorization": used} if used else {}))
            if answer.status != _UNAUTHORIZED or not answer.by_origin or attempt == _AUTHORIZATIONS:
                return answer
            if not self._authorization.satisfy(answer.headers.getlist("WWW-Authenticate"), used):
                return answer
            answer.close()
        raise AssertionError

    def _find_base(self) -> str:
        """Return the beginning of all URLs; an insecure registry may know no TLS."""
        host = _HUB_HOST if self.host == DOCKER_HUB else self.host
        self._base = f"https://{host}"
        if self._http.insecure:
            try:
                self._http.get(f"{self._base}/v2/", {}, retry=False).close()
            except RootlessError as error:
                log.debug(f"{error}; trying plain HTTP")
                self._base = f"http://{host}"
        return self._base

    def _failed(self, answer: Answer, what: str) -> RootlessError:
        """Return the error for an answer, which is read and closed."""
        said = _message(answer)
        if not answer.by_origin and answer.status != _TOO_MANY:
            host = answer.url.split("/")[2]
            return RootlessError(
                what, cause=f"{host} answers {answer.status}{said}", fix="try again", code="RL-REGISTRY"
            )
        if answer.status == _UNAUTHORIZED:
            error = refused_credentials(self.host, known=self._known)
            if not self._known and self._repository:
                error.cause += ", or there is no such image"
            return RootlessError(what, cause=error.cause + said, fix=error.fix, code=error.code)
        if answer.status == _FORBIDDEN:
            fix = "" if self._known else f"log in: rootless login {self.host}"
            fix = fix or "check the name, or ask the owner of the image for access"
            return RootlessError(what, cause=f"the registry forbids it{said}", fix=fix, code="RL-REGISTRY-AUTH")
        if answer.status == _NOT_FOUND:
            cause = f"the registry has no such image{said}" if self._repository else "it is no registry of images"
            return RootlessError(what, cause=cause, fix="check the name and the tag", code="RL-IMAGE-NOT-FOUND")
        if answer.status == _TOO_MANY:
            return self._limited(answer, what, said)
        return RootlessError(
            what, cause=f"the registry answers {answer.status}{said}", fix="try again later", code="RL-REGISTRY"
        )

    def _limited(self, answer: Answer, what: str, said: str) -> RootlessError:
        """Return the error for a limit of requests: whose it is, and when it ends."""
        limit, _, window = answer.headers.get("RateLimit-Limit", "").partition(";w=")
        source = one_line(answer.headers.get("Docker-RateLimit-Source", "")[:_SHOWN])
        cause = (
            f"{self.host} limits the pulls of {'your account' if self._known else 'anonymous users of your address'}"
        )
        cause += f" {source}" if source else ""
        if limit.isdigit() and window.isdigit():
            cause += f" to {limit} in {int(window) / 3600:g} hours"
        end = _end(answer)
        cause += f", until {end}" if end else ""
        wait = f"wait until {end}" if end else "try again later"
        fix = wait if self._known else f"log in, for a limit of your own: rootless login {self.host}; or {wait}"
        return RootlessError(what, cause=cause + said, fix=fix, code="RL-REGISTRY-LIMIT")


def _continues(answer: Answer, position: int) -> bool:
    """Whether a partial answer begins at that byte."""
    unit, _, numbers = answer.headers.get("Content-Range", "").partition(" ")
    return unit == "bytes" and numbers.partition("-")[0] == str(position)


def _message(answer: Answer) -> str:
    """Return the registry's own words, in parentheses; nothing if there are none. It closes the answer."""
    try:
        error = json.loads(read_all(answer, _LARGEST_MESSAGE))["errors"][0]
        text = str(error.get("message") or error["code"])
    except (RootlessError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return f" ({one_line(text[:_SHOWN])})"


def _end(answer: Answer) -> str:
    """Return the local time at which a limit ends; empty if the registry does not say."""
    text = answer.headers.get("Retry-After") or answer.headers.get("X-Retry-After") or ""
    if text.isascii() and text.isdigit() and len(text) <= _EPOCH_DIGITS:
        # Docker Hub writes a point in time there, others a number of seconds
        moment = float(text) if len(text) == _EPOCH_DIGITS else time.time() + int(text)
    else:
        try:
            moment = parsedate_to_datetime(text).timestamp()
        except (ValueError, OverflowError):
            return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
