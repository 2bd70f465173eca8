/* Answers on their way to the library; all on the event thread. */
#include "http/http_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { STREAM_BLOCK = 16384 };

void hd_http__suspend(struct hd_http_request *request)
{
    if (!request->suspended) {
        request->suspended = true;
        MHD_suspend_connection(request->connection);
    }
}

/* Keeps count of what is before the mark. */
static void take_locked(struct hd_http_request *request, size_t n)
{
    request->out_pos += n;
    if (request->mark == HD_HTTP_MARKED && n > request->mark_left)
        request->mark = HD_HTTP_MARK_TAKEN;
    else if (request->mark == HD_HTTP_MARKED)
        request->mark_left -= n;
}

/* The library asks for more when it has sent what it took. */
static void note_sent(struct hd_http_request *request)
{
    pthread_mutex_lock(&request->mu);
    bool sent = request->mark == HD_HTTP_MARK_TAKEN;
    if (sent)
        request->mark = HD_HTTP_MARK_SENT;
    pthread_mutex_unlock(&request->mu);
    if (sent)
        request->on_sent(request->object, hd_clock_seconds() - request->complete);
}

/* Fills the library's buffer from the stream's queue, or suspends until there is more. */
static ssize_t read_stream(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct hd_http_request *request = cls;
    ssize_t n = 0;
    bool gone = request->conn && request->conn->peer_closed;
    note_sent(request);
    pthread_mutex_lock(&request->mu);
    size_t left = request->out.len - request->out_pos;
    if (request->state == HD_HTTP_GONE || request->stuck) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (left) {
        n = (ssize_t)(left < max ? left : max);
        memcpy(buf, request->out.data + request->out_pos, (size_t)n);
        take_locked(request, (size_t)n);
    } else if (request->state == HD_HTTP_STREAMED) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    }
    pthread_mutex_unlock(&request->mu);
    if (n)
        return n;
    if (gone) {
        hd_http__request_gone(request);
        return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    hd_http__suspend(request);
    return 0;
}

static void drop_stream(void *cls)
{
    hd_http_request_unref(cls);
}

static void add_headers(struct MHD_Response *response, const struct hd_http_request *request)
{
    const struct hd_http_options *options = &request->server->options;
    if (request->content_type)
        MHD_add_response_header(response, "Content-Type", request->content_type);
    if (request->close)
        MHD_add_response_header(response, "Connection", "close");
    for (size_t i = 0; i < options->n_header; i++)
        MHD_add_response_header(response, options->headers[i].name, options->headers[i].value);
    for (size_t i = 0; i < request->n_header; i++)
        MHD_add_response_header(response, request->header[i].name, request->header[i].value);
}

static struct MHD_Response *whole_response(struct hd_http_request *request)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        request->len, (void *)request->data,
        request->data_owned ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (response)
        request->data_owned = false; /* the library's now */
    return response;
}

static struct MHD_Response *stream_response(struct hd_http_request *request)
{
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, hd_http_request_ref(request), drop_stream);
    if (!response)
        hd_http_request_unref(request);
    return response;
}

enum MHD_Result hd_http__respond(struct hd_http_request *request)
{
    pthread_mutex_lock(&request->mu);
    enum hd_http_state state = request->state;
    pthread_mutex_unlock(&request->mu);
    if (state == HD_HTTP_GONE)
        return MHD_NO;
    if (state == HD_HTTP_OPEN) {
        if (request->conn->peer_closed) { /* nobody waits for what is not ready yet */
            hd_http__request_gone(request);
            return MHD_NO;
        }
        hd_http__suspend(request);
        return MHD_YES;
    }
    /* Once it left OPEN, the answer's description no longer changes. */
    struct MHD_Response *response =
        state == HD_HTTP_REPLIED ? whole_response(request) : stream_response(request);
    if (!response)
        return MHD_NO;
    add_headers(response, request);
    enum MHD_Result result =
        MHD_queue_response(request->connection, (unsigned)request->status, response);
    MHD_destroy_response(response);
    request->queued = result == MHD_YES;
    return result;
}
