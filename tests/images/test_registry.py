"""Pulling from a real registry: TLS, passwords, tokens, platforms, mirrors, and the verbs of images."""

from __future__ import annotations

import json
import os
import re
import shlex

import pytest

from tests.lib.engines import make_image
from tests.lib.readme import IMAGE, shown
from tests.lib.registry import (
    ARCHITECTURE,
    PASSWORD,
    USER,
    Certificate,
    DemandingCertificate,
    Front,
    Image,
    Proxy,
    Puller,
    busybox_image,
    layer,
    opened,
)

CONTENT = b"what a layer holds\n"
DEBUG = ("--debug", "pull")


@pytest.fixture(scope="module")
def registry(tmp_path_factory, need):
    """A registry with TLS and without passwords, and the image `box`."""
    for program in ("docker-registry", "skopeo", "sqfstar", "unsquashfs", "htpasswd", "zstd"):
        need(program)
    with opened(tmp_path_factory.mktemp("registry")) as registry:
        registry.put("box", busybox_image(layer({"etc/note": CONTENT})))
        yield registry


@pytest.fixture(scope="module")
def plain(tmp_path_factory, registry):
    """A registry that speaks plain HTTP."""
    with opened(tmp_path_factory.mktemp("plain"), tls=False) as plain:
        plain.put("box", busybox_image(layer({"etc/note": CONTENT})))
        yield plain


@pytest.fixture
def puller(user, rootless_command, registry):
    puller = Puller(user, rootless_command)
    puller.trust(registry.host, registry.certificate)
    return puller


def test_an_image_is_pulled_listed_inspected_and_removed(puller, registry):
    name = f"{registry.host}/box:latest"
    printed = puller.pull(f"docker://{registry.host}/box")
    assert printed.startswith(f"{name}@sha256:")
    digest = printed.rpartition("@")[2]
    [listed] = puller.listed()
    assert (listed["reference"], listed["platform"], listed["digest"]) == (name, f"linux/{ARCHITECTURE}", digest)
    assert listed["path"] == f"{puller.images}/{digest.replace(':', '-')}.sqsh"
    assert listed["size"] == os.stat(listed["path"]).st_size
    assert puller("images", "-q").stdout == f"{digest}\n"
    assert name in puller("images").stdout
    assert puller.content("etc/note") == CONTENT
    [inspected] = json.loads(puller("image", "inspect", digest[:15]).stdout)
    assert inspected["config"]["config"]["Cmd"] == ["sh"]
    removed = puller("image", "rm", name)
    assert removed.stdout.split() == [name, digest]
    assert puller.files() == []
    assert "not in the store" in puller.refused("image", "rm", name)


def test_a_second_pull_downloads_no_blob(puller, registry):
    printed = puller.pull(f"{registry.host}/box")
    again = puller(*DEBUG, f"{registry.host}/box")
    assert again.stdout.strip() == printed
    assert "/manifests/" in again.stderr
    assert "/blobs/" not in again.stderr


def test_the_certificate_of_a_registry_is_checked(puller, registry):
    words = puller.refused("pull", f"{registry.host.replace('127.0.0.1', 'localhost')}/box")
    assert "certificate verify failed" in words
    assert "certs.d" in words
    assert puller.files() == []


def test_a_missing_image_or_registry_is_named(puller, registry):
    words = puller.refused("pull", f"{registry.host}/box:missing")
    assert f"pull {registry.host}/box:missing: the registry has no such image (manifest unknown)" in words
    assert "no such image" in puller.refused("pull", f"{registry.host}/other")
    assert "Connection refused" in puller.refused("pull", "127.0.0.1:1/box", env={"ROOTLESS_REGISTRY_TIMEOUT": "1"})


def test_output_writes_an_image_to_a_file(puller, registry, user):
    assert puller.pull("--output", "box.sqsh", f"{registry.host}/box") == "box.sqsh"
    assert puller.content("etc/note", user.tmp / "box.sqsh") == CONTENT
    assert puller.listed() == []
    assert "it exists" in puller.refused("pull", "--output", "box.sqsh", f"{registry.host}/box")
    assert "it exists" in puller.refused("pull", "--output", "box.sqsh", "127.0.0.1:1/box"), "no registry is contacted"
    assert "image file already" in puller.refused("pull", "box.sqsh")


def test_a_pinned_image_is_pulled_by_its_digest(puller, registry):
    printed = puller.pull(f"{registry.host}/box")
    puller("image", "rm", printed.rpartition("@")[2])
    assert puller.pull(printed).rpartition("@")[2] == printed.rpartition("@")[2]
    assert len(puller.listed()) == 1
    other = f"{registry.host}/box@sha256:{'0' * 64}"
    assert "no such image" in puller.refused("pull", other)


def test_layers_of_each_compression_are_pulled(puller, registry):
    image = Image()
    layers = [layer({f"{kind or 'plain'}": kind.encode()}) for kind in ("gzip", "zstd", "")]
    image.manifest(layers, kinds=["gzip", "zstd", ""])
    registry.put("compressions", image)
    puller.pull(f"{registry.host}/compressions")
    assert [puller.content(name) for name in ("gzip", "zstd", "plain")] == [b"gzip", b"zstd", b""]


def test_the_image_for_the_platform_is_chosen(puller, registry):
    image = Image()
    entries = [
        image.manifest([layer({"arch": (name + variant).encode()})], architecture=name, variant=variant)
        for name, variant in (("arm", "v6"), ("arm", "v7"), ("amd64", ""), ("arm64", "v8"))
    ]
    image.index(entries)
    registry.put("many", image)
    name = f"{registry.host}/many:latest"
    puller.pull(name)
    for platform, expected in (("linux/arm/v7", b"armv7"), ("arm/v6", b"armv6"), ("linux/arm64", b"arm64v8")):
        puller.pull("--platform", platform if "linux" in platform else f"linux/{platform}", name)
        [found] = [each for each in puller.listed() if each["platform"] == f"linux/{platform.removeprefix('linux/')}"]
        assert puller.content("arch", found["path"]) == expected
    assert len(puller.listed()) == 4
    words = puller.refused("pull", "--platform", "linux/s390x", name)
    assert "it has no image for linux/s390x, only for linux/amd64, linux/arm/v6" in words
    assert puller("image", "rm", "--platform", "linux/arm64", name).returncode == 0
    assert len(puller.listed()) == 3
    puller("image", "rm", name)
    assert puller.files() == []


def test_an_image_for_another_platform_is_a_warning_or_an_error(puller, registry):
    image = Image()
    image.manifest([layer({"x": b""})], architecture="s390x")
    registry.put("foreign", image)
    done = puller("pull", f"{registry.host}/foreign")
    assert done.returncode == 0
    assert "it is for linux/s390x, not for linux/" in done.stderr
    words = puller.refused("pull", "--platform", "linux/riscv64", f"{registry.host}/foreign")
    assert "it is for linux/s390x, not for linux/riscv64" in words


# --- passwords


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return make_image(tmp_path_factory.mktemp("archive"))


def test_login_pull_and_logout_with_basic_authentication(puller, tmp_path, archive, user):
    with opened(tmp_path / "basic", auth="basic") as registry:
        puller.trust(registry.host, registry.certificate)
        registry.push(archive, "me/box:1")
        name = f"{registry.host}/me/box:1"
        words = puller.refused("pull", name)
        assert f"fix: log in: rootless login {registry.host}" in words
        words = puller.refused("login", "-u", USER, "--password-stdin", registry.host, input="wrong")
        assert "refuses the user name or the password" in words
        assert not puller.auth.exists()
        assert "there is no terminal" in puller.refused("login", "-u", USER, registry.host)
        done = puller("login", "-u", USER, "--password-stdin", registry.host, input=f"{PASSWORD}\n")
        assert (done.returncode, done.stdout) == (
            0,
            f"{registry.host}: logged in; the password is in {puller.auth}\n",
        )
        puller.pull(name)
        # skopeo reads the file of rootless, and rootless that of skopeo
        inspect = ["skopeo", "inspect", "--tls-verify=false", "--authfile", puller.auth, f"docker://{name}"]
        assert user.run(inspect).returncode == 0
        assert puller("logout", registry.host).returncode == 0
        assert user.run(inspect).returncode != 0
        assert "you are not logged in" in puller.refused("logout", registry.host)
        login = ["skopeo", "login", "--tls-verify=false", "--authfile", user.tmp / "other.json", "-u", USER]
        user.run([*login, "--password-stdin", registry.host], input=PASSWORD, check=True)
        puller.pull(name, env={"REGISTRY_AUTH_FILE": f"{user.tmp}/other.json"})


def test_login_asks_for_name_and_password_at_a_terminal(puller, tmp_path):
    with opened(tmp_path / "basic", auth="basic") as registry:
        puller.trust(registry.host, registry.certificate)
        for password, status in (("wrong", 1), (PASSWORD, 0)):
            with puller.typewriter("login", registry.host) as terminal:
                terminal.until(f"user name for {registry.host}: ".encode())
                terminal.type(f"{USER}\n".encode())
                terminal.until(f"password for {USER}: ".encode())
                terminal.type(f"{password}\n".encode())
                said = terminal.until(
                    b"the password is in" if status == 0 else b"refuses the user name or the password"
                )
                assert password.encode() not in said, "a password is not shown"
                terminal.ends(status)
            assert puller.auth.exists() is (status == 0)


def test_a_proxy_is_used_except_for_some_hosts(puller, registry, plain):
    proxy = Proxy()
    puller.configure(f'[[registry]]\nlocation = "{plain.host}"\ninsecure = true')
    env = {"https_proxy": proxy.url, "http_proxy": proxy.url}
    puller.pull(f"{registry.host}/box", env=env)
    assert set(proxy.asked) == {f"CONNECT {registry.host}"}
    proxy.asked.clear()
    puller.pull(f"{plain.host}/box", env={name.upper(): value for name, value in env.items() if "https" in name} | env)
    assert f"GET http://{plain.host}" in proxy.asked
    proxy.asked.clear()
    puller.pull(f"{registry.host}/box", env={**env, "no_proxy": "other.test,127.0.0.1"})
    assert proxy.asked == []
    words = puller.refused("pull", f"{registry.host}/box", env={"https_proxy": f"http://{proxy.host}"})
    assert "407" in words
    proxy.shutdown()
    proxy.server_close()
    words = puller.refused("pull", f"{registry.host}/box", env={**env, "ROOTLESS_REGISTRY_TIMEOUT": "1"})
    assert "proxy" in words.lower(), words


def test_a_certificate_of_the_client_is_shown(puller, plain, tmp_path):
    client = Certificate(tmp_path, "client")
    server = DemandingCertificate(tmp_path, client)
    front = Front(plain.host, server)
    puller.trust(front.host, server)
    for certificate in (None, Certificate(tmp_path, "stranger")):
        if certificate:
            puller.identify(front.host, certificate)
        words = puller.refused("pull", f"{front.host}/box", env={"ROOTLESS_REGISTRY_TIMEOUT": "2"})
        assert "fix: put your certificate and its key into" in words
    puller.identify(front.host, client)
    puller.pull(f"{front.host}/box")
    assert puller.content("etc/note") == CONTENT
    front.close()


def test_login_and_pull_with_token_authentication(puller, tmp_path, archive):
    with opened(tmp_path / "token", auth="token") as registry:
        puller.trust(registry.host, registry.certificate)
        puller.trust(registry.tokens.host, registry.certificate)
        for name in ("public/box:1", "me/box:1"):
            registry.push(archive, name)
        registry.tokens.asked.clear()
        puller.pull(f"{registry.host}/public/box:1")
        assert registry.tokens.asked == [{"x": "1", "service": "tests", "scope": "repository:public/box:pull"}]
        words = puller.refused("pull", f"{registry.host}/me/box:1")
        assert "asks for a user name and a password, or there is no such image" in words
        words = puller.refused("login", "-u", USER, "--password-stdin", registry.host, input="wrong")
        assert "refuses the user name or the password" in words
        puller("login", "-u", USER, "--password-stdin", registry.host, input=PASSWORD, check=True)
        puller.pull(f"{registry.host}/me/box:1")
        assert registry.tokens.asked[-1]["account"] == USER
        assert registry.tokens.asked[-1]["scope"] == "repository:me/box:pull"


# --- registries.conf


def test_plain_http_needs_a_registry_that_is_declared_insecure(puller, plain):
    words = puller.refused("pull", f"{plain.host}/box")
    assert f"set insecure = true for {plain.host} in registries.conf" in words
    puller.configure(f'[[registry]]\nlocation = "{plain.host}"\ninsecure = true')
    puller.pull(f"{plain.host}/box")


def test_mirrors_are_tried_first_and_may_fail(puller, registry, plain):
    text = '[[registry]]\nprefix = "docker.io"\nlocation = "127.0.0.1:1"\n'
    text += '[[registry.mirror]]\nlocation = "127.0.0.1:1"\n'
    text += f'[[registry.mirror]]\nlocation = "{plain.host}"\ninsecure = true\n'
    puller.configure(text + '[aliases]\nbox = "docker.io/box"\nother = "docker.io/other"')
    plain.put("library/box", busybox_image(layer({"etc/note": CONTENT})))
    fast = {"ROOTLESS_REGISTRY_TIMEOUT": "1"}
    printed = puller.pull("docker://box", env=fast)
    assert printed.startswith("docker.io/library/box:latest@sha256:")
    [listed] = puller.listed()
    assert listed["reference"] == "docker.io/library/box:latest"
    assert "Connection refused" in puller.refused("pull", "docker://other", env=fast)


def test_the_first_commands_of_the_readme(puller, plain, trixie, user):
    """A mirror has the image that Docker Hub would provide, and the output is that in README.md."""
    image = Image()
    image.manifest([trixie.read_bytes()], command=["bash"])
    plain.put("library/debian", image, tag="13")
    puller.configure(f'[[registry]]\nprefix = "docker.io"\nlocation = "{plain.host}"\ninsecure = true\n')
    first, second, images, explain = [shlex.split(line)[1:] for line in IMAGE]
    assert puller(*first, check=True).stdout.startswith('PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n')
    ids, own_id, *_, home, name = puller(*second, check=True).stdout.splitlines()
    assert ids == "uid=0(root) gid=0(root) groups=0(root)"
    assert own_id.split() == ["0", str(user.uid), "1"]
    assert home.startswith("drwx------ ")
    assert name == 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"'
    assert puller(*images, check=True).stdout.splitlines()[1].split()[:2] == [
        "docker.io/library/debian:13",
        f"linux/{ARCHITECTURE}",
    ]
    explained = re.sub(r"\d+", "N", puller(*explain, check=True).stdout)
    for line in shown(IMAGE[3]):
        assert line == "…" or re.sub(r"\d+", "N", line) in explained


def test_short_names_are_resolved_and_blocked_registries_refused(puller, registry):
    text = f'unqualified-search-registries = ["127.0.0.1:1", "{registry.host}"]\n'
    text += '[[registry]]\nlocation = "blocked.test"\nblocked = true\n'
    puller.configure(text + f'[aliases]\nmine = "{registry.host}/box"')
    fast = {"ROOTLESS_REGISTRY_TIMEOUT": "1"}
    assert puller.pull("mine", env=fast).startswith(f"{registry.host}/box:latest@")
    assert puller.pull("box", env=fast).startswith(f"{registry.host}/box:latest@")
    assert puller("image", "rm", "box").returncode == 0
    assert puller.files() == []
    words = puller.refused("pull", "missing", env=fast)
    assert "no registry of registries.conf has it" in words
    assert "blocked.test is blocked in registries.conf" in puller.refused("pull", "blocked.test/x")


# --- the store


def size_of(puller):
    return sum((puller.images / name).stat().st_size for name in puller.files())


def test_prune_removes_only_files_that_no_image_needs(puller, registry, user):
    printed = puller.pull(f"{registry.host}/box")
    layout = busybox_image(layer({"etc/other": os.urandom(1_000_000)})).write_layout(user.tmp / "layout")
    path = puller.pull(f"oci:{layout}")
    assert len(puller.listed()) == 2
    before = size_of(puller)
    pruned = puller("image", "prune")
    assert pruned.returncode == 0
    assert pruned.stdout.endswith(f"\n{(before - size_of(puller)) / 1e6:.1f} MB freed\n")
    [kept] = puller.listed()
    assert kept["digest"] == printed.rpartition("@")[2]
    assert not os.path.exists(path)
    assert len(puller.files()) == 3  # image, reference, manifest
    puller.pull(f"{registry.host}/box")
    assert "it takes no image" in puller.refused("image", "prune", "x")
    assert "it needs an image" in puller.refused("image", "rm")


def test_terminal_escapes_in_the_platform_of_an_image_are_quoted(puller, user):
    image = Image()
    image.manifest([layer({"a": b""})], variant="\x1b[2J\n")
    puller.pull(f"oci:{image.write_layout(user.tmp / 'layout')}")
    listed = puller("images", check=True).stdout
    assert f"linux/{ARCHITECTURE}/\\x1b[2J\\n" in listed
    assert len(listed.splitlines()) == 2


def test_a_shared_store_is_listed_and_never_changed(puller, registry, user):
    site = user.tmp / "site"
    puller.pull("--store", site, f"{registry.host}/box")
    site.chmod(0o555)
    env = {"ROOTLESS_ADDITIONAL_IMAGES": f"/missing:{site}"}
    [listed] = json.loads(puller("images", "--format", "json", env=env).stdout)
    assert listed["shared"]
    assert listed["path"].startswith(f"{site}/")
    assert "shared store" in puller.refused("image", "rm", f"{registry.host}/box", env=env)
    assert "No such" not in puller("image", "inspect", f"{registry.host}/box", env=env).stderr
    site.chmod(0o777)
    words = puller.refused("images", env=env)
    assert "does not belong to you or root alone" in words


# --- credentials stay with their registry


def test_a_redirect_gets_no_credentials(puller, tmp_path, plain, user):
    """The target of a redirect gets no Authorization header, and no token is requested from another host's realm."""
    elsewhere, front = Front(plain.host), Front(plain.host)
    puller.configure(f'[[registry]]\nlocation = "{front.host}"\ninsecure = true')

    def demand(request):
        if "Authorization" in request.headers:
            if "/blobs/" in request.path:
                request.answer(307, headers={"Location": f"http://{elsewhere.host}{request.path}"})
                return True
            return False
        request.answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return True

    front.rule = demand
    puller("login", "-u", USER, "--password-stdin", front.host, input=PASSWORD, check=True)
    puller.pull(f"{front.host}/box")
    assert any("Authorization" in headers for _, headers in front.requests)
    assert elsewhere.requests
    assert not any("Authorization" in headers for _, headers in elsewhere.requests)

    def phish(request):
        challenge = f'Bearer realm="http://{elsewhere.host}/token",service="x"'
        request.answer(401, headers={"WWW-Authenticate": challenge})
        return True

    puller("image", "rm", f"{front.host}/box", check=True)
    elsewhere.requests.clear()
    elsewhere.rule = phish
    assert "answers 401" in puller.refused("pull", f"{front.host}/box")
    assert not [path for path, headers in elsewhere.requests if "/token" in path or "Authorization" in headers]
    front.close()
    elsewhere.close()


def test_credentials_and_blobs_do_not_leave_tls(puller, registry, plain):
    front = Front(plain.host, registry.certificate)
    puller.trust(front.host, registry.certificate)

    def to_plain(request):
        request.answer(307, headers={"Location": f"http://{plain.host}{request.path}"})
        return True

    def to_plain_realm(request):
        request.answer(401, headers={"WWW-Authenticate": f'Bearer realm="http://{plain.host}/token"'})
        return True

    front.rule = to_plain
    assert "which is not encrypted" in puller.refused("pull", f"{front.host}/box")
    front.rule = to_plain_realm
    assert "which is not encrypted" in puller.refused("pull", f"{front.host}/box")
    front.close()
