/* The container's own cgroup, from before its cgroup namespace hides where it is. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Writes the directory of this process in the hierarchy mounted on `mount`. */
static int own_directory(const char *mount, char *path, size_t size)
{
    char text[PATH_MAX + 512], *line, *end;
    ssize_t length;
    int fd = openat(self.proc_fd, "self/cgroup", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length < 0)
        return -1;
    text[length] = '\0';
    line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
    end = line ? strchr(line + 1, '\n') : NULL;
    if (!end) {
        errno = ENOENT;
        return -1;
    }
    *end = '\0';
    if ((size_t)snprintf(path, size, "%s%s", mount, strstr(line, "0::") + 3) >= size) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return 0;
}

/* What the kernel lets the owner of a delegated cgroup have: the directory, and these files of it (cgroups(7)). */
static int chown_delegated(int directory, uid_t uid, char *names)
{
    if (fchownat(directory, "", uid, (gid_t)-1, AT_EMPTY_PATH) < 0)
        return -1;
    for (char *rest, *name = strtok_r(names, "\n", &rest); name; name = strtok_r(NULL, "\n", &rest))
        if (fchownat(directory, name, uid, (gid_t)-1, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
            return -1;
    return 0;
}

int op_cgroup_owner(const struct op *op)
{
    char names[1024] = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads", path[PATH_MAX];
    int result = 0, fd = open("/sys/kernel/cgroup/delegate", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        ssize_t length = read(fd, names, sizeof names - 1);

        close(fd);
        if (length < 0)
            return failed("read");
        names[length] = '\0';
    }
    if (own_directory(text(op, CGROUP_OWNER_MOUNT), path, sizeof path) < 0)
        return failed("open");
    fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return failed("open");
    if (chown_delegated(fd, (uid_t)op->n[CGROUP_OWNER_UID], names) < 0)
        result = failed("fchownat");
    close(fd);
    return result;
}
