"""Packages with files of several owners, installed in a container that has a single ID (`--fake-chown`)."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.lib.bundles import base_config, make_bundle, own
from tests.lib.squashfs import CAPABLE

OFF = "--fake-chown=false"
CONTROL = "Package: owners\nVersion: 1\nArchitecture: all\nMaintainer: Tests <tests@localhost>\nDescription: owners\n"
POSTINST = "#!/bin/sh\nset -e\nchown mail:mail /usr/lib/owners/file\nchmod 4755 /usr/lib/owners/file\n"
POSTINST += "getent passwd service || useradd --system --create-home service\nsu --shell /bin/sh --command id mail\n"
PACKAGE = "Name: owners\nVersion: 1\nRelease: 1\nSummary: owners\nLicense: MIT\nBuildArch: noarch\n"
SPEC = f"""{PACKAGE}
%description
%files
%attr(4755, mail, mail) /usr/lib/owners/file
%attr(2750, root, daemon) /usr/lib/owners/directory
%attr(0644, daemon, root) /usr/lib/owners/link
%post
chown mail /usr/lib/owners/file
"""
DNF_SPEC = f"""{PACKAGE}
AutoReqProv: no
Provides: /bin/sh user(daemon) user(mail) group(daemon) group(mail)
%description
%files
%attr(4755, mail, mail) /opt/owners/file
%attr(2750, root, daemon) /opt/owners/directory
%caps(cap_net_raw=ep) %attr(0755, daemon, mail) /opt/owners/tool
%post
chown mail:daemon /opt/owners/file
chmod 4711 /opt/owners/file
"""
PASSWD = "root:x:0:0::/root:/bin/sh\ndaemon:x:2:2::/sbin:/bin/sh\nmail:x:8:12::/var/spool/mail:/bin/sh\n"
"""As in Fedora."""


class Tree:
    """A bundle of a user without subordinate IDs."""

    def __init__(self, user, command, path):
        self.user = user
        self.rootfs = path / "rootfs"
        self._words = [command, "run", "--network", "none"]
        self._path = path

    def sh(self, script, *flags, **options):
        """Run a script with its output on one stream."""
        words = [*self._words, *flags, self._path, "sh", "-c", script]
        return self.user.run(words, stderr=subprocess.STDOUT, **options)

    def add(self, path):
        """Copy a file into the root directory."""
        target = self.rootfs / path.name
        shutil.copy(path, target)
        own(self.user, target)


@pytest.fixture
def debian(single_user, rootless_command, trixie):
    """A Debian root file system with the user of apt's downloads, as images have it."""
    path = single_user.tmp / "debian"
    with trixie.open("rb") as archive:
        single_user.run([rootless_command, "new", path, "--from", "-"], stdin=archive, check=True)
    tree = Tree(single_user, rootless_command, path)
    (tree.rootfs / "etc/apt/apt.conf.d/99mmdebstrap").unlink()  # which switches that user off
    return tree


@pytest.fixture
def package(tmp_path, need):
    """A Debian package with files of several owners."""
    content = tmp_path / "package"
    (content / "DEBIAN").mkdir(parents=True)
    (content / "DEBIAN/control").write_text(CONTROL)
    (content / "DEBIAN/postinst").write_text(POSTINST)
    (content / "DEBIAN/postinst").chmod(0o755)
    directory = content / "usr/lib/owners"
    directory.mkdir(parents=True)
    (directory / "file").write_text("file")
    shutil.chown(directory / "file", "mail", "mail")
    (directory / "file").chmod(0o4755)
    shutil.chown(directory, "root", "daemon")
    path = tmp_path / "owners.deb"
    subprocess.run([need("dpkg-deb"), "--build", content, path], check=True, capture_output=True)
    return path


def test_dpkg_installs_files_of_several_owners(debian, package):
    debian.add(package)
    failed = debian.sh("dpkg --install /owners.deb", OFF)
    assert failed.returncode == 1
    assert "error setting ownership of" in failed.stdout

    done = debian.sh("dpkg --install /owners.deb && stat -c '%a %u:%g' /usr/lib/owners/file")

    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "4755 0:0"
    assert "uid=0(root)" in done.stdout, "the user did not change in fact"


def test_apt_updates_and_installs(debian, package):
    """apt downloads as another user and checks that it cannot return: it does without one in this container only."""
    repository = debian.rootfs / "repository"
    repository.mkdir()
    shutil.copy(package, repository)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    index = f"{CONTROL}Filename: ./owners.deb\nSize: {package.stat().st_size}\nSHA256: {digest}\n\n"
    (repository / "Packages").write_text(index)
    own(debian.user, repository)
    shutil.rmtree(debian.rootfs / "etc/apt/sources.list.d", ignore_errors=True)
    (debian.rootfs / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/repository ./\n")
    failed = debian.sh("apt-get --quiet update", OFF)
    assert failed.returncode == 100
    assert "setgroups" in failed.stdout
    install = "DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes install owners"

    done = debian.sh(f"apt-get --quiet update && {install} && dpkg-query --show owners")

    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "owners\t1"
    settings = debian.rootfs / "etc/apt/apt.conf.d/99rootless"
    assert settings.read_text() == "", "the mount point alone is left"


@pytest.fixture
def fedora(single_user, rootless_command, need):
    """A tree as Fedora's: merged /usr, rpm with this host's libraries, the users of Fedora."""
    path = make_bundle(single_user, base_config(), name="fedora")
    rootfs = path / "rootfs"
    (rootfs / "usr/lib").mkdir(parents=True, exist_ok=True)
    for name in ("rpm", "rpmdb"):
        program = need(name)
        listed = subprocess.run([need("ldd"), program], check=True, capture_output=True, text=True).stdout
        for file in {program, *re.findall(r"(/\S+) \(", listed)}:
            target = rootfs / file.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    shutil.copytree("/usr/lib/rpm", rootfs / "usr/lib/rpm", ignore=shutil.ignore_patterns("*-*"))
    name_users(rootfs / "etc")
    own(single_user, path)
    return Tree(single_user, rootless_command, path)


def name_users(etc):
    """Make this a Fedora, with its users."""
    (etc / "passwd").write_text(PASSWD)
    (etc / "group").write_text("root:x:0:\ndaemon:x:2:\nmail:x:12:\n")
    (etc / "os-release").write_text("ID=fedora\nVERSION_ID=43\n")


def build_rpm(directory, spec):
    """Return an rpm package with the files that its specification names."""
    content = directory / "content"
    for name in re.findall(r" /(\S+/owners/\S+)$", spec.partition("%files")[2].partition("%post")[0], re.MULTILINE):
        file = content / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.name == "link":
            file.symlink_to("file")
        elif file.name == "directory":
            file.mkdir()
        else:
            file.write_text("file")
    (directory / "owners.spec").write_text(spec)
    words = ["rpmbuild", "-bb", "--define", f"_topdir {directory}", "--buildroot", content, directory / "owners.spec"]
    subprocess.run(words, check=True, capture_output=True)
    (package,) = Path(directory / "RPMS/noarch").iterdir()
    return package


def test_rpm_installs_files_of_several_owners(fedora, tmp_path, need):
    need("rpmbuild")
    package = build_rpm(tmp_path, SPEC)
    fedora.add(package)
    install = f"/usr/bin/rpm --nodeps --nosignature --install /{package.name}"
    failed = fedora.sh(install, OFF)
    assert failed.returncode == 1
    assert "chown failed" in failed.stdout

    done = fedora.sh(f"{install} && /usr/bin/rpm --query owners && stat -c '%a %u:%g' /usr/lib/owners/file")

    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-2:] == ["owners-1-1.noarch", "4755 0:0"]
    assert not (fedora.rootfs / "etc/apt").exists()


@pytest.fixture
def with_dnf(single_user, rootless_command, need):
    """A tree as Fedora's that has this host's dnf: /usr is the host's, everything else its own."""
    for program in ("dnf", "rpmbuild"):
        need(program)
    config = base_config()
    config["mounts"].append(
        {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro", "nosuid", "nodev"]}
    )
    path = make_bundle(single_user, config, name="fedora")
    rootfs = path / "rootfs"
    shutil.rmtree(rootfs / "bin")
    for name in ("bin", "lib", "lib64", "sbin"):
        (rootfs / name).symlink_to(f"usr/{name}")
    for name in ("etc/dnf", "etc/rpm", "opt", "usr", "var/log", "var/tmp"):
        (rootfs / name).mkdir(parents=True)
    name_users(rootfs / "etc")
    (rootfs / "etc/dnf/dnf.conf").write_text("[main]\ngpgcheck=0\nreposdir=/none\npluginpath=/none\n")
    # Fedora's containers do not have the plugin that gives scriptlets a mount namespace
    (rootfs / "etc/rpm/macros").write_text("%__transaction_unshare %{nil}\n")
    own(single_user, path)
    return Tree(single_user, rootless_command, path)


def test_dnf_installs_owners_capabilities_and_runs_scripts(with_dnf, tmp_path):
    package = build_rpm(tmp_path, DNF_SPEC)
    with_dnf.add(package)
    install = f"dnf --assumeyes --quiet --releasever=43 install /{package.name}"
    capability = ("--cap-add", "SETFCAP")
    failed = with_dnf.sh(install, OFF, *capability)
    assert failed.returncode == 1
    assert "Error unpacking rpm package owners-1-1.noarch" in failed.stdout

    look = "rpm --query owners && stat -c '%n %a %u:%g' /opt/owners/* && getcap /opt/owners/*"
    done = with_dnf.sh(f"{install} && {look}", *capability)

    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-5:] == [
        "owners-1-1.noarch",
        "/opt/owners/directory 2750 0:0",
        "/opt/owners/file 4711 0:0",
        "/opt/owners/tool 755 0:0",
        "/opt/owners/tool cap_net_raw=ep",
    ]


def test_an_archive_of_many_owners_is_unpacked_as_apk_does(debian):
    """As root, tar gives each file its owner, and its attributes; Debian has no apk."""
    with tarfile.open(debian.rootfs / "package.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        named = tarfile.TarInfo("opt/tool")
        named.uid, named.gid, named.mode, named.pax_headers = 7, 8, 0o755, CAPABLE
        archive.addfile(named)
        pipe = tarfile.TarInfo("opt/pipe")
        pipe.type, pipe.uid, pipe.gid, pipe.mode = tarfile.FIFOTYPE, 9, 9, 0o620
        archive.addfile(pipe)
        for number in range(20):
            entry = tarfile.TarInfo(f"opt/file-{number}")
            entry.uid, entry.gid, entry.size, entry.mode = number, 2 * number, 4, 0o6755
            archive.addfile(entry, io.BytesIO(b"text"))
    unpack = "tar -xp --xattrs --xattrs-include='*' -f /package.tar"
    assert "Cannot change ownership" in debian.sh(unpack, OFF).stdout

    done = debian.sh(f"{unpack} && stat -c %a:%u:%F /opt/file-* /opt/pipe | sort -u")

    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-2:] == ["620:0:fifo", "6755:0:regular file"]
    assert os.getxattr(debian.rootfs / "opt/tool", "security.capability")
