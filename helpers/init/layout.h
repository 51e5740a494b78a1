/* How operations lie in memory, and how the executor reports: what Python and the static programs exchange.
 *
 *     header | operations, 88 bytes each | strings
 *
 * rootless/plan/encode.py writes it, for the executor a Plan and for the front door an entry of its cache, each with
 * a magic of its own; nothing of it needs parsing. Integers are in the machine's own byte order. A string is an offset
 * and a length into the last part; a NUL follows each, so it can go to the kernel as it is. A list of strings is one
 * string with a NUL after every element. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { PLAN_NUMBERS = 6, PLAN_STRINGS = 4 };

struct place {
    uint32_t offset, length;
};

struct op {
    uint16_t code;
    uint8_t on_error;
    uint8_t alternatives;
    uint32_t reserved;
    int64_t n[PLAN_NUMBERS];
    struct place s[PLAN_STRINGS];
};
_Static_assert(sizeof(struct op) == 88, "rootless/plan/encode.py packs 88 bytes");

struct plan_header {
    char magic[8];
    uint32_t ops, string_bytes;
};
_Static_assert(sizeof(struct plan_header) == 16, "rootless/plan/encode.py packs 16 bytes");

struct plan {
    const struct op *ops;
    uint32_t count;
    const char *strings;
};

/* What rootless/launch/protocol.py reads: this, and `length` bytes of the detail. */
struct report {
    uint32_t type;
    int32_t value; /* a pid, or the index of an operation; -1: no operation */
    int32_t error; /* errno */
    uint32_t length;
    char detail[2048];
};

/* Checks every count, offset, code and terminator of `bytes`; an accepted plan cannot be read out of bounds. `lists`
 * has a bit for each string that is a list, for each of `end` codes. Returns NULL, or what is wrong. */
static inline const char *layout_decode(const void *bytes, size_t length, const char *magic, const uint8_t *lists,
                                        uint16_t end, struct plan *plan)
{
    const struct plan_header *header = bytes;

    if (length < sizeof *header || memcmp(header->magic, magic, sizeof header->magic) != 0)
        return "not a plan of this version";
    /* both are 32 bits wide: the sum cannot overflow 64 */
    if ((uint64_t)length != sizeof *header + (uint64_t)header->ops * sizeof(struct op) + header->string_bytes)
        return "the sizes in its header do not add up";
    plan->ops = (const struct op *)(header + 1);
    plan->count = header->ops;
    plan->strings = (const char *)(plan->ops + header->ops);
    if (header->ops == 0 || header->string_bytes == 0)
        return "it is empty";

    for (uint32_t i = 0; i < plan->count; i++) {
        const struct op *op = &plan->ops[i];

        if (op->code == 0 || op->code >= end)
            return "it has an unknown operation";
        for (int which = 0; which < PLAN_STRINGS; which++) {
            uint64_t after = (uint64_t)op->s[which].offset + op->s[which].length;

            if (after >= header->string_bytes || plan->strings[after] != '\0')
                return "a string is out of bounds";
            if ((lists[op->code] >> which & 1) && op->s[which].length > 0 && plan->strings[after - 1] != '\0')
                return "a list is not terminated";
        }
    }
    return NULL;
}
