/* The front door reads any bytes as an entry of the cache of Plans within their bounds: one run of libFuzzer for each
 * input. Plain mutation hardly ever keeps the sizes in the header right, so they are set right after most changes. */
#include "front.h"
#include "entry.h"

#include <stdlib.h>

size_t LLVMFuzzerMutate(uint8_t *bytes, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t most, unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t size, size_t most, unsigned seed)
{
    struct plan_header header;

    size = LLVMFuzzerMutate(bytes, size, most);
    if (seed % 8 == 0 || size < sizeof header)
        return size;
    memcpy(&header, bytes, sizeof header);
    memcpy(header.magic, CACHED_MAGIC, sizeof header.magic);
    header.ops %= (uint32_t)((size - sizeof header) / sizeof(struct op) + 1);
    header.string_bytes = (uint32_t)(size - sizeof header - header.ops * sizeof(struct op));
    memcpy(bytes, &header, sizeof header);
    bytes[size - 1] = 0;
    return size;
}

/* Reads what entry_decode() has accepted: the sanitizers watch the bounds. */
static size_t read_all(const struct plan *entry)
{
    size_t sum = 0;

    for (uint32_t i = 0; i < entry->count; i++)
        for (int which = 0; which < PLAN_STRINGS; which++) {
            const char *text = text_of(entry, &entry->ops[i], which);

            sum += strlen(text);
            for (uint32_t at = 0; at <= entry->ops[i].s[which].length; at++)
                sum += (unsigned char)text[at];
        }
    return sum;
}

/* Puts values into the holes of a Plan, and reads the result. */
static size_t fill(const struct plan *entry, const struct op *step)
{
    char *commands[][3] = {{"sh", "-c", NULL}, {"/bin/true", NULL}, {"", NULL}};
    size_t sum = 0, size;

    for (int i = -1; i < 3; i++) {
        const unsigned char *plan = entry_plan(entry, step, "0123456789abcdef", i < 0 ? NULL : commands[i], &size);

        for (size_t at = 0; plan && at < size; at++)
            sum += plan[at];
    }
    return sum;
}

/* Compares an entry with a request, and puts other identifiers into it, in any case. */
static bool meet(const struct plan *entry, char *strings, size_t size)
{
    static const char *const words[] = {"create", "/c/0123456789abcdef/userdata", "0123456789abcdef", "0123456789ab"};
    static const char config[] = "{\"env\":[\"A=1\",\"H=fedcba987654\"],\"mounts\":[{},{\"s\":\"0123456789abcdef\"}]}";
    bool is_same = false;

    if (!holes_take(entry, entry->ops + 1))
        return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        is_same |= holes_match(text_of(entry, entry->ops, (int)i), words[i]);
    is_same |= holes_match_config(entry, entry->ops + 1, config, sizeof config - 1);
    return holes_fill(strings, size) && is_same;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct plan entry;
    char *copy = malloc(size ? size : 1); /* with its exact size, and aligned */
    volatile size_t sum = 0;

    if (!copy)
        return -1;
    memcpy(copy, bytes, size);
    if (entry_decode(copy, size, &entry)) {
        char *strings = copy + (entry.strings - copy);

        sum = read_all(&entry);
        sum += meet(&entry, strings, size - (size_t)(strings - copy));
        sum += read_all(&entry);
        sum += entry_holds(&entry);
        for (uint32_t i = 0; i < entry.count; i++)
            if (entry.ops[i].code == CACHED_SPAWN)
                sum += fill(&entry, &entry.ops[i]);
    }
    (void)sum;
    free(copy);
    return 0;
}
