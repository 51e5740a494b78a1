/* Process 1 of a container that was asked for with --init: a reaper, whose child is the program (as catatonit(1)). */
#include "init.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* Reaps orphans and forwards signals until the program ends; ends with its status. */
static _Noreturn void stay(pid_t program, const sigset_t *signals)
{
    siginfo_t info;
    int status;
    pid_t pid;

    prctl(PR_SET_NAME, "init");
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    syscall(SYS_close_range, 0, ~0U, CLOSE_RANGE_UNSHARE);
    munmap(self.plan_start, self.plan_size);
    munmap(shared, sizeof *shared); /* which tells the monitor whom to kill */
    prctl(PR_SET_DUMPABLE, 1);      /* its namespaces can be joined (exec), as those of a program can */
    for (;;) {
        int number = sigwaitinfo(signals, &info);

        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
            if (pid == program)
                leave(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        if (number > 0 && number != SIGCHLD)
            kill(program, number);
    }
}

/* After the seccomp filter: the reaper must not be able to do more than the program, which may trace it. If it is
 * attended, it ends with the process that waits for it; a change of its IDs would take that back (prctl(2)). The
 * program ends with the reaper in the same way: without a pid namespace nothing else would end it. */
int op_init(int64_t attended)
{
    sigset_t all, before;
    pid_t pid;

    if (attended)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 0); /* until nothing of the host is left in it; execve makes the program dumpable again */
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    pid = SYS(fork());
    if (pid > 0)
        stay(pid, &all);
    if (attended)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* the keys of a terminal are for the program alone; it may have none */
    setpgid(0, 0);
    tcsetpgrp(0, getpid());
    sigprocmask(SIG_SETMASK, &before, NULL);
    return 0;
}
