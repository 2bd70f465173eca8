/* Files over HTTP: Hugging Face, ModelScope, their mirrors, and plain addresses.
 *
 * A HEAD says how large the file is and, on the hubs, its SHA-256 (X-Linked-Size, X-Linked-Etag);
 * of its small files Hugging Face knows only what git calls them, and tells it in its file lists.
 * Then several connections fetch pieces by range, each piece synced and journaled when it is
 * whole. A server that knows no ranges is served by one stream. A file that changes under way is
 * noticed by its ETag, and begun again. */
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "net/client.h"
#include "net/url.h"
#include "pull/pull_impl.h"

enum { MAX_ATTEMPTS = 5, MAX_CHANGES = 3, MAX_LISTING_BYTES = 16 << 20, DEFAULT_CONNECTIONS = 4 };
enum { MAX_REQUESTS = 200, MIN_BYTES_PER_S = 256 }; /* per piece; per connection */
enum {
    MAX_GIT_BYTES = 16 << 20
}; /* a file that only git's SHA-1 vouches for; the hub takes 10 MB */
enum { MIN_PIECE = 1 << 20, MAX_PIECE = 64 << 20 };

static const double commit_every_s = 5;

/* What a HEAD told. */
struct probe {
    uint64_t size;   /* 0 unknown */
    char sha256[65]; /* "" unknown */
    char git[41];    /* what git calls it; "" unknown */
    char etag[192];
};

/* One source under way; shared by its workers. */
struct fetch {
    struct hd_pull__job *job;
    const char *url, *bearer;
    bool plain_http;
    uint64_t piece;     /* bytes per range request */
    pthread_mutex_t mu; /* guards what follows */
    uint64_t cursor;    /* pieces before it are taken */
    char etag[192];     /* strong ETag of the first answer */
    bool no_ranges;     /* the server sends the whole file whatever we ask */
    bool changed;       /* the file is another one now */
    enum hd_err err;    /* the first failure, and its sentence */
    struct hd_errmsg why;
};

/* ------------------------------------------------------------------------- addresses */

static const char *endpoint_of(const struct hd_pull__job *job, enum hd_source_type type)
{
    const char *own = type == HD_SOURCE_HUGGINGFACE ? job->options->hf_endpoint
                                                    : job->options->modelscope_endpoint;
    if (own && *own)
        return own;
    return type == HD_SOURCE_HUGGINGFACE ? "https://huggingface.co" : "https://www.modelscope.cn";
}

/* "http://host/" and "host" both mean what the user thinks they mean. */
static char *base_of(const char *endpoint)
{
    char *base = NULL;
    size_t n = strlen(endpoint);
    while (n && endpoint[n - 1] == '/')
        n--;
    if (asprintf(&base, "%s%.*s", strstr(endpoint, "://") ? "" : "https://", (int)n, endpoint) < 0)
        return NULL;
    return base;
}

/* *plain: the user named an http:// address of his own. */
static char *address_of(const struct hd_pull__job *job, const struct hd_source *s, bool *plain)
{
    char *url = NULL;
    if (s->type == HD_SOURCE_HTTPS) {
        *plain = false;
        return strdup(s->url);
    }
    char *base = base_of(endpoint_of(job, s->type));
    *plain = base && !strncasecmp(base, "http://", 7);
    if (base && asprintf(&url, "%s/%s%s/resolve/%s/%s", base,
                         s->type == HD_SOURCE_MODELSCOPE ? "models/" : "", s->repo, s->revision,
                         s->file) < 0)
        url = NULL;
    free(base);
    return url;
}

static double timeout_of(const struct hd_pull__job *job)
{
    return job->options->timeout_s > 0 ? job->options->timeout_s : 5;
}

static struct hd_net_request request_for(const struct fetch *f)
{
    double timeout = timeout_of(f->job);
    return (struct hd_net_request){
        .url = f->url,
        .bearer = f->bearer,
        .plain_http = f->plain_http,
        .connect_s = timeout,
        .answer_s = timeout,
        .stall_s = 4 * timeout,
        .cancel = f->job->options->cancel,
    };
}

/* ------------------------------------------------------------------------- asking */

/* "\"0123…\"" or "W/\"0123…\"" to n_digit lower-case digits; "" if it is no such number. */
static void hex_of(char *out, const char *text, size_t n_digit)
{
    out[0] = 0;
    if (!strncmp(text, "W/", 2))
        text += 2;
    text += *text == '"';
    size_t n = strspn(text, "0123456789abcdefABCDEF");
    if (n != n_digit || (text[n] && strcmp(text + n, "\"")))
        return;
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] >= 'A' && text[i] <= 'F' ? (char)(text[i] + 32) : text[i];
    out[n] = 0;
}

static void sha256_of_etag(char out[65], const char *etag)
{
    hex_of(out, etag, 64);
}

static enum hd_err ask(struct probe *out, struct hd_net_client *client, const struct fetch *f,
                       struct hd_errmsg *msg)
{
    struct hd_net_response r;
    struct hd_net_request q = request_for(f);
    *out = (struct probe){0};
    q.method = "HEAD";
    q.stop_at_linked = true;
    q.total_s = 4 * timeout_of(f->job);
    enum hd_err err = hd_net_perform(client, &r, &q, msg);
    if (err == HD_ERR_IO) /* a connection may break by chance; once */
        err = hd_net_perform(client, &r, &q, msg);
    if (r.status == 405 || r.status == 501) { /* no HEAD here: ask for one byte */
        q.method = "GET";
        q.range_len = 1;
        err = hd_net_perform(client, &r, &q, msg);
    }
    if (err)
        return err;
    if (r.linked_size > 0)
        out->size = (uint64_t)r.linked_size;
    else if (r.has_range)
        out->size = r.range_total;
    else if (r.length > 0 && !r.linked_etag[0])
        out->size = (uint64_t)r.length;
    sha256_of_etag(out->sha256, r.linked_etag);
    snprintf(out->etag, sizeof out->etag, "%s", r.linked_etag[0] ? r.linked_etag : r.etag);
    return HD_OK;
}

/* A file list of a hub: its JSON is *out (the caller's), NULL where it is none. */
static enum hd_err get_listing(json_t **out, struct hd_net_client *client, const struct fetch *f,
                               const char *url, struct hd_errmsg *msg)
{
    char *text = NULL;
    size_t len = 0;
    struct hd_net_request q = request_for(f);
    *out = NULL;
    q.url = url;
    q.total_s = 4 * timeout_of(f->job);
    enum hd_err err = hd_net_get(client, &text, &len, MAX_LISTING_BYTES, &q, msg);
    if (!err)
        *out = json_loadb(text, len, 0, NULL);
    free(text);
    return err;
}

/* ModelScope's list of a repository's files knows each one's Size and Sha256. */
static void take_modelscope(struct probe *out, json_t *root, const char *file)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(json_object_get(root, "Data"), "Files"), i, entry)
    {
        const char *path = json_string_value(json_object_get(entry, "Path"));
        const char *sha = json_string_value(json_object_get(entry, "Sha256"));
        json_int_t size = json_integer_value(json_object_get(entry, "Size"));
        if (!path || strcmp(path, file))
            continue;
        sha256_of_etag(out->sha256, sha ? sha : "");
        if (size > 0 && !out->size)
            out->size = (uint64_t)size;
    }
}

/* Hugging Face's list of a folder: size, and lfs.oid (SHA-256) of large files, oid of small ones,
 * which is what git calls them. The oid of a large file is that of a pointer to it. */
static void take_huggingface(struct probe *out, json_t *root, const char *file)
{
    size_t i;
    json_t *entry;
    json_array_foreach(root, i, entry)
    {
        const char *path = json_string_value(json_object_get(entry, "path"));
        json_t *lfs = json_object_get(entry, "lfs");
        const char *oid = json_string_value(json_object_get(lfs ? lfs : entry, "oid"));
        json_int_t size = json_integer_value(json_object_get(entry, "size"));
        if (!path || strcmp(path, file))
            continue;
        hex_of(lfs ? out->sha256 : out->git, oid ? oid : "", lfs ? 64 : 40);
        if (size > 0 && !out->size)
            out->size = (uint64_t)size;
    }
}

static enum hd_err ask_listing(struct probe *out, struct hd_net_client *client,
                               const struct fetch *f, const struct hd_source *s,
                               struct hd_errmsg *msg)
{
    char *base = base_of(endpoint_of(f->job, s->type)), *url = NULL;
    const char *slash = strrchr(s->file, '/');
    bool modelscope = s->type == HD_SOURCE_MODELSCOPE;
    json_t *root = NULL;
    int n = -1;
    if (base && modelscope)
        n = asprintf(&url, "%s/api/v1/models/%s/repo/files?Revision=%s&Recursive=true", base,
                     s->repo, s->revision);
    else if (base)
        n = asprintf(&url, "%s/api/models/%s/tree/%s%s%.*s", base, s->repo, s->revision,
                     slash ? "/" : "", slash ? (int)(slash - s->file) : 0, s->file);
    free(base);
    if (n < 0)
        return hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    enum hd_err err = get_listing(&root, client, f, url, msg);
    free(url);
    if (modelscope)
        take_modelscope(out, root, s->file);
    else
        take_huggingface(out, root, s->file);
    json_decref(root);
    /* A mirror need not have lists: that it gives no hash is said later. */
    return !modelscope && err == HD_ERR_NOTFOUND ? HD_OK : err;
}

/* What the source offers must be what the catalogue means. */
static enum hd_err check_offer(const struct probe *p, const struct hd_source *s,
                               struct hd_errmsg *msg)
{
    if (s->size && p->size && s->size != p->size)
        return hd_fail(msg, HD_ERR_FORMAT,
                       "offers a file of %llu bytes where the catalogue says %llu",
                       (unsigned long long)p->size, (unsigned long long)s->size);
    if (s->sha256 && p->sha256[0] && strcmp(s->sha256, p->sha256))
        return hd_fail(msg, HD_ERR_FORMAT, "offers another file (its hash is %.16s…, not %.16s…)",
                       p->sha256, s->sha256);
    if (!s->size && !p->size)
        return hd_fail(msg, HD_ERR_UNSUPPORTED, "does not say how large the file is");
    if (!s->sha256 && !p->sha256[0] && p->git[0] && p->size > MAX_GIT_BYTES)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "gives no SHA-256 for a file of %llu bytes (git's SHA-1 is taken for up to "
                       "%d; pin its sha256 in a catalogue entry)",
                       (unsigned long long)p->size, (int)MAX_GIT_BYTES);
    if (!s->sha256 && !p->sha256[0] && !p->git[0])
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "gives no hash to check the file by (pin its sha256 in a catalogue entry)");
    return HD_OK;
}

static enum hd_err probe_source(struct probe *out, struct hd_net_client *client,
                                const struct fetch *f, const struct hd_source *s,
                                struct hd_errmsg *msg)
{
    enum hd_err err = ask(out, client, f, msg);
    if (err == HD_ERR_DENIED && s->type == HD_SOURCE_HUGGINGFACE && !f->bearer) {
        struct hd_errmsg why = *msg;
        return hd_fail(msg, err,
                       "%.300s (if the repository is gated: accept its licence there and set "
                       "HF_TOKEN)",
                       why.text);
    }
    if (!err && s->type != HD_SOURCE_HTTPS && !s->sha256 && !out->sha256[0])
        err = ask_listing(out, client, f, s, msg);
    if (!err)
        err = check_offer(out, s, msg);
    if (!err && !out->size)
        out->size = s->size;
    if (!err && !out->sha256[0] && s->sha256)
        memcpy(out->sha256, s->sha256, sizeof out->sha256);
    return err;
}

/* ------------------------------------------------------------------------- fetching a piece */

/* One GET under way. */
struct piece {
    struct fetch *fetch;
    uint64_t begin, at, end; /* [begin, at) is written */
    uint64_t committed;      /* [begin, committed) is in the journal */
    double commit_s;         /* when that was */
    bool whole;              /* no range was asked: the single stream */
    struct hd_errmsg why;    /* of our own callbacks */
};

/* The same file as the other pieces? A weak or absent ETag says nothing. */
static bool same_version(struct fetch *f, const char *etag)
{
    bool same = true;
    if (etag[0] != '"')
        return true;
    pthread_mutex_lock(&f->mu);
    if (!f->etag[0])
        snprintf(f->etag, sizeof f->etag, "%s", etag);
    else
        same = !strcmp(f->etag, etag);
    if (!same)
        f->changed = true;
    pthread_mutex_unlock(&f->mu);
    return same;
}

static enum hd_err check_head(const struct hd_net_response *r, void *ud)
{
    struct piece *p = ud;
    struct fetch *f = p->fetch;
    uint64_t want = p->end - p->at;
    if (r->encoded)
        return hd_fail(&p->why, HD_ERR_FORMAT, "sends the file in a content encoding");
    if (!same_version(f, r->etag))
        return hd_fail(&p->why, HD_ERR_FORMAT, "the file changed while it was fetched");
    if (r->has_range && r->range_total && r->range_total != f->job->size)
        return hd_fail(&p->why, HD_ERR_FORMAT, "sends a file of %llu bytes, announced were %llu",
                       (unsigned long long)r->range_total, (unsigned long long)f->job->size);
    if (r->status == 206 && !p->whole && (!r->has_range || r->range_begin != p->at))
        return hd_fail(&p->why, HD_ERR_FORMAT, "sends another range than the one asked for");
    if (r->status != 206 && !p->whole && want != f->job->size) {
        pthread_mutex_lock(&f->mu);
        f->no_ranges = true;
        pthread_mutex_unlock(&f->mu);
        return hd_fail(&p->why, HD_ERR_UNSUPPORTED, "knows no ranges");
    }
    if (r->length >= 0 && (uint64_t)r->length != want)
        return hd_fail(&p->why, HD_ERR_FORMAT, "announces %lld bytes where %llu are due",
                       (long long)r->length, (unsigned long long)want);
    return HD_OK;
}

static enum hd_err commit_piece(struct piece *p, struct hd_errmsg *msg)
{
    enum hd_err err = hd_target_commit(p->fetch->job->target, p->committed, p->at, msg);
    p->committed = err ? p->committed : p->at;
    p->commit_s = hd_clock_seconds();
    return err;
}

static enum hd_err take_data(const void *data, size_t len, void *ud)
{
    struct piece *p = ud;
    struct hd_target *target = p->fetch->job->target;
    if (len > p->end - p->at)
        return hd_fail(&p->why, HD_ERR_FORMAT, "sends more bytes than it announced");
    enum hd_err err = hd_target_write(target, p->at, data, len, &p->why);
    if (err)
        return err;
    p->at += len;
    hd_target_progress(target, (int64_t)len);
    /* On a slow line a piece takes minutes: a crash must not cost all of it. */
    double now = hd_clock_seconds();
    if (p->whole || now - p->commit_s < commit_every_s)
        return HD_OK;
    return commit_piece(p, &p->why);
}

/* One request for what is left of the piece. */
static enum hd_err get_once(struct piece *p, struct hd_net_client *client, double *retry_after,
                            struct hd_errmsg *msg)
{
    struct fetch *f = p->fetch;
    struct hd_net_response r;
    struct hd_net_request q = request_for(f);
    char etag[192];
    pthread_mutex_lock(&f->mu);
    memcpy(etag, f->etag, sizeof etag);
    pthread_mutex_unlock(&f->mu);
    if (!p->whole) {
        q.range_begin = p->at;
        q.range_len = p->end - p->at;
        q.if_range = etag[0] ? etag : NULL;
    }
    q.answer_s = q.stall_s; /* the source is known to live: a busy one may think for a while */
    q.min_bytes_per_s = MIN_BYTES_PER_S;
    q.cancel = &f->job->stop;
    q.on_head = check_head;
    q.on_data = take_data;
    q.ud = p;
    p->why.text[0] = 0;
    enum hd_err err = hd_net_perform(client, &r, &q, msg);
    *retry_after = r.retry_after_s;
    if (err && p->why.text[0])
        *msg = p->why;
    if (!err && p->at < p->end)
        err = hd_fail(msg, HD_ERR_IO, "the answer ended early");
    return err;
}

static bool worth_another_try(enum hd_err err)
{
    return err == HD_ERR_IO || err == HD_ERR_TIMEOUT || err == HD_ERR_UNAVAILABLE ||
           err == HD_ERR_BUSY;
}

/* Tries until the piece is whole, or MAX_ATTEMPTS in a row bring nothing. What came is kept. */
static enum hd_err get_piece(struct piece *p, struct hd_net_client *client, struct hd_errmsg *msg)
{
    struct hd_pull__job *job = p->fetch->job;
    enum hd_err err = HD_OK;
    double retry_after = 0;
    for (int failures = 0, n = 0; p->at < p->end && n < MAX_REQUESTS; n++) {
        uint64_t before = p->at;
        err = get_once(p, client, &retry_after, msg);
        if (!err || !worth_another_try(err) || hd_target_failed(job->target) ||
            atomic_load(&job->stop))
            break;
        if (p->whole) { /* a server without ranges begins again */
            hd_target_progress(job->target, -(int64_t)(p->at - p->begin));
            p->at = p->begin;
            failures++;
        } else {
            failures = p->at > before ? 1 : failures + 1;
        }
        if (failures >= (p->whole ? 3 : MAX_ATTEMPTS))
            break;
        double wait = retry_after > 0 ? retry_after : 0.2 * (1 << failures);
        hd_pull__sleep(job, wait < 30 ? wait : 30);
    }
    return err;
}

static void record_failure(struct fetch *f, enum hd_err err, const struct hd_errmsg *why)
{
    pthread_mutex_lock(&f->mu);
    if (!f->err) {
        f->err = err;
        f->why = *why;
    }
    pthread_mutex_unlock(&f->mu);
    atomic_store(&f->job->stop, true);
}

static bool take_next(struct fetch *f, struct piece *p)
{
    pthread_mutex_lock(&f->mu);
    bool there =
        !f->err && hd_target_next_gap(f->job->target, f->cursor, f->piece, &p->begin, &p->end);
    if (there)
        f->cursor = p->end;
    pthread_mutex_unlock(&f->mu);
    p->at = p->committed = p->begin;
    p->commit_s = hd_clock_seconds();
    return there;
}

static void fetch_pieces(void *ud, int worker)
{
    struct fetch *f = ud;
    struct hd_net_client *client;
    struct hd_errmsg msg = {0};
    struct piece p = {.fetch = f};
    enum hd_err err = hd_net_client_new(&client, &msg);
    while (!err && !atomic_load(&f->job->stop) && take_next(f, &p)) {
        err = get_piece(&p, client, &msg);
        struct hd_errmsg commit_msg = {0};
        enum hd_err commit_err = commit_piece(&p, &commit_msg); /* also what a failure left */
        if (commit_err && !err) {
            err = commit_err;
            msg = commit_msg;
        }
    }
    if (err)
        record_failure(f, err, &msg);
    hd_net_client_free(client);
}

static void fetch_stream(void *ud, int worker)
{
    struct fetch *f = ud;
    struct hd_net_client *client;
    struct hd_errmsg msg = {0};
    struct piece p = {.fetch = f, .end = f->job->size, .whole = true};
    enum hd_err err = hd_net_client_new(&client, &msg);
    if (!err)
        err = get_piece(&p, client, &msg);
    if (!err)
        err = hd_target_commit(f->job->target, 0, p.end, &msg);
    if (err)
        record_failure(f, err, &msg);
    hd_net_client_free(client);
}

/* ------------------------------------------------------------------------- the source */

static uint64_t piece_bytes(uint64_t size)
{
    uint64_t piece = size / 64;
    return piece < MIN_PIECE ? MIN_PIECE : piece > MAX_PIECE ? MAX_PIECE : piece;
}

static enum hd_err run_once(struct fetch *f, struct hd_errmsg *msg)
{
    struct hd_pull__job *job = f->job;
    int n = job->options->connections > 0 ? job->options->connections : DEFAULT_CONNECTIONS;
    uint64_t begin, end;
    f->err = HD_OK;
    f->cursor = 0;
    f->changed = false;
    f->etag[0] = 0;
    f->piece = piece_bytes(job->size);
    if (!hd_target_next_gap(job->target, 0, 1, &begin, &end))
        return HD_OK;
    enum hd_err err = hd_pull__run_workers(job, n, fetch_pieces, f, msg);
    if (!err && f->no_ranges && !hd_pull__cancelled(job)) {
        f->err = HD_OK;
        f->etag[0] = 0;
        hd_target_progress(job->target, -(int64_t)hd_target_progress(job->target, 0));
        hd_pull__say(job, HD_PULL_NOTICE, "the server knows no ranges: one stream, not resumable");
        err = hd_pull__run_workers(job, 1, fetch_stream, f, msg);
    }
    if (!err && f->err)
        err = hd_fail(msg, f->err, "%s", f->why.text[0] ? f->why.text : hd_err_text(f->err));
    return err;
}

enum hd_err hd_pull__from_hub(struct hd_pull__job *job, const struct hd_source *source,
                              struct hd_errmsg *msg)
{
    struct hd_net_client *client = NULL;
    struct fetch f = {.job = job, .mu = PTHREAD_MUTEX_INITIALIZER};
    struct probe probe;
    char *url = address_of(job, source, &f.plain_http);
    enum hd_err err =
        url ? hd_net_client_new(&client, msg) : hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    f.url = url;
    if (source->type == HD_SOURCE_HUGGINGFACE && job->options->hf_token && *job->options->hf_token)
        f.bearer = job->options->hf_token;
    for (int change = 0; !err; change++) {
        err = probe_source(&probe, client, &f, source, msg);
        memcpy(job->git, probe.sha256[0] ? "" : probe.git, probe.sha256[0] ? 1 : sizeof job->git);
        if (!err)
            err = hd_pull__begin(job, probe.size, probe.sha256, probe.etag, 0, msg);
        if (!err)
            err = run_once(&f, msg);
        if (!err)
            break;
        if (!f.changed || change + 1 >= MAX_CHANGES || hd_pull__cancelled(job))
            break;
        /* Another ETag: ask again. The same hash keeps what was fetched, another one does not. */
        hd_pull__say(job, HD_PULL_NOTICE, "the file changed while it was fetched: asking again");
        hd_pull__sleep(job, 0.3);
        err = HD_OK;
    }
    pthread_mutex_destroy(&f.mu);
    hd_net_client_free(client);
    free(url);
    return err;
}
