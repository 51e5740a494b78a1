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

    if (op->s[SCHEDULER_ATTRIBUTES].length < sizeof size)
        return failed_with("sched_setattr", EINVAL);
    __builtin_memcpy(&size, text(op, SCHEDULER_ATTRIBUTES), sizeof size);
    if (size != op->s[SCHEDULER_ATTRIBUTES].length)
        return failed_with("sched_setattr", EINVAL);
    return syscall(SYS_sched_setattr, 0, text(op, SCHEDULER_ATTRIBUTES), 0) < 0 ? failed("sched_setattr") : 0;
}

int op_io_priority(const struct op *op)
{
    enum { IOPRIO_WHO_PROCESS = 1 };

    return syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, (int)op->n[IO_PRIORITY_VALUE]) < 0 ? failed("ioprio_set") : 0;
}

int op_memory_policy(const struct op *op)
{
    size_t bits = (size_t)op->s[MEMORY_POLICY_NODES].length * 8; /* the kernel reads all but the last of them */

    return syscall(SYS_set_mempolicy, (int)op->n[MEMORY_POLICY_MODE], bits ? text(op, MEMORY_POLICY_NODES) : NULL,
                   bits) < 0
               ? failed("set_mempolicy")
               : 0;
}

int op_personality(const struct op *op)
{
    return personality((unsigned long)op->n[PERSONALITY_DOMAIN]) < 0 ? failed("personality") : 0;
}
