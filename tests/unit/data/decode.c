/* Reads Plans from standard input, each after its length in 32 bits, and answers each with a line: what plan_decode()
 * has against it, or "accepted" and how many list elements and bytes of text a reader finds. For sanitizers: everything
 * that an accepted Plan lets the executor read is read. */
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t lists[OP_END] = {LISTS};

static void read_all(const struct plan *plan)
{
    unsigned long elements = 0, bytes = 0;

    for (uint32_t i = 0; i < plan->count; i++)
        for (int which = 0; which < PLAN_STRINGS; which++) {
            const struct op *op = &plan->ops[i];
            bool list = lists[op->code] >> which & 1;

            for (uint32_t at = 0; at <= op->s[which].length; at++)
                bytes += plan_bytes(plan, op, which).at[at] != '\0';
            for (const char *item = NULL; list && (item = next_item(plan_bytes(plan, op, which), item));)
                elements += 1 + 0 * strlen(item);
        }
    printf("accepted %lu %lu\n", elements, bytes);
}

int main(void)
{
    uint32_t length;

    while (fread(&length, sizeof length, 1, stdin) == 1) {
        struct plan plan;
        void *bytes = malloc(length);
        const char *broken;

        if (!bytes || fread(bytes, 1, length, stdin) != length)
            return 2;
        broken = plan_decode(bytes, length, &plan);
        if (broken)
            puts(broken);
        else
            read_all(&plan);
        fflush(stdout);
        free(bytes);
    }
    return 0;
}
