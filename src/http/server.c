/* The event thread: an epoll loop of our own around the library's, so that connections, deadlines
 * and wake-ups have one owner and need no locks.
 *
 *   epoll: the library's epoll descriptor (level-triggered)
 *          an eventfd that other threads write (hd_http__wake)
 *          every client socket, edge-triggered, for EPOLLRDHUP alone */
#include "http/http_impl.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"

/* A refused body is still read up to this size, so that the client gets to read the reply. */
enum { DISCARD_MAX = 64 << 20, SCAN_MS = 250, IDLE_MS = 1000, WAKES_PER_ROUND = 256 };

/* --- connections -------------------------------------------------------------------------------
 */

static bool is_loopback(const struct sockaddr *at)
{
    if (at->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)at)->sin_addr.s_addr) >> 24 == 127;
    if (at->sa_family != AF_INET6)
        return false;
    const struct in6_addr *six = &((const struct sockaddr_in6 *)at)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(six) || (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[12] == 127);
}

static struct hd_http_conn *conn_new(struct hd_http_server *server, struct MHD_Connection *of)
{
    struct hd_http_conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        return NULL;
    conn->server = server;
    conn->fd = MHD_get_connection_info(of, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(of, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    conn->loopback = info && info->client_addr && is_loopback(info->client_addr);
    conn->since = hd_clock_seconds();
    conn->first = true;
    conn->next = server->conns;
    if (conn->next)
        conn->next->prev = conn;
    server->conns = conn;
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = conn};
    if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, conn->fd, &event))
        hd_log(HD_LOG_WARN, "http", "watch: %s", strerror(errno));
    return conn;
}

static void conn_free(struct hd_http_conn *conn)
{
    epoll_ctl(conn->server->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
    if (conn->prev)
        conn->prev->next = conn->next;
    else
        conn->server->conns = conn->next;
    if (conn->next)
        conn->next->prev = conn->prev;
    free(conn);
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *context = conn_new(cls, connection);
    } else if (*context) {
        conn_free(*context);
        *context = NULL;
    }
}

static void *on_target(void *cls, const char *target, struct MHD_Connection *connection)
{
    struct hd_http_conn *conn =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    struct hd_http_request *request = conn ? hd_http__request_new(cls, target) : NULL;
    if (!request)
        return NULL;
    request->conn = conn;
    request->connection = connection;
    request->loopback = conn->loopback;
    conn->request = request;
    conn->wait = HD_HTTP_WAIT_HEADERS;
    conn->since = hd_clock_seconds();
    return request;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
    struct hd_http_server *server = cls;
    struct hd_http_request *request = *con_cls;
    *con_cls = NULL;
    if (!request)
        return;
    if (request->dispatched) {
        if (code != MHD_REQUEST_TERMINATED_COMPLETED_OK)
            hd_http__request_gone(request);
        atomic_fetch_sub(&server->n_active, 1);
    }
    if (server->options.done && request->entered && request->status) {
        struct hd_http_done done = {hd_http_request_pattern(request), request->method,
                                    request->status, hd_clock_seconds() - request->started};
        server->options.done(&done, server->options.ud);
    }
    request->conn->request = NULL;
    request->conn->wait = HD_HTTP_WAIT_REQUEST;
    request->conn->since = hd_clock_seconds();
    request->conn->first = false;
    pthread_mutex_lock(&request->mu);
    request->state = HD_HTTP_GONE;
    pthread_mutex_unlock(&request->mu);
    request->conn = NULL;
    request->connection = NULL;
    hd_http_request_unref(request);
}

/* --- a request's head ---------------------------------------------------------------------------
 */

struct framing {
    int n_length, n_encoding, n_host;
    const char *length, *encoding;
};

static enum MHD_Result count_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                    const char *value)
{
    struct framing *framing = cls;
    if (!strcasecmp(name, "Content-Length")) {
        framing->n_length++;
        framing->length = value;
    } else if (!strcasecmp(name, "Transfer-Encoding")) {
        framing->n_encoding++;
        framing->encoding = value;
    } else if (!strcasecmp(name, "Host")) {
        framing->n_host++;
    }
    return MHD_YES;
}

/* What two HTTP parsers might read differently is refused (RFC 9112, 6.1 and 6.3). */
static const char *framing_fault(const struct framing *framing)
{
    if (framing->n_length && framing->n_encoding)
        return "Content-Length and Transfer-Encoding together are not accepted";
    if (framing->n_length > 1 || framing->n_encoding > 1 || framing->n_host > 1)
        return "a header that may appear once appears several times";
    if (framing->encoding && strcasecmp(framing->encoding, "chunked"))
        return "the only accepted Transfer-Encoding is chunked";
    if (framing->length &&
        (!*framing->length || strspn(framing->length, "0123456789") != strlen(framing->length)))
        return "Content-Length is not a number";
    return NULL;
}

static bool replied(struct hd_http_request *request)
{
    pthread_mutex_lock(&request->mu);
    bool yes = request->state != HD_HTTP_OPEN;
    pthread_mutex_unlock(&request->mu);
    return yes;
}

static void reply_no_route(struct hd_http_request *request)
{
    int status = request->match.status;
    if (status == 405) {
        hd_http_set_header(request, "Allow", request->match.allow);
        hd_http__reply_error(request, status, "this address does not take that method", false);
    } else if (status == 404) {
        hd_http__reply_error(request, status, "there is nothing at this address", false);
    } else {
        hd_http__reply_error(request, status, "the address is not valid percent-encoded UTF-8",
                             false);
    }
}

static void too_large(struct hd_http_request *request)
{
    char message[96];
    snprintf(message, sizeof message, "the request body is larger than %zu bytes",
             request->server->options.body_max);
    hd_http__reply_error(request, 413, message, false);
}

static enum MHD_Result on_head(struct hd_http_request *request, const char *method)
{
    struct hd_http_server *server = request->server;
    const struct hd_http_options *options = &server->options;
    struct framing framing = {0};
    request->entered = true;
    request->complete = hd_clock_seconds();
    snprintf(request->method, sizeof request->method, "%s", method);
    MHD_get_connection_values(request->connection, MHD_HEADER_KIND, count_header, &framing);
    const char *fault = framing_fault(&framing);
    if (fault) {
        hd_http__reply_error(request, 400, fault, true);
        return hd_http__respond(request);
    }
    hd_http_route_match(&request->match, options->routes, options->n_route, method, request->path);
    unsigned long long length = framing.length ? strtoull(framing.length, NULL, 10) : 0;
    if (!request->match.route)
        reply_no_route(request);
    else if (options->before)
        options->before(request, options->ud);
    if (!replied(request) && length > options->body_max)
        too_large(request);
    request->conn->wait = length || framing.encoding ? HD_HTTP_WAIT_BODY : HD_HTTP_BUSY;
    request->conn->since = hd_clock_seconds();
    if (!replied(request))
        return MHD_YES;
    /* Refused before the body: at once where the client asked first or would send very much. */
    const char *expect = hd_http_request_header(request, "Expect");
    if ((expect && (length || framing.encoding)) || length > DISCARD_MAX) {
        request->close = true;
        return hd_http__respond(request);
    }
    request->discard = true;
    return MHD_YES;
}

static enum MHD_Result on_body(struct hd_http_request *request, const char *data, size_t len)
{
    request->received += len;
    request->complete = hd_clock_seconds();
    if (!request->discard && hd_buf_append(&request->body, data, len)) {
        request->discard = true;
        if (request->body.err == HD_ERR_LIMIT)
            too_large(request);
        else
            hd_http__reply_error(request, 503, "out of memory", false);
        hd_buf_dispose(&request->body);
    }
    if (request->discard)
        request->discarded += len;
    return request->discarded > DISCARD_MAX ? MHD_NO : MHD_YES;
}

static void dispatch(struct hd_http_request *request)
{
    request->dispatched = true;
    request->conn->wait = HD_HTTP_BUSY;
    atomic_fetch_add(&request->server->n_active, 1);
    request->match.route->handler(request, request->server->options.ud);
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *len, void **con_cls)
{
    struct hd_http_request *request = *con_cls;
    if (!request)
        return MHD_NO;
    if (!request->entered)
        return on_head(request, method);
    if (*len) {
        enum MHD_Result result = on_body(request, data, *len);
        *len = 0;
        return result;
    }
    if (request->queued)
        return MHD_YES;
    request->conn->wait = HD_HTTP_BUSY;
    if (!request->dispatched && !request->discard)
        dispatch(request);
    return hd_http__respond(request);
}

/* --- the loop -----------------------------------------------------------------------------------
 */

static void resume(struct hd_http_request *request)
{
    if (request->suspended && request->connection) {
        request->suspended = false;
        MHD_resume_connection(request->connection);
    }
}

static void cut_off(struct hd_http_request *request)
{
    hd_http__request_gone(request);
    if (request->conn)
        shutdown(request->conn->fd, SHUT_RDWR);
    resume(request);
}

static struct hd_http_request *next_wake(struct hd_http_server *server)
{
    pthread_mutex_lock(&server->wake_mu);
    struct hd_http_request *request = server->wake_head;
    if (request) {
        server->wake_head = request->wake_next;
        request->wake_queued = false;
    }
    pthread_mutex_unlock(&server->wake_mu);
    return request;
}

static void signal_thread(struct hd_http_server *server)
{
    const uint64_t one = 1;
    if (write(server->event_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        hd_log(HD_LOG_WARN, "http", "eventfd: %s", strerror(errno));
}

static void on_wakes(struct hd_http_server *server)
{
    uint64_t count;
    if (read(server->event_fd, &count, sizeof count) < 0 && errno != EAGAIN)
        hd_log(HD_LOG_WARN, "http", "eventfd: %s", strerror(errno));
    for (int i = 0; i < WAKES_PER_ROUND; i++) {
        struct hd_http_request *request = next_wake(server);
        if (!request)
            return;
        pthread_mutex_lock(&request->mu);
        bool stuck = request->stuck && request->state != HD_HTTP_GONE;
        pthread_mutex_unlock(&request->mu);
        if (stuck)
            cut_off(request);
        resume(request);
        hd_http_request_unref(request);
    }
    signal_thread(server); /* the rest after the sockets had their turn */
}

static void on_peer_closed(struct hd_http_conn *conn)
{
    conn->peer_closed = true;
    struct hd_http_request *request = conn->request;
    if (request && request->suspended) {
        hd_http__request_gone(request);
        resume(request);
    }
}

static bool overdue(const struct hd_http_conn *conn, const struct hd_http_options *options,
                    double now)
{
    double waited = now - conn->since;
    switch (conn->wait) {
    case HD_HTTP_WAIT_REQUEST:
        return waited > (conn->first ? options->header_timeout_s : options->idle_timeout_s);
    case HD_HTTP_WAIT_HEADERS:
        return waited > options->header_timeout_s;
    case HD_HTTP_WAIT_BODY:
        return waited > options->header_timeout_s +
                            (double)conn->request->received / (double)options->body_rate_min;
    default:
        return false;
    }
}

static void keep_alive(struct hd_http_request *request, double silence, double now)
{
    static const char comment[] = ": ping\n\n";
    pthread_mutex_lock(&request->mu);
    bool quiet = request->state == HD_HTTP_STREAM && now - request->last_write > silence &&
                 !strncmp(request->content_type, "text/event-stream", 17); /* knows comments */
    pthread_mutex_unlock(&request->mu);
    if (quiet)
        hd_http_stream_write(request, comment, sizeof comment - 1);
}

static void scan(struct hd_http_server *server, double now)
{
    server->last_scan = now;
    for (struct hd_http_conn *conn = server->conns; conn; conn = conn->next) {
        if (overdue(conn, &server->options, now)) {
            shutdown(conn->fd, SHUT_RDWR); /* the library sees the end and closes */
            conn->since = now;
        }
        if (conn->request && conn->request->queued && server->options.stream_keepalive_s > 0)
            keep_alive(conn->request, server->options.stream_keepalive_s, now);
    }
}

static void finish(struct hd_http_server *server)
{
    MHD_quiesce_daemon(server->daemon);
    close(server->listen_fd);
    for (struct hd_http_conn *conn = server->conns; conn; conn = conn->next)
        if (conn->request) {
            hd_http__request_gone(conn->request);
            resume(conn->request);
        }
    MHD_run(server->daemon);
    MHD_stop_daemon(server->daemon);
    server->daemon = NULL;
    pthread_mutex_lock(&server->wake_mu);
    server->closed = true;
    struct hd_http_request *list = server->wake_head;
    server->wake_head = NULL;
    pthread_mutex_unlock(&server->wake_mu);
    while (list) {
        struct hd_http_request *next = list->wake_next;
        hd_http_request_unref(list);
        list = next;
    }
}

static void *event_thread(void *arg)
{
    struct hd_http_server *server = arg;
    pthread_setname_np(pthread_self(), "hd-http");
    hd_thread_be_prompt();
    while (!atomic_load(&server->stop)) {
        struct epoll_event events[64];
        MHD_UNSIGNED_LONG_LONG due;
        int wait_ms = server->conns ? SCAN_MS : IDLE_MS;
        if (MHD_get_timeout(server->daemon, &due) == MHD_YES && due < (unsigned)wait_ms)
            wait_ms = (int)due;
        int n = epoll_wait(server->epoll_fd, events, 64, wait_ms);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr == &server->event_fd)
                on_wakes(server);
            else if (events[i].data.ptr != server &&
                     events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                on_peer_closed(events[i].data.ptr);
        }
        MHD_run(server->daemon);
        double now = hd_clock_seconds();
        if (now - server->last_scan > SCAN_MS / 1000.0)
            scan(server, now);
    }
    finish(server);
    return NULL;
}

/* --- start and end ------------------------------------------------------------------------------
 */

static size_t keep_raw(void *cls, struct MHD_Connection *connection, char *s)
{
    return strlen(s); /* the router decodes, after splitting */
}

static void log_library(void *cls, const char *fmt, va_list ap)
{
    char line[256];
    vsnprintf(line, sizeof line, fmt, ap);
    line[strcspn(line, "\r\n")] = 0;
    hd_log(HD_LOG_DEBUG, "http", "%s", line);
}

static enum hd_err start_daemon(struct hd_http_server *server, struct hd_errmsg *msg)
{
    const struct hd_http_options *options = &server->options;
    server->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_access,
        server, MHD_OPTION_EXTERNAL_LOGGER, log_library, NULL, MHD_OPTION_LISTEN_SOCKET,
        server->listen_fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)options->connection_max,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, options->header_max, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)options->idle_timeout_s, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, server, MHD_OPTION_URI_LOG_CALLBACK, on_target,
        server, MHD_OPTION_UNESCAPE_CALLBACK, keep_raw, NULL, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_END);
    if (!server->daemon)
        return hd_fail(msg, HD_ERR_IO, "http: the server library did not start");
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    struct epoll_event library = {.events = EPOLLIN, .data.ptr = server};
    struct epoll_event wake = {.events = EPOLLIN, .data.ptr = &server->event_fd};
    if (!info || epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, info->epoll_fd, &library) ||
        epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, server->event_fd, &wake))
        return hd_fail(msg, HD_ERR_IO, "http: epoll: %s", strerror(errno));
    return HD_OK;
}

static enum hd_err start_thread(struct hd_http_server *server, struct hd_errmsg *msg)
{
    sigset_t all, before;
    sigfillset(&all); /* signals are the main thread's business */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&server->thread, NULL, event_thread, server);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc)
        return hd_fail(msg, HD_ERR_UNAVAILABLE, "http: no thread: %s", strerror(rc));
    server->thread_started = true;
    return HD_OK;
}

enum hd_err hd_http_server_new(struct hd_http_server **out, const struct hd_http_options *options,
                               struct hd_errmsg *msg)
{
    struct hd_http_server *server = calloc(1, sizeof *server);
    enum hd_err err = HD_ERR_NOMEM;
    *out = NULL;
    if (!server)
        return hd_fail(msg, HD_ERR_NOMEM, "http: out of memory");
    server->options = *options;
    server->listen_fd = -1;
    atomic_init(&server->refs, 1);
    pthread_mutex_init(&server->wake_mu, NULL);
    server->port = options->port;
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    server->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->epoll_fd < 0 || server->event_fd < 0) {
        err = hd_fail(msg, HD_ERR_IO, "http: %s", strerror(errno));
        goto out;
    }
    err = hd_http__listen(&server->listen_fd, &server->port, options->host, msg);
    if (!err)
        err = start_daemon(server, msg);
    if (!err)
        err = start_thread(server, msg);
    if (!err)
        *out = server;
out:
    if (err) {
        if (server->daemon)
            MHD_stop_daemon(server->daemon);
        else if (server->listen_fd >= 0)
            close(server->listen_fd);
        hd_http__server_unref(server);
    }
    return err;
}

int hd_http_server_port(const struct hd_http_server *server)
{
    return server->port;
}

int hd_http_server_active(const struct hd_http_server *server)
{
    return atomic_load(&((struct hd_http_server *)server)->n_active);
}

void hd_http__server_unref(struct hd_http_server *server)
{
    if (atomic_fetch_sub(&server->refs, 1) != 1)
        return;
    if (server->epoll_fd >= 0)
        close(server->epoll_fd);
    if (server->event_fd >= 0)
        close(server->event_fd);
    pthread_mutex_destroy(&server->wake_mu);
    free(server);
}

void hd_http_server_free(struct hd_http_server *server)
{
    if (!server)
        return;
    atomic_store(&server->stop, true);
    signal_thread(server);
    pthread_join(server->thread, NULL);
    hd_http__server_unref(server);
}
