/* The descriptor of a seccomp filter with notifications (seccomp_unotify(2)) goes to the parent, who passes it on.
 *
 * Once the filter is in force, it may refuse any call of the container process, or hold it for an agent that does not
 * have the descriptor yet. Another process, outside of the container and not bound by the filter, shares the table of
 * descriptors, finds the number in memory and sends what it stands for. execve leaves it this table: so the program
 * begins at once, and what is held waits for the agent. Rejected: a thread, which execve ends; it made the container
 * process wait in a call that a few instructions before the filter had notified, which the agent could see. */
#include "init.h"

#include <poll.h>
#include <sys/eventfd.h>

enum { WAITING = -2, NONE = -1 };

static int send_listener(void)
{
    struct pollfd watched[] = {{.fd = self.wake_fd, .events = POLLIN}, {.fd = self.stage_fd, .events = POLLIN}};
    int patience = -1;

    while (shared->listener == WAITING) {
        poll(watched, 2, patience);
        if (watched[0].revents) { /* the filter is next */
            watched[0].fd = -1;
            patience = 1;
        }
        if (!watched[1].revents)
            continue;
        if (watched[1].fd == shared->pidfd || !shared->pidfd)
            break; /* the container process has ended, or there will be none */
        watched[1].fd = shared->pidfd;
    }
    self.report_fd = shared->report_fd;
    return shared->listener < 0 || report_fds(MESSAGE_LISTENER, getpid(), shared->listener, self.agent_fd) < 0;
}

int op_listener(void)
{
    struct clone_args args = {.flags = CLONE_FILES | CLONE_PARENT};

    shared->listener = WAITING;
    self.stage_fd = SYSCALL(pidfd_open, getpid(), 0);
    self.wake_fd = SYS(eventfd(0, EFD_CLOEXEC));
    if (SYSCALL(clone3, &args, sizeof args) == 0) {
        setsid();
        _exit(send_listener());
    }
    return 0;
}

void pass_listener(int fd) { shared->listener = fd < 0 ? NONE : fd; }

int op_check_agent(void)
{
    struct pollfd agent = {.fd = self.agent_fd, .events = POLLRDHUP};

    return poll(&agent, 1, 0) > 0 ? failed_with("poll", EPIPE) : 0;
}
