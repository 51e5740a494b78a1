/* Device nodes, the links beside them, and the terminal. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

_Static_assert((int)DEVICE_NODE_MODE == (int)DEVICE_BIND_TYPE && (int)DEVICE_NODE_MINOR == (int)DEVICE_BIND_MINOR,
               "is_device() reads both");

static dev_t device_number(const struct op *op)
{
    return makedev((unsigned)op->n[DEVICE_NODE_MAJOR], (unsigned)op->n[DEVICE_NODE_MINOR]);
}

static bool is_device(const struct stat *st, const struct op *op)
{
    return (st->st_mode & S_IFMT) == ((mode_t)op->n[DEVICE_NODE_MODE] & S_IFMT) &&
           (S_ISFIFO(st->st_mode) || st->st_rdev == device_number(op));
}

/* An empty file is a place to mount on, which an earlier container may have left. */
static bool is_place(const struct stat *st) { return S_ISREG(st->st_mode) && st->st_size == 0; }

/* The host's node, where mknod is refused, and only if it is the device that was asked for; an exclusive one covers no
 * file that is something else. */
int op_device_bind(const struct op *op)
{
    struct stat st;
    bool exclusive = op->n[DEVICE_BIND_EXCLUSIVE];
    cleanup_close int target = -1, source = private_copy(text(op, DEVICE_BIND_SOURCE), &st);

    if (source < 0)
        return source;
    if (!is_device(&st, op))
        return failed_with("open_tree", ENODEV);
    target = open_or_create(text(op, DEVICE_BIND_TARGET), false, 0);
    if (target < 0)
        return failed("openat2");
    if (exclusive && fstat(target, &st) == 0 && !is_device(&st, op) && !is_place(&st))
        return failed_with("openat2", EEXIST);
    return attach(source, target);
}

/* The name may stand for another file by now. */
static int own_node(int parent, const char *name, const struct op *op)
{
    struct stat st;
    cleanup_close int node = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (node < 0)
        return failed("openat");
    if (fstat(node, &st) < 0)
        return failed("fstat");
    if (!is_device(&st, op))
        return failed_with("openat", ENODEV);
    if (fchownat(node, "", (uid_t)op->n[DEVICE_NODE_UID], (gid_t)op->n[DEVICE_NODE_GID], AT_EMPTY_PATH) < 0)
        return failed("fchown");
    return 0;
}

int op_device_node(const struct op *op)
{
    const char *name;
    struct stat st;
    int result;
    cleanup_close int parent = open_parent(text(op, DEVICE_NODE_TARGET), &name);

    if (parent < 0)
        return failed("openat2");
    if (mknodat(parent, name, (mode_t)op->n[DEVICE_NODE_MODE], device_number(op)) < 0) {
        result = failed("mknod");
        if (result == -EEXIST && fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && is_device(&st, op))
            return 0;
        return result;
    }
    result = own_node(parent, name, op);
    if (result < 0)
        unlinkat(parent, name, 0);
    return result;
}

int op_symlink(const struct op *op)
{
    const char *name;
    cleanup_close int parent = open_parent(text(op, SYMLINK_TARGET), &name);

    if (parent < 0)
        return failed("openat2");
    return symlinkat(text(op, SYMLINK_LINK), parent, name) < 0 && errno != EEXIST ? failed("symlink") : 0;
}

int op_mkdir(const struct op *op)
{
    cleanup_close int fd = open_or_create(text(op, MKDIR_TARGET), true, 0);

    return fd < 0 ? failed("mkdir") : 0;
}

_Static_assert(CONSOLE_UID == TERMINAL_UID, "one layout of terminals");

/* The other side is found through the master, not by a name (CVE-2025-52565). */
static int open_terminal(const struct op *op)
{
    static const char name[] = "/dev/ptmx";
    struct winsize size = {.ws_col = (unsigned short)op->n[CONSOLE_COLUMNS],
                           .ws_row = (unsigned short)op->n[CONSOLE_ROWS]};
    struct statfs fs;
    int unlock = 0;
    cleanup_close int terminals = -1, master = -1, terminal = -1;

    terminals = open_inside("/dev/pts", O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
    if (terminals < 0)
        return failed("openat2");
    if (fstatfs(terminals, &fs) < 0)
        return failed("fstatfs");
    if (fs.f_type != DEVPTS_SUPER_MAGIC)
        return failed_with("openat2", ENODEV);
    master = openat(terminals, "ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
    if (master < 0)
        return failed("openat");
    if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
        return failed("ioctl(TIOCSPTLCK)");
    terminal = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal < 0)
        return failed("ioctl(TIOCGPTPEER)");
    if (size.ws_col && ioctl(master, TIOCSWINSZ, &size) < 0)
        return failed("ioctl(TIOCSWINSZ)");
    if (fchown(terminal, (uid_t)op->n[CONSOLE_UID], (gid_t)-1) < 0)
        return failed("fchown");
    if (send_fds(self.console_fd, name, sizeof name - 1, &master, 1) < 0)
        return failed("sendmsg");
    close(self.console_fd);
    self.console_fd = -1;
    return steal_fd(&terminal);
}

/* The terminal becomes stdin, stdout and stderr; one that was opened as such stays open. */
static int use_terminal(int *terminal)
{
    if (ioctl(*terminal, TIOCSCTTY, 0) < 0)
        return failed("ioctl(TIOCSCTTY)");
    for (int fd = 0; fd < 3; fd++)
        if (dup2(*terminal, fd) < 0)
            return failed("dup2");
    if (*terminal <= 2)
        *terminal = -1;
    return 0;
}

/* A terminal for a further program of the container: /dev/console belongs to the first one. */
int op_terminal(const struct op *op)
{
    cleanup_close int terminal = open_terminal(op);

    return terminal < 0 ? terminal : use_terminal(&terminal);
}

/* The target comes first: where access to it is refused, no terminal is open yet, and none was sent. */
int op_console(const struct op *op)
{
    int result;
    cleanup_close int mount_fd = -1, terminal = -1;
    cleanup_close int target = open_or_create("/dev/console", false, RESOLVE_NO_SYMLINKS);

    if (target < 0)
        return failed("openat2");
    terminal = open_terminal(op);
    if (terminal < 0)
        return terminal;
    mount_fd = sys_open_tree(terminal, "", COPY_OF_FD);
    if (mount_fd < 0)
        return failed("open_tree");
    result = attach(mount_fd, target);
    return result < 0 ? result : use_terminal(&terminal);
}
