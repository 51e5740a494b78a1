/* The verbs `run`, `create` and `exec` of which the Plan is in the cache.
 *
 *     steps of `run`:     claim, cgroup, spawn, ID maps, records … start      then: wait, remove
 *     with a terminal:    the same with console before spawn, and relay before start
 *     of an image:        the same with begin_image and await_image after the first record
 *     with --detach:      the same … start, leave
 *     of `create`:        claim, cgroup, listen, spawn, ID maps, records … leave
 *     of `exec`:          enter, spawn, check, start                          then: wait
 *
 * Before CLAIM nothing has changed, and Python takes over at any doubt. After it, a failure ends what was started, and
 * Python takes over too: it clears what is left as the remains of a killed command, plans again, and tells the error.
 * `exec` changes nothing before the start.
 * rootless/launch and rootless/container/operations have the reasons for each step. */
#include "attend.h"
#include "run.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

enum { MODE = S_ISVTX | S_IRUSR | S_IWUSR };

sigset_t before, ignored, forwarded;
static sigset_t ending;

/* --- Templates and files --- */

static const char *value_of(const struct run *run, char hole, char *number, size_t size)
{
    switch (hole) {
    case HOLE_TIME:
        return run->time;
    case HOLE_KEYRING:
        return run->keyring;
    case HOLE_CGROUP:
        return run->token;
    case HOLE_SERVER:
        snprintf(number, size, "%d", run->server.process);
        return number;
    case HOLE_SERVER_START_TIME:
        snprintf(number, size, "%llu", run->server_start_time);
        return number;
    default:
        snprintf(number, size, "%llu",
                 hole == HOLE_PID          ? (unsigned long long)run->main.process
                 : hole == HOLE_START_TIME ? run->start_time
                                           : run->namespaces[(unsigned char)(hole - HOLE_NAMESPACE) % NAMESPACES]);
        return number;
    }
}

/* Returns the text with values in its holes, or NULL if it is too long; the next call overwrites it. */
static const char *filled(const struct run *run, const struct op *step, int which, size_t *size)
{
    static char text[CACHED_LARGEST + 4096];
    const char *next = text_of(run->entry, step, which), *end = next + step->s[which].length;
    char number[24];

    *size = 0;
    while (next < end) {
        bool hole = *next == '\0' && next + 1 < end;
        const char *part = hole ? value_of(run, next[1], number, sizeof number) : next;
        size_t length = hole ? strlen(part) : 1;

        if (*size + length >= sizeof text)
            return NULL;
        memcpy(text + *size, part, length);
        *size += length;
        next += hole ? 2 : 1;
    }
    text[*size] = '\0';
    return text;
}

bool write_file(int directory, const char *name, int flags, const char *text, size_t size)
{
    cleanup_close int fd = openat(directory, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC | flags, MODE);

    return fd >= 0 && text && write(fd, text, size) == (ssize_t)size;
}

static bool put(struct run *run, const struct op *step)
{
    const struct config *config = step->n[1] == PUT_CONFIG ? entry_config() : NULL;
    const char *name = text_of(run->entry, step, 0), *text = config ? config->text : text_of(run->entry, step, 1);

    if (!write_file(run->container.fd, name, O_CREAT | O_TRUNC, text, config ? config->size : step->s[1].length) ||
        (step->n[0] & ~MODE && fchmodat(run->container.fd, name, S_ISVTX | (mode_t)step->n[0], 0) < 0))
        return false;
    if (step->n[1] != PUT_LOCKED)
        return true;
    run->exit = openat(run->container.fd, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    return run->exit >= 0 && flock(run->exit, LOCK_EX) == 0;
}

static bool no_input(struct run *run, const struct op *step)
{
    cleanup_close int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    (void)step;
    run->input = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    return run->input >= 0 && null >= 0 && dup2(null, STDIN_FILENO) == STDIN_FILENO;
}

static bool part(struct run *run, const struct op *step)
{
    size_t size;
    const char *text = filled(run, step, 0, &size);

    if (!text || run->parts == PARTS || run->status_size + size > sizeof run->status)
        return false;
    memcpy(run->status + run->status_size, text, size);
    run->status_size += size;
    run->lengths[run->parts++] = (uint32_t)size;
    return true;
}

static bool write_status(struct run *run, uint32_t may)
{
    struct record record = {
        .magic = RECORD_MAGIC,
        .inode = run->written.st_ino,
        .size = (uint64_t)run->written.st_size,
        .modified = (uint64_t)nanoseconds(&run->written.st_mtim),
        .start_time = run->start_time,
        .pid = (uint32_t)run->main.process,
        .may = may,
        .undo_size = run->undo_size,
    };
    static char text[sizeof record + sizeof run->status];

    snprintf(record.boot, sizeof record.boot, "%s", text_of(run->entry, run->entry->ops, 3));
    memcpy(record.lengths, run->lengths, sizeof run->lengths);
    memcpy(text, &record, sizeof record);
    memcpy(text + sizeof record, run->status, run->status_size);
    return run->parts == PARTS &&
           write_file(run->container.fd, "status", O_CREAT | O_TRUNC, text, sizeof record + run->status_size);
}

static bool record(struct run *run, const struct op *step)
{
    struct process process = {.start_time = run->start_time};
    size_t size;
    const char *text;

    if (!run->start_time && !read_process((uint32_t)run->main.process, &process))
        return false;
    run->start_time = process.start_time;
    text = filled(run, step, 0, &size);
    if (!write_file(run->container.fd, "state.json.new", O_CREAT | O_TRUNC, text, size) ||
        fstatat(run->container.fd, "state.json.new", &run->written, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    if (run->parts && !write_status(run, (uint32_t)step->n[0]))
        return false;
    return renameat(run->container.fd, "state.json.new", run->container.fd, "state.json") == 0;
}

/* --- The directory and the cgroup --- */

/* Returns whether the id is this process's; if it is not, Python finds out whose. */
static bool claim(struct run *run, const struct op *step)
{
    struct container *container = &run->container;

    snprintf(run->id, sizeof run->id, "%s", text_of(run->entry, step, 1));
    container->id = run->id;
    run->root = text_of(run->entry, step, 0);
    container->root = open_own(AT_FDCWD, run->root, (mode_t)step->n[0]);
    if (!is_id(run->id) || container->root < 0 || mkdirat(container->root, run->id, 0700) < 0)
        return false;
    container->fd = open_own(container->root, run->id, (mode_t)step->n[0]);
    if (container->fd >= 0 && flock(container->fd, LOCK_EX | LOCK_NB) == 0 && is_at(container) &&
        faccessat(container->fd, "state.json", F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
        faccessat(container->fd, "undo", F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return true;
    if (step->n[1]) /* nobody else has it, or will use it */
        unlinkat(container->root, run->id, AT_REMOVEDIR);
    return false;
}

static bool has_text(int directory, const char *id, const char *name, const char *text)
{
    static char content[CACHED_LARGEST];
    char path[2 * NAME_MAX];
    cleanup_close int fd = -1;
    ssize_t size;

    snprintf(path, sizeof path, "%s/%s", id, name);
    fd = openat(directory, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return errno != ENOENT && errno != ENOTDIR;
    size = read(fd, content, sizeof content);
    return size < 0 || size == sizeof content || memmem(content, (size_t)size, text, strlen(text));
}

/* A cgroup with the container's identifier in its name is no other's, however many there are. */
static bool is_named_after(const struct run *run)
{
    const char *name = strrchr(run->cgroup, '/');

    return name && holes_is_identifier(run->id) && strstr(name, run->id);
}

/* Whether nothing hints that the cgroup is that of another container, stopped but not deleted: its delete would end
 * this one too. */
static bool is_unclaimed(void *context, const char *id)
{
    const struct run *run = context;

    return !is_id(id) || strcmp(id, run->id) == 0 ||
           !(has_text(run->container.root, id, "state.json", run->cgroup) ||
             has_text(run->container.root, id, "undo", run->cgroup));
}

bool note(struct run *run, const struct op *step, int which)
{
    size_t size;
    const char *text = filled(run, step, which, &size);

    run->undo_size += (uint32_t)size;
    return write_file(run->container.fd, "undo", O_CREAT | O_APPEND, text, size);
}

static bool is_thawed(int cgroup)
{
    char text[256];

    return read_text(cgroup, "cgroup.events", text, sizeof text) > 0 && !strstr(text, "frozen 1");
}

static bool make_cgroup(struct run *run, const struct op *step)
{
    bool exactly = step->n[0] != 0, is_free, is_made;
    size_t size;
    const char *path = filled(run, step, 0, &size);

    if (!path || size >= sizeof run->cgroup)
        return false;
    memcpy(run->cgroup, path, size + 1);
    /* of one that is there, Python finds out whose it is; nothing is noted about it */
    is_free = !exactly || ((is_named_after(run) || each_name(run->container.root, is_unclaimed, run)) &&
                           access(run->cgroup, F_OK) < 0);
    is_made = is_free && note(run, step, 1) && mkdir(run->cgroup, 0755) == 0;
    if (!is_made)
        *run->cgroup = '\0'; /* not this container's to remove */
    if (!is_made || (exactly && !note(run, step, 2)))
        return false;
    run->cgroup_fd = open(run->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return run->cgroup_fd >= 0 && (!exactly || is_thawed(run->cgroup_fd));
}

static bool set(struct run *run, const struct op *step)
{
    return write_file(run->cgroup_fd, text_of(run->entry, step, 0), 0, text_of(run->entry, step, 1), step->s[1].length);
}

static bool listen_for_start(struct run *run, const struct op *step)
{
    struct sockaddr_un address = start_address(&run->container);

    (void)step;
    run->start = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* bind(2) gives the file this mode */
    return run->start >= 0 && fchmod(run->start, MODE) == 0 &&
           bind(run->start, (struct sockaddr *)&address, sizeof address) == 0 && listen(run->start, 1) == 0;
}

/* A reader sees all of the file or none. */
static bool write_pid(struct run *run, const struct op *step)
{
    const char *path = text_of(run->entry, step, 1);
    cleanup_close int fd = open(text_of(run->entry, step, 0), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644);
    char number[12], file[32];
    int size = snprintf(number, sizeof number, "%d", run->main.process);

    snprintf(file, sizeof file, "/proc/self/fd/%d", fd);
    if (fd < 0 || write(fd, number, (size_t)size) != size)
        return false;
    while (linkat(AT_FDCWD, file, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0)
        if (errno != EEXIST || (unlink(path) < 0 && errno != ENOENT))
            return false;
    return true;
}

static bool leave(struct run *run, const struct op *step)
{
    size_t size;
    const char *log = text_of(run->entry, step, 0), *lines = filled(run, step, 1, &size);
    cleanup_close int fd = *log ? open_log(log) : -1;

    if (fd >= 0 && lines)
        (void)!write(fd, lines, size);
    run->is_left = true;
    return true;
}

static bool say(struct run *run, const struct op *step)
{
    (void)!write(STDERR_FILENO, text_of(run->entry, step, 0), step->s[0].length);
    run->is_said = true;
    return true;
}

/* --- From the start to the end --- */

static bool carry_out(struct run *run, bool *is_begun)
{
    static bool (*const steps[CACHED_END])(struct run *, const struct op *) = {
        [CACHED_SAY] = say,
        [CACHED_CLAIM] = claim,
        [CACHED_MAKE_CGROUP] = make_cgroup,
        [CACHED_SET] = set,
        [CACHED_SPAWN] = spawn,
        [CACHED_AWAIT] = await_executor,
        [CACHED_MAP] = write_map,
        [CACHED_BEGIN_MAP] = begin_map,
        [CACHED_AWAIT_MAPS] = await_maps,
        [CACHED_LISTEN] = listen_for_start,
        [CACHED_WRITE_PID] = write_pid,
        [CACHED_LEAVE] = leave,
        [CACHED_PUT] = put,
        [CACHED_NO_INPUT] = no_input,
        [CACHED_BEGIN_IMAGE] = begin_image,
        [CACHED_AWAIT_IMAGE] = await_image,
        [CACHED_PART] = part,
        [CACHED_RECORD] = record,
        [CACHED_ENTER] = enter,
        [CACHED_CHECK] = check,
        [CACHED_START] = start_program,
        [CACHED_CONSOLE] = open_console,
        [CACHED_RELAY] = relay_terminal,
    };
    const enum cached first = run->command ? CACHED_ENTER : CACHED_CLAIM;
    const struct plan *entry = run->entry;

    for (uint32_t i = 0; i < entry->count; i++) {
        const struct op *step = &entry->ops[i];

        if (step->code < CACHED_SAY || step->code == CACHED_SKIPPED)
            continue;
        if (*is_begun == (step->code == first) || !steps[step->code](run, step))
            return false;
        *is_begun |= step->code == first;
    }
    return run->main.answer == 'S' || run->is_left;
}

static bool remove_all(struct run *run)
{
    struct container *container = &run->container;

    container->strings[RECORD_CGROUP] = run->cgroup;
    container->strings[RECORD_PARENTS] = container->strings[RECORD_BEFORE] = "";
    return remove_container(container);
}

/* Python may use another id. If something stays, it is what a killed command may leave: the next use of this id undoes
 * the notes. */
static void leave_to_python(struct run *run)
{
    if (!run->command && !remove_all(run)) {
        unlinkat(run->container.fd, "state.json", 0);
        unlinkat(run->container.fd, "status", 0);
    }
    if (run->input >= 0)
        dup2(run->input, STDIN_FILENO);
    entry_forget(run->is_said);
}

static bool is_unchanged(const struct run *run)
{
    struct stat state;

    return fstatat(run->container.fd, "state.json", &state, AT_SYMLINK_NOFOLLOW) == 0 &&
           state.st_ino == run->written.st_ino && nanoseconds(&state.st_mtim) == nanoseconds(&run->written.st_mtim) &&
           has_undo_notes(&run->container, run->undo_size);
}

/* Removes a container that has ended, unless another command did. What is more than usual is Python's. An empty
 * directory that stays is cleared by the next use of the id; to `delete` it by force could end a new container. */
static void remove_ended(struct run *run)
{
    bool is_ours = flock(run->container.fd, LOCK_EX) == 0 && is_unchanged(run), is_there;

    errno = 0;
    is_there = is_at(&run->container);
    if (!is_there && (errno == 0 || errno == ENOENT))
        return;
    for (int attempts = 0; is_ours && is_there && attempts < 2; attempts++)
        if (remove_all(run))
            return;
    flock(run->container.fd, LOCK_UN);
    if (faccessat(run->container.fd, "state.json", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        delete_by_python(run->root, run->container.id);
}

/* Signals wait until there is a program to forward them to; SIGHUP, SIGINT and SIGTERM end this process before. */
static bool catch_signals(struct run *run)
{
    static const char own[] = {SIGKILL, SIGSTOP, SIGCHLD, SIGPIPE, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGURG};
    static const char last[] = {SIGHUP, SIGINT, SIGTERM};
    struct sigaction action;

    sigemptyset(&ignored);
    sigemptyset(&forwarded);
    sigemptyset(&ending);
    for (int number = 1; number < NSIG; number++) {
        if (sigaction(number, NULL, &action) < 0)
            continue;
        if (action.sa_handler == SIG_IGN)
            sigaddset(&ignored, number);
        else if (!memchr(own, number, sizeof own))
            sigaddset(&forwarded, number);
        if (action.sa_handler != SIG_IGN && memchr(last, number, sizeof last))
            sigaddset(&ending, number);
    }
    signal(SIGCHLD, SIG_DFL); /* a caller that ignores it would hide every exit status */
    sigprocmask(SIG_BLOCK, &forwarded, &before);
    run->signals = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
    return run->signals >= 0;
}

static void make_values(struct run *run)
{
    unsigned char random[12] = {0};

    (void)!getrandom(random, sizeof random, 0);
    for (int i = 0; i < 12; i++)
        snprintf(i < 8 ? run->keyring + 2 * (ptrdiff_t)i : run->token + 2 * (ptrdiff_t)(i - 8), 3, "%02x", random[i]);
    put_time(run->time, sizeof run->time);
}

/* Returns only if Python is to do it. */
static void follow(struct run *run)
{
    struct signalfd_siginfo info;
    bool is_begun = false;
    int status = 0;

    make_values(run);
    if (catch_signals(run) && carry_out(run, &is_begun)) {
        close_now(&run->main.reply);
        if (run->is_left)
            _exit(0);
        if (!run->command)
            flock(run->container.fd, LOCK_UN);
        close_now(&run->input);
        terminal_take_over();
        status = wait_for(run->main.process, (int)syscall(SYS_pidfd_open, run->main.process, 0), run->signals);
        if (run->exit >= 0)
            note_status(run->exit, (unsigned)status);
        end_server(run);
        if (!run->command)
            remove_ended(run);
        _exit(status);
    }
    end_processes(run);
    if (is_begun && run->main.answer != 'S' && read(run->signals, &info, sizeof info) == sizeof info) {
        if (!run->command)
            remove_all(run);
        _exit(128 + (int)info.ssi_signo);
    }
    if (is_begun)
        leave_to_python(run);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static struct plan entry;
static struct run run = {.container = {.root = -1, .fd = -1},
                         .cgroup_fd = -1,
                         .joined = -1,
                         .start = -1,
                         .signals = -1,
                         .console = -1,
                         .terminal = -1,
                         .input = -1,
                         .exit = -1,
                         .program = -1,
                         .null = -1,
                         .connection = -1,
                         .ready = -1,
                         .main = {.report = -1, .reply = -1},
                         .server = {.report = -1, .reply = -1}};

int run_cached(const struct request *request)
{
    size_t count = 0;

    while (request->line[count])
        count++;
    run.entry = &entry;
    if (entry_find(request->line, count, request->script, NULL, &entry))
        follow(&run);
    return DECLINED;
}

int execute_cached(int root, const struct request *request)
{
    run.container = (struct container){.id = request->words[0], .root = root};
    run.command = request->command;
    run.entry = &entry;
    if (request->command && !request->log && found(&run.container, false) == DONE &&
        entry_find(request->line, (size_t)(request->command - request->line), request->script, &run.container, &entry))
        follow(&run);
    return DECLINED;
}
