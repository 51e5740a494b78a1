/* The container's own cgroup, before its cgroup namespace hides the path. */
#include "init.h"

/* Opens the directory of this process in the hierarchy mounted on `mount`. A systemd scope takes the process
 * over after its start, so no descriptor of the directory could have come with it. */
static int open_own(const char *mount)
{
    char text[PATH_MAX + 512] = "\n", path[PATH_MAX], *line;
    cleanup_close int fd = SYS(openat(self.proc_fd, "self/cgroup", O_RDONLY | O_CLOEXEC));
    ssize_t length = SYS(read(fd, text + 1, sizeof text - 2));

    text[1 + length] = '\0';
    line = strstr(text, "\n0::");
    if (!line)
        return failed_with("read", ENOENT);
    line += strlen("\n0::");
    line[strcspn(line, "\n")] = '\0';
    if ((size_t)snprintf(path, sizeof path, "%s%s", mount, line) >= sizeof path)
        return failed_with("open", ENAMETOOLONG);
    return SYS(open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

int op_cgroup_owner(uid_t uid, const char *mount, struct bytes files)
{
    cleanup_close int fd = TRY(open_own(mount));

    SYS(fchownat(fd, "", uid, (gid_t)-1, AT_EMPTY_PATH));
    for (const char *name = next_item(files, NULL); name; name = next_item(files, name))
        if (fchownat(fd, name, uid, (gid_t)-1, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
            return failed("fchownat");
    return 0;
}
