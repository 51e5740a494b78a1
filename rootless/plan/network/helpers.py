"""The programs of the host that serve a network, with their options: slirp4netns(1), pasta(1)."""

from __future__ import annotations

from rootless.errors import RootlessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless.host.host_network import HostNetwork

SLIRP = "slirp4netns"
PASTA = "pasta"
PACKAGES = {SLIRP: "slirp4netns", PASTA: "passt"}
TUN_FIX = "modprobe tun, and let users open it (chmod 666 /dev/net/tun)"
LINK = "tap0"
"""The link that slirp4netns makes."""
MTU = 65520
"""The largest that both helpers take: a packet costs the same whatever its length."""
SLIRP_ADDRESS6, SLIRP_GATEWAY6 = "fd00::100", "fd00::2"
_SLIRP_CIDR = "10.0.2.0/24"
_SLIRP_LONGEST = 25
_LIBSLIRP_FIXED = (
    ((4, 9, 2), "CVE-2026-9539"),
    ((4, 9, 5), "CVE-2026-95507"),
    ((4, 9, 5), "CVE-2026-95508"),
    ((4, 9, 6), "CVE-2026-120830"),  # 4.9.5 is the newest that is known, and has it
)
"""What a hostile container can do to slirp4netns, and the first version of libslirp without that."""
PASTA_SINCE = 20240821
"""The first pasta with --map-host-loopback; since a little before that it says why it fails, in the foreground too."""
_PASTA_DNS = "169.254.1.1"
"""podman's choice: link-local, so that it hides nobody."""
_SLIRP_DEFAULTS = {
    "allow_host_loopback": "false",
    "cidr": _SLIRP_CIDR,
    "enable_ipv6": "true",
    "mtu": str(MTU),
    "outbound_addr": "",
    "outbound_addr6": "",
    "port_handler": SLIRP,
}
"""As podman spells them."""
_PASTA_DEFAULTS = (
    # options that say it, and what is said for a caller who does not: the host's loopback stays closed
    (("--map-gw", "--no-map-gw", "--map-host-loopback"), ("--no-map-gw",)),
    (("-T", "--tcp-ns"), ("-T", "none")),
    (("-U", "--udp-ns"), ("-U", "none")),
)


class Helper:
    """One helper, as it would be started.

    Attributes:
        name: SLIRP or PASTA.
        program: its path.
        arguments: options of its own.
        addresses: the container's, where they are known before.
        gateway: the address by which the container reaches the host's loopback; empty when it is closed.
        dns: the address that it forwards questions for names from; empty when it does not.
        ipv6: the last of the addresses is one of IPv6, which the helper does not set.
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

    def __str__(self) -> str:
        """Return how it is called, but for what is known only then."""
        return " ".join((self.program, *self.arguments))


def libslirp_flaws(version: str) -> str:
    """Return what is known to be wrong with a version of libslirp, in words; nothing where nothing is."""
    numbers = tuple(int(number) for number in version.split(".") if number.isascii() and number.isdigit())
    if not numbers:
        return "nobody knows the version of its libslirp"
    found = ", ".join(name for fixed, name in _LIBSLIRP_FIXED if numbers < fixed)
    return f"libslirp {version} is open to {found}, unless your distribution has patched it" if found else ""


def pasta_date(said: str) -> int:
    """Return the date in what `pasta --version` says, such as 20240821; 0 where it says none."""
    for word in said.replace("_", "").replace("~git", " ").replace("^", " ").split():
        digits = word.partition(".")[0]
        if len(digits) == len(str(PASTA_SINCE)) and digits.isascii() and digits.isdigit():
            return int(digits)
    return 0


def helper(name: str, options: str, host: HostNetwork) -> Helper:
    """Return a helper that is installed, with what stands behind its name in --network.

    Raises:
        RootlessError: `RL-NETWORK`: it has no such option.
    """
    return _slirp(options, host) if name == SLIRP else _pasta(options, host)


def _slirp(options: str, host: HostNetwork) -> Helper:
    given = dict(_SLIRP_DEFAULTS)
    for text in options.split(",") if options else ():
        key, _, value = text.partition("=")
        if key not in given or not value:
            raise _refused(text, f"the options are {', '.join(given)}, each with =VALUE", "not an option of it")
        given[key] = value
    if given["port_handler"] != SLIRP:
        raise _refused(f"port_handler={given['port_handler']}", "leave it out: slirp4netns forwards the ports itself")
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
    """Return what slirp4netns makes of a network: the addresses of its gateway and of its name server, and ours."""
    if cidr == _SLIRP_CIDR:
        return "10.0.2.2", "10.0.2.3", "10.0.2.100"
    from ipaddress import IPv4Network

    try:
        network = IPv4Network(cidr)
    except ValueError as error:
        raise _refused(f"cidr={cidr}", f"write it as 10.0.2.0/24: {error}") from None
    if not 0 < network.prefixlen <= _SLIRP_LONGEST:
        raise _refused(f"cidr={cidr}", "use a network of 128 addresses or more")
    gateway, dns, own = (str(network[number]) for number in (2, 3, 100))
    return gateway, dns, own


def _refused(text: str, fix: str, cause: str = "not a value that it takes") -> RootlessError:
    return RootlessError(f"--network slirp4netns:{text}", cause=cause, fix=fix, code="RL-NETWORK")


def _pasta(options: str, host: HostNetwork) -> Helper:
    """Return pasta; what is given is passed on, and what is not gets podman's defaults."""
    given = options.split(",") if options else []
    made = Helper(PASTA, host.programs[PASTA], given)
    for spellings, default in _PASTA_DEFAULTS:
        if not any(text.startswith(spellings) for text in given):
            made.arguments += default
    if "--map-gw" in made.arguments:
        made.arguments.remove("--map-gw")  # podman's word for pasta's own default
    loopback = _value(given, "--map-host-loopback")
    made.gateway = "" if loopback == "none" else loopback
    made.dns = _value(given, "--dns-forward")
    if not made.dns and any("." in server for server in host.said("nameserver")[:1]):
        # pasta forwards to the first server, if that one is of the same family
        made.dns = _PASTA_DNS
        made.arguments += ["--dns-forward", _PASTA_DNS]
    return made


def _value(given: Sequence[str], option: str) -> str:
    """Return the value of an option, which is the next word or follows after an equals sign; empty without it."""
    for word, following in zip(given, [*given[1:], ""], strict=False):
        name, _, value = word.partition("=")
        if name == option:
            return value or following
    return ""
