/* System calls that C libraries have no wrapper for, or have under headers that clash with the kernel's own. */
#pragma once

#include <errno.h>
#include <linux/close_range.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <stddef.h>
#include <stdint.h>
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
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

enum { IOPRIO_WHO_PROCESS = 1 }; /* of ioprio_set(2) */

/* For open_tree(2): a copy of the mount that a descriptor is open on. */
#define COPY_OF_FD (AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)

static inline int sys_close_range(unsigned first, unsigned last, unsigned flags)
{
    return (int)syscall(SYS_close_range, first, last, flags);
}

static inline int sys_openat2(int dir, const char *path, struct open_how *how)
{
    return (int)syscall(SYS_openat2, dir, path, how, sizeof *how);
}

static inline int sys_open_tree(int dir, const char *path, unsigned flags)
{
    return (int)syscall(SYS_open_tree, dir, path, flags);
}

static inline int sys_move_mount(int from, int to, const char *path, unsigned flags)
{
    return (int)syscall(SYS_move_mount, from, "", to, path, flags | MOVE_MOUNT_F_EMPTY_PATH);
}

static inline int sys_fsopen(const char *type, unsigned flags) { return (int)syscall(SYS_fsopen, type, flags); }

static inline int sys_fsconfig(int fs, unsigned command, const char *key, const void *value)
{
    return (int)syscall(SYS_fsconfig, fs, command, key, value, 0);
}

static inline int sys_mount_setattr(int dir, const char *path, unsigned flags, struct mount_attr *attr)
{
    return (int)syscall(SYS_mount_setattr, dir, path, flags, attr, sizeof *attr);
}

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
