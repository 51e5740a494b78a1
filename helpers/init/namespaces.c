/* Namespaces and what is set in them that is not a mount. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

enum { MOST_EARLY = 8, ENTERED = -1 };

/* What op_join_early has opened: a descriptor for op_join, or ENTERED. */
static struct {
    int type, fd;
} early[MOST_EARLY];
static int tried;

_Static_assert((int)JOIN_EARLY_NAMESPACE == (int)JOIN_NAMESPACE && (int)JOIN_EARLY_PATH == (int)JOIN_PATH,
               "open_namespace() reads both");

static int open_namespace(const struct op *op)
{
    return open(text(op, JOIN_PATH), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static bool is_own(int fd, int type)
{
    static const struct {
        int type;
        const char *path;
    } files[] = {
        {CLONE_NEWIPC, "self/ns/ipc"}, {CLONE_NEWNET, "self/ns/net"},   {CLONE_NEWPID, "self/ns/pid"},
        {CLONE_NEWUTS, "self/ns/uts"}, {CLONE_NEWTIME, "self/ns/time"},
    };
    struct stat own, other;

    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (files[i].type == type)
            return fstatat(self.proc_fd, files[i].path, &own, 0) == 0 && fstat(fd, &other) == 0 &&
                   own.st_dev == other.st_dev && own.st_ino == other.st_ino;
    return false;
}

/* Before the user namespace: with the caller's rights, which are lost there. The caller's own namespace needs none.
 * What cannot be entered yet is left to op_join, which reports what goes wrong. */
int op_join_early(const struct op *op)
{
    int type = (int)op->n[JOIN_EARLY_NAMESPACE];
    cleanup_close int fd = tried < MOST_EARLY ? open_namespace(op) : -1;

    if (fd < 0)
        return 0;
    early[tried].type = type;
    if (is_own(fd, type) || setns(fd, type) == 0) {
        stay_hidden();
        early[tried++].fd = ENTERED;
    } else {
        early[tried++].fd = steal_fd(&fd);
    }
    return 0;
}

int op_join(const struct op *op)
{
    int type = (int)op->n[JOIN_NAMESPACE], i = 0;
    cleanup_close int opened = -1;

    while (i < tried && early[i].type != type)
        i++;
    if (i < tried && early[i].fd == ENTERED)
        return 0;
    if (i == tried) {
        opened = open_namespace(op);
        if (opened < 0)
            return failed("open");
    }
    if (setns(i < tried ? early[i].fd : opened, type) < 0)
        return failed("setns");
    stay_hidden();
    if (i < tried) {
        close(early[i].fd);
        early[i].fd = ENTERED;
    }
    return 0;
}

/* The root of the process, from before the root changed: only what the pidfd says is alive has not lent its number.
 * Returns as failed() does, or a descriptor. */
static int root_of(int pid)
{
    char path[sizeof "2147483647/root"];
    cleanup_close int fd = -1;

    snprintf(path, sizeof path, "%d/root", pid);
    fd = openat(self.proc_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return failed("openat");
    if (syscall(SYS_pidfd_send_signal, self.process_fd, 0, NULL, 0) < 0)
        return failed("pidfd_send_signal");
    return steal_fd(&fd);
}

/* Numbers: the namespaces to join, all in one call, so that each is of the same process and the user namespace lends
 * its rights over the others, except the cgroup namespace, which join_cgroup() enters; the process whose root to take,
 * where that is not the root of its mount namespace, or 0. */
int op_join_process(const struct op *op)
{
    cleanup_close int root = -1;
    int later = CLONE_NEWCGROUP, now = (int)op->n[JOIN_PROCESS_NAMESPACES] & ~later;

    if (op->n[JOIN_PROCESS_ROOT_OF]) {
        root = root_of((int)op->n[JOIN_PROCESS_ROOT_OF]);
        if (root < 0)
            return root;
    }
    if (now && setns(self.process_fd, now) < 0)
        return failed("setns");
    stay_hidden();
    if (!(op->n[JOIN_PROCESS_NAMESPACES] & later)) {
        close(self.process_fd);
        self.process_fd = -1;
    }
    if (root >= 0) {
        if (fchdir(root) < 0)
            return failed("fchdir");
        if (chroot(".") < 0)
            return failed("chroot");
    }
    self.root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return self.root_fd < 0 ? failed("open") : 0;
}

/* Where the hierarchy is mounted with nsdelegate, as systemd does, nobody in a cgroup namespace is cloned into a cgroup
 * from one outside: the container process enters it, when it is in its cgroup. */
int join_cgroup(void)
{
    int result = self.process_fd >= 0 ? setns(self.process_fd, CLONE_NEWCGROUP) : 0;

    if (result < 0)
        return failed("setns");
    if (self.process_fd >= 0)
        close(self.process_fd);
    self.process_fd = -1;
    return 0;
}

int op_new_user(const struct op *op)
{
    (void)op;
    return unshare(CLONE_NEWUSER) < 0 ? failed("unshare") : 0;
}

int op_yield(const struct op *op)
{
    (void)op;
    take_turn(0);
    return 0;
}

/* The container process becomes a child of our parent: the caller of `rootless create` finds it among its own.
 *
 * It tells its number itself. Only this process, outside its pid namespace, can know that number, and the kernel stores
 * it before the new process runs: if this one told it, and were killed just before, both others would wait for ever. */
int make_fork_number(void)
{
    if (self.forked)
        return 0;
    self.forked = mmap(NULL, sizeof *self.forked, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return self.forked == MAP_FAILED ? failed("mmap") : 0;
}

int op_fork(const struct op *op)
{
    struct clone_args args = {.flags = CLONE_PARENT | CLONE_PARENT_SETTID};
    long pid;
    int result = make_fork_number();

    (void)op;
    if (result < 0)
        return result;
    args.parent_tid = (uintptr_t)self.forked;
    if (self.cgroup_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (unsigned)self.cgroup_fd;
    }
    pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0)
        return failed("clone3");
    if (pid > 0)
        _exit(0);
    result = join_cgroup();
    if (result < 0)
        return result;
    take_turn(*self.forked);
    return 0;
}

int op_unshare(const struct op *op) { return unshare((int)op->n[UNSHARE_NAMESPACES]) < 0 ? failed("unshare") : 0; }

/* The numbers of namespaces of this process. Later, nobody outside may look: it is hidden when it joins others. */
int op_identify(const struct op *op)
{
    enum { MOST = sizeof self.namespaces / sizeof *self.namespaces };
    char path[64];
    struct stat st;

    self.identified = 0;
    for (const char *kind = plan_next(&self.plan, op, IDENTIFY_KINDS, NULL); kind && self.identified < MOST;
         kind = plan_next(&self.plan, op, IDENTIFY_KINDS, kind)) {
        snprintf(path, sizeof path, "self/ns/%s", kind);
        if (fstatat(self.proc_fd, path, &st, 0) < 0) {
            self.identified = 0;
            return failed("fstatat");
        }
        self.namespaces[self.identified++] = st.st_ino;
    }
    return 0;
}

/* Root of the user namespace, so that what is made from here on belongs to it. The capabilities stay. */
int op_become(const struct op *op)
{
    uid_t uid = (uid_t)op->n[BECOME_UID];
    gid_t gid = (gid_t)op->n[BECOME_GID];

    if (syscall(SYS_setresgid, gid, gid, gid) < 0)
        return failed("setresgid");
    if (syscall(SYS_setresuid, uid, uid, uid) < 0)
        return failed("setresuid");
    stay_hidden();
    return 0;
}

/* Files of the caller's whose group the container does not have are out of reach for the container's root, where that
 * is somebody else: capabilities are over files with both ids mapped (user_namespaces(7)). IDS ends it. */
int op_files_as(const struct op *op)
{
    self.files_uid = op->n[FILES_AS_UID];
    self.files_gid = op->n[FILES_AS_GID];
    return 0;
}

/* A process in a namespace that is joined must not reach this one by ptrace or /proc (CVE-2016-9962): the kernel then
 * asks for CAP_SYS_PTRACE over the user namespace that this program was executed in, the caller's. */
int op_non_dumpable(const struct op *op)
{
    (void)op;
    if (prctl(PR_SET_DUMPABLE, 0) < 0)
        return failed("prctl(PR_SET_DUMPABLE)");
    self.hidden = true;
    return 0;
}

/* For a helper of the host's that finds namespaces by the number of a process, while nothing else runs in them. */
int op_dumpable(const struct op *op)
{
    (void)op;
    self.hidden = false;
    return prctl(PR_SET_DUMPABLE, 1) < 0 ? failed("prctl(PR_SET_DUMPABLE)") : 0;
}

/* Where the sysctl fs.suid_dumpable is 1, the kernel makes a process dumpable when its ids change, or when it gets
 * capabilities that it had no claim to (PR_SET_DUMPABLE(2const)); with the other values it stays hidden. */
void stay_hidden(void)
{
    if (self.hidden)
        prctl(PR_SET_DUMPABLE, 0);
}

/* A file of the caller's /proc, for writing. Directories may be mounted over: LXC and nspawn have /proc/sys/net so;
 * they are of the same file system. A file may not: it could be any other one of /proc (CVE-2025-52881). */
static int open_proc(const char *path)
{
    struct open_how how = {
        .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    char directory[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');
    struct statfs fs;
    struct stat proc, file;
    cleanup_close int fd = -1, parent = -1;

    if (slash && (size_t)(slash - path) < sizeof directory) {
        memcpy(directory, path, (size_t)(slash - path));
        directory[slash - path] = '\0';
        path = slash + 1;
    }
    parent = sys_openat2(self.proc_fd, directory, &how);
    if (parent < 0)
        return -1;
    how.flags = O_WRONLY | O_NOFOLLOW | O_CLOEXEC;
    how.resolve |= RESOLVE_NO_XDEV;
    fd = sys_openat2(parent, path, &how);
    if (fd < 0)
        return -1;
    if (fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC && fstat(self.proc_fd, &proc) == 0 &&
        fstat(fd, &file) == 0 && file.st_dev == proc.st_dev)
        return steal_fd(&fd);
    errno = EXDEV;
    return -1;
}

/* What a process that hides has in /proc belongs to root (proc_pid(5)): it is opened before. */
int op_proc_open(const struct op *op)
{
    close_if_open(&self.proc_file_fd);
    self.proc_file_fd = open_proc(text(op, PROC_OPEN_PATH));
    return self.proc_file_fd < 0 ? failed("open") : 0;
}

/* Through the caller's /proc, never the image's, and only if it is one (CVE-2019-16884, CVE-2019-19921). */
int op_proc_write(const struct op *op)
{
    size_t length = op->s[PROC_WRITE_VALUE].length;
    ssize_t written;
    cleanup_close int fd = self.proc_file_fd >= 0 ? steal_fd(&self.proc_file_fd) : open_proc(text(op, PROC_WRITE_PATH));

    if (fd < 0)
        return failed("open");
    written = write(fd, text(op, PROC_WRITE_VALUE), length);
    /* a part of it: the rest makes no sense */
    return written == (ssize_t)length ? 0 : failed_with("write", written < 0 ? errno : EINVAL);
}

int op_session(const struct op *op)
{
    (void)op;
    return setsid() < 0 ? failed("setsid") : 0;
}

/* Whether a keyring belongs to this user: "keyring;UID;…", keyctl_describe(2). */
static bool is_own_keyring(long keyring)
{
    char text[512] = ""; /* longer than any that has our name; of a longer one the kernel writes nothing */
    const char *uid;

    if (syscall(SYS_keyctl, KEYCTL_DESCRIBE, keyring, text, sizeof text - 1) < 0)
        return false;
    uid = strchr(text, ';');
    return uid && strtoul(uid + 1, NULL, 10) == getuid();
}

/* A keyring of that name may be there already: that of the container, which exec joins, or one that another user of the
 * same user namespace has made ready and left open to be searched. */
int op_keyring(const struct op *op)
{
    /* all for those that have it; for the same user elsewhere only that exec may find it by its name: KEY_USR_SEARCH */
    enum { PERMISSIONS = 0x3f080000 };
    long keyring = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, text(op, KEYRING_NAME));

    if (keyring < 0)
        return failed("keyctl");
    if (!is_own_keyring(keyring))
        return failed_with("keyctl", EKEYREJECTED);
    syscall(SYS_keyctl, KEYCTL_SETPERM, keyring, PERMISSIONS);
    return 0;
}

/* The kernel lets one without a session keyring exceed its quota for this. */
int op_unnamed_keyring(const struct op *op)
{
    (void)op;
    return syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 ? failed("keyctl") : 0;
}

int op_no_keys(const struct op *op)
{
    int result = load_filter(op, 0);

    return result < 0 ? result : 0;
}

int op_hostname(const struct op *op)
{
    return sethostname(text(op, HOSTNAME_NAME), op->s[HOSTNAME_NAME].length) < 0 ? failed("sethostname") : 0;
}

int op_domainname(const struct op *op)
{
    const char *name = text(op, DOMAINNAME_NAME);

    return syscall(SYS_setdomainname, name, op->s[DOMAINNAME_NAME].length) < 0 ? failed("setdomainname") : 0;
}

int op_link_up(const struct op *op)
{
    struct ifreq request = {.ifr_flags = 0};
    cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return failed("socket");
    strncpy(request.ifr_name, text(op, LINK_UP_NAME), IFNAMSIZ - 1);
    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return failed("ioctl(SIOCGIFFLAGS)");
    request.ifr_flags |= IFF_UP;
    return ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? failed("ioctl(SIOCSIFFLAGS)") : 0;
}
