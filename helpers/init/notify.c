/* The descriptor of a seccomp filter with notifications (seccomp_unotify(2)) goes to the parent, who passes it on.
 *
 * Once the filter is in force, it may refuse any call of this thread, or hold it for an agent that does not have the
 * descriptor yet. A second thread, from before the filter and not bound by it, therefore finds the number of the
 * descriptor in memory and sends it. execve ends that thread.
 *
 * Meanwhile the first thread sleeps in the one call that it can rely on: load_filter() puts in front of the filter that
 * getppid(2) with the argument MARK is notified. The second thread takes that notification before the agent can see it,
 * and answers when the agent has the descriptor. (A program that makes the same call asks its agent.) A loop would keep
 * the only CPU from the second thread for ever where both are scheduled by SCHED_FIFO. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

enum { WAITING = -2 };

static atomic_int listener = WAITING;

static void *send_listener(void *unused)
{
    const struct timespec moment = {.tv_nsec = 20000};
    /* the kernel's own may be longer than those of the headers */
    union {
        struct seccomp_notif it;
        char space[1024];
    } asked;
    union {
        struct seccomp_notif_resp it;
        char space[1024];
    } answer = {.space = {0}};
    char taken;
    int fd, received;

    while ((fd = listener) == WAITING)
        nanosleep(&moment, NULL);
    if (fd < 0)
        return unused;
    /* ENOENT: a signal interrupted the call before it was read; the kernel starts it again, with a new notification */
    do {
        memset(&asked, 0, sizeof asked);
        received = (int)syscall(SYS_ioctl, fd, SECCOMP_IOCTL_NOTIF_RECV, &asked);
    } while (received < 0 && (errno == EINTR || errno == ENOENT));
    /* the agent must have it before the program begins; if it does not get it, nobody would ever answer the program */
    if (received < 0 || report_listener(fd) < 0 || read(self.report_fd, &taken, 1) != 1)
        _exit(1);
    close(self.agent_fd);
    answer.it.id = asked.it.id;
    syscall(SYS_ioctl, fd, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    close(fd); /* a copy in here would keep the program waiting for an agent that is gone */
    return unused;
}

int op_listener(const struct op *op)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, send_listener, NULL);

    (void)op;
    return error ? failed_with("pthread_create", error) : 0;
}

void pass_listener(int fd)
{
    listener = fd < 0 ? -1 : fd;
    if (fd >= 0)
        syscall(SYS_getppid, (unsigned long)MARK << 32 | MARK);
}
