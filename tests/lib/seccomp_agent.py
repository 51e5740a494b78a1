"""A seccomp agent, which answers the notifications of a container's filter (SCMP_ACT_NOTIFY)."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading

RECEIVE, SEND = 0xC0502100, 0xC0182101
"""SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND; seccomp_unotify(2)."""


NOTIFICATION = struct.Struct("=QII64s")


ANSWER = struct.Struct("=QqiI")


CONTINUE = (0, 0, 1)
"""Value, error and flags of an answer that continues the call: SECCOMP_USER_NOTIF_FLAG_CONTINUE."""


def whole(data):
    """Whether the text is complete JSON."""
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


class Agent:
    """A seccomp agent that gives `answers` in order, and then CONTINUE; with None it ends immediately.

    Attributes:
        path: the path of its socket.
        states: the state that each connection has sent.
        connections: the number of connections.
        pids: the pids of the processes that have made a system call.
    """

    def __init__(self, user, *answers, leave=False):
        self.path = user.tmp / "agent.sock"
        self.states = []
        self.connections = 0
        self.pids = []
        self._answers = list(answers)
        self._leave = leave
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self.path))
        self.path.chmod(0o777)
        self._socket.listen()
        self._ended, self._end = os.pipe()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        os.close(self._end)
        self._thread.join()
        os.close(self._ended)
        self._socket.close()
        self.path.unlink()

    def _serve(self):
        listeners, silent = [], []
        while True:
            ready = select.select([self._socket, self._ended, *silent, *listeners], [], [])[0]
            if self._ended in ready:
                break
            if self._socket in ready:
                silent.append(self._socket.accept()[0])
                self.connections += 1
            for connection in silent[:]:
                if connection in ready:
                    silent.remove(connection)
                    listeners += self._take(connection)
            for listener in listeners:
                if listener in ready and not self._answer(listener):
                    listeners.remove(listener)
                    os.close(listener)
        for listener in listeners:
            os.close(listener)
        for connection in silent:
            connection.close()

    def _take(self, connection):
        with connection:
            data, fds, _, _ = socket.recv_fds(connection, 1 << 20, 8)
            # runc and crun leave the connection open
            while not whole(data) and (more := connection.recv(1 << 20)):
                data += more
        if data:
            self.states.append((json.loads(data), len(fds)))
        if self._leave:
            for fd in fds:
                os.close(fd)
            return []
        return fds

    def _answer(self, listener):
        notification = bytearray(NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, RECEIVE, notification)
            number, pid, _, _ = NOTIFICATION.unpack(notification)
            self.pids.append(pid)
            fcntl.ioctl(listener, SEND, ANSWER.pack(number, *(self._answers.pop(0) if self._answers else CONTINUE)))
        except OSError as error:
            # the calling process was killed, or no process has the filter any more
            return error.errno == errno.ENOENT and not self._hung_up(listener)
        return True

    @staticmethod
    def _hung_up(listener):
        poll = select.poll()
        poll.register(listener, 0)
        return bool(poll.poll(0))


def notifying(config, *names, **more):
    """Add a filter that notifies the agent of these system calls; return the config."""
    rules = [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}]
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules} | more
    return config
