/* cp: files of the container as a stream on standard output, and a stream on standard input as files of the container.
 * This process is inside, where the kernel resolves each path; the host's side, rootless/container/everyday/, makes of
 * the stream a tar archive or files, and trusts none of it. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/* Then come the path from the tree's root, the target of a symlink or hard link, the content. */
struct entry {
    uint32_t mode, uid, gid, path_length, target_length, reserved;
    int64_t mtime;
    uint64_t size;
};
_Static_assert(sizeof(struct entry) == 40, "rootless/container/everyday/tree_stream.py packs 40 bytes");

static char path[PATH_MAX], target[PATH_MAX], content[1 << 16];

static int put(int fd, const void *data, size_t size)
{
    for (ssize_t n; size > 0; data = (const char *)data + n, size -= (size_t)n) {
        n = write(fd, data, size);
        if (n < 0)
            return failed("write");
    }
    return 0;
}

/* Returns 0, or at end of file -ENODATA. */
static int get(void *data, size_t size)
{
    for (ssize_t n; size > 0; data = (char *)data + n, size -= (size_t)n) {
        n = read(0, data, size);
        if (n <= 0)
            return n < 0 ? failed("read") : failed_with("read", ENODATA);
    }
    return 0;
}

/* A file that has become shorter meanwhile ends with zeros. */
static int send_content(int fd, uint64_t size)
{
    int result = 0;

    for (uint64_t n; result == 0 && size > 0; size -= n) {
        n = size < sizeof content ? size : sizeof content;
        ssize_t there = read(fd, content, (size_t)n);

        if (there < 0)
            return failed("read");
        memset(content + there, 0, (size_t)n - (size_t)there);
        result = put(1, content, (size_t)n);
    }
    return result;
}

static int send_entry(int parent, const char *name, size_t length, int follow, bool deep);

static int send_children(int fd, size_t length)
{
    _Alignas(struct directory_entry) char entries[2048];
    struct statfs fs;
    long size, result = 0;

    /* endless, and nobody's data */
    if (fstatfs(fd, &fs) == 0 && (fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC))
        return 0;
    while (result == 0 && (size = sys_getdents64(fd, entries, sizeof entries)) != 0) {
        if (size < 0)
            return failed("getdents64");
        for (long at = 0; result == 0 && at < size;) {
            const struct directory_entry *child = (const void *)(entries + at);
            size_t more = strlen(child->name) + (length > 0);

            at += child->length;
            if (strcmp(child->name, ".") == 0 || strcmp(child->name, "..") == 0)
                continue;
            if (length + more >= sizeof path)
                return failed_with("openat", ENAMETOOLONG);
            snprintf(path + length, sizeof path - length, "%s%s", length > 0 ? "/" : "", child->name);
            result = send_entry(fd, child->name, length + more, AT_SYMLINK_NOFOLLOW, true);
            if (result == -ENOENT) /* somebody has just removed it */
                result = 0;
        }
    }
    return (int)result;
}

/* The first `length` bytes of `path` are its path in the tree. */
static int send_entry(int parent, const char *name, size_t length, int follow, bool deep)
{
    int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (follow == AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0);
    cleanup_close int fd = -1;
    ssize_t link = 0;
    struct entry entry;
    struct stat st;
    int result;

    if (fstatat(parent, name, &st, follow) < 0)
        return failed("fstatat");
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
        fd = openat(parent, name, flags);
        if (fd < 0 || fstat(fd, &st) < 0) /* again: it may be another one */
            return failed("openat");
    } else if (S_ISLNK(st.st_mode)) {
        link = readlinkat(parent, name, target, sizeof target);
        if (link < 0)
            return failed("readlinkat");
    }
    entry = (struct entry){
        .mode = st.st_mode,
        .uid = st.st_uid,
        .gid = st.st_gid,
        .path_length = (uint32_t)length,
        .target_length = (uint32_t)link,
        .mtime = st.st_mtime,
        .size = deep && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0,
    };
    result = put(1, &entry, sizeof entry);
    if (result == 0)
        result = put(1, path, length);
    if (result == 0)
        result = put(1, target, (size_t)link);
    if (result < 0 || !deep)
        return result;
    return S_ISDIR(st.st_mode) ? send_children(fd, length) : send_content(fd, entry.size);
}

/* String: a path of the container. Number: whether it is sent with everything below, or only what it is. */
int op_send_tree(const struct op *op)
{
    return send_entry(AT_FDCWD, text(op, SEND_TREE_PATH), 0, 0, op->n[SEND_TREE_DEEP]);
}

static int receive_content(int fd, uint64_t size)
{
    int result = 0;

    for (uint64_t n; result == 0 && size > 0; size -= n) {
        n = size < sizeof content ? size : sizeof content;
        result = get(content, (size_t)n);
        if (result == 0)
            result = put(fd, content, (size_t)n);
    }
    return result;
}

/* An existing directory stays; an existing file is replaced, unless it is a mount. */
static int make(int parent, const char *name, int root, const struct entry *entry)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = entry->mtime}};
    cleanup_close int fd = -1;
    int result = 0, flags = O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;

    if (S_ISDIR(entry->mode)) {
        if (mkdirat(parent, name, 0700) < 0)
            return errno == EEXIST ? 0 : failed("mkdirat");
        fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    } else {
        /* not a file that another user makes meanwhile, and could change when it has this mode and owner */
        flags |= unlinkat(parent, name, 0) < 0 && errno == EBUSY ? O_TRUNC : O_EXCL;
        if (S_ISLNK(entry->mode) && symlinkat(target, parent, name) < 0)
            return failed("symlinkat");
        if (S_ISFIFO(entry->mode) && mknodat(parent, name, entry->mode, 0) < 0)
            return failed("mknodat");
        if (S_ISREG(entry->mode) && entry->target_length > 0)
            return linkat(root, target, parent, name, 0) < 0 ? failed("linkat") : 0;
        if (S_ISREG(entry->mode))
            fd = openat(parent, name, flags, 0600);
    }
    if (fd < 0 && (S_ISDIR(entry->mode) || S_ISREG(entry->mode)))
        return failed("openat");
    if (fd >= 0)
        result = receive_content(fd, entry->size);
    if (result < 0)
        return result;
    /* the owner first: changing it takes the setuid bit away */
    if (fchownat(parent, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return failed("fchownat");
    if (fd >= 0 && fchmod(fd, entry->mode & 07777) < 0)
        return failed("fchmod");
    if (!S_ISDIR(entry->mode) && utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return failed("utimensat");
    return 0;
}

/* String: a directory of the container. Below it no symlink is followed: one that another user of the container makes
 * meanwhile leads nowhere. An entry of mode 0 ends the stream. */
int op_receive_tree(const struct op *op)
{
    cleanup_close int root = open(text(op, RECEIVE_TREE_PATH), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    struct entry entry;
    int result;

    if (root < 0)
        return failed("open");
    for (;;) {
        cleanup_close int parent = -1;
        char *slash;

        result = get(&entry, sizeof entry);
        if (result < 0 || entry.mode == 0)
            return result;
        if (entry.path_length >= sizeof path || entry.target_length >= sizeof target)
            return failed_with("openat2", ENAMETOOLONG);
        result = get(path, entry.path_length);
        if (result == 0)
            result = get(target, entry.target_length);
        if (result < 0)
            return result;
        path[entry.path_length] = target[entry.target_length] = '\0';
        slash = strrchr(path, '/');
        if (slash)
            *slash = '\0';
        parent = sys_openat2(root, slash ? path : ".", &how);
        if (parent < 0)
            return failed("openat2");
        result = make(parent, slash ? slash + 1 : path, root, &entry);
        if (result < 0)
            return result;
    }
}
