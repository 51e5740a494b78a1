/* The one error convention: 0, or a negative errno with the name of the call that failed. */
#include "init.h"

#include <errno.h>
#include <string.h>

struct failure failure;

int failed_with(const char *call, int error)
{
    failure.call = call;
    failure.length = 0;
    return -error;
}

int failed(const char *call) { return failed_with(call, errno); }

void explain_failure(const void *text, size_t length)
{
    failure.length = length < sizeof failure.text ? length : sizeof failure.text;
    memcpy(failure.text, text, failure.length);
}
