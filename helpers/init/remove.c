/* rm-tree: removes a tree whose files belong to any of the caller's IDs. Processes of a container may rename things in
 * it at the same time, so every directory is opened below the one before it, and no symlink is followed. */
#include "init.h"

#include <dirent.h>

enum { DEEPEST = 64 /* open directories */, ROUNDS = 1000 };

static void close_directory(DIR *const *directory)
{
    if (*directory)
        closedir(*directory);
}

static int refused(const char *call, const char *name)
{
    int result = failed(call);

    explain_failure(name, strlen(name));
    return result;
}

/* Moves a directory that lies too deep to the tree's top, where the next look finds it. */
static int lift(int above, const char *name, int top)
{
    static unsigned lifted;
    char place[64];
    int result;

    do {
        snprintf(place, sizeof place, ".rootless-rm-tree-%u", lifted++);
        result = renameat(above, name, top, place); /* an empty directory that it replaces goes anyway */
    } while (result < 0 && (errno == EEXIST || errno == ENOTEMPTY || errno == ENOTDIR));
    return result < 0 ? refused("renameat", name) : 0;
}

/* `top` is -1 for the tree itself. */
static int remove_at(int above, const char *name, int top, unsigned depth)
{
    const struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                                 .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    __attribute__((cleanup(close_directory))) DIR *directory = NULL;
    const struct dirent *entry;
    bool again = true;
    int fd;

    if (unlinkat(above, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR)
        return refused("unlinkat", name);
    if (depth == DEEPEST)
        return lift(above, name, top);
    fd = (int)syscall(SYS_openat2, above, name, &how, sizeof how);
    directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
        return refused("openat2", name);
    for (int round = 0; again && round < ROUNDS; round++) { /* a container may go on to make files */
        again = false;
        rewinddir(directory);
        while ((entry = readdir(directory)) != NULL)
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
                TRY(remove_at(fd, entry->d_name, top < 0 ? fd : top, depth + 1));
                again = true;
            }
    }
    return unlinkat(above, name, AT_REMOVEDIR) < 0 ? refused("unlinkat", name) : 0;
}

/* `name` is in the current directory. */
int op_remove_tree(const char *name) { return remove_at(AT_FDCWD, name, -1, 0); }
