/* The monitor of a detached container: the parent of its first process. It keeps the output in the container's
 * directory, notes the exit status there, and ends the container when its time is over. */
#include "init.h"

#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>

enum { OUT, ERR, SIGNALS, WATCHED, GRACE = 10 /* seconds from SIGTERM to SIGKILL */, MOST_ROUNDS = 64 };

static const char *const stream_names[] = {"stdout", "stderr"};

static struct {
    struct pollfd watched[WATCHED];
    int status_fd; /* locked until it has the exit status */
    int log_fd;
    int64_t size, most; /* bytes of the log, and of each of its two files */
    bool lost;          /* output that did not fit on the disk */
    size_t filled;
    char records[1 << 16]; /* to be written at once */
} monitor = {.watched = {{.fd = -1}, {.fd = -1}, {.fd = -1}}, .status_fd = -1, .log_fd = -1};

/* Not aged: systemd-tmpfiles leaves a file with the sticky bit in /tmp (rootless/container/state/directory.py). */
static int make_file(const char *name)
{
    return openat(self.directory_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 01600);
}

/* Writes the time in UTC as RFC 3339 has it; returns the length. */
static size_t stamp(char *text, size_t size)
{
    struct timespec time;
    struct tm utc;

    clock_gettime(CLOCK_REALTIME, &time);
    gmtime_r(&time.tv_sec, &utc);
    return (size_t)snprintf(text, size, "%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ", utc.tm_year + 1900, utc.tm_mon + 1,
                            utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, time.tv_nsec);
}

static void flush(void)
{
    ssize_t written;

    if (monitor.log_fd < 0 || monitor.size + (int64_t)monitor.filled > monitor.most) {
        if (monitor.log_fd >= 0) {
            renameat(self.directory_fd, "log", self.directory_fd, "log.1");
            close(monitor.log_fd);
        }
        monitor.log_fd = make_file("log");
        monitor.size = 0;
    }
    written = write(monitor.log_fd, monitor.records, monitor.filled);
    if (written == (ssize_t)monitor.filled) {
        monitor.size += written;
    } else {
        monitor.lost = true;
        if (written > 0 && ftruncate(monitor.log_fd, monitor.size) < 0)
            monitor.size += written; /* with half a record at its end */
    }
    monitor.filled = 0;
}

/* A record as in the logs of CRI (Kubernetes) and podman's k8s-file: time, stream, F (a full line) or P, text. `head`
 * is all before the text; its tag is set here. */
static void add(char *head, size_t length, char tag, const char *line, size_t size)
{
    char *end;

    if (monitor.filled + length + size + sizeof "\n" > sizeof monitor.records)
        flush();
    head[length - 2] = tag;
    end = mempcpy(monitor.records + monitor.filled, head, length);
    end = mempcpy(end, line, size);
    *end++ = '\n';
    monitor.filled = (size_t)(end - monitor.records);
}

/* Keeps the output that has arrived on a stream; returns whether there was any. */
static bool keep_output(int stream)
{
    static const char gap[] = "[output is missing here: it could not be written]";
    static char text[1 << 14];
    char head[64];
    const char *next;
    size_t length;
    ssize_t n = read(monitor.watched[stream].fd, text, sizeof text);

    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            close_now(&monitor.watched[stream].fd);
        return false;
    }
    length = stamp(head, sizeof head);
    length += (size_t)snprintf(head + length, sizeof head - length, " %s F ", stream_names[stream]);
    if (monitor.lost) {
        monitor.lost = false;
        add(head, length, 'F', gap, sizeof gap - 1);
    }
    for (const char *line = text; line < text + n; line = next) {
        const char *newline = memchr(line, '\n', (size_t)(text + n - line));
        const char *end = newline ? newline : text + n;

        next = newline ? newline + 1 : end;
        add(head, length, newline ? 'F' : 'P', line, (size_t)(end - line));
    }
    flush();
    return true;
}

/* Notes the exit status, after the output: who waits for the lock then finds both. */
static void note_status(int status)
{
    char line[64];
    int length = snprintf(line, sizeof line, "%d ", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));

    for (int stream = OUT; stream <= ERR; stream++)
        for (int round = 0; round < MOST_ROUNDS && keep_output(stream); round++)
            ;
    length += (int)stamp(line + length, sizeof line - (size_t)length - 1);
    line[length++] = '\n';
    if (write(monitor.status_fd, line, (size_t)length) < 0)
        ftruncate(monitor.status_fd, 0);
    close(monitor.status_fd);
}

/* Others than the container's process are the first stage, and one that LISTENER has started. */
static void reap(void)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == shared->pid) {
            shared->pid = 0;
            note_status(status);
        }
    /* processes outside the container's pid namespace may still write */
    if (pid < 0 && errno == ECHILD && monitor.watched[OUT].fd < 0 && monitor.watched[ERR].fd < 0)
        _exit(0);
}

static _Noreturn void watch(unsigned seconds)
{
    struct signalfd_siginfo info;
    sigset_t signals;
    int number = SIGTERM;

    prctl(PR_SET_NAME, "rootless:mon");
    setsid();
    sigfillset(&signals); /* a service manager sends SIGTERM to all: the container's last words count */
    sigprocmask(SIG_BLOCK, &signals, NULL);
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGALRM);
    monitor.watched[SIGNALS].fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    self.keep = 0;
    close_all_but((const int[]){monitor.watched[OUT].fd, monitor.watched[ERR].fd, monitor.watched[SIGNALS].fd,
                                monitor.status_fd, monitor.log_fd, self.directory_fd},
                  6);
    self.proc_fd = -1;
    let_go();
    munmap(self.plan_start, self.plan_size);
    alarm(seconds);
    for (;;) {
        reap();
        if (poll(monitor.watched, WATCHED, -1) < 0)
            continue;
        for (int stream = OUT; stream <= ERR; stream++)
            if (monitor.watched[stream].revents)
                keep_output(stream);
        while (read(monitor.watched[SIGNALS].fd, &info, sizeof info) == sizeof info)
            if (info.ssi_signo == SIGALRM && shared->pid > 0) {
                kill(shared->pid, number);
                number = SIGKILL;
                alarm(GRACE);
            }
    }
}

/* Makes a standard stream of this process and its child a pipe to the monitor, which closes its own. Without an ID of
 * the caller a container cannot own it (op_stdio_owner), and opens it again nevertheless: as /dev/stdout. */
static int redirect(int stream)
{
    cleanup_close int end = -1;
    int ends[2];

    SYS(pipe2(ends, O_CLOEXEC));
    end = ends[1];
    monitor.watched[stream] = (struct pollfd){.fd = ends[0], .events = POLLIN};
    SYS(fcntl(ends[0], F_SETFL, O_NONBLOCK));
    SYS(fchmod(end, 0622));
    SYS(dup2(end, stream + 1));
    return 0;
}

static int keep_streams(void)
{
    cleanup_close int null = SYS(open("/dev/null", O_RDONLY | O_CLOEXEC));

    SYS(dup2(null, 0));
    TRY(redirect(OUT));
    TRY(redirect(ERR));
    monitor.log_fd = SYS_AS("openat", make_file("log"));
    return 0;
}

/* `lifetime`: the seconds that the container may run, or 0. `log_size`: the bytes of its log, or 0: its streams are the
 * caller's. */
int op_monitor(int64_t lifetime, int64_t log_size)
{
    monitor.most = log_size / 2;
    monitor.watched[SIGNALS].events = POLLIN;
    monitor.status_fd = SYS_AS("openat", make_file("exit"));
    SYS(flock(monitor.status_fd, LOCK_EX));
    if (monitor.most > 0)
        TRY(keep_streams());
    if (SYS(fork()) > 0)
        watch((unsigned)lifetime);
    report(MESSAGE_MONITORED, getpid(), 0, "", 0, true);
    for (int stream = OUT; stream <= ERR; stream++)
        close_now(&monitor.watched[stream].fd);
    close_now(&monitor.log_fd);
    close_now(&monitor.status_fd);
    close_now(&self.directory_fd);
    return 0;
}
