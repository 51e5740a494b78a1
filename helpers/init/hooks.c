/* Hooks that run in the container's namespaces (runtime-spec: config.md, POSIX-platform Hooks). */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
        close_if_open(&self.hook_output[which]);
        self.hook_output[which] = open(text(op, which), O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_CLOEXEC, 0644);
        if (self.hook_output[which] < 0)
            return failed("open");
    }
    return 0;
}

/* A file rather than a pipe: a hook may leave it unread, and a daemon that a hook leaves behind may keep it.
 * Returns as failed() does, or a descriptor. */
static int file_of(const char *const *parts, size_t count)
{
    cleanup_close int fd = memfd_create("hook", MFD_CLOEXEC);

    if (fd < 0)
        return failed("memfd_create");
    for (size_t i = 0; i < count; i++)
        for (size_t done = 0, length = strlen(parts[i]); done < length;) {
            ssize_t n = write(fd, parts[i] + done, length - done);

            if (n < 0)
                return failed("write");
            done += (size_t)n;
        }
    if (lseek(fd, 0, SEEK_SET) < 0)
        return failed("lseek");
    return steal_fd(&fd);
}

/* The program receives its own process id, which is known only here. */
static int state_file(const struct op *op)
{
    char number[sizeof "4294967295"];
    const char *before = plan_next(&self.plan, op, HOOK_ABOUT, plan_next(&self.plan, op, HOOK_ABOUT, NULL));
    const char *parts[] = {before, utoa(number + sizeof number, (unsigned)getpid(), 10), "}"};

    return before ? file_of(parts, 3) : failed_with("the plan", EINVAL);
}

/* What the image says is run with no more rights than the program will have. */
static int confine(const struct op *hook)
{
    const struct op *end = self.plan.ops + self.plan.count;
    int result = 0;

    for (const struct op *op = hook + 1; op < end && result >= 0; op++) {
        if (op->code == OP_RLIMIT)
            result = op_rlimit(op);
        else if (op->code == OP_NO_NEW_PRIVS)
            result = op_no_new_privs(op);
        else if (op->code == OP_SECCOMP)
            /* nobody answers a filter's notifications yet: what would wait for an answer is refused with ENOSYS */
            result = load_filter(op, (unsigned)op->n[SECCOMP_FLAGS] & ~(unsigned)FILTER_LISTENER_FLAGS);
    }
    return result;
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

/* Returns as failed() does: why it could not. */
static int become_hook(const struct op *op, int state, int out, int err)
{
    /* no list has more elements than bytes; two ends */
    size_t size = ((size_t)op->s[HOOK_ARGS].length + op->s[HOOK_ENV].length + 2) * sizeof(char *);
    char **args = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), **env;
    int streams[] = {state, out, err};
    const char *directory = plan_next(&self.plan, op, HOOK_ABOUT, NULL);
    bool confined = op->n[HOOK_CONFINED];
    int result;

    if (args == MAP_FAILED)
        return failed("mmap");
    env = fill_argv(op, HOOK_ARGS, args) + 1;
    fill_argv(op, HOOK_ENV, env);
    if (op->n[HOOK_ENVIRONMENT] == PROGRAMS) {
        env = self.env;
        *self.env_end = self.home;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i < 3; i++) { /* the caller's own may be closed, and these in their places */
        streams[i] = fcntl(streams[i], F_DUPFD, 3);
        if (streams[i] < 0)
            return failed("fcntl");
    }
    for (int i = 0; i < 3; i++)
        if (dup2(streams[i], i) < 0)
            return failed("dup2");
    if (sys_close_range(3, ~0U, 0) < 0)
        return failed("close_range");
    if (*directory && chdir(directory) < 0)
        return failed("chdir");
    if (confined) {
        result = confine(op);
        if (result < 0)
            return result;
    } else {
        umask(022); /* it is 0 for what is made in the image */
    }
    execve(text(op, HOOK_PATH), args, env);
    return failed("execve");
}

static int outcome(const struct op *op, int process, pid_t pid)
{
    static char told[sizeof "exit status 4294967295"];
    char number[sizeof "4294967295"];
    struct pollfd end = {.fd = process, .events = POLLIN};
    int64_t seconds = op->n[HOOK_TIMEOUT];
    int status = 0, ended;

    do
        ended = poll(&end, 1, seconds > 0 && seconds <= INT_MAX / 1000 ? (int)seconds * 1000 : -1);
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
    status = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    strcat(told, utoa(number + sizeof number, (unsigned)status, 10));
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

/* Numbers: the timeout in seconds, 0 for none; whether it is bound by what the program will be; whose environment it
 * has.
 * Strings: the program, its arguments, its environment, a list of its directory (empty: it stays in this one) and the
 * state without its end, which is the process id. */
int op_hook(const struct op *op)
{
    struct refusal {
        const char *call;
        int error;
    } *refused;
    cleanup_close int process = -1, state = state_file(op), output = state < 0 ? -1 : file_of(NULL, 0);
    struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&process, .exit_signal = SIGCHLD};
    long pid;
    int result;

    if (state < 0)
        return state;
    if (output < 0)
        return output;
    /* this process is not bound yet by what binds a program of the image, which may leave others behind: to none of
     * them it is open by ptrace or /proc. execve ends it */
    if (op->n[HOOK_CONFINED] && prctl(PR_SET_DUMPABLE, 0) < 0)
        return failed("prctl(PR_SET_DUMPABLE)");
    /* in memory: under a seccomp filter there may be no other way to tell */
    refused = mmap(NULL, sizeof *refused, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (refused == MAP_FAILED)
        return failed("mmap");
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) {
        result = failed("clone3");
        process = -1; /* the kernel may have written a number before it failed, and closed it */
        munmap(refused, sizeof *refused);
        return result;
    }
    if (pid == 0) {
        refused->error = -become_hook(op, state, self.hook_output[0] < 0 ? output : self.hook_output[0],
                                      self.hook_output[1] < 0 ? output : self.hook_output[1]);
        refused->call = failure.call;
        leave(127); /* the filter may refuse what _exit() tries for ever */
    }
    result = outcome(op, process, (pid_t)pid);
    if (result == 0 && op->n[HOOK_ENVIRONMENT] == CALLERS)
        result = forget_environment(op);
    if (refused->error && refused->call) /* both, if it was not killed between the two */
        result = failed_with(refused->call, refused->error);
    else if (result < 0)
        explain_by(output);
    munmap(refused, sizeof *refused);
    return result;
}
