/* A netns holder: a process outside the container that ends when a network is no longer needed, and with it the program
 * of the host that serves the network (rootless/network/). It holds nothing of its caller's. */
#include "init.h"
#include "sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* <linux/ipv6.h> has it too, and clashes with the C library's headers. */
struct in6_ifreq {
    struct in6_addr address;
    uint32_t prefix_length;
    int index;
};

/* Strings: a network interface; its address; its gateway. Number: the length of the prefix. Without that interface
 * another program serves the network, whose own interface has its addresses. */
int op_address6(const struct op *op)
{
    struct in6_ifreq address = {.prefix_length = (uint32_t)op->n[ADDRESS6_PREFIX]};
    struct in6_rtmsg route = {.rtmsg_metric = 1024, .rtmsg_flags = RTF_UP | RTF_GATEWAY};
    cleanup_close int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return failed("socket");
    address.index = route.rtmsg_ifindex = (int)if_nametoindex(text(op, ADDRESS6_LINK));
    if (address.index == 0)
        return errno == ENODEV ? 0 : failed("if_nametoindex");
    if (inet_pton(AF_INET6, text(op, ADDRESS6_ADDRESS), &address.address) != 1 ||
        inet_pton(AF_INET6, text(op, ADDRESS6_GATEWAY), &route.rtmsg_gateway) != 1)
        return failed_with("inet_pton", EINVAL);
    if (ioctl(fd, SIOCSIFADDR, &address) < 0)
        return failed("ioctl(SIOCSIFADDR)");
    return ioctl(fd, SIOCADDRT, &route) < 0 ? failed("ioctl(SIOCADDRT)") : 0;
}

/* Returns as failed() does, or a descriptor. */
static int route_socket(unsigned groups)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = groups};
    cleanup_close int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (fd < 0)
        return failed("socket");
    if (groups && bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return failed("bind");
    return steal_fd(&fd);
}

/* A socket belongs to the network namespace that it was made in: the parent speaks of this one through it. */
int op_netlink(const struct op *op)
{
    cleanup_close int fd = route_socket(0);

    (void)op;
    if (fd < 0)
        return fd;
    return report_netlink(fd) < 0 ? failed("sendmsg") : 0;
}

/* A process that reads the caller's output to its end, or unmounts its directory, must not wait for this one. */
int let_go(void)
{
    if (sys_close_range(0, 2, 0) < 0)
        return failed("close_range");
    if (chdir("/") < 0)
        return failed("chdir");
    return self.proc_fd >= 0 && close(steal_fd(&self.proc_fd)) < 0 ? failed("close") : 0;
}

/* Until the process that was given is no more. */
int op_await_end(const struct op *op)
{
    struct pollfd process = {.fd = self.process_fd, .events = POLLIN};
    int result = let_go();

    (void)op;
    if (result < 0)
        return result;
    /* the launcher knows by this that the holder hides: a message would kill pasta */
    close(self.reply_fd);
    self.reply_fd = -1;
    while (poll(&process, 1, -1) < 0)
        if (errno != EINTR)
            return failed("poll");
    return 0;
}

/* Whether the namespace has a network interface whose name begins so: each has a line in /proc/net/dev. */
static bool has_interface(int devices, const char *prefix)
{
    static char list[1 << 16];
    size_t length = 0;
    ssize_t n = 0;

    if (lseek(devices, 0, SEEK_SET) < 0)
        return true; /* nobody knows: it stays */
    while (length < sizeof list - 1 && (n = read(devices, list + length, sizeof list - 1 - length)) > 0)
        length += (size_t)n;
    list[length] = '\0';
    for (const char *line = list; line; line = strchr(line, '\n')) {
        line += strspn(line, "\n ");
        if (strncmp(line, prefix, strlen(prefix)) == 0)
            return true;
    }
    return false;
}

/* Waits while there are network interfaces whose names begin with the first string, or while the parent lives, which is
 * about to make one. An interface goes with the last process of the namespace that its other end is in. The process
 * that makes one holds the lock of the file that the second string names: so this process either sees the interface, or
 * has ended before the interface is made. */
int op_await_links(const struct op *op)
{
    enum { LINKS, PARENT };
    cleanup_close int links = route_socket(RTMGRP_LINK), lock = -1, devices = -1;
    struct pollfd watched[] = {{.fd = links, .events = POLLIN}, {.fd = self.reply_fd, .events = POLLIN}};
    char message[8192];
    int result;

    if (links < 0)
        return links;
    lock = open(text(op, AWAIT_LINKS_LOCK), O_RDONLY | O_CLOEXEC);
    if (lock < 0)
        return failed("open");
    devices = openat(self.proc_fd, "self/net/dev", O_RDONLY | O_CLOEXEC);
    if (devices < 0)
        return failed("openat");
    result = let_go();
    if (result < 0)
        return result;
    for (;;) {
        while (watched[PARENT].fd >= 0 || has_interface(devices, text(op, AWAIT_LINKS_PREFIX))) {
            if (poll(watched, 2, -1) < 0 && errno != EINTR)
                return failed("poll");
            if (watched[PARENT].revents)
                watched[PARENT].fd = -1;
            if (watched[LINKS].revents)
                while (recv(links, message, sizeof message, MSG_DONTWAIT) > 0)
                    ;
        }
        while (flock(lock, LOCK_EX) < 0)
            if (errno != EINTR)
                return failed("flock");
        if (!has_interface(devices, text(op, AWAIT_LINKS_PREFIX))) {
            steal_fd(&lock); /* held until this process ends */
            return 0;
        }
        flock(lock, LOCK_UN);
    }
}
