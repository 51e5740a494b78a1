/* Id-mapped mounts: mount_setattr(2). The kernel takes the maps of a mount from a user namespace. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

static int trees[MOST_TREES], made, used;
static const struct op *user; /* of the last one that was used */

/* The same one for an operation that is repeated. */
int next_tree(const struct op *op)
{
    if (op != user && used == made) {
        errno = EBADF;
        return -1;
    }
    used += op != user;
    user = op;
    return trees[used - 1];
}

/* A copy of mounts of the host, made before any namespace is entered: only root of the host may change
 * what is mounted over there. A BIND attaches it. */
int op_tree(const struct op *op)
{
    int result;
    cleanup_close int fd = -1;

    if (made == MOST_TREES)
        return failed_with("open_tree", E2BIG);
    fd = copy_of(text(op, TREE_SOURCE), op);
    if (fd < 0)
        return failed("open_tree");
    result = apply(fd, op);
    if (result == 0)
        trees[made++] = steal_fd(&fd);
    return result;
}

/* `/proc/PID/NAME` of a process in the namespace that /proc shows, whatever its number is for us. */
static int open_of(const char *pid, const char *name, int flags)
{
    char path[64];

    if (strlen(pid) + strlen(name) + 2 > sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcat(strcat(strcpy(path, pid), "/"), name);
    return openat(self.proc_fd, path, flags | O_CLOEXEC);
}

static int write_map(const char *pid, const char *name, const struct op *op, int which)
{
    cleanup_close int fd = open_of(pid, name, O_WRONLY);
    ssize_t written;

    if (fd < 0)
        return failed(name);
    written = write(fd, text(op, which), op->s[which].length);
    if (written < 0)
        return failed(name);
    return written == (ssize_t)op->s[which].length ? 0 : failed_with(name, EINVAL);
}

/* The process that has the new user namespace until somebody else has it open. */
static int hold_namespace(int ours, int theirs, bool show)
{
    char pid[16];
    ssize_t length;

    close(theirs);
    /* after a change of its ids a process is hidden from those who share them (PR_SET_DUMPABLE(2const)) */
    if (show)
        prctl(PR_SET_DUMPABLE, 1);
    length = readlinkat(self.proc_fd, "self", pid, sizeof pid - 1);
    if (length < 0)
        return 1;
    pid[length] = '\0';
    if (write(ours, pid, (size_t)length + 1) != length + 1)
        return 1;
    return read(ours, pid, 1) != 0; /* end of file: it is done, or nobody is there any more */
}

/* `end` of the socket pair: writes the maps of the process at the other end, and opens its namespace. */
static int map_namespace(int end, const struct op *op)
{
    char pid[16];
    int result;

    if (read(end, pid, sizeof pid) <= 1)
        return failed_with("readlink /proc/self", ESRCH);
    pid[sizeof pid - 1] = '\0';
    result = write_map(pid, "uid_map", op, ID_MAP_UIDS);
    if (result == 0)
        result = write_map(pid, "gid_map", op, ID_MAP_GIDS);
    if (result < 0)
        return result;
    self.id_map_fd = open_of(pid, "ns/user", O_RDONLY);
    return self.id_map_fd < 0 ? failed("open /proc/PID/ns/user") : 0;
}

/* Number: the container's own user namespace is the parent, whose ids this process may have taken. */
int op_id_map(const struct op *op)
{
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    int ends[2], result;
    long child;

    close_if_open(&self.id_map_fd);
    self.id_map_fd = -1;
    if (op->s[ID_MAP_PATH].length) {
        self.id_map_fd = open(text(op, ID_MAP_PATH), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        return self.id_map_fd < 0 ? failed("open") : 0;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return failed("socketpair");
    child = syscall(SYS_clone3, &args, sizeof args);
    if (child == 0)
        _exit(hold_namespace(ends[1], ends[0], op->n[ID_MAP_NEW]));
    result = child < 0 ? failed("clone3") : 0;
    close(ends[1]);
    if (result == 0)
        result = map_namespace(ends[0], op);
    close(ends[0]);
    if (child > 0)
        waitpid((pid_t)child, NULL, 0);
    return result;
}
