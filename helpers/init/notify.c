/* The descriptor of a seccomp filter with notifications (seccomp_unotify(2)) goes to the parent, who passes it on.
 *
 * Once the filter is in force, any call of this thread may be refused, or wait for the answer of somebody who does not
 * have the descriptor yet. So it makes none: a second thread, from before the filter and not bound by it, waits for the
 * number of the descriptor in memory and sends it. Neither is there any more when the program is.
 *
 * Meanwhile this thread sleeps in a page fault, which no filter sees: userfaultfd(2), until the other closes that. A loop
 * would keep the only CPU from the other thread for ever where both are scheduled by SCHED_FIFO. */
#include "init.h"
#include "sys.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1 /* Linux 5.11: needs no rights */
#endif

enum { WAITING = -2 };

static atomic_int listener = WAITING;
static atomic_bool sent;
static const volatile char *page; /* a reader sleeps until `faults` is closed; NULL: there is no such page */
static int faults = -1;

static void *send_listener(void *unused)
{
    const struct timespec moment = {.tv_nsec = 20000};
    const int priority = 0;

    /* the other thread is in a loop then, and the kernel keeps some time for threads that are no real-time ones */
    if (!page)
        syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &priority);
    while (listener == WAITING)
        nanosleep(&moment, NULL);
    if (listener >= 0) {
        char taken;

        /* the agent must have it before the program begins */
        if (report_listener(listener) < 0 || read(self.report_fd, &taken, 1) != 1)
            _exit(1); /* the whole process: nobody would ever answer it */
        close(self.agent_fd);
        close(listener); /* a copy in here would keep the program waiting for an agent that is gone */
    }
    sent = true;
    close(faults);
    return unused;
}

static void prepare_page(void)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register missing = {
        .range = {.start = (uintptr_t)memory, .len = size},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };

    if (memory == MAP_FAILED)
        return;
    faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    if (faults >= 0 && syscall(SYS_ioctl, faults, UFFDIO_API, &api) == 0 &&
        syscall(SYS_ioctl, faults, UFFDIO_REGISTER, &missing) == 0)
        page = memory;
}

int op_listener(const struct op *op)
{
    pthread_t thread;
    int error;

    (void)op;
    prepare_page();
    error = pthread_create(&thread, NULL, send_listener, NULL);
    return error ? failed_with("pthread_create", error) : 0;
}

void pass_listener(int fd)
{
    listener = fd < 0 ? -1 : fd;
    if (page)
        (void)*page;
    while (!sent)
        ;
}
