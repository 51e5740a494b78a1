/* The child's side of the protocol; rootless/launch/protocol.py is the parent's, and draws the whole of it.
 *
 *     TURN pid numbers       the launcher's turn: FORK (with the container process's pid and the numbers of IDENTIFY)
 *                            and YIELD (with 0) send it, and wait for 'G': go
 *     READY                  everything but the program is done; then waits for the start: 'S' or 'T', over the reply
 *                            descriptor or a connection to the start socket; 'T' asks for PROGRESS from there on
 *     PROGRESS op errno time an operation took so many microseconds (64 bits); only when it is asked for, not after
 *                            READY before the start, and not after EXECUTING
 *     EXECUTING              only execve, perhaps with the seccomp filter before it, is left
 *     LISTENER               with the descriptor of the seccomp filter's notifications, and the connection to their
 *                            agent; from a process of its own, whose pid it names, some time after EXECUTING
 *     NOTIFY                 with the socket on which the program will say that it is ready
 *     NETLINK                with a socket that speaks of the network namespace (netns holders only)
 *     MONITORED pid          from here on this is the first stage, and its parent the monitor
 *     NAMESPACES             with its user namespace and its network namespace
 *     FUSE                   with a connection to the kernel, which a server of the launcher's answers
 *     FAILED op errno text   and exits
 *     SKIPPED op errno text  an operation with an alternative failed; goes on
 *
 * End of file on the report descriptor after EXECUTING means that the program runs; before it, that somebody killed
 * this process. A parent that dies is seen as end of file on the reply descriptor, or as a broken pipe. */
#include "init.h"

#include <signal.h>
#include <sys/socket.h>

/* Where a seccomp filter refuses exit_group(2), exit(2) ends the only thread, and where it refuses that too, a trap
 * does: the C library would try the same two for ever. */
void leave(int status)
{
    syscall(SYS_exit_group, status);
    syscall(SYS_exit, status);
    __builtin_trap();
}

/* One write of less than PIPE_BUF bytes, so that reports of two processes never mix. Where it need not arrive, the
 * reader may be gone: the one who asked for the start over its socket. */
void report(enum message type, int value, int error, const void *detail, uint32_t length, bool must_arrive)
{
    struct report message = {.type = type, .value = value, .error = error, .length = length};
    size_t size = offsetof(struct report, detail) + length;

    memcpy(message.detail, detail, length);
    if (!must_arrive && (send(self.report_fd, &message, size, MSG_NOSIGNAL) >= 0 || errno != ENOTSOCK))
        return;
    /* a socket or a pipe whose reader is gone: this process has no reason to go on (SIGPIPE has its default action) */
    if (write(self.report_fd, &message, size) < 0)
        leave(1);
}

void report_failure(enum message type, int index, int error)
{
    report(type, index, error, shared->detail, shared->length, true);
}

void report_executing(void)
{
    static bool sent;

    if (!sent)
        report(MESSAGE_EXECUTING, 0, 0, "", 0, false);
    sent = true;
    self.trace = false; /* a seccomp filter may come next, and forbid it */
}

int send_fds(int channel, const void *data, size_t size, const int *fds, size_t count)
{
    enum { MOST = 2 };
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(MOST * sizeof *fds)];
    } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control};

    control.header.cmsg_len = (socklen_t)CMSG_LEN(count * sizeof *fds);
    message.msg_controllen = (socklen_t)CMSG_SPACE(count * sizeof *fds);
    memcpy(CMSG_DATA(&control.header), fds, count * sizeof *fds);
    return sendmsg(channel, &message, MSG_NOSIGNAL) < 0 ? failed("sendmsg") : 0;
}

int report_fds(enum message type, int value, int first, int second)
{
    struct report message = {.type = type, .value = value};
    const int fds[] = {first, second};

    return send_fds(self.report_fd, &message, offsetof(struct report, detail), fds, second < 0 ? 1 : 2);
}

/* The parent cannot open those of a process that is not dumpable. */
int op_pass_namespaces(void)
{
    cleanup_close int user = SYS(openat(self.proc_fd, "self/ns/user", O_RDONLY | O_CLOEXEC));
    cleanup_close int network = SYS(openat(self.proc_fd, "self/ns/net", O_RDONLY | O_CLOEXEC));

    return report_fds(MESSAGE_NAMESPACES, 0, user, network);
}

/* Returns the answer; 0 at end of file, which a peer that is killed may also leave as ECONNRESET. */
static char next_answer(int fd)
{
    char reply = 0;
    ssize_t n;

    do
        n = read(fd, &reply, 1);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != ECONNRESET)
        leave(1);
    return n == 1 ? reply : 0;
}

int take_turn(int pid)
{
    uint32_t length = pid ? self.identified * (uint32_t)sizeof *self.namespaces : 0;

    report(MESSAGE_TURN, pid, 0, self.namespaces, length, true);
    if (next_answer(self.reply_fd) != 'G')
        leave(1);
    return 0;
}

static void end_by(int number) { leave(128 + number); }

/* As PID 1 of its namespace this process would not feel a signal that it has no handler for; a created container can be
 * ended by any that would end a program. execve takes the handlers away. */
static void obey_signals(void)
{
    static const char harmless[] = {SIGKILL, SIGSTOP, SIGCHLD, SIGCONT, SIGURG, SIGWINCH, SIGTSTP, SIGTTIN, SIGTTOU};
    struct sigaction action = {.sa_handler = end_by};

    for (int number = 1; number < NSIG; number++)
        if (!memchr(harmless, number, sizeof harmless))
            sigaction(number, &action, NULL);
}

int op_ready(void)
{
    obey_signals(); /* before the parent can know of a container to kill */
    report(MESSAGE_READY, 0, 0, "", 0, true);
    self.trace = false; /* nobody may be left to read of it */
    return 0;
}

int op_wait_start(void)
{
    char answer;

    if (self.start_fd < 0) {
        answer = next_answer(self.reply_fd);
        if (answer != 'S' && answer != 'T')
            leave(1);
        self.trace = answer == 'T';
        return 0;
    }
    /* the creator may go; from here on reports go to the process that starts the container */
    close_now(&self.report_fd);
    close_now(&self.reply_fd);
    do
        self.report_fd = accept4(self.start_fd, NULL, NULL, SOCK_CLOEXEC);
    while (self.report_fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (self.report_fd < 0)
        leave(1);
    close_now(&self.start_fd);
    shared->report_fd = self.report_fd;
    self.trace = next_answer(self.report_fd) == 'T'; /* at end of file the starter was killed: it had asked */
    return 0;
}
