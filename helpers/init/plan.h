/* A Plan as it lies in memory: what rootless/plan/encode.py writes, and nothing that needs parsing.
 *
 *     header | operations, 88 bytes each | strings
 *
 * Integers are in the machine's own byte order. A string is an offset and a length into the last part; a NUL follows
 * each, so it can go to the kernel as it is. A list of strings is one string with a NUL after every element. */
#pragma once

#include "ops.h"

struct place {
    uint32_t offset, length;
};

struct op {
    uint16_t code;
    uint8_t on_error;
    uint8_t alternatives;
    uint32_t reserved;
    union {
        int64_t n[PLAN_NUMBERS];
        struct change change;
    };
    struct place s[PLAN_STRINGS];
};
_Static_assert(sizeof(struct op) == 88, "rootless/plan/encode.py packs 88 bytes");

struct plan_header {
    char magic[8];
    uint32_t ops, string_bytes;
};
_Static_assert(sizeof(struct plan_header) == 16, "rootless/plan/encode.py packs 16 bytes");

#define PLAN_MAGIC "RLPLAN01"

struct plan {
    const struct op *ops;
    uint32_t count;
    const char *strings;
};

/* Checks every count, offset, code and terminator of `bytes`; an accepted plan cannot be read out of bounds.
 * Returns NULL, or what is wrong. */
const char *plan_decode(const void *bytes, size_t length, struct plan *plan);

bool plan_is_list(const struct op *op, int which);

static inline struct bytes plan_bytes(const struct plan *plan, const struct op *op, int which)
{
    return (struct bytes){plan->strings + op->s[which].offset, op->s[which].length};
}

/* The element after `item` in a list; the first one for NULL; NULL after the last. */
const char *next_item(struct bytes list, const char *item);

/* What execve(2) takes; at the end of the environment is room for HOME. */
struct arguments {
    char **args, **env, **env_end;
};

/* Sets where the elements of the lists are, in memory of its own, or returns false: there is none. */
bool lay_out(struct bytes args, struct bytes env, struct arguments *to);
