/* A root that is an image: a FUSE file system, which a server outside answers, and an overlay that takes the changes.
 * The server is a program of the host; what it parses is hostile, so it is confined before it is executed. */
#include "init.h"

#include <linux/landlock.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

enum { DEVICE, MOUNT };

/* The device is opened in the user namespace that the mount then belongs to. */
static int mount_fuse(uint64_t attributes, struct bytes options)
{
    char number[12];

    if (self.id_map_fd >= 0) {
        SYS(setns(self.id_map_fd, CLONE_NEWUSER));
        SYS(unshare(CLONE_NEWNS));
    }
    shared->fuse[DEVICE] = SYS(open("/dev/fuse", O_RDWR | O_CLOEXEC));
    snprintf(number, sizeof number, "%d", shared->fuse[DEVICE]);
    shared->fuse[MOUNT] = TRY(new_mount("fuse", OPTIONS({"fd", number}), options, attributes));
    return 0;
}

/* In the user namespace of ID_MAP, below the container's: its IDs are not those of the container, and the server can
 * have all files belong to one that is not 0. */
static int mount_fuse_below(uint64_t attributes, struct bytes options)
{
    struct clone_args args = {.flags = CLONE_FILES, .exit_signal = SIGCHLD};
    int status = 0;
    pid_t child = SYSCALL(clone3, &args, sizeof args);

    if (child == 0)
        _exit(mount_fuse(attributes, options) < 0);
    waitpid(child, &status, 0);
    if (status && !shared->error)
        failed_with("mount", ECHILD);
    return status ? -shared->error : 0;
}

/* ROOT attaches the mount. */
int op_fuse(uint64_t attributes, struct bytes options)
{
    cleanup_close int device = -1;
    int result;

    shared->fuse[DEVICE] = shared->fuse[MOUNT] = -1;
    shared->error = 0;
    result = self.id_map_fd < 0 ? mount_fuse(attributes, options) : mount_fuse_below(attributes, options);
    close_now(&self.id_map_fd);
    device = shared->fuse[DEVICE];
    TRY(result);
    self.root_fd = shared->fuse[MOUNT];
    return report_fds(MESSAGE_FUSE, 0, device, -1);
}

/* The mount that holds the changes: a new tmpfs, or a tree if it is the directory that was checked. */
static int open_changes(uint64_t device, uint64_t inode, uint64_t number)
{
    struct stat st;
    cleanup_close int tree = -1;

    if (!inode)
        return new_mount("tmpfs", OPTIONS({"mode", "0700"}), (struct bytes){NULL, 0}, MOUNT_ATTR_NODEV);
    tree = TRY(tree_of(number));
    SYS(fstat(tree, &st));
    if (st.st_dev != (dev_t)device || st.st_ino != (ino_t)inode)
        return failed_with("open_tree", ESTALE);
    return steal_fd(&tree);
}

/* The directory of the changes shows its own owner and mode as those of the root: it begins with the image's. */
static int make_upper(int changes)
{
    struct stat st;

    if (mkdirat(changes, "work", 0700) < 0 && errno != EEXIST)
        return failed("mkdirat");
    if (mkdirat(changes, "upper", 0700) < 0)
        return errno == EEXIST ? 0 : failed("mkdirat");
    SYS(fstat(self.root_fd, &st));
    SYS(fchownat(changes, "upper", st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW));
    return SYS(fchmodat(changes, "upper", st.st_mode & 07777, 0));
}

/* The layers have to be mounted in this namespace while the overlay is made, which then has copies of its own. On "/"
 * they hide none of the host's paths, which are looked up from below. They are gone before PIVOT, which unmounts the
 * topmost mount that is there. */
int op_overlay(uint64_t attributes, uint64_t device, uint64_t inode, uint64_t tree, struct bytes options)
{
    char lower[32], upper[40], work[40];
    cleanup_close int changes = TRY(open_changes(device, inode, tree)), overlay = -1;
    cleanup_close int top = SYS(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));

    TRY(make_parent_private(top));
    TRY(attach("", false, changes, top));
    TRY(make_upper(changes));
    snprintf(lower, sizeof lower, "/proc/self/fd/%d", self.root_fd);
    snprintf(upper, sizeof upper, "/proc/self/fd/%d/upper", changes);
    snprintf(work, sizeof work, "/proc/self/fd/%d/work", changes);
    overlay = TRY(new_mount("overlay",
                            OPTIONS({"source", "overlay"}, {"lowerdir", lower}, {"upperdir", upper}, {"workdir", work}),
                            options, attributes));
    *strrchr(upper, '/') = '\0';
    SYSCALL(umount2, upper, MNT_DETACH);
    SYSCALL(umount2, lower, MNT_DETACH);
    TRY(attach("", false, overlay, top));
    close_now(&self.root_fd);
    self.root_fd = steal_fd(&overlay);
    return 0;
}

/* Whatever is executed from here on has those rights to files that are handled only below the paths that are there. */
int op_landlock(uint64_t handled, uint64_t allowed, struct bytes paths)
{
    struct landlock_ruleset_attr attr = {.handled_access_fs = handled};
    cleanup_close int rules = SYSCALL(landlock_create_ruleset, &attr, sizeof attr.handled_access_fs, 0);

    for (const char *path = next_item(paths, NULL); path; path = next_item(paths, path)) {
        cleanup_close int fd = open(path, O_PATH | O_CLOEXEC);
        struct landlock_path_beneath_attr below = {.allowed_access = allowed, .parent_fd = fd};

        if (fd >= 0)
            SYSCALL(landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &below, 0);
    }
    return SYSCALL(landlock_restrict_self, rules, 0);
}
