/* One container that the front door runs from a cached Plan. */
#pragma once

#include "front.h"
#include "entry.h"

#include <signal.h>

enum { NAMESPACES = 10, PARTS = RECORD_STRINGS };

struct run {
    const struct plan *entry;
    struct container container;
    const char *root;
    char cgroup[PATH_MAX], id[NAME_MAX + 1];
    char **command; /* of `exec`; NULL for `run` */
    int cgroup_fd, joined, start, report, reply, signals;
    int console, terminal; /* the executor's end of the socket for the terminal, and this process's */
    pid_t first, process, programs[2];
    char answer;
    bool is_said;        /* the warnings */
    bool is_left;        /* the container goes on alone */
    struct stat written; /* state.json */
    unsigned long long start_time, namespaces[NAMESPACES];
    char time[128], keyring[17], token[9];
    uint32_t undo_size, parts, lengths[PARTS];
    char status[1 << 16];
    size_t status_size;
};

extern sigset_t before;    /* the signals that the caller has blocked */
extern sigset_t ignored;   /* and ignores */
extern sigset_t forwarded; /* those that are the program's, once it has been started */

/* The steps, by their operations; false: Python has to do it. */
bool enter(struct run *run, const struct op *step);
bool check(struct run *run, const struct op *step);
bool open_console(struct run *run, const struct op *step);
bool spawn(struct run *run, const struct op *step);
bool relay_terminal(struct run *run, const struct op *step);
bool write_map(struct run *run, const struct op *step);
bool begin_map(struct run *run, const struct op *step);
bool await_maps(struct run *run, const struct op *step);
bool await_executor(struct run *run, const struct op *step);
bool start_program(struct run *run, const struct op *step);

void end_processes(struct run *run);
bool write_file(int directory, const char *name, int flags, const char *text, size_t size);
