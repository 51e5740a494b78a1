/* One container that the front door runs from a cached Plan. */
#pragma once

#include "front.h"
#include "entry.h"

#include <signal.h>

enum { NAMESPACES = 10, PARTS = RECORD_STRINGS };

struct executor {
    int report, reply;
    pid_t first, process; /* its first stage, and the process that this makes */
    char answer;
};

struct run {
    const struct plan *entry;
    struct container container;
    const char *root;
    char cgroup[PATH_MAX], id[NAME_MAX + 1];
    char **command; /* of `exec`; NULL for `run` */
    int cgroup_fd, joined, start, signals;
    int console, terminal;        /* the executor's end of the socket for the terminal, and this process's */
    int input, exit;              /* the caller's standard input; the file for the exit status */
    int program, null;            /* the copy of the executor; /dev/null, above what is reserved */
    int connection, ready;        /* of the image: from the executor, and the pipe of its server */
    struct executor main, server; /* the container's or that of `exec`, and the image's */
    pid_t programs[2];
    bool is_said;        /* the warnings */
    bool is_left;        /* the container goes on alone */
    struct stat written; /* state.json */
    unsigned long long start_time, server_start_time, namespaces[NAMESPACES];
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
bool begin_image(struct run *run, const struct op *step);
bool await_image(struct run *run, const struct op *step);
bool start_program(struct run *run, const struct op *step);

void end_processes(struct run *run);
void end_server(struct run *run); /* of the image, which usually ends with the container */
bool note(struct run *run, const struct op *step, int which);
bool write_file(int directory, const char *name, int flags, const char *text, size_t size);
