/* What the program is: its ids, its rights, its limits, itself. */
#include "init.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

int op_rlimit(const struct op *op)
{
    struct {
        uint64_t soft, hard;
    } limit = {(uint64_t)op->n[RLIMIT_SOFT], (uint64_t)op->n[RLIMIT_HARD]};

    return syscall(SYS_prlimit64, 0, (int)op->n[RLIMIT_RESOURCE], &limit, NULL) < 0 ? failed("setrlimit") : 0;
}

/* A program that opens /dev/stdout opens the caller's pipe again, and needs to own it. Files and terminals of the host
 * keep their owner: they outlive the container. */
int op_stdio_owner(const struct op *op)
{
    enum { PIPEFS = 0x50495045 };

    for (int fd = 0; fd < 3; fd++) {
        struct statfs fs;

        if (fstatfs(fd, &fs) == 0 && fs.f_type == PIPEFS && fchown(fd, (uid_t)op->n[STDIO_OWNER_UID], (gid_t)-1) < 0 &&
            errno != EPERM && errno != EINVAL)
            return failed("fchown");
    }
    return 0;
}

int op_bounding(const struct op *op)
{
    for (int cap = 0; cap < 64; cap++)
        if (!((uint64_t)op->n[BOUNDING_KEEP] >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
            if (errno == EINVAL) /* past the last one that this kernel knows */
                break;
            return failed("prctl(PR_CAPBSET_DROP)");
        }
    return 0;
}

/* An id in decimal digits, and nothing else. */
static bool read_id(const char *digits, size_t length, uint32_t *id)
{
    uint64_t value = 0;

    for (size_t i = 0; i < length; i++) {
        if (digits[i] < '0' || digits[i] > '9' || value > UINT32_MAX)
            return false;
        value = value * 10 + (uint64_t)(digits[i] - '0');
    }
    *id = (uint32_t)value;
    return length > 0 && value <= UINT32_MAX;
}

/* The numbers come as text with commas between them: there may be more than a record has room for. */
int op_groups(const struct op *op)
{
    enum { MAX_GROUPS = 65536 }; /* NGROUPS_MAX of the kernel; musl has one of its own */
    static gid_t groups[MAX_GROUPS];
    const char *end;
    size_t count = 0;

    for (const char *digits = text(op, GROUPS_GIDS); *digits; digits = *end ? end + 1 : end) {
        for (end = digits; *end && *end != ','; end++)
            ;
        if (count == MAX_GROUPS || !read_id(digits, (size_t)(end - digits), &groups[count]))
            return failed_with("setgroups", EINVAL);
        count++;
    }
    return syscall(SYS_setgroups, count, groups) < 0 ? failed("setgroups") : 0;
}

_Static_assert((int)IDS_UID == (int)BECOME_UID && (int)IDS_GID == (int)BECOME_GID, "op_become() reads both");

int op_ids(const struct op *op)
{
    self.files_uid = -1;
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
            .effective = (uint32_t)((uint64_t)op->n[CAPABILITIES_EFFECTIVE] >> 32 * half),
            .permitted = (uint32_t)((uint64_t)op->n[CAPABILITIES_PERMITTED] >> 32 * half),
            .inheritable = (uint32_t)((uint64_t)op->n[CAPABILITIES_INHERITABLE] >> 32 * half),
        };
    return syscall(SYS_capset, &header, data) < 0 ? failed("capset") : 0;
}

int op_ambient(const struct op *op)
{
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return failed("prctl(PR_CAP_AMBIENT)");
    for (int cap = 0; cap < 64; cap++)
        if ((uint64_t)op->n[AMBIENT_RAISE] >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
            return failed("prctl(PR_CAP_AMBIENT)");
    return 0;
}

/* Strings: the list for people, the mask for the kernel. */
int op_cpu_affinity(const struct op *op)
{
    const char *mask = text(op, CPU_AFFINITY_MASK);

    return syscall(SYS_sched_setaffinity, 0, op->s[CPU_AFFINITY_MASK].length, mask) < 0 ? failed("sched_setaffinity")
                                                                                        : 0;
}

int op_umask(const struct op *op)
{
    umask((mode_t)op->n[UMASK_MASK]);
    return 0;
}

int op_chdir(const struct op *op)
{
    const int protocol[] = {
        self.report_fd,      self.reply_fd,  self.start_fd, self.hook_output[0],
        self.hook_output[1], self.notify_fd, self.agent_fd,
    };
    char where[PATH_MAX];
    long length;

    /* from here on the image says where paths lead: none may begin at a descriptor of the host (CVE-2024-21626) */
    if (close_all_but(protocol, sizeof protocol / sizeof *protocol) < 0)
        return failed("close_range");
    self.proc_fd = self.root_fd = self.mask_fd = self.cgroup_fd = self.console_fd = -1;
    if (self.in_directory)
        return 0;
    if (chdir(text(op, CHDIR_PATH)) < 0)
        return op->n[CHDIR_EARLY] && errno == EACCES ? 0 : failed("chdir");
    self.in_directory = true;
    /* a directory outside the root shows as "(unreachable)/…" (CVE-2024-21626) */
    length = syscall(SYS_getcwd, where, sizeof where);
    if (length < 0)
        return failed("getcwd");
    return where[0] == '/' ? 0 : failed_with("chdir", EXDEV);
}

/* HOME=… from the image's /etc/passwd; "/" where it does not say. */
int op_home(const struct op *op)
{
    enum { LONGEST = 16 << 20 }; /* a file may claim any size, and be a hole */
    static char home[sizeof "HOME=" + PATH_MAX];
    struct stat st;
    size_t size = 0, longest = 0;
    const char *newline;
    char *bytes = MAP_FAILED;
    ssize_t n;
    cleanup_close int fd = open("/etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    memcpy(home, "HOME=/", sizeof "HOME=/");
    self.home = home;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
        longest = st.st_size < LONGEST ? (size_t)st.st_size : LONGEST;
        bytes = mmap(NULL, longest, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    /* read, not mapped: another container may make the file shorter meanwhile, and then a page of it is a SIGBUS */
    while (bytes != MAP_FAILED && size < longest && (n = pread(fd, bytes + size, longest - size, (off_t)size)) > 0)
        size += (size_t)n;
    if (bytes == MAP_FAILED)
        return 0;
    for (const char *line = bytes; line < bytes + size; line = newline + 1) {
        const char *fields[7] = {line}; /* name:password:uid:gid:gecos:home:shell */
        int count = 1;
        uint32_t uid;

        newline = memchr(line, '\n', size - (size_t)(line - bytes));
        if (!newline)
            newline = bytes + size;
        for (const char *c = line; c < newline && count < 7; c++)
            if (*c == ':')
                fields[count++] = c + 1;
        if (count >= 6 && read_id(fields[2], (size_t)(fields[3] - 1 - fields[2]), &uid) && uid == op->n[HOME_UID]) {
            size_t length = (size_t)((count == 7 ? fields[6] - 1 : newline) - fields[5]);

            if (length > 0 && length < PATH_MAX) {
                memcpy(home + strlen("HOME="), fields[5], length);
                home[strlen("HOME=") + length] = '\0';
            }
            break;
        }
    }
    munmap(bytes, longest);
    return 0;
}

/* The first of the candidates that can be executed, as execvp(3) would find it; looked for as the program's user. */
int op_command(const struct op *op)
{
    int error = ENOENT;

    for (const char *path = plan_next(&self.plan, op, COMMAND_CANDIDATES, NULL); path;
         path = plan_next(&self.plan, op, COMMAND_CANDIDATES, path)) {
        struct stat st;

        if (stat(path, &st) < 0) {
            if (errno != ENOENT && (errno != ENOTDIR || error == ENOENT))
                error = errno;
        } else if (S_ISDIR(st.st_mode)) {
            error = EISDIR;
        } else if (!S_ISREG(st.st_mode)) {
            error = EACCES; /* as execve says it */
        } else if (sys_faccessat2(AT_FDCWD, path, X_OK, AT_EACCESS) < 0) {
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

_Static_assert((int)SECCOMP_FILTER == (int)NO_KEYS_FILTER, "load_filter() reads both");

int load_filter(const struct op *op, unsigned flags)
{
    /* what pass_listener() sleeps in; both halves of the argument, whichever comes first */
    static const struct sock_filter prefix[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MARK, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MARK, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
    };
    static struct sock_filter filter[BPF_MAXINSNS];
    size_t before = flags & FILTER_NEW_LISTENER ? sizeof prefix / sizeof *prefix : 0;
    size_t instructions = op->s[SECCOMP_FILTER].length / sizeof *filter;
    struct sock_fprog program = {.len = (unsigned short)(before + instructions), .filter = filter};
    int result;

    if (instructions > BPF_MAXINSNS - before)
        return failed_with("seccomp", EINVAL);
    memcpy(filter, prefix, before * sizeof *filter);
    memcpy(filter + before, text(op, SECCOMP_FILTER), instructions * sizeof *filter);
    result = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
    return result < 0 ? failed("seccomp") : result;
}

int op_seccomp(const struct op *op)
{
    int listener;

    report_executing(); /* the filter may forbid to say it later */
    listener = load_filter(op, (unsigned)op->n[SECCOMP_FLAGS]);
    if (op->n[SECCOMP_FLAGS] & FILTER_NEW_LISTENER)
        pass_listener(listener);
    return listener < 0 ? listener : 0;
}

char **fill_argv(const struct op *op, int which, char **items)
{
    for (const char *item = plan_next(&self.plan, op, which, NULL); item; item = plan_next(&self.plan, op, which, item))
        *items++ = (char *)item;
    return items;
}

int prepare_exec(void)
{
    const struct op *op = &self.plan.ops[self.plan.count - 1];
    /* no list has more elements than bytes; HOME and two ends */
    size_t size = ((size_t)op->s[EXEC_ARGS].length + op->s[EXEC_ENV].length + 3) * sizeof(char *);

    if (op->code != OP_EXEC)
        return 0;
    self.args = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (self.args == MAP_FAILED)
        return -1;
    self.env = fill_argv(op, EXEC_ARGS, self.args) + 1;
    self.env_end = fill_argv(op, EXEC_ENV, self.env);
    return 0;
}

/* When execve says no, the beginning of the file tells why: a missing interpreter, another architecture. */
static int exec_failed(const char *program)
{
    char head[1024];
    int result = failed("execve");
    cleanup_close int fd = open(program, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, head, sizeof head);

    if (n > 0)
        explain_failure(head, (size_t)n);
    return result;
}

int op_exec(const struct op *op)
{
    const char *program = self.command ? self.command : self.args[0];

    (void)op;
    *self.env_end = self.home;
    report_executing();
    execve(program, self.args, self.env);
    return exec_failed(program);
}
