"""Servers for tests, each on an address and a port; standard library only, because they run in containers too.

    netservers.py ADDRESS SERVICE:PORT...

It prints `ready` when all servers listen.

    echo   TCP and UDP: the client's address, a blank and the received line
    http   GET /anything: the client's address; GET /bytes/N: N bytes
    dns    UDP: the addresses of NAMES, and no other names
"""

from __future__ import annotations

import ipaddress
import socket
import socketserver
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAMES = {"outside.test": ("198.51.100.1", "2001:db8::1"), "other.test": ("192.0.2.7",)}
"""The IPv4 and IPv6 address of each name."""
_TYPES = {1: 4, 28: 6}
"""DNS record types, A and AAAA, with their IP versions."""
_NO_SUCH_NAME = 3


def plain(address: str) -> str:
    """Return an address, converted to IPv4 if it is IPv4-mapped IPv6."""
    return address.removeprefix("::ffff:")


class EchoTCP(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(f"{plain(self.client_address[0])} ".encode() + line)


class EchoUDP(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(f"{plain(self.client_address[0])} ".encode() + self.rfile.read())


class Web(BaseHTTPRequestHandler):
    def do_GET(self):
        _, _, count = self.path.partition("/bytes/")
        body = b"x" * int(count) if count else plain(self.client_address[0]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Names(socketserver.DatagramRequestHandler):
    def handle(self):
        asked = self.rfile.read()
        self.wfile.write(answer(asked))


def answer(asked: bytes) -> bytes:
    """Return the answer to one question for a name: RFC 1035, 4.1."""
    labels, at = [], 12
    while asked[at]:
        labels.append(asked[at + 1 : at + 1 + asked[at]].decode().lower())
        at += 1 + asked[at]
    kind = struct.unpack_from(">H", asked, at + 1)[0]
    question = asked[12 : at + 5]
    known = NAMES.get(".".join(labels))
    found = [ipaddress.ip_address(address) for address in known or ()]
    chosen = [address.packed for address in found if address.version == _TYPES.get(kind)]
    flags = 0x8180 | (_NO_SUCH_NAME if known is None else 0)
    head = asked[:2] + struct.pack(">HHHHH", flags, 1, len(chosen), 0, 0)
    records = [b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(packed)) + packed for packed in chosen]
    return head + question + b"".join(records)


def _make(kind: type, family: int, address: tuple[str, int], handler: type) -> socketserver.BaseServer:
    class Server(kind):
        address_family = family
        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = 1024

        def server_bind(self):
            if family == socket.AF_INET6:
                # :: also accepts IPv4
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
            socketserver.TCPServer.server_bind(self)

    return Server(address, handler)


SERVICES = {
    "echo": ((socketserver.ThreadingTCPServer, EchoTCP), (socketserver.ThreadingUDPServer, EchoUDP)),
    "http": ((ThreadingHTTPServer, Web),),
    "dns": ((socketserver.ThreadingUDPServer, Names),),
}


def main() -> None:
    address, *wanted = sys.argv[1:]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for words in wanted:
        service, _, port = words.partition(":")
        for kind, handler in SERVICES[service]:
            server = _make(kind, family, (address, int(port)), handler)
            threading.Thread(target=server.serve_forever).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
