/* The verbs `state`, `list`, `kill`, `start` and `delete` of a container whose status record allows them. */
#include "front.h"
#include "../init/layout.h"
#include "cached.h"
#include "flags.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

int found(struct container *container, bool lock)
{
    return open_container(container, lock) == DONE && read_record(container) ? DONE : DECLINED;
}

/* Copies what `state` prints of a container; returns its size, or 0 if Python has to find out. */
static size_t report(const struct container *container, char text[RECORD_LARGEST])
{
    const enum status status = container->record->may & MAY_STATE ? look(container) : UNKNOWN;
    const int parts[] = {RECORD_BEFORE, RECORD_CREATED + (int)status, RECORD_AFTER};
    size_t size = 0;

    for (int i = 0; status != UNKNOWN && i < 3; i++) {
        memcpy(text + size, container->strings[parts[i]], container->record->lengths[parts[i]]);
        size += container->record->lengths[parts[i]];
    }
    return size;
}

int state(int root, const struct request *request)
{
    static char text[RECORD_LARGEST];
    struct container container = {.id = request->words[0], .root = root};
    size_t size = found(&container, false) == DONE ? report(&container, text) : 0;

    return size && fwrite(text, 1, size, stdout) == size && fflush(stdout) == 0 ? DONE : DECLINED;
}

/* Calls `use` with each name in a directory but "." and ".."; false if it cannot be read or `use` returns false. */
bool each_name(int directory, bool (*use)(void *context, const char *name), void *context)
{
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *names = fd < 0 ? NULL : fdopendir(fd);
    bool is_good = names;

    errno = 0;
    for (const struct dirent *entry = names ? readdir(names) : NULL; is_good && entry; entry = readdir(names)) {
        is_good = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || use(context, entry->d_name);
        errno = 0;
    }
    is_good = is_good && errno == 0;
    if (names)
        closedir(names);
    return is_good;
}

struct list {
    int root;
    bool is_json;
    size_t count, size;
    const char *ids[4096]; /* behind each, what is printed of it */
    char text[1 << 22];
};

/* Takes the blanks out of JSON, but not those in strings, and ends it with a NUL. */
static size_t compact(char *text, size_t size)
{
    bool is_string = false;
    size_t kept = 0;

    for (size_t i = 0; i < size; i++) {
        is_string ^= text[i] == '"';
        if (is_string && text[i] == '\\')
            text[kept++] = text[i++];
        if (is_string || (text[i] != ' ' && text[i] != '\n'))
            text[kept++] = text[i];
    }
    text[kept] = '\0';
    return kept;
}

static bool add(void *context, const char *name)
{
    struct list *list = context;
    struct container container = {.id = name, .root = list->root};
    char *id = list->text + list->size, *behind = id + strlen(name) + 1;
    const int result = is_id(name) ? open_container(&container, false) : ENOENT;
    cleanup_close int fd = result == ENOENT ? -1 : container.fd;
    size_t size = 0;

    if (result == ENOENT)
        return true;
    if (result != DONE || !read_record(&container) || list->count == sizeof list->ids / sizeof *list->ids ||
        sizeof list->text - list->size < NAME_MAX + 1 + RECORD_LARGEST + 1)
        return false;
    size = list->is_json ? report(&container, behind) : 0;
    if (list->is_json && !size)
        return false;
    list->ids[list->count++] = strcpy(id, name);
    list->size = (size_t)(behind + compact(behind, size) + 1 - list->text);
    return true;
}

static int compare(const void *first, const void *second)
{
    return strcmp(*(const char *const *)first, *(const char *const *)second);
}

int list(int root, const struct request *request)
{
    static struct list list;

    list.root = root;
    list.is_json = !request->quiet;
    if (list.is_json && (!request->json || isatty(STDOUT_FILENO)))
        return DECLINED; /* people read the table, or JSON on several lines */
    if (!each_name(root, add, &list) || (list.is_json && !list.count))
        return DECLINED;
    qsort(list.ids, list.count, sizeof *list.ids, compare);
    for (size_t i = 0; i < list.count; i++)
        if (list.is_json)
            printf("%s%s", i ? "," : "[", strchr(list.ids[i], '\0') + 1);
        else
            puts(list.ids[i]);
    if (list.is_json)
        puts("]");
    return fflush(stdout) == 0 && !ferror(stdout) ? DONE : DECLINED;
}

static int signal_number(const char *word)
{
    char *end;
    long number = strtol(word, &end, 10);

    if (strspn(word, "0123456789") == strlen(word))
        return *word && !*end && strlen(word) <= 9 && number < NSIG ? (int)number : -1;
    if (strncasecmp(word, "SIG", 3) == 0)
        word += 3;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (strcasecmp(word, signals[i].name) == 0)
            return signals[i].number;
    return -1;
}

/* pid_namespaces(7): its end is the end of all others in its pid namespace. */
static bool is_process_1(uint32_t pid)
{
    char path[32], text[4096], *line, *last;

    snprintf(path, sizeof path, "/proc/%u/status", pid);
    line = read_text(AT_FDCWD, path, text, sizeof text) > 0 ? strstr(text, "\nNSpid:") : NULL;
    if (!line)
        return false;
    line[1 + strcspn(line + 1, "\n")] = '\0';
    last = strrchr(line, '\t');
    return last && strcmp(last, "\t1") == 0;
}

int open_process(const struct container *container, enum status *status)
{
    cleanup_close int process = (int)syscall(SYS_pidfd_open, container->record->pid, 0);

    *status = process < 0 ? UNKNOWN : look(container);
    return *status == STOPPED || *status == UNKNOWN ? -1 : steal_fd(&process);
}

static bool send_signal(int process, int number)
{
    return syscall(SYS_pidfd_send_signal, process, number, NULL, 0) == 0 || errno == ESRCH;
}

int kill_container(int root, const struct request *request)
{
    struct container container = {.id = request->words[0], .root = root};
    int number = request->count > 1 ? signal_number(request->words[1]) : SIGTERM;
    cleanup_close int process = -1;
    enum status status;

    if (number < 0 || found(&container, false) != DONE)
        return DECLINED;
    process = open_process(&container, &status);
    if (process < 0 || (number == SIGKILL && !is_process_1(container.record->pid)))
        return DECLINED;
    return send_signal(process, number) ? DONE : DECLINED;
}

struct sockaddr_un start_address(const struct container *container)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/start.sock", container->fd);
    return address;
}

static int connect_to_start_socket(const struct container *container)
{
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = start_address(container);

    return fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? steal_fd(&fd) : -1;
}

/* Whether the executor says that it executes the program and nothing else, up to the end of file (protocol.c). The
 * message stays in the socket: Python reads and explains any other. */
static bool is_executed(int connection)
{
    const ssize_t head = offsetof(struct report, detail);
    struct report message;
    int offset = 0;

    return setsockopt(connection, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset) == 0 &&
           recv(connection, &message, (size_t)head, MSG_PEEK | MSG_WAITALL) == head &&
           message.type == MESSAGE_EXECUTING && message.length == 0 &&
           recv(connection, &message, (size_t)head, MSG_PEEK) == 0;
}

/* Whether the program runs, and was not ended by the seccomp filter before its first instruction: end of file comes a
 * moment before the process has the program's name. */
bool runs(uint32_t pid)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    struct process process = {.waits = false};

    for (int looks = 0; looks < 100; looks++) {
        if (!read_process(pid, &process) || !process.alive || !process.waits)
            return !process.waits;
        nanosleep(&moment, NULL);
    }
    return true;
}

int start(int root, const struct request *request)
{
    struct container container = {.id = request->words[0], .root = root};
    char option[64];
    int connection;
    bool is_sent;

    if (found(&container, true) != DONE || !(container.record->may & MAY_START) || look(&container) != CREATED)
        return DECLINED;
    connection = connect_to_start_socket(&container);
    if (connection < 0)
        return DECLINED;
    is_sent = write(connection, "S", 1) == 1;
    if (!is_sent || !is_executed(connection) || !runs(container.record->pid)) {
        fcntl(connection, F_SETFD, 0);
        fcntl(container.fd, F_SETFD, 0); /* and its lock */
        snprintf(option, sizeof option, "-Xstarted=%d,%d,%d", container.fd, connection, is_sent);
        become_python(option);
    }
    unlinkat(container.fd, "start.sock", 0);
    return DONE;
}

static bool end(const struct container *container)
{
    enum status status;
    cleanup_close int process = open_process(container, &status);

    if (process < 0)
        return look(container) == STOPPED;
    return is_process_1(container->record->pid) && send_signal(process, SIGKILL) &&
           poll(&(struct pollfd){.fd = process, .events = POLLIN}, 1, -1) == 1;
}

static bool is_gone(int result) { return result == 0 || errno == ENOENT || errno == ENOTDIR; }

static bool remove_file(void *context, const char *name)
{
    const struct container *container = context;

    return strcmp(name, "state.json") == 0 || is_gone(unlinkat(container->fd, name, 0));
}

bool remove_container(struct container *container)
{
    const char *parent = container->strings[RECORD_PARENTS];

    if (faccessat(container->root, ".", W_OK, AT_EACCESS) < 0)
        return false;
    if (*container->strings[RECORD_CGROUP] && !is_gone(rmdir(container->strings[RECORD_CGROUP])))
        return false;
    for (; parent < container->strings[RECORD_BEFORE]; parent += strlen(parent) + 1)
        rmdir(parent);
    /* state.json last: the next `delete` needs it after a failure */
    return each_name(container->fd, remove_file, container) && is_gone(unlinkat(container->fd, "state.json", 0)) &&
           is_gone(unlinkat(container->root, container->id, AT_REMOVEDIR));
}

int delete(int root, const struct request *request)
{
    struct container container = {.id = request->words[0], .root = root};

    /* without the lock first: its holder may wait for a process that has to end */
    if (request->force &&
        (found(&container, false) != DONE || !(container.record->may & MAY_DELETE) || !end(&container)))
        return DECLINED;
    if (request->force)
        close(container.fd);
    if (found(&container, true) != DONE || !(container.record->may & MAY_DELETE) || look(&container) != STOPPED)
        return DECLINED;
    return has_undo_notes(&container, container.record->undo_size) && remove_container(&container) ? DONE : DECLINED;
}
