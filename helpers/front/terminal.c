/* Moves bytes between the caller's terminal, or its standard streams, and the container's terminal, as the class Relay
 * in rootless/container/terminal/relay.py, from which it takes over: the reasons are there. */
#include "attend.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>

enum { CHUNK = 1 << 14, SPARE = 8 /* for end-of-file keys */, LATER = 100 /* milliseconds */ };
enum { INPUT_OPEN = 1, LINE_ENDED = 2, END_SAID_TO_LINE = 4 }; /* attend.py */

struct buffer {
    size_t begin, end;
    char bytes[CHUNK + SPARE];
};

static struct {
    int master;
    bool input_open;
    bool line_ended; /* the last byte of the input was a newline */
    bool end_said_to_line;
    size_t saved_size; /* of the settings of the caller's terminal; 0 without one */
    char saved[128];
    struct buffer to_container, to_caller;
} terminal = {.master = -1};

void terminal_begin(int master, const char *saved, unsigned typed)
{
    terminal.master = master;
    terminal.input_open = typed & INPUT_OPEN;
    terminal.line_ended = typed & LINE_ENDED;
    terminal.end_said_to_line = typed & END_SAID_TO_LINE;
    for (; saved[0] && saved[1] && terminal.saved_size < sizeof terminal.saved; saved += 2) {
        const char digits[] = {saved[0], saved[1], '\0'};

        terminal.saved[terminal.saved_size++] = (char)strtoul(digits, NULL, 16);
    }
}

/* SIGTTIN and SIGTTOU are blocked: they would not keep this process from using a terminal that is not its own now. */
bool terminal_is_elsewhere(void)
{
    pid_t foreground = tcgetpgrp(STDIN_FILENO);

    return foreground > 0 && foreground != getpgrp();
}

ssize_t receive(int socket, void *bytes, size_t size, int *fd)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    struct msghdr message = {.msg_iov = &(struct iovec){.iov_base = bytes, .iov_len = size},
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *head = length < 0 ? NULL : CMSG_FIRSTHDR(&message);

    *fd = -1;
    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len == CMSG_LEN(sizeof *fd))
        memcpy(fd, CMSG_DATA(head), sizeof *fd);
    return length;
}

bool terminal_receive(int socket)
{
    struct termios mode;
    char byte;

    receive(socket, &byte, 1, &terminal.master);
    terminal.input_open = terminal.line_ended = true;
    if (!terminal_resize() || isatty(STDOUT_FILENO))
        return terminal.master >= 0;
    if (tcgetattr(terminal.master, &mode) < 0)
        return false;
    mode.c_oflag &= (tcflag_t)~ONLCR; /* line ends in a file or a pipe stay as they are */
    return tcsetattr(terminal.master, TCSANOW, &mode) == 0;
}

void terminal_take_over(void)
{
    struct termios mode;

    if (terminal.master < 0)
        return;
    /* held open, it does not hang up when a program closes it to open it again */
    (void)!ioctl(terminal.master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    fcntl(terminal.master, F_SETFL, O_RDWR | O_NONBLOCK);
    /* if the job was stopped meanwhile, it is the shell's again */
    if (!terminal_is_elsewhere() && ioctl(STDIN_FILENO, TCGETS, terminal.saved) == 0) {
        terminal.saved_size = sizeof mode;
        tcgetattr(STDIN_FILENO, &mode);
        cfmakeraw(&mode);
        tcsetattr(STDIN_FILENO, TCSADRAIN, &mode);
    }
    terminal_resize();
}

bool terminal_resize(void)
{
    struct winsize size;

    if (terminal.master >= 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0)
        ioctl(terminal.master, TIOCSWINSZ, &size);
    return terminal.master >= 0;
}

static bool holds(const struct buffer *buffer) { return buffer->begin < buffer->end; }

/* Reads into an empty buffer; returns false at the end, which for a terminal is EIO. */
static bool fill(struct buffer *buffer, int fd)
{
    ssize_t length = read(fd, buffer->bytes, CHUNK);

    buffer->begin = 0;
    buffer->end = length > 0 ? (size_t)length : 0;
    if (length < 0 && errno == EIO && fd == STDIN_FILENO && terminal_is_elsewhere()) {
        poll(NULL, 0, LATER); /* the input is another process's, which may not have read it yet */
        return true;
    }
    return length > 0 || (length < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Writes at most `most` bytes; those for a closed reader count as written. */
static void empty(struct buffer *buffer, int fd, size_t most)
{
    size_t length = buffer->end - buffer->begin;
    ssize_t written = write(fd, buffer->bytes + buffer->begin, length < most ? length : most);

    if (written >= 0)
        buffer->begin += (size_t)written;
    else if (errno != EAGAIN && errno != EINTR)
        buffer->begin = buffer->end;
}

static void say_end_of_input(void)
{
    struct termios mode;
    bool is_line;

    if (tcgetattr(terminal.master, &mode) < 0)
        return;
    is_line = mode.c_lflag & ICANON;
    if (is_line && terminal.end_said_to_line)
        return;
    if (!holds(&terminal.to_container))
        terminal.to_container.begin = terminal.to_container.end = 0;
    for (int keys = is_line && !terminal.line_ended ? 2 : 1; keys; keys--)
        if (terminal.to_container.end < sizeof terminal.to_container.bytes)
            terminal.to_container.bytes[terminal.to_container.end++] = (char)mode.c_cc[VEOF];
    terminal.end_said_to_line = is_line;
}

/* Which ends can be acted on now. */
void terminal_watch(struct pollfd ends[ENDS])
{
    bool is_full = holds(&terminal.to_container), is_read = holds(&terminal.to_caller);

    for (int end = 0; end < ENDS; end++)
        ends[end] = (struct pollfd){.fd = -1};
    if (terminal.master < 0)
        return;
    if (terminal.input_open && !is_full)
        ends[INPUT] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    if (is_read)
        ends[OUTPUT] = (struct pollfd){.fd = STDOUT_FILENO, .events = POLLOUT};
    if (is_full || !is_read)
        ends[MASTER] =
            (struct pollfd){.fd = terminal.master, .events = (short)((is_read ? 0 : POLLIN) | (is_full ? POLLOUT : 0))};
}

/* Moves the bytes that can be moved without waiting. */
void terminal_move(const struct pollfd ends[ENDS])
{
    if (ends[INPUT].revents) {
        terminal.input_open = fill(&terminal.to_container, STDIN_FILENO);
        if (holds(&terminal.to_container))
            terminal.line_ended = terminal.to_container.bytes[terminal.to_container.end - 1] == '\n';
        else if (!terminal.input_open)
            say_end_of_input();
    }
    if (holds(&terminal.to_container) && ends[MASTER].revents & ~POLLIN)
        empty(&terminal.to_container, terminal.master, CHUNK);
    if (ends[OUTPUT].revents) {
        /* a pipe that can be written to takes so much without waiting, pipe(7) */
        empty(&terminal.to_caller, STDOUT_FILENO, PIPE_BUF);
    } else if (ends[MASTER].revents & ~POLLOUT) {
        fill(&terminal.to_caller, terminal.master);
        if (terminal.end_said_to_line)
            say_end_of_input();
    }
}

/* Passes on what the container wrote before it ended, and restores the caller's terminal. */
void terminal_end(void)
{
    if (terminal.master < 0)
        return;
    while (holds(&terminal.to_caller) || (fill(&terminal.to_caller, terminal.master) && holds(&terminal.to_caller))) {
        poll(&(struct pollfd){.fd = STDOUT_FILENO, .events = POLLOUT}, 1, -1);
        empty(&terminal.to_caller, STDOUT_FILENO, PIPE_BUF);
    }
    if (terminal.saved_size && !terminal_is_elsewhere())
        ioctl(STDIN_FILENO, TCSETSW, terminal.saved);
}
