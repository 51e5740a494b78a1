"""`rootless run IMAGE`: containers of images, compared with podman's containers of the same images."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile

import pytest

from tests.lib.bundles import own
from tests.lib.engines import IMAGE, make_image, opened_podman
from tests.lib.squashfs import CAPABLE, entry


@pytest.fixture
def archive(user):
    """An archive of a busybox image, as `docker save` writes it."""
    path = make_image(user.tmp, command=("sh", "-c", "echo default; pwd; id -u"))
    own(user, path)
    return path


@pytest.fixture
def run(user, rootless_command):
    """Run `rootless` with a store for this test, by default without a network."""

    def run_words(*words, verb="run", network=("--network", "none"), who=user, **options):
        options["env"] = {"ROOTLESS_IMAGES": str(user.tmp / "store")} | options.get("env", {})
        return who.run([rootless_command, verb, *network, *words], **options)

    return run_words


def output(done):
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_flags_override_the_configuration_of_the_image(run, archive):
    image = f"docker-archive:{archive}"
    assert output(run(image)) == "default\n/\n0\n"
    assert output(run("-e", "A=b", "-w", "/tmp", image, "sh", "-c", "echo $A; pwd; echo $PATH")) == (
        "b\n/tmp\n/usr/local/bin:/usr/bin:/bin\n"
    )
    assert output(run("--entrypoint", "echo", image, "one", "two")) == "one two\n"
    assert output(run("-u", "www-data", image, "id", "-u")) == "33\n"


def test_changes_stay_in_the_container(run, archive):
    image = f"docker-archive:{archive}"
    assert output(run(image, "sh", "-c", "echo x > /etc/x; rm /etc/group; ls /etc")) == "passwd\nx\n"
    assert output(run(image, "ls", "/etc")) == "group\npasswd\n"


NAMES = "cat /etc/passwd; echo -; cat /etc/group; echo -; whoami; id -u; id -gn; echo $HOME ~"


@pytest.mark.parametrize("taken", [False, True])
def test_the_caller_has_a_name_with_keep_id_as_with_podman(run, archive, user, need, taken):
    image = f"docker-archive:{archive}"
    name, uid, home = ("user", 4321, "/home/user") if taken else (user.name, user.uid, "/tmp")
    flags = ["--userns", f"keep-id:uid={uid},gid={uid}" if taken else "keep-id", "-w", "/tmp"]
    ours = output(run(*flags, image, "sh", "-c", NAMES))
    assert ours.endswith(f"-\n{name}\n{uid}\n{name}\n{home} {home}\n")
    with opened_podman(user, archive, need("podman")) as podman:
        theirs = podman("run", "--rm", "--network=none", *flags, IMAGE, "sh", "-c", NAMES, check=True).stdout
    podman.remove_stores()
    assert ours.splitlines() == theirs.splitlines()


def test_names_are_in_the_container_only(run, archive, user):
    image = f"docker-archive:{archive}"
    before = output(run(image, "cat", "/etc/passwd", "/etc/group"))
    assert user.name not in before
    keep = ("--userns", "keep-id")
    assert output(run(*keep, "--read-only", image, "id", "-un")) == f"{user.name}\n"
    # programs such as useradd replace the file
    replace = "grep -c . /etc/passwd; sed -i s/nothing// /etc/passwd; id -un"
    assert output(run(*keep, "-u", "0", image, "sh", "-c", replace)).splitlines()[1:] == ["root"]
    own(user, write(user.tmp / "mine", "root:x:0:0:::\n"))
    mount = ("-v", f"{user.tmp}/mine:/etc/passwd")
    assert output(run(*keep, *mount, image, "cat", "/etc/passwd")) == (user.tmp / "mine").read_text()
    assert output(run(image, "cat", "/etc/passwd", "/etc/group")) == before
    assert output(run("--userns", "keep-id:uid=7,gid=8", image, "sh", "-c", "id; echo ~")) == (
        f"uid=7({user.name}) gid=8({user.name})\n/\n"
    )
    flags = (*keep, f"--overlay={user.tmp}/changes")
    for _ in range(2):
        assert output(run(*flags, image, "grep", "-c", user.name, "/etc/passwd")) == "1\n"


def write(path, text):
    path.write_text(text)
    return path


def test_standard_input_is_empty_without_i(run, archive):
    image = f"docker-archive:{archive}"
    assert output(run(image, "cat", input="words")) == ""
    assert output(run("-i", image, "cat", input="words")) == "words"


def test_a_file_of_the_store_runs_as_an_image(run, archive, user):
    output(run(f"docker-archive:{archive}"))
    (made,) = (user.tmp / "store").glob("sha256-*.sqsh")
    made.rename(user.tmp / "copied.sqsh")
    assert output(run("copied.sqsh")) == "default\n/\n0\n"
    assert output(run("./copied.sqsh", "id", "-g")) == "0\n"


def test_containers_of_one_image_have_different_names(run, archive, user, rootless_command):
    image = f"docker-archive:{archive}"
    output(run("--name", "chosen", "-d", image, "sleep", "1000"))
    for _ in range(3):
        output(run("-d", image, "sleep", "1000"))
    ids = user.run([rootless_command, "list", "-q"], check=True).stdout.split()
    try:
        assert "chosen" in ids
        assert len({name for name in ids if name.startswith("box-")}) == 3
        state = json.loads(user.run([rootless_command, "state", "chosen"], check=True).stdout)
        assert state["bundle"].endswith("/chosen")
        assert os.path.exists(f"{state['bundle']}/config.json")
        assert user.run([rootless_command, "exec", "chosen", "id", "-u"], check=True).stdout == "0\n"
        store = {"ROOTLESS_IMAGES": str(user.tmp / "store")}
        assert output(user.run([rootless_command, "restart", "-t", "0", "chosen"], env=store)) == "chosen\n"
        assert json.loads(user.run([rootless_command, "state", "chosen"], check=True).stdout)["pid"] != state["pid"]
    finally:
        user.run([rootless_command, "delete", "--force", "--regex", "."], check=True)


def test_parallel_containers_share_one_image_file(run, archive, user, rootless_command):
    image = f"docker-archive:{archive}"
    output(run(image, "true"))
    (made,) = (user.tmp / "store").glob("sha256-*.sqsh")
    words = f"{rootless_command} run --network none {made} sh -c 'echo x >/etc/x; cat /etc/x' &\n"
    assert output(user.run(["sh", "-c", words * 32 + "wait"])) == "x\n" * 32


def test_explain_shows_the_server_and_the_command(run, archive):
    shown = output(run("-e", "A=b", f"docker-archive:{archive}", "env", verb="explain"))
    assert "begin to serve the image " in shown
    assert "execute env" in shown


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("nothing",), "rootless run docker://nothing runs an image"),
        (("--pull", "never", "example.test/nothing:1"), "it is not in the store"),
        (("docker://",), "docker://"),
        (("./missing.sqsh",), "no such file or directory"),
    ],
)
def test_an_invalid_image_is_a_one_line_error(run, words, complaint):
    done = run(*words)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done
    assert complaint in done.stderr
    assert "; fix: " in done.stderr


def test_exposed_ports_are_published_on_request(run, archive, user, rootless_command):
    with tarfile.open(archive) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    config = json.loads(members["config.json"])
    config["config"]["ExposedPorts"] = {"8080/tcp": {}}
    members["config.json"] = json.dumps(config).encode()
    with tarfile.open(archive, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    words = ["-P", "-d", "--name", "web", f"docker-archive:{archive}", "sleep", "1000"]
    output(run(*words, network=()))
    try:
        assert user.run([rootless_command, "port", "web"], check=True).stdout.startswith("8080/tcp -> ")
    finally:
        user.run([rootless_command, "delete", "--force", "web"], check=True)


@pytest.fixture
def without_fuse(require_root):
    """A host where users cannot open /dev/fuse."""
    mode = os.stat("/dev/fuse").st_mode
    os.chmod("/dev/fuse", 0o600)
    yield
    os.chmod("/dev/fuse", mode)


@pytest.mark.usefixtures("without_fuse")
def test_without_fuse_an_image_is_unpacked_once(run, archive, user, rootless_command):
    image = f"docker-archive:{archive}"
    done = run(image, "sh", "-c", "touch /new; id -u")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (0, "0\n", 1), done
    assert "is unpacked into" in done.stderr
    assert "/dev/fuse cannot be opened; fix: run `rootless doctor`" in done.stderr
    assert output(run(image, "sh", "-c", "ls /new 2>&1 | grep -c No; stat -c %u /bin")) == "1\n0\n"
    (unpacked,) = (user.tmp / "store/unpacked").iterdir()
    assert sorted(path.name for path in unpacked.iterdir()) == ["rootfs", "roots"]

    left = unpacked.with_name("1-2-3-4.tmp-killed")
    user.run(["mkdir", "-p", left / "rootfs"], check=True)
    user.run(["touch", "-d", "2 days ago", left], check=True)
    prune = [rootless_command, "image", "prune", "--store", user.tmp / "store"]
    for root in ([], ["--root", user.tmp / "other"]):
        words = ["run", "-d", "--network", "none", "--store", user.tmp / "store", "--name", "user", image]
        streams = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        user.run([rootless_command, *root, *words, "sleep", "1000"], check=True, **streams)
        try:
            assert root or str(left) in user.run(prune, check=True).stdout
            user.run(prune, check=True)
            (unpacked,) = (user.tmp / "store/unpacked").iterdir()  # a container uses it
        finally:
            user.run([rootless_command, *root, "delete", "--force", "user"], check=True)
    (unpacked / "roots").write_text(f"another-machine\t{user.tmp}/state\n")
    user.run(prune, check=True)
    assert unpacked.exists(), "a container of another machine may use it"
    os.utime(unpacked / "roots", (0, 0))
    user.run(prune, check=True)
    assert list((user.tmp / "store/unpacked").iterdir()) == []


OWN = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/run", "/dev", "/proc", "/sys")
"""Paths that each engine provides; podman creates symlinks there that the image does not have."""
LIST = "find / -xdev ( -type d -printf '%p %m %U %G %y\\n' -o -printf '%p %m %U %G %y %l %s\\n' )"


def listed(text):
    lines = [line for line in text.splitlines() if not line.split(" ")[0].startswith(tuple(f"{path}/" for path in OWN))]
    # podman sets another mode for the root directory
    return sorted(line for line in lines if line.split(" ")[0] not in (*OWN, "/"))


def attributes(packed):
    """Return the extended attributes of all files; a hard link gets those of its target."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for member in tar:
            own_ones = {key: value for key, value in member.pax_headers.items() if "xattr" in key}
            found[member.name] = found[member.linkname] if member.islnk() else own_ones
    return found


@pytest.fixture
def debian(user, trixie):
    """A docker-archive of Debian, with a second layer that has attributes and unusual owners."""
    extra = io.BytesIO()
    with tarfile.open(fileobj=extra, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in (
            entry("extra", tarfile.DIRTYPE, mode=0o2775, uid=7),
            entry("extra/capable", data=b"x", mode=0o755, pax_headers=CAPABLE),
            entry("extra/attribute", data=b"y", uid=1234, pax_headers={"SCHILY.xattr.user.colour": "blue"}),
            entry("extra/hard", tarfile.LNKTYPE, "extra/attribute", uid=1234),
            entry("etc/.wh.issue"),
            entry("srv/sticky", tarfile.DIRTYPE, mode=0o1777),
        ):
            tar.addfile(info, io.BytesIO(data))
    layers = {"base.tar": trixie.read_bytes(), "extra.tar": extra.getvalue()}
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
            "Cmd": ["bash"],
            "WorkingDir": "/srv",
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers.values()],
        },
    }
    manifest = [{"Config": "config.json", "RepoTags": ["debian.test/box:1"], "Layers": list(layers)}]
    path = user.tmp / "debian.tar"
    with tarfile.open(path, "w") as tar:
        files = layers | {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    own(user, path)
    return path


def test_debian_image_has_the_same_files_as_with_podman(run, debian, user, need):
    words = LIST.replace("(", "\\(").replace(")", "\\)")
    pack = "tar --xattrs --xattrs-include=* -C /extra -cf - ."
    image = f"docker-archive:{debian}"
    ours = [output(run(image, "sh", "-c", each)) for each in (words, "env | grep -v -e HOSTNAME -e container= | sort")]
    our_attributes = attributes(run(image, "sh", "-c", pack, text=False, check=True).stdout)
    install(run, image, user)
    with opened_podman(user, debian, need("podman")) as podman:
        theirs = [
            podman("run", "--rm", "debian.test/box:1", "sh", "-c", each, check=True).stdout
            for each in (words, "env | grep -v -e HOSTNAME -e container= | sort")
        ]
        their_attributes = attributes(
            podman("run", "--rm", "debian.test/box:1", "sh", "-c", pack, text=False, check=True).stdout
        )
    podman.remove_stores()
    assert listed(ours[0]) == listed(theirs[0])
    assert len(listed(ours[0])) > 3000
    assert ours[1] == theirs[1]
    assert our_attributes == their_attributes
    assert len([values for values in our_attributes.values() if values]) >= 2


def install(run, image, user):
    """Install a package that is made here in a container of the image."""
    tree = user.tmp / "package"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share/hello").mkdir(parents=True)
    (tree / "usr/share/hello/words").write_text("installed\n")
    control = (
        "Package: hello-test\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.test>\nDescription: test\n"
    )
    (tree / "DEBIAN/control").write_text(control)
    (tree / "DEBIAN/postinst").write_text(
        "#!/bin/sh\nuseradd --system hello-user && chown hello-user /usr/share/hello\n"
    )
    (tree / "DEBIAN/postinst").chmod(0o755)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, user.tmp / "hello.deb"], check=True)
    script = (
        "apt-get install -y --no-install-recommends /mnt/hello.deb >/dev/null 2>&1 || dpkg -i /mnt/hello.deb >/dev/null"
    )
    check = "cat /usr/share/hello/words; stat -c %U /usr/share/hello; dpkg --list hello-test | tail -1 | cut -c 1-2"
    done = run("-v", f"{user.tmp}:/mnt", image, "sh", "-c", f"{script}; {check}")
    assert done.stdout == "installed\nhello-user\nii\n", done
