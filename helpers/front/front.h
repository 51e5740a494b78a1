/* The front door: what its files share.
 *
 * Python decides and writes the answer down in a container's status record and in cached Plans; this program follows
 * them, or becomes the Python program (DECLINED), after taking back what it has begun. What it does is what Python's
 * verbs do, in their order: rootless/container/state and rootless/container/removal have the reasons. */
#pragma once

#include "../init/sys.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

enum { DONE = 0, DECLINED = -1 };

enum status { CREATED, RUNNING, PAUSED, STOPPED, UNKNOWN };
enum {
    RECORD_ID,
    RECORD_CGROUP,
    RECORD_PARENTS,
    RECORD_BEFORE, /* of the output of `state`: what comes before pid and status, these for each status, the rest */
    RECORD_CREATED,
    RECORD_AFTER = RECORD_CREATED + UNKNOWN,
    RECORD_STRINGS
};
enum { MAY_STATE = 1, MAY_START = 2, MAY_DELETE = 4, RECORD_LARGEST = 1 << 16 };

#define RECORD_MAGIC "RLSTAT1"

/* ROOT/ID/status, which rootless/container/operations/status_record.py writes: this, then the strings one after
 * another. Those up to RECORD_PARENTS end with a NUL; RECORD_PARENTS has one after each path. */
struct record {
    char magic[8];
    uint64_t inode, size, modified; /* of the state.json that it belongs to; nanoseconds since 1970 */
    uint64_t start_time;            /* of the container's first process, in clock ticks */
    char boot[40];                  /* with NULs behind it */
    uint32_t pid;
    uint32_t may;       /* MAY_…: what is the ordinary case for this container */
    uint32_t undo_size; /* bytes of the undo notes that MAY_DELETE is about */
    uint32_t lengths[RECORD_STRINGS];
};

static inline int64_t nanoseconds(const struct timespec *time) { return time->tv_sec * 1000000000 + time->tv_nsec; }

struct container {
    const char *id;
    int root, fd; /* directories */
    const struct record *record;
    const char *strings[RECORD_STRINGS];
};

struct process {
    bool alive, waits; /* for the start of its program: it is the executor */
    unsigned long long start_time;
};

/* What the command line asks, as far as this program understands it. */
struct request {
    const char *verb, *root, *log;
    const char *words[2]; /* the container, the signal */
    int count;
    bool force, quiet, json;
    char **line, **command; /* all words, and those for `exec` to execute, or NULL */
    const char *script;     /* Python's */
};

/* record.c */
bool decode(const char *bytes, size_t size, struct container *container);
int open_root(const char *asked, bool make);
bool is_id(const char *word);
int open_container(struct container *container, bool lock); /* DONE, DECLINED, or ENOENT */
bool read_record(struct container *container);
enum status look(const struct container *container);
bool is_own(const struct stat *st);
bool is_at(const struct container *container);
int open_own(int directory, const char *path, mode_t forbidden);
/* A whole file that nobody else can have written, if it is not larger than `size`; or -1. */
ssize_t read_own(int directory, const char *name, char *bytes, size_t size);
int open_log(const char *path);
bool opens_log(const char *path);
bool has_undo_notes(const struct container *container, uint32_t size); /* so many bytes of them, perhaps none */
void put_time(char *text, size_t size);                                /* now: RFC 3339 with nanoseconds, in UTC */
ssize_t read_text(int directory, const char *path, char *text, size_t size); /* ends it with a NUL */
/* proc(5): false if it cannot be read, with errno ENOENT or ESRCH if it has gone. */
bool read_process(uint32_t pid, struct process *process);

/* verbs.c: each returns DONE or DECLINED */
int state(int root, const struct request *request);
int list(int root, const struct request *request);
int kill_container(int root, const struct request *request);
int start(int root, const struct request *request);
int delete (int root, const struct request *request);

/* A pidfd of the first process and its status, or -1 if it has ended; a pid that was reused has another start time. */
int open_process(const struct container *container, enum status *status);
int found(struct container *container, bool lock);
struct sockaddr_un start_address(const struct container *container);
bool runs(uint32_t pid);
bool each_name(int directory, bool (*use)(void *context, const char *name), void *context);
bool remove_container(struct container *container);

/* entry.c */
const char *entry_option(void); /* of the interpreter, or NULL: Python writes an entry, or says no warnings again */

/* run.c */
/* DECLINED, or they do not return */
int run_cached(const struct request *request);
int execute_cached(int root, const struct request *request);

/* main.c */
void delete_by_python(const char *root, const char *id);
_Noreturn void become_python(const char *option); /* another option of the interpreter, or NULL */
