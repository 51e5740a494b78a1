/* Mounts: made detached, given their attributes, then attached to a descriptor. No target is ever named by a string,
 * and no mount is visible before it has the attributes that were asked for. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static int set_attributes(int fd, bool recursive, int64_t set, int64_t clear, int64_t propagation)
{
    struct mount_attr attr = {
        .attr_set = (uint64_t)set,
        .attr_clr = (uint64_t)clear,
        .propagation = (uint64_t)propagation,
    };

    if (set == 0 && clear == 0 && propagation == 0)
        return 0;
    return sys_mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr);
}

static int map_ids(int mount_fd, const struct op *op)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (unsigned)self.id_map_fd};

    return sys_mount_setattr(mount_fd, "", AT_EMPTY_PATH | (op->n[MOUNT_FLAGS] & MAPPED_BELOW ? AT_RECURSIVE : 0),
                             &attr);
}

/* MOUNT, BIND, TREE, REMOUNT and ROOT_ATTRIBUTES have their numbers in the same places. */
_Static_assert(MOUNT_CLEAR_BELOW == BIND_CLEAR_BELOW && MOUNT_CLEAR_BELOW == TREE_CLEAR_BELOW &&
                   MOUNT_CLEAR_BELOW == REMOUNT_CLEAR_BELOW && MOUNT_CLEAR_BELOW == ROOT_ATTRIBUTES_CLEAR_BELOW,
               "one layout of mount operations");

int apply(int fd, const struct op *op)
{
    if (op->n[MOUNT_FLAGS] & (MAPPED | MAPPED_BELOW) && map_ids(fd, op) < 0)
        return failed("mount_setattr(MOUNT_ATTR_IDMAP)");
    if (set_attributes(fd, false, op->n[MOUNT_SET], op->n[MOUNT_CLEAR], 0) < 0 ||
        set_attributes(fd, true, op->n[MOUNT_SET_BELOW], op->n[MOUNT_CLEAR_BELOW], 0) < 0 ||
        set_attributes(fd, op->n[MOUNT_FLAGS] & RECURSIVE_PROPAGATION, 0, 0, op->n[MOUNT_PROPAGATION]) < 0)
        return failed("mount_setattr");
    return 0;
}

int attach(int mount_fd, int target_fd)
{
    struct stat mount, target;

    /* the kernel's EINVAL could mean anything */
    if (fstat(mount_fd, &mount) == 0 && fstat(target_fd, &target) == 0 &&
        S_ISDIR(mount.st_mode) != S_ISDIR(target.st_mode))
        return failed_with("move_mount", ENOTDIR);
    if (sys_move_mount(mount_fd, "", target_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return failed("move_mount");
    return 0;
}

static int attach_and_pin(const char *path, bool keep, int mount_fd, int target_fd)
{
    int result = attach(mount_fd, target_fd);

    return result < 0 ? result : pin_mount(path, mount_fd, keep);
}

static uint64_t target_resolution(const struct op *op)
{
    return op->n[MOUNT_FLAGS] & PLAIN_TARGET ? RESOLVE_NO_SYMLINKS : 0;
}

static int apply_and_attach(const struct op *op, int path, int mount_fd, int target_fd)
{
    int result = apply(mount_fd, op);

    return result < 0 ? result : attach_and_pin(text(op, path), op->n[MOUNT_FLAGS] & PLAIN_TARGET, mount_fd, target_fd);
}

int op_propagation(const struct op *op)
{
    struct mount_attr attr = {.propagation = (uint64_t)op->n[PROPAGATION_PROPAGATION]};
    unsigned flags = op->n[PROPAGATION_FLAGS] & RECURSIVE_PROPAGATION ? AT_RECURSIVE : 0;

    return sys_mount_setattr(AT_FDCWD, "/", flags, &attr) < 0 ? failed("mount_setattr") : 0;
}

/* pivot_root(2) refuses a new root whose parent mount is shared. Only the top of a mount can be
 * changed, and the parent of `directory` is somewhere above it. */
int make_parent_private(int directory)
{
    struct stat here, above;
    cleanup_close int fd = openat(directory, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return failed("openat");
    while (set_attributes(fd, false, 0, 0, MS_PRIVATE) < 0) {
        cleanup_close int child = fd;

        fd = -1;
        if (errno != EINVAL)
            return failed("mount_setattr");
        fd = openat(child, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            return failed("openat");
        if (fstat(child, &here) < 0 || fstat(fd, &above) < 0)
            return failed("fstat");
        if (here.st_dev == above.st_dev && here.st_ino == above.st_ino)
            return 0; /* the top of a chroot that is no mount: pivot_root reports it */
    }
    return 0;
}

/* Number: how it propagates; pivot_root(2) takes no shared one. 0: as the mount that it covers.
 *
 * A file system that FUSE has mounted goes on the root of this mount namespace, where the host's paths, which are
 * looked up from below it, still lead where they did. */
int op_root(const struct op *op)
{
    int result;
    cleanup_close int tree = steal_fd(&self.root_fd);
    cleanup_close int target = open(tree >= 0 ? "/" : text(op, ROOT_PATH), O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (target < 0)
        return failed("open");
    if (tree < 0)
        tree = sys_open_tree(target, "", COPY_OF_FD | AT_RECURSIVE);
    if (tree < 0)
        return failed("open_tree");
    if (op->n[ROOT_PROPAGATION]) {
        result = make_parent_private(target);
        if (result < 0)
            return result;
        if (set_attributes(tree, false, 0, 0, op->n[ROOT_PROPAGATION]) < 0)
            return failed("mount_setattr");
    }
    result = attach(tree, target);
    if (result == 0)
        self.root_fd = steal_fd(&tree);
    return result;
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

static int configure(int fs, const struct op *op, int options)
{
    for (const char *option = plan_next(&self.plan, op, options, NULL); option;
         option = plan_next(&self.plan, op, options, option)) {
        const char *equals = strchr(option, '=');
        char key[256];

        if (!equals) {
            if (sys_fsconfig(fs, FSCONFIG_SET_FLAG, option, NULL) < 0)
                return -1;
            continue;
        }
        if ((size_t)(equals - option) >= sizeof key) {
            errno = EINVAL;
            return -1;
        }
        memcpy(key, option, (size_t)(equals - option));
        key[equals - option] = '\0';
        if (sys_fsconfig(fs, FSCONFIG_SET_STRING, key, equals + 1) < 0)
            return -1;
    }
    return 0;
}

int new_mount(const char *type, const struct option *own, size_t count, const struct op *op, int options,
              unsigned attributes)
{
    int mount_fd;
    cleanup_close int fs = sys_fsopen(type, FSOPEN_CLOEXEC);

    if (fs < 0)
        return failed("fsopen");
    for (size_t i = 0; i < count; i++)
        if (sys_fsconfig(fs, FSCONFIG_SET_STRING, own[i].name, own[i].value) < 0)
            return filesystem_failed(fs, "fsconfig");
    if (options >= 0 && configure(fs, op, options) < 0)
        return filesystem_failed(fs, "fsconfig");
    if (sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL) < 0)
        return filesystem_failed(fs, "mount");
    mount_fd = sys_fsmount(fs, FSMOUNT_CLOEXEC, attributes);
    return mount_fd < 0 ? filesystem_failed(fs, "fsmount") : mount_fd;
}

static int mount_legacy(const struct op *op, int target)
{
    static const char prefix[] = "/proc/self/fd/";
    char buffer[32], data[4096] = "", *path = utoa(buffer + sizeof buffer, (unsigned)target, 10);
    size_t length = op->s[MOUNT_OPTIONS].length;
    /* these have the numbers of the attributes; whatever else was asked for is set once it is there */
    unsigned long flags = (unsigned long)op->n[MOUNT_SET] & (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);

    path -= sizeof prefix - 1;
    memcpy(path, prefix, sizeof prefix - 1);
    if (length > sizeof data)
        return failed_with("mount", E2BIG);
    memcpy(data, text(op, MOUNT_OPTIONS), length);
    for (size_t i = 0; i + 1 < length; i++)
        if (data[i] == '\0')
            data[i] = ',';
    return sys_mount(text(op, MOUNT_SOURCE), path, text(op, MOUNT_TYPE), flags, data) < 0 ? failed("mount") : 0;
}

static int mount_and_adjust(const struct op *op, int target)
{
    cleanup_close int mounted = -1;
    int result = mount_legacy(op, target);

    if (result < 0)
        return result;
    mounted = open_inside(text(op, MOUNT_TARGET), O_PATH, target_resolution(op));
    if (mounted < 0)
        return failed("openat2");
    result = apply(mounted, op);
    return result < 0 ? result : pin_mount(text(op, MOUNT_TARGET), mounted, op->n[MOUNT_FLAGS] & PLAIN_TARGET);
}

int op_mount(const struct op *op)
{
    struct stat covered;
    int result, covers;
    cleanup_close int fs = -1, mount_fd = -1;
    cleanup_close int target = open_inside(text(op, MOUNT_TARGET), O_PATH, target_resolution(op));

    covers = target >= 0;
    if (!covers)
        target = open_or_create(text(op, MOUNT_TARGET), true, target_resolution(op));
    if (target < 0)
        return failed("openat2");
    if (op->n[MOUNT_FLAGS] & LEGACY)
        return mount_and_adjust(op, target);

    fs = sys_fsopen(text(op, MOUNT_TYPE), FSOPEN_CLOEXEC);
    if (fs < 0)
        return failed("fsopen");
    if (op->s[MOUNT_SOURCE].length && sys_fsconfig(fs, FSCONFIG_SET_STRING, "source", text(op, MOUNT_SOURCE)) < 0)
        return filesystem_failed(fs, "fsconfig");
    if (configure(fs, op, MOUNT_OPTIONS) < 0)
        return filesystem_failed(fs, "fsconfig");
    if (op->n[MOUNT_FLAGS] & KEEP_MODE && covers && fstat(target, &covered) == 0) {
        char mode[8];

        if (sys_fsconfig(fs, FSCONFIG_SET_STRING, "mode", utoa(mode + sizeof mode, covered.st_mode & 07777, 8)) < 0)
            return filesystem_failed(fs, "fsconfig");
    }
    if (sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL) < 0)
        return filesystem_failed(fs, "mount");
    /* copying needs to write: a read-only mount becomes one in apply() */
    mount_fd = sys_fsmount(fs, FSMOUNT_CLOEXEC, (unsigned)(op->n[MOUNT_SET] & ~(int64_t)MOUNT_ATTR_RDONLY));
    if (mount_fd < 0)
        return filesystem_failed(fs, "fsmount");
    result = op->n[MOUNT_FLAGS] & COPY_UP ? copy_up(target, mount_fd) : 0;
    return result < 0 ? result : apply_and_attach(op, MOUNT_TARGET, mount_fd, target);
}

static unsigned copy_flags(const struct op *op)
{
    return OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (op->n[BIND_FLAGS] & RECURSIVE ? AT_RECURSIVE : 0);
}

int copy_of(const char *path, const struct op *op)
{
    return sys_open_tree(AT_FDCWD, path,
                         copy_flags(op) | (op->n[BIND_FLAGS] & (SOURCE_LINK | COPY_LINK) ? AT_SYMLINK_NOFOLLOW : 0));
}

/* Makes the symlink `source` in the container, which may have the same one already. */
static int copy_link(const struct op *op, int source)
{
    char wanted[PATH_MAX], found[PATH_MAX];
    const char *name;
    cleanup_close int parent = open_parent(text(op, BIND_TARGET), &name);
    ssize_t length;
    int result;

    if (parent < 0)
        return failed("openat2");
    length = readlinkat(source, "", wanted, sizeof wanted - 1);
    if (length < 0)
        return failed("readlink");
    wanted[length] = '\0';
    if (symlinkat(wanted, parent, name) == 0)
        return 0;
    result = failed("symlink");
    if (result == -EEXIST && readlinkat(parent, name, found, sizeof found) == length &&
        memcmp(found, wanted, (size_t)length) == 0)
        return 0;
    return result;
}

static int open_target(const struct op *op, bool directory)
{
    int target = -1;

    if (op->n[BIND_FLAGS] & TARGET_LINK)
        target = open_inside(text(op, BIND_TARGET), O_PATH | O_NOFOLLOW, target_resolution(op));
    return target >= 0 ? target : open_or_create(text(op, BIND_TARGET), directory, target_resolution(op));
}

int op_bind(const struct op *op)
{
    struct stat st;
    int source, result;
    cleanup_close int ours = -1, target = -1;

    if (op->n[BIND_FLAGS] & PREPARED)
        source = next_tree(op); /* it stays open until a bind succeeds: this one may be tried again */
    else
        source = ours = copy_of(text(op, BIND_SOURCE), op);
    if (source < 0)
        return failed("open_tree");
    if (fstat(source, &st) < 0)
        return failed("fstat");
    if (op->n[BIND_FLAGS] & COPY_LINK && S_ISLNK(st.st_mode))
        return copy_link(op, source);
    target = open_target(op, S_ISDIR(st.st_mode));
    if (target < 0)
        return failed("openat2");
    result = apply_and_attach(op, BIND_TARGET, source, target);
    if (result == 0)
        ours = source;
    return result;
}

int op_remount(const struct op *op)
{
    cleanup_close int fs = -1, target = open_inside(text(op, REMOUNT_TARGET), O_PATH, 0);

    if (target < 0)
        return failed("openat2");
    if (op->s[REMOUNT_OPTIONS].length) {
        fs = sys_fspick(target, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);
        if (fs < 0)
            return failed("fspick");
        if (configure(fs, op, REMOUNT_OPTIONS) < 0 || sys_fsconfig(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL) < 0)
            return filesystem_failed(fs, "fsconfig");
    }
    return apply(target, op);
}

/* An empty file system that nobody can write to, as a detached mount. */
static int empty_filesystem(void)
{
    return new_mount("tmpfs", OPTIONS({"source", "tmpfs"}, {"size", "0k"}, {"nr_inodes", "2"}), NULL, -1,
                     MOUNT_ATTR_RDONLY);
}

/* A mount for a directory that is masked. One file system serves for all of them: the first mount is
 * copied once it is attached, for older kernels copy no detached one. */
static int empty_directory(void)
{
    int fd;

    if (self.mask_fd < 0)
        return empty_filesystem();
    fd = sys_open_tree(self.mask_fd, "", COPY_OF_FD);
    return fd < 0 ? failed("open_tree") : fd;
}

/* A copy of the mount of a file of the host. Changes of the host's mount do not reach it, and criu
 * restores only mounts whose peers are in the container. */
int private_copy(const char *path, struct stat *st)
{
    cleanup_close int fd = sys_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (fd < 0)
        return failed("open_tree");
    if (fstat(fd, st) < 0)
        return failed("fstat");
    if (set_attributes(fd, false, 0, 0, MS_PRIVATE) < 0)
        return failed("mount_setattr");
    return steal_fd(&fd);
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

int op_mask(const struct op *op)
{
    struct stat st;
    int result;
    cleanup_close int cover = -1, target = open_inside(text(op, MASK_TARGET), O_PATH, 0);

    if (target < 0)
        return failed("openat2");
    if (fstat(target, &st) < 0)
        return failed("fstat");
    cover = S_ISDIR(st.st_mode) ? empty_directory() : host_null();
    result = cover < 0 ? cover : attach_and_pin(text(op, MASK_TARGET), false, cover, target);
    if (result == 0 && S_ISDIR(st.st_mode) && self.mask_fd < 0)
        self.mask_fd = steal_fd(&cover);
    return result;
}

int op_readonly_path(const struct op *op)
{
    cleanup_close int tree = -1, target = open_inside(text(op, READONLY_PATH_TARGET), O_PATH, 0);

    if (target < 0)
        return failed("openat2");
    tree = sys_open_tree(target, "", COPY_OF_FD | AT_RECURSIVE);
    if (tree < 0)
        return failed("open_tree");
    if (set_attributes(tree, true, MOUNT_ATTR_RDONLY, 0, 0) < 0)
        return failed("mount_setattr");
    return attach_and_pin(text(op, READONLY_PATH_TARGET), false, tree, target);
}

int op_root_attributes(const struct op *op) { return apply(self.root_fd, op); }

int op_pivot(const struct op *op)
{
    struct mount_attr slave = {.propagation = MS_SLAVE};
    cleanup_close int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    (void)op;
    if (old < 0)
        return failed("open");
    if (fchdir(self.root_fd) < 0)
        return failed("fchdir");
    if (sys_pivot_root(".", ".") < 0)
        return failed("pivot_root");
    /* the old root lies on the new one now; its unmounting must not reach the host */
    if (fchdir(old) < 0)
        return failed("fchdir");
    if (sys_mount_setattr(AT_FDCWD, ".", AT_RECURSIVE, &slave) < 0)
        return failed("mount_setattr");
    if (sys_umount2(".", MNT_DETACH) < 0)
        return failed("umount2");
    return chdir("/") < 0 ? failed("chdir") : 0;
}

/* The text of a mount point in /proc/PID/mountinfo, where a space, for one, is \\040. */
static void unescape(char *text)
{
    char *end = text;

    for (const char *c = text; *c; c++)
        if (c[0] == '\\' && c[1] && c[2] && c[3]) {
            *end++ = (char)((c[1] - '0') << 6 | (c[2] - '0') << 3 | (c[3] - '0'));
            c += 3;
        } else {
            *end++ = *c;
        }
    *end = '\0';
}

static int cover(const char *point)
{
    cleanup_close int mount_fd = empty_filesystem();

    if (mount_fd < 0)
        return mount_fd;
    if (sys_move_mount(mount_fd, "", AT_FDCWD, point, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return failed("move_mount");
    return 0;
}

/* One line of /proc/self/mountinfo: a proc or sysfs that is not below `root` is covered. Unmounted, it could go on the
 * host as well, where its parent is shared. */
static int hide_state(char *line, const char *root)
{
    struct mount_attr private = {.propagation = MS_PRIVATE};
    char *point = line, *kind = strstr(line, " - "), *end;
    size_t length = strlen(root);
    int result;

    for (int field = 0; field < 4 && point; field++) {
        point = strchr(point, ' ');
        point += point != NULL;
    }
    end = point ? strchr(point, ' ') : NULL;
    if (!kind || !end || (strncmp(kind, " - proc ", 8) != 0 && strncmp(kind, " - sysfs ", 9) != 0))
        return 0;
    *end = '\0';
    unescape(point);
    if (strncmp(point, root, length) == 0 && (point[length] == '/' || point[length] == '\0'))
        return 0;
    result = sys_mount_setattr(AT_FDCWD, point, 0, &private) < 0 ? failed("mount_setattr") : cover(point);
    /* a mount below another one cannot be named, and has no need to be covered */
    return result == -ENOENT || result == -EINVAL || result == -ENOTDIR ? 0 : result;
}

/* The old root stays in the namespace below the new one. As long as a whole proc or sysfs is mounted there, the kernel
 * lets a user namespace in the container mount one with nothing masked (mount_too_revealing(), CVE-2019-19921's
 * family). */
static int hide_old_root(void)
{
    static char text[1 << 20];
    char root[PATH_MAX], link[sizeof "self/fd/2147483647"], number[12];
    ssize_t n;
    size_t length = 0;
    int result = 0;
    cleanup_close int fd = -1;

    strcpy(link, "self/fd/");
    strcat(link, utoa(number + sizeof number, (unsigned)self.root_fd, 10));
    n = readlinkat(self.proc_fd, link, root, sizeof root - 1);
    if (n < 0)
        return failed("readlink");
    root[n] = '\0';
    fd = openat(self.proc_fd, "self/mountinfo", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return failed("openat");
    do {
        n = read(fd, text + length, sizeof text - 1 - length);
        if (n < 0)
            return failed("read");
        length += (size_t)n;
    } while (n > 0 && length < sizeof text - 1);
    if (n > 0)
        return failed_with("read", E2BIG);
    text[length] = '\0';
    for (char *rest, *line = strtok_r(text, "\n", &rest); line && result == 0; line = strtok_r(NULL, "\n", &rest))
        result = hide_state(line, root);
    return result;
}

/* Number: move the root over the old one, so that leaving the chroot leads nowhere. */
int op_chroot(const struct op *op)
{
    int result;

    if (fchdir(self.root_fd) < 0)
        return failed("fchdir");
    result = op->n[CHROOT_MOVE] ? hide_old_root() : 0;
    if (result < 0)
        return result;
    if (op->n[CHROOT_MOVE] && sys_move_mount(self.root_fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return failed("move_mount");
    if (chroot(".") < 0)
        return failed("chroot");
    return chdir("/") < 0 ? failed("chdir") : 0;
}
