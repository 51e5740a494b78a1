"""A root filesystem made from this host: its shell, its core tools, and the libraries that they need.

Every file keeps its path on the host, and every symlink on the way to it is copied. So merged /usr, alternatives,
multicall programs (busybox, uutils) and store paths (Nix, Guix) work as on the host.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess

from rootless.errors import RootlessError
from rootless.image.bundles.elf import Libraries

TOOLS = (
    "sh bash "
    "[ awk base64 basename cat chgrp chmod chown clear cmp cp cut date dd df diff dirname du echo env expr false find "
    "free getent grep gzip head hostname id ip kill less ln ls mkdir mkfifo mktemp mount mountpoint mv nice nohup "
    "nproc od pgrep pkill printenv printf ps pwd readlink realpath rm rmdir sed seq setpriv setsid sleep sort "
    "stat stty sync tail tar tee test timeout top touch tr true truncate tty umount uname uniq unshare uptime wc "
    "whoami xargs yes"
)

_DIRECTORIES = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")

# Symlinks of a merged /usr, copied even where no tool was found through them: scripts begin with #!/bin/sh.
_TOP_LEVEL = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

# glibc before 2.34 opens these by name when it looks a user or a host up.
_NAME_SERVICES = ("libnss_files.so.2", "libnss_dns.so.2")

_TERMINALS = ("d/dumb", "l/linux", "s/screen", "s/screen-256color", "t/tmux-256color", "x/xterm", "x/xterm-256color")

_FILES = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "/etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    "/etc/resolv.conf": "",
}

_SEARCHABLE = 0o755

_EMPTY_DIRECTORIES = {
    **dict.fromkeys(("/dev", "/etc", "/home", "/mnt", "/opt", "/proc", "/run", "/sys", "/usr/local/bin"), _SEARCHABLE),
    "/root": 0o700,
    "/tmp": 0o1777,  # noqa: S108 - in the new root filesystem
    "/var/tmp": 0o1777,  # noqa: S108 - in the new root filesystem
}

_MAX_LINKS = 40

_WHAT = "copying this host's tools"


class Made:
    """What `make_rootfs` put together: how many programs, and how many bytes of files."""

    __slots__ = ("programs", "size")

    def __init__(self, programs: int, size: int) -> None:
        self.programs = programs
        self.size = size


def make_rootfs(rootfs: str) -> Made:
    """Fill the empty directory `rootfs` with this host's shell and core tools; missing tools are left out.

    Everything belongs to the caller and carries no setuid or setgid bit: in the container the caller is root anyway.

    Raises:
        RootlessError: the host has no usable shell, or a file cannot be copied.
    """
    os.chmod(rootfs, _SEARCHABLE)
    copy = _Copy(rootfs)
    libraries = Libraries()
    try:
        for name in _TOP_LEVEL:
            if os.path.islink("/" + name):
                copy.add("/" + name)
        programs = _copy_tools(copy, libraries)
        for path in ("/etc/os-release", *_terminal_descriptions()):
            if os.path.isfile(path):
                copy.add(path)
        if libraries.beyond_default and os.path.isfile("/etc/ld.so.cache"):
            copy.add("/etc/ld.so.cache")
        for path, mode in _EMPTY_DIRECTORIES.items():
            copy.make_directory(path, mode)
        for path, text in _FILES.items():
            copy.write(path, text)
    except OSError as error:
        cause = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise RootlessError(_WHAT, cause=cause, code="RL-NEW") from error
    return Made(programs, copy.size)


def _copy_tools(copy: _Copy, libraries: Libraries) -> int:
    busybox, applets = _busybox()
    from_busybox: list[str] = []
    copied = 0
    for name in TOOLS.split():
        path = _find(name)
        # The loader needs the real path: $ORIGIN is the directory of the program, not of a symlink to it.
        files = libraries.closure(os.path.realpath(path)) if path else None
        if path and files:
            copied += 1
            copy.add_program(name, path)
            for file in files:
                copy.add(file)
        elif name in applets:
            from_busybox.append(name)
        elif name == "sh":
            raise RootlessError(
                _WHAT,
                cause="this host has no usable `sh`",
                fix="make the bundle from an archive of a root filesystem: rootless new DIR --from FILE.tar",
                code="RL-NEW",
            )
    for name in from_busybox:
        copy.add_program(name, busybox)
    for file in (libraries.closure(os.path.realpath(busybox)) if from_busybox else None) or ():
        copy.add(file)
    _copy_name_services(copy, libraries)
    return copied + len(from_busybox)


def _busybox() -> tuple[str, list[str]]:
    """Return the path of the host's busybox and the names of what it can do."""
    path = _find("busybox")
    if path is None:
        return "", []
    listing = subprocess.run([path, "--list"], capture_output=True, check=False, text=True)
    return path, listing.stdout.split()


def _find(name: str) -> str | None:
    path = os.pathsep.join((*_DIRECTORIES, os.environ.get("PATH", "")))
    found = shutil.which(name, os.R_OK | os.X_OK, path)
    return os.path.abspath(found) if found else None


def _copy_name_services(copy: _Copy, libraries: Libraries) -> None:
    shell = libraries.read(os.path.realpath(_find("sh") or ""))
    for name in _NAME_SERVICES:
        path = libraries.find(name, shell) if shell else None
        for file in (libraries.closure(path) if path else None) or ():
            copy.add(file)


def _terminal_descriptions() -> list[str]:
    directories = ("/lib/terminfo", "/usr/share/terminfo", "/etc/terminfo", "/run/current-system/sw/share/terminfo")
    return [os.path.join(directory, name) for directory in directories for name in _TERMINALS]


class _Copy:
    """Copies host files to the same path below another root; `size` counts the bytes of regular files."""

    def __init__(self, root: str) -> None:
        self.size = 0
        self._root = root
        self._copied: dict[tuple[int, int], str] = {}

    def add(self, path: str) -> None:
        """Copy the file or directory `path`, with its parents and every symlink on the way to it."""
        real = "/"
        todo = path.split("/")[::-1]
        links = 0
        while todo:
            name = todo.pop()
            if name == "..":
                real = os.path.dirname(real)
            if name in {"", ".", ".."}:
                continue
            here = os.path.join(real, name)
            status = os.lstat(here)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _MAX_LINKS:
                    raise RootlessError(_WHAT, cause=f"{path}: too many symlinks", code="RL-NEW")
                target = os.readlink(here)
                self.link(here, target)
                todo.extend(target.split("/")[::-1])
                real = "/" if target.startswith("/") else real
                continue
            if stat.S_ISDIR(status.st_mode):
                self.make_directory(here)
            elif not os.path.lexists(self._root + here):
                self._copy_file(here, status)
            real = here

    def add_program(self, name: str, path: str) -> None:
        """Copy the program `path`; one with another name or in an unusual directory gets a symlink."""
        self.add(path)
        if os.path.basename(path) != name or os.path.dirname(path) not in _DIRECTORIES:
            self.link(f"/usr/bin/{name}", path)

    def link(self, path: str, target: str) -> None:
        """Make the symlink `path`, unless the name is taken."""
        inside = self._place(path)
        if not os.path.lexists(inside):
            os.symlink(target, inside)

    def make_directory(self, path: str, mode: int = _SEARCHABLE) -> None:
        """Make the directory `path`, unless something has that name already."""
        inside = self._place(path)
        if not os.path.lexists(inside):
            os.mkdir(inside)
            os.chmod(inside, mode)  # whatever the umask

    def write(self, path: str, text: str) -> None:
        """Write the small file `path`, unless something has that name already."""
        inside = self._place(path)
        if not os.path.lexists(inside):
            with open(inside, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(inside, 0o644)
            self.size += len(text)

    def _place(self, path: str) -> str:
        """Return the path of `path` below the new root, after making its parents; symlinks stay inside the new root."""
        real = ""
        todo = path.split("/")[::-1]
        while len(todo) > 1:
            name = todo.pop()
            if name == "..":
                real = os.path.dirname(real)
            if name in {"", ".", ".."}:
                continue
            here = f"{self._root}{real}/{name}"
            if os.path.islink(here):
                target = os.readlink(here)
                todo.extend(target.split("/")[::-1])
                real = "" if target.startswith("/") else real
                continue
            if not os.path.lexists(here):
                os.mkdir(here)
                os.chmod(here, _SEARCHABLE)
            real += "/" + name
        return f"{self._root}{real}/{todo[0]}"

    def _copy_file(self, path: str, status: os.stat_result) -> None:
        inside = self._root + path
        identity = (status.st_dev, status.st_ino)
        if identity in self._copied:
            os.link(self._copied[identity], inside)
            return
        shutil.copyfile(path, inside)
        os.chmod(inside, _SEARCHABLE if status.st_mode & 0o111 else 0o644)
        self._copied[identity] = inside
        self.size += status.st_size
