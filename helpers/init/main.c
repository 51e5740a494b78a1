/* The executor: reads a Plan, runs its operations in order, becomes the container's program.
 *
 *     init KEEP TRACE REPORT REPLY START CONSOLE CGROUP PROCESS AGENT DIRECTORY PLAN
 *
 * Every argument but KEEP and TRACE (0 or 1) is a descriptor number, -1 where there is none. It is started by
 * rootless/launch/spawn.py from a sealed memfd, so that nobody in the container can write to what /proc/self/exe names
 * (CVE-2019-5736). */
#include "init.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>

static const char *load(int plan_fd)
{
    struct stat st;
    void *bytes;

    if (fstat(plan_fd, &st) < 0 || st.st_size <= 0)
        return "it cannot be read";
    /* shared: what forget() clears must not come back from the file by MADV_DONTNEED */
    bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, plan_fd, 0);
    if (bytes == MAP_FAILED)
        return "it cannot be read";
    /* only this mapping may still become writable: what plan_decode() has checked stays as it is */
    if (fcntl(plan_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return "it cannot be sealed";
    close(plan_fd);
    self.plan_start = bytes;
    self.plan_size = (size_t)st.st_size;
    return plan_decode(bytes, self.plan_size, &self.plan);
}

static int number(const char *text) { return (int)strtol(text, NULL, 10); }

static const char *begin(char **argv)
{
    enum { KEEP, TRACE, FIRST, COUNT = sizeof self.given / sizeof *self.given };
    const char *broken;
    const struct op *last;

    self.keep = number(argv[KEEP]);
    self.trace = argv[TRACE][0] == '1';
    for (int i = 0; i < COUNT; i++)
        self.given[i] = number(argv[FIRST + i]);
    shared->report_fd = self.report_fd;
    broken = load(number(argv[FIRST + COUNT]));
    for (int i = 0; i < COUNT; i++)
        if (self.given[i] >= 0 && (unsigned)self.given[i] < 3 + (unsigned)self.keep)
            broken = "a descriptor is meant both for the container and for the protocol";
    /* engines leave descriptors open by accident */
    if (!broken && close_all_but(self.given, COUNT) < 0)
        broken = "close_range failed";
    /* now, while no seccomp filter can forbid it */
    last = broken ? NULL : &self.plan.ops[self.plan.count - 1];
    if (last && last->code == OP_EXEC && !lay_out(bytes(last, 0), bytes(last, 1), &self.exec))
        broken = "there is no memory for its arguments";
    self.proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return broken;
}

int main(int argc, char **argv)
{
    const char *broken;

    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (argc != 12 || shared == MAP_FAILED)
        return 2;
    prctl(PR_SET_NAME, "rootless:init");
    broken = begin(argv + 1);
    if (broken) {
        failed_with("the plan", EINVAL);
        explain_failure(broken, strlen(broken));
        report_failure(MESSAGE_FAILED, -1, EINVAL);
        return 1;
    }
    while (self.position < self.plan.count) {
        int error = run_next();

        if (error < 0) {
            report_failure(MESSAGE_FAILED, (int)self.position, -error);
            leave(1);
        }
    }
    return 0;
}
