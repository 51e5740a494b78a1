/* Paths inside the container's root. The image is hostile: it may hold any link, and another container that shares a
 * volume may change it meanwhile (CVE-2021-30465). So the kernel resolves, with the root as the end of the world, and
 * what is found is used by descriptor. */
#include "init.h"

enum { MAX_LINKS = 40, MAX_RACES = 64, MAX_KEPT = 8 };

/* Mounts that what is below their path is looked for in, whatever the path leads to by now. */
static struct {
    const char *path;
    int fd;
} kept[MAX_KEPT];

/* Another container that shares the root may rename the directory below a mount, such as /proc: what took its place for
 * a moment has nothing to protect, and the real one would stay unprotected (CVE-2019-19921, CVE-2023-27561). `keep` is
 * for a path that was not kept before; a mount that covers one that is kept takes its place. */
int pin_mount(const char *path, int mount_fd, bool keep)
{
    int i = 0, copy;

    while (i < MAX_KEPT && kept[i].path && strcmp(kept[i].path, path) != 0)
        i++;
    if (!keep && (i == MAX_KEPT || !kept[i].path))
        return 0;
    if (i == MAX_KEPT)
        return failed_with("pin a mount", E2BIG);
    copy = SYS(fcntl(mount_fd, F_DUPFD_CLOEXEC, 0));
    if (kept[i].path)
        close(kept[i].fd);
    kept[i].path = path;
    kept[i].fd = copy;
    return 0;
}

static int open_below(int directory, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS | resolve};
    bool links = !(resolve & RESOLVE_NO_SYMLINKS) && !(flags & O_NOFOLLOW);
    int fd = -1;

    path += strspn(path, "/");
    errno = EAGAIN;
    /* EAGAIN: something on the way was renamed or mounted while the kernel looked. ELOOP, where links are followed: it
     * may have begun again, and counted them twice. */
    for (int i = 0; fd < 0 && (errno == EAGAIN || (links && errno == ELOOP)) && i < MAX_RACES; i++)
        fd = (int)syscall(SYS_openat2, directory, *path ? path : ".", &how, sizeof how);
    return fd < 0 ? failed("openat2") : fd;
}

int open_inside(const char *path, uint64_t flags, uint64_t resolve)
{
    for (int i = 0; i < MAX_KEPT && kept[i].path; i++) {
        size_t length = strlen(kept[i].path);

        if (strncmp(path, kept[i].path, length) == 0 && (path[length] == '/' || path[length] == '\0')) {
            int fd = open_below(kept[i].fd, path + length, flags, RESOLVE_BENEATH | resolve);

            if (fd != -EXDEV) /* a link, or dots, lead out of it: then from the root */
                return fd;
        }
    }
    return open_below(self.root_fd, path, flags, RESOLVE_IN_ROOT | resolve);
}

/* `path` with its component [start, end), a link, replaced by what the link says. */
static int replace(char *path, size_t start, size_t end, const char *target, size_t length)
{
    size_t rest = strlen(path + end) + 1;

    if (target[0] == '/')
        start = 0;
    if (start + length + rest > PATH_MAX)
        return failed_with("openat2", ENAMETOOLONG);
    memmove(path + start + length, path + end, rest);
    memcpy(path + start, target, length);
    return 0;
}

/* Somebody else may have made it meanwhile. */
static int create(int parent, const char *name, bool directory)
{
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    cleanup_close int fd = directory ? -1 : openat(parent, name, flags, 0644);

    if (directory ? mkdirat(parent, name, 0755) == 0 : fd >= 0)
        return 0;
    return errno == EEXIST ? 0 : failed(directory ? "mkdir" : "open");
}

/* Opens (O_PATH) a directory or a file, making what is missing of it. A dangling link, such as /etc/resolv.conf of many
 * images, is followed inside the root and its target made. */
int open_or_create(const char *wanted, bool directory, uint64_t resolve)
{
    char path[PATH_MAX], target[PATH_MAX];
    cleanup_close int parent = -1;
    int links = resolve & RESOLVE_NO_SYMLINKS ? MAX_LINKS : 0, fd = open_inside(wanted, O_PATH, resolve);

    if (fd != -ENOENT)
        return fd;
    if (strlen(wanted) >= sizeof path)
        return failed_with("openat2", ENAMETOOLONG);
    strcpy(path, wanted);
    parent = TRY(open_inside(".", O_PATH | O_DIRECTORY, resolve));
    for (size_t start = strspn(path, "/"), end; path[start]; start = end + strspn(path + end, "/")) {
        bool last;
        char after;
        ssize_t length;

        end = start + strcspn(path + start, "/");
        last = path[end + strspn(path + end, "/")] == '\0';
        after = path[end];
        path[end] = '\0';
        fd = open_inside(path, O_PATH, resolve);
        length = fd == -ENOENT && links < MAX_LINKS ? readlinkat(parent, path + start, target, sizeof target) : -1;
        if (length >= 0) {
            links++;
            path[end] = after;
            TRY(replace(path, start, end, target, (size_t)length));
            end = 0; /* from the beginning of the new path */
            fd = open_inside(".", O_PATH | O_DIRECTORY, resolve);
        } else if (fd == -ENOENT) {
            TRY(create(parent, path + start, directory || !last));
            fd = open_inside(path, O_PATH, resolve);
            path[end] = after;
        } else {
            path[end] = after;
        }
        close_now(&parent);
        parent = TRY(fd);
    }
    return steal_fd(&parent);
}

int split(const char *path, char directory[PATH_MAX], const char **name)
{
    const char *slash = strrchr(path, '/');
    int length = snprintf(directory, PATH_MAX, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");

    *name = slash ? slash + 1 : path;
    return length < PATH_MAX ? 0 : failed_with("openat2", ENAMETOOLONG);
}

/* Opens the directory that holds `path`, made where it is missing, and points `name` at the last component. */
int open_parent(const char *path, const char **name)
{
    char directory[PATH_MAX];

    TRY(split(path, directory, name));
    return open_or_create(directory, true, 0);
}
