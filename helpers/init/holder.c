/* A netns holder: a process outside the container that ends when a network is no longer needed, and with it the program
 * of the host that serves the network (rootless/network/). It holds nothing of its caller's. */
#include "init.h"

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* <linux/ipv6.h> has it too, and clashes with the C library's headers. */
struct in6_ifreq {
    struct in6_addr address;
    uint32_t prefix_length;
    int index;
};

/* Without that interface another program serves the network, whose own interface has its addresses. */
int op_address6(unsigned prefix, const char *interface, const char *address, const char *gateway)
{
    struct in6_ifreq request = {.prefix_length = prefix, .index = (int)if_nametoindex(interface)};
    struct in6_rtmsg route = {
        .rtmsg_metric = 1024, .rtmsg_flags = RTF_UP | RTF_GATEWAY, .rtmsg_ifindex = request.index};
    cleanup_close int fd = -1;

    if (request.index == 0)
        return errno == ENODEV ? 0 : failed("if_nametoindex");
    if (inet_pton(AF_INET6, address, &request.address) != 1 || inet_pton(AF_INET6, gateway, &route.rtmsg_gateway) != 1)
        return failed_with("inet_pton", EINVAL);
    fd = SYS(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    SYS_AS("ioctl(SIOCSIFADDR)", ioctl(fd, SIOCSIFADDR, &request));
    return SYS_AS("ioctl(SIOCADDRT)", ioctl(fd, SIOCADDRT, &route));
}

/* A socket belongs to the network namespace that it was made in: the parent speaks of this one through it. */
int op_netlink(void)
{
    cleanup_close int fd = SYS(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));

    return report_fds(MESSAGE_NETLINK, 0, fd, -1);
}

/* A process that reads the caller's output to its end, or unmounts its directory, must not wait for this one. */
int let_go(void)
{
    SYSCALL(close_range, 0, 2, 0);
    SYS(chdir("/"));
    close_now(&self.proc_fd);
    return 0;
}

/* Until the process that was given is no more. */
int op_await_end(void)
{
    struct pollfd process = {.fd = self.process_fd, .events = POLLIN};

    TRY(let_go());
    close_now(&self.reply_fd); /* the launcher knows by this that the holder hides: a message would kill pasta */
    while (poll(&process, 1, -1) < 0)
        if (errno != EINTR)
            return failed("poll");
    return 0;
}

/* Whether the namespace has a network interface whose name begins so. */
static bool has_interface(const char *prefix)
{
    struct if_nameindex *all = if_nameindex();
    bool found = !all; /* nobody knows: it stays */

    for (const struct if_nameindex *each = all; each && each->if_index; each++)
        found |= strncmp(each->if_name, prefix, strlen(prefix)) == 0;
    if_freenameindex(all);
    return found;
}

/* Waits while there are network interfaces whose names begin so, or while the parent lives, which is about to make one.
 * An interface goes with the last process of the namespace that its other end is in. The process that makes one holds
 * the lock of the file: so this process either sees the interface, or has ended before the interface is made. */
int op_await_links(const char *prefix, const char *path)
{
    enum { LINKS, PARENT };
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    cleanup_close int links = SYS(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    cleanup_close int lock = SYS(open(path, O_RDONLY | O_CLOEXEC));
    struct pollfd watched[] = {{.fd = links, .events = POLLIN}, {.fd = self.reply_fd, .events = POLLIN}};
    char message[8192];

    SYS(bind(links, (struct sockaddr *)&address, sizeof address));
    TRY(let_go());
    for (;;) {
        while (watched[PARENT].fd >= 0 || has_interface(prefix)) {
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
        if (!has_interface(prefix)) {
            steal_fd(&lock); /* held until this process ends */
            return 0;
        }
        flock(lock, LOCK_UN);
    }
}
