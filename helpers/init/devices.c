/* Device nodes, the links beside them, and the terminal. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>

_Static_assert((int)DEVICE_NODE_MODE == (int)DEVICE_BIND_TYPE && (int)DEVICE_NODE_MINOR == (int)DEVICE_BIND_MINOR,
               "is_device() reads both");

static bool is_device(const struct stat *st, const struct op *op)
{
    return (st->st_mode & S_IFMT) == ((mode_t)op->n[DEVICE_NODE_MODE] & S_IFMT) &&
           (S_ISFIFO(st->st_mode) || st->st_rdev == makedev((unsigned)op->n[DEVICE_NODE_MAJOR], (unsigned)op->n[DEVICE_NODE_MINOR]));
}

/* An empty file is a place to mount on, which an earlier container may have left. */
static bool is_place(const struct stat *st)
{
    return S_ISREG(st->st_mode) && st->st_size == 0;
}

/* The host's node, where mknod is refused, and only if it is the device that was asked for; an exclusive one covers no
 * file that is something else. */
int op_device_bind(const struct op *op)
{
    struct stat st;
    bool exclusive = op->n[DEVICE_BIND_EXCLUSIVE];
    cleanup_close int target = -1, source = private_copy(text(op, DEVICE_BIND_SOURCE), &st);

    if (source < 0)
        return failed("open_tree");
    if (!is_device(&st, op))
        return failed_with("open_tree", ENODEV);
    target = open_or_create(text(op, DEVICE_BIND_TARGET), false, 0);
    if (target < 0)
        return failed("openat2");
    if (exclusive && fstat(target, &st) == 0 && !is_device(&st, op) && !is_place(&st))
        return failed_with("openat2", EEXIST);
    return attach(source, target);
}

int op_device_node(const struct op *op)
{
    const char *name;
    struct stat st;
    int node, result = 0, parent = open_parent(text(op, DEVICE_NODE_TARGET), &name);

    if (parent < 0)
        return failed("openat2");
    if (mknodat(parent, name, (mode_t)op->n[DEVICE_NODE_MODE], makedev((unsigned)op->n[DEVICE_NODE_MAJOR], (unsigned)op->n[DEVICE_NODE_MINOR])) < 0) {
        result = failed("mknod");
        if (errno == EEXIST && fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && is_device(&st, op))
            result = 0;
    } else {
        /* by now the name may stand for a file of somebody else's */
        node = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (node < 0 || fstat(node, &st) < 0)
            result = failed("open");
        else if (!is_device(&st, op))
            result = failed_with("open", ENODEV);
        else if (fchownat(node, "", (uid_t)op->n[DEVICE_NODE_UID], (gid_t)op->n[DEVICE_NODE_GID], AT_EMPTY_PATH) < 0)
            result = failed("fchown");
        if (result < 0)
            unlinkat(parent, name, 0);
        if (node >= 0)
            close(node);
    }
    close(parent);
    return result;
}

int op_symlink(const struct op *op)
{
    const char *name;
    int result = 0, parent = open_parent(text(op, SYMLINK_TARGET), &name);

    if (parent < 0)
        return failed("openat2");
    if (symlinkat(text(op, SYMLINK_LINK), parent, name) < 0 && errno != EEXIST)
        result = failed("symlink");
    close(parent);
    return result;
}

int op_mkdir(const struct op *op)
{
    int fd = open_or_create(text(op, MKDIR_TARGET), true, 0);

    if (fd < 0)
        return failed("mkdir");
    close(fd);
    return 0;
}

static int send_descriptor(int channel, int fd)
{
    char name[] = "/dev/ptmx";
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.space = {0}};
    struct iovec data = {.iov_base = name, .iov_len = sizeof name - 1};
    struct msghdr message = {
        .msg_iov = &data,
        .msg_iovlen = 1,
        .msg_control = control.space,
        .msg_controllen = sizeof control.space,
    };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return sendmsg(channel, &message, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

_Static_assert(CONSOLE_UID == TERMINAL_UID, "one layout of terminals");

/* The other side is found through the master, not by a name (CVE-2025-52565). */
static int open_terminal(const struct op *op, int *opened)
{
    struct winsize size = {.ws_col = (unsigned short)op->n[CONSOLE_COLUMNS], .ws_row = (unsigned short)op->n[CONSOLE_ROWS]};
    struct statfs fs;
    int unlock = 0, master, terminal;
    int terminals = open_inside("/dev/pts", O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);

    if (terminals < 0)
        return failed("openat2");
    if (fstatfs(terminals, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC)
        return failed_with("openat2", ENODEV);
    master = openat(terminals, "ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
    if (master < 0)
        return failed("openat");
    close(terminals);
    if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
        return failed("ioctl(TIOCSPTLCK)");
    terminal = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (terminal < 0)
        return failed("ioctl(TIOCGPTPEER)");
    if (size.ws_col && ioctl(master, TIOCSWINSZ, &size) < 0)
        return failed("ioctl(TIOCSWINSZ)");
    if (fchown(terminal, (uid_t)op->n[CONSOLE_UID], (gid_t)-1) < 0)
        return failed("fchown");
    if (send_descriptor(self.console_fd, master) < 0)
        return failed("sendmsg");
    close(master);
    close(self.console_fd);
    self.console_fd = -1;
    *opened = terminal;
    return 0;
}

static int use_terminal(int terminal)
{
    if (ioctl(terminal, TIOCSCTTY, 0) < 0)
        return failed("ioctl(TIOCSCTTY)");
    for (int fd = 0; fd < 3; fd++)
        if (dup2(terminal, fd) < 0)
            return failed("dup2");
    if (terminal > 2)
        close(terminal);
    return 0;
}

/* A terminal for a further program of the container: /dev/console is the first one's. */
int op_terminal(const struct op *op)
{
    int terminal = -1, result = open_terminal(op, &terminal);

    return result < 0 ? result : use_terminal(terminal);
}

/* The target comes first: where access to it is refused, there is no terminal yet, and no one has it. */
int op_console(const struct op *op)
{
    int mount_fd, terminal = -1, result, target = open_or_create("/dev/console", false, RESOLVE_NO_SYMLINKS);

    if (target < 0)
        return failed("openat2");
    result = open_terminal(op, &terminal);
    if (result < 0)
        return result;
    mount_fd = sys_open_tree(terminal, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (mount_fd < 0)
        return failed("open_tree");
    result = attach(mount_fd, target);
    if (result < 0)
        return result;
    close(mount_fd);
    close(target);
    return use_terminal(terminal);
}
