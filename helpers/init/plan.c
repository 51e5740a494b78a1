/* Reading a Plan: the only input of this program that is not the kernel's. */
#include "plan.h"

#include <string.h>
#include <sys/mman.h>

bool plan_is_list(const struct op *op, int which)
{
    static const uint8_t lists[OP_END] = {LISTS};

    return lists[op->code] >> which & 1;
}

const char *plan_decode(const void *bytes, size_t length, struct plan *plan)
{
    const struct plan_header *header = bytes;

    if (length < sizeof *header || memcmp(header->magic, PLAN_MAGIC, sizeof header->magic) != 0)
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

        if (op->code == 0 || op->code >= OP_END)
            return "it has an unknown operation";
        if (op->on_error > ON_ERROR_IGNORE || op->alternatives >= plan->count - i)
            return "an operation has impossible alternatives";
        if (op->code == OP_EXEC && i != plan->count - 1)
            return "an operation follows the program";
        for (int which = 0; which < PLAN_STRINGS; which++) {
            uint64_t end = (uint64_t)op->s[which].offset + op->s[which].length;

            if (end >= header->string_bytes || plan->strings[end] != '\0')
                return "a string is out of bounds";
            if (plan_is_list(op, which) && op->s[which].length > 0 && plan->strings[end - 1] != '\0')
                return "a list is not terminated";
        }
    }
    return NULL;
}

const char *next_item(struct bytes list, const char *item)
{
    const char *next = item ? item + strlen(item) + 1 : list.at;

    return next < list.at + list.length ? next : NULL;
}

static char **fill(struct bytes list, char **items)
{
    for (const char *item = next_item(list, NULL); item; item = next_item(list, item))
        *items++ = (char *)(uintptr_t)item;
    return items;
}

bool lay_out(struct bytes args, struct bytes env, struct arguments *to)
{
    /* no list has more elements than bytes; HOME and two ends */
    size_t size = (args.length + env.length + 3) * sizeof(char *);

    to->args = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (to->args == MAP_FAILED)
        return false;
    to->env = fill(args, to->args) + 1;
    to->env_end = fill(env, to->env);
    return true;
}
