/* The outbound HTTP client: one place where Holdfast speaks to the world.
 *
 * TLS 1.2 or newer, certificates verified; plain http only to this machine's loopback, or where the
 * caller says that the user named such an address. Proxies come from the usual environment
 * (https_proxy, no_proxy), further authorities from SSL_CERT_FILE. Redirects are followed here, not
 * by libcurl, because of three rules: at most HD_NET_MAX_REDIRECTS; never from https to http, and
 * by http only within one host; a bearer token goes to the first origin alone.
 *
 * A client keeps its connections open between requests. One thread at a time per client. */
#ifndef HD_NET_CLIENT_H
#define HD_NET_CLIENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { HD_NET_MAX_REDIRECTS = 8 };

struct hd_net_client; /* opaque; owned by one thread */

enum hd_err hd_net_client_new(struct hd_net_client **out, struct hd_errmsg *msg);
void hd_net_client_free(struct hd_net_client *client); /* NULL is fine */

/* What came back, before the body. Text that does not fit is cut, and so matches nothing. */
struct hd_net_response {
    long status;            /* of the last hop */
    int64_t length;         /* Content-Length; -1 unknown */
    bool ranges;            /* Accept-Ranges: bytes */
    bool has_range;         /* Content-Range was there: the next two are filled */
    uint64_t range_begin;   /* first byte of the body within the file */
    uint64_t range_total;   /* size of the whole file; 0 unknown */
    char etag[192];         /* as sent, quotes and W/ included; "" if absent */
    char linked_etag[192];  /* X-Linked-Etag of any hop, the first seen; "" if absent */
    int64_t linked_size;    /* X-Linked-Size of any hop; -1 if absent */
    bool encoded;           /* a Content-Encoding other than identity */
    double retry_after_s;   /* Retry-After in seconds; 0 if absent */
    char content_type[128]; /* "" if absent */
};

struct hd_net_request {
    const char *method;         /* "GET" (also NULL), "HEAD", "POST" */
    const char *url;            /* http:// or https:// */
    const char *bearer;         /* token, or NULL */
    const char *const *headers; /* "Name: value", n_header of them */
    size_t n_header;
    const void *body; /* of a POST, body_len bytes */
    size_t body_len;
    bool plain_http;      /* the user named this http:// address: not only loopback is fine */
    bool stop_at_linked;  /* a redirect that carries X-Linked-Etag is the answer (hub HEAD) */
    uint64_t range_begin; /* with range_len > 0: only these bytes */
    uint64_t range_len;
    const char *if_range;      /* strong ETag for If-Range, or NULL */
    double connect_s;          /* seconds to a connection; 0 = 5 */
    double answer_s;           /* to the first header line of each hop; 0 = 10 */
    double stall_s;            /* without a byte; 0 = 20 */
    double total_s;            /* for everything; 0 = no limit */
    long min_bytes_per_s;      /* slower than this for stall_s is a failure; 0 = no limit */
    const atomic_bool *cancel; /* looked at several times a second; NULL = never */
    /* Both are called on the calling thread, for the last hop only, and only where its status is
     * 2xx; a failure ends the transfer and is returned. May be NULL. */
    enum hd_err (*on_head)(const struct hd_net_response *response, void *ud);
    enum hd_err (*on_data)(const void *data, size_t len, void *ud);
    void *ud;
};

/* Performs a request. *out is filled as far as the answer came. A status of 400 or more is an error
 * here: NOTFOUND (404, 410), DENIED (401, 403, 407), BUSY (429), UNAVAILABLE (5xx), INVALID (the
 * rest). No connection: UNAVAILABLE; silence: TIMEOUT; cut short: IO; an address or redirect that
 * the rules above forbid: DENIED. The sentence says what happened and names host, not URL. */
enum hd_err hd_net_perform(struct hd_net_client *client, struct hd_net_response *out,
                           const struct hd_net_request *request, struct hd_errmsg *msg);

/* GET into memory, at most max bytes; *out is owned and NUL-terminated. on_data is not used. */
enum hd_err hd_net_get(struct hd_net_client *client, char **out, size_t *out_len, size_t max,
                       const struct hd_net_request *request, struct hd_errmsg *msg);

/* Whether a host name or address means this machine. */
bool hd_net_is_loopback(const char *host);

#endif
