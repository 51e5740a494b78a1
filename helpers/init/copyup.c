/* tmpcopyup: a tmpfs that begins with what it covers. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* A directory more takes two descriptors and less than 4 KiB of the stack. */
enum { DEEPEST = 256 };

static int copy_tree(int from, int to, int depth);

static int copy_bytes(int from, int to)
{
    static char buffer[65536];
    ssize_t n;

    do {
        n = read(from, buffer, sizeof buffer);
        for (ssize_t done = 0, wrote; done < n; done += wrote) {
            wrote = write(to, buffer + done, (size_t)(n - done));
            if (wrote < 0)
                return -1;
        }
    } while (n > 0);
    return n < 0 ? -1 : 0;
}

static int copy_entry(int from_dir, int to_dir, const char *name, int depth)
{
    struct stat st;
    static char target[4096];
    ssize_t length;
    cleanup_close int from = -1, to = -1;

    if (fstatat(from_dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    switch (st.st_mode & S_IFMT) {
    case S_IFLNK:
        length = readlinkat(from_dir, name, target, sizeof target - 1);
        if (length < 0)
            return -1;
        target[length] = '\0';
        if (symlinkat(target, to_dir, name) < 0)
            return -1;
        return fchownat(to_dir, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW);
    case S_IFDIR:
        if (mkdirat(to_dir, name, 0700) < 0)
            return -1;
        from = openat(from_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        to = openat(to_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (from < 0 || to < 0 || copy_tree(from, to, depth + 1) < 0)
            return -1;
        break;
    case S_IFREG:
        from = openat(from_dir, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
        to = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (from < 0 || to < 0)
            return -1;
        /* by now it may be a device of the host, whose contents the container may not read */
        if (fstat(from, &st) < 0 || !S_ISREG(st.st_mode)) {
            errno = ESTALE;
            return -1;
        }
        if (copy_bytes(from, to) < 0)
            return -1;
        break;
    default:
        if (mknodat(to_dir, name, st.st_mode, st.st_rdev) < 0)
            return -1;
        return fchownat(to_dir, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW);
    }
    /* the owner first: changing it takes the setuid bit away */
    return fchown(to, st.st_uid, st.st_gid) < 0 || fchmod(to, st.st_mode & 07777) < 0 ? -1 : 0;
}

static int copy_tree(int from, int to, int depth)
{
    _Alignas(struct directory_entry) char entries[2048];
    long length, result;

    if (depth > DEEPEST) {
        errno = ENAMETOOLONG;
        return -1;
    }
    while ((result = length = sys_getdents64(from, entries, sizeof entries)) > 0)
        for (long at = 0; at < length; at += ((const struct directory_entry *)(const void *)(entries + at))->length) {
            const struct directory_entry *entry = (const void *)(entries + at);

            if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0 &&
                copy_entry(from, to, entry->name, depth) < 0)
                return -1;
        }
    return (int)result;
}

/* Both may be O_PATH; the contents of one go into the other. */
int copy_up(int from_fd, int to_fd)
{
    cleanup_close int from = openat(from_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (from < 0 || copy_tree(from, to_fd, 1) < 0)
        return failed(errno == ENAMETOOLONG ? "copy a deep tree" : "copy");
    return 0;
}
