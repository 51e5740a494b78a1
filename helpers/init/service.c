/* The socket on which the program says to a service manager that it is ready (sd_notify(3)), where no one on the host
 * has a place that the container could write to: it lies in a file system of the container's own. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Strings: a directory of the container; the name of the socket in it. */
int op_notify_socket(const struct op *op)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_close int directory = open_inside(text(op, NOTIFY_SOCKET_DIRECTORY), O_RDONLY | O_DIRECTORY, 0);
    int error = errno;
    cleanup_close int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int result = 0;

    if (here < 0)
        return failed("open");
    if (directory < 0)
        return failed_with("openat2", error);
    strncpy(address.sun_path, text(op, NOTIFY_SOCKET_NAME), sizeof address.sun_path - 1);
    self.notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (self.notify_fd < 0)
        return failed("socket");
    if (fchdir(directory) < 0)
        return failed("fchdir");
    if (bind(self.notify_fd, (struct sockaddr *)&address, sizeof address) < 0)
        result = failed("bind");
    if (fchdir(here) < 0 && result == 0)
        result = failed("fchdir");
    return result;
}

/* To who reads it: the program must not. */
int op_pass_notify(const struct op *op)
{
    (void)op;
    if (report_notify(self.notify_fd) < 0)
        return failed("sendmsg");
    close(self.notify_fd);
    self.notify_fd = -1;
    return 0;
}
