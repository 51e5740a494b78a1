/* What the files of this program share: the state of the one container, and a function for each operation.
 *
 * An operation returns 0, or the result of failed(): a negative errno, with the name of the call that failed kept for
 * the report. Nothing here decides anything: what to do is in the Plan, what to do on failure too. */
#pragma once

#include "plan.h"
#include "sys.h"

struct init {
    struct plan plan;
    void *plan_start;
    size_t plan_size;
    union { /* the descriptors that are given, in the order of the arguments */
        struct {
            int report_fd;    /* to the parent: what happened; after a start, to the one who asked for it */
            int reply_fd;     /* from the parent: go on */
            int start_fd;     /* a listening socket, or -1: the parent itself says when to start */
            int console_fd;   /* where the master side of the terminal is sent, or -1 */
            int cgroup_fd;    /* the container's cgroup directory, or -1 */
            int process_fd;   /* a pidfd of the process whose namespaces are joined or whose end is awaited, or -1 */
            int agent_fd;     /* connected to who answers the seccomp filter's notifications, or -1 */
            int directory_fd; /* of MONITOR: the container's directory, or -1 */
        };
        int given[8];
    };
    int keep;                     /* how many descriptors from 3 on belong to the container */
    int proc_fd;                  /* the host's /proc, from before the root changed */
    int root_fd;                  /* the container's root, once it is a mount, or -1 */
    int id_map_fd;                /* of ID_MAP: a user namespace whose maps the next mapped mount gets, or -1 */
    int hook_output[2];           /* files of HOOK_OUTPUT, or -1 */
    int notify_fd;                /* the socket of NOTIFY_SOCKET, or -1 */
    int wake_fd;                  /* of LISTENER: its process waits here for the seccomp filter, or -1 */
    int stage_fd;                 /* by which it sees the first stage end, or -1 */
    int64_t files_uid, files_gid; /* of FILES_AS, or -1 */
    uint64_t namespaces[4];       /* of IDENTIFY, for the report with the container process */
    uint32_t identified;          /* how many */
    uint32_t position;            /* of the operation that runs */
    struct arguments exec;        /* of EXEC */
    bool in_hook;                 /* this is the process of a hook */
    bool hidden;                  /* NON_DUMPABLE */
    bool trace;                   /* PROGRESS is reported */
};

extern struct init self;

/* What this process and those that it starts tell each other in memory: a seccomp filter may leave no other way. */
struct shared {
    int pid;              /* of FORK */
    int pidfd;            /* the same process, for LISTENER; or 0 */
    int report_fd;        /* as in struct init, for LISTENER */
    _Atomic int listener; /* the filter's descriptor, once there is one */
    int fuse[2];          /* of FUSE: the device, the mount */
    int error;            /* the last failure: its errno, */
    uint32_t length;      /* and the name of the call, NUL, what else explains it, such as the kernel's own words */
    char detail[sizeof((struct report *)0)->detail];
};

extern struct shared *shared;

/* error.c: -errno, remembering which call it was */
int failed(const char *call);
int failed_with(const char *call, int error);
int failed_in(const char *expression); /* a call as written in C, whose name is the call's */
void explain_failure(const void *text, size_t length);

/* The result of a call; if it is negative, the function that makes the call returns `failure`. */
#define CHECKED(call, failure)                                                                                         \
    ({                                                                                                                 \
        __auto_type result_ = (call);                                                                                  \
        if (result_ < 0)                                                                                               \
            return failure;                                                                                            \
        result_;                                                                                                       \
    })

/* Of a call that sets errno, whose name is in the code; of one with another name; of one that returns as failed(). */
#define SYS(call) CHECKED(call, failed_in(#call))
#define SYS_AS(name, call) CHECKED(call, failed(name))
#define TRY(call) CHECKED(call, result_)

/* Of a system call by its number: C libraries have no function for it, one that does more, or one whose header clashes
 * with the kernel's own. */
#define SYSCALL(name, ...) SYS_AS(#name, (int)syscall(SYS_##name, __VA_ARGS__))

static inline struct bytes bytes(const struct op *op, int which) { return plan_bytes(&self.plan, op, which); }

static inline const char *text(const struct op *op, int which) { return bytes(op, which).at; }

/* ops.c, which gen_ops.py writes: calls the operation's function */
int run(const struct op *op);

/* run.c: runs the operation at the position, and moves that on, past alternatives that are not needed. Returns as
 * failed() does; 0 also after an error that the operation may have. */
int run_next(void);

/* self.c */
int close_all_but(const int *ours, int count); /* leaves open what belongs to the container, and `ours` until execve */

/* namespaces.c */
void stay_hidden(void); /* after every change of credentials */

/* protocol.c */
int take_turn(int pid); /* tells the launcher, and waits until it is done; returns 0 */
void report(enum message type, int value, int error, const void *detail, uint32_t length, bool must_arrive);
void report_failure(enum message type, int index, int error);
void report_executing(void);
_Noreturn void leave(int status);
int send_fds(int channel, const void *data, size_t size, const int *fds, size_t count);
int report_fds(enum message type, int value, int first, int second); /* -1: no second */

/* paths.c: paths inside the container's root, resolved by the kernel so that no link leads out of it. Each returns as
 * failed() does, or a descriptor. */
int open_inside(const char *path, uint64_t flags, uint64_t resolve);
int open_or_create(const char *path, bool directory, uint64_t resolve);
int open_parent(const char *path, const char **name);
int pin_mount(const char *path, int mount_fd, bool keep);
/* Of any path: copies what is before its last slash, or "."; points `name` at the rest. */
int split(const char *path, char directory[PATH_MAX], const char **name);

/* mounts.c */
int make_parent_private(int directory);
/* A new file system as a detached mount: with options of its own, then the others. Returns as failed() does, or a
 * descriptor. */
struct option {
    const char *name, *value;
};
#define OPTIONS(...)                                                                                                   \
    (const struct option[]){__VA_ARGS__}, sizeof((const struct option[]){__VA_ARGS__}) / sizeof(struct option)
int new_mount(const char *type, const struct option *own, size_t count, struct bytes options, uint64_t set);
int tree_of(uint64_t number);
int attach(const char *path, bool keep, int mount_fd, int target_fd);
int private_copy(const char *path, struct stat *st); /* returns as failed() does, or a descriptor */

/* holder.c: lets go of the caller's streams and directory */
int let_go(void);

/* copyup.c */
int copy_up(int from_fd, int to_fd);

/* notify.c: what loading the filter has returned */
void pass_listener(int fd);
