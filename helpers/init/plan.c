/* Reading a Plan: the only input of this program that is not the kernel's. */
#include "plan.h"

#include <string.h>
#include <sys/mman.h>

const char *plan_decode(const void *bytes, size_t length, struct plan *plan)
{
    static const uint8_t lists[OP_END] = {LISTS};
    const char *wrong = layout_decode(bytes, length, PLAN_MAGIC, lists, OP_END, plan);

    for (uint32_t i = 0; !wrong && i < plan->count; i++) {
        const struct op *op = &plan->ops[i];

        if (op->on_error > ON_ERROR_IGNORE || op->alternatives >= plan->count - i)
            wrong = "an operation has impossible alternatives";
        else if (op->code == OP_EXEC && i != plan->count - 1)
            wrong = "an operation follows the program";
    }
    return wrong;
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
