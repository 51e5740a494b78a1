/* Namespaces and what is set in them that is not a mount. */
#include "init.h"

#include <linux/keyctl.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/vfs.h>

enum { ENTERED = -1 };

/* Of JOIN_EARLY, by the bit of the namespace's type: ENTERED, or one more than a descriptor for JOIN, or 0. */
static int early[33];

static int proc_file = -1; /* of PROC_OPEN: the file that the next PROC_WRITE writes to */

static int open_namespace(const char *path) { return SYS(open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)); }

/* Whether a descriptor is of this process's own namespace, which /proc has as `own`. */
static bool is_own(int fd, const char *own)
{
    struct stat ours, theirs;

    return fstatat(self.proc_fd, own, &ours, 0) == 0 && fstat(fd, &theirs) == 0 && ours.st_dev == theirs.st_dev &&
           ours.st_ino == theirs.st_ino;
}

/* Before the user namespace: with the caller's rights, which are lost there. The caller's own namespace needs none.
 * What cannot be entered yet is left to op_join, which reports what goes wrong. */
int op_join_early(int type, const char *path, const char *own)
{
    int *place = &early[__builtin_ffs(type)];
    cleanup_close int fd = open_namespace(path);

    if (fd < 0)
        return 0;
    if (is_own(fd, own) || setns(fd, type) == 0) {
        stay_hidden();
        *place = ENTERED;
    } else {
        *place = 1 + steal_fd(&fd);
    }
    return 0;
}

int op_join(int type, const char *path)
{
    int *place = &early[__builtin_ffs(type)];
    cleanup_close int fd = *place > 0 ? *place - 1 : -1;

    if (*place == ENTERED)
        return 0;
    *place = 0;
    if (fd < 0)
        fd = TRY(open_namespace(path));
    SYS(setns(fd, type));
    stay_hidden();
    return 0;
}

/* The root of the process, from before the root changed: only what the pidfd says is alive has not lent its number.
 * Returns as failed() does, or a descriptor. */
static int root_of(int pid)
{
    char path[sizeof "2147483647/root"];
    cleanup_close int fd = -1;

    snprintf(path, sizeof path, "%d/root", pid);
    fd = SYS(openat(self.proc_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC));
    SYSCALL(pidfd_send_signal, self.process_fd, 0, NULL, 0);
    return steal_fd(&fd);
}

/* All namespaces in one call, so that each is of the same process and the user namespace lends its rights over the
 * others, except the cgroup namespace, which op_fork() enters. `pid`: the process whose root to take, where that is
 * not the root of its mount namespace, or 0. */
int op_join_process(int namespaces, int pid)
{
    int now = namespaces & ~CLONE_NEWCGROUP;
    cleanup_close int root = pid ? TRY(root_of(pid)) : -1;

    if (now)
        SYS(setns(self.process_fd, now));
    stay_hidden();
    if (now == namespaces)
        close_now(&self.process_fd);
    if (root >= 0) {
        SYS(fchdir(root));
        SYS(chroot("."));
    }
    self.root_fd = SYS(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    return 0;
}

int op_yield(void) { return take_turn(0); }

/* The container process becomes a child of our parent: the caller of `rootless create` finds it among its own.
 *
 * It tells its number itself. Only this process, outside its pid namespace, can know that number, and the kernel stores
 * it before the new process runs: if this one told it, and were killed just before, both others would wait for ever. */
int op_fork(void)
{
    struct clone_args args = {.flags = CLONE_PARENT | CLONE_PARENT_SETTID, .parent_tid = (uintptr_t)&shared->pid};

    if (self.wake_fd >= 0) {
        args.flags |= CLONE_FILES | CLONE_PIDFD;
        args.pidfd = (uintptr_t)&shared->pidfd;
    }
    if (self.cgroup_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (unsigned)self.cgroup_fd;
    }
    if (SYSCALL(clone3, &args, sizeof args) > 0)
        _exit(0);
    /* where the hierarchy is mounted with nsdelegate, as systemd does, nobody in a cgroup namespace is cloned into a
     * cgroup from one outside: this process enters it, now that it is in its cgroup */
    if (self.process_fd >= 0)
        SYS(setns(self.process_fd, CLONE_NEWCGROUP));
    close_now(&self.process_fd);
    return take_turn(shared->pid);
}

/* The numbers of namespaces of this process. Later, nobody outside may look: it is hidden when it joins others. */
int op_identify(struct bytes kinds)
{
    enum { MOST = sizeof self.namespaces / sizeof *self.namespaces };
    char path[64];
    struct stat st;
    uint32_t count = 0;

    for (const char *kind = next_item(kinds, NULL); kind && count < MOST; kind = next_item(kinds, kind)) {
        snprintf(path, sizeof path, "self/ns/%s", kind);
        SYS(fstatat(self.proc_fd, path, &st, 0));
        self.namespaces[count++] = st.st_ino;
    }
    self.identified = count;
    return 0;
}

/* Root of the user namespace, so that what is made from here on belongs to it. The capabilities stay. */
int op_become(uid_t uid, gid_t gid)
{
    SYSCALL(setresgid, gid, gid, gid);
    SYSCALL(setresuid, uid, uid, uid);
    stay_hidden();
    return 0;
}

/* Files of the caller's whose group the container does not have are out of reach for the container's root, where that
 * is somebody else: capabilities are over files with both ids mapped (user_namespaces(7)). IDS ends it. */
int op_files_as(uid_t uid, gid_t gid)
{
    self.files_uid = uid;
    self.files_gid = gid;
    return 0;
}

/* A process in a namespace that is joined must not reach this one by ptrace or /proc (CVE-2016-9962): the kernel then
 * asks for CAP_SYS_PTRACE over the user namespace that this program was executed in, the caller's. */
int op_non_dumpable(void)
{
    SYS_AS("prctl(PR_SET_DUMPABLE)", prctl(PR_SET_DUMPABLE, 0));
    self.hidden = true;
    return 0;
}

/* For a helper of the host's that finds namespaces by the number of a process, while nothing else runs in them. */
int op_dumpable(void)
{
    self.hidden = false;
    return SYS_AS("prctl(PR_SET_DUMPABLE)", prctl(PR_SET_DUMPABLE, 1));
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
    char directory[PATH_MAX];
    const char *name;
    struct statfs fs;
    struct stat proc, file;
    cleanup_close int fd = -1, parent = -1;

    TRY(split(path, directory, &name));
    parent = (int)SYS_AS("open", syscall(SYS_openat2, self.proc_fd, directory, &how, sizeof how));
    how.flags = O_WRONLY | O_NOFOLLOW | O_CLOEXEC;
    how.resolve |= RESOLVE_NO_XDEV;
    fd = (int)SYS_AS("open", syscall(SYS_openat2, parent, name, &how, sizeof how));
    if (fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC && fstat(self.proc_fd, &proc) == 0 &&
        fstat(fd, &file) == 0 && file.st_dev == proc.st_dev)
        return steal_fd(&fd);
    return failed_with("open", EXDEV);
}

/* What a process that hides has in /proc belongs to root (proc_pid(5)): it is opened before. */
int op_proc_open(const char *path)
{
    close_now(&proc_file);
    proc_file = TRY(open_proc(path));
    return 0;
}

/* Through the caller's /proc, never the image's, and only if it is one (CVE-2019-16884, CVE-2019-19921). */
int op_proc_write(const char *path, const char *value)
{
    cleanup_close int fd = proc_file >= 0 ? steal_fd(&proc_file) : TRY(open_proc(path));
    ssize_t written = SYS(write(fd, value, strlen(value)));

    /* a part of it: the rest makes no sense */
    return written == (ssize_t)strlen(value) ? 0 : failed_with("write", EINVAL);
}

/* Whether a keyring belongs to this user: "keyring;UID;…", keyctl_describe(2). */
static bool is_own_keyring(int keyring)
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
int op_keyring(const char *name)
{
    /* all for those that have it; for the same user elsewhere only that exec may find it by its name: KEY_USR_SEARCH */
    enum { PERMISSIONS = 0x3f080000 };
    int keyring = SYSCALL(keyctl, KEYCTL_JOIN_SESSION_KEYRING, name);

    if (!is_own_keyring(keyring))
        return failed_with("keyctl", EKEYREJECTED);
    syscall(SYS_keyctl, KEYCTL_SETPERM, keyring, PERMISSIONS);
    return 0;
}

int op_link_up(const char *name)
{
    struct ifreq request = {.ifr_flags = 0};
    cleanup_close int fd = SYS(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));

    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    SYS_AS("ioctl(SIOCGIFFLAGS)", ioctl(fd, SIOCGIFFLAGS, &request));
    request.ifr_flags |= IFF_UP;
    return SYS_AS("ioctl(SIOCSIFFLAGS)", ioctl(fd, SIOCSIFFLAGS, &request));
}
