/* The descriptor of a seccomp filter with notifications (seccomp_unotify(2)) goes to the parent, who passes it on.
 *
 * Once the filter is in force, any call of this thread may be refused, or wait for the answer of somebody who does not
 * have the descriptor yet. So it makes none: a second thread, from before the filter and not bound by it, waits for the
 * number of the descriptor in memory and sends it. Neither is there any more when the program is. */
#include "init.h"
#include "sys.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { WAITING = -2 };

static atomic_int listener = WAITING;
static atomic_bool sent;

static void *send_listener(void *unused)
{
    const struct timespec moment = {.tv_nsec = 20000};

    while (listener == WAITING)
        nanosleep(&moment, NULL);
    if (listener >= 0) {
        if (report_listener(listener) < 0)
            _exit(1); /* the whole process: nobody would ever answer it */
        close(self.agent_fd);
        close(listener); /* a copy in here would keep the program waiting for an agent that is gone */
    }
    sent = true;
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
    while (!sent)
        ;
}
