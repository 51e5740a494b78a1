/* Mounts: made detached, given their attributes, then attached to a descriptor. No target is ever named by a string,
 * and no mount is visible before it has the attributes that were asked for. */
#include "init.h"

#include <sys/sysmacros.h>

static int trees[MOST_TREES]; /* of TREE */
static unsigned made;
static int mask_fd = -1; /* an empty read-only tmpfs that masks directories */

/* `flags`: AT_RECURSIVE or 0. */
static int set_attributes(int fd, unsigned flags, uint64_t set, uint64_t clear)
{
    struct mount_attr attr = {.attr_set = set, .attr_clr = clear};

    return set || clear ? SYSCALL(mount_setattr, fd, "", AT_EMPTY_PATH | flags, &attr, sizeof attr) : 0;
}

/* Of the mount that `path` names below `directory`; an empty one names that itself. */
static int set_propagation(int directory, const char *path, unsigned flags, uint64_t propagation)
{
    struct mount_attr attr = {.propagation = propagation};

    return propagation ? SYSCALL(mount_setattr, directory, path, AT_EMPTY_PATH | flags, &attr, sizeof attr) : 0;
}

static int apply(int fd, const struct change *change)
{
    struct mount_attr ids = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (unsigned)self.id_map_fd};
    unsigned below = change->flags & MAPPED_BELOW ? AT_RECURSIVE : 0;

    if (change->flags & (MAPPED | MAPPED_BELOW))
        SYS_AS("mount_setattr(MOUNT_ATTR_IDMAP)",
               syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | below, &ids, sizeof ids));
    TRY(set_attributes(fd, 0, change->set, change->clear));
    TRY(set_attributes(fd, AT_RECURSIVE, change->set_below, change->clear_below));
    return set_propagation(fd, "", change->flags & RECURSIVE_PROPAGATION ? AT_RECURSIVE : 0, change->propagation);
}

/* `keep`: what is below `path` is looked up in this mount from now on. */
int attach(const char *path, bool keep, int mount_fd, int target_fd)
{
    struct stat mount, target;

    /* the kernel's EINVAL could mean anything */
    if (fstat(mount_fd, &mount) == 0 && fstat(target_fd, &target) == 0 &&
        S_ISDIR(mount.st_mode) != S_ISDIR(target.st_mode))
        return failed_with("move_mount", ENOTDIR);
    SYSCALL(move_mount, mount_fd, "", target_fd, "", FD_TO_FD);
    return pin_mount(path, mount_fd, keep);
}

static int apply_and_attach(const struct change *change, const char *path, int mount_fd, int target_fd)
{
    TRY(apply(mount_fd, change));
    return attach(path, change->flags & PLAIN_TARGET, mount_fd, target_fd);
}

static uint64_t target_resolution(const struct change *change)
{
    return change->flags & PLAIN_TARGET ? RESOLVE_NO_SYMLINKS : 0;
}

int op_propagation(unsigned flags, uint64_t propagation)
{
    return set_propagation(AT_FDCWD, "/", flags & RECURSIVE_PROPAGATION ? AT_RECURSIVE : 0, propagation);
}

/* In a mount namespace of its own: the host's changes arrive, and none goes there. */
int op_readonly_host(void)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY, .propagation = MS_SLAVE};

    return SYSCALL(mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof attr);
}

/* For a mount on this directory: pivot_root(2) refuses a new root whose parent mount is shared, and the host must not
 * get the mount as well. Only the top of a mount can be changed, and that is somewhere above. */
int make_parent_private(int directory)
{
    struct stat here, above;
    cleanup_close int fd = SYS(openat(directory, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    int result;

    while ((result = set_propagation(fd, "", 0, MS_PRIVATE)) == -EINVAL) {
        cleanup_close int child = steal_fd(&fd);

        fd = SYS(openat(child, "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
        SYS(fstat(child, &here));
        SYS(fstat(fd, &above));
        if (here.st_dev == above.st_dev && here.st_ino == above.st_ino)
            return 0; /* the top of a chroot that is no mount: pivot_root reports it */
    }
    return result;
}

/* `propagation` 0: as the mount that it covers. pivot_root(2) takes no shared root.
 *
 * A file system that FUSE has mounted goes on the root of this mount namespace, where the host's paths, which are
 * looked up from below it, still lead where they did. */
int op_root(uint64_t propagation, const char *path)
{
    cleanup_close int tree = steal_fd(&self.root_fd);
    cleanup_close int target = SYS(open(tree >= 0 ? "/" : path, O_PATH | O_DIRECTORY | O_CLOEXEC));

    if (tree < 0)
        tree = SYSCALL(open_tree, target, "", COPY_OF_FD | AT_RECURSIVE);
    if (propagation)
        TRY(make_parent_private(target));
    TRY(set_propagation(tree, "", 0, propagation));
    TRY(attach("", false, tree, target));
    self.root_fd = steal_fd(&tree);
    return 0;
}

/* What the kernel has to say about a file system's options is in the context: "e tmpfs: Unknown parameter 'x'". */
static int filesystem_failed(int fs, const char *call)
{
    char message[1024];
    int result = failed(call);
    ssize_t n = read(fs, message, sizeof message);

    if (n > 2)
        explain_failure(message + 2, (size_t)n - 2);
    return result;
}

static int configure(int fs, const char *call, unsigned command, const char *key, const char *value)
{
    return syscall(SYS_fsconfig, fs, command, key, value, 0) < 0 ? filesystem_failed(fs, call) : 0;
}

static int configure_all(int fs, struct bytes options)
{
    for (const char *option = next_item(options, NULL); option; option = next_item(options, option)) {
        size_t length = strcspn(option, "=");
        const char *value = option[length] ? option + length + 1 : NULL;
        char key[256];

        if (length >= sizeof key)
            return failed_with("fsconfig", EINVAL);
        memcpy(key, option, length);
        key[length] = '\0';
        TRY(configure(fs, "fsconfig", value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key, value));
    }
    return 0;
}

int new_mount(const char *type, const struct option *own, size_t count, struct bytes options, uint64_t set)
{
    int mount_fd;
    cleanup_close int fs = SYSCALL(fsopen, type, FSOPEN_CLOEXEC);

    for (size_t i = 0; i < count; i++)
        TRY(configure(fs, "fsconfig", FSCONFIG_SET_STRING, own[i].name, own[i].value));
    TRY(configure_all(fs, options));
    TRY(configure(fs, "mount", FSCONFIG_CMD_CREATE, NULL, NULL));
    mount_fd = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, (unsigned)set);
    return mount_fd < 0 ? filesystem_failed(fs, "fsmount") : mount_fd;
}

static int mount_legacy(const struct change *change, const char *type, const char *source, const char *path, int target,
                        struct bytes options)
{
    enum { MOST = 4096 }; /* that the kernel reads of the options, one string here */
    /* these have the numbers of the attributes; whatever else was asked for is set once it is there */
    uint64_t flags = change->set & (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    cleanup_close int mounted = -1;

    if (options.length > MOST)
        return failed_with("mount", E2BIG);
    SYS(fchdir(target));
    SYSCALL(mount, source, ".", type, flags, options.at);
    mounted = TRY(open_inside(path, O_PATH, target_resolution(change)));
    TRY(apply(mounted, change));
    return pin_mount(path, mounted, change->flags & PLAIN_TARGET);
}

int op_mount(const struct change *change, const char *type, const char *source, const char *path, struct bytes options)
{
    struct stat covered;
    char mode[8];
    struct option own[2] = {{"source", source}, {"mode", mode}};
    size_t first = *source ? 0 : 1, count = 1;
    cleanup_close int mount_fd = -1, target = open_inside(path, O_PATH, target_resolution(change));

    if (target >= 0 && change->flags & KEEP_MODE && fstat(target, &covered) == 0) {
        snprintf(mode, sizeof mode, "%o", covered.st_mode & 07777);
        count = 2;
    }
    if (target < 0)
        target = TRY(open_or_create(path, true, target_resolution(change)));
    if (change->flags & LEGACY)
        return mount_legacy(change, type, source, path, target, options);
    /* copying needs to write: a read-only mount becomes one in apply() */
    mount_fd = TRY(new_mount(type, own + first, count - first, options, change->set & ~(uint64_t)MOUNT_ATTR_RDONLY));
    if (change->flags & COPY_UP)
        TRY(copy_up(target, mount_fd));
    return apply_and_attach(change, path, mount_fd, target);
}

static int copy_of(const char *path, const struct change *change)
{
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (change->flags & RECURSIVE ? AT_RECURSIVE : 0);

    flags |= change->flags & (SOURCE_LINK | COPY_LINK) ? AT_SYMLINK_NOFOLLOW : 0;
    return SYSCALL(open_tree, AT_FDCWD, path, flags);
}

/* A copy of mounts of the host, made before any namespace is entered: only root of the host may change
 * what is mounted over there. A BIND attaches it. */
int op_tree(const struct change *change, const char *source)
{
    cleanup_close int fd = -1;

    if (made == MOST_TREES)
        return failed_with("open_tree", E2BIG);
    fd = TRY(copy_of(source, change));
    TRY(apply(fd, change));
    trees[made++] = steal_fd(&fd);
    return 0;
}

/* A descriptor of a TREE: the operation that takes it may be tried again. */
int tree_of(uint64_t number)
{
    return number < made ? SYS(fcntl(trees[number], F_DUPFD_CLOEXEC, 0)) : failed_with("open_tree", EBADF);
}

/* Makes the symlink `source` in the container, which may have the same one already. */
static int copy_link(int source, const char *path)
{
    char wanted[PATH_MAX], found[PATH_MAX];
    const char *name;
    cleanup_close int parent = TRY(open_parent(path, &name));
    ssize_t length = SYS_AS("readlink", readlinkat(source, "", wanted, sizeof wanted - 1));
    int result;

    wanted[length] = '\0';
    result = symlinkat(wanted, parent, name) < 0 ? failed("symlink") : 0;
    if (result == -EEXIST && readlinkat(parent, name, found, sizeof found) == length &&
        memcmp(found, wanted, (size_t)length) == 0)
        return 0;
    return result;
}

int op_bind(const struct change *change, const char *source, const char *path)
{
    struct stat st;
    cleanup_close int copy = -1, target = -1;

    copy = TRY(change->flags & PREPARED ? tree_of(change->flags >> TREE_SHIFT) : copy_of(source, change));
    SYS(fstat(copy, &st));
    if (change->flags & COPY_LINK && S_ISLNK(st.st_mode))
        return copy_link(copy, path);
    if (change->flags & TARGET_LINK)
        target = open_inside(path, O_PATH | O_NOFOLLOW, target_resolution(change));
    if (target < 0)
        target = TRY(open_or_create(path, S_ISDIR(st.st_mode), target_resolution(change)));
    return apply_and_attach(change, path, copy, target);
}

int op_remount(const struct change *change, const char *path, struct bytes options)
{
    cleanup_close int fs = -1, target = TRY(open_inside(path, O_PATH, 0));

    if (options.length) {
        fs = SYSCALL(fspick, target, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);
        TRY(configure_all(fs, options));
        TRY(configure(fs, "fsconfig", FSCONFIG_CMD_RECONFIGURE, NULL, NULL));
    }
    return apply(target, change);
}

/* An empty file system that nobody can write to, as a detached mount. */
static int empty_filesystem(void)
{
    return new_mount("tmpfs", OPTIONS({"source", "tmpfs"}, {"size", "0k"}, {"nr_inodes", "2"}), (struct bytes){NULL, 0},
                     MOUNT_ATTR_RDONLY);
}

/* A copy of the mount of a file of the host. Changes of the host's mount do not reach it, and criu
 * restores only mounts whose peers are in the container. */
int private_copy(const char *path, struct stat *st)
{
    cleanup_close int fd = SYSCALL(open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    SYS(fstat(fd, st));
    TRY(set_propagation(fd, "", 0, MS_PRIVATE));
    return steal_fd(&fd);
}

/* A file with this text, for the container alone; nothing of the host that is mounted there gets one. Its file system
 * is attached for a moment, since older kernels copy no detached one. */
int op_text_file(const char *directory, const char *name, const char *text)
{
    char attached[40];
    int copied;
    cleanup_close int parent = TRY(open_inside(directory, O_PATH | O_DIRECTORY, RESOLVE_NO_XDEV));
    cleanup_close int fd = -1, target = -1, file = -1;
    cleanup_close int memory =
        TRY(new_mount("tmpfs", OPTIONS({"source", "tmpfs"}, {"size", "64k"}, {"nr_inodes", "2"}, {"mode", "0755"}),
                      (struct bytes){NULL, 0}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));

    fd = SYS(openat(memory, "text", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    SYS(write(fd, text, strlen(text)));
    close_now(&fd);
    target = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (target < 0)
        target = SYS(openat(parent, name, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
    SYSCALL(move_mount, memory, "", parent, "", FD_TO_FD);
    file = (int)syscall(SYS_open_tree, memory, "text", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    copied = file < 0 ? failed("open_tree") : 0;
    snprintf(attached, sizeof attached, "/proc/self/fd/%d", memory);
    SYSCALL(umount2, attached, MNT_DETACH);
    TRY(copied);
    TRY(set_attributes(file, 0, MOUNT_ATTR_RDONLY, 0));
    return attach("", false, file, target);
}

/* The host's /dev/null covers a file, and only if it is that device (CVE-2025-31133). */
static int host_null(void)
{
    struct stat st;
    cleanup_close int fd = private_copy("/dev/null", &st);

    /* ENOENT would say that the path to mask is absent, and leave it readable */
    if (fd == -ENOENT || fd == -ENOTDIR || (fd >= 0 && (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))))
        return failed_with("open_tree", ENODEV);
    return steal_fd(&fd);
}

/* One file system serves for all directories: the first mount is copied once it is attached, for older kernels copy no
 * detached one. */
int op_mask(const char *path)
{
    struct stat st;
    cleanup_close int cover = -1, target = TRY(open_inside(path, O_PATH, 0));

    SYS(fstat(target, &st));
    if (S_ISDIR(st.st_mode) && mask_fd >= 0)
        cover = SYSCALL(open_tree, mask_fd, "", COPY_OF_FD);
    else
        cover = TRY(S_ISDIR(st.st_mode) ? empty_filesystem() : host_null());
    TRY(attach(path, false, cover, target));
    if (S_ISDIR(st.st_mode) && mask_fd < 0)
        mask_fd = steal_fd(&cover);
    return 0;
}

int op_readonly_path(const char *path)
{
    cleanup_close int target = TRY(open_inside(path, O_PATH, 0));
    cleanup_close int tree = SYSCALL(open_tree, target, "", COPY_OF_FD | AT_RECURSIVE);

    TRY(set_attributes(tree, AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0));
    return attach(path, false, tree, target);
}

int op_root_attributes(const struct change *change) { return apply(self.root_fd, change); }

int op_pivot(void)
{
    cleanup_close int old = SYS(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));

    SYS(fchdir(self.root_fd));
    SYSCALL(pivot_root, ".", ".");
    /* the old root lies on the new one now; its unmounting must not reach the host */
    SYS(fchdir(old));
    TRY(set_propagation(old, "", AT_RECURSIVE, MS_SLAVE));
    SYSCALL(umount2, ".", MNT_DETACH);
    return SYS(chdir("/"));
}

/* Covers a mount of the old root, which stays in the namespace below a new one. Unmounted, it could go on the host as
 * well, where its parent is shared. */
int op_hide_mount(const char *point)
{
    int result = set_propagation(AT_FDCWD, point, 0, MS_PRIVATE);
    cleanup_close int mount_fd = -1;

    if (result == -EINVAL) /* a mount below another one cannot be named */
        return failed_with("mount_setattr", ENOENT);
    TRY(result);
    mount_fd = TRY(empty_filesystem());
    return SYSCALL(move_mount, mount_fd, "", AT_FDCWD, point, MOVE_MOUNT_F_EMPTY_PATH);
}

/* `move`: the root goes over the old one, so that leaving the chroot leads nowhere. */
int op_chroot(bool move)
{
    SYS(fchdir(self.root_fd));
    if (move)
        SYSCALL(move_mount, self.root_fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH);
    SYS(chroot("."));
    return SYS(chdir("/"));
}
