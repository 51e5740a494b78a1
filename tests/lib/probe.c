/* Observations in a container that a shell cannot make: system calls by name, and their effect on the process that
 * makes them.
 *
 *     probe call NAME [NUMBER…]     makes the system call; prints its result, or the name of its errno
 *     probe i386 NAME [NUMBER…]     the same as a 32-bit program of x86, for NAME a number
 *     probe thread NAME [NUMBER…]   the same in a second thread; prints whether the first one survives
 *     probe catch NAME [NUMBER…]    with a handler for SIGSYS; prints what the handler receives
 *     probe trace NAME [NUMBER…]    under a tracer; prints the message of the seccomp event
 *     probe ids                     real, effective and saved ids
 *     probe clocks                  seconds of CLOCK_MONOTONIC and CLOCK_BOOTTIME
 *     probe size                    columns and rows of the terminal on standard input
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name;
    long number;
} calls[] = {
    {"add_key", SYS_add_key},
    {"bpf", SYS_bpf},
    {"clone3", SYS_clone3},
    {"fchown", SYS_fchown},
    {"getpriority", SYS_getpriority},
    {"ioprio_get", SYS_ioprio_get},
    {"kexec_load", SYS_kexec_load},
    {"keyctl", SYS_keyctl},
    {"mount", SYS_mount},
    {"perf_event_open", SYS_perf_event_open},
    {"process_vm_readv", SYS_process_vm_readv},
    {"setgroups", SYS_setgroups},
    {"sethostname", SYS_sethostname},
    {"setresuid", SYS_setresuid},
    {"socket", SYS_socket},
    {"unshare", SYS_unshare},
    {"none", 2000},
};

static long number;
static unsigned long arguments[6];

static void parse(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (argc > 0 && strcmp(argv[0], calls[i].name) == 0)
            number = calls[i].number;
    if (argc > 0 && number == 0)
        number = (long)strtoul(argv[0], NULL, 0);
    if (number == 0)
        exit(2);
    for (int i = 1; i < argc && i <= 6; i++)
        arguments[i - 1] = strtoul(argv[i], NULL, 0);
}

static long make_call(void)
{
    errno = 0;
    return syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

static void call(void)
{
    long result = make_call();

    if (result == -1 && errno && strerrorname_np(errno))
        puts(strerrorname_np(errno));
    else if (result == -1 && errno)
        printf("errno %d\n", errno);
    else
        printf("%ld\n", result);
    fflush(stdout);
}

static void call_of_i386(void)
{
#ifdef __x86_64__
    long result;

    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(arguments[0]), "c"(arguments[1]), "d"(arguments[2]), "S"(arguments[3])
                     : "memory", "r8", "r9", "r10", "r11");
    puts(result < 0 ? strerrorname_np(-(int)result) : "0");
#endif
}

static void *in_thread(void *unused)
{
    make_call();
    return unused;
}

static void told(int signal, siginfo_t *info, void *unused)
{
    (void)signal, (void)unused;
    printf("SIGSYS, the call asked for: %d\n", info->si_syscall == number);
    fflush(stdout);
    _exit(0);
}

static int trace(void)
{
    pid_t child = fork();
    unsigned long message = 0;
    int status;

    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        make_call();
        _exit(0);
    }
    waitpid(child, &status, 0);
    if (ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL) < 0)
        return 1;
    ptrace(PTRACE_CONT, child, NULL, NULL);
    waitpid(child, &status, 0);
    if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8) && ptrace(PTRACE_GETEVENTMSG, child, NULL, &message) == 0)
        printf("event %lu\n", message);
    else
        puts("no event");
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    if (strcmp(what, "ids") == 0) {
        uid_t r, e, s;
        gid_t gr, ge, gs;

        getresuid(&r, &e, &s);
        getresgid(&gr, &ge, &gs);
        printf("%u %u %u %u %u %u\n", r, e, s, gr, ge, gs);
        return 0;
    }
    if (strcmp(what, "clocks") == 0) {
        struct timespec monotonic, boot;

        clock_gettime(CLOCK_MONOTONIC, &monotonic);
        clock_gettime(CLOCK_BOOTTIME, &boot);
        printf("%ld %ld\n", (long)monotonic.tv_sec, (long)boot.tv_sec);
        return 0;
    }
    if (strcmp(what, "size") == 0) {
        struct winsize size = {0};

        if (ioctl(0, TIOCGWINSZ, &size) < 0)
            return 1;
        printf("%u %u\n", size.ws_col, size.ws_row);
        return 0;
    }

    parse(argc - 2, argv + 2);
    if (strcmp(what, "call") == 0) {
        call();
    } else if (strcmp(what, "i386") == 0) {
        call_of_i386();
    } else if (strcmp(what, "thread") == 0) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, in_thread, NULL) != 0)
            return 1;
        pthread_join(thread, NULL);
        puts("the first thread lives on");
    } else if (strcmp(what, "catch") == 0) {
        struct sigaction action = {.sa_sigaction = told, .sa_flags = SA_SIGINFO};

        sigaction(SIGSYS, &action, NULL);
        call();
    } else if (strcmp(what, "trace") == 0) {
        return trace();
    } else {
        return 2;
    }
    return 0;
}
