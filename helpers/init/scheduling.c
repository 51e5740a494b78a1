/* How the program is scheduled, and where its memory comes from. What is set here outlives execve. */
#include "init.h"

#include <errno.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The attributes are a struct sched_attr, whose first field is its size. */
int op_scheduler(const struct op *op)
{
    uint32_t size;

    if (op->s[1].length < sizeof size)
        return failed_with("sched_setattr", EINVAL);
    __builtin_memcpy(&size, text(op, 1), sizeof size);
    if (size != op->s[1].length)
        return failed_with("sched_setattr", EINVAL);
    return syscall(SYS_sched_setattr, 0, text(op, 1), 0) < 0 ? failed("sched_setattr") : 0;
}

int op_io_priority(const struct op *op)
{
    enum { IOPRIO_WHO_PROCESS = 1 };

    return syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, (int)op->n[0]) < 0 ? failed("ioprio_set") : 0;
}

int op_memory_policy(const struct op *op)
{
    size_t bits = (size_t)op->s[1].length * 8; /* the kernel reads all but the last of them */

    return syscall(SYS_set_mempolicy, (int)op->n[0], bits ? text(op, 1) : NULL, bits) < 0 ? failed("set_mempolicy") : 0;
}

int op_personality(const struct op *op)
{
    return personality((unsigned long)op->n[0]) < 0 ? failed("personality") : 0;
}
