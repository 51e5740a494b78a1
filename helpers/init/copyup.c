/* tmpcopyup: a tmpfs that begins with what it covers. */
#include "init.h"

#include <dirent.h>
#include <sys/sendfile.h>

/* A directory more takes two descriptors and less than 4 KiB of the stack. */
enum { DEEPEST = 256, AT_ONCE = 1 << 30 };

/* getdents64(2) writes these one after the other. */
_Static_assert(sizeof(((struct dirent *)NULL)->d_ino) == 8 && offsetof(struct dirent, d_name) == 19, "as the kernel's");

static int copy_tree(int from, int to, int depth);

static int copy_entry(int from_dir, int to_dir, const char *name, int depth)
{
    struct stat st;
    static char target[PATH_MAX];
    ssize_t length;
    cleanup_close int from = -1, to = -1;

    SYS_AS("copy", fstatat(from_dir, name, &st, AT_SYMLINK_NOFOLLOW));
    switch (st.st_mode & S_IFMT) {
    case S_IFLNK:
        length = SYS_AS("copy", readlinkat(from_dir, name, target, sizeof target - 1));
        target[length] = '\0';
        SYS_AS("copy", symlinkat(target, to_dir, name));
        break;
    case S_IFDIR:
        SYS_AS("copy", mkdirat(to_dir, name, 0700));
        from = SYS_AS("copy", openat(from_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        to = SYS_AS("copy", openat(to_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        TRY(copy_tree(from, to, depth + 1));
        break;
    case S_IFREG:
        from = SYS_AS("copy", openat(from_dir, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
        to = SYS_AS("copy", openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
        /* by now it may be a device of the host, whose contents the container may not read */
        if (fstat(from, &st) < 0 || !S_ISREG(st.st_mode))
            return failed_with("copy", ESTALE);
        while (SYS_AS("copy", sendfile(to, from, NULL, AT_ONCE)) > 0)
            ;
        break;
    default:
        SYS_AS("copy", mknodat(to_dir, name, st.st_mode, st.st_rdev));
    }
    /* the owner first: changing it takes the setuid bit away */
    SYS_AS("copy", fchownat(to_dir, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW));
    return to < 0 ? 0 : SYS_AS("copy", fchmod(to, st.st_mode & 07777));
}

static int copy_tree(int from, int to, int depth)
{
    _Alignas(struct dirent) char entries[2048];
    long length;

    if (depth > DEEPEST)
        return failed_with("copy a deep tree", ENAMETOOLONG);
    while ((length = SYS_AS("copy", syscall(SYS_getdents64, from, entries, sizeof entries))) > 0)
        for (long at = 0; at < length; at += ((const struct dirent *)(const void *)(entries + at))->d_reclen) {
            const struct dirent *entry = (const void *)(entries + at);

            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                TRY(copy_entry(from, to, entry->d_name, depth));
        }
    return 0;
}

/* Both may be O_PATH; the contents of one go into the other. */
int copy_up(int from_fd, int to_fd)
{
    cleanup_close int from = SYS_AS("copy", openat(from_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));

    return copy_tree(from, to_fd, 1);
}
