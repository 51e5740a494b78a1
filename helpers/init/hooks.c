/* Hooks that run in the container's namespaces (runtime-spec: config.md, POSIX-platform Hooks). */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { LONGEST_TOLD = 1024 }; /* bytes of what a hook has written that an error repeats */

/* Opened while the caller's files can be named, for hooks that run when they cannot. Of two empty strings none is. */
int op_hook_output(const struct op *op)
{
    for (int which = 0; which < 2; which++) {
        if (!op->s[which].length)
            continue;
        self.hook_output[which] = open(text(op, which), O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_CLOEXEC, 0644);
        if (self.hook_output[which] < 0)
            return failed("open");
    }
    return 0;
}

/* A file rather than a pipe: a hook may leave it unread, and a daemon that a hook leaves behind may keep it. */
static int file_of(const char *const *parts, size_t count)
{
    int fd = memfd_create("hook", MFD_CLOEXEC);

    for (size_t i = 0; fd >= 0 && i < count; i++)
        for (size_t done = 0, length = strlen(parts[i]); done < length;) {
            ssize_t n = write(fd, parts[i] + done, length - done);

            if (n < 0) {
                close(fd);
                return -1;
            }
            done += (size_t)n;
        }
    if (fd >= 0)
        lseek(fd, 0, SEEK_SET);
    return fd;
}

/* The program receives its own process id, which is known only here. */
static int state_file(const struct op *op)
{
    char number[sizeof "4294967295"];
    const char *before = plan_next(&self.plan, op, HOOK_ABOUT, plan_next(&self.plan, op, HOOK_ABOUT, NULL));
    const char *parts[] = {before, utoa(number + sizeof number, (unsigned)getpid(), 10), "}"};

    return before ? file_of(parts, 3) : (errno = EINVAL, -1);
}

/* What the image says is run with no more rights than the program will have. */
static int confine(const struct op *hook)
{
    const struct op *end = self.plan.ops + self.plan.count;

    for (const struct op *op = hook + 1; op < end; op++) {
        /* nobody answers a filter's notifications yet: what would wait for an answer is refused with ENOSYS */
        if ((op->code == OP_RLIMIT && op_rlimit(op) < 0) || (op->code == OP_NO_NEW_PRIVS && op_no_new_privs(op) < 0) ||
            (op->code == OP_SECCOMP && load_filter(op, (unsigned)op->n[SECCOMP_FLAGS] & ~(unsigned)FILTER_LISTENER_FLAGS) < 0))
            return -1;
    }
    return 0;
}

/* The caller's environment is not for programs of the image, which may be able to read this process's memory later. */
static int forget_environment(const struct op *op)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)text(op, HOOK_ENV);
    char *first = (char *)(start & ~(page - 1));
    size_t span = start + op->s[HOOK_ENV].length - (uintptr_t)first;

    if (mprotect(first, span, PROT_READ | PROT_WRITE) < 0)
        return failed("mprotect");
    memset((char *)start, 0, op->s[HOOK_ENV].length);
    return mprotect(first, span, PROT_READ) < 0 ? failed("mprotect") : 0;
}

/* Returns errno: why it could not. */
static int become_hook(const struct op *op, int state, int out, int err)
{
    /* no list has more elements than bytes; two ends */
    size_t size = ((size_t)op->s[HOOK_ARGS].length + op->s[HOOK_ENV].length + 2) * sizeof(char *);
    char **args = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), **env;
    int streams[] = {state, out, err};
    const char *directory = plan_next(&self.plan, op, HOOK_ABOUT, NULL);
    bool confined = op->n[HOOK_CONFINED];

    if (args == MAP_FAILED)
        return errno;
    env = fill_argv(op, HOOK_ARGS, args) + 1;
    fill_argv(op, HOOK_ENV, env);
    if (op->n[HOOK_ENVIRONMENT] == PROGRAMS) {
        env = self.env;
        *self.env_end = self.home;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i < 3; i++) /* the caller's own may be closed, and these in their places */
        streams[i] = fcntl(streams[i], F_DUPFD, 3);
    for (int i = 0; i < 3; i++)
        if (dup2(streams[i], i) < 0)
            return errno;
    if (sys_close_range(3, ~0U, 0) < 0 || (*directory && chdir(directory) < 0))
        return errno;
    if (!confined)
        umask(022); /* it is 0 for what is made in the image */
    else if (confine(op) < 0)
        return errno;
    execve(text(op, HOOK_PATH), args, env);
    return errno;
}

static int outcome(const struct op *op, int process, pid_t pid)
{
    static char told[sizeof "exit status 4294967295"];
    char number[sizeof "4294967295"];
    struct pollfd end = {.fd = process, .events = POLLIN};
    int status = 0, ended;

    do
        ended = poll(&end, 1, op->n[HOOK_TIMEOUT] > 0 && op->n[HOOK_TIMEOUT] <= INT_MAX / 1000 ? (int)op->n[HOOK_TIMEOUT] * 1000 : -1);
    while (ended < 0 && errno == EINTR);
    if (ended == 0)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (ended == 0)
        return failed_with("hook ran past specified timeout", ETIME);
    if (status == 0)
        return 0;
    strcpy(told, WIFSIGNALED(status) ? "signal " : "exit status ");
    strcat(told, utoa(number + sizeof number, (unsigned)(WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)), 10));
    return failed_with(told, ECHILD);
}

static void explain_by(int output)
{
    char words[LONGEST_TOLD];
    off_t length = lseek(output, 0, SEEK_END);
    ssize_t n = pread(output, words, sizeof words, length > LONGEST_TOLD ? length - LONGEST_TOLD : 0);

    if (n > 0)
        explain_failure(words, (size_t)n);
}

/* Numbers: the timeout in seconds, 0 for none; whether it is bound by what the program will be; whose environment it has.
 * Strings: the program, its arguments, its environment, a list of its directory (empty: it stays in this one) and the
 * state without its end, which is the process id. */
int op_hook(const struct op *op)
{
    int process = -1, result, state = state_file(op), output = file_of(NULL, 0);
    int *error = mmap(NULL, sizeof *error, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&process, .exit_signal = SIGCHLD};
    long pid;

    if (error == MAP_FAILED)
        return failed("mmap");
    if (state < 0 || output < 0)
        return failed("memfd_create");
    /* this process is not bound yet by what binds a program of the image, which may leave others behind: to none of them
     * it is open by ptrace or /proc. execve ends it */
    if (op->n[HOOK_CONFINED] && prctl(PR_SET_DUMPABLE, 0) < 0)
        return failed("prctl(PR_SET_DUMPABLE)");
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0)
        return failed("clone3");
    if (pid == 0) {
        /* in memory: under a seccomp filter there may be no other way to tell */
        *error = become_hook(op, state, self.hook_output[0] < 0 ? output : self.hook_output[0],
                             self.hook_output[1] < 0 ? output : self.hook_output[1]);
        _exit(127);
    }
    result = outcome(op, process, (pid_t)pid);
    if (result == 0 && op->n[HOOK_ENVIRONMENT] == CALLERS)
        result = forget_environment(op);
    if (*error)
        result = failed_with("execve", *error);
    else if (result < 0)
        explain_by(output);
    munmap(error, sizeof *error);
    close(process);
    close(output);
    close(state);
    return result;
}
