/* The listening socket. */
#include "http/http_impl.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int bound_port(int fd)
{
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    if (getsockname(fd, (struct sockaddr *)&at, &len))
        return -1;
    if (at.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)&at)->sin6_port);
    return ntohs(((struct sockaddr_in *)&at)->sin_port);
}

static int try_address(const struct addrinfo *at)
{
    int one = 1;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, at->ai_protocol);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (at->ai_family == AF_INET6) {
        int only = 0; /* "::" takes IPv4 clients too */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
    }
    if (!bind(fd, at->ai_addr, at->ai_addrlen) && !listen(fd, 511))
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

enum hd_err hd_http__listen(int *fd, int *port, const char *host, struct hd_errmsg *msg)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list;
    char service[16];
    snprintf(service, sizeof service, "%d", *port);
    int rc = getaddrinfo(host, service, &hints, &list);
    if (rc)
        return hd_fail(msg, HD_ERR_INVALID, "--host %s: %s", host, gai_strerror(rc));
    *fd = -1;
    for (const struct addrinfo *at = list; at && *fd < 0; at = at->ai_next)
        *fd = try_address(at);
    int saved = errno;
    freeaddrinfo(list);
    if (*fd < 0)
        return hd_fail(msg, saved == EADDRINUSE ? HD_ERR_BUSY : HD_ERR_IO,
                       "%s port %d: cannot listen: %s%s", host, *port, strerror(saved),
                       saved == EADDRINUSE ? " (another program has the port; choose one with "
                                             "--port, 0 takes any free one)"
                                           : "");
    *port = bound_port(*fd);
    return HD_OK;
}
