/* What the program is: its ids, its rights, its limits, how it is scheduled, itself. */
#include "init.h"

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/vfs.h>

/* A program that opens /dev/stdout opens the caller's pipe again, and needs to own it. Files and terminals of the host
 * keep their owner: they outlive the container. */
int op_stdio_owner(uid_t uid)
{
    enum { PIPEFS = 0x50495045 };
    int result = 0;

    for (int fd = 0; fd < 3; fd++) {
        struct statfs fs;

        if (fstatfs(fd, &fs) == 0 && fs.f_type == PIPEFS && fchown(fd, uid, (gid_t)-1) < 0)
            result = failed("fchown");
    }
    return result;
}

int op_bounding(uint64_t keep)
{
    for (int cap = 0; cap < 64; cap++)
        if (!(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
            if (errno == EINVAL) /* past the last one that this kernel knows */
                break;
            return failed("prctl(PR_CAPBSET_DROP)");
        }
    return 0;
}

int op_ids(uid_t uid, gid_t gid)
{
    self.files_uid = -1;
    SYS_AS("prctl(PR_SET_KEEPCAPS)", prctl(PR_SET_KEEPCAPS, 1));
    return op_become(uid, gid);
}

int op_capabilities(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
    };

    return SYSCALL(capset, &header, data);
}

int op_ambient(uint64_t wanted)
{
    SYS_AS("prctl(PR_CAP_AMBIENT)", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
    for (int cap = 0; cap < 64; cap++)
        if (wanted >> cap & 1)
            SYS_AS("prctl(PR_CAP_AMBIENT)", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0));
    return 0;
}

/* From here on the image says where paths lead: none may begin at a descriptor of the host (CVE-2024-21626). */
int op_close_fds(void)
{
    const int protocol[] = {
        self.report_fd, self.reply_fd, self.start_fd, self.hook_output[0], self.hook_output[1],
        self.notify_fd, self.agent_fd, self.wake_fd,  self.stage_fd,       shared->pidfd,
    };

    TRY(close_all_but(protocol, sizeof protocol / sizeof *protocol));
    self.proc_fd = self.root_fd = self.cgroup_fd = self.console_fd = -1;
    return 0;
}

/* `early`: what is refused may be entered by a later one. */
int op_chdir(bool early, const char *path)
{
    static bool in_directory;
    char where[PATH_MAX];

    if (in_directory)
        return 0;
    if (chdir(path) < 0)
        return early && errno == EACCES ? 0 : failed("chdir");
    in_directory = true;
    /* a directory outside the root shows as "(unreachable)/…" (CVE-2024-21626) */
    SYSCALL(getcwd, where, sizeof where);
    return where[0] == '/' ? 0 : failed_with("chdir", EXDEV);
}

/* The home directory of a user in a file such as /etc/passwd, name:password:uid:gid:gecos:home:shell, of which it reads
 * no more than LONGEST: a file may claim any size, and be a hole. Returns as failed() does, or its length: 0 if it has
 * none, PATH_MAX if it is too long. Read, not mapped: another container may make the file shorter meanwhile, and then a
 * page is a SIGBUS. */
static int read_home(int fd, uid_t uid, char *home)
{
    enum { LONGEST = 16 << 20, ID = 2, HOME = 5 };
    char block[4096];
    uint64_t id = 0;
    int field = 0, digits = 0, length = 0;
    ssize_t n = 0, at = 0;

    for (ssize_t left = LONGEST;; at++) {
        char c;

        if (at == n) {
            n = left > 0 ? SYS(read(fd, block, sizeof block)) : 0;
            left -= n;
            at = 0;
        }
        c = n > 0 ? block[at] : '\n';
        if (c == '\n' && field >= HOME && digits > 0 && id == uid)
            return length;
        if (n == 0)
            return 0;
        if (c == '\n') {
            id = 0;
            field = digits = length = 0;
        } else if (c == ':') {
            field++;
        } else if (field == ID) {
            digits++;
            id = c >= '0' && c <= '9' && id <= UINT32_MAX ? id * 10 + (uint64_t)(c - '0') : UINT64_MAX; /* no number */
        } else if (field == HOME && length < PATH_MAX) {
            home[length++] = c;
        }
    }
}

/* HOME=… as `path` has it for this user; `otherwise` where it does not say. */
int op_home(uid_t uid, const char *path, const char *otherwise)
{
    static char variable[sizeof "HOME=" + PATH_MAX] = "HOME=";
    char *home = variable + strlen("HOME=");
    struct stat st;
    int length = 0;
    cleanup_close int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        length = TRY(read_home(fd, uid, home));
    if (length > 0 && length < PATH_MAX)
        home[length] = '\0';
    else
        snprintf(home, PATH_MAX, "%s", otherwise);
    if (self.exec.env_end)
        *self.exec.env_end = variable;
    return 0;
}

/* Returns 0 or an errno: why execve(2) would refuse the file, for the program's user. */
static int refusal(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return errno;
    if (!S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? EISDIR : EACCES;
    return syscall(SYS_faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS) < 0 ? errno : 0;
}

static const char *command; /* of COMMAND */

/* The first of the candidates that can be executed; if there is none, what it explains is an errno for each. */
int op_command(struct bytes candidates)
{
    int result = failed_with("stat", ENOENT);

    for (const char *path = next_item(candidates, NULL); path; path = next_item(candidates, path)) {
        unsigned char error = (unsigned char)refusal(path);

        if (!error) {
            command = path;
            return 0;
        }
        explain_failure(&error, 1);
    }
    return result;
}

int op_no_new_privs(void) { return SYS_AS("prctl(PR_SET_NO_NEW_PRIVS)", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); }

/* Returns as failed() does, or the descriptor of the notifications, or 0. */
static int load_filter(struct bytes filter, unsigned flags)
{
    size_t instructions = filter.length / sizeof(struct sock_filter);
    struct sock_fprog program = {.len = (unsigned short)instructions,
                                 .filter = (struct sock_filter *)(uintptr_t)filter.at};

    if (instructions > BPF_MAXINSNS)
        return failed_with("seccomp", EINVAL);
    return SYSCALL(seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

int op_no_keys(struct bytes filter) { return load_filter(filter, 0); }

int op_pretend(unsigned flags, struct bytes filter) { return load_filter(filter, flags); }

int op_no_sockets(struct bytes filter) { return load_filter(filter, 0); }

int op_seccomp(unsigned flags, unsigned hook_flags, struct bytes filter)
{
    const uint64_t one = 1;
    int listener;

    if (self.in_hook)
        return load_filter(filter, hook_flags);
    report_executing(); /* the filter may forbid to say it later */
    if (self.wake_fd >= 0)
        SYS(write(self.wake_fd, &one, sizeof one));
    listener = load_filter(filter, flags);
    pass_listener(listener);
    return listener < 0 ? listener : 0;
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

/* main() has laid out the arguments. */
int op_exec(struct bytes args, struct bytes env)
{
    const char *program = command ? command : args.at;

    (void)env;
    report_executing();
    execve(program, self.exec.args, self.exec.env);
    return exec_failed(program);
}
