/* The processes of a `run` or an `exec` from a cached Plan: the executor, what it says, and the ID-map programs.
 * rootless/launch has the reasons, and protocol.py there draws the protocol. */
#include "attend.h"
#include "run.h"

#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* Executes a program in a child, without an environment. It gets descriptors, each with the number behind it; these
 * signals are blocked there, and those not ignored. Returns 0 on failure. */
static pid_t execute(const char *program, char *const words[], const int (*given)[2], int count,
                     const sigset_t *blocked, const sigset_t *reset)
{
    static char *nothing[] = {NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    pid_t pid = 0;
    int result;

    if (posix_spawn_file_actions_init(&actions) != 0 || posix_spawnattr_init(&attributes) != 0)
        return 0;
    result = posix_spawnattr_setsigmask(&attributes, blocked) | posix_spawnattr_setsigdefault(&attributes, reset) |
             posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    for (int i = 0; i < count; i++)
        result |= posix_spawn_file_actions_adddup2(&actions, given[i][0], given[i][1]);
    if (result == 0)
        result = posix_spawn(&pid, program, &actions, &attributes, words, nothing);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return result == 0 ? pid : 0;
}

/* A copy in memory of the executor, which nobody can change (CVE-2019-5736). */
static int sealed_copy(const char *path)
{
    enum { SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE, EXECUTABLE = 0x10 };
    cleanup_close int source = open(path, O_RDONLY | O_CLOEXEC);
    cleanup_close int copy = memfd_create("rootless-init", MFD_CLOEXEC | MFD_ALLOW_SEALING | EXECUTABLE);
    ssize_t size = 1;

    if (copy < 0)
        copy = memfd_create("rootless-init", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    while (source >= 0 && copy >= 0 && size > 0)
        size = sendfile(copy, source, NULL, 1 << 30);
    return size == 0 && fcntl(copy, F_ADD_SEALS, SEALS) == 0 ? steal_fd(&copy) : -1;
}

static int in_memory(const void *plan, size_t size)
{
    cleanup_close int fd = memfd_create("rootless-plan", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    return fd >= 0 && plan && write(fd, plan, size) == (ssize_t)size ? steal_fd(&fd) : -1;
}

/* Opens the container's first process and its cgroup. The pid was the same while its namespaces were compared. */
bool enter(struct run *run, const struct op *step)
{
    const char *cgroup = text_of(run->entry, step, 0);
    enum status status;

    run->joined = open_process(&run->container, &status);
    if (*cgroup)
        run->cgroup_fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return run->joined >= 0 && (status == CREATED || status == RUNNING) && (!*cgroup || run->cgroup_fd >= 0);
}

/* A concurrent `kill` or `delete` may have missed the executor. */
bool check(struct run *run, const struct op *step)
{
    (void)step;
    return poll(&(struct pollfd){.fd = run->joined, .events = POLLIN}, 1, 0) == 0;
}

bool open_console(struct run *run, const struct op *step)
{
    int ends[2];

    (void)step;
    if (terminal_is_elsewhere() || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return false;
    run->console = ends[0];
    run->terminal = ends[1];
    return true;
}

bool relay_terminal(struct run *run, const struct op *step)
{
    (void)step;
    close_now(&run->console); /* an executor that has ended is the end of the file */
    return terminal_receive(run->terminal);
}

/* Starts one with a Plan and what it needs of the launcher: the start socket, the terminal's, a cgroup, a process.
 * Others get `placed` as their descriptors 0, 1, 2 …, and no signals. */
static bool start_executor(const struct run *run, struct executor *executor, int plan, const int needed[4],
                           const int *placed, int count)
{
    enum { OWN = 9, MOST = 16, STREAMS = 3 };
    int reports[2] = {-1, -1}, replies[2] = {-1, -1}, given[OWN + MOST][2], next = 0;
    char path[32], numbers[OWN + 1][12], *words[OWN + 4] = {"rootless-init", numbers[OWN], "0"};
    sigset_t blocked;

    if (plan < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, reports) < 0 || pipe2(replies, O_CLOEXEC) < 0)
        return false;
    executor->report = reports[0];
    executor->reply = replies[1];
    {
        const int own[OWN] = {reports[1], replies[0], needed[0], needed[1], needed[2], needed[3], -1, -1, plan};

        for (int i = 0; i < OWN; i++) {
            snprintf(numbers[i], sizeof numbers[i], "%d", own[i]);
            words[3 + i] = numbers[i];
            given[next][0] = given[next][1] = own[i];
            next += own[i] >= 0;
        }
    }
    for (int i = 0; i < count; i++, next++) {
        given[next][0] = placed[i];
        given[next][1] = i;
    }
    snprintf(numbers[OWN], sizeof numbers[OWN], "%d", count ? count - STREAMS : 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", run->program);
    sigemptyset(&blocked);
    if (count)
        sigfillset(&blocked);
    executor->first = execute(path, words, given, next, &blocked, &ignored);
    close(reports[1]);
    close(replies[0]);
    return executor->first > 0;
}

bool spawn(struct run *run, const struct op *step)
{
    cleanup_close int plan = -1;
    size_t size;
    const void *bytes = entry_plan(run->entry, step, run->keyring, run->command, &size);

    while (step->n[3] > 0 && run->null < step->n[3] && (run->null = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0)
        ;
    run->program = sealed_copy(text_of(run->entry, step, 0));
    plan = in_memory(bytes, size);
    return run->program >= 0 &&
           start_executor(run, &run->main, plan, (const int[]){run->start, run->console, run->cgroup_fd, run->joined},
                          NULL, 0);
}

bool write_map(struct run *run, const struct op *step)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/%s", run->main.first, text_of(run->entry, step, 0));
    return write_file(AT_FDCWD, path, 0, text_of(run->entry, step, 1), step->s[1].length);
}

bool begin_map(struct run *run, const struct op *step)
{
    enum { MOST = 3 * 340 };
    const char *word = text_of(run->entry, step, 1), *end = word + step->s[1].length;
    char pid[12], *words[MOST + 3] = {(char *)(uintptr_t)text_of(run->entry, step, 0), pid};
    int output[2], count = 2;
    pid_t *program = &run->programs[run->programs[0] ? 1 : 0];
    sigset_t none;

    sigemptyset(&none);
    snprintf(pid, sizeof pid, "%d", run->main.first);
    for (; word < end && count < MOST + 2; word += strlen(word) + 1)
        words[count++] = (char *)(uintptr_t)word;
    if (word < end || *program || pipe2(output, O_CLOEXEC) < 0)
        return false;
    /* what it complains of, Python's own call of it will tell; both ends stay open until this process executes */
    *program = execute(words[0], words, (const int[][2]){{output[1], STDERR_FILENO}}, 1, &before, &none);
    return *program > 0;
}

bool await_maps(struct run *run, const struct op *step)
{
    bool good = true;
    int status;

    (void)step;
    for (int i = 0; i < 2; i++)
        if (run->programs[i] > 0) {
            good = waitpid(run->programs[i], &status, 0) == run->programs[i] && status == 0 && good;
            run->programs[i] = 0;
        }
    return good;
}

/* --- The executor: rootless/launch/protocol.py --- */

/* Returns 1 for a message, 0 at end of file, and -1 for an error or if this process is to end. */
static int next_message(struct run *run, const struct executor *executor, struct report *message)
{
    const size_t head = offsetof(struct report, detail);
    struct pollfd ready[] = {{.fd = run->signals, .events = POLLIN}, {.fd = executor->report, .events = POLLIN}};
    ssize_t size;
    int passed;

    do {
        if (run->main.answer != 'S' && (poll(ready, 2, -1) < 0 || ready[0].revents))
            return -1;
        size = receive(executor->report, message, head, &passed);
        if (passed >= 0)
            run->connection = passed;
    } while (passed >= 0);
    if (size <= 0)
        return (int)size;
    if (size != (ssize_t)head || message->length > sizeof message->detail)
        return -1;
    return message->length == 0 || read(executor->report, message->detail, message->length) == (ssize_t)message->length
               ? 1
               : -1;
}

/* Whether Python has received the same, and then either said nothing or what SAY repeats. */
static bool is_expected(const struct run *run, const struct report *message)
{
    for (uint32_t i = 0; i < run->entry->count; i++) {
        const struct op *step = &run->entry->ops[i];

        if (step->code == CACHED_SKIPPED && step->n[0] == message->value && step->n[1] == message->error &&
            step->s[0].length == message->length &&
            memcmp(text_of(run->entry, step, 0), message->detail, message->length) == 0)
            return true;
    }
    return false;
}

/* Lets an executor go on until it says `wanted`. */
static bool follow(struct run *run, struct executor *executor, uint32_t wanted, struct report *message)
{
    if (executor->answer && write(executor->reply, &executor->answer, 1) != 1)
        return false;
    while (next_message(run, executor, message) == 1) {
        if (message->type == wanted) {
            executor->answer = wanted == MESSAGE_READY ? '\0' : 'G';
            return true;
        }
        if (message->type != MESSAGE_SKIPPED || !is_expected(run, message))
            return false;
    }
    return false;
}

static bool take_process(struct executor *executor, const struct report *message)
{
    executor->process = message->value;
    if (executor->process <= 0 || waitpid(executor->first, NULL, 0) != executor->first)
        return false;
    executor->first = 0;
    return true;
}

bool await_executor(struct run *run, const struct op *step)
{
    struct report message;

    if (!follow(run, &run->main, (uint32_t)step->n[0], &message))
        return false;
    if (!step->n[1])
        return true;
    memcpy(run->namespaces, message.detail,
           message.length < sizeof run->namespaces ? message.length : sizeof run->namespaces);
    return take_process(&run->main, &message);
}

/* rootless/image/squashfs/server.py */
bool begin_image(struct run *run, const struct op *step)
{
    cleanup_close int file = open(text_of(run->entry, step, 0), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    cleanup_close int plan = in_memory(text_of(run->entry, step, 3), step->s[3].length);
    cleanup_close int connection = steal_fd(&run->connection);
    struct executor *server = &run->server;
    struct process process = {0};
    struct report message;
    struct stat st;
    int ready[2];
    bool is_started;

    if (file < 0 || connection < 0 || run->null < 0 || fstat(file, &st) < 0 || !entry_is_file(step, &st) ||
        pipe2(ready, O_CLOEXEC) < 0)
        return false;
    run->ready = ready[0];
    is_started = note(run, step, 1) &&
                 start_executor(run, server, plan, (const int[]){-1, -1, -1, -1},
                                (const int[]){run->null, run->null, run->null, connection, file, ready[1]}, 6);
    close(ready[1]);
    is_started = is_started && follow(run, server, MESSAGE_TURN, &message) && take_process(server, &message) &&
                 follow(run, server, MESSAGE_EXECUTING, &message) && next_message(run, server, &message) == 0 &&
                 read_process((uint32_t)server->process, &process);
    close_now(&server->report);
    close_now(&server->reply);
    run->server_start_time = process.start_time;
    return is_started && note(run, step, 2);
}

bool await_image(struct run *run, const struct op *step)
{
    enum { PATIENCE = 30000 /* milliseconds */ };
    struct pollfd ends[] = {{.fd = run->signals, .events = POLLIN}, {.fd = run->ready, .events = POLLIN}};
    char word = '\0';

    (void)step;
    if (poll(ends, 2, PATIENCE) <= 0 || ends[0].revents || read(run->ready, &word, 1) != 1)
        return false;
    close_now(&run->ready);
    return word == 's';
}

/* False only if the program has not been executed: Python will start it. The executor does not wait for an answer to a
 * skip that it reports now, so a further one cannot stop it. */
bool start_program(struct run *run, const struct op *step)
{
    struct report message = {.type = MESSAGE_SKIPPED};
    struct pollfd ending_now = {.fd = run->signals, .events = POLLIN};
    bool is_executing = false;
    int result;

    /* from here on, signals are the program's */
    if (poll(&ending_now, 1, 0) != 0 || signalfd(run->signals, &forwarded, SFD_CLOEXEC) < 0)
        return false;
    run->main.answer = 'S';
    if (write(run->main.reply, "S", 1) != 1)
        return false;
    while ((result = next_message(run, &run->main, &message)) == 1)
        if (message.type == MESSAGE_EXECUTING)
            is_executing = true;
        else if (message.type != MESSAGE_SKIPPED)
            return false;
    return result < 0 || (is_executing && (!step->n[0] || runs((uint32_t)run->main.process)));
}

static void end_child(pid_t *pid)
{
    if (*pid > 0 && kill(*pid, SIGKILL) == 0)
        waitpid(*pid, NULL, 0);
    *pid = 0;
}

void end_server(struct run *run)
{
    close_now(&run->server.report);
    close_now(&run->server.reply);
    end_child(&run->server.first);
    end_child(&run->server.process);
}

void end_processes(struct run *run)
{
    close_now(&run->main.report);
    close_now(&run->main.reply);
    await_maps(run, NULL);
    end_child(&run->main.first);
    end_child(&run->main.process);
    end_server(run);
}
