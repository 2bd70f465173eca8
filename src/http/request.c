/* Requests: lifetime, accessors, and answers given from any thread. */
#include "http/http_impl.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

struct hd_http_request *hd_http__request_new(struct hd_http_server *server, const char *target)
{
    struct hd_http_request *request = calloc(1, sizeof *request);
    if (!request)
        return NULL;
    size_t n = strcspn(target, "?");
    request->path = strndup(target, n);
    request->query = strdup(target[n] ? target + n + 1 : "");
    if (!request->path || !request->query) {
        free(request->path);
        free(request->query);
        free(request);
        return NULL;
    }
    atomic_init(&request->refs, 1);
    atomic_fetch_add(&server->refs, 1);
    request->server = server;
    request->started = hd_clock_seconds();
    hd_buf_init(&request->body, server->options.body_max);
    hd_buf_init(&request->out, server->options.stream_max);
    pthread_mutex_init(&request->mu, NULL);
    return request;
}

struct hd_http_request *hd_http_request_ref(struct hd_http_request *request)
{
    atomic_fetch_add(&request->refs, 1);
    return request;
}

void hd_http_request_unref(struct hd_http_request *request)
{
    if (!request || atomic_fetch_sub(&request->refs, 1) != 1)
        return;
    if (request->on_free)
        request->on_free(request->object);
    for (size_t i = 0; i < request->n_header; i++) {
        free(request->header[i].name);
        free(request->header[i].value);
    }
    if (request->data_owned)
        free((void *)request->data);
    hd_http_match_dispose(&request->match);
    hd_buf_dispose(&request->body);
    hd_buf_dispose(&request->out);
    pthread_mutex_destroy(&request->mu);
    hd_http__server_unref(request->server);
    free(request->content_type);
    free(request->path);
    free(request->query);
    free(request);
}

/* --- what the request says ---------------------------------------------------------------------
 */

const char *hd_http_request_method(const struct hd_http_request *request)
{
    return request->method;
}

const char *hd_http_request_path(const struct hd_http_request *request)
{
    return request->path;
}

const char *hd_http_request_pattern(const struct hd_http_request *request)
{
    return request->match.route ? request->match.route->pattern : "none";
}

int hd_http_request_tag(const struct hd_http_request *request)
{
    return request->match.route ? request->match.route->tag : 0;
}

const char *hd_http_request_var(const struct hd_http_request *request, const char *name)
{
    for (size_t i = 0; i < request->match.n_var; i++)
        if (!strcmp(request->match.var[i].name, name))
            return request->match.var[i].value;
    return NULL;
}

const char *hd_http_request_body(const struct hd_http_request *request, size_t *len)
{
    if (len)
        *len = request->body.len;
    return hd_buf_str(&request->body);
}

const char *hd_http_request_header(const struct hd_http_request *request, const char *name)
{
    if (!request->connection)
        return NULL;
    return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

char *hd_http_request_query(const struct hd_http_request *request, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = request->query; *p;) {
        size_t len = strcspn(p, "&");
        if (len > n && !strncmp(p, name, n) && p[n] == '=')
            return hd_http_percent_decode(p + n + 1, len - n - 1, true);
        p += len + (p[len] == '&');
    }
    return NULL;
}

bool hd_http_request_from_loopback(const struct hd_http_request *request)
{
    return request->loopback;
}

void hd_http_request_attach(struct hd_http_request *request, void *object,
                            void (*on_gone)(void *object), void (*on_free)(void *object))
{
    request->object = object;
    request->on_gone = on_gone;
    request->on_free = on_free;
}

bool hd_http_request_gone(struct hd_http_request *request)
{
    pthread_mutex_lock(&request->mu);
    bool gone = request->state == HD_HTTP_GONE;
    pthread_mutex_unlock(&request->mu);
    return gone;
}

/* --- answers ------------------------------------------------------------------------------------
 */

void hd_http__wake(struct hd_http_request *request)
{
    struct hd_http_server *server = request->server;
    const uint64_t one = 1;
    pthread_mutex_lock(&server->wake_mu);
    bool push = !server->closed && !request->wake_queued;
    if (push) {
        request->wake_queued = true;
        request->wake_next = server->wake_head;
        server->wake_head = hd_http_request_ref(request);
    }
    /* A failed write means a full counter: the thread will wake anyway. */
    ssize_t n = push ? write(server->event_fd, &one, sizeof one) : 0;
    (void)n;
    pthread_mutex_unlock(&server->wake_mu);
}

void hd_http__request_gone(struct hd_http_request *request)
{
    pthread_mutex_lock(&request->mu);
    bool tell = request->state == HD_HTTP_OPEN || request->state == HD_HTTP_STREAM;
    if (tell)
        request->status = 499;
    request->state = HD_HTTP_GONE;
    pthread_mutex_unlock(&request->mu);
    void (*on_gone)(void *) = request->on_gone;
    request->on_gone = NULL;
    if (tell && on_gone)
        on_gone(request->object);
}

void hd_http_set_header(struct hd_http_request *request, const char *name, const char *value)
{
    char *n = strdup(name), *v = strdup(value);
    pthread_mutex_lock(&request->mu);
    if (n && v && request->state == HD_HTTP_OPEN && request->n_header < HD_HTTP_MAX_HEADERS) {
        request->header[request->n_header].name = n;
        request->header[request->n_header++].value = v;
        n = v = NULL;
    }
    pthread_mutex_unlock(&request->mu);
    free(n);
    free(v);
}

static void reply(struct hd_http_request *request, int status, const char *content_type,
                  const void *body, size_t len, bool owned)
{
    char *type = strdup(content_type);
    pthread_mutex_lock(&request->mu);
    bool taken = request->state == HD_HTTP_OPEN && type && (body || !len);
    if (taken) {
        request->state = HD_HTTP_REPLIED;
        request->status = status;
        request->content_type = type;
        request->data = body;
        request->len = len;
        request->data_owned = owned;
        type = NULL;
    } else if (request->state == HD_HTTP_OPEN) { /* out of memory: an empty answer still is one */
        request->state = HD_HTTP_REPLIED;
        request->status = 503;
        request->data = NULL;
        request->len = 0;
    }
    pthread_mutex_unlock(&request->mu);
    if (!taken && owned)
        free((void *)body);
    free(type);
    hd_http__wake(request);
}

void hd_http_reply(struct hd_http_request *request, int status, const char *content_type,
                   const void *body, size_t len)
{
    void *copy = malloc(len ? len : 1);
    if (copy && len)
        memcpy(copy, body, len);
    reply(request, status, content_type, copy, len, true);
}

void hd_http_reply_static(struct hd_http_request *request, int status, const char *content_type,
                          const void *body, size_t len)
{
    reply(request, status, content_type, body, len, false);
}

void hd_http__reply_error(struct hd_http_request *request, int status, const char *message,
                          bool close)
{
    const struct hd_http_options *options = &request->server->options;
    struct hd_buf body;
    hd_buf_init(&body, 4096);
    if (options->error_body)
        options->error_body(&body, request->path, status, message, options->ud);
    else
        hd_buf_puts(&body, message);
    request->close = close;
    hd_http_reply(request, status, options->error_body ? "application/json" : "text/plain",
                  hd_buf_str(&body), body.len);
    hd_buf_dispose(&body);
}

void hd_http_stream_begin(struct hd_http_request *request, int status, const char *content_type)
{
    char *type = strdup(content_type);
    pthread_mutex_lock(&request->mu);
    if (request->state == HD_HTTP_OPEN) {
        request->state = HD_HTTP_STREAM;
        request->status = status;
        request->content_type = type;
        request->last_write = hd_clock_seconds();
        type = NULL;
    }
    pthread_mutex_unlock(&request->mu);
    free(type);
    hd_http__wake(request);
}

enum hd_err hd_http_stream_write(struct hd_http_request *request, const void *data, size_t len)
{
    enum hd_err err = HD_ERR_CANCELLED;
    pthread_mutex_lock(&request->mu);
    if (request->state == HD_HTTP_STREAM && !request->stuck) {
        if (request->out_pos == request->out.len) {
            hd_buf_clear(&request->out);
            request->out_pos = 0;
        } else if (request->out_pos > request->out.max / 2) {
            request->out.len -= request->out_pos;
            memmove(request->out.data, request->out.data + request->out_pos, request->out.len);
            request->out_pos = 0;
        }
        err = hd_buf_append(&request->out, data, len);
        request->last_write = hd_clock_seconds();
        request->stuck = err != HD_OK; /* the event thread cuts it off */
    } else if (request->stuck) {
        err = HD_ERR_LIMIT;
    }
    pthread_mutex_unlock(&request->mu);
    hd_http__wake(request);
    return err;
}

void hd_http_stream_mark(struct hd_http_request *request,
                         void (*on_sent)(void *object, double seconds))
{
    pthread_mutex_lock(&request->mu);
    if (request->mark == HD_HTTP_NO_MARK) {
        request->mark = HD_HTTP_MARKED;
        request->mark_left = request->out.len - request->out_pos;
        request->on_sent = on_sent;
    }
    pthread_mutex_unlock(&request->mu);
}

void hd_http_stream_end(struct hd_http_request *request)
{
    pthread_mutex_lock(&request->mu);
    if (request->state == HD_HTTP_STREAM)
        request->state = HD_HTTP_STREAMED;
    pthread_mutex_unlock(&request->mu);
    hd_http__wake(request);
}
