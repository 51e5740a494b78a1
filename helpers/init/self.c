/* The state that all files share, and which descriptors belong to it. */
#include "init.h"

struct init self = {
    .root_fd = -1,
    .id_map_fd = -1,
    .hook_output = {-1, -1},
    .notify_fd = -1,
    .wake_fd = -1,
    .stage_fd = -1,
    .files_uid = -1,
};

int close_all_but(const int *ours, int count)
{
    unsigned nearest;

    for (unsigned next = 3 + (unsigned)self.keep;; next = nearest + 1) {
        nearest = ~0U;
        for (int i = 0; i < count; i++)
            if (ours[i] >= 0 && (unsigned)ours[i] >= next && (unsigned)ours[i] < nearest)
                nearest = (unsigned)ours[i];
        if (nearest > next)
            SYSCALL(close_range, next, nearest - 1, 0);
        if (nearest == ~0U)
            return 0;
        SYSCALL(close_range, nearest, nearest, CLOSE_RANGE_CLOEXEC);
    }
}
