/* Inbound HTTP: connections, limits, routing, replies and streams.
 *
 * A thin room over libmicrohttpd. One event thread owns every connection; handlers run on it and
 * must not block. A handler answers at once, or keeps the request (hd_http_request_ref) and answers
 * from any thread. This room does not know what a token is.
 *
 * What it adds to the library: client sockets are watched for EPOLLRDHUP while a request runs (a
 * half-close counts as leaving), deadlines per connection (headers, body by minimum rate), strict
 * refusal of ambiguous framing, a bounded queue per stream, and a router. */
#ifndef HD_HTTP_HTTP_H
#define HD_HTTP_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

struct hd_http_server;
struct hd_http_request; /* reference counted; fields guarded by its own lock */

struct hd_http_header {
    const char *name, *value;
};

/* --- routing ------------------------------------------------------------------------------- */

enum { HD_HTTP_MAX_VARS = 4, HD_HTTP_MAX_HEADERS = 12 };

/* Runs on the event thread once the whole body is there. */
typedef void (*hd_http_handler)(struct hd_http_request *request, void *ud);

/* "{name}" in a pattern matches one non-empty path segment, percent-decoded. First match wins. */
struct hd_http_route {
    const char *method; /* "GET" also answers HEAD */
    const char *pattern;
    hd_http_handler handler;
    int tag; /* free for the owner of the table: hd_http_request_tag */
};

struct hd_http_match {
    const struct hd_http_route *route; /* NULL: see status */
    int status;                        /* 200, 404, 405, or 400 for a path that cannot be decoded */
    char allow[64];                    /* for 405: "GET, POST" */
    size_t n_var;
    struct hd_http_var {
        char name[24];
        char *value; /* owned */
    } var[HD_HTTP_MAX_VARS];
};
/* path: raw, without the query. Also usable without a server. */
void hd_http_route_match(struct hd_http_match *out, const struct hd_http_route *routes, size_t n,
                         const char *method, const char *path);
void hd_http_match_dispose(struct hd_http_match *match);

/* --- the server ------------------------------------------------------------------------------ */

struct hd_http_done { /* one finished request, for metrics */
    const char *route, *method;
    int status; /* 499: the client left first */
    double seconds;
};

struct hd_http_options {
    const char *host; /* name or address */
    int port;         /* 0 = any free one */
    size_t body_max, header_max;
    int connection_max;
    double header_timeout_s, idle_timeout_s;
    size_t body_rate_min;      /* bytes per second, after the first header_timeout_s */
    size_t stream_max;         /* unread bytes of a stream before its client counts as stuck */
    double stream_keepalive_s; /* a comment line after this much silence; 0 = none */

    const struct hd_http_route *routes; /* borrowed */
    size_t n_route;
    const struct hd_http_header *headers; /* on every response; borrowed */
    size_t n_header;
    /* Before the body is read, once a route is found: may refuse by replying. Nullable. */
    void (*before)(struct hd_http_request *request, void *ud);
    /* Writes the body of an error of this room's own (404, 405, 413, …) as JSON. Nullable. path:
     * raw, NULL where it is not known. */
    void (*error_body)(struct hd_buf *out, const char *path, int status, const char *message,
                       void *ud);
    void (*done)(const struct hd_http_done *done, void *ud); /* event thread; nullable */
    void *ud;
};
#define HD_HTTP_OPTIONS_DEFAULT                                                                    \
    ((struct hd_http_options){.host = "127.0.0.1",                                                 \
                              .body_max = 16u << 20,                                               \
                              .header_max = 64u << 10,                                             \
                              .connection_max = 1000,                                              \
                              .header_timeout_s = 10,                                              \
                              .idle_timeout_s = 60,                                                \
                              .body_rate_min = 1024,                                               \
                              .stream_max = 256u << 10,                                            \
                              .stream_keepalive_s = 15})

/* Listens and starts the event thread. */
enum hd_err hd_http_server_new(struct hd_http_server **out, const struct hd_http_options *options,
                               struct hd_errmsg *msg);
int hd_http_server_port(const struct hd_http_server *server);
/* Requests whose handler has been called and whose reply is not yet sent in full. */
int hd_http_server_active(const struct hd_http_server *server);
/* Closes the port, tells running requests that their clients are gone, ends the thread. Requests
 * that others still hold stay valid; what they write is dropped. NULL is fine. */
void hd_http_server_free(struct hd_http_server *server);

/* --- a request ------------------------------------------------------------------------------- */

struct hd_http_request *hd_http_request_ref(struct hd_http_request *request);
void hd_http_request_unref(struct hd_http_request *request); /* NULL is fine */

/* Valid while the request lives. */
const char *hd_http_request_method(const struct hd_http_request *request);
const char *hd_http_request_path(const struct hd_http_request *request); /* raw */
const char *hd_http_request_pattern(const struct hd_http_request *request);
int hd_http_request_tag(const struct hd_http_request *request);
const char *hd_http_request_var(const struct hd_http_request *request, const char *name);
const char *hd_http_request_body(const struct hd_http_request *request, size_t *len); /* NUL ends */
/* Only on the event thread, inside a hook or handler. NULL if absent. */
const char *hd_http_request_header(const struct hd_http_request *request, const char *name);
/* The named value of the query, percent-decoded; owned, NULL if absent or malformed. */
char *hd_http_request_query(const struct hd_http_request *request, const char *name);
bool hd_http_request_from_loopback(const struct hd_http_request *request);

/* Ties an object to the request: on_gone (nullable) is called at most once, on the event thread,
 * if the client leaves or gets stuck before the reply is complete; on_free (nullable) when the last
 * reference is dropped, on whatever thread does it. Call inside a hook or handler. */
void hd_http_request_attach(struct hd_http_request *request, void *object,
                            void (*on_gone)(void *object), void (*on_free)(void *object));
bool hd_http_request_gone(struct hd_http_request *request);

/* --- answering: any thread; the first answer counts, later ones are ignored ------------------- */

/* Adds a header to the coming reply; copied. Before the reply only. */
void hd_http_set_header(struct hd_http_request *request, const char *name, const char *value);
void hd_http_reply(struct hd_http_request *request, int status, const char *content_type,
                   const void *body, size_t len);
/* The body is not copied: it must outlive the server (embedded files). */
void hd_http_reply_static(struct hd_http_request *request, int status, const char *content_type,
                          const void *body, size_t len);

/* A stream of unknown length. Writing never blocks: CANCELLED when the client is gone, LIMIT when
 * it has not read for stream_max bytes (it is then disconnected and on_gone is called). */
void hd_http_stream_begin(struct hd_http_request *request, int status, const char *content_type);
enum hd_err hd_http_stream_write(struct hd_http_request *request, const void *data, size_t len);
void hd_http_stream_end(struct hd_http_request *request);
/* Once the first of the bytes that are written from here on have been given to the socket, on_sent
 * is called on the event thread with the attached object and the seconds since the request's last
 * byte had been read; never, if the client leaves before. Once per request. */
void hd_http_stream_mark(struct hd_http_request *request,
                         void (*on_sent)(void *object, double seconds));

/* --- multipart/form-data ---------------------------------------------------------------------- */

struct hd_http_part {
    const char *name, *filename, *content_type; /* owned by the list; "" if absent */
    const char *data;                           /* into the body */
    size_t len;
};
struct hd_http_parts {
    size_t n;
    struct hd_http_part part[16];
    char *strings[48]; /* owned */
    size_t n_string;
};
/* content_type: the request's header. INVALID with a sentence for anything malformed. */
enum hd_err hd_http_multipart_parse(struct hd_http_parts *out, const char *content_type,
                                    const char *body, size_t len, struct hd_errmsg *msg);
void hd_http_parts_dispose(struct hd_http_parts *parts);

/* Percent-decodes len bytes; owned. NULL for a bad escape, a NUL or invalid UTF-8. */
char *hd_http_percent_decode(const char *s, size_t len, bool plus_is_space);

#endif
