/* An entry of the cache of Plans as it lies in memory: what rootless/plan/encode.py writes of cached_ops.py.
 *
 *     header | steps, 88 bytes each | strings
 *
 * A string is an offset and a length into the last part, and a NUL follows it; a list has a NUL after every element. */
#pragma once

#include "cached.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct step {
    uint16_t code;
    uint8_t unused[6];
    int64_t n[CACHED_NUMBERS];
    struct {
        uint32_t offset, length;
    } s[CACHED_STRINGS];
};
_Static_assert(sizeof(struct step) == 88, "rootless/plan/encode.py packs 88 bytes");

struct entry {
    const struct step *steps;
    uint32_t count;
    const char *strings;
};

/* entry.c */
bool entry_decode(const char *bytes, size_t size, struct entry *entry); /* an accepted one is not read out of bounds */
bool entry_find(char **words, const char *script, struct entry *entry);
bool entry_holds(const struct entry *entry); /* nothing has changed that its Plan was computed from */
void entry_forget(void);

static inline const char *text_of(const struct entry *entry, const struct step *step, int which)
{
    return entry->strings + step->s[which].offset;
}
