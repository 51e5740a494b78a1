/* The front door reads any bytes as a status record within their bounds: one run of libFuzzer for each input. */
#include "front.h"

#include <stdlib.h>

/* Reads what decode() has accepted: the sanitizers watch the bounds. */
static size_t read_all(const struct container *container)
{
    size_t sum = strlen(container->strings[RECORD_ID]) + strlen(container->strings[RECORD_CGROUP]);
    const char *parent = container->strings[RECORD_PARENTS];

    for (; parent < container->strings[RECORD_BEFORE]; parent += strlen(parent) + 1)
        sum += strlen(parent);
    for (int i = RECORD_BEFORE; i < RECORD_STRINGS; i++)
        for (uint32_t at = 0; at < container->record->lengths[i]; at++)
            sum += (unsigned char)container->strings[i][at];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct container container = {0};
    char *copy = malloc(size ? size : 1); /* with its exact size, and aligned */
    volatile size_t sum = 0;

    if (!copy)
        return -1;
    memcpy(copy, bytes, size);
    if (decode(copy, size, &container))
        sum = read_all(&container);
    (void)sum;
    free(copy);
    return 0;
}
