/* Inside the room: connections and requests as the event thread sees them. */
#ifndef HD_HTTP_HTTP_IMPL_H
#define HD_HTTP_HTTP_IMPL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "http/http.h"

/* What a connection is waiting for; decides its deadline. */
enum hd_http_wait { HD_HTTP_WAIT_REQUEST, HD_HTTP_WAIT_HEADERS, HD_HTTP_WAIT_BODY, HD_HTTP_BUSY };

/* Owned by the event thread. */
struct hd_http_conn {
    struct hd_http_server *server;
    struct hd_http_conn *prev, *next;
    int fd; /* valid between the library's STARTED and CLOSED notices */
    enum hd_http_wait wait;
    double since;     /* when the wait began */
    bool first;       /* no request has been finished here yet */
    bool peer_closed; /* EPOLLRDHUP seen */
    bool loopback;
    struct hd_http_request *request; /* the one in work, or NULL */
};

enum hd_http_state {
    HD_HTTP_OPEN,     /* no answer yet */
    HD_HTTP_REPLIED,  /* a whole answer is there */
    HD_HTTP_STREAM,   /* a stream has begun */
    HD_HTTP_STREAMED, /* and has ended: what is queued is still to be sent */
    HD_HTTP_GONE,     /* the client left or was cut off */
};

struct hd_http_request {
    atomic_int refs;
    struct hd_http_server *server; /* holds a reference on it */

    /* Set on the event thread before the handler runs, then immutable. */
    char *path, *query; /* owned */
    char method[16];
    struct hd_http_match match;
    struct hd_buf body;
    bool loopback;

    /* Event thread only. */
    struct hd_http_conn *conn; /* NULL once completed */
    struct MHD_Connection *connection;
    bool entered;    /* the library's first call has been made */
    bool discard;    /* refused: the body is read and dropped */
    bool dispatched; /* the handler has been called */
    bool suspended;
    bool queued;              /* a response is with the library */
    double started, complete; /* complete: its last byte so far was read */
    size_t received, discarded;
    void *object;
    void (*on_gone)(void *object);
    void (*on_free)(void *object);

    pthread_mutex_t mu; /* guards what follows */
    enum hd_http_state state;
    int status;
    bool close; /* say Connection: close */
    char *content_type;
    const void *data; /* REPLIED */
    size_t len;
    bool data_owned;
    struct hd_buf out; /* STREAM: bytes not yet taken */
    size_t out_pos;    /* taken from out */
    bool stuck;        /* the client did not read */
    enum { HD_HTTP_NO_MARK, HD_HTTP_MARKED, HD_HTTP_MARK_TAKEN, HD_HTTP_MARK_SENT } mark;
    size_t mark_left; /* MARKED: bytes before it that are not yet taken */
    void (*on_sent)(void *object, double seconds);
    double last_write;
    struct {
        char *name, *value;
    } header[HD_HTTP_MAX_HEADERS];
    size_t n_header;

    bool wake_queued; /* guarded by server->wake_mu */
    struct hd_http_request *wake_next;
};

struct hd_http_server {
    atomic_int refs;
    struct hd_http_options options; /* strings copied or borrowed as http.h says */
    char *host;
    int port;
    int listen_fd, epoll_fd, event_fd;
    struct MHD_Daemon *daemon;
    pthread_t thread;
    bool thread_started;
    atomic_bool stop;
    atomic_int n_active;

    struct hd_http_conn *conns; /* event thread */
    double last_scan;

    pthread_mutex_t wake_mu; /* guards the list and `closed`; taken after no other lock */
    struct hd_http_request *wake_head;
    bool closed;
};

/* listen.c: a bound, listening, non-blocking socket; *port is the chosen one. */
enum hd_err hd_http__listen(int *fd, int *port, const char *host, struct hd_errmsg *msg);

/* request.c */
struct hd_http_request *hd_http__request_new(struct hd_http_server *server, const char *target);
/* Asks the event thread to look at the request. Any thread, no lock held. */
void hd_http__wake(struct hd_http_request *request);
/* Marks the client as gone (event thread): calls on_gone unless the answer was complete. */
void hd_http__request_gone(struct hd_http_request *request);
/* An error of this room's own as the reply; close: the connection ends with it. */
void hd_http__reply_error(struct hd_http_request *request, int status, const char *message,
                          bool close);

/* response.c, event thread: gives the answer to the library, or suspends the connection. */
enum MHD_Result hd_http__respond(struct hd_http_request *request);
void hd_http__suspend(struct hd_http_request *request);

void hd_http__server_unref(struct hd_http_server *server);

#endif
