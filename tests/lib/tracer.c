/* Runs commands one after another and disturbs them at an exact moment: the nth system call of a kind in one of their
 * processes. As a subreaper it adopts all processes that they leave.
 *
 *     tracer PATIENCE MOMENT ACTION [COMMAND… ;]…
 *
 * MOMENT is ROLE:CALL:COUNT, where CALL is the number of a system call and ROLE
 *     0, 1, …   the first, second, … command
 *     s         a process that a command spawns, up to its execve
 *     m         a program that it spawned, other than the executor: only its execve is a moment, it is not traced
 *     i, c      the executor's first stage, and the container's process up to its execve
 * or "-": there is no disturbance, and every system call is printed instead. ACTION is a ROLE: its process gets SIGKILL
 * and must end before the process at the moment continues; or =ERRNO: the call is skipped and fails with this errno; or
 * +SIGNAL: the process at the moment gets this signal and continues.
 *
 * It prints "call ROLE NUMBER", "operation CODE" for each Plan (see helpers/init/plan.h), "at" when the moment comes,
 * and "end STATUS", the wait status, for each command; commands after a disturbed one do not run. Then it waits for end
 * of file on its input and for the end of all processes. For those that do not end within PATIENCE seconds it prints
 * "left" and the beginning of /proc/PID/stat, and kills them. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <elf.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES = 256, CALLS = 1024, ENTRY = 1, EXIT = 2 };
enum {
    OPTIONS = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
    PTRACE_O_TRACEEXEC
};

/* struct ptrace_syscall_info of linux/ptrace.h, which conflicts with sys/ptrace.h */
struct call {
    uint8_t op, pad[3];
    uint32_t arch;
    uint64_t ip, sp, nr, args[6];
};

struct process {
    pid_t pid;
    char role;    /* 0 until its parent's event names it */
    bool stopped; /* waiting for that event */
    bool failing; /* this call */
};

static struct process processes[PROCESSES];
static struct {
    char role;
    long call, count;
} moment;
static char victim;
static int error_number, signal_number;
static bool telling, come, closing;
static pid_t held, awaited; /* the process at the moment, and the victim */
static bool held_leaves;
static volatile sig_atomic_t impatient;

static void die(const char *what)
{
    printf("tracer: %s: %s\n", what, strerror(errno));
    fflush(stdout);
    exit(3);
}

static struct process *find(pid_t pid)
{
    struct process *free_one = NULL;

    for (int i = 0; i < PROCESSES; i++) {
        if (processes[i].pid == pid)
            return &processes[i];
        if (!processes[i].pid && !free_one)
            free_one = &processes[i];
    }
    if (!free_one)
        die("too many processes");
    *free_one = (struct process){.pid = pid};
    return free_one;
}

static bool is_counted(char role) { return telling ? role != 'm' : !come && (role == moment.role || role == 's'); }

static void go_on(const struct process *process, int number)
{
    /* ESRCH: it was killed meanwhile, and wait() will report its end */
    if (ptrace(is_counted(process->role) || process->failing ? PTRACE_SYSCALL : PTRACE_CONT, process->pid, 0, number) <
            0 &&
        errno != ESRCH)
        die("go on");
}

static void let_go(struct process *process)
{
    if (ptrace(PTRACE_DETACH, process->pid, 0, 0) < 0 && errno != ESRCH)
        die("detach");
    process->pid = 0;
}

static void set_call(pid_t pid, bool at_entry, long value)
{
    struct user_regs_struct registers;
    struct iovec all = {&registers, sizeof registers};

    if (ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &all) < 0)
        die("get registers");
#if defined(__x86_64__)
    *(at_entry ? &registers.orig_rax : &registers.rax) = (unsigned long)value;
#elif defined(__aarch64__)
    if (at_entry) {
        int none = (int)value;
        struct iovec number = {&none, sizeof none};

        if (ptrace(PTRACE_SETREGSET, pid, 0x404 /* NT_ARM_SYSTEM_CALL */, &number) < 0)
            die("set the call");
        return;
    }
    registers.regs[0] = (unsigned long)value;
#else
#error "which register holds the number of a system call, and which its result?"
#endif
    if (ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &all) < 0)
        die("set registers");
}

static bool is_executor(pid_t pid, uint64_t arguments)
{
    static const char executor[16] = "rootless-init";
    uint64_t address = (uint64_t)ptrace(PTRACE_PEEKDATA, pid, arguments, 0);
    char name[16] = "";

    for (size_t i = 0; i < sizeof name; i += sizeof(long)) {
        long word = ptrace(PTRACE_PEEKDATA, pid, address + i, 0);

        memcpy(name + i, &word, sizeof word);
    }
    return strncmp(name, executor, sizeof name) == 0;
}

/* The moment has come; `leaves`: the process is not traced any further. */
static void act(struct process *process, bool leaves)
{
    come = true;
    puts("at");
    if (signal_number) {
        kill(process->pid, signal_number);
    } else if (!victim) {
        process->failing = true;
        set_call(process->pid, true, -1);
    } else {
        for (int i = 0; i < PROCESSES; i++)
            if (processes[i].pid && processes[i].role == victim) {
                awaited = processes[i].pid;
                kill(awaited, SIGKILL);
            }
        if (awaited && awaited != process->pid) {
            held = process->pid;
            held_leaves = leaves;
            return;
        }
    }
    if (leaves && !process->failing && !awaited)
        let_go(process);
    else
        go_on(process, 0);
}

static void on_call(struct process *process)
{
    static long counts[CALLS];
    struct call call;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, process->pid, sizeof call, &call) < 0) {
        if (errno != ESRCH)
            die("look at the call");
        return;
    }
    if (call.op != ENTRY) {
        if (process->failing)
            set_call(process->pid, false, -error_number);
        process->failing = false;
        go_on(process, 0);
        return;
    }
    if (process->role == 's' && call.nr == SYS_execve && !is_executor(process->pid, call.args[1]))
        process->role = 'm';
    if (telling)
        printf("call %c %ld\n", process->role, (long)call.nr);
    else if (!come && process->role == moment.role && (long)call.nr == moment.call &&
             ++counts[call.nr] == moment.count) {
        act(process, process->role == 'm');
        return;
    }
    if (process->role == 'm')
        let_go(process);
    else
        go_on(process, 0);
}

static void begin_child(struct process *child, char parent)
{
    child->role = parent == 'i' ? 'c' : parent == 'c' ? 'p' : 's';
    if (child->stopped) {
        child->stopped = false;
        go_on(child, 0);
    }
}

static void on_child(const struct process *parent)
{
    unsigned long pid = 0;

    if (ptrace(PTRACE_GETEVENTMSG, parent->pid, 0, &pid) == 0)
        begin_child(find((pid_t)pid), parent->role);
}

/* Whether a process is left whose event could still name a child. */
static bool has_parent(void)
{
    for (int i = 0; i < PROCESSES; i++)
        if (processes[i].pid && (processes[i].role == 's' || processes[i].role == 'i' ||
                                 (processes[i].role >= '0' && processes[i].role <= '9')))
            return true;
    return false;
}

/* Continue children whose parent was killed before its event named them. */
static void begin_untold(char parent)
{
    for (int i = 0; i < PROCESSES; i++)
        if (processes[i].pid && processes[i].stopped)
            begin_child(&processes[i], parent);
}

/* Print the operations of the Plan of the executor `pid`, whose last argument is the number of the descriptor. */
static void tell_plan(pid_t pid)
{
    struct {
        char magic[8];
        uint32_t count, size;
    } header;
    struct {
        uint16_t code;
        char rest[86];
    } operation;
    char path[64], words[1024], *last = words;
    FILE *file;
    size_t length;

    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    file = fopen(path, "r");
    length = file ? fread(words, 1, sizeof words - 1, file) : 0;
    if (file)
        fclose(file);
    words[length] = '\0';
    for (size_t i = 0; i + 1 < length; i++)
        if (words[i] == '\0')
            last = words + i + 1;
    snprintf(path, sizeof path, "/proc/%d/fd/%.8s", pid, last);
    file = fopen(path, "r");
    if (!file || fread(&header, sizeof header, 1, file) != 1)
        die("read the Plan");
    while (header.count-- && fread(&operation, sizeof operation, 1, file) == 1)
        printf("operation %d\n", operation.code);
    fclose(file);
}

static void on_stop(struct process *process, int status)
{
    int number = WSTOPSIG(status), event = status >> 16;

    if (number == (SIGTRAP | 0x80)) {
        on_call(process);
        return;
    }
    if (!process->role) { /* a child's first stop */
        process->stopped = true;
        /* after the moment roles do not matter, and the victim may have been this one's parent */
        if (come || !has_parent())
            begin_untold('i');
        return;
    }
    if (event == PTRACE_EVENT_EXEC) {
        if (process->role == 's') {
            process->role = 'i';
            if (telling)
                tell_plan(process->pid);
        } else if (process->role == 'i' || process->role == 'c') {
            let_go(process);
            return;
        }
    } else if (event) {
        on_child(process);
    }
    go_on(process, event || number == SIGSTOP ? 0 : number);
}

static pid_t begin(char **command, char role)
{
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL)
            _exit(127);
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execvp(command[0], command);
        _exit(127);
    }
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status) || ptrace(PTRACE_SETOPTIONS, pid, 0, OPTIONS) < 0)
        die("trace");
    find(pid)->role = role;
    go_on(find(pid), 0);
    return pid;
}

static pid_t watch_input(void)
{
    pid_t pid = fork();
    char byte;

    if (pid == 0) {
        while (read(0, &byte, 1) > 0)
            ;
        _exit(0);
    }
    return pid;
}

static void lose_patience(int number)
{
    (void)number;
    impatient = 1;
}

static int tell_what_is_left(void)
{
    char path[64], line[128];
    FILE *file, *stat;
    int pid;

    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    file = fopen(path, "r");
    while (file && fscanf(file, "%d", &pid) == 1) {
        snprintf(path, sizeof path, "/proc/%d/stat", pid);
        stat = fopen(path, "r");
        printf("left %.40s\n", stat && fgets(line, sizeof line, stat) ? line : "one that is gone");
        if (stat)
            fclose(stat);
        kill(pid, SIGKILL);
    }
    fflush(stdout);
    return 1;
}

int main(int argc, char **argv)
{
    struct sigaction on_alarm = {.sa_handler = lose_patience};
    pid_t command, watcher = watch_input();
    char role = '0', **next;

    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    if (argc < 5 || freopen("/dev/null", "r", stdin) == NULL)
        die("usage");
    telling = argv[2][0] == '-';
    if (!telling && sscanf(argv[2], "%c:%ld:%ld", &moment.role, &moment.call, &moment.count) != 3)
        die("MOMENT");
    if (sscanf(argv[3], "=%d", &error_number) != 1 && sscanf(argv[3], "+%d", &signal_number) != 1)
        victim = argv[3][0];
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    sigaction(SIGALRM, &on_alarm, NULL);

    for (char **word = argv + 4; *word; word++)
        if (strcmp(*word, ";") == 0)
            *word = NULL;
    next = argv + 4;
    command = begin(next, role);
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, __WALL);
        struct process *process;

        if (pid < 0) {
            if (impatient)
                return tell_what_is_left();
            if (errno == EINTR)
                continue;
            return errno == ECHILD && closing ? 0 : 3;
        }
        if (pid == watcher) {
            closing = true;
            alarm((unsigned)atoi(argv[1]));
            continue;
        }
        process = find(pid);
        if (WIFSTOPPED(status)) {
            on_stop(process, status);
            continue;
        }
        process->pid = 0;
        begin_untold(process->role);
        if (pid == awaited && held) {
            process = find(held);
            held = 0;
            if (held_leaves)
                let_go(process);
            else
                go_on(process, 0);
        }
        if (pid == command) {
            printf("end %d\n", status);
            fflush(stdout);
            while (*next)
                next++;
            next++;
            command = 0;
            if (!come && next < argv + argc && *next)
                command = begin(next, ++role);
            else {
                puts("done");
                fflush(stdout);
            }
        }
    }
}
