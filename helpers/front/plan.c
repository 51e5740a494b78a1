/* The executor's Plan of an entry, with values in its holes: the secret of a keyring, the command of `exec`. */
#include "entry.h"

#include <locale.h>
#include <stdlib.h>

struct filled {
    struct plan_header header;
    char bytes[CACHED_LARGEST + (1 << 17) /* for a command */];
};

static size_t size_of(const struct filled *plan)
{
    return sizeof plan->header + plan->header.ops * sizeof(struct op) + plan->header.string_bytes;
}

/* Appends a word to the strings of a Plan, as the next one of a list. A NUL follows, which the next word replaces. */
static bool add_word(struct filled *plan, struct place *list, const char *directory, const char *word)
{
    char *next = (char *)plan + size_of(plan);
    size_t left = sizeof *plan - size_of(plan);
    int length = snprintf(next, left, "%s%s%s", directory, *directory ? "/" : "", word);

    if (length < 0 || (size_t)length + 2 > left)
        return false;
    next[length + 1] = '\0';
    plan->header.string_bytes += (uint32_t)length + 1;
    list->length += (uint32_t)length + 1;
    return true;
}

/* Where the program may be (rootless/plan/process/identity.py), its name, the arguments. */
static bool add_command(struct filled *plan, const struct plan *entry, const struct op *step, char **command)
{
    const char *program = *command, *directory = text_of(entry, step, 2), *end = directory + step->s[2].length;
    struct op *steps = (void *)plan->bytes;
    struct place *candidates, *args;

    if (!*program || step->n[1] < 0 || step->n[1] >= plan->header.ops || step->n[2] < 0 ||
        step->n[2] >= plan->header.ops)
        return false;
    candidates = steps[step->n[1]].s;
    *candidates = (struct place){.offset = plan->header.string_bytes};
    if (strchr(program, '/') && !add_word(plan, candidates, "", program))
        return false;
    for (; !strchr(program, '/') && directory < end; directory += strlen(directory) + 1)
        if (!add_word(plan, candidates, directory, program))
            return false;
    if (!candidates->length)
        return false;
    args = steps[step->n[2]].s;
    *args = (struct place){.offset = ++plan->header.string_bytes};
    candidates[1] = (struct place){.offset = args->offset, .length = (uint32_t)strlen(program)};
    setlocale(LC_CTYPE, "C.UTF-8");
    for (char **word = command; *word; word++)
        if (mbstowcs(NULL, *word, 0) == (size_t)-1 /* Python refuses it */ || !add_word(plan, args, "", *word))
            return false;
    plan->header.string_bytes++;
    return true;
}

const void *entry_plan(const struct plan *entry, const struct op *step, const char *secret, char **command,
                       size_t *size)
{
    static _Alignas(struct op) struct filled plan;
    size_t length = strlen(secret);
    bool has_secret = step->n[0] >= 0;

    *size = step->s[1].length;
    memcpy(&plan, text_of(entry, step, 1), *size); /* less than a whole entry */
    if (*size < sizeof plan.header || *size != size_of(&plan))
        return NULL;
    if (has_secret && (step->n[0] < (int64_t)sizeof plan.header || (uint64_t)step->n[0] + length > *size))
        return NULL;
    if (has_secret)
        memcpy((char *)&plan + step->n[0], secret, length);
    if (command && !add_command(&plan, entry, step, command))
        return NULL;
    *size = size_of(&plan);
    return &plan;
}
