/* Device nodes, the links beside them, and the terminal. */
#include "init.h"

#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

static bool is_device(const struct stat *st, mode_t type, dev_t number)
{
    return (st->st_mode & S_IFMT) == (type & S_IFMT) && (S_ISFIFO(st->st_mode) || st->st_rdev == number);
}

/* An empty file is a place to mount on, which an earlier container may have left. */
static bool is_place(const struct stat *st) { return S_ISREG(st->st_mode) && st->st_size == 0; }

/* The host's node, where mknod is refused, and only if it is the device that was asked for; an exclusive one covers no
 * file that is something else. */
int op_device_bind(mode_t type, unsigned major, unsigned minor, bool exclusive, const char *from, const char *path)
{
    struct stat st;
    dev_t number = makedev(major, minor);
    cleanup_close int target = -1, source = TRY(private_copy(from, &st));

    if (!is_device(&st, type, number))
        return failed_with("open_tree", ENODEV);
    target = TRY(open_or_create(path, false, 0));
    if (exclusive && fstat(target, &st) == 0 && !is_device(&st, type, number) && !is_place(&st))
        return failed_with("openat2", EEXIST);
    return attach(path, false, source, target);
}

/* The name may stand for another file by now. */
static int own_node(int parent, const char *name, mode_t type, dev_t number, uid_t uid, gid_t gid)
{
    struct stat st;
    cleanup_close int node = SYS(openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));

    SYS(fstat(node, &st));
    if (!is_device(&st, type, number))
        return failed_with("openat", ENODEV);
    return SYS(fchownat(node, "", uid, gid, AT_EMPTY_PATH));
}

int op_device_node(mode_t mode, unsigned major, unsigned minor, uid_t uid, gid_t gid, const char *path)
{
    const char *name;
    struct stat st;
    dev_t number = makedev(major, minor);
    cleanup_close int parent = TRY(open_parent(path, &name));
    int result = mknodat(parent, name, mode, number) < 0 ? failed("mknod") : 0;

    if (result == -EEXIST && fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && is_device(&st, mode, number))
        return 0;
    TRY(result);
    result = own_node(parent, name, mode, number, uid, gid);
    if (result < 0)
        unlinkat(parent, name, 0);
    return result;
}

int op_symlink(const char *where, const char *path)
{
    const char *name;
    cleanup_close int parent = TRY(open_parent(path, &name));

    return symlinkat(where, parent, name) < 0 && errno != EEXIST ? failed("symlink") : 0;
}

int op_mkdir(const char *path)
{
    cleanup_close int fd = TRY(open_or_create(path, true, 0));

    return 0;
}

/* The terminal becomes stdin, stdout and stderr. The other side is found through the master, not by a name
 * (CVE-2025-52565). */
int op_terminal(unsigned short columns, unsigned short rows, uid_t uid)
{
    static const char name[] = "/dev/ptmx";
    struct winsize size = {.ws_col = columns, .ws_row = rows};
    struct statfs fs;
    int unlock = 0;
    cleanup_close int master = -1, terminal = -1;
    cleanup_close int terminals = TRY(open_inside("/dev/pts", O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS));

    SYS(fstatfs(terminals, &fs));
    if (fs.f_type != DEVPTS_SUPER_MAGIC)
        return failed_with("openat2", ENODEV);
    master = SYS(openat(terminals, "ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC));
    SYS_AS("ioctl(TIOCSPTLCK)", ioctl(master, TIOCSPTLCK, &unlock));
    terminal = SYS_AS("ioctl(TIOCGPTPEER)", ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
    if (columns)
        SYS_AS("ioctl(TIOCSWINSZ)", ioctl(master, TIOCSWINSZ, &size));
    SYS(fchown(terminal, uid, (gid_t)-1));
    SYS_AS("sendmsg", send_fds(self.console_fd, name, sizeof name - 1, &master, 1));
    close_now(&self.console_fd);
    SYS_AS("ioctl(TIOCSCTTY)", ioctl(terminal, TIOCSCTTY, 0));
    for (int fd = 0; fd < 3; fd++)
        SYS(dup2(terminal, fd));
    if (terminal <= 2)
        steal_fd(&terminal); /* it was opened as one of them */
    return 0;
}
