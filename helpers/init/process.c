/* What the program is: its ids, its rights, its limits, itself. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

int op_rlimit(const struct op *op)
{
    struct {
        uint64_t soft, hard;
    } limit = {(uint64_t)op->n[1], (uint64_t)op->n[2]};

    return syscall(SYS_prlimit64, 0, (int)op->n[0], &limit, NULL) < 0 ? failed("setrlimit") : 0;
}

/* A program that opens /dev/stdout opens the caller's pipe again, and needs to own it. Files and terminals of the host
 * keep their owner: they outlive the container. */
int op_stdio_owner(const struct op *op)
{
    enum { PIPEFS = 0x50495045 };

    for (int fd = 0; fd < 3; fd++) {
        struct statfs fs;

        if (fstatfs(fd, &fs) == 0 && fs.f_type == PIPEFS && fchown(fd, (uid_t)op->n[0], (gid_t)-1) < 0 && errno != EPERM &&
            errno != EINVAL)
            return failed("fchown");
    }
    return 0;
}

int op_bounding(const struct op *op)
{
    for (int cap = 0; cap < 64; cap++)
        if (!((uint64_t)op->n[0] >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
            if (errno == EINVAL) /* past the last one that this kernel knows */
                break;
            return failed("prctl(PR_CAPBSET_DROP)");
        }
    return 0;
}

/* The numbers come as text, a list that is one string: setgroups(2) has no useful upper bound to put in a record. */
int op_groups(const struct op *op)
{
    const char *cursor = text(op, 0);
    size_t count = 0;
    gid_t *groups = calloc(op->s[0].length + 1, sizeof *groups);

    if (!groups)
        return failed("calloc");
    while (*cursor) {
        char *end;

        groups[count++] = (gid_t)strtoul(cursor, &end, 10);
        if (end == cursor)
            return failed_with("setgroups", EINVAL);
        cursor = *end ? end + 1 : end;
    }
    if (syscall(SYS_setgroups, count, groups) < 0)
        return failed("setgroups");
    free(groups);
    return 0;
}

int op_ids(const struct op *op)
{
    if (prctl(PR_SET_KEEPCAPS, 1) < 0)
        return failed("prctl(PR_SET_KEEPCAPS)");
    return op_become(op);
}

int op_capabilities(const struct op *op)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    for (int half = 0; half < 2; half++)
        data[half] = (struct __user_cap_data_struct){
            .effective = (uint32_t)((uint64_t)op->n[0] >> 32 * half),
            .permitted = (uint32_t)((uint64_t)op->n[1] >> 32 * half),
            .inheritable = (uint32_t)((uint64_t)op->n[2] >> 32 * half),
        };
    return syscall(SYS_capset, &header, data) < 0 ? failed("capset") : 0;
}

int op_ambient(const struct op *op)
{
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return failed("prctl(PR_CAP_AMBIENT)");
    for (int cap = 0; cap < 64; cap++)
        if ((uint64_t)op->n[0] >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
            return failed("prctl(PR_CAP_AMBIENT)");
    return 0;
}

int op_umask(const struct op *op)
{
    umask((mode_t)op->n[0]);
    return 0;
}

int op_chdir(const struct op *op)
{
    char where[4096];
    long length;

    if (chdir(text(op, 0)) < 0)
        return failed("chdir");
    /* a directory outside the root shows as "(unreachable)/…" (CVE-2024-21626) */
    length = syscall(SYS_getcwd, where, sizeof where);
    if (length < 0)
        return failed("getcwd");
    return where[0] == '/' ? 0 : failed_with("chdir", EXDEV);
}

/* HOME=… from the image's /etc/passwd; "/" where it does not say. */
int op_home(const struct op *op)
{
    static char home[4096 + sizeof "HOME="] = "HOME=/";
    struct stat st;
    const char *line, *end, *bytes = MAP_FAILED;
    int fd = open("/etc/passwd", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    self.home = home;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
        bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (fd >= 0)
        close(fd);
    if (bytes == MAP_FAILED)
        return 0;
    end = bytes + st.st_size;
    for (line = bytes; line < end; line++) {
        const char *field = line, *newline = memchr(line, '\n', (size_t)(end - line));
        const char *starts[7] = {line};
        int count = 1;

        newline = newline ? newline : end;
        while (count < 7 && (field = memchr(field, ':', (size_t)(newline - field))))
            starts[count++] = ++field;
        /* name:password:uid:gid:gecos:home:shell */
        if (count == 7 && starts[3] - starts[2] > 1 && starts[3] - starts[2] <= 11) {
            char uid[12] = "";
            size_t length = (size_t)(starts[6] - 1 - starts[5]);

            memcpy(uid, starts[2], (size_t)(starts[3] - 1 - starts[2]));
            if (strtoll(uid, NULL, 10) == op->n[0] && length > 0 && length < 4096) {
                memcpy(home + 5, starts[5], length);
                home[5 + length] = '\0';
                break;
            }
        }
        line = newline;
    }
    munmap((void *)bytes, (size_t)st.st_size);
    return 0;
}

/* The first of the candidates that can be executed, as execvp(3) would find it; looked for as the program's user. */
int op_command(const struct op *op)
{
    int error = ENOENT;

    for (const char *path = plan_next(&self.plan, op, 0, NULL); path; path = plan_next(&self.plan, op, 0, path)) {
        struct stat st;

        if (stat(path, &st) < 0) {
            if (errno != ENOENT && errno != ENOTDIR)
                error = errno;
        } else if (S_ISDIR(st.st_mode)) {
            error = EISDIR;
        } else if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0) {
            error = errno;
        } else {
            self.command = path;
            return 0;
        }
    }
    return failed_with("stat", error);
}

int op_no_new_privs(const struct op *op)
{
    (void)op;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? failed("prctl(PR_SET_NO_NEW_PRIVS)") : 0;
}

int op_seccomp(const struct op *op)
{
    struct sock_fprog program = {.len = (unsigned short)(op->s[0].length / sizeof(struct sock_filter))};
    struct sock_filter *filter = malloc(op->s[0].length);

    if (!filter)
        return failed("malloc");
    memcpy(filter, text(op, 0), op->s[0].length); /* a string has no alignment */
    program.filter = filter;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, (unsigned)op->n[0], &program) < 0 ? failed("seccomp") : 0;
}

static char **list(const struct op *op, int which)
{
    size_t count = 0;
    char **items;

    for (const char *item = plan_next(&self.plan, op, which, NULL); item; item = plan_next(&self.plan, op, which, item))
        count++;
    items = calloc(count + 2, sizeof *items);
    if (!items)
        return NULL;
    count = 0;
    for (const char *item = plan_next(&self.plan, op, which, NULL); item; item = plan_next(&self.plan, op, which, item))
        items[count++] = (char *)item;
    return items;
}

/* When execve says no, the beginning of the file tells why: a missing interpreter, another architecture. */
static int exec_failed(void)
{
    char head[1024];
    int error = errno, fd = open(self.command, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof head);

    if (n > 0)
        explain_failure(head, (size_t)n);
    return failed_with("execve", error);
}

int op_exec(const struct op *op)
{
    char **argv = list(op, 0), **env = list(op, 1);

    if (!argv || !env)
        return failed("calloc");
    if (self.home) {
        char **last = env;

        while (*last)
            last++;
        *last = (char *)self.home;
    }
    /* belt and braces: whatever is still open beyond what the container was given goes at execve */
    if (sys_close_range(3 + (unsigned)self.keep, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        return failed("close_range");
    execve(self.command ? self.command : argv[0], argv, env);
    return exec_failed();
}
