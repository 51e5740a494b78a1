/* Hooks that run in the container's namespaces (runtime-spec: config.md, POSIX-platform Hooks). */
#include "init.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { LONGEST_TOLD = 1024 }; /* bytes of what a hook has written that an error repeats */

/* Opened while the caller's files can be named, for hooks that run when they cannot. Of two empty strings none is. */
int op_hook_output(const char *out, const char *err)
{
    const char *const paths[] = {out, err};

    for (int which = 0; which < 2; which++) {
        close_now(&self.hook_output[which]);
        if (*paths[which])
            self.hook_output[which] =
                SYS(open(paths[which], O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_CLOEXEC, 0644));
    }
    return 0;
}

/* A file rather than a pipe: a hook may leave it unread, and a daemon that a hook leaves behind may keep it. The
 * program receives its own process id, which is known only here. Returns as failed() does, or a descriptor. */
static int state_file(struct bytes about)
{
    const char *before = next_item(about, next_item(about, NULL));
    cleanup_close int fd = SYS(memfd_create("hook", MFD_CLOEXEC));

    if (!before)
        return failed_with("the plan", EINVAL);
    SYS_AS("write", dprintf(fd, "%s%d}", before, getpid()));
    SYS(lseek(fd, 0, SEEK_SET));
    return steal_fd(&fd);
}

/* The caller's environment is not for programs of the image, which may be able to read this process's memory later. */
static int forget(struct bytes env)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)env.at;
    char *first = (char *)(start & ~(page - 1));
    size_t span = start + env.length - (uintptr_t)first;

    SYS(mprotect(first, span, PROT_READ | PROT_WRITE));
    memset((char *)start, 0, env.length);
    return SYS(mprotect(first, span, PROT_READ));
}

/* Runs those operations of the Plan that bind what the image says is run as they will bind its program. */
static int bind_hook(int64_t first, int64_t bound)
{
    int64_t after = self.plan.count - 1 - (int64_t)self.position;

    if (first < 0 || bound < 0 || first > after || bound > after - first)
        return failed_with("the plan", EINVAL);
    self.in_hook = true;
    self.trace = false;
    self.position += 1 + (uint32_t)first;
    for (uint32_t end = self.position + (uint32_t)bound; self.position < end;) {
        TRY(run_next());
        shared->error = 0; /* of one that may fail */
    }
    return 0;
}

static int take_streams(int state, int output)
{
    int streams[] = {state, self.hook_output[0] < 0 ? output : self.hook_output[0],
                     self.hook_output[1] < 0 ? output : self.hook_output[1]};

    for (int i = 0; i < 3; i++) /* the caller's own may be closed, and these in their places */
        streams[i] = SYS(fcntl(streams[i], F_DUPFD, 3));
    for (int i = 0; i < 3; i++)
        SYS(dup2(streams[i], i));
    return SYSCALL(close_range, 3, ~0U, 0);
}

/* Returns as failed() does: why it could not. */
static int become_hook(const char *path, struct bytes args, struct bytes env, int64_t environment,
                       const char *directory, int64_t first, int64_t bound)
{
    struct arguments own;

    if (!lay_out(args, env, &own))
        return failed("mmap");
    if (environment == PROGRAMS)
        own.env = self.exec.env;
    if (*directory)
        SYS(chdir(directory));
    TRY(bind_hook(first, bound));
    return SYS(execve(path, own.args, own.env));
}

/* Waits for its end, and says how it was. */
static int outcome(int64_t seconds, int process, pid_t pid, int output)
{
    char told[64];
    struct pollfd end = {.fd = process, .events = POLLIN};
    int status = 0, ended, result;
    char words[LONGEST_TOLD];
    off_t length;
    ssize_t n;

    do
        ended = poll(&end, 1, seconds > 0 && seconds <= INT_MAX / 1000 ? (int)seconds * 1000 : -1);
    while (ended < 0 && errno == EINTR);
    if (ended == 0)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (shared->error) /* why it could not become the hook */
        return -shared->error;
    if (ended > 0 && status == 0)
        return 0;
    if (WIFSIGNALED(status))
        snprintf(told, sizeof told, "signal %d", WTERMSIG(status));
    else
        snprintf(told, sizeof told, "exit status %d", WEXITSTATUS(status));
    result = ended == 0 ? failed_with("hook ran past specified timeout", ETIME) : failed_with(told, ECHILD);
    length = lseek(output, 0, SEEK_END);
    n = pread(output, words, sizeof words, length > LONGEST_TOLD ? length - LONGEST_TOLD : 0);
    explain_failure(words, n > 0 ? (size_t)n : 0);
    return result;
}

/* `timeout`: in seconds, 0 for none. `environment`: whose it is; `env` where it is GIVEN. `bound`: how many operations,
 * from the one `first` places further on, run in its process before it begins. `about`: its directory (empty: it stays
 * in this one) and the state without its end, which is the process id. */
int op_hook(int64_t timeout, int64_t environment, int64_t first, int64_t bound, const char *path, struct bytes args,
            struct bytes env, struct bytes about)
{
    cleanup_close int process = -1, state = TRY(state_file(about)), output = SYS(memfd_create("hook", MFD_CLOEXEC));
    struct clone_args clone = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&process, .exit_signal = SIGCHLD};
    int result;
    pid_t pid;

    shared->error = 0;
    pid = (pid_t)syscall(SYS_clone3, &clone, sizeof clone);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (take_streams(state, output) == 0)
            become_hook(path, args, env, environment, about.at, first, bound);
        leave(127); /* the filter may refuse what _exit() tries for ever */
    }
    if (pid < 0) {
        process = -1; /* the kernel may have written a number before it failed, and closed it */
        return failed("clone3");
    }
    result = outcome(timeout, process, pid, output);
    if (result == 0 && environment == CALLERS)
        return forget(env);
    return result;
}
