"""The helpers that connect a network to the host, and their command lines: slirp4netns(1), pasta(1)."""

from __future__ import annotations

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.host.host_network import HostNetwork
    from rootless.plan.network.mode import Network

SLIRP = "slirp4netns"
PASTA = "pasta"
PACKAGES = {SLIRP: "slirp4netns", PASTA: "passt"}
INTERFACE = "tap0"
"""The network interface that slirp4netns creates."""
API_SOCKET = "network.sock"
"""In the working directory of slirp4netns."""
MTU = 65520
"""Bytes: the largest MTU that both helpers accept. The cost of a packet does not depend on its size."""
SLIRP_ADDRESS6, SLIRP_GATEWAY6 = "fd00::100", "fd00::2"
_SLIRP_CIDR = "10.0.2.0/24"
_SLIRP_LONGEST = 25
_LIBSLIRP_FIXED = (
    ((4, 9, 2), "CVE-2026-9539"),
    ((4, 9, 5), "CVE-2026-95507"),
    ((4, 9, 5), "CVE-2026-95508"),
    ((4, 9, 6), "CVE-2026-120830"),  # the newest release, 4.9.5, is affected
)
"""Vulnerabilities that let a hostile container attack slirp4netns, each with the first unaffected libslirp."""
PASTA_SINCE = 20240821
"""The first pasta with --map-host-loopback. Slightly older ones already report errors with --foreground."""
_PASTA_DNS = "169.254.1.1"
"""As in podman: a link-local address hides no other host."""
_SLIRP_DEFAULTS = {
    "allow_host_loopback": "false",
    "cidr": _SLIRP_CIDR,
    "enable_ipv6": "true",
    "mtu": str(MTU),
    "outbound_addr": "",
    "outbound_addr6": "",
    "port_handler": SLIRP,
}
"""Options and defaults, named as in podman."""
_PASTA_DEFAULTS = (
    # spellings of an option, and the arguments if none is given: they keep the host's loopback closed
    (("--map-gw", "--no-map-gw", "--map-host-loopback"), ("--no-map-gw",)),
    (("-T", "--tcp-ns"), ("-T", "none")),
    (("-U", "--udp-ns"), ("-U", "none")),
)


def tun_fix(host: HostNetwork) -> str:
    """Return how root lets users open /dev/net/tun."""
    return "run, as root: " + " && ".join(device_commands("tun", "/dev/net/tun", is_closed=host.tun_is_closed))


def device_commands(module: str, device: str, *, is_closed: bool, sudo: str = "") -> tuple[str, str]:
    """Return root's commands that let users open a device, now and after the next boot.

    Args:
        module: its kernel module, and its name in udev(7).
        device: its path.
        is_closed: the device is there, and its permissions forbid it.
        sudo: precedes the words that only root may run.
    """
    if is_closed:
        rule = f'KERNEL=="{module}", MODE="0666"'
        return f"echo '{rule}' | {sudo}tee /etc/udev/rules.d/90-rootless-{module}.rules", f"{sudo}chmod 666 {device}"
    return f"echo {module} | {sudo}tee /etc/modules-load.d/rootless-{module}.conf", f"{sudo}modprobe {module}"


class Helper:
    """A helper to start.

    Attributes:
        name: SLIRP or PASTA.
        program: its path.
        arguments: the options that follow from the caller's flags; command() returns the whole command line.
        addresses: the container's addresses, if they are known in advance.
        gateway: the address at which the container reaches the host's loopback; empty if that is closed.
        dns: the address at which the helper forwards DNS queries; empty if it does not.
        ipv6: the last address is an IPv6 address, which the netns holder sets instead of the helper.
    """

    __slots__ = ("addresses", "arguments", "dns", "gateway", "ipv6", "name", "program")

    def __init__(self, name: str, program: str, arguments: Sequence[str]) -> None:
        self.name = name
        self.program = program
        self.arguments = list(arguments)
        self.addresses: list[str] = []
        self.gateway = ""
        self.dns = ""
        self.ipv6 = False


def libslirp_flaws(version: str) -> str:
    """Describe the known vulnerabilities of a version of libslirp; empty if there are none."""
    numbers = tuple(int(number) for number in version.split(".") if number.isascii() and number.isdigit())
    if not numbers:
        return "the version of its libslirp is unknown"
    found = ", ".join(name for fixed, name in _LIBSLIRP_FIXED if numbers < fixed)
    return f"libslirp {version} is open to {found}, unless your distribution has patched it" if found else ""


def pasta_date(output: str) -> int:
    """Return the date in the output of `pasta --version` as a number such as 20240821; 0 without one."""
    for word in output.replace("_", "").replace("~git", " ").replace("^", " ").split():
        digits = word.partition(".")[0]
        if len(digits) == len(str(PASTA_SINCE)) and digits.isascii() and digits.isdigit():
            return int(digits)
    return 0


def helper(name: str, options: str, host: HostNetwork) -> Helper:
    """Return an installed helper with the options that follow its name in --network.

    Raises:
        RootlessError: `RL-NETWORK`: slirp4netns has no such option, or not this value.
    """
    return _slirp(options, host) if name == SLIRP else _pasta(options, host)


def _slirp(options: str, host: HostNetwork) -> Helper:
    given = dict(_SLIRP_DEFAULTS)
    for text in options.split(",") if options else ():
        key, _, value = text.partition("=")
        if key not in given or not value:
            raise _refused(text, f"write one of {', '.join(given)}, each with =VALUE", "unknown option")
        given[key] = value
    if given["port_handler"] != SLIRP:
        raise _refused(f"port_handler={given['port_handler']}", "leave it out: only slirp4netns is supported")
    if not (given["mtu"].isascii() and given["mtu"].isdigit() and 0 < int(given["mtu"][:6]) <= MTU + 1):
        raise _refused(f"mtu={given['mtu']}", f"write a number of bytes up to {MTU + 1}")
    made = Helper(SLIRP, host.programs[SLIRP], [f"--mtu={given['mtu']}"])
    gateway, made.dns, own = _addresses(given["cidr"])
    made.addresses.append(own)
    if given["cidr"] != _SLIRP_CIDR:
        made.arguments.append(f"--cidr={given['cidr']}")
    if _is_true("allow_host_loopback", given):
        made.gateway = gateway
    else:
        made.arguments.append("--disable-host-loopback")
    if _is_true("enable_ipv6", given) and host.ipv6:
        made.ipv6 = True
        made.addresses.append(SLIRP_ADDRESS6)
        made.arguments.append("--enable-ipv6")
    outbound = ("outbound_addr", "outbound_addr6")
    made.arguments += [f"--{key.replace('_', '-')}={given[key]}" for key in outbound if given[key]]
    return made


def _is_true(key: str, given: dict[str, str]) -> bool:
    if given[key] not in ("true", "false"):
        raise _refused(f"{key}={given[key]}", "write true or false")
    return given[key] == "true"


def _addresses(cidr: str) -> tuple[str, str, str]:
    """Return the addresses of the gateway, the DNS server and the container in a network of slirp4netns."""
    if cidr == _SLIRP_CIDR:
        return "10.0.2.2", "10.0.2.3", "10.0.2.100"
    from ipaddress import IPv4Network

    try:
        network = IPv4Network(cidr)
    except ValueError as error:
        raise _refused(f"cidr={cidr}", f"write a network such as 10.0.2.0/24: {error}") from None
    if not 0 < network.prefixlen <= _SLIRP_LONGEST:
        raise _refused(f"cidr={cidr}", "use a network of 128 addresses or more")
    gateway, dns, own = (str(network[number]) for number in (2, 3, 100))
    return gateway, dns, own


def _refused(text: str, fix: str, cause: str = "invalid value") -> RootlessError:
    return RootlessError(f"--network slirp4netns:{text}", cause=cause, fix=fix, code="RL-NETWORK")


def _pasta(options: str, host: HostNetwork) -> Helper:
    """Return pasta with the given options, and with podman's defaults otherwise."""
    given = options.split(",") if options else []
    made = Helper(PASTA, host.programs[PASTA], given)
    for spellings, default in _PASTA_DEFAULTS:
        if not any(text.startswith(spellings) for text in given):
            made.arguments += default
    if "--map-gw" in made.arguments:
        made.arguments.remove("--map-gw")  # podman's name for pasta's default
    loopback = _value(given, "--map-host-loopback")
    made.gateway = "" if loopback == "none" else loopback
    made.dns = _value(given, "--dns-forward")
    if not made.dns and any("." in server for server in host.resolv_conf_entry("nameserver")[:1]):
        # pasta forwards to the host's first server only, and only within an address family
        made.dns = _PASTA_DNS
        made.arguments += ["--dns-forward", _PASTA_DNS]
    return made


def _value(given: Sequence[str], option: str) -> str:
    """Return the value of an option, from `option=value` or the next argument; empty without the option."""
    for word, following in zip(given, [*given[1:], ""], strict=False):
        name, _, value = word.partition("=")
        if name == option:
            return value or following
    return ""


# --- Command lines ----------------------------------------------------------------------------------------------------


def command(helper: Helper, network: Network) -> list[str]:
    """Return the command line of a helper that serves a network.

    Names in braces stand for numbers that are known at run time. `{holder}` and `{launcher}` are the pids of the netns
    holder and the launcher. The others are descriptors: `{end}` is a pipe that hangs up when the holder ends, `{ready}`
    a pipe on which the helper reports that it is ready, `{user}` the user namespace.
    """
    words = _slirp_words(helper, network) if helper.name == SLIRP else _pasta_words(helper, network)
    return [helper.program, *words]


def _slirp_words(helper: Helper, network: Network) -> list[str]:
    words = [*helper.arguments, "--enable-seccomp", "--ready-fd={ready}", "--exit-fd={end}"]
    if network.sandbox:
        words.append("--enable-sandbox")
    if helper.addresses:
        words.append("--configure")
    if network.ports or not helper.addresses:
        words.append(f"--api-socket={API_SOCKET}")
    return [*words, "{holder}", INTERFACE]


def _pasta_words(helper: Helper, network: Network) -> list[str]:
    # with --foreground pasta keeps its standard streams: 0 is the network namespace, 1 hangs up when the holder ends, 2
    # receives pasta's pid when it is ready
    words = ["--foreground", "--no-netns-quit", "--config-net", "--quiet", *helper.arguments, "--pid=/proc/self/fd/2"]
    for protocol, flag in (("tcp", "-t"), ("udp", "-u")):
        specs = [
            f"{port.address}/{port.outside}:{port.inside}" if port.address else f"{port.outside}:{port.inside}"
            for port in network.ports
            if port.protocol == protocol
        ]
        if not specs and not any(word.startswith((flag, f"--{protocol}-ports")) for word in helper.arguments):
            specs = ["none"]
        for spec in specs:
            words += [flag, spec]
    words += ["--runas", "0:0"] if network.as_root else []
    # as root pasta drops most capabilities and then may not open the launcher's descriptors: ptrace(2)
    by_number = network.as_root or network.by_number
    user = "/proc/{holder}/ns/user" if by_number else "/proc/{launcher}/fd/{user}"
    words += [f"--userns={user}"] if network.owned else ["--netns-only"]
    return [*words, "--netns=/proc/self/fd/0"]
