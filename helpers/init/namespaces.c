/* Namespaces and what is set in them that is not a mount. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/vfs.h>

int op_join(const struct op *op)
{
    int fd = open(text(op, 0), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd < 0)
        return failed("open");
    if (setns(fd, (int)op->n[0]) < 0)
        return failed("setns");
    close(fd);
    return 0;
}

int op_unshare(const struct op *op)
{
    return unshare((int)op->n[0]) < 0 ? failed("unshare") : 0;
}

/* Root of the user namespace, so that what is made from here on belongs to it. The capabilities stay. */
int op_become(const struct op *op)
{
    uid_t uid = (uid_t)op->n[0];
    gid_t gid = (gid_t)op->n[1];

    if (syscall(SYS_setresgid, gid, gid, gid) < 0)
        return failed("setresgid");
    if (syscall(SYS_setresuid, uid, uid, uid) < 0)
        return failed("setresuid");
    return 0;
}

/* Files of the caller's whose group the container does not have are out of reach for the container's root, where that is
 * somebody else: capabilities are over files with both ids mapped (user_namespaces(7)). IDS ends it. */
int op_files_as(const struct op *op)
{
    self.files_uid = op->n[0];
    self.files_gid = op->n[1];
    return 0;
}

/* A process in a namespace that is joined must not reach this one by ptrace or /proc (CVE-2016-9962). */
int op_non_dumpable(const struct op *op)
{
    (void)op;
    return prctl(PR_SET_DUMPABLE, 0) < 0 ? failed("prctl(PR_SET_DUMPABLE)") : 0;
}

/* Through the host's /proc, never the image's, and only if it is one (CVE-2019-16884, CVE-2019-19921). */
int op_proc_write(const struct op *op)
{
    struct statfs fs;
    size_t length = op->s[1].length;
    ssize_t written;
    int result = 0, fd = openat(self.proc_fd, text(op, 0), O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return failed("open");
    if (fstatfs(fd, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC) {
        close(fd);
        return failed_with("open", EXDEV);
    }
    written = write(fd, text(op, 1), length);
    if (written != (ssize_t)length)
        result = failed_with("write", written < 0 ? errno : EINVAL); /* a part of it: the rest makes no sense */
    close(fd);
    return result;
}

int op_session(const struct op *op)
{
    (void)op;
    return setsid() < 0 ? failed("setsid") : 0;
}

int op_keyring(const struct op *op)
{
    return syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, text(op, 0)) < 0 ? failed("keyctl") : 0;
}

int op_hostname(const struct op *op)
{
    return sethostname(text(op, 0), op->s[0].length) < 0 ? failed("sethostname") : 0;
}

int op_domainname(const struct op *op)
{
    return syscall(SYS_setdomainname, text(op, 0), op->s[0].length) < 0 ? failed("setdomainname") : 0;
}

int op_link_up(const struct op *op)
{
    struct ifreq request = {.ifr_flags = 0};
    int result = 0, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return failed("socket");
    strncpy(request.ifr_name, text(op, 0), IFNAMSIZ - 1);
    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        result = failed("ioctl(SIOCGIFFLAGS)");
    request.ifr_flags |= IFF_UP;
    if (result == 0 && ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        result = failed("ioctl(SIOCSIFFLAGS)");
    close(fd);
    return result;
}
