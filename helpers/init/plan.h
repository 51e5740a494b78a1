/* A Plan as it lies in memory: what rootless/plan/encode.py writes, and nothing that needs parsing.
 *
 *     header | operations, 88 bytes each | strings
 *
 * Integers are in the machine's own byte order. A string is an offset and a length into the last part; a NUL follows
 * each, so it can go to the kernel as it is. A list of strings is one string with a NUL after every element. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PLAN_NUMBERS = 6, PLAN_STRINGS = 4 };

/* rootless/plan/ops.py declares the same codes, with the meaning of each argument. */
enum opcode {
    OP_JOIN = 1,
    OP_NEW_USER = 2,
    OP_UNSHARE = 3,
    OP_BECOME = 4,
    OP_PROC_WRITE = 5,
    OP_NON_DUMPABLE = 6,
    OP_FORK = 7,
    OP_SESSION = 8,
    OP_KEYRING = 9,
    OP_HOSTNAME = 10,
    OP_DOMAINNAME = 11,
    OP_LINK_UP = 12,
    OP_PROPAGATION = 13,
    OP_ROOT = 14,
    OP_MOUNT = 15,
    OP_BIND = 16,
    OP_REMOUNT = 17,
    OP_DEVICE_BIND = 18,
    OP_DEVICE_NODE = 19,
    OP_SYMLINK = 20,
    OP_CONSOLE = 21,
    OP_MASK = 22,
    OP_READONLY_PATH = 23,
    OP_MKDIR = 24,
    OP_ROOT_ATTRIBUTES = 25,
    OP_PIVOT = 26,
    OP_CHROOT = 27,
    OP_RLIMIT = 28,
    OP_STDIO_OWNER = 29,
    OP_BOUNDING = 30,
    OP_GROUPS = 31,
    OP_IDS = 32,
    OP_CAPABILITIES = 33,
    OP_AMBIENT = 34,
    OP_UMASK = 35,
    OP_CHDIR = 36,
    OP_HOME = 37,
    OP_COMMAND = 38,
    OP_READY = 39,
    OP_WAIT_START = 40,
    OP_NO_NEW_PRIVS = 41,
    OP_SECCOMP = 42,
    OP_EXEC = 43,
    OP_FILES_AS = 44,
    OP_RUNTIME_HOOKS = 45,
    OP_HOOK_OUTPUT = 46,
    OP_HOOK = 47,
    OP_LISTENER = 48,
    OP_JOIN_PROCESS = 49,
    OP_CPU_AFFINITY = 50,
    OP_TERMINAL = 51,
    OP_SCHEDULER = 52,
    OP_IO_PRIORITY = 53,
    OP_MEMORY_POLICY = 54,
    OP_PERSONALITY = 55,
    OP_ID_MAP = 56,
    OP_TREE = 57,
    OP_NOTIFY_SOCKET = 58,
    OP_PASS_NOTIFY = 59,
    OP_CGROUP_OWNER = 60,
    OP_ADDRESS6 = 61,
    OP_NETLINK = 62,
    OP_AWAIT_END = 63,
    OP_AWAIT_LINKS = 64,
    OP_DEVICE_RULES = 65,
    OP_PROC_OPEN = 66,
    OP_JOIN_EARLY = 67,
    OP_IDENTIFY = 68,
    OP_UNNAMED_KEYRING = 69,
    OP_NO_KEYS = 70,
    OP_DUMPABLE = 71,
    OP_PASS_NAMESPACES = 72,
    OP_END, /* one more than the last */
};

enum on_error {
    ON_ERROR_FAIL = 0,        /* report, stop */
    ON_ERROR_SKIP_ABSENT = 1, /* ENOENT and ENOTDIR are no failure */
    ON_ERROR_ELSE = 2,        /* report as skipped, go on with the `alternatives` that follow; without an error leave them out */
};

struct text {
    uint32_t offset, length;
};

struct op {
    uint16_t code;
    uint8_t on_error;
    uint8_t alternatives;
    uint32_t reserved;
    int64_t n[PLAN_NUMBERS];
    struct text s[PLAN_STRINGS];
};

struct plan_header {
    char magic[8];
    uint32_t ops, string_bytes;
};

#define PLAN_MAGIC "RLPLAN01"

struct plan {
    const struct op *ops;
    uint32_t count;
    const char *strings;
};

/* Checks every count, offset, code and terminator of `bytes`; an accepted plan cannot be read out of bounds.
 * Returns NULL, or what is wrong. */
const char *plan_decode(const void *bytes, size_t length, struct plan *plan);

static inline const char *plan_text(const struct plan *plan, const struct op *op, int which)
{
    return plan->strings + op->s[which].offset;
}

/* The element after `item` in the list that is string `which`; the first one for NULL; NULL after the last. */
const char *plan_next(const struct plan *plan, const struct op *op, int which, const char *item);
