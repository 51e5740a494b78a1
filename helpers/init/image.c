/* A root that is an image: a FUSE file system, which a server outside answers, and an overlay that takes the changes.
 * The server is a program of the host; what it parses is hostile, so it is confined before it is executed. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

struct fuse {
    int device, mount, result;
};

/* The device is opened in the user namespace that the mount then belongs to. */
static struct fuse mount_fuse(const struct op *op)
{
    char number[12];
    struct fuse made = {.device = open("/dev/fuse", O_RDWR | O_CLOEXEC)};

    if (made.device < 0) {
        made.result = failed("open");
        return made;
    }
    made.mount = made.result =
        new_mount("fuse", OPTIONS({"fd", utoa(number + sizeof number, (unsigned)made.device, 10)}), op, FUSE_OPTIONS,
                  (unsigned)op->n[FUSE_ATTRIBUTES]);
    return made;
}

/* In the user namespace of ID_MAP, below the container's: its IDs are not those of the container, and the server can
 * have all files belong to one that is not 0. */
static struct fuse mount_fuse_below(const struct op *op)
{
    struct clone_args args = {.flags = CLONE_FILES, .exit_signal = SIGCHLD};
    struct fuse result = {.device = -1, .result = -ENOMEM},
                *made = mmap(NULL, sizeof *made, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    long child = made == MAP_FAILED ? -1 : syscall(SYS_clone3, &args, sizeof args);

    if (child == 0) {
        *made = result;
        if (setns(self.id_map_fd, CLONE_NEWUSER) == 0 && unshare(CLONE_NEWNS) == 0)
            *made = mount_fuse(op);
        else
            made->result = -errno;
        _exit(0);
    }
    if (child > 0 && waitpid((pid_t)child, NULL, 0) == child)
        result = *made;
    if (result.result < 0)
        failed_with("mount", -result.result);
    return result;
}

/* ROOT attaches the mount. */
int op_fuse(const struct op *op)
{
    struct fuse made = self.id_map_fd < 0 ? mount_fuse(op) : mount_fuse_below(op);
    cleanup_close int device = made.device;

    close_if_open(&self.id_map_fd);
    self.id_map_fd = -1;
    if (made.result < 0)
        return made.result;
    self.root_fd = made.mount;
    return report_fuse(device) < 0 ? failed("sendmsg") : 0;
}

/* The mount that holds the changes: a new tmpfs, or the next of the trees if it is the directory that was checked. */
static int open_changes(const struct op *op)
{
    struct stat st;
    int tree;

    if (!op->n[OVERLAY_INODE])
        return new_mount("tmpfs", OPTIONS({"mode", "0700"}), op, -1, MOUNT_ATTR_NODEV);
    tree = next_tree(op);
    if (tree < 0)
        return failed("open_tree");
    if (fstat(tree, &st) < 0)
        return failed("fstat");
    if (st.st_dev != (dev_t)op->n[OVERLAY_DEVICE] || st.st_ino != (ino_t)op->n[OVERLAY_INODE])
        return failed_with("open_tree", ESTALE);
    return tree;
}

/* The directory of the changes shows its own owner and mode as those of the root: it begins with the image's. */
static int make_upper(int changes)
{
    struct stat st;

    if (mkdirat(changes, "work", 0700) < 0 && errno != EEXIST)
        return failed("mkdirat");
    if (mkdirat(changes, "upper", 0700) < 0)
        return errno == EEXIST ? 0 : failed("mkdirat");
    if (fstat(self.root_fd, &st) < 0)
        return failed("fstat");
    if (fchownat(changes, "upper", st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        return failed("fchownat");
    return fchmodat(changes, "upper", st.st_mode & 07777, 0) < 0 ? failed("fchmodat") : 0;
}

/* The layers have to be mounted in this namespace while the overlay is made, which then has copies of its own. On "/"
 * they hide none of the host's paths, which are looked up from below. They are gone before PIVOT, which unmounts the
 * topmost mount that is there. */
int op_overlay(const struct op *op)
{
    char lower[32], upper[40], work[40];
    cleanup_close int changes = open_changes(op), overlay = -1, top = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int result = changes < 0 ? changes : make_parent_private(top);

    if (result == 0)
        result = attach(changes, top);
    if (result == 0)
        result = make_upper(changes);
    if (result < 0)
        return result;
    snprintf(lower, sizeof lower, "/proc/self/fd/%d", self.root_fd);
    snprintf(upper, sizeof upper, "/proc/self/fd/%d/upper", changes);
    snprintf(work, sizeof work, "/proc/self/fd/%d/work", changes);
    overlay = new_mount("overlay",
                        OPTIONS({"source", "overlay"}, {"lowerdir", lower}, {"upperdir", upper}, {"workdir", work}), op,
                        OVERLAY_OPTIONS, (unsigned)op->n[OVERLAY_ATTRIBUTES]);
    if (overlay < 0)
        return overlay;
    *strrchr(upper, '/') = '\0';
    if (sys_umount2(upper, MNT_DETACH) < 0 || sys_umount2(lower, MNT_DETACH) < 0)
        return failed("umount2");
    result = attach(overlay, top);
    if (result == 0) {
        close(self.root_fd);
        self.root_fd = steal_fd(&overlay);
    }
    return result;
}

/* Whatever is executed from here on has those rights to files that are handled only below the paths that are there. */
int op_landlock(const struct op *op)
{
    struct landlock_ruleset_attr handled = {.handled_access_fs = (uint64_t)op->n[LANDLOCK_HANDLED]};
    cleanup_close int rules = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof handled.handled_access_fs, 0);

    if (rules < 0)
        return failed("landlock_create_ruleset");
    for (const char *path = plan_next(&self.plan, op, LANDLOCK_PATHS, NULL); path;
         path = plan_next(&self.plan, op, LANDLOCK_PATHS, path)) {
        cleanup_close int fd = open(path, O_PATH | O_CLOEXEC);
        struct landlock_path_beneath_attr below = {.allowed_access = (uint64_t)op->n[LANDLOCK_ALLOWED],
                                                   .parent_fd = fd};

        if (fd >= 0 && syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &below, 0) < 0)
            return failed("landlock_add_rule");
    }
    return syscall(SYS_landlock_restrict_self, rules, 0) < 0 ? failed("landlock_restrict_self") : 0;
}
