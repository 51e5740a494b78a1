/* Names in a root whose changes go to an overlay: passwd(5), group(5). */
#include "init.h"

#include <sys/uio.h>

enum { NAME, ID = 2, LONGEST = 4 << 20 };

/* Whether a line of the file, name:password:id:…, has this name or this id. `last` becomes its last character. */
static int is_taken(int fd, const char *name, const char *id, char *last)
{
    char block[4096];
    const char *wanted = name; /* the rest of it, or NULL: the field has another beginning */
    int number = NAME;         /* of the field */
    ssize_t n, left = LONGEST;

    while ((n = left > 0 ? SYS(read(fd, block, sizeof block)) : 0) > 0) {
        left -= n;
        *last = block[n - 1];
        for (ssize_t at = 0; at < n; at++) {
            char c = block[at];

            if (c != ':' && c != '\n') {
                wanted = wanted && c && *wanted == c ? wanted + 1 : NULL;
                continue;
            }
            if (wanted && *wanted == '\0')
                return true;
            number = c == '\n' ? NAME : number + 1;
            wanted = number == NAME ? name : number == ID ? id : NULL;
        }
    }
    return false;
}

/* Adds the line, unless the file has such a name or id. The file is read before it is opened for writing: that copies
 * it to the upper layer, whatever its size. An image without the file has no names. */
int op_account(const char *path, const char *name, const char *id, const char *line)
{
    char found_at[32], last = '\n';
    struct stat st;
    int taken;
    cleanup_close int found = open_inside(path, O_PATH, RESOLVE_NO_XDEV), fd = -1;
    struct iovec parts[] = {{"\n", 1}, {(void *)(uintptr_t)line, strlen(line)}, {"\n", 1}};

    if (found == -ENOENT)
        return 0;
    TRY(found);
    SYS(fstat(found, &st));
    if (!S_ISREG(st.st_mode) || st.st_size > LONGEST)
        return failed_with("open", S_ISREG(st.st_mode) ? EFBIG : EINVAL);
    snprintf(found_at, sizeof found_at, "self/fd/%d", found);
    fd = SYS(openat(self.proc_fd, found_at, O_RDONLY | O_CLOEXEC));
    taken = TRY(is_taken(fd, name, id, &last));
    if (taken)
        return 0;
    close_now(&fd);
    fd = SYS(openat(self.proc_fd, found_at, O_WRONLY | O_APPEND | O_CLOEXEC));
    SYS(writev(fd, parts + (last == '\n'), 3 - (last == '\n')));
    return 0;
}
