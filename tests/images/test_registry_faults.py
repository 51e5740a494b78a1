"""Registries that are broken, overloaded or hostile: one clear error line, an intact store and no endless wait."""

from __future__ import annotations

import json
import time

import pytest

from tests.lib.registry import MANIFEST, Front, Puller, busybox_image, digest_of, layer, opened

CONTENT = bytes(range(256)) * 2000
SILENCE = 0.6
"""Seconds after which a silent registry counts as dead, in these tests."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory, need):
    """A plain-HTTP registry with the image `box`, whose second layer is large."""
    for program in ("docker-registry", "sqfstar", "unsquashfs"):
        need(program)
    with opened(tmp_path_factory.mktemp("registry"), tls=False) as registry:
        registry.image = busybox_image()
        registry.image.manifests.clear()
        registry.image.manifest([layer({"etc/small": b"x"}), layer({"etc/note": CONTENT})], kinds=["gzip", ""])
        registry.put("box", registry.image)
        registry.large = max(registry.image.blobs, key=lambda each: b"etc/note" in registry.image.blobs[each])
        yield registry


@pytest.fixture
def front(registry):
    front = Front(registry.host)
    yield front
    front.close()


@pytest.fixture
def puller(user, rootless_command, front):
    puller = Puller(user, rootless_command)
    puller.configure(f'[[registry]]\nlocation = "{front.host}"\ninsecure = true')
    puller.env["ROOTLESS_REGISTRY_TIMEOUT"] = str(SILENCE)
    puller.name = f"{front.host}/box"
    return puller


def assert_blobs_are_right(puller):
    """Check that each blob in the store has the digest in its name, and that no image was made."""
    assert not list(puller.images.glob("*.sqsh"))
    for path in (puller.images / "blobs/sha256").glob("[!.]*"):
        assert digest_of(path.read_bytes()) == f"sha256:{path.name}"


def assert_store_is_good(puller, front):
    """Check that the next pull, from a working registry, succeeds and that the store has only its files."""
    front.rule = None
    puller.pull(puller.name)
    assert puller.content("etc/note") == CONTENT
    puller("image", "prune", check=True)
    assert len(puller.files()) == 3, puller.files()


def blobs(answer):
    """Return a rule about blobs: `answer` gets the request and the number of earlier requests for that blob."""
    counts = {}

    def rule(request):
        if "/blobs/" not in request.path:
            return False
        counts[request.path] = counts.get(request.path, -1) + 1
        return answer(request, counts[request.path])

    return rule


def broken(request, fetch, *, at, pause=0.0):
    """Answer with the first `at` bytes of the registry's answer, then nothing for `pause` seconds, then the end."""
    status, headers, body = fetch(request.path, request.headers)
    request.answer(status, body[:at], headers, length=len(body))
    time.sleep(pause)
    return True


# --- connections


def test_an_interrupted_download_is_resumed(puller, front, registry):
    def rule(request, number):
        return registry.large in request.path and number < 3 and broken(request, front.fetch, at=60_000)

    front.rule = blobs(rule)
    puller.pull(puller.name)
    ranges = [headers.get("Range") for path, headers in front.requests if registry.large in path]
    assert ranges[0] is None
    positions = [int(each.removeprefix("bytes=").rstrip("-")) for each in ranges[1:]]
    assert positions == sorted(set(positions))
    assert len(positions) == 3
    assert positions[0] > 0
    assert_store_is_good(puller, front)


def test_what_a_mirror_has_sent_is_completed_by_the_registry(puller, front, registry):
    def rule(request, number):
        if registry.large not in request.path:
            return False
        if number:
            request.answer(403)
            return True
        return broken(request, front.fetch, at=60_000)

    front.rule = blobs(rule)
    text = f'[[registry]]\nprefix = "registry.test"\nlocation = "{registry.host}"\ninsecure = true\n'
    puller.configure(f'{text}[[registry.mirror]]\nlocation = "{front.host}"\ninsecure = true\n')
    puller.pull("registry.test/box")
    assert puller.content("etc/note") == CONTENT
    assert len([path for path, _ in front.requests if registry.large in path]) > 1


def test_a_stalled_download_is_retried(puller, front, registry):
    def rule(request, number):
        return registry.large in request.path and not number and broken(request, front.fetch, at=90_000, pause=5)

    front.rule = blobs(rule)
    begin = time.monotonic()
    puller.pull(puller.name)
    assert time.monotonic() - begin < 5
    assert_store_is_good(puller, front)


@pytest.mark.parametrize("at", [0, 90_000])
def test_a_download_that_stays_stalled_is_an_error(puller, front, registry, at):
    front.rule = blobs(
        lambda request, _: registry.large in request.path and broken(request, front.fetch, at=at, pause=2)
    )
    words = puller.refused("pull", puller.name)
    assert f"reach the registry {front.host}" in words
    assert "timed out" in words
    assert_store_is_good(puller, front)


def test_a_registry_that_never_answers_is_an_error(puller, front):
    front.rule = lambda _: time.sleep(1.5) or True
    words = puller.refused("pull", puller.name)
    assert "timed out" in words or "closed" in words
    assert_store_is_good(puller, front)


def test_a_registry_that_ignores_ranges_restarts_the_download(puller, front, registry):
    def rule(request, number):
        if registry.large not in request.path or number > 1:
            return False
        if number:
            del request.headers["Range"]
            status, headers, body = front.fetch(request.path, request.headers)
            request.answer(status, body, headers)
            return True
        return broken(request, front.fetch, at=60_000)

    front.rule = blobs(rule)
    puller.pull(puller.name)
    assert_store_is_good(puller, front)


def test_an_answer_with_another_range_is_not_used(puller, front, registry):
    def rule(request, number):
        if registry.large not in request.path or number > 1:
            return False
        if number:
            body = registry.image.blobs[registry.large]
            request.answer(206, body[10:], {"Content-Range": f"bytes 10-{len(body) - 1}/{len(body)}"})
            return True
        return broken(request, front.fetch, at=60_000)

    front.rule = blobs(rule)
    puller.pull(puller.name)
    assert_store_is_good(puller, front)


# --- false content


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda body: body[:-1] + bytes([body[-1] ^ 1]), "its digest is sha256:"),
        (lambda body: body + b"more", "there are more than its"),
        (lambda body: body[:-7], "bytes, not"),
        (lambda _: b"", "bytes, not"),
    ],
    ids=["another content", "longer", "shorter", "empty"],
)
def test_a_blob_that_differs_from_the_manifest_is_refused(puller, front, registry, change, words):
    def rule(request, _):
        if registry.large not in request.path:
            return False
        request.answer(200, change(registry.image.blobs[registry.large]))
        return True

    front.rule = blobs(rule)
    said = puller.refused("pull", puller.name)
    assert words in said
    assert registry.large in said
    assert not any(registry.large.partition(":")[2] in name for name in puller.files())
    assert_store_is_good(puller, front)


def test_a_wrong_content_length_causes_no_endless_wait(puller, front, registry):
    def rule(request, _):
        if registry.large not in request.path:
            return False
        body = registry.image.blobs[registry.large]
        request.answer(200, body, length=len(body) + 1000)
        return True

    front.rule = blobs(rule)
    puller(*("pull", puller.name))
    assert_store_is_good(puller, front)


def manifest_rule(front, change):
    """Return a rule that changes manifests: the document, and the headers."""

    def rule(request):
        if "/manifests/" not in request.path:
            return False
        status, headers, body = front.fetch(request.path, request.headers)
        body = change(json.loads(body), headers)
        request.answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)
        return True

    return rule


def without_digest(headers):
    for name in [name for name in headers if name.lower() == "docker-content-digest"]:
        del headers[name]


def with_size(size):
    def change(document, headers):
        without_digest(headers)
        document["layers"][1]["size"] = size
        return document

    return change


def pointing_elsewhere(document, headers):
    without_digest(headers)
    document["layers"][1]["digest"] = "sha256:../../../../../../etc/passwd"
    return document


def bare(content):
    def change(_, headers):
        without_digest(headers)
        return content

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_size(10), "there are more than its 10 bytes"),
        (with_size(1 << 40), "bytes, not 1099511627776"),
        (pointing_elsewhere, "unsupported digest sha256:../"),
        (lambda document, _: {**document, "x": 1}, "the manifest's digest is sha256:"),
        (bare(b"<html>captive portal</html>"), "its manifest is not JSON"),
        (bare(b" " * (5 << 20)), "more than 4194304 bytes"),
        (bare(b"[" * 200_000), "nested too deeply"),
        (bare(json.dumps({"schemaVersion": 2, "manifests": []}).encode()), "a descriptor in its manifest is missing"),
        (bare(json.dumps({"schemaVersion": 1}).encode()), "obsolete format"),
    ],
    ids=["small", "huge", "path", "digest", "html", "long", "nested", "empty index", "schema 1"],
)
def test_a_false_or_malformed_manifest_is_refused(puller, front, change, words):
    front.rule = manifest_rule(front, change)
    assert words in puller.refused("pull", puller.name)
    assert_blobs_are_right(puller)


def test_an_index_that_names_itself_is_refused(puller, front):
    entry = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": "sha256:" + "0" * 64, "size": 9}
    text = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()

    def rule(request):
        request.answer(200, text, {"Content-Type": entry["mediaType"]})
        return True

    front.rule = rule
    assert "digest is" in puller.refused("pull", puller.name)
    assert_blobs_are_right(puller)


def test_an_image_other_than_the_pinned_one_is_refused(puller, front, registry):
    other = busybox_image().manifests[-1][0]

    def rule(request):
        if "/manifests/" in request.path:
            request.answer(200, other, {"Content-Type": MANIFEST, "Docker-Content-Digest": digest_of(other)})
            return True
        return False

    front.rule = rule
    pinned = digest_of(registry.image.manifests[-1][0])
    words = puller.refused("pull", f"{puller.name}@{pinned}")
    assert f"the manifest's digest is {digest_of(other)}, not {pinned}" in words
    assert_blobs_are_right(puller)


@pytest.mark.parametrize("to", ["itself", "a file", "nowhere"])
def test_invalid_redirects_are_refused(puller, front, to):
    target = {"itself": "/v2/box/x", "a file": "file:///etc/passwd", "nowhere": "http://127.0.0.1:1/x"}[to]

    def rule(request):
        request.answer(302, headers={"Location": target})
        return True

    front.rule = rule
    words = puller.refused("pull", puller.name)
    assert {"itself": "more than 5 redirects", "a file": "not encrypted", "nowhere": "Connection refused"}[to] in words
    assert_blobs_are_right(puller)


# --- error answers


@pytest.mark.parametrize("where", ["/manifests/", "/blobs/"])
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "fix: log in: rootless login"),
        (403, "the registry forbids it (no way); fix: log in: rootless login"),
        (404, "the registry has no such image (no way)"),
        (500, "the registry answers 500 (no way); fix: try again later"),
        (418, "the registry answers 418 (no way)"),
    ],
)
def test_an_error_status_is_reported_with_its_message(puller, front, where, status, words):
    def rule(request):
        if where not in request.path:
            return False
        request.answer(
            status, json.dumps({"errors": [{"code": "X", "message": "no\nway".replace("\n", " ")}]}).encode()
        )
        return True

    front.rule = rule
    assert words in puller.refused("pull", puller.name)
    assert_blobs_are_right(puller)


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b'{"errors": []}', b'{"errors": [{"message": "a\\nb\\u001b[31m"}]}', b"[" * 9999]
)
def test_a_message_of_the_registry_is_printed_on_one_line(puller, front, body):
    def rule(request):
        request.answer(403, body)
        return True

    front.rule = rule
    assert "\x1b" not in puller.refused("pull", puller.name)


def test_an_overloaded_registry_is_retried(puller, front):
    answers = [500, 429, 503]

    def rule(request, number):
        if number or not answers:
            return False
        request.answer(answers.pop(), headers={"Retry-After": "1"})
        return True

    front.rule = blobs(rule)
    puller.pull(puller.name)
    assert not answers
    assert_store_is_good(puller, front)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Retry-After": "3600"}, ("anonymous users of your address, until 20", "rootless login")),
        (
            {"RateLimit-Limit": "100;w=21600", "Docker-RateLimit-Source": "192.0.2.7"},
            ("anonymous users of your address 192.0.2.7 to 100 in 6 hours", "or try again later"),
        ),
        ({"Retry-After": "4102444800"}, ("until 2100-01-01", "wait until 2100-01-01")),
        ({"Retry-After": "Thu, 31 Dec 2099 12:00:00 GMT"}, ("until 2099-12-31",)),
        ({"Retry-After": "whenever"}, ("or try again later",)),
    ],
    ids=["seconds", "window", "moment", "date", "nonsense"],
)
def test_a_rate_limit_is_reported_with_its_scope_and_end(puller, front, headers, words):
    def rule(request):
        request.answer(429, b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}', headers)
        return True

    front.rule = rule
    said = puller.refused("pull", puller.name)
    assert all(each in said for each in (*words, f"{front.host} limits the pulls of", "(slow down)"))
    assert_blobs_are_right(puller)


def test_a_registry_that_rejects_every_token_is_an_error(puller, front):
    issued = []

    def rule(request):
        if "/token" in request.path:
            issued.append(request.path)
            request.answer(200, json.dumps({"token": f"token{len(issued)}"}).encode())
        else:
            request.answer(401, headers={"WWW-Authenticate": f'Bearer realm="http://{front.host}/token",service="x"'})
        return True

    front.rule = rule
    assert "asks for a user name" in puller.refused("pull", puller.name)
    assert len(issued) < 10
