"""seccomp filters as BPF programs: from the user's cache when it is there, from libseccomp otherwise.

Generating the program for an engine's default profile takes some 25 ms, reading it from the cache less than 1 ms.
The cache holds one file per filter, ``@seccomp/HASH.bpf``: the program and a checksum, since a file that a crash left
half written must never become a filter. Losing the cache costs only time.

The cache lies beside the state of the containers, not in ~/.cache. An entry becomes a filter without a further check,
so write access to the cache can disable the filters of later containers. Users often bind ~/.cache or $HOME into
containers, and sudo may keep the HOME of another user. Signed entries would not help: their key would lie in $HOME,
readable for such a container, or in the runtime directory, which is as short-lived as the cache.
"""

from __future__ import annotations

import errno
import posix
import sys
from _blake2 import blake2b

from rootless import __version__, files
from rootless.errors import RootlessError
from rootless.plan.process.seccomp import ERRNO, KNOWS_ALL

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Iterable

    from rootless.plan.process.seccomp import Rule, SeccompFilter

_FORMAT = b"1"
"""Changes with each change of the file format, or of the program for the same filter."""

_INSTRUCTION = 8  # struct sock_filter, in bytes
_LONGEST = 4096 * _INSTRUCTION  # BPF_MAXINSNS: seccomp(2) refuses more.
_CHECKSUM = 16  # bytes
_CACHE = "@seccomp"  # Beside the containers; none can have that name.
_NAME = 20  # bytes, in hexadecimal digits
_SUFFIX = ".bpf"
_CACHE_ENTRIES = 64
_DIGITS = frozenset("0123456789")
_HEXADECIMAL = frozenset("0123456789abcdef")

_SONAME = "libseccomp.so.2"
_MULTIARCH = getattr(sys.implementation, "_multiarch", "")
_LIBRARY_DIRECTORIES = (f"/usr/lib/{_MULTIARCH}", "/usr/lib64", "/usr/lib", f"/lib/{_MULTIARCH}", "/lib64", "/lib")
_BINARY_TREE_FROM = 33  # System calls; as runc. libseccomp before 2.5.5 makes wrong trees of none at all.
_ATTR_ACT_BADARCH = 2
_ATTR_CTL_OPTIMIZE = 8
_OPTIMIZE_BINARY_TREE = 2
_UNKNOWN = -1  # __NR_SCMP_ERROR

_ENOSYS = ERRNO | errno.ENOSYS
_X32_BIT = 0x4000_0000  # Of a system call's number on x86_64, and libseccomp's mark for the architecture.
_TOKEN_X32 = 0x4000_003E
_AUDIT_ARCH_X86_64 = 0xC000_003E


def compiled(wanted: SeccompFilter, cache_dir: str) -> bytes:
    """Return the program for the host: an array of struct sock_filter, at most 4096 of them.

    Args:
        wanted: the filter.
        cache_dir: the user's directory for the cache, created if missing; empty for no cache.

    Raises:
        RootlessError: `RL-SECCOMP-LIBRARY` when there is no libseccomp, `RL-SECCOMP` when it refuses the filter.
    """
    library, identity = _library()
    if not cache_dir:
        return _compile(wanted, library)
    content = b"\0".join((_FORMAT, __version__.encode(), identity, wanted.key()))
    name = blake2b(content, digest_size=_NAME).hexdigest() + _SUFFIX
    program = _read(cache_dir, name)
    if not program:
        program = _compile(wanted, library)
        _write(cache_dir, name, program)
    return program


def library() -> str:
    """Return the path of libseccomp."""
    return _library()[0]


def unknown_syscalls(wanted: SeccompFilter) -> list[str]:
    """Return the ignored names in the filter, those that libseccomp does not know, for the log and `explain`.

    This loads libseccomp, which a cached program does not need: call it only if the answer is shown.
    """
    lib = _load(_library()[0])
    names = dict.fromkeys(name for rule in wanted.rules for name in rule.names)
    return [name for name in names if _number(lib, name) == _UNKNOWN]


def refuse_unknown(wanted: SeccompFilter) -> None:
    """Refuse names that libseccomp does not know.

    Raises:
        RootlessError: `RL-SECCOMP`: there are unknown names.
    """
    names = unknown_syscalls(wanted)
    for rule in wanted.rules:
        unknown = [name for name in rule.names if name in names]
        if unknown:
            raise RootlessError(
                f"the seccomp filter names {', '.join(unknown)}",
                cause=f"libseccomp does not know it, and the annotation {KNOWS_ALL} makes that an error",
                where=rule.where,
                fix="remove the name, or the annotation",
                code="RL-SECCOMP",
            )


def library_version() -> str:
    """Return the version of libseccomp, such as 2.6.0.

    Raises:
        RootlessError: `RL-SECCOMP-LIBRARY`: there is none.
    """
    import ctypes

    lib = _load(_library()[0])
    lib.seccomp_version.restype = ctypes.POINTER(ctypes.c_uint * 3)  # major, minor, micro
    return ".".join(str(number) for number in lib.seccomp_version().contents)


def known_architectures(names: Iterable[str]) -> list[str]:
    """Return those of the architectures (SCMP_ARCH_X86_64 …) that libseccomp can make filters for."""
    lib = _load(_library()[0])
    return [name for name in names if lib.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())]


# The cache.


def _opened(cache_dir: str) -> int:
    """Return a descriptor of the cache's directory, the only way to its entries.

    Raises:
        OSError: there is none, or other users can write to it.
    """
    above = files.open_own(cache_dir)
    try:
        return files.open_own(_CACHE, above)
    finally:
        posix.close(above)


def _read(cache_dir: str, name: str) -> bytes:
    """Return the program in a cache file; empty without a trustworthy one."""
    directory = fd = -1
    try:
        directory = _opened(cache_dir)
        flags = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
        fd = posix.open(name, flags, dir_fd=directory)
        status = posix.fstat(fd)
        if status.st_uid != posix.geteuid() or status.st_mode & 0o022:
            return b""
        content = posix.read(fd, _LONGEST + _CHECKSUM + 1)
    except OSError:
        return b""
    finally:
        for each in (fd, directory):
            if each >= 0:
                posix.close(each)
    program, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
    if not program or len(program) > _LONGEST or len(program) % _INSTRUCTION or checksum != _checksum(name, program):
        return b""
    return program


def _write(cache_dir: str, name: str, program: bytes) -> None:
    """Put a program into the cache, whole or not at all; a failure is ignored."""
    try:
        files.make_private(f"{cache_dir}/{_CACHE}")
        directory = _opened(cache_dir)
        try:
            files.put(name, program + _checksum(name, program), 0o600, dir_fd=directory)
            _forget_oldest(directory)
        finally:
            posix.close(directory)
    except OSError:
        return


def _checksum(name: str, program: bytes) -> bytes:
    return blake2b(name.encode() + program, digest_size=_CHECKSUM).digest()


def _forget_oldest(directory: int) -> None:
    """Halve a cache that is too large, least recently used entries first, with left-over temporary files."""
    with posix.scandir(directory) as listing:
        entries = [
            (entry.stat(follow_symlinks=False).st_atime, entry.name) for entry in listing if _is_ours(entry.name)
        ]
    if len(entries) > _CACHE_ENTRIES:
        for _, name in sorted(entries)[: -_CACHE_ENTRIES // 2]:
            try:
                posix.unlink(name, dir_fd=directory)
            except OSError:
                continue


def _is_ours(name: str) -> bool:
    """Whether this is the name of an entry, ``HASH.bpf``, or of one that was being written, ``.HASH.bpf.PID``."""
    if name.startswith("."):
        name, _, writer = name[1:].rpartition(".")
        if not _DIGITS.issuperset(writer):
            return False
    digits = name.removesuffix(_SUFFIX)
    return len(digits) == 2 * _NAME and name != digits and _HEXADECIMAL.issuperset(digits)


# libseccomp.


def _library() -> tuple[str, bytes]:
    """Return the path of libseccomp and a text that changes with each upgrade, without loading it."""
    for directory in _LIBRARY_DIRECTORIES:
        path = f"{directory}/{_SONAME}"
        try:
            status = posix.stat(path)
        except OSError:
            continue
        # Neither inode nor ctime: the nodes of a cluster share a home directory, and each unpacked the same image.
        return path, f"{path} {_target(path)} {status.st_size} {status.st_mtime_ns}".encode()
    return _SONAME, b""


def _target(path: str) -> str:
    try:
        return posix.readlink(path)
    except OSError:
        return ""


def _load(path: str) -> ctypes.CDLL:
    import ctypes

    try:
        lib = ctypes.CDLL(path)
    except OSError as error:
        raise RootlessError(
            "cannot load libseccomp",
            cause=str(error),
            where="linux.seccomp",
            fix='run "sudo apt-get install libseccomp2" (Debian, Ubuntu) or "sudo dnf install libseccomp" (Fedora)',
            code="RL-SECCOMP-LIBRARY",
        ) from error
    context, uint = ctypes.c_void_p, ctypes.c_uint32
    lib.seccomp_init.restype = context
    lib.seccomp_init.argtypes = [uint]
    lib.seccomp_release.argtypes = [context]
    lib.seccomp_attr_set.argtypes = [context, ctypes.c_int, uint]
    lib.seccomp_arch_native.restype = uint
    lib.seccomp_arch_resolve_name.restype = uint
    lib.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    lib.seccomp_arch_add.argtypes = [context, uint]
    lib.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    lib.seccomp_syscall_resolve_name_arch.argtypes = [uint, ctypes.c_char_p]
    lib.seccomp_rule_add_array.argtypes = [context, uint, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p]
    lib.seccomp_export_bpf.argtypes = [context, ctypes.c_int]
    return lib


def _compile(wanted: SeccompFilter, library: str) -> bytes:
    lib = _load(library)
    context = lib.seccomp_init(wanted.default)
    if not context:
        raise _refused("seccomp_init", 0, "linux.seccomp.defaultAction")
    try:
        _check(lib.seccomp_attr_set(context, _ATTR_ACT_BADARCH, wanted.unlisted), "seccomp_attr_set", "")
        tokens = _add_architectures(lib, context, wanted)
        _add_rules(lib, context, wanted)
        program = _export(lib, context)
    finally:
        lib.seccomp_release(context)
    if wanted.newer_are_unknown:
        program = b"".join(_newer_are_unknown(lib, token, wanted.rules) for token in tokens) + program
    if len(program) > _LONGEST:
        cause = f"{len(program) // _INSTRUCTION} instructions, the kernel takes {_LONGEST // _INSTRUCTION}"
        raise RootlessError("seccomp filter too large", cause=cause, where="linux.seccomp", code="RL-SECCOMP")
    return program


def _add_architectures(lib: ctypes.CDLL, context: int, wanted: SeccompFilter) -> list[int]:
    """Add config.json's architectures to the native one, which stays; return libseccomp's tokens for all of them."""
    tokens: list[int] = [lib.seccomp_arch_native()]
    for name in wanted.architectures:
        token = lib.seccomp_arch_resolve_name(name.encode())
        if not token:
            raise _refused(f"architecture {name}", 0, "linux.seccomp.architectures")
        if token not in tokens:
            _check(lib.seccomp_arch_add(context, token), f"architecture {name}", "linux.seccomp.architectures")
            tokens.append(token)
    return tokens


def _add_rules(lib: ctypes.CDLL, context: int, wanted: SeccompFilter) -> None:
    from _struct import pack

    # libseccomp refuses a rule with the default's action, which has no effect.
    rules = [rule for rule in wanted.rules if rule.action != wanted.default]
    if sum(len(rule.names) for rule in rules) >= _BINARY_TREE_FROM:
        # Before 2.5 this fails, which is harmless. The kernel loads a tree in half the time.
        lib.seccomp_attr_set(context, _ATTR_CTL_OPTIMIZE, _OPTIMIZE_BINARY_TREE)
    for rule in rules:
        alternatives = [
            # struct scmp_arg_cmp: unsigned, enum, two of 64 bits.
            (len(conditions), b"".join(pack("@IiQQ", *condition) for condition in conditions))
            for conditions in rule.alternatives
        ]
        for name in rule.names:
            number = _number(lib, name)
            if number == _UNKNOWN:
                continue
            for count, conditions in alternatives:
                code = lib.seccomp_rule_add_array(context, rule.action, number, count, conditions)
                _check(code, f"rule for {name}", rule.where)


def _number(lib: ctypes.CDLL, name: str) -> int:
    """Return the native number, a negative one that libseccomp knows when other architectures have it, or _UNKNOWN."""
    # A NUL would end the name early, and make it another.
    return int(lib.seccomp_syscall_resolve_name(name.encode())) if name.isascii() and name.isidentifier() else _UNKNOWN


def _export(lib: ctypes.CDLL, context: int) -> bytes:
    fd = posix.memfd_create("seccomp")
    try:
        _check(lib.seccomp_export_bpf(context, fd), "seccomp_export_bpf", "linux.seccomp")
        return posix.pread(fd, posix.fstat(fd).st_size, 0)
    finally:
        posix.close(fd)


def _newer_are_unknown(lib: ctypes.CDLL, token: int, rules: tuple[Rule, ...]) -> bytes:
    """Return instructions to put in front of a program: ENOSYS for numbers above every one named, for one architecture.

    They end in a fall-through. BPF jumps are relative, so the program behind them needs no change.
    """
    from _struct import pack

    resolve = lib.seccomp_syscall_resolve_name_arch
    names = {name for rule in rules for name in rule.names if name.isascii() and name.isidentifier()}
    newest = max((resolve(token, name.encode()) for name in names), default=_UNKNOWN)
    if newest < 0:
        return b""
    arch = _AUDIT_ARCH_X86_64 if token == _TOKEN_X32 else token
    load, equal, above, at_least, give = 0x20, 0x15, 0x25, 0x35, 0x06  # linux/bpf_common.h
    body = [(load, 0, 0, 0), (above, 0, 1, newest), (give, 0, 0, _ENOSYS)]
    if token == _AUDIT_ARCH_X86_64:
        # x32 shares the architecture: its numbers, all of them larger, are not this section's business.
        body[1:2] = [(above, 0, 2, newest), (at_least, 1, 0, _X32_BIT)]
    head = [(load, 0, 0, 4), (equal, 0, len(body), arch)]
    return b"".join(pack("@HBBI", *instruction) for instruction in head + body)


def _check(code: int, part: str, where: str) -> None:
    if code < 0:
        raise _refused(part, -code, where)


def _refused(part: str, number: int, where: str) -> RootlessError:
    causes = {
        errno.EEXIST: "an earlier rule gives the same system call another action",
        errno.EDOM: "its byte order is not this machine's",
        0: "libseccomp does not know it, or not on this kernel",
    }
    cause = causes.get(number) or posix.strerror(number)
    return RootlessError("seccomp filter: " + part, cause=cause, where=where, code="RL-SECCOMP")
