/* An entry of the cache of Plans as it lies in memory: what rootless/plan/encode.py writes of cached_ops.py.
 *
 *     header | steps, 88 bytes each | strings
 *
 * A string is an offset and a length into the last part, and a NUL follows it; a list has a NUL after every element. */
#pragma once

#include "cached.h"
#include "front.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct header {
    char magic[8];
    uint32_t steps, string_bytes;
};

struct place {
    uint32_t offset, length;
};

struct step {
    uint16_t code;
    uint8_t unused[6];
    int64_t n[CACHED_NUMBERS];
    struct place s[CACHED_STRINGS];
};
_Static_assert(sizeof(struct step) == 88, "rootless/plan/encode.py packs 88 bytes");

struct entry {
    const struct step *steps;
    uint32_t count;
    const char *strings;
};

/* entry.c */
bool entry_decode(const char *bytes, size_t size, struct entry *entry); /* an accepted one is not read out of bounds */
/* For the first words of a command line, and the container that `exec` is about, or NULL. */
bool entry_find(char **words, size_t count, const char *script, const struct container *container, struct entry *entry);
bool entry_holds(const struct entry *entry); /* nothing has changed that its Plan was computed from */
void entry_forget(void);

/* plan.c: the bytes for the executor, until the next call, or NULL */
const void *entry_plan(const struct entry *entry, const struct step *step, const char *secret, char **command,
                       size_t *size);

static inline const char *text_of(const struct entry *entry, const struct step *step, int which)
{
    return entry->strings + step->s[which].offset;
}
