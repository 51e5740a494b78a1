/* The socket on which the program says to a service manager that it is ready (sd_notify(3)), where no one on the host
 * has a place that the container could write to: it lies in a file system of the container's own. */
#include "init.h"

#include <sys/socket.h>
#include <sys/un.h>

int op_notify_socket(const char *path, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cleanup_close int directory = TRY(open_inside(path, O_PATH | O_DIRECTORY, 0));
    cleanup_close int fd = SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));

    strncpy(address.sun_path, name, sizeof address.sun_path - 1);
    SYS(fchdir(directory)); /* an address has no room for a long path */
    SYS(bind(fd, (struct sockaddr *)&address, sizeof address));
    self.notify_fd = steal_fd(&fd);
    return 0;
}

/* To who reads it: the program must not. */
int op_pass_notify(void)
{
    cleanup_close int fd = steal_fd(&self.notify_fd);

    return report_fds(MESSAGE_NOTIFY, 0, fd, -1);
}
