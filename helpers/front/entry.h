/* An entry of the cache of Plans, in the layout of the executor's: its operations are those of cached_ops.py. */
#pragma once

#include "../init/layout.h"
#include "cached.h"
#include "front.h"

/* What `run` and `create` are asked for besides their command line. */
struct config {
    char text[CACHED_LARGEST];
    size_t size;
    struct stat identity;
};

/* entry.c */
bool entry_decode(const char *bytes, size_t size, struct plan *entry); /* an accepted one is not read out of bounds */
/* For the first words of a command line, and the container that `exec` is about, or NULL. */
bool entry_find(char **words, size_t count, const char *script, const struct container *container, struct plan *entry);
const struct config *entry_config(void);
bool entry_holds(const struct plan *entry); /* nothing has changed that its Plan was computed from */
bool entry_is_file(const struct op *step, const struct stat *st); /* the one of an IDENTITY or a BEGIN_IMAGE */
void entry_forget(bool is_said); /* and by entry_option(), whether its warnings have been said */

/* holes.c */
bool holes_is_identifier(const char *text); /* and nothing else */
uint64_t holes_hash(uint64_t so_far, const char *text, bool whole);
uint64_t holes_sum(const char *text);
bool holes_take(const struct plan *entry, const struct op *step);
bool holes_match(const char *before, const char *now);
bool holes_match_config(const struct plan *entry, const struct op *step, const char *config, size_t size);
bool holes_fill(char *strings, size_t size);

/* plan.c: the bytes for the executor, until the next call, or NULL */
const void *entry_plan(const struct plan *entry, const struct op *step, const char *secret, char **command,
                       size_t *size);

static inline const char *text_of(const struct plan *entry, const struct op *step, int which)
{
    return entry->strings + step->s[which].offset;
}
