"""A service manager that receives notifications (sd_notify(3)), and a program that sends them."""

from __future__ import annotations

import select
import socket
import subprocess

import pytest

from tests.lib.containers import PATIENCE


class Manager:
    """A service manager's socket."""

    def __init__(self, user, *, abstract=False):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = user.tmp / "manager.sock"
        self.address = f"@{path}" if abstract else str(path)
        self._socket.bind(f"\0{path}" if abstract else str(path))
        if not abstract:
            path.chmod(0o777)
        self._socket.settimeout(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    @property
    def env(self):
        """The environment that it gives programs."""
        return {"NOTIFY_SOCKET": self.address}

    def report(self):
        """Return the lines of the next notification."""
        return self._socket.recv(4096).decode().splitlines()

    def silent(self):
        """Whether no notification is pending."""
        return not select.select([self._socket], [], [], 0)[0]


TELL = r"""
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* tell LINE…: reports, with a descriptor of a pipe in it, and waits until its reader has closed that */
int main(int argc, char **argv)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control = {
        .header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    char text[1024] = "", byte;
    struct iovec data = {.iov_base = text};
    struct msghdr whole = {&to, sizeof to, &data, 1, &control, sizeof control, 0};
    int ends[2], fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    if (!getenv("NOTIFY_SOCKET") || pipe(ends) < 0)
        return 3;
    strcpy(to.sun_path, getenv("NOTIFY_SOCKET"));
    for (int i = 1; i < argc; i++)
        strcat(strcat(text, argv[i]), i < argc - 1 ? "\n" : "");
    data.iov_len = strlen(text);
    memcpy(CMSG_DATA(&control.header), &ends[1], sizeof(int));
    if (sendmsg(fd, &whole, 0) < 0)
        return 4;
    close(ends[1]);
    return read(ends[0], &byte, 1) != 0;
}
"""


@pytest.fixture(scope="module")
def tell(need, tmp_path_factory):
    """Return a program that sends its arguments as a notification, one per line."""
    directory = tmp_path_factory.mktemp("tell")
    source = directory / "tell.c"
    source.write_text(TELL)
    target = directory / "tell"
    subprocess.run([need("cc"), "-static", "-O1", "-Wall", "-Werror", "-o", target, source], check=True)
    return target
