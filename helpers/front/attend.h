/* The wait for a foreground container, and the relay of its terminal. */
#pragma once

#include "../init/sys.h"

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

int attend(int argc, char **argv, int shown);
/* Forwards signals to a child until it ends; returns its exit status, or 128 and the signal that ended it. */
int wait_for(pid_t pid, int process, int signals);
void note_status(int fd, unsigned status); /* and the time, for `rootless wait`; closes the file */

/* terminal.c */
enum { INPUT, OUTPUT, MASTER, ENDS };
ssize_t receive(int socket, void *bytes, size_t size, int *fd); /* with a descriptor, or -1 */
void terminal_begin(int master, const char *saved, unsigned typed);
bool terminal_is_elsewhere(void);  /* the caller's is another process's now */
bool terminal_receive(int socket); /* the container's, before its program runs */
void terminal_take_over(void);     /* the caller's, if there is one to relay */
bool terminal_resize(void);        /* whether there is a terminal */
void terminal_watch(struct pollfd ends[ENDS]);
void terminal_move(const struct pollfd ends[ENDS]);
void terminal_end(void);
