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

/* Executes a program in a child, without an environment. The executor gets the descriptors `kept`, but those that are
 * -1, and no signal is ignored or blocked for it; another program's standard error is `error`. Returns 0 on failure. */
static pid_t execute(const char *program, char *const words[], const int *kept, int count, int error)
{
    static char *nothing[] = {NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    pid_t pid = 0;
    int result;

    if (posix_spawn_file_actions_init(&actions) != 0 || posix_spawnattr_init(&attributes) != 0)
        return 0;
    sigemptyset(&none);
    result = posix_spawnattr_setsigmask(&attributes, kept ? &none : &before) |
             posix_spawnattr_setsigdefault(&attributes, kept ? &ignored : &none) |
             posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    for (int i = 0; i < count; i++)
        if (kept[i] >= 0)
            result |= posix_spawn_file_actions_adddup2(&actions, kept[i], kept[i]);
    if (!kept)
        result |= posix_spawn_file_actions_adddup2(&actions, error, STDERR_FILENO);
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

static int plan_of(const struct run *run, const struct op *step)
{
    cleanup_close int fd = memfd_create("rootless-plan", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    size_t size;
    const void *plan = entry_plan(run->entry, step, run->keyring, run->command, &size);

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

bool spawn(struct run *run, const struct op *step)
{
    enum { COUNT = 9 };
    cleanup_close int program = sealed_copy(text_of(run->entry, step, 0)), plan = plan_of(run, step);
    int reports[2] = {-1, -1}, replies[2] = {-1, -1};
    char path[32], numbers[COUNT][12], *words[COUNT + 4] = {"rootless-init", "0", "0"};

    if (program < 0 || plan < 0 || pipe2(reports, O_CLOEXEC) < 0 || pipe2(replies, O_CLOEXEC) < 0)
        return false;
    run->report = reports[0];
    run->reply = replies[1];
    {
        const int kept[COUNT] = {reports[1],  replies[0], run->start, run->console, run->cgroup_fd,
                                 run->joined, -1,         -1,         plan};

        for (int i = 0; i < COUNT; i++) {
            snprintf(numbers[i], sizeof numbers[i], "%d", kept[i]);
            words[3 + i] = numbers[i];
        }
        snprintf(path, sizeof path, "/proc/self/fd/%d", program);
        run->first = execute(path, words, kept, COUNT, -1);
    }
    close(reports[1]);
    close(replies[0]);
    return run->first > 0;
}

bool write_map(struct run *run, const struct op *step)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/%s", run->first, text_of(run->entry, step, 0));
    return write_file(AT_FDCWD, path, 0, text_of(run->entry, step, 1), step->s[1].length);
}

bool begin_map(struct run *run, const struct op *step)
{
    enum { MOST = 3 * 340 };
    const char *word = text_of(run->entry, step, 1), *end = word + step->s[1].length;
    char pid[12], *words[MOST + 3] = {(char *)(uintptr_t)text_of(run->entry, step, 0), pid};
    int output[2], count = 2;
    pid_t *program = &run->programs[run->programs[0] ? 1 : 0];

    snprintf(pid, sizeof pid, "%d", run->first);
    for (; word < end && count < MOST + 2; word += strlen(word) + 1)
        words[count++] = (char *)(uintptr_t)word;
    if (word < end || *program || pipe2(output, O_CLOEXEC) < 0)
        return false;
    /* what it complains of, Python's own call of it will tell; both ends stay open until this process executes */
    *program = execute(words[0], words, NULL, 0, output[1]);
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
static int next_message(const struct run *run, struct report *message)
{
    const size_t head = offsetof(struct report, detail);
    struct pollfd ready[] = {{.fd = run->signals, .events = POLLIN}, {.fd = run->report, .events = POLLIN}};
    ssize_t size;

    if (run->answer != 'S' && (poll(ready, 2, -1) < 0 || ready[0].revents))
        return -1;
    size = read(run->report, message, head);
    if (size <= 0)
        return (int)size;
    if (size != (ssize_t)head || message->length > sizeof message->detail)
        return -1;
    return message->length == 0 || read(run->report, message->detail, message->length) == (ssize_t)message->length ? 1
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

/* Lets the executor go on until it says `wanted`. */
static bool follow(struct run *run, uint32_t wanted, struct report *message)
{
    if (run->answer && write(run->reply, &run->answer, 1) != 1)
        return false;
    while (next_message(run, message) == 1) {
        if (message->type == wanted)
            return true;
        if (message->type != MESSAGE_SKIPPED || !is_expected(run, message))
            return false;
    }
    return false;
}

bool await_executor(struct run *run, const struct op *step)
{
    struct report message;

    if (!follow(run, (uint32_t)step->n[0], &message))
        return false;
    run->answer = step->n[0] == MESSAGE_READY ? '\0' : 'G';
    if (!step->n[1])
        return true;
    run->process = message.value;
    memcpy(run->namespaces, message.detail,
           message.length < sizeof run->namespaces ? message.length : sizeof run->namespaces);
    if (run->process <= 0 || waitpid(run->first, NULL, 0) != run->first)
        return false;
    run->first = 0;
    return true;
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
    run->answer = 'S';
    if (write(run->reply, "S", 1) != 1)
        return false;
    while ((result = next_message(run, &message)) == 1)
        if (message.type == MESSAGE_EXECUTING)
            is_executing = true;
        else if (message.type != MESSAGE_SKIPPED)
            return false;
    return result < 0 || (is_executing && (!step->n[0] || runs((uint32_t)run->process)));
}

static void end_child(pid_t *pid)
{
    if (*pid > 0 && kill(*pid, SIGKILL) == 0)
        waitpid(*pid, NULL, 0);
    *pid = 0;
}

void end_processes(struct run *run)
{
    close_now(&run->report);
    close_now(&run->reply);
    await_maps(run, NULL);
    end_child(&run->first);
    end_child(&run->process);
}
