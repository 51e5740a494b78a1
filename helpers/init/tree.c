/* cp: files of the container as a stream on standard output, and a stream on standard input as files of the container.
 * This process is inside, where the kernel resolves each path; the host's side, rootless/container/inside/, makes of
 * the stream a tar archive or files, and trusts none of it. */
#include "init.h"

#include <dirent.h>
#include <linux/limits.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

/* Then come the path from the tree's root, the target of a symlink or hard link, the attributes, the content. */
struct entry {
    uint32_t mode, uid, gid, path_length, target_length, attributes_length;
    int64_t mtime;
    uint64_t size;
    uint64_t device, inode; /* of a file with hard links; else 0 */
};
_Static_assert(sizeof(struct entry) == 56, "rootless/container/inside/tree_stream.py packs 56 bytes");

/* An extended attribute: then come its name with the NUL, and its value. */
struct attribute {
    uint32_t name_length, value_length;
};

static char path[PATH_MAX], target[PATH_MAX], content[1 << 16], attributes[1 << 18];

static int put(int fd, const void *data, size_t size)
{
    for (ssize_t n; size > 0; data = (const char *)data + n, size -= (size_t)n) {
        n = SYS(write(fd, data, size));
    }
    return 0;
}

/* `whole`: at end of file it returns -ENODATA. A file that has become shorter meanwhile ends with zeros instead. */
static int get(int fd, void *data, size_t size, bool whole)
{
    for (ssize_t n; size > 0; data = (char *)data + n, size -= (size_t)n) {
        n = SYS(read(fd, data, size));
        if (n > 0)
            continue;
        if (whole)
            return failed_with("read", ENODATA);
        memset(data, 0, size);
        n = (ssize_t)size;
    }
    return 0;
}

static size_t part(uint64_t size) { return size < sizeof content ? (size_t)size : sizeof content; }

static int send_content(int from, uint64_t size)
{
    for (size_t n; size > 0; size -= n) {
        n = part(size);
        TRY(get(from, content, n, false));
        TRY(put(STDOUT_FILENO, content, n));
    }
    return 0;
}

/* A part that is all zeros becomes a hole. */
static int receive_content(int to, uint64_t size)
{
    bool hole = false;

    for (uint64_t left = size, n; left > 0; left -= n) {
        n = part(left);
        TRY(get(STDIN_FILENO, content, n, true));
        hole = n == sizeof content && content[0] == 0 && memcmp(content, content + 1, n - 1) == 0;
        if (hole)
            SYS(lseek(to, (off_t)n, SEEK_CUR));
        else
            TRY(put(to, content, n));
    }
    return hole ? SYS(ftruncate(to, (off_t)size)) : 0;
}

/* Puts the extended attributes of a file into `attributes`, and returns their length. One that cannot be read is left
 * out: another process has removed it, or it is a capability for another user namespace. */
static int collect_attributes(int fd)
{
    static char names[XATTR_LIST_MAX];
    const ssize_t size = flistxattr(fd, names, sizeof names);
    size_t used = 0;

    if (size < 0)
        return errno == ENOTSUP ? 0 : failed("flistxattr");
    for (const char *name = names; name < names + size; name += strlen(name) + 1) {
        struct attribute head = {.name_length = (uint32_t)strlen(name) + 1};
        char *value = attributes + used + sizeof head + head.name_length;
        ssize_t length;

        if (used + sizeof head + head.name_length + XATTR_SIZE_MAX > sizeof attributes)
            return failed_with("fgetxattr", E2BIG);
        length = fgetxattr(fd, name, value, XATTR_SIZE_MAX);
        if (length < 0)
            continue;
        head.value_length = (uint32_t)length;
        memcpy(attributes + used, &head, sizeof head);
        memcpy(attributes + used + sizeof head, name, head.name_length);
        used += sizeof head + head.name_length + head.value_length;
    }
    return (int)used;
}

static int send_entry(int parent, const char *name, size_t length, int follow, bool deep);

static int send_children(int fd, size_t length)
{
    _Alignas(struct dirent) char entries[2048];
    struct statfs fs;
    int size;

    /* endless, and nobody's data */
    if (fstatfs(fd, &fs) == 0 && (fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC))
        return 0;
    while ((size = SYSCALL(getdents64, fd, entries, sizeof entries)) > 0)
        for (int at = 0; at < size;) {
            const struct dirent *child = (const void *)(entries + at);
            size_t more = strlen(child->d_name) + (length > 0);
            int result;

            at += child->d_reclen;
            if (strcmp(child->d_name, ".") == 0 || strcmp(child->d_name, "..") == 0)
                continue;
            if (length + more >= sizeof path)
                return failed_with("openat", ENAMETOOLONG);
            snprintf(path + length, sizeof path - length, "%s%s", length > 0 ? "/" : "", child->d_name);
            result = send_entry(fd, child->d_name, length + more, AT_SYMLINK_NOFOLLOW, true);
            if (result < 0 && result != -ENOENT) /* somebody has just removed it */
                return result;
        }
    return 0;
}

/* Describes a file, and opens it if it has content; a symlink leaves the length of its target in `link`. A file of
 * another kind may take the name meanwhile. */
static int look_at(int parent, const char *name, int follow, struct stat *st, ssize_t *link, int *fd)
{
    enum { ATTEMPTS = 100 };
    int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (follow == AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0);

    for (int attempt = 1;; attempt++) {
        SYS(fstatat(parent, name, st, follow));
        if (S_ISLNK(st->st_mode)) {
            *link = readlinkat(parent, name, target, sizeof target);
            if (*link >= 0)
                return 0;
            if (errno != EINVAL || attempt == ATTEMPTS)
                return failed("readlinkat");
        } else if (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) {
            *fd = openat(parent, name, flags);
            if (*fd >= 0)
                return SYS(fstat(*fd, st));
            if (errno != ELOOP || attempt == ATTEMPTS)
                return failed("openat");
        } else {
            return 0;
        }
    }
}

/* The first `length` bytes of `path` are its path in the tree. */
static int send_entry(int parent, const char *name, size_t length, int follow, bool deep)
{
    cleanup_close int fd = -1;
    ssize_t link = 0;
    struct entry entry;
    struct stat st;

    TRY(look_at(parent, name, follow, &st, &link, &fd));
    entry = (struct entry){
        .mode = st.st_mode,
        .uid = st.st_uid,
        .gid = st.st_gid,
        .path_length = (uint32_t)length,
        .target_length = (uint32_t)link,
        .attributes_length = deep && fd >= 0 ? (uint32_t)TRY(collect_attributes(fd)) : 0,
        .mtime = st.st_mtime,
        .size = deep && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0,
    };
    if (st.st_nlink > 1 && !S_ISDIR(st.st_mode)) {
        entry.device = st.st_dev;
        entry.inode = st.st_ino;
    }
    TRY(put(STDOUT_FILENO, &entry, sizeof entry));
    TRY(put(STDOUT_FILENO, path, length));
    TRY(put(STDOUT_FILENO, target, (size_t)link));
    TRY(put(STDOUT_FILENO, attributes, entry.attributes_length));
    if (!deep || fd < 0)
        return 0;
    return S_ISDIR(st.st_mode) ? send_children(fd, length) : send_content(fd, entry.size);
}

/* `deep`: with everything below, or only what it is. `alone`: as if nothing were mounted below. */
int op_send_tree(bool deep, bool alone, const char *from)
{
    cleanup_close int tree = -1;

    if (!alone)
        return send_entry(AT_FDCWD, from, 0, 0, deep);
    tree = SYSCALL(open_tree, AT_FDCWD, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    return send_entry(tree, ".", 0, AT_SYMLINK_NOFOLLOW, deep);
}

/* The directory below `root` that holds `what`, which is called `name` there. No symlink is followed: one that another
 * user of the container makes meanwhile leads nowhere. */
static int open_holder(int root, const char *what, const char **name)
{
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    char directory[PATH_MAX];

    TRY(split(what, directory, name));
    return SYSCALL(openat2, root, directory, &how, sizeof how);
}

static int link_to(const char *existing, int root, int parent, const char *name)
{
    const char *old;
    cleanup_close int holder = TRY(open_holder(root, existing, &old));

    return SYS(linkat(holder, old, parent, name, 0));
}

/* Gives a file the first `length` bytes of `attributes`. A file system without attributes, or a mount that does not
 * allow one, is reported as a skip: the file is more than they. */
static int set_attributes(int fd, size_t length)
{
    static bool told;
    struct attribute head;
    size_t next;

    for (size_t at = 0; at < length; at = next) {
        const char *name = attributes + at + sizeof head;

        if (length - at < sizeof head)
            return failed_with("fsetxattr", EBADMSG);
        memcpy(&head, attributes + at, sizeof head);
        next = at + sizeof head + head.name_length + head.value_length;
        if (next > length || head.name_length == 0 || name[head.name_length - 1] != '\0')
            return failed_with("fsetxattr", EBADMSG);
        if (fsetxattr(fd, name, name + head.name_length, head.value_length, 0) == 0)
            continue;
        if (errno != ENOTSUP && errno != EPERM)
            return failed("fsetxattr");
        if (!told)
            report_failure(MESSAGE_SKIPPED, (int)self.position, -failed("fsetxattr"));
        told = true;
    }
    return 0;
}

/* An existing directory stays; an existing file is replaced, unless it is a mount. */
static int make(int parent, const char *name, int root, const struct entry *entry)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = entry->mtime}};
    cleanup_close int fd = -1;
    int flags = O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    struct stat st;

    if (S_ISDIR(entry->mode)) {
        if (mkdirat(parent, name, 0700) < 0)
            return errno == EEXIST ? 0 : failed("mkdirat");
        fd = SYS(openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    } else {
        /* not a file that another user makes meanwhile, and could change when it has this mode and owner */
        flags |= unlinkat(parent, name, 0) < 0 && errno == EBUSY ? O_TRUNC : O_EXCL;
        if (S_ISLNK(entry->mode))
            SYS(symlinkat(target, parent, name));
        if (S_ISFIFO(entry->mode))
            SYS(mknodat(parent, name, entry->mode, 0));
        if (S_ISREG(entry->mode) && entry->target_length > 0)
            return link_to(target, root, parent, name);
        if (S_ISREG(entry->mode))
            fd = SYS(openat(parent, name, flags, 0600));
    }
    if (fd >= 0)
        TRY(receive_content(fd, entry->size));
    else
        fd = SYS(openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    /* a name may stand for a file of another kind by now, whose owner must stay */
    SYS(fstat(fd, &st));
    if ((st.st_mode & S_IFMT) != (entry->mode & S_IFMT))
        return failed_with("openat", ESTALE);
    /* the owner first: changing it takes the setuid bit away */
    SYS(fchownat(fd, "", entry->uid, entry->gid, AT_EMPTY_PATH));
    if (S_ISREG(entry->mode) || S_ISDIR(entry->mode)) {
        SYS(fchmod(fd, entry->mode & 07777));
        TRY(set_attributes(fd, entry->attributes_length));
    }
    if (!S_ISDIR(entry->mode))
        SYS(utimensat(fd, "", times, AT_EMPTY_PATH));
    return 0;
}

/* An entry of mode 0 ends the stream. */
int op_receive_tree(const char *into)
{
    cleanup_close int root = SYS(open(into, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    struct entry entry;

    for (;;) {
        cleanup_close int parent = -1;
        const char *name;

        TRY(get(STDIN_FILENO, &entry, sizeof entry, true));
        if (entry.mode == 0)
            return 0;
        if (entry.path_length >= sizeof path || entry.target_length >= sizeof target)
            return failed_with("openat2", ENAMETOOLONG);
        if (entry.attributes_length > sizeof attributes)
            return failed_with("fsetxattr", E2BIG);
        TRY(get(STDIN_FILENO, path, entry.path_length, true));
        TRY(get(STDIN_FILENO, target, entry.target_length, true));
        TRY(get(STDIN_FILENO, attributes, entry.attributes_length, true));
        path[entry.path_length] = target[entry.target_length] = '\0';
        parent = TRY(open_holder(root, path, &name));
        TRY(make(parent, name, root, &entry));
    }
}
