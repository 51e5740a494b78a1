/* The container's own cgroup, before its cgroup namespace hides the path. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* Opens the directory of this process in the hierarchy mounted on `mount`. A systemd scope takes the process
 * over after its start, so no descriptor of the directory could have come with it. */
static int open_own(const char *mount)
{
    char text[PATH_MAX + 512], path[PATH_MAX], *line, *end;
    int directory;
    ssize_t length;
    cleanup_close int fd = openat(self.proc_fd, "self/cgroup", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return failed("openat");
    length = read(fd, text, sizeof text - 1);
    if (length < 0)
        return failed("read");
    text[length] = '\0';
    line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
    end = line ? strchr(line + 1, '\n') : NULL;
    if (!end)
        return failed_with("read", ENOENT);
    *end = '\0';
    if ((size_t)snprintf(path, sizeof path, "%s%s", mount, strstr(line, "0::") + 3) >= sizeof path)
        return failed_with("open", ENAMETOOLONG);
    directory = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return directory < 0 ? failed("open") : directory;
}

int op_cgroup_owner(const struct op *op)
{
    uid_t uid = (uid_t)op->n[CGROUP_OWNER_UID];
    cleanup_close int fd = open_own(text(op, CGROUP_OWNER_MOUNT));

    if (fd < 0)
        return fd;
    if (fchownat(fd, "", uid, (gid_t)-1, AT_EMPTY_PATH) < 0)
        return failed("fchownat");
    for (const char *name = plan_next(&self.plan, op, CGROUP_OWNER_FILES, NULL); name;
         name = plan_next(&self.plan, op, CGROUP_OWNER_FILES, name))
        if (fchownat(fd, name, uid, (gid_t)-1, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
            return failed("fchownat");
    return 0;
}
