/* How operations are carried out, in the Plan's order: by the executor, and by the process of a hook. */
#include "init.h"

#include <linux/capability.h>
#include <time.h>

static bool absent(int error) { return error == -ENOENT || error == -ENOTDIR; }

static void access_files_as(uid_t uid, gid_t gid)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    syscall(SYS_setfsgid, gid);
    syscall(SYS_setfsuid, uid);
    /* setfsuid(2) takes away what capabilities there are over files */
    if (syscall(SYS_capget, &header, data) == 0) {
        for (int half = 0; half < 2; half++)
            data[half].effective = data[half].permitted;
        syscall(SYS_capset, &header, data);
    }
    stay_hidden();
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

/* FILES_AS: what is refused is tried once more as the one whom it names. An operation may begin or end the trace. */
static int run_traced(const struct op *op)
{
    static const bool may_retry[OP_END] = {MAY_RETRY};
    uint64_t start = self.trace ? now() : 0, taken;
    int error = run(op);

    if (error == -EACCES && self.files_uid >= 0 && may_retry[op->code]) {
        access_files_as((uid_t)self.files_uid, (gid_t)self.files_gid);
        error = run(op);
        access_files_as(geteuid(), getegid());
    }
    taken = self.trace && start ? now() - start : 0;
    if (self.trace && start)
        report(MESSAGE_PROGRESS, (int)self.position, -error, &taken, sizeof taken, false);
    return error;
}

int run_next(void)
{
    const struct op *op = &self.plan.ops[self.position];
    int error = run_traced(op);

    if (error == 0 && op->on_error == ON_ERROR_ELSE)
        self.position += op->alternatives;
    if (error < 0 && op->on_error == ON_ERROR_ELSE && !self.in_hook) /* the program's own try reports it */
        report_failure(MESSAGE_SKIPPED, (int)self.position, -error);
    if (error < 0 && (op->on_error == ON_ERROR_FAIL || (op->on_error == ON_ERROR_SKIP_ABSENT && !absent(error))))
        return error;
    self.position++;
    return 0;
}
