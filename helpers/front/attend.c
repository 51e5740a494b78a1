/* Waits for the process of a foreground container in little memory.
 *
 *     rootless WORD… PID PROCESS MASTER EXIT SIGNALS DEADLINE SAVED TYPED [ROOT ID PYTHON…]
 *
 * Python becomes this program by execve (rootless/container/terminal/attend.py), so that it has the same process ID and
 * children. It does what rootless/container/terminal/relay.py does until the container's process ends. Then it removes
 * the container ID of the directory ROOT, or executes PYTHON, which does so, and exits with the status.
 *
 * The first words, whose number ROOTLESS_ATTEND tells, are only for readers of ps. PID is the process, and PROCESS a
 * pidfd of it; MASTER the terminal's master side, and EXIT the file for the exit status, or -1. SIGNALS is the set of
 * signals to forward, in hexadecimal; they are blocked, and stay blocked in PYTHON. DEADLINE is in milliseconds of
 * CLOCK_MONOTONIC, or -1. SAVED and TYPED are for terminal.c. ROOT is empty if only PYTHON is to remove the container.
 * The second word of PYTHON ends with three digits, which become the exit status. */
#include "attend.h"
#include "front.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>

enum { GRACE = 10000 /* milliseconds from SIGTERM to SIGKILL */ };
enum { PROCESS = ENDS, SIGNALS, WATCHED };

static struct {
    pid_t pid;
    int64_t deadline;
    bool is_over;
} container = {.deadline = -1};

static void forward(int number)
{
    if (number != SIGWINCH || !terminal_resize())
        kill(container.pid, number);
}

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Returns the milliseconds until the container's time is over, or -1; signals the container if it is. */
static int time_left(void)
{
    int64_t left;

    if (container.deadline < 0)
        return -1;
    left = container.deadline - now();
    if (left <= 0) {
        kill(container.pid, container.is_over ? SIGKILL : SIGTERM);
        container.is_over = true;
        container.deadline += GRACE;
        left += GRACE;
    }
    return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static void stay(struct pollfd watched[WATCHED])
{
    struct signalfd_siginfo info;

    while (watched[PROCESS].fd >= 0 && !watched[PROCESS].revents) {
        terminal_watch(watched);
        if (poll(watched, WATCHED, time_left()) < 0)
            continue; /* watched[PROCESS].revents is as before */
        while (watched[SIGNALS].revents && read(watched[SIGNALS].fd, &info, sizeof info) == sizeof info)
            forward((int)info.ssi_signo);
        terminal_move(watched);
    }
}

int wait_for(pid_t pid, int process, int signals)
{
    struct pollfd watched[WATCHED] = {{0}};
    int status = 0;

    container.pid = pid;
    watched[PROCESS] = (struct pollfd){.fd = process, .events = POLLIN};
    watched[SIGNALS] = (struct pollfd){.fd = signals, .events = POLLIN};
    stay(watched);
    terminal_end();
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void note_status(int fd, unsigned status)
{
    char time[64], line[80];

    put_time(time, sizeof time);
    (void)!write(fd, line, (size_t)snprintf(line, sizeof line, "%u %s\n", status, time));
    close(fd);
}

static int number(const char *text) { return (int)strtol(text, NULL, 10); }

int attend(int argc, char **argv, int shown)
{
    enum { PID, PIDFD, TERMINAL, EXIT, FORWARDED, DEADLINE, SAVED, TYPED, OPTIONAL, ROOT = OPTIONAL, ID, PYTHON };
    char **words = argv + 1 + shown;
    uint64_t forwarded;
    int status, signals;

    if (shown < 0 || argc < 1 + shown + OPTIONAL)
        return 2;
    prctl(PR_SET_NAME, "rootless");
    signal(SIGPIPE, SIG_IGN);
    container.deadline = strtoll(words[DEADLINE], NULL, 10);
    forwarded = strtoull(words[FORWARDED], NULL, 16);
    terminal_begin(number(words[TERMINAL]), words[SAVED], (unsigned)number(words[TYPED]));
    /* no handlers: musl keeps SIGRTMIN for itself, and unblocks it for the first of them */
    signals = (int)syscall(SYS_signalfd4, -1, &forwarded, sizeof forwarded, SFD_CLOEXEC | SFD_NONBLOCK);
    status = wait_for(number(words[PID]), number(words[PIDFD]), signals);
    if (number(words[EXIT]) >= 0)
        note_status(number(words[EXIT]), (unsigned)status);
    if (argc > 1 + shown + PYTHON + 1 && strlen(words[PYTHON + 1]) >= 3) {
        int root = open_root(words[ROOT], false);

        if (root < 0 || delete(root, &(struct request){.words = {words[ID]}}) != DONE) {
            snprintf(strchr(words[PYTHON + 1], '\0') - 3, 4, "%03d", status);
            execv(words[PYTHON], words + PYTHON);
        }
    }
    return status;
}
