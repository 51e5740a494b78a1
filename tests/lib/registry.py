"""A real registry on the loopback: Debian's docker-registry, with TLS, passwords and a token server; and images for it.

`Front` stands between a client and such a registry, and answers as a broken or hostile one would.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import platform
import shutil
import socket
import ssl
import subprocess
import tarfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.lib.containers import until
from tests.lib.terminals import Typewriter

USER, PASSWORD = "me", "secret word"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

SETTINGS = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}/data}}, delete: {{enabled: true}}}}
http:
  addr: 127.0.0.1:{port}
{more}
"""


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Certificate:
    """A self-signed certificate for 127.0.0.1 and localhost, which is its own authority.

    Attributes:
        path, key: of the files.
    """

    def __init__(self, directory, name="server"):
        self.path, self.key = directory / f"{name}.crt", directory / f"{name}.key"
        names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        names += ["-addext", "basicConstraints=critical,CA:TRUE"]
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
        subprocess.run([*words, "-keyout", self.key, "-out", self.path], check=True, capture_output=True)

    def context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path, self.key)
        return context


class DemandingCertificate(Certificate):
    """The certificate of a server that speaks only with clients that have one certificate."""

    def __init__(self, directory, client):
        super().__init__(directory, "demanding")
        self._client = client

    def context(self):
        context = super().context()
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self._client.path)
        return context


class Quiet(ThreadingHTTPServer):
    """A server in a thread of its own that reports no broken connections."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, handler, certificate=None, port=0):
        super().__init__(("127.0.0.1", port), handler)
        if certificate:
            # in the thread of each connection, so that one that is silent does not stop the others
            self.socket = certificate.context().wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, *_):
        pass

    @property
    def host(self):
        return f"127.0.0.1:{self.server_address[1]}"


class Tokens(BaseHTTPRequestHandler):
    """The token server of a registry; it notes what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.server.asked.append(asked)
        given = base64.b64decode(self.headers.get("Authorization", "Basic ").removeprefix("Basic ")).decode()
        if given not in ("", f"{USER}:{PASSWORD}"):
            self._answer(401, {"details": "incorrect username or password"})
            return
        kind, _, rest = asked.get("scope", "").partition(":")
        repository, _, actions = rest.rpartition(":")
        may = bool(given) or repository.startswith("public/")
        access = [{"type": kind, "name": repository, "actions": actions.split(",")}] if may and kind else []
        self._answer(200, {"token": self.server.token(asked.get("service", ""), given.partition(":")[0], access)})

    def _answer(self, status, data):
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class TokenServer(Quiet):
    """Signs tokens as JSON web tokens whose header holds the certificate."""

    def __init__(self, certificate):
        self.asked = []
        self._certificate = certificate
        super().__init__(Tokens, certificate)

    def token(self, service, subject, access):
        def part(data):
            return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=")

        now = int(time.time())
        chain = self._certificate.path.read_text().replace("\n", "").split("-----")[2]
        claims = {"iss": "tests", "sub": subject, "aud": service, "exp": now + 300, "nbf": now - 60, "iat": now}
        text = (
            part({"typ": "JWT", "alg": "RS256", "x5c": [chain]})
            + b"."
            + part({**claims, "jti": str(now), "access": access})
        )
        sign = ["openssl", "dgst", "-sha256", "-sign", self._certificate.key]
        signature = subprocess.run(sign, input=text, capture_output=True, check=True).stdout
        return (text + b"." + part(signature)).decode()


class Registry:
    """docker-registry, in a directory of its own.

    Attributes:
        host: address and port, as in the names of its images.
        certificate: None for plain HTTP.
        tokens: its token server, if it has one.
    """

    def __init__(self, directory, *, tls=True, auth=""):
        self.certificate = Certificate(directory) if tls else None
        self.tokens = None
        port = free_port()
        self.host = f"127.0.0.1:{port}"
        more = f"  tls: {{certificate: {self.certificate.path}, key: {self.certificate.key}}}\n" if tls else ""
        if auth == "basic":
            entry = subprocess.run(["htpasswd", "-Bbn", USER, PASSWORD], capture_output=True, check=True).stdout
            (directory / "htpasswd").write_bytes(entry)
            more += f"auth: {{htpasswd: {{realm: tests, path: {directory}/htpasswd}}}}\n"
        elif auth == "token":
            self.tokens = TokenServer(self.certificate)
            more += (
                f"auth: {{token: {{realm: 'https://{self.tokens.host}/token?x=1', service: tests, issuer: tests, "
                f"rootcertbundle: {self.certificate.path}}}}}\n"
            )
        self._auth = auth
        settings = directory / "registry.yml"
        settings.write_text(SETTINGS.format(directory=directory, port=port, more=more))
        with (directory / "log").open("w") as log:
            self._process = subprocess.Popen(["docker-registry", "serve", settings], stdout=log, stderr=log)
        until(lambda: self._listens(port), "the registry")

    def _listens(self, port):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    def close(self):
        self._process.terminate()
        self._process.wait()
        if self.tokens:
            self.tokens.shutdown()
            self.tokens.server_close()

    def push(self, archive, name):
        """Push an archive of `docker save` by skopeo."""
        words = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"docker-archive:{archive}"]
        words += ["--dest-creds", f"{USER}:{PASSWORD}"] if self._auth else []
        subprocess.run([*words, f"docker://{self.host}/{name}"], check=True, capture_output=True)

    def put(self, name, image, tag="latest"):
        """Push an Image by hand, to a registry without passwords."""
        repository = f"{self._url()}/v2/{name}"
        for content in image.blobs.values():
            upload = self._request(f"{repository}/blobs/uploads/", "POST")["Location"]
            self._request(f"{upload}&digest={digest_of(content)}", "PUT", content, "application/octet-stream")
        for content, kind in image.manifests:
            self._request(f"{repository}/manifests/{digest_of(content)}", "PUT", content, kind)
        self._request(f"{repository}/manifests/{tag}", "PUT", *image.manifests[-1])

    def _url(self):
        return f"{'https' if self.certificate else 'http'}://{self.host}"

    def _request(self, url, method, content=None, kind="application/octet-stream"):
        request = urllib.request.Request(url, content, {"Content-Type": kind}, method=method)
        context = ssl.create_default_context(cafile=self.certificate.path) if self.certificate else None
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            return dict(answer.headers)


class Image:
    """The documents of an image: blobs by their digests, and manifests, of which the last one gets the tag."""

    def __init__(self):
        self.blobs = {}
        self.manifests = []

    def add(self, content):
        self.blobs[digest_of(content)] = content
        return digest_of(content)

    def manifest(self, layers, *, architecture=ARCHITECTURE, variant="", command=("sh",), kinds=None, env=()):
        """Add a manifest for one platform; return its descriptor.

        Args:
            layers: contents of tar archives, the lowest first.
            architecture: by Go's name.
            variant: of it.
            command: what it runs.
            kinds: the compression of each layer: gzip, zstd or empty; default: gzip.
            env: of the process.
        """
        config = {"architecture": architecture, "os": "linux", "config": {"Cmd": list(command), "Env": list(env)}}
        config["rootfs"] = {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}
        if variant:
            config["variant"] = variant
        content = json.dumps(config).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._descriptor(CONFIG, content),
            "layers": [],
        }
        for layer, kind in zip(layers, kinds or ["gzip"] * len(layers), strict=True):
            packed = {"gzip": packed_gzip, "zstd": packed_zstd}.get(kind, bytes)(layer)
            document["layers"].append(self._descriptor(LAYER + (f"+{kind}" if kind else ""), packed))
        text = json.dumps(document).encode()
        self.manifests.append((text, MANIFEST))
        place = {"architecture": architecture, "os": "linux"} | ({"variant": variant} if variant else {})
        return {"mediaType": MANIFEST, "digest": digest_of(text), "size": len(text), "platform": place}

    def index(self, descriptors):
        """Add an index of manifests; return its digest."""
        text = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors}).encode()
        self.manifests.append((text, INDEX))
        return digest_of(text)

    def _descriptor(self, kind, content):
        return {"mediaType": kind, "digest": self.add(content), "size": len(content)}

    def write_layout(self, directory, tag="latest"):
        """Write it as an OCI layout; the last manifest gets the tag."""
        blobs = directory / "blobs/sha256"
        blobs.mkdir(parents=True)
        for content in [*self.blobs.values(), *(content for content, _ in self.manifests)]:
            (blobs / digest_of(content).partition(":")[2]).write_bytes(content)
        content, kind = self.manifests[-1]
        named = {"mediaType": kind, "digest": digest_of(content), "size": len(content)}
        named["annotations"] = {"org.opencontainers.image.ref.name": tag}
        (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return directory


def packed_gzip(content):
    return gzip.compress(content, 1, mtime=0)


def packed_zstd(content):
    return subprocess.run(["zstd", "-q", "-c"], input=content, capture_output=True, check=True).stdout


def layer(files):
    """Return a tar archive of executable files: contents by their paths. A directory's path ends with a slash."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path.rstrip("/"))
            entry.mode = 0o755
            entry.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def busybox_image(*more, env=()):
    """Return an Image of busybox, with further layers."""
    image = Image()
    with open(shutil.which("busybox") or "/bin/busybox", "rb") as file:
        program = file.read()
    base = {"bin/": b"", "bin/busybox": program, "bin/sh": b"#!/bin/busybox sh\n", "etc/": b""}
    image.manifest([layer(base), *more], env=env)
    return image


class _Relay(BaseHTTPRequestHandler):
    """Passes requests on to a registry, unless the front's rule answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        front = self.server
        front.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        try:
            if front.rule and front.rule(self):
                return
            status, headers, body = front.fetch(self.path, self.headers)
            self.answer(status, body, headers)
        except OSError:
            pass

    def do_POST(self):
        self.do_GET()

    def answer(self, status, body=b"", headers=None, *, length=None):
        """Answer; `length` is what Content-Length says, if not the length of the body."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            if name.lower() not in ("content-length", "connection", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_):
        pass


class Front(Quiet):
    """A server in front of a registry that speaks plain HTTP.

    Attributes:
        rule: called with each request; it answers and returns True, or returns False.
        requests: path and headers of each.
    """

    def __init__(self, upstream, certificate=None):
        self.rule = None
        self.requests = []
        self._upstream = upstream
        super().__init__(_Relay, certificate)

    def fetch(self, path, headers):
        """Return status, headers and body of the registry's answer."""
        kept = {name: headers[name] for name in ("Accept", "Range") if name in headers}
        request = urllib.request.Request(f"http://{self._upstream}{path}", headers=kept)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def close(self):
        self.shutdown()
        self.server_close()


class _ProxyHandler(BaseHTTPRequestHandler):
    """Connects to a host for CONNECT, and passes on a GET of a whole URL; both need the user and the password."""

    protocol_version = "HTTP/1.1"

    def do_CONNECT(self):
        if not self._noted():
            return
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as target:
            self.send_response(200)
            self.end_headers()
            other = threading.Thread(target=self._pass_on, args=(target, self.connection), daemon=True)
            other.start()
            self._pass_on(self.connection, target)
            other.join()
        self.close_connection = True

    def do_GET(self):
        if not self._noted():
            return
        kept = {name: self.headers[name] for name in ("Accept", "Range") if name in self.headers}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.path, headers=kept), timeout=30) as answer:
                status, headers, body = answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                status, headers, body = error.code, dict(error.headers), error.read()
        self.send_response(status)
        for name in ("Content-Type", "Docker-Content-Digest", "Content-Range"):
            if name in headers:
                self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _noted(self):
        given = self.headers.get("Proxy-Authorization", "").removeprefix("Basic ")
        if base64.b64decode(given).decode() != f"{USER}:{PASSWORD}":
            self.send_response(407)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        self.server.asked.append(f"{self.command} {self.path.partition('/v2')[0]}")
        return True

    @staticmethod
    def _pass_on(source, target):
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def log_message(self, *_):
        pass


class Proxy(Quiet):
    """A proxy with a password; `asked` has the method of each request, and the host or the beginning of the URL."""

    def __init__(self):
        self.asked = []
        super().__init__(_ProxyHandler)

    @property
    def url(self):
        return f"http://{USER}:{urllib.parse.quote(PASSWORD)}@{self.host}"


@contextmanager
def opened(directory, **options):
    """Give a Registry that is closed afterwards."""
    directory.mkdir(parents=True, exist_ok=True)
    registry = Registry(directory, **options)
    try:
        yield registry
    finally:
        registry.close()


class Puller:
    """The command of a user who has a configuration, passwords and images of the test's own.

    Attributes:
        images: the store.
        env: what its directories are.
    """

    def __init__(self, user, command):
        self._user = user
        self._command = command
        self._config = user.tmp / "config/containers"
        self.images = user.tmp / "data/rootless/images"
        self.auth = user.tmp / "run/containers/auth.json"
        self.env = {
            "XDG_CONFIG_HOME": f"{user.tmp}/config",
            "XDG_DATA_HOME": f"{user.tmp}/data",
            "XDG_RUNTIME_DIR": f"{user.tmp}/run",
            "ROOTLESS_REGISTRY_TIMEOUT": "20",
        }
        user.run(["mkdir", "-m", "0700", user.tmp / "run"], check=True)

    def __call__(self, *words, env=None, **options):
        """Run `rootless` to its end."""
        return self._user.run([self._command, *words], env=self.env | (env or {}), **options)

    def popen(self, *words, **options):
        """Start `rootless`."""
        return self._user.popen([self._command, *words], env=self.env, **options)

    def pull(self, *words, **options):
        """Pull an image, which has to succeed; return what is printed."""
        done = self("pull", *words, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def refused(self, *words, **options):
        """Run what has to fail with one line, which is returned."""
        done = self(*words, **options)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert "internal error" not in done.stderr
        return done.stderr

    def configure(self, text):
        """Write registries.conf."""
        self._write("registries.conf", text)

    def trust(self, host, certificate):
        """Accept a certificate for a host."""
        self._write(f"certs.d/{host}/ca.crt", certificate.path.read_text())

    def identify(self, host, certificate):
        """Show a certificate to a host."""
        self._write(f"certs.d/{host}/client.cert", certificate.path.read_text())
        self._write(f"certs.d/{host}/client.key", certificate.key.read_text())

    def typewriter(self, *words):
        """Start `rootless` at a terminal."""
        return Typewriter(self._user, [self._command, *words], env=self.env)

    def _write(self, name, text):
        path = self._config / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def files(self):
        """Return the names of all files in the store, below its directory."""
        return sorted(str(path.relative_to(self.images)) for path in self.images.rglob("*") if path.is_file())

    def listed(self):
        return json.loads(self("images", "--format", "json", check=True).stdout)

    def content(self, path, image=None):
        """Return a file in the only image of the store, or in an image file."""
        image = image or next(self.images.glob("*.sqsh"))
        return subprocess.run(["unsquashfs", "-cat", image, path], capture_output=True, check=True).stdout
