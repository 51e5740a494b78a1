/* The cache of Plans: finds the entry of a command line, and compares everything that its Plan was computed from with
 * its present state. rootless/container/cached_plan.py writes the entries. */
#include "front.h"
#include "entry.h"

#include <linux/capability.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>

static char entry_name[sizeof "@plans/0123456789abcdef"];
static char option[sizeof "-Xcache=0123456789abcdef"]; /* of the interpreter: to write the entry, or less */
static int plans = -1, directory = -1;                 /* that of "@plans", and of entry_name */
static struct config config;

bool entry_decode(const char *bytes, size_t size, struct plan *entry)
{
    static const uint8_t lists[CACHED_END] = {CACHED_LISTS};

    if (layout_decode(bytes, size, CACHED_MAGIC, lists, CACHED_END, entry))
        return false;
    for (uint32_t i = 0; i < entry->count; i++)
        if ((entry->ops[i].code == CACHED_CALL) != (i == 0) || (entry->ops[i].code == CACHED_CONFIG) != (i == 1))
            return false;
    return entry->count > 1;
}

static bool is_text(const struct plan *entry, const struct op *step, int which, const char *text)
{
    size_t length = step->s[which].length;

    return strlen(text) == length && memcmp(text, text_of(entry, step, which), length) == 0;
}

/* Whether an entry is that of a request, which may have other identifiers. */
static bool is_same_request(const struct plan *entry, char **words, size_t count, const char *place, const char *script)
{
    const struct op *call = entry->ops;
    const char *word = text_of(entry, call, 0), *end = word + call->s[0].length;
    char boot[64];

    if (!holes_take(entry, call + 1))
        return false;
    for (; count && word < end; count--, words++, word += strlen(word) + 1)
        if (!holes_match(word, *words))
            return false;
    return !count && word == end && holes_match(text_of(entry, call, 1), place) && is_text(entry, call, 2, script) &&
           read_text(AT_FDCWD, "/proc/sys/kernel/random/boot_id", boot, sizeof boot) ==
               (ssize_t)call->s[3].length + 1 &&
           memcmp(boot, text_of(entry, call, 3), call->s[3].length) == 0 &&
           holes_match_config(entry, call + 1, config.text, config.size);
}

/* The value of a flag among the words, or NULL. A word that only looks like one is noticed later: by is_config(). */
static const char *value_of(char **words, size_t count, const char *name, const char *letter)
{
    size_t length = strlen(name);
    const char *found = NULL;

    for (size_t i = 0; i < count; i++)
        if (strncmp(words[i], name, length) == 0 && words[i][length] == '=')
            found = words[i] + length + 1;
        else if (strcmp(words[i], name) == 0 || strcmp(words[i], letter) == 0)
            found = i + 1 < count ? words[i + 1] : found;
    return found;
}

/* Opens a regular file: of a pipe, what this process read would be lost, and its writer would no longer wait. It may be
 * exchanged between the look and the open, so the descriptor counts. */
static int open_regular(const char *path, struct stat *st)
{
    cleanup_close int fd = -1;

    if (stat(path, st) < 0)
        return -1;
    if (S_ISREG(st->st_mode))
        fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, st) == 0 && S_ISREG(st->st_mode))
        return steal_fd(&fd);
    errno = ESPIPE; /* there is something, which is Python's */
    return -1;
}

static bool read_config(char **words, size_t count)
{
    const char *bundle = value_of(words, count, "--bundle", "-b"), *file = value_of(words, count, "--config", "-f");
    char path[PATH_MAX];
    cleanup_close int fd = -1;
    ssize_t size;

    if (snprintf(path, sizeof path, "%s/%s", bundle ? bundle : ".", "config.json") >= (int)sizeof path)
        return false;
    fd = open_regular(file ? file : path, &config.identity);
    if (fd < 0)
        return errno == ENOENT && !bundle && !file; /* people name bundles and images by a word */
    size = read(fd, config.text, sizeof config.text - 1);
    config.size = size < 0 ? 0 : (size_t)size;
    return size == config.identity.st_size;
}

/* Whether the key is in the table of those that were not found; from now on it is. So a command line that comes once
 * costs nothing, and Python writes an entry at the second time. */
static bool is_seen(uint64_t key)
{
    enum { SLOTS = 256 };
    off_t place = (off_t)(key % SLOTS * sizeof key);
    const int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    cleanup_close int fd = openat(plans, "@plans/seen", flags, 0600);
    uint64_t found;
    struct stat st;

    if (fd < 0 && errno == ENOENT && mkdirat(plans, "@plans", 0700) == 0)
        fd = openat(plans, "@plans/seen", flags, 0600);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || !is_own(&st))
        return false;
    if (pread(fd, &found, sizeof found, place) == sizeof found && found == key)
        return true;
    (void)!pwrite(fd, &key, sizeof key, place);
    return false;
}

static bool read_entry(const char *above, char *bytes, size_t *size, struct plan *entry)
{
    ssize_t length = read_own(directory, entry_name, bytes, CACHED_LARGEST);
    struct stat around;

    *size = (size_t)length;
    return length >= 0 && fstatat(directory, above, &around, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(around.st_mode) &&
           is_own(&around) && entry_decode(bytes, *size, entry);
}

bool entry_find(char **words, size_t count, const char *script, const struct container *container, struct plan *entry)
{
    static _Alignas(struct op) char bytes[CACHED_LARGEST + 1];
    char place[PATH_MAX] = "";
    uint64_t key = 0xcbf29ce484222325;
    size_t size;

    if (!container && !read_config(words, count))
        return false;
    for (size_t i = 0; i < count; i++)
        key = holes_hash(key, words[i], container || !config.size);
    plans = open_root(NULL, true);
    directory = container ? container->fd : plans;
    if (plans < 0 || (!container && !getcwd(place, sizeof place)))
        return false;
    if (container)
        snprintf(place, sizeof place, "%u %llu", container->record->pid,
                 (unsigned long long)container->record->start_time);
    key = holes_hash(key, place, container || !config.size) + holes_sum(config.text);
    snprintf(entry_name, sizeof entry_name, "%s%016llx", container ? "exec." : "@plans/", (unsigned long long)key);
    if (read_entry(container ? "." : "@plans", bytes, &size, entry) &&
        is_same_request(entry, words, count, place, script) &&
        holes_fill(bytes + (entry->strings - bytes), size - (size_t)(entry->strings - bytes)) && entry_holds(entry))
        return true;
    if (is_seen(key))
        snprintf(option, sizeof option, "-Xcache=%016llx", (unsigned long long)key);
    return false;
}

const struct config *entry_config(void) { return &config; }

const char *entry_option(void) { return *option ? option : NULL; }

void entry_forget(bool is_said)
{
    unlinkat(directory, entry_name, 0);
    if (is_said)
        strcpy(option, "-Xsaid"); /* log.py: the warnings have come already */
}

/* --- What the Plan was computed from --- */

/* Whether it is the file that the entry is compared with. */
static bool is_config(const struct plan *entry, const struct op *step)
{
    struct stat st;

    return stat(text_of(entry, step, 0), &st) == 0 && st.st_dev == config.identity.st_dev &&
           st.st_ino == config.identity.st_ino;
}

static bool variable(const struct plan *entry, const struct op *step)
{
    const char *value = getenv(text_of(entry, step, 0));

    return step->n[0] ? value && is_text(entry, step, 1, value) : !value;
}

static bool content(const struct plan *entry, const struct op *step)
{
    struct stat st;
    cleanup_close int fd = open_regular(text_of(entry, step, 0), &st);
    const char *wanted = text_of(entry, step, 1), *end = wanted + step->s[1].length;
    char part[1 << 14];
    ssize_t size;

    if (fd < 0 || !step->n[0])
        return fd < 0 && !step->n[0];
    while ((size = read(fd, part, sizeof part)) > 0) {
        if (size > end - wanted || memcmp(part, wanted, (size_t)size) != 0)
            return false;
        wanted += size;
    }
    return size == 0 && wanted == end;
}

bool entry_is_file(const struct op *step, const struct stat *st)
{
    return step->n[0] == (int64_t)st->st_dev && step->n[1] == (int64_t)st->st_ino && step->n[2] == st->st_size &&
           step->n[3] == nanoseconds(&st->st_mtim) && step->n[4] == nanoseconds(&st->st_ctim) &&
           step->n[5] == ((int64_t)st->st_uid << 32 | st->st_mode);
}

static bool identity(const struct plan *entry, const struct op *step)
{
    struct stat st;

    /* a file that could not be read may be there: Python looks */
    return stat(text_of(entry, step, 0), &st) == 0 && step->n[0] != CACHED_ABSENT && entry_is_file(step, &st);
}

static bool status(const struct plan *entry, const struct op *step)
{
    int flags = step->code == CACHED_SYMLINK_STATUS ? AT_SYMLINK_NOFOLLOW : 0;
    struct stat st;

    if (fstatat(AT_FDCWD, text_of(entry, step, 0), &st, flags) < 0)
        return step->n[0] == CACHED_ABSENT;
    return step->n[0] == st.st_mode && step->n[1] == st.st_uid && step->n[2] == (int64_t)st.st_rdev;
}

static bool allowed(const struct plan *entry, const struct op *step)
{
    return (access(text_of(entry, step, 0), (int)step->n[0]) == 0) == (step->n[1] != 0);
}

/* Whether this process is in a list of processes, one a line. */
static bool listed(const struct plan *entry, const struct op *step)
{
    cleanup_close int fd = open(text_of(entry, step, 0), O_RDONLY | O_CLOEXEC);
    char part[1 << 14];
    int64_t number = 0;
    bool found = false;
    ssize_t size;

    while (fd >= 0 && !found && (size = read(fd, part, sizeof part)) > 0)
        for (ssize_t i = 0; i < size && !found; i++) {
            found = part[i] == '\n' && number == getpid();
            number = part[i] == '\n' ? 0 : number * 10 + part[i] - '0';
        }
    return found == (step->n[0] != 0);
}

static bool mount_flags(const struct plan *entry, const struct op *step)
{
    struct statvfs fs;

    if (statvfs(text_of(entry, step, 0), &fs) < 0)
        return step->n[0] == CACHED_ABSENT;
    return step->n[0] == (int64_t)(fs.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC));
}

/* Whether a process is in other namespaces of the named types than this one, as when its namespaces were looked at. */
static bool namespaces(const struct plan *entry, const struct op *step)
{
    const char *name = text_of(entry, step, 0), *end = name + step->s[0].length;
    int64_t differing = 0;

    for (int i = 0; name < end && i < 63; i++, name += strlen(name) + 1) {
        char own_path[64], other_path[64];
        struct stat own, other;

        snprintf(own_path, sizeof own_path, "/proc/self/ns/%s", name);
        snprintf(other_path, sizeof other_path, "/proc/%d/ns/%s", (int)step->n[0], name);
        if (stat(own_path, &own) == 0 && stat(other_path, &other) == 0)
            differing |= (int64_t)(own.st_dev != other.st_dev || own.st_ino != other.st_ino) << i;
        else if (errno != ENOENT)
            return false;
    }
    return differing == step->n[1];
}

static bool capabilities(const struct plan *entry, const struct op *step)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    int64_t bounding = 0;

    (void)entry;
    for (unsigned long i = 0, held; i < 63 && (held = (unsigned long)prctl(PR_CAPBSET_READ, i)) <= 1; i++)
        bounding |= (int64_t)held << i;
    return syscall(SYS_capget, &header, data) == 0 &&
           step->n[0] == (int64_t)((uint64_t)data[1].effective << 32 | data[0].effective) && step->n[1] == bounding;
}

static bool limits(const struct plan *entry, const struct op *step)
{
    const char *hard = text_of(entry, step, 0);
    size_t count = step->s[0].length / sizeof(uint64_t);

    for (size_t i = 0; i < count; i++) {
        struct rlimit limit;
        uint64_t wanted;

        memcpy(&wanted, hard + i * sizeof wanted, sizeof wanted);
        if (getrlimit((int)i, &limit) < 0 || limit.rlim_max != wanted)
            return false;
    }
    return count > 0;
}

static bool nice_value(const struct plan *entry, const struct op *step)
{
    (void)entry;
    return getpriority(PRIO_PROCESS, 0) == step->n[0];
}

static bool kernel(const struct plan *entry, const struct op *step)
{
    struct utsname name;

    return uname(&name) == 0 && is_text(entry, step, 0, name.release) && is_text(entry, step, 1, name.machine);
}

static bool ids(const struct plan *entry, const struct op *step)
{
    enum { GROUPS = 1024 };
    uint32_t found[6 + GROUPS];
    int count = getgroups(GROUPS, found + 6);

    return count >= 0 && getresuid(found, found + 1, found + 2) == 0 &&
           getresgid(found + 3, found + 4, found + 5) == 0 &&
           step->s[0].length == (6 + (size_t)count) * sizeof *found &&
           memcmp(text_of(entry, step, 0), found, step->s[0].length) == 0;
}

static bool appended(const struct plan *entry, const struct op *step) { return opens_log(text_of(entry, step, 0)); }

bool entry_holds(const struct plan *entry)
{
    static bool (*const same[CACHED_SAY])(const struct plan *, const struct op *) = {
        [CACHED_VARIABLE] = variable, [CACHED_CONTENT] = content,         [CACHED_IDENTITY] = identity,
        [CACHED_STATUS] = status,     [CACHED_SYMLINK_STATUS] = status,   [CACHED_ACCESS] = allowed,
        [CACHED_LISTED] = listed,     [CACHED_MOUNT_FLAGS] = mount_flags, [CACHED_CAPABILITIES] = capabilities,
        [CACHED_LIMITS] = limits,     [CACHED_NICE] = nice_value,         [CACHED_KERNEL] = kernel,
        [CACHED_IDS] = ids,           [CACHED_NAMESPACES] = namespaces,   [CACHED_CONFIG_FILE] = is_config,
        [CACHED_APPENDED] = appended,
    };

    for (uint32_t i = 2; i < entry->count; i++)
        if (entry->ops[i].code < CACHED_SAY && !same[entry->ops[i].code](entry, &entry->ops[i]))
            return false;
    return true;
}
