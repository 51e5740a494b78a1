/* What the files of this program share: the state of the one container, and a function for each operation.
 *
 * An operation returns 0, or the result of failed(): a negative errno, with the name of the call that failed kept for
 * the report. Nothing here decides anything: what to do is in the Plan, what to do on failure too. */
#pragma once

#include "plan.h"

#include <sys/stat.h>
#include <sys/types.h>

struct init {
    struct plan plan;
    void *plan_bytes;
    size_t plan_size;
    int report_fd;      /* to the parent: what happened; after a start, to the one who asked for it */
    int reply_fd;       /* from the parent: go on */
    int start_fd;       /* a listening socket, or -1: the parent itself says when to start */
    int console_fd;     /* where the master side of the terminal is sent, or -1 */
    int cgroup_fd;      /* the container's cgroup directory, or -1 */
    int process_fd;     /* a pidfd of the process whose namespaces are joined or whose end is awaited, or -1 */
    int directory_fd;   /* of MONITOR: the container's directory, or -1 */
    int agent_fd;       /* connected to who answers the seccomp filter's notifications, or -1 */
    int keep;           /* how many descriptors from 3 on belong to the container */
    int proc_fd;        /* the host's /proc, from before the root changed */
    int root_fd;        /* the container's root, once it is a mount */
    int mask_fd;        /* an empty read-only tmpfs that masks directories, or -1 */
    int id_map_fd;      /* of ID_MAP: a user namespace whose maps the next mapped mount gets, or -1 */
    int proc_file_fd;   /* of PROC_OPEN: the file that the next PROC_WRITE writes to, or -1 */
    int hook_output[2]; /* files of HOOK_OUTPUT, or -1 */
    int *forked;        /* the container's process, where the processes before it can read it, or NULL */
    int notify_fd;      /* the socket of NOTIFY_SOCKET, or -1 */
    int64_t files_uid, files_gid;  /* of FILES_AS, or -1 */
    uint64_t namespaces[4];        /* of IDENTIFY, for the report with the container process */
    uint32_t identified;           /* how many */
    char **args, **env, **env_end; /* of EXEC; at the end is room for HOME */
    bool in_directory;             /* CHDIR has succeeded */
    bool hidden;                   /* NON_DUMPABLE */
    bool trace;                    /* PROGRESS is reported */
    const char *command;
    char *home;
};

extern struct init self;

/* error.c: -errno, remembering which call it was; then, where there is one, what else explains it, such as the kernel's
 * own words. */
struct failure {
    const char *call;
    char text[1800];
    size_t length;
};

extern struct failure failure; /* the last one, for the report */

int failed(const char *call);
int failed_with(const char *call, int error);
void explain_failure(const void *text, size_t length);

static inline const char *text(const struct op *op, int which) { return plan_text(&self.plan, op, which); }

/* main.c: leaves open what belongs to the container, and `ours` (-1: none) until execve. */
int close_all_but(const int *ours, int count);

/* namespaces.c: the cgroup namespace that op_join_process has left, if it has. */
int join_cgroup(void);
int make_fork_number(void); /* self.forked */
void stay_hidden(void);     /* after every change of credentials */

/* protocol.c */
void take_turn(int pid); /* tells the launcher, and waits until it is done */
void report_failed(uint32_t index, int error);
void report_skipped(uint32_t index, int error);
void report_broken(const char *why);
void report_executing(void);
void report_progress(uint32_t index, int error, uint64_t microseconds);
_Noreturn void leave(int status);
int send_fds(int channel, const void *data, size_t size, const int *fds, size_t count); /* at most 2 */
int report_listener(int fd);
int report_notify(int fd);
void report_monitored(int pid);
int report_netlink(int fd);
int report_fuse(int fd);

/* paths.c: paths inside the container's root, resolved by the kernel so that no link leads out of it. */
int open_inside(const char *path, uint64_t flags, uint64_t resolve);
int pin_mount(const char *path, int mount_fd, bool keep);
int open_or_create(const char *path, bool directory, uint64_t resolve);
int open_parent(const char *path, const char **name);

/* mounts.c */
int apply(int mount_fd, const struct op *op);
int attach(int mount_fd, int target_fd);
int make_parent_private(int directory);
int copy_of(const char *path, const struct op *op);
int private_copy(const char *path, struct stat *st); /* returns as failed() does, or a descriptor */
/* A new file system as a detached mount: with options of its own, then those of the string `options`, unless it is -1.
 * Returns as failed() does, or a descriptor. */
struct option {
    const char *name, *value;
};
#define OPTIONS(...)                                                                                                   \
    (const struct option[]){__VA_ARGS__}, sizeof((const struct option[]){__VA_ARGS__}) / sizeof(struct option)
int new_mount(const char *type, const struct option *own, size_t count, const struct op *op, int options,
              unsigned attributes);

/* idmap.c */
int next_tree(const struct op *op);

/* copyup.c */
int copy_up(int from_fd, int to_fd);

/* holder.c: lets go of the caller's streams and directory */
int let_go(void);

/* process.c: makes ready what EXEC needs, while no seccomp filter can forbid it. */
int prepare_exec(void);
/* writes where the elements of a list are; returns the end */
char **fill_argv(const struct op *op, int which, char **items);
enum { FILTER_NEW_LISTENER = 8, FILTER_LISTENER_FLAGS = FILTER_NEW_LISTENER | 32 /* how its notifications wait */ };
int load_filter(const struct op *op, unsigned flags);

/* notify.c */
enum { MARK = 0x6e6f7465 }; /* twice, the argument of the getppid(2) that load_filter() has notified */
void pass_listener(int fd);
