/* A fuzzer for everything that the executor reads of a Plan before its first system call, linked with all of the
 * executor's own files. What an accepted Plan lets it read is read to the last byte, so that a sanitizer sees it.
 *
 * Plain mutation hardly ever keeps the sizes in the header right, and would only exercise their check: so most inputs
 * are mended after they were changed. test_executor.py builds and runs it, with `mmap` meaning the one below. */
#include "init.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile size_t sink;

static void expect(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

/* Reads a string as a list, which is safe whether it is one or not; returns how many elements there are. */
static size_t read_list(const struct op *op, int which)
{
    const char *start = text(op, which), *end = start + op->s[which].length;
    size_t count = 0, ends = end > start && end[-1] != '\0';

    for (const char *at = start; at < end; at++)
        ends += *at == '\0';
    for (const char *item = NULL; (item = next_item(bytes(op, which), item)); count++) {
        expect(item >= start && item < end, "an element lies in its list");
        sink += strlen(item);
    }
    expect(count == ends, "a NUL ends every element");
    return count;
}

/* What main() and the operations do with each before they call the kernel. */
static void read_operations(void)
{
    for (uint32_t i = 0; i < self.plan.count; i++) {
        const struct op *op = &self.plan.ops[i];

        expect(op->code > 0 && op->code < OP_END, "there is a function for every operation");
        expect(op->code != OP_EXEC || i == self.plan.count - 1, "EXEC is the last one");
        expect((uint64_t)i + op->alternatives < self.plan.count, "the alternatives are operations");
        for (int which = 0; which < PLAN_STRINGS; which++) {
            read_list(op, which);
            expect(text(op, which)[op->s[which].length] == '\0', "a NUL follows every string");
            sink += strlen(text(op, which));
        }
    }
}

/* lay_out() gets its memory here: mmap() would round the size up, and hide what is written behind it. */
void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    bool memory = flags == (MAP_PRIVATE | MAP_ANONYMOUS) && fd == -1 && offset == 0;

    expect(!address && memory && protection == (PROT_READ | PROT_WRITE), "nothing is mapped but memory");
    return calloc(1, length);
}

/* The arguments of execve are the elements of the two lists, with room for HOME and an end after each. */
static void read_arguments(void)
{
    const struct op *op = &self.plan.ops[self.plan.count - 1];
    size_t args = 0, env = 0;

    struct arguments laid;

    if (op->code != OP_EXEC)
        return;
    expect(lay_out(bytes(op, 0), bytes(op, 1), &laid), "there is memory for the arguments");
    *laid.env_end = (char *)"HOME=/"; /* as op_exec() does */
    for (; laid.args[args]; args++)
        sink += strlen(laid.args[args]);
    for (; laid.env[env]; env++)
        sink += strlen(laid.env[env]);
    expect(args == read_list(op, 0), "all arguments are there");
    expect(env == read_list(op, 1) + 1, "the whole environment is there");
    free(laid.args);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (plan_decode(data, size, &self.plan) != NULL)
        return 0;
    read_operations();
    read_arguments();
    return 0;
}

/* Makes of any bytes what has the shape of a Plan: sizes that add up, a NUL at the end, codes that exist. Places of
 * strings are wrapped around the end or not, as the seed says. */
static size_t mend(uint8_t *data, size_t size, unsigned seed)
{
    struct plan_header *header = (struct plan_header *)data;
    struct op *ops = (struct op *)(header + 1);
    size_t most_ops, string_bytes;

    if (size < sizeof *header + sizeof *ops + 1)
        return size;
    most_ops = (size - sizeof *header - 1) / sizeof *ops;
    memcpy(header->magic, PLAN_MAGIC, sizeof header->magic);
    if (header->ops == 0 || header->ops > most_ops)
        header->ops = 1 + header->ops % (uint32_t)most_ops;
    string_bytes = size - sizeof *header - header->ops * sizeof *ops;
    header->string_bytes = (uint32_t)string_bytes;
    data[size - 1] = '\0';
    if (seed & 1)
        return size;
    for (uint32_t i = 0; i < header->ops; i++) {
        uint32_t left = header->ops - i;

        if (ops[i].code == 0 || ops[i].code >= OP_END || (ops[i].code == OP_EXEC && left > 1))
            ops[i].code = (uint16_t)(1 + ops[i].code % (OP_EXEC - 1));
        ops[i].on_error %= ON_ERROR_IGNORE + 1;
        ops[i].alternatives = (uint8_t)(ops[i].alternatives % left);
        for (int which = 0; which < PLAN_STRINGS; which++) {
            struct place *place = &ops[i].s[which];
            const char *strings = (const char *)data + size - string_bytes;

            if (place->offset >= string_bytes)
                place->offset %= (uint32_t)string_bytes;
            if (seed & 2 || (uint64_t)place->offset + place->length >= string_bytes)
                place->length = (uint32_t)strlen(strings + place->offset);
        }
    }
    return size;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, most);
    return seed % 8 == 0 ? size : mend(data, size, seed >> 3);
}
