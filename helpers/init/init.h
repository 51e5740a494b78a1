/* What the files of this program share: the state of the one container, and a function for each operation.
 *
 * An operation returns 0, or the result of failed(): a negative errno, with the name of the call that failed kept for
 * the report. Nothing here decides anything: what to do is in the Plan, what to do on failure too. */
#pragma once

#include "plan.h"

#include <sys/types.h>

struct init {
    struct plan plan;
    int report_fd;   /* to the parent: what happened; after a start, to the one who asked for it */
    int reply_fd;    /* from the parent: go on */
    int start_fd;    /* a listening socket, or -1: the parent itself says when to start */
    int console_fd;  /* where the master side of the terminal is sent, or -1 */
    int cgroup_fd;   /* the container's cgroup directory, or -1 */
    int keep;        /* how many descriptors from 3 on belong to the container */
    int proc_fd;     /* the host's /proc, from before the root changed */
    int root_fd;     /* the container's root, once it is a mount */
    int mask_fd;     /* an empty read-only tmpfs that masks directories, or -1 */
    int64_t files_uid, files_gid; /* of FILES_AS, or -1 */
    char **args, **env, **env_end; /* of EXEC; at the end is room for HOME */
    bool in_directory; /* CHDIR has succeeded */
    const char *command;
    char *home;
};

extern struct init self;

typedef int operation(const struct op *op);

operation op_join, op_new_user, op_unshare, op_become, op_files_as, op_proc_write, op_non_dumpable, op_fork, op_session, op_keyring,
    op_hostname, op_domainname, op_link_up;
operation op_propagation, op_root, op_mount, op_bind, op_remount, op_mask, op_readonly_path, op_root_attributes, op_pivot,
    op_chroot;
operation op_device_bind, op_device_node, op_symlink, op_console, op_mkdir;
operation op_rlimit, op_stdio_owner, op_bounding, op_groups, op_ids, op_capabilities, op_ambient, op_umask, op_chdir,
    op_home, op_command, op_no_new_privs, op_seccomp, op_exec;
operation op_ready, op_wait_start;

/* -errno, remembering which call it was; then, where there is one, what else explains it, such as the kernel's own words. */
int failed(const char *call);
int failed_with(const char *call, int error);
void explain_failure(const void *text, size_t length);

static inline const char *text(const struct op *op, int which)
{
    return plan_text(&self.plan, op, which);
}

/* main.c: leaves open what belongs to the container, and `ours` (-1: none) until execve. */
int close_all_but(const int *ours, int count);

/* protocol.c */
void report_failed(uint32_t index, int error);
void report_skipped(uint32_t index, int error);
void report_broken(const char *why);

/* paths.c: paths inside the container's root, resolved by the kernel so that no link leads out of it. */
int open_inside(const char *path, uint64_t flags, uint64_t resolve);
int open_or_create(const char *path, bool directory, uint64_t resolve);
int open_parent(const char *path, const char **name);

/* mounts.c */
int attach(int mount_fd, int target_fd);

/* copyup.c */
int copy_tree(int from_fd, int to_fd);

/* process.c: makes ready what EXEC needs, while no seccomp filter can forbid it. */
int prepare_exec(void);
