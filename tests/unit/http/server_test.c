/* The server over real loopback sockets: framing, limits, deadlines, streams, disconnects. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "http/http.h"

enum { ECHO = 1, LATER, STREAM, FLOOD, HANG };

static atomic_int n_gone, n_freed, last_done;
static atomic_int flood_result;

static void count_gone(void *object)
{
    atomic_fetch_add((atomic_int *)object, 1);
}

static void count_freed(void *object)
{
    atomic_fetch_add(&n_freed, 1);
}

static void *answer_later(void *arg)
{
    struct hd_http_request *request = arg;
    usleep(50000);
    hd_http_reply(request, 200, "text/plain", "later", 5);
    hd_http_reply(request, 500, "text/plain", "twice", 5); /* ignored */
    hd_http_request_unref(request);
    return NULL;
}

static void *stream_ten(void *arg)
{
    struct hd_http_request *request = arg;
    hd_http_stream_begin(request, 200, "text/event-stream");
    for (int i = 0; i < 10; i++) {
        char line[32];
        int n = snprintf(line, sizeof line, "data: %d\n\n", i);
        hd_http_stream_write(request, line, (size_t)n);
        usleep(5000);
    }
    hd_http_stream_end(request);
    hd_http_request_unref(request);
    return NULL;
}

/* Writes without pause until it is told to stop, as a scheduler does for a client that sleeps. */
static void *flood(void *arg)
{
    struct hd_http_request *request = arg;
    static char block[4096];
    enum hd_err err = HD_OK;
    hd_http_stream_begin(request, 200, "text/event-stream");
    for (int i = 0; i < 20000 && !err; i++) {
        err = hd_http_stream_write(request, block, sizeof block);
        usleep(200);
    }
    atomic_store(&flood_result, err);
    hd_http_stream_end(request);
    hd_http_request_unref(request);
    return NULL;
}

static void in_thread(struct hd_http_request *request, void *(*fn)(void *))
{
    pthread_t thread;
    pthread_create(&thread, NULL, fn, hd_http_request_ref(request));
    pthread_detach(thread);
}

static void handle(struct hd_http_request *request, void *ud)
{
    size_t len;
    const char *body = hd_http_request_body(request, &len);
    hd_http_request_attach(request, &n_gone, count_gone, count_freed);
    switch (hd_http_request_tag(request)) {
    case ECHO:
        hd_http_set_header(request, "X-Len", "yes");
        hd_http_reply(request, 200, "text/plain", body, len);
        break;
    case LATER:
        in_thread(request, answer_later);
        break;
    case STREAM:
        in_thread(request, stream_ten);
        break;
    case FLOOD:
        in_thread(request, flood);
        break;
    case HANG: /* never answered: only the client's leaving ends it */
        break;
    }
}

static void before(struct hd_http_request *request, void *ud)
{
    if (hd_http_request_header(request, "X-Refuse"))
        hd_http_reply(request, 403, "text/plain", "refused", 7);
}

static void error_body(struct hd_buf *out, const char *path, int status, const char *message,
                       void *ud)
{
    hd_buf_printf(out, "{\"error\":{\"message\":\"%s\"}}", message);
}

static void done(const struct hd_http_done *info, void *ud)
{
    atomic_store(&last_done, info->status);
}

static const struct hd_http_route routes[] = {
    {"POST", "/echo", handle, ECHO},  {"GET", "/echo", handle, ECHO},
    {"GET", "/later", handle, LATER}, {"GET", "/stream", handle, STREAM},
    {"GET", "/flood", handle, FLOOD}, {"GET", "/hang", handle, HANG},
};

static struct hd_http_server *server;

static int setup(void **state)
{
    struct hd_http_options options = HD_HTTP_OPTIONS_DEFAULT;
    struct hd_errmsg msg;
    signal(SIGPIPE, SIG_IGN);
    options.routes = routes;
    options.n_route = sizeof routes / sizeof *routes;
    options.body_max = 100000;
    options.header_max = 16384;
    options.header_timeout_s = 0.6;
    options.stream_max = 65536;
    options.stream_keepalive_s = 0.1;
    options.before = before;
    options.error_body = error_body;
    options.done = done;
    return hd_http_server_new(&server, &options, &msg) != HD_OK;
}

static int teardown(void **state)
{
    hd_http_server_free(server);
    return 0;
}

static int dial(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)hd_http_server_port(server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

static void send_text(int fd, const char *s)
{
    size_t n = strlen(s);
    while (n) {
        ssize_t k = send(fd, s, n, MSG_NOSIGNAL);
        if (k <= 0)
            return;
        s += k;
        n -= (size_t)k;
    }
}

/* Reads to the end, or until `until` appears; gives up after three seconds. */
static const char *receive(int fd, const char *until)
{
    static char got[400000];
    size_t n = 0;
    double end = hd_clock_seconds() + 3;
    got[0] = 0;
    while (hd_clock_seconds() < end && n + 1 < sizeof got) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 100) == 1) {
            ssize_t k = recv(fd, got + n, sizeof got - 1 - n, 0);
            if (k <= 0)
                break;
            n += (size_t)k;
            got[n] = 0;
        }
        if (until && strstr(got, until))
            break;
    }
    return got;
}

static const char *ask(const char *text, const char *until)
{
    int fd = dial();
    send_text(fd, text);
    const char *got = receive(fd, until);
    close(fd);
    return got;
}

static void assert_status(const char *got, int status)
{
    char want[32];
    snprintf(want, sizeof want, "HTTP/1.1 %d ", status);
    if (strncmp(got, want, strlen(want)))
        fail_msg("wanted %d, got %.120s", status, got);
}

static void wait_for(atomic_int *counter, int at_least)
{
    for (int i = 0; i < 500 && atomic_load(counter) < at_least; i++)
        usleep(20000);
    assert_true(atomic_load(counter) >= at_least);
}

static void test_answers(void **state)
{
    const char *got =
        ask("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "hello");
    assert_status(got, 200);
    assert_non_null(strstr(got, "X-Len: yes"));
    got = ask("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
              "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
              "hello");
    assert_status(got, 200);
    assert_status(ask("GET /later HTTP/1.1\r\nHost: x\r\n\r\n", "later"), 200);
    got = ask("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", "}}");
    assert_status(got, 404);
    assert_non_null(strstr(got, "{\"error\""));
    got = ask("DELETE /echo HTTP/1.1\r\nHost: x\r\n\r\n", "}}");
    assert_status(got, 405);
    assert_non_null(strstr(got, "Allow: POST, GET"));
}

static void test_keeps_connections(void **state)
{
    int fd = dial();
    for (int i = 0; i < 3; i++) {
        send_text(fd, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
        assert_status(receive(fd, "abc"), 200);
        send_text(fd, "GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_status(receive(fd, "later"), 200);
    }
    close(fd);
}

static void test_ambiguous_framing(void **state)
{
    static const char *const bad[] = {
        ("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: "
         "chunked\r\n\r\n0\r\n\r\n"),
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nHost: y\r\nContent-Length: 0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\nabc",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        "GET /echo HTTP/1.1\r\n\r\n",
        "GET /echo\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *got = ask(bad[i], NULL); /* reads to the end: the connection is closed */
        if (*got && strncmp(got, "HTTP/1.1 400", 12) && strncmp(got, "HTTP/1.1 413", 12) &&
            strncmp(got, "HTTP/1.0 400", 12))
            fail_msg("case %zu: %.80s", i, got);
    }
    assert_status(ask("GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\n"), 200);
}

static void test_limits(void **state)
{
    char *big = malloc(300000), *p = big;
    p += sprintf(p, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n");
    memset(p, 'a', 200000);
    p[200000] = 0;
    assert_status(ask(big, "}}"), 413);
    p = big + sprintf(big, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 15; i++) {
        p += sprintf(p, "2710\r\n");
        memset(p, 'b', 10000);
        p += 10000;
        p += sprintf(p, "\r\n");
    }
    sprintf(p, "0\r\n\r\n");
    assert_status(ask(big, "}}"), 413);
    assert_status(ask("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
                      "Content-Length: 900000\r\n\r\n",
                      NULL),
                  413);
    assert_status(
        ask("POST /echo HTTP/1.1\r\nHost: x\r\nX-Refuse: 1\r\nContent-Length: 3\r\n\r\nabc",
            "refused"),
        403);
    p = big + sprintf(big, "GET /echo HTTP/1.1\r\nHost: x\r\nX-Long: ");
    memset(p, 'c', 40000);
    strcpy(p + 40000, "\r\n\r\n");
    const char *got = ask(big, NULL);
    assert_true(!strncmp(got, "HTTP/1.1 431", 12) || !*got);
    free(big);
}

static void test_deadlines(void **state)
{
    int head = dial(), body = dial(), silent = dial();
    double began = hd_clock_seconds();
    send_text(head, "GET /echo HTTP/1.1\r\nHost:");
    send_text(body, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nabc");
    receive(head, NULL);
    receive(body, NULL);
    receive(silent, NULL);
    double took = hd_clock_seconds() - began;
    assert_true(took > 0.5 && took < 2);
    close(head);
    close(body);
    close(silent);
}

static void test_stream(void **state)
{
    const char *got = ask("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n0\r\n\r\n");
    assert_status(got, 200);
    assert_non_null(strstr(got, "data: 0\n\n"));
    assert_non_null(strstr(got, "data: 9\n\n"));
}

static void test_disconnect_is_noticed(void **state)
{
    int before_gone = atomic_load(&n_gone), before_freed = atomic_load(&n_freed);
    int fd = dial();
    send_text(fd, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n");
    usleep(100000);
    double began = hd_clock_seconds();
    close(fd);
    wait_for(&n_gone, before_gone + 1);
    assert_true(hd_clock_seconds() - began < 1);
    wait_for(&n_freed, before_freed + 1);
    assert_int_equal(atomic_load(&last_done), 499);
    fd = dial(); /* half-close counts as leaving */
    send_text(fd, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown(fd, SHUT_WR);
    wait_for(&n_gone, before_gone + 2);
    close(fd);
}

static void test_sleeping_client_is_cut_off(void **state)
{
    int before_gone = atomic_load(&n_gone), small = 4096;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)hd_http_server_port(server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    atomic_store(&flood_result, 1);
    send_text(fd, "GET /flood HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for(&n_gone, before_gone + 1);
    for (int i = 0; i < 100 && atomic_load(&flood_result) == 1; i++)
        usleep(20000);
    assert_true(atomic_load(&flood_result) < 0);
    close(fd);
}

static void test_many_at_once(void **state)
{
    int fd[40];
    for (int i = 0; i < 40; i++) {
        fd[i] = dial();
        send_text(fd[i], "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    for (int i = 0; i < 40; i++) {
        assert_non_null(strstr(receive(fd[i], "\r\n0\r\n\r\n"), "data: 9\n\n"));
        close(fd[i]);
    }
}

/* Last: the server is freed by teardown while this one waits. */
static void test_free_with_open_requests(void **state)
{
    int before_gone = atomic_load(&n_gone), before_freed = atomic_load(&n_freed);
    int hang = dial(), stream = dial();
    send_text(hang, "GET /hang HTTP/1.1\r\nHost: x\r\n\r\n");
    send_text(stream, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    usleep(30000);
    assert_int_equal(hd_http_server_active(server), 2);
    hd_http_server_free(server);
    server = NULL;
    assert_true(atomic_load(&n_gone) >= before_gone + 1);
    wait_for(&n_freed, before_freed + 2);
    close(hang);
    close(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_keeps_connections),
        cmocka_unit_test(test_ambiguous_framing),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_disconnect_is_noticed),
        cmocka_unit_test(test_sleeping_client_is_cut_off),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_free_with_open_requests),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
