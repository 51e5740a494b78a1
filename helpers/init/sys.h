/* The headers that most files need, constants that older headers do not have, and descriptors with an owner. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

enum { IOPRIO_WHO_PROCESS = 1 }; /* of ioprio_set(2) */

/* For open_tree(2): a copy of the mount that a descriptor is open on. For move_mount(2): both are descriptors. */
#define COPY_OF_FD (AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
#define FD_TO_FD (MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)

static inline void close_if_open(const int *fd)
{
    int error = errno;

    if (*fd >= 0)
        close(*fd);
    errno = error;
}

/* A descriptor that its scope owns: every early return closes it. */
#define cleanup_close __attribute__((cleanup(close_if_open)))

/* Takes a descriptor away from the scope that owns it. */
static inline int steal_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

static inline void close_now(int *fd)
{
    close_if_open(fd);
    *fd = -1;
}
