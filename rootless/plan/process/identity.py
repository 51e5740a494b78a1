"""The program and its credentials: config.md "Process" and "Linux Process"; capabilities(7), credentials(7)."""

from __future__ import annotations

from sys import byteorder

from rootless.errors import RootlessError, place
from rootless.lazy import lazy
from rootless.linux import CAP_SYS_ADMIN, CAP_SYS_RESOURCE, CAPABILITIES, RLIMITS
from rootless.plan import ops
from rootless.plan.idmaps import SINGLE, id_number, kept_ids
from rootless.plan.ops import Op
from rootless.plan.process import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from rootless.plan.context import Context
    from rootless.plan.process.pretence import filter_beside as pretence_beside
    from rootless.plan.process.seccomp import SeccompFilter
else:
    pretence_beside = lazy("rootless.plan.process.pretence", "filter_beside")

_UNLIMITED = -1
_GID_SIZE = 4
"""Bytes, as setgroups(2) takes them."""
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_SYSCTL_OWNERS = (
    # prefix below /proc/sys, and the namespace that owns the setting
    ("net/", "network"),
    ("kernel/msg", "ipc"),
    ("kernel/sem", "ipc"),
    ("kernel/shm", "ipc"),
    ("kernel/auto_msgmni", "ipc"),
    ("fs/mqueue/", "ipc"),
    ("kernel/domainname", "uts"),
    ("kernel/hostname", "uts"),
    ("user/", "user"),
)
_NAMES = {"kernel/hostname": ops.HOSTNAME, "kernel/domainname": ops.DOMAINNAME}
"""Settings that a system call sets."""


def choose_user(context: Context) -> None:
    """Choose the user and the group of the program.

    Raises:
        RootlessError: `RL-IDMAP-UNMAPPED`: the container does not have such an id.
    """
    facts = context.facts
    request = context.request
    if request.userns == "keep-id" and context.uid == 0 and not request.has_user:
        context.uid, context.gid = kept_ids(facts, request.kept_ids)
        context.adapted("process.user", f"the program runs as {context.uid}:{context.gid}, as you: --userns keep-id")
    for key, number, known in (("uid", context.uid, context.has_uid), ("gid", context.gid, context.has_gid)):
        if known(number):
            continue
        lines = (context.uid_map if key == "uid" else context.gid_map) if context.gains_capabilities else ()
        mapped = ", ".join(f"{inside} to {inside + count - 1}" for inside, _, count in lines)
        raise RootlessError(
            f"cannot run as {key} {number}",
            cause=f"the container has no such id; it has {mapped or 'those of the caller'}",
            where=f"process.user.{key}" if context.process.get("user") else "process.user",
            fix="choose one of these, or "
            + (
                "create the container with more"
                if context.running
                else f"have the administrator give {facts.user} more with usermod --add-sub{key}s"
            ),
            code="RL-IDMAP-UNMAPPED",
        )


def oom_score(context: Context) -> list[Op]:
    """Return the operation for process.oomScoreAdj.

    To lower it needs CAP_SYS_RESOURCE over the host, unless the value stays above the last one that a process with
    CAP_SYS_RESOURCE has set (proc_pid_oom_score_adj(5)). So without CAP_SYS_RESOURCE a failure is no error.
    """
    wanted = context.process.get("oomScoreAdj")
    facts = context.facts
    if wanted is None:
        return []
    only_tried = wanted < facts.oom_score_adj and not facts.may(CAP_SYS_RESOURCE)
    on_error = ops.ELSE if only_tried else ops.FAIL
    return [Op(ops.PROC_WRITE, "self/oom_score_adj", str(wanted), where="process.oomScoreAdj", on_error=on_error)]


def sysctls(context: Context) -> list[Op]:
    """Return the operations for linux.sysctl.

    Raises:
        RootlessError: `RL-SYSCTL-SHARED`: the container shares a setting with the host; `RL-CONFIG`: invalid name.
    """
    return [_sysctl(context, name, value) for name, value in (context.linux.get("sysctl") or {}).items()]


def _sysctl(context: Context, name: str, value: str) -> Op:
    where = place("linux", "sysctl", name)
    # sysctl(8): if the first separator is /, a . is part of a name, such as that of the interface eth0.1
    path = name.replace(".", "/") if "." in name.partition("/")[0] else name
    owner = next((namespace for prefix, namespace in _SYSCTL_OWNERS if path.startswith(prefix)), "")
    cause = fix = ""
    code = "RL-SYSCTL-SHARED"
    if not all(part.strip(".") for part in path.split("/")):
        code = "RL-CONFIG"
        cause, fix = "it is not the name of a sysctl", "write a name such as net.ipv4.ip_forward"
    elif not owner:
        cause, fix = "it applies to the whole host", "remove it, or have the administrator set it"
    elif owner not in context.created and owner not in context.joined:
        cause = f"the container shares the host's {owner} namespace"
        fix = f'add {{"type": "{owner}"}} to linux.namespaces'
    if cause:
        raise RootlessError(f"cannot set {name}", cause=cause, where=where, fix=fix, code=code)
    if path in _NAMES:
        # by system call: a write fails if /proc/sys is read-only or covered
        return Op(_NAMES[path], value.partition("\n")[0], where=where)
    if path == "net/ipv4/ping_group_range":
        value = _existing_groups(context, value, where)
    return Op(ops.PROC_WRITE, f"sys/{path}", value, where=where)


def _existing_groups(context: Context, value: str, where: str) -> str:
    """Return a ping_group_range reduced to groups of the container: the kernel refuses ends that are not mapped."""
    low, high = (id_number(text) for text in " ".join(value.split()).partition(" ")[::2])
    if min(low, high) < 0 or (context.has_gid(low) and context.has_gid(high)):
        return value
    parts = [(max(low, first), min(high, first + count - 1)) for first, _, count in context.gid_map]
    parts = [part for part in parts if part[0] <= part[1]]
    if not parts:
        return value
    existing = f"{min(first for first, _ in parts)} {max(last for _, last in parts)}"
    context.adapted(where, f"set to {existing}: the container has no other groups")
    return existing


def identity(context: Context, seccomp_filter: SeccompFilter | None) -> list[Op]:
    """Return the operations that set the program's credentials and working directory."""
    process = context.process
    effective, permitted, inheritable, bounding, ambient = _capability_sets(context)
    if _needs_rights_for_seccomp(context):
        # Without no_new_privs, loading a filter needs CAP_SYS_ADMIN (seccomp(2)). execve(2) computes the sets from the
        # bounding, inheritable and ambient ones (capabilities(7)), so the program does not inherit it. The filter
        # can therefore come last and need not allow the system calls of earlier operations.
        effective |= 1 << CAP_SYS_ADMIN
        permitted |= 1 << CAP_SYS_ADMIN
    umask = (process.get("user") or {}).get("umask")
    # tried twice, as in runc: some directories only the container's root may enter (/root, for another user), others
    # only the program's user (a volume on NFS)
    enter, enter_later = (Op(ops.CHDIR, early, process["cwd"], where="process.cwd") for early in (1, 0))
    return [
        *_rare(context, seccomp_filter),
        # pipes of a user whom the container does not have keep their owner
        Op(ops.STDIO_OWNER, context.uid, where="process.user", on_error=ops.IGNORE),
        Op(ops.CLOSE_FDS),
        enter,
        Op(ops.BOUNDING, bounding, where="process.capabilities.bounding"),
        *_groups(context),
        Op(ops.IDS, context.uid, context.gid, where="process.user"),
        Op(ops.CAPABILITIES, effective, permitted, inheritable, where="process.capabilities"),
        Op(ops.AMBIENT, ambient, where="process.capabilities.ambient"),
        Op(ops.UMASK, 0o022 if umask is None else umask, where="process.user.umask"),
        enter_later,
    ]


def _rare(context: Context, seccomp_filter: SeccompFilter | None) -> list[Op]:
    """Return operations that few bundles need, and most of which need the caller's privileges."""
    plan: list[Op] = []
    process, linux = context.process, context.linux
    if process.get("apparmorProfile") or process.get("selinuxLabel"):
        from rootless.plan.process import labels

        plan += labels.of_program(context)
    if seccomp_filter and seccomp_filter.listener:
        plan.append(Op(ops.NON_DUMPABLE))  # the process keeps the connection to the agent
    if process.get("scheduler") or process.get("ioPriority") or linux.get("memoryPolicy") or linux.get("personality"):
        from rootless.plan.process import scheduling

        plan += scheduling.operations(context)
    return plan


def find(context: Context) -> list[Op]:
    """Return the operations that look up the program as its user, so that `create` can report that it is missing.

    Raises:
        RootlessError: `RL-EXEC-NOT-FOUND`: the name is empty, or PATH has no absolute directory.
    """
    environment = _environment(context)
    program = context.process["args"][0]
    candidates = [program]
    if "/" not in program:
        candidates = [f"{directory}/{program}" for directory in program_directories(environment)] if program else []
    if not candidates:
        raise RootlessError(
            f'exec: "{program}"',
            cause="executable file not found in $PATH",
            where="process.args[0]",
            fix="write the path of a program, or set PATH in process.env",
            code="RL-EXEC-NOT-FOUND",
        )
    plan = [Op(ops.COMMAND, candidates, program, where="process.args[0]")]
    if "HOME" not in environment:
        plan.insert(0, Op(ops.HOME, context.uid, "/etc/passwd", "/", where="process.env"))
    return plan


def program_directories(environment: Mapping[str, str]) -> list[str]:
    """Return the directories that have programs; `environment` has the entries by name."""
    path = environment.get("PATH", f"PATH={_DEFAULT_PATH}").partition("=")[2]
    return [directory for directory in path.split(":") if directory.startswith("/")]


def execute(context: Context, limits: list[Op]) -> tuple[list[Op], SeccompFilter | None]:
    """Return the operations after `start` (limits, seccomp, program), and the filter for the launcher to compile."""
    process = context.process
    plan = list(limits)
    if process.get("noNewPrivileges"):
        plan.append(Op(ops.NO_NEW_PRIVS, where="process.noNewPrivileges"))
    wanted = None
    if context.linux.get("seccomp"):
        annotations = context.config.get("annotations") or {}
        receiver = annotations.get(seccomp.RECEIVER) or context.request.seccomp_receiver
        wanted = seccomp.filter_of(context.linux["seccomp"], context.facts.machine, receiver)
        wanted.knows_all = seccomp.KNOWS_ALL in annotations
    if _pretends(context):
        context.pretence = pretence_beside(wanted, context.facts.machine)
        plan.append(Op(ops.PRETEND, context.pretence.flags, b"", on_error=ops.ELSE))
    if wanted:
        plan.append(Op(ops.SECCOMP, wanted.flags, wanted.hook_flags, b"", where="linux.seccomp"))
    if context.request.init:
        if _needs_rights_for_seccomp(context):  # the reaper executes nothing that would take them away
            plan.append(Op(ops.CAPABILITIES, *_capability_sets(context)[:3], where="process.capabilities"))
        plan.append(Op(ops.INIT, int(context.request.attended)))
    plan.append(Op(ops.EXEC, process["args"], list(_environment(context).values()), where="process.args"))
    return plan, wanted


def _pretends(context: Context) -> bool:
    """Whether changes of owner and of user only seem to succeed, because the container has a single ID."""
    if not context.request.fake_chown:
        return False
    if not context.running:
        if not context.maps or context.maps.source != SINGLE:
            return False
        context.warn_ignored(
            "",
            "with a single ID, changes of owner and of user only seem to succeed",
            "give --fake-chown=false to let them fail",
        )
    return True


def _environment(context: Context) -> dict[str, str]:
    """Return the entries of the program's environment by name. Of several with one name the last counts, as in runc.

    Programs disagree about duplicates: getenv(3) returns the first, a shell passes on the last. An empty HOME counts as
    unset.
    """
    entries = (*(context.process.get("env") or ()), *context.request.environment)
    named = {entry.partition("=")[0]: entry for entry in entries}
    if named.get("HOME") in ("HOME", "HOME="):
        del named["HOME"]
    return named


def _needs_rights_for_seccomp(context: Context) -> bool:
    return bool(context.linux.get("seccomp") or context.pretence) and not context.process.get("noNewPrivileges")


def _groups(context: Context) -> list[Op]:
    wanted = (context.process.get("user") or {}).get("additionalGids") or ()
    where = "process.user.additionalGids"
    if (context.config.get("annotations") or {}).get("run.oci.keep_original_groups", "0") != "0":
        return []
    if context.setgroups_denied:
        if any(gid != context.gid for gid in wanted):
            context.warn_ignored(where, "the caller's groups are kept: setgroups is denied in this user namespace")
        return []
    mapped = [gid for gid in wanted if context.has_gid(gid)]
    if len(mapped) < len(wanted):
        missing = ", ".join(str(gid) for gid in wanted if gid not in mapped)
        context.warn_ignored(where, f"left out: the container has no group id {missing}")
    # whether a joined user namespace denies setgroups(2) is unknown until it is tried
    on_error = ops.ELSE if "user" in context.joined else ops.FAIL
    ids = b"".join([gid.to_bytes(_GID_SIZE, byteorder) for gid in mapped])
    return [Op(ops.GROUPS, ",".join(str(gid) for gid in mapped), ids, where=where, on_error=on_error)]


def _capability_sets(context: Context) -> tuple[int, ...]:
    """Return effective, permitted, inheritable, bounding, ambient as bit masks, without unavailable capabilities."""
    if context.capability_sets:
        return context.capability_sets
    wanted = context.process.get("capabilities") or {}
    facts = context.facts
    available = (1 << facts.last_capability + 1) - 1
    if not context.gains_capabilities:
        available &= facts.bounding
    sets = []
    for name in ("effective", "permitted", "inheritable", "bounding", "ambient"):
        mask = 0
        for index, capability in enumerate(wanted.get(name) or ()):
            where = f"process.capabilities.{name}[{index}]"
            number = _capability_number(capability)
            if number < 0:
                context.warn_ignored(where, f"{capability} is not a known capability")
            elif not available >> number & 1:
                context.warn_ignored(where, f"{capability} is unavailable: the caller or the kernel does not have it")
            else:
                mask |= 1 << number
        sets.append(mask)
    effective, permitted, inheritable, bounding, ambient = sets
    # a capability that cannot be granted is a warning, not an error (config.md); the kernel would refuse the whole set
    effective = _granted(context, "effective", effective, permitted, "permitted")
    inheritable = _granted(context, "inheritable", inheritable, bounding, "bounding")
    ambient = _granted(context, "ambient", ambient, permitted & inheritable, "permitted and inheritable")
    context.capability_sets = effective, permitted, inheritable, bounding, ambient
    return context.capability_sets


def _granted(context: Context, name: str, mask: int, most: int, sets: str) -> int:
    """Return `mask` without the capabilities that are not in `most` (capset(2); capabilities(7), "Ambient")."""
    if mask & ~most:
        # at execve, root gets its bounding set regardless of the ambient set
        note = context.adapted if name == "ambient" and context.uid == 0 else context.warn_ignored
        names = " ".join("CAP_" + word for number, word in enumerate(CAPABILITIES) if mask & ~most & 1 << number)
        note(f"process.capabilities.{name}", f"{names} cannot be {name} without being {sets}")
    return mask & most


def _capability_number(name: str) -> int:
    bare = name.upper().removeprefix("CAP_")
    return CAPABILITIES.index(bare) if bare in CAPABILITIES else -1


def rlimits(context: Context) -> tuple[list[Op], list[Op]]:
    """Return the operations that raise hard limits, and those that set limits just before the program.

    Only a process with privileges over the host can raise a hard limit, so that comes first. A low RLIMIT_NOFILE or
    RLIMIT_FSIZE comes last: earlier it would break the set-up.
    """
    facts = context.facts
    raised: list[Op] = []
    set_later: list[Op] = []
    for index, limit in enumerate(context.process.get("rlimits") or ()):
        where = f"process.rlimits[{index}]"
        number = RLIMITS.index(limit["type"].removeprefix("RLIMIT_"))
        soft, hard = _signed(limit["soft"]), _signed(limit["hard"])
        ceiling = facts.hard_limits.get(number, _UNLIMITED)
        if _above(hard, ceiling) and not facts.may(CAP_SYS_RESOURCE):
            context.warn_ignored(
                where,
                f"{limit['type']} is {ceiling}, the caller's own hard limit: only root may raise it to {limit['hard']}",
            )
            hard = ceiling
            soft = ceiling if _above(soft, ceiling) else soft
        is_raised = _above(hard, ceiling)
        if is_raised:
            raised.append(Op(ops.RLIMIT, number, hard, hard, where=where))
        if soft != hard or not is_raised:
            set_later.append(Op(ops.RLIMIT, number, soft, hard, where=where))
    return raised, set_later


def _signed(limit: int) -> int:
    """Return an unsigned 64-bit limit as the signed number of a Plan; RLIM_INFINITY is -1."""
    return limit - (1 << 64) if limit >> 63 else limit


def _above(limit: int, ceiling: int) -> bool:
    return ceiling != _UNLIMITED and (limit == _UNLIMITED or limit > ceiling)
