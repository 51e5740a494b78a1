/* A container's directory and its status record, which are trusted only where no other user can have written them. */
#include "front.h"

#include <stdlib.h>
#include <sys/file.h>
#include <time.h>

static const char waiting[] = "rootless:init";

bool decode(const char *bytes, size_t size, struct container *container)
{
    const struct record *record = (const void *)bytes;
    const char *next = bytes + sizeof *record;
    size_t left = size - sizeof *record;

    if (size < sizeof *record || memcmp(record->magic, RECORD_MAGIC, sizeof record->magic) != 0 || record->pid < 1 ||
        record->pid > INT_MAX)
        return false;
    for (int i = 0; i < RECORD_STRINGS; i++) {
        size_t length = record->lengths[i];

        if (length > left || (i <= RECORD_PARENTS && length && next[length - 1] != '\0'))
            return false;
        if (i < RECORD_PARENTS && (!length || strlen(next) != length - 1))
            return false;
        container->strings[i] = next;
        next += length;
        left -= length;
    }
    container->record = record;
    return left == 0;
}

bool is_own(const struct stat *st) { return st->st_uid == geteuid() && !(st->st_mode & (S_IWGRP | S_IWOTH)); }

int open_own(int directory, const char *path, mode_t forbidden)
{
    cleanup_close int fd = openat(directory, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    return fd >= 0 && fstat(fd, &st) == 0 && is_own(&st) && !(st.st_mode & forbidden) ? steal_fd(&fd) : -1;
}

ssize_t read_own(int directory, const char *name, char *bytes, size_t size)
{
    cleanup_close int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !is_own(&st) || st.st_size > (off_t)size)
        return -1;
    return read(fd, bytes, size) == st.st_size ? st.st_size : -1;
}

int open_log(const char *path) { return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644); }

/* As Python's log does: the file can be written, or the error comes before anything is done. */
bool opens_log(const char *path)
{
    cleanup_close int fd = open_log(path);

    return fd >= 0;
}

static bool is_owned(const char *directory)
{
    struct stat st;

    return stat(directory, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & S_IWOTH);
}

/* As rootless/container/state/root.py: the one that is asked for, or that of the runtime directory, or in /tmp. */
int open_root(const char *asked, bool make)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char path[PATH_MAX], usual[32];
    int made;

    if (asked)
        return *asked && !strstr(asked, "..") ? open_own(AT_FDCWD, asked, 0) : -1;
    snprintf(usual, sizeof usual, "/run/user/%u", geteuid());
    if (!runtime || *runtime != '/' || !is_owned(runtime))
        runtime = geteuid() != 0 ? usual : is_owned("/run") && access("/run", W_OK) == 0 ? "/run" : "";
    if (runtime == usual && !is_owned(usual)) {
        snprintf(path, sizeof path, "/tmp/rootless-%u", geteuid());
        return open_own(AT_FDCWD, path, S_IRWXG | S_IRWXO);
    }
    if (!*runtime || snprintf(path, sizeof path, "%s/rootless", runtime) >= PATH_MAX)
        return -1;
    made = open_own(AT_FDCWD, path, 0);
    return made < 0 && errno == ENOENT && make && mkdir(path, 0700) == 0 ? open_own(AT_FDCWD, path, 0) : made;
}

bool is_id(const char *word)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-.";
    size_t length = strlen(word);

    return length > 0 && length <= NAME_MAX && strspn(word, allowed) == length && strcmp(word, ".") != 0 &&
           strcmp(word, "..") != 0;
}

bool is_at(const struct container *container)
{
    struct stat opened, there;

    return fstat(container->fd, &opened) == 0 &&
           fstatat(container->root, container->id, &there, AT_SYMLINK_NOFOLLOW) == 0 && opened.st_ino == there.st_ino &&
           opened.st_dev == there.st_dev;
}

int open_container(struct container *container, bool lock)
{
    if (!is_id(container->id))
        return DECLINED;
    errno = 0;
    container->fd = open_own(container->root, container->id, 0);
    if (container->fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? ENOENT : DECLINED;
    return !lock || (flock(container->fd, LOCK_EX) == 0 && is_at(container)) ? DONE : DECLINED;
}

bool read_record(struct container *container)
{
    static _Alignas(struct record) char bytes[RECORD_LARGEST];
    ssize_t size = read_own(container->fd, "status", bytes, sizeof bytes);
    struct stat st;

    return size >= 0 && decode(bytes, (size_t)size, container) &&
           strcmp(container->strings[RECORD_ID], container->id) == 0 &&
           fstatat(container->fd, "state.json", &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           st.st_ino == container->record->inode && (uint64_t)st.st_size == container->record->size &&
           (uint64_t)nanoseconds(&st.st_mtim) == container->record->modified;
}

bool has_undo_notes(const struct container *container, uint32_t size)
{
    struct stat st = {.st_mode = S_IFREG};

    if (fstatat(container->fd, "undo", &st, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
        return false;
    return S_ISREG(st.st_mode) && st.st_size == (off_t)size;
}

ssize_t read_text(int directory, const char *path, char *text, size_t size)
{
    cleanup_close int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, size - 1);

    text[length < 0 ? 0 : length] = '\0';
    return length;
}

bool read_process(uint32_t pid, struct process *process)
{
    enum { START_TIME = 22 - 2 }; /* blanks before it, behind the name, which is the second field */
    char path[32], text[1024], *name, *rest;

    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    errno = 0;
    if (read_text(AT_FDCWD, path, text, sizeof text) <= 0)
        return false;
    name = strchr(text, '(');
    rest = strrchr(text, ')');
    if (!name || !rest)
        return false;
    process->alive = rest[2] != 'Z' && rest[2] != 'X';
    process->waits = rest - name == sizeof waiting && memcmp(name + 1, waiting, sizeof waiting - 1) == 0;
    for (int blanks = 0; rest && blanks < START_TIME; blanks++)
        rest = strchr(rest + 1, ' ');
    process->start_time = rest ? strtoull(rest, NULL, 10) : 0;
    return rest != NULL;
}

void put_time(char *text, size_t size)
{
    struct timespec now;
    int64_t days, second, era, day, year, month;

    /* gmtime(3) would open the time zone; the years begin in March here */
    clock_gettime(CLOCK_REALTIME, &now);
    days = now.tv_sec / 86400 + 719468;
    second = now.tv_sec % 86400;
    era = days / 146097;
    day = days % 146097;
    year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    day -= 365 * year + year / 4 - year / 100;
    month = (5 * day + 2) / 153;
    snprintf(text, size, "%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ", (int)(year + era * 400 + (month > 9)),
             (int)(month > 9 ? month - 9 : month + 3), (int)(day - (153 * month + 2) / 5 + 1), (int)(second / 3600),
             (int)(second / 60 % 60), (int)(second % 60), now.tv_nsec);
}

static bool is_frozen(const char *cgroup)
{
    char path[PATH_MAX], text[4];

    return *cgroup && snprintf(path, sizeof path, "%s/cgroup.freeze", cgroup) < PATH_MAX &&
           read_text(AT_FDCWD, path, text, sizeof text) > 0 && *text == '1';
}

enum status look(const struct container *container)
{
    static char boot[sizeof container->record->boot];
    const struct record *record = container->record;
    struct process process;

    if (!*boot && read_text(AT_FDCWD, "/proc/sys/kernel/random/boot_id", boot, sizeof boot) <= 0)
        return UNKNOWN;
    boot[strcspn(boot, "\n")] = '\0';
    if (memcmp(boot, record->boot, sizeof boot) != 0)
        return UNKNOWN; /* what is left of another boot is Python's */
    if (!read_process(record->pid, &process))
        return errno == ENOENT || errno == ESRCH ? STOPPED : UNKNOWN;
    if (process.start_time != record->start_time || !process.alive)
        return STOPPED;
    if (is_frozen(container->strings[RECORD_CGROUP]))
        return PAUSED;
    return process.waits && faccessat(container->fd, "start.sock", F_OK, 0) == 0 ? CREATED : RUNNING;
}
