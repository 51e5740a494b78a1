/* The one error convention: 0, or a negative errno with the name of the call that failed. */
#include "init.h"

struct shared *shared;

static int fail(const char *call, size_t named, int error)
{
    memcpy(shared->detail, call, named);
    shared->detail[named] = '\0';
    shared->length = (uint32_t)named + 1;
    shared->error = error; /* last: a hook's process may be killed before */
    return -error;
}

int failed_with(const char *call, int error) { return fail(call, strlen(call), error); }

int failed(const char *call) { return failed_with(call, errno); }

int failed_in(const char *expression) { return fail(expression, strcspn(expression, "("), errno); }

void explain_failure(const void *text, size_t length)
{
    size_t room = sizeof shared->detail - shared->length;

    length = length < room ? length : room;
    memcpy(shared->detail + shared->length, text, length);
    shared->length += (uint32_t)length;
}
