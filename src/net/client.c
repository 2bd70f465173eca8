#include "net/client.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/clock.h"
#include "net/url.h"

enum { MAX_LOCATION = 8192 };

struct hd_net_client {
    CURL *curl;
    char error[CURL_ERROR_SIZE];
};

/* One hop of one request: what libcurl's callbacks see. */
struct hop {
    const struct hd_net_request *request;
    struct hd_net_response *response;
    char location[MAX_LOCATION];
    double begin_s;      /* when the hop began */
    double last_byte_s;  /* when something last came */
    double deadline_s;   /* of the whole request; 0 = none */
    bool any_header;     /* the answer has begun */
    bool head_delivered; /* on_head was called */
    enum hd_err err;     /* why a callback stopped the transfer */
    struct hd_errmsg why;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init_library(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

enum hd_err hd_net_client_new(struct hd_net_client **out, struct hd_errmsg *msg)
{
    pthread_once(&once, init_library);
    *out = NULL;
    struct hd_net_client *client = calloc(1, sizeof *client);
    if (client)
        client->curl = curl_easy_init();
    if (!client || !client->curl) {
        free(client);
        return hd_fail(msg, HD_ERR_NOMEM, "network: out of memory");
    }
    *out = client;
    return HD_OK;
}

void hd_net_client_free(struct hd_net_client *client)
{
    if (!client)
        return;
    curl_easy_cleanup(client->curl);
    free(client);
}

bool hd_net_is_loopback(const char *host)
{
    struct in_addr v4; /* "127.example.org" begins alike and is somebody else */
    return (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127) ||
           !strcmp(host, "[::1]") || !strcmp(host, "::1") || !strcasecmp(host, "localhost");
}

static bool is_redirect(long status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* ------------------------------------------------------------------------- header lines */

static void copy_text(char *out, size_t cap, const char *value)
{
    snprintf(out, cap, "%s", value);
}

/* A decimal number without sign; -1 for anything else, so that lies are "unknown". */
static int64_t parse_count(const char *value)
{
    int64_t n = 0;
    if (!*value)
        return -1;
    for (; *value >= '0' && *value <= '9'; value++)
        if (__builtin_mul_overflow(n, (int64_t)10, &n) ||
            __builtin_add_overflow(n, (int64_t)(*value - '0'), &n))
            return -1;
    return *value ? -1 : n;
}

/* "bytes 0-99/1234", "bytes 0-99/(star)". */
static void parse_content_range(struct hd_net_response *r, const char *value)
{
    unsigned long long begin, end, total = 0;
    if (sscanf(value, "bytes %llu-%llu/%llu", &begin, &end, &total) < 2 || end < begin)
        return;
    r->has_range = true;
    r->range_begin = begin;
    r->range_total = total;
}

static void take_header(struct hop *hop, const char *name, const char *value)
{
    struct hd_net_response *r = hop->response;
    if (!strcasecmp(name, "content-length")) {
        r->length = parse_count(value);
    } else if (!strcasecmp(name, "etag")) {
        copy_text(r->etag, sizeof r->etag, value);
    } else if (!strcasecmp(name, "x-linked-etag")) {
        if (!r->linked_etag[0])
            copy_text(r->linked_etag, sizeof r->linked_etag, value);
    } else if (!strcasecmp(name, "x-linked-size")) {
        if (r->linked_size < 0)
            r->linked_size = parse_count(value);
    } else if (!strcasecmp(name, "accept-ranges")) {
        r->ranges = !strcasecmp(value, "bytes");
    } else if (!strcasecmp(name, "content-range")) {
        parse_content_range(r, value);
    } else if (!strcasecmp(name, "content-encoding")) {
        r->encoded = strcasecmp(value, "identity") != 0;
    } else if (!strcasecmp(name, "content-type")) {
        copy_text(r->content_type, sizeof r->content_type, value);
    } else if (!strcasecmp(name, "retry-after")) {
        int64_t seconds = parse_count(value);
        r->retry_after_s = seconds > 0 ? (double)seconds : 0;
    } else if (!strcasecmp(name, "location") && strlen(value) < sizeof hop->location) {
        copy_text(hop->location, sizeof hop->location, value);
    }
}

/* A status line begins a new answer (after a 1xx there is another): forget the hop's headers, keep
 * what hubs say of the linked file. */
static void begin_answer(struct hop *hop)
{
    struct hd_net_response *r = hop->response, old = *r;
    *r = (struct hd_net_response){.length = -1, .linked_size = old.linked_size};
    memcpy(r->linked_etag, old.linked_etag, sizeof r->linked_etag);
    hop->location[0] = 0;
}

static size_t on_header_line(char *data, size_t size, size_t n, void *ud)
{
    struct hop *hop = ud;
    char line[MAX_LOCATION];
    size_t len = size * n;
    hop->any_header = true;
    hop->last_byte_s = hd_clock_seconds();
    while (len && (data[len - 1] == '\r' || data[len - 1] == '\n'))
        len--;
    if (len >= sizeof line)
        return size * n; /* a header of 8 KiB is none that we read */
    memcpy(line, data, len);
    line[len] = 0;
    if (!strncmp(line, "HTTP/", 5)) {
        const char *space = strchr(line, ' ');
        begin_answer(hop);
        hop->response->status = space ? strtol(space + 1, NULL, 10) : 0;
        return size * n;
    }
    char *colon = strchr(line, ':');
    if (colon) {
        *colon = 0;
        char *value = colon + 1 + strspn(colon + 1, " \t");
        size_t m = strlen(value);
        while (m && (value[m - 1] == ' ' || value[m - 1] == '\t'))
            value[--m] = 0;
        take_header(hop, line, value);
    }
    return size * n;
}

/* ------------------------------------------------------------------------- body, time, cancel */

static enum hd_err deliver_head(struct hop *hop)
{
    if (hop->head_delivered)
        return HD_OK;
    hop->head_delivered = true;
    return hop->request->on_head ? hop->request->on_head(hop->response, hop->request->ud) : HD_OK;
}

static size_t on_body(char *data, size_t size, size_t n, void *ud)
{
    struct hop *hop = ud;
    size_t len = size * n;
    hop->last_byte_s = hd_clock_seconds();
    if (hop->response->status < 200 || hop->response->status > 299)
        return len; /* pages of errors and redirects interest nobody */
    hop->err = deliver_head(hop);
    if (!hop->err && hop->request->on_data)
        hop->err = hop->request->on_data(data, len, hop->request->ud);
    return hop->err ? 0 : len;
}

/* Called by libcurl many times a second while data flows and at least once a second else. */
static int on_tick(void *ud, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal,
                   curl_off_t ulnow)
{
    struct hop *hop = ud;
    const struct hd_net_request *q = hop->request;
    double now = hd_clock_seconds();
    double answer = q->answer_s > 0 ? q->answer_s : 10, stall = q->stall_s > 0 ? q->stall_s : 20;
    if (q->cancel && atomic_load(q->cancel))
        hop->err = hd_fail(&hop->why, HD_ERR_CANCELLED, "cancelled");
    else if (!hop->any_header && now - hop->begin_s > answer)
        hop->err = hd_fail(&hop->why, HD_ERR_TIMEOUT, "no answer within %g s", answer);
    else if (hop->any_header && now - hop->last_byte_s > stall)
        hop->err = hd_fail(&hop->why, HD_ERR_TIMEOUT, "silent for %g s", stall);
    else if (hop->deadline_s > 0 && now > hop->deadline_s)
        hop->err = hd_fail(&hop->why, HD_ERR_TIMEOUT, "not done within %g s", q->total_s);
    return hop->err != HD_OK;
}

/* ------------------------------------------------------------------------- one hop */

static struct curl_slist *make_headers(const struct hd_net_request *q, bool *failed)
{
    struct curl_slist *list = NULL;
    char line[256];
    *failed = false;
    for (size_t i = 0; i < q->n_header + 1; i++) {
        const char *text = i < q->n_header ? q->headers[i] : NULL;
        if (!text) {
            if (!q->if_range || !q->range_len)
                continue;
            snprintf(line, sizeof line, "If-Range: %s", q->if_range);
            text = line;
        }
        struct curl_slist *longer = curl_slist_append(list, text);
        if (!longer) {
            *failed = true;
            break;
        }
        list = longer;
    }
    return list;
}

static void set_method(CURL *curl, const struct hd_net_request *q)
{
    char range[64];
    if (q->method && !strcmp(q->method, "HEAD")) {
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    } else if (q->method && !strcmp(q->method, "POST")) {
        curl_easy_setopt(curl, CURLOPT_POST, 1L);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body_len);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, q->body ? q->body : "");
    } else {
        curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
    }
    if (q->range_len) {
        snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)q->range_begin,
                 (unsigned long long)(q->range_begin + q->range_len - 1));
        curl_easy_setopt(curl, CURLOPT_RANGE, range);
    }
}

static void set_options(struct hd_net_client *client, struct hop *hop, const struct hd_url *url,
                        bool with_bearer)
{
    CURL *curl = client->curl;
    const struct hd_net_request *q = hop->request;
    const char *authorities = getenv("SSL_CERT_FILE");
    double connect = q->connect_s > 0 ? q->connect_s : 5;
    curl_easy_reset(curl); /* keeps connections */
    client->error[0] = 0;
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, client->error);
    curl_easy_setopt(curl, CURLOPT_URL, url->text);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
    if (authorities && *authorities)
        curl_easy_setopt(curl, CURLOPT_CAINFO, authorities);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)(connect * 1000));
    curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L * 1024);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "holdfast/" HOLDFAST_VERSION);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header_line);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, hop);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, hop);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_tick);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, hop);
    if (with_bearer) {
        curl_easy_setopt(curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, q->bearer);
    }
    if (q->min_bytes_per_s > 0) {
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, q->min_bytes_per_s);
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)(q->stall_s > 1 ? q->stall_s : 1));
    }
    set_method(curl, q);
}

/* libcurl's verdict as ours. */
static enum hd_err transport_error(struct hd_net_client *client, const struct hop *hop,
                                   const char *host, CURLcode code, struct hd_errmsg *msg)
{
    double connect = hop->request->connect_s > 0 ? hop->request->connect_s : 5;
    const char *text = client->error[0] ? client->error : curl_easy_strerror(code);
    if (hop->err)
        return hop->why.text[0] ? hd_fail(msg, hop->err, "%s: %s", host, hop->why.text)
                                : hop->err; /* the caller's own callback knows why */
    switch (code) {
    case CURLE_OUT_OF_MEMORY:
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", host);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return hd_fail(msg, HD_ERR_UNAVAILABLE, "%s: name cannot be resolved", host);
    case CURLE_OPERATION_TIMEDOUT:
        if (hop->any_header)
            return hd_fail(msg, HD_ERR_TIMEOUT, "%s: slower than %ld bytes a second", host,
                           hop->request->min_bytes_per_s);
        return hd_fail(msg, HD_ERR_TIMEOUT, "%s: no answer within %g s", host, connect);
    case CURLE_COULDNT_CONNECT:
        return hd_fail(msg, HD_ERR_UNAVAILABLE, "%s: cannot connect: %.200s", host, text);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return hd_fail(msg, HD_ERR_DENIED,
                       "%s: its certificate is not trusted: %.200s (SSL_CERT_FILE may name your "
                       "own authorities)",
                       host, text);
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
        return hd_fail(msg, HD_ERR_IO, "%s: the connection broke off", host);
    default:
        return hd_fail(msg, HD_ERR_IO, "%s: %.200s", host, text);
    }
}

static enum hd_err status_error(long status, const char *host, struct hd_errmsg *msg)
{
    if (status == 404 || status == 410)
        return hd_fail(msg, HD_ERR_NOTFOUND, "%s: not there (HTTP %ld)", host, status);
    if (status == 401 || status == 403 || status == 407)
        return hd_fail(msg, HD_ERR_DENIED, "%s: access refused (HTTP %ld)", host, status);
    if (status == 429)
        return hd_fail(msg, HD_ERR_BUSY, "%s: too many requests (HTTP 429)", host);
    if (status >= 500)
        return hd_fail(msg, HD_ERR_UNAVAILABLE, "%s: HTTP %ld", host, status);
    return hd_fail(msg, HD_ERR_INVALID, "%s: HTTP %ld", host, status);
}

static enum hd_err perform_hop(struct hd_net_client *client, struct hop *hop,
                               const struct hd_url *url, bool with_bearer, struct hd_errmsg *msg)
{
    bool failed;
    struct curl_slist *headers = make_headers(hop->request, &failed);
    if (failed) {
        curl_slist_free_all(headers);
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", url->host);
    }
    set_options(client, hop, url, with_bearer);
    curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, headers);
    hop->begin_s = hop->last_byte_s = hd_clock_seconds();
    CURLcode code = curl_easy_perform(client->curl);
    /* The handle is reset before its next use, and must not keep what dies here. */
    curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    if (code)
        return transport_error(client, hop, url->host, code, msg);
    return HD_OK;
}

/* ------------------------------------------------------------------------- redirects */

static enum hd_err check_scheme(const struct hd_url *url, bool plain_http, struct hd_errmsg *msg)
{
    if (url->has_credentials)
        return hd_fail(msg, HD_ERR_DENIED, "%s: an address with a password in it is refused",
                       url->host);
    if (!strcasecmp(url->scheme, "https"))
        return HD_OK;
    if (strcasecmp(url->scheme, "http"))
        return hd_fail(msg, HD_ERR_DENIED, "%s: only https:// is spoken", url->scheme);
    if (!plain_http && !hd_net_is_loopback(url->host))
        return hd_fail(msg, HD_ERR_DENIED, "%s: plain http is refused (use https://)", url->host);
    return HD_OK;
}

static enum hd_err follow(struct hd_url *url, const char *location, struct hd_errmsg *msg)
{
    struct hd_url next;
    enum hd_err err = hd_url_parse(&next, url->text, location, msg);
    if (err)
        return err;
    bool secure = !strcasecmp(next.scheme, "https");
    bool same_plain = !strcasecmp(next.scheme, "http") && !strcasecmp(url->scheme, "http") &&
                      !strcasecmp(next.host, url->host);
    if (!secure && !same_plain)
        err = hd_fail(msg, HD_ERR_DENIED, "%s: redirects to %s://%.100s, which is refused",
                      url->host, next.scheme, next.host);
    else if (next.has_credentials)
        err = hd_fail(msg, HD_ERR_DENIED, "%s: redirects to an address with a password in it",
                      url->host);
    if (err) {
        hd_url_dispose(&next);
        return err;
    }
    hd_url_dispose(url);
    *url = next;
    return HD_OK;
}

/* After a hop went through: done, or *again with the next address in url. */
static enum hd_err after_hop(struct hop *hop, struct hd_url *url, int n_redirect, bool *again,
                             struct hd_errmsg *msg)
{
    const struct hd_net_request *q = hop->request;
    struct hd_net_response *r = hop->response;
    *again = false;
    if (is_redirect(r->status) && q->stop_at_linked && r->linked_etag[0])
        return HD_OK;
    if (is_redirect(r->status)) {
        if (!hop->location[0])
            return hd_fail(msg, HD_ERR_FORMAT, "%s: a redirect to nowhere", url->host);
        if (n_redirect >= HD_NET_MAX_REDIRECTS)
            return hd_fail(msg, HD_ERR_LIMIT, "%s: more than %d redirects", url->host,
                           HD_NET_MAX_REDIRECTS);
        *again = true;
        return follow(url, hop->location, msg);
    }
    if (r->status < 200 || r->status > 299)
        return status_error(r->status, url->host, msg);
    return deliver_head(hop); /* a body of no bytes has called nobody yet */
}

enum hd_err hd_net_perform(struct hd_net_client *client, struct hd_net_response *out,
                           const struct hd_net_request *request, struct hd_errmsg *msg)
{
    struct hd_url first = {0}, url = {0};
    bool again = true;
    *out = (struct hd_net_response){.length = -1, .linked_size = -1};
    struct hop *hop = malloc(sizeof *hop); /* large: not on a thread's stack */
    if (!hop)
        return hd_fail(msg, HD_ERR_NOMEM, "network: out of memory");
    double deadline = request->total_s > 0 ? hd_clock_seconds() + request->total_s : 0;
    enum hd_err err = hd_url_parse(&first, NULL, request->url, msg);
    if (!err)
        err = check_scheme(&first, request->plain_http, msg);
    if (!err)
        err = hd_url_parse(&url, NULL, request->url, msg);
    for (int n = 0; !err && again; n++) {
        *hop = (struct hop){.request = request, .response = out, .deadline_s = deadline};
        bool safe = !strcasecmp(url.scheme, "https") || hd_net_is_loopback(url.host);
        err = perform_hop(client, hop, &url,
                          request->bearer && safe && hd_url_same_origin(&first, &url), msg);
        if (!err)
            err = after_hop(hop, &url, n, &again, msg);
    }
    free(hop);
    hd_url_dispose(&first);
    hd_url_dispose(&url);
    return err;
}

/* ------------------------------------------------------------------------- into memory */

static enum hd_err put_in_buffer(const void *data, size_t len, void *ud)
{
    return hd_buf_append(ud, data, len);
}

enum hd_err hd_net_get(struct hd_net_client *client, char **out, size_t *out_len, size_t max,
                       const struct hd_net_request *request, struct hd_errmsg *msg)
{
    struct hd_net_request q = *request;
    struct hd_net_response response;
    struct hd_buf buf;
    *out = NULL;
    hd_buf_init(&buf, max);
    q.on_head = NULL;
    q.on_data = put_in_buffer;
    q.ud = &buf;
    enum hd_err err = hd_net_perform(client, &response, &q, msg);
    if (err == HD_ERR_LIMIT && buf.err)
        hd_fail(msg, err, "the answer is longer than %zu bytes", max);
    size_t len = buf.len;
    if (!err && !(*out = hd_buf_take(&buf)))
        err = hd_fail(msg, HD_ERR_NOMEM, "network: out of memory");
    if (!err && out_len)
        *out_len = len;
    hd_buf_dispose(&buf);
    return err;
}
