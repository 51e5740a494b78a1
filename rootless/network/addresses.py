"""The addresses of a network namespace, as /proc has them for a process in it: no socket in there, no netlink."""

from __future__ import annotations

from rootless.files import text_of

_GLOBAL = "00"
"""The scope in /proc/net/if_inet6: reachable from everywhere."""


def of(pid: int) -> list[str]:
    """Return the addresses that others reach the namespace of a process by: IPv4 first."""
    return [*_ipv4(text_of(f"/proc/{pid}/net/fib_trie")), *_ipv6(text_of(f"/proc/{pid}/net/if_inet6"))]


def _ipv4(text: str) -> list[str]:
    """Return the local addresses in the text of /proc/net/fib_trie: the line after each has its kind."""
    found: list[str] = []
    address = ""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif words == ["/32", "host", "LOCAL"] and not address.startswith("127.") and address not in found:
            found.append(address)
    return found


def _ipv6(text: str) -> list[str]:
    import _socket

    found = []
    for line in text.splitlines():
        digits, _, _, scope, *_ = line.split()
        if scope == _GLOBAL:
            found.append(_socket.inet_ntop(_socket.AF_INET6, bytes.fromhex(digits)))
    return found
