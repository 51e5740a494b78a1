/* The Plan that the executor runs. */
#pragma once

#include "layout.h"
#include "ops.h"

#define PLAN_MAGIC "RLPLAN01"

/* Returns NULL, or what is wrong; an accepted plan cannot be read out of bounds. */
const char *plan_decode(const void *bytes, size_t length, struct plan *plan);

static inline struct bytes plan_bytes(const struct plan *plan, const struct op *op, int which)
{
    return (struct bytes){plan->strings + op->s[which].offset, op->s[which].length};
}

/* The numbers of an operation that changes a mount. */
static inline const struct change *change_of(const struct op *op) { return (const void *)op->n; }

/* The element after `item` in a list; the first one for NULL; NULL after the last. */
const char *next_item(struct bytes list, const char *item);

/* What execve(2) takes; at the end of the environment is room for HOME. */
struct arguments {
    char **args, **env, **env_end;
};

/* Sets where the elements of the lists are, in memory of its own, or returns false: there is none. */
bool lay_out(struct bytes args, struct bytes env, struct arguments *to);
