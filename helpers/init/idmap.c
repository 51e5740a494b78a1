/* Id-mapped mounts: mount_setattr(2). The kernel takes the maps of a mount from a user namespace. */
#include "init.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { PID_LENGTH = 16 };

/* `/proc/PID/NAME` of a process in the namespace that /proc shows, whatever its number is for us. */
static int open_of(const char *pid, const char *name, int flags)
{
    char path[64];

    snprintf(path, sizeof path, "%s/%s", pid, name);
    return SYS_AS(name, openat(self.proc_fd, path, flags | O_CLOEXEC));
}

static int write_map(const char *pid, const char *name, const char *map)
{
    cleanup_close int fd = TRY(open_of(pid, name, O_WRONLY));
    ssize_t written = SYS_AS(name, write(fd, map, strlen(map)));

    return written == (ssize_t)strlen(map) ? 0 : failed_with(name, EINVAL);
}

/* The process that has the new user namespace until somebody else has it open. */
static int hold_namespace(int ours, bool show)
{
    char pid[PID_LENGTH] = "";

    /* after a change of its ids a process is hidden from those who share them (PR_SET_DUMPABLE(2const)) */
    if (show)
        prctl(PR_SET_DUMPABLE, 1);
    if (readlinkat(self.proc_fd, "self", pid, sizeof pid - 1) < 0 || write(ours, pid, sizeof pid) < 0)
        return 1;
    return read(ours, pid, 1) != 0; /* end of file: it is done, or nobody is there any more */
}

/* `end` of the socket pair: writes the maps of the process at the other end, and opens its namespace. */
static int map_namespace(int end, const char *uids, const char *gids)
{
    char pid[PID_LENGTH];

    if (read(end, pid, sizeof pid) != sizeof pid)
        return failed_with("readlink /proc/self", ESRCH);
    TRY(write_map(pid, "uid_map", uids));
    TRY(write_map(pid, "gid_map", gids));
    return open_of(pid, "ns/user", O_RDONLY);
}

/* `in_own`: the container's own user namespace is the parent, whose ids this process may have taken. */
int op_id_map(bool in_own, const char *uids, const char *gids, const char *path)
{
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    cleanup_close int ours = -1, theirs = -1;
    int ends[2];
    pid_t child;

    close_now(&self.id_map_fd);
    if (*path) {
        self.id_map_fd = SYS(open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
        return 0;
    }
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
    ours = ends[0];
    theirs = ends[1];
    child = SYSCALL(clone3, &args, sizeof args);
    if (child == 0) {
        close(ours);
        _exit(hold_namespace(theirs, in_own));
    }
    close_now(&theirs);
    self.id_map_fd = map_namespace(ours, uids, gids);
    close_now(&ours);
    waitpid(child, NULL, 0);
    return self.id_map_fd < 0 ? self.id_map_fd : 0;
}
