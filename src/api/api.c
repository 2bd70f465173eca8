/* The room's object: routes, hooks, start and end. */
#include "api/api_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

enum { QUICK_THREADS = 2, QUICK_QUEUE = 512, SLOW_THREADS = 1, SLOW_QUEUE = 16 };

static void show_file(struct hd_http_request *request, void *ud)
{
    struct hd_api *api = ud;
    const char *name = hd_http_request_var(request, "file");
    if (!name)
        name = strcmp(hd_http_request_pattern(request), "/") ? "openapi.json" : "index.html";
    for (size_t i = 0; i < api->options.n_file; i++) {
        const struct hd_api_file *file = &api->options.files[i];
        if (!strcmp(file->name, name)) {
            hd_http_reply_static(request, 200, file->content_type, file->data, file->len);
            return;
        }
    }
    struct hd_api__fault fault;
    hd_api__fault(&fault, 404, "not_found", NULL, "there is nothing at this address");
    hd_api__reply_fault(api, request, &fault);
}

#define BASES "/v1/knowledge_bases"

static const struct hd_http_route routes[] = {
    {"POST", "/v1/chat/completions", hd_api__generate, ROUTE_GENERATE},
    {"POST", "/v1/completions", hd_api__generate, ROUTE_GENERATE},
    {"POST", "/v1/responses", hd_api__generate, ROUTE_GENERATE},
    {"POST", "/v1/messages", hd_api__generate, ROUTE_GENERATE},
    {"POST", "/v1/messages/count_tokens", hd_api__count_tokens, ROUTE_WORK},
    {"POST", "/api/chat", hd_api__generate, ROUTE_GENERATE},
    {"POST", "/api/generate", hd_api__generate, ROUTE_GENERATE},
    {"POST", "/api/embed", hd_api__embed, ROUTE_WORK},
    {"GET", "/api/tags", hd_api__ollama_tags, ROUTE_READ},
    {"GET", "/api/ps", hd_api__ollama_tags, ROUTE_READ},
    {"POST", "/api/show", hd_api__ollama_show, ROUTE_READ},
    {"GET", "/api/version", hd_api__ollama_version, ROUTE_OPEN},
    {"POST", "/v1/embeddings", hd_api__embed, ROUTE_WORK},
    {"POST", "/v1/rerank", hd_api__embed, ROUTE_WORK},
    {"GET", "/v1/streams/{id}", hd_api__generate, ROUTE_WORK},
    {"GET", "/v1/models", hd_api__models, ROUTE_READ},
    {"GET", "/v1/models/{model}", hd_api__model, ROUTE_READ},
    {"POST", "/tokenize", hd_api__tokenize, ROUTE_TOKENS},
    {"POST", "/detokenize", hd_api__detokenize, ROUTE_TOKENS},
    {"GET", "/openapi.json", show_file, ROUTE_OPEN},
    {"GET", "/healthz", hd_api__healthz, ROUTE_OPEN},
    {"GET", "/readyz", hd_api__readyz, ROUTE_OPEN},
    {"GET", "/startupz", hd_api__startupz, ROUTE_OPEN},
    {"GET", "/metrics", hd_api__show_metrics, ROUTE_READ},
    {"GET", BASES, hd_api__kb_list, ROUTE_READ},
    {"POST", BASES, hd_api__kb_create, ROUTE_WORK},
    {"GET", BASES "/{kb}", hd_api__kb_info, ROUTE_READ},
    {"DELETE", BASES "/{kb}", hd_api__kb_delete, ROUTE_WORK},
    {"GET", BASES "/{kb}/documents", hd_api__kb_documents, ROUTE_READ},
    {"POST", BASES "/{kb}/documents", hd_api__kb_add, ROUTE_WORK},
    {"GET", BASES "/{kb}/documents/{id}", hd_api__kb_document, ROUTE_READ},
    {"DELETE", BASES "/{kb}/documents/{id}", hd_api__kb_remove, ROUTE_WORK},
    {"POST", BASES "/{kb}/search", hd_api__kb_search, ROUTE_WORK},
    {"GET", "/", show_file, ROUTE_OPEN},
    {"GET", "/{file}", show_file, ROUTE_OPEN},
};

const struct hd_http_route *hd_api__routes(size_t *n)
{
    *n = sizeof routes / sizeof *routes;
    return routes;
}

/* On every response. Nothing may be framed, sniffed, cached or loaded from elsewhere. */
static const struct hd_http_header headers[] = {
    {"Content-Security-Policy",
     "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
     "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
    {"X-Content-Type-Options", "nosniff"},
    {"X-Frame-Options", "DENY"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
    {"Cache-Control", "no-store"},
};

static void error_body(struct hd_buf *out, const char *path, int status, const char *message,
                       void *ud)
{
    hd_api__put_error(out, path, status,
                      status == 404   ? "not_found"
                      : status == 405 ? "method_not_allowed"
                      : status == 413 ? "body_too_large"
                                      : NULL,
                      NULL, message);
}

static void on_done(const struct hd_http_done *done, void *ud)
{
    struct hd_api *api = ud;
    static const char *const methods[] = {"GET", "POST", "DELETE", "HEAD"};
    const char *method = "other"; /* never a label of the client's choice */
    char code[16];
    for (size_t i = 0; i < 4; i++)
        if (!strcmp(done->method, methods[i]))
            method = methods[i];
    snprintf(code, sizeof code, "%d", done->status);
    hd_metrics_add(api->metrics, M_HTTP_REQUESTS, HD_LABELS(done->route, method, code), 1);
}

static enum hd_err start_http(struct hd_api *api, struct hd_errmsg *msg)
{
    struct hd_http_options options = HD_HTTP_OPTIONS_DEFAULT;
    options.host = api->options.host;
    options.port = api->options.port;
    options.body_max = api->options.body_max;
    options.routes = hd_api__routes(&options.n_route);
    options.headers = headers;
    options.n_header = sizeof headers / sizeof *headers;
    options.before = hd_api__before;
    options.error_body = error_body;
    options.done = on_done;
    options.ud = api;
    return hd_http_server_new(&api->http, &options, msg);
}

enum hd_err hd_api_new(struct hd_api **out, const struct hd_api_options *options,
                       struct hd_errmsg *msg)
{
    struct hd_api *api = calloc(1, sizeof *api);
    *out = NULL;
    if (!api)
        return hd_fail(msg, HD_ERR_NOMEM, "api: out of memory");
    api->options = *options;
    api->engine = options->engine;
    pthread_mutex_init(&api->mu, NULL);
    pthread_cond_init(&api->idle, NULL);
    enum hd_err err = hd_api__metrics_new(&api->metrics);
    if (!err)
        err = hd_api__streams_new(&api->streams);
    if (!err)
        err = hd_api__workers_new(&api->quick, "hd-quick", QUICK_THREADS, QUICK_QUEUE, true);
    if (!err)
        err = hd_api__workers_new(&api->slow, "hd-slow", SLOW_THREADS, SLOW_QUEUE, false);
    if (err)
        hd_fail(msg, err, "api: %s", hd_err_text(err));
    if (!err)
        err = hd_api__auth_init(api, msg);
    if (!err)
        err = start_http(api, msg);
    if (err) {
        hd_api_free(api);
        return err;
    }
    *out = api;
    return HD_OK;
}

int hd_api_port(const struct hd_api *api)
{
    return hd_http_server_port(api->http);
}

void hd_api_set_stage(struct hd_api *api, const char *stage, int done, int total)
{
    pthread_mutex_lock(&api->mu);
    snprintf(api->stage, sizeof api->stage, "%s", stage);
    api->stage_done = done;
    api->stage_total = total;
    pthread_mutex_unlock(&api->mu);
}

void hd_api_set_ready(struct hd_api *api)
{
    atomic_store(&api->ready, true);
}

int hd_api__retry_after(struct hd_api *api)
{
    struct hd_engine_stats stats;
    hd_engine_stats(api->engine, &stats);
    pthread_mutex_lock(&api->mu);
    double each = api->request_s > 0 ? api->request_s : 1;
    pthread_mutex_unlock(&api->mu);
    /* One place becomes free every each / running seconds; those who wait are first. */
    double seconds = ceil(each * (stats.waiting + 1) / (stats.running > 0 ? stats.running : 1));
    return seconds < 1 ? 1 : seconds > 120 ? 120 : (int)seconds;
}

int hd_api_drain(struct hd_api *api, double seconds)
{
    double end = hd_clock_seconds() + seconds;
    const struct timespec pause = {.tv_nsec = 20000000};
    atomic_store(&api->draining, true);
    while (hd_http_server_active(api->http) && hd_clock_seconds() < end)
        nanosleep(&pause, NULL);
    return hd_http_server_active(api->http);
}

void hd_api_free(struct hd_api *api)
{
    if (!api)
        return;
    atomic_store(&api->draining, true);
    hd_http_server_free(api->http); /* every client is gone: generations are cancelled */
    hd_api__workers_close(api->quick);
    hd_api__workers_close(api->slow);
    pthread_mutex_lock(&api->mu);
    while (api->n_live)
        pthread_cond_wait(&api->idle, &api->mu);
    pthread_mutex_unlock(&api->mu);
    hd_api__workers_free(api->quick);
    hd_api__workers_free(api->slow);
    hd_metrics_free(api->metrics);
    hd_api__streams_free(api->streams);
    hd_api__keys_free(api->keys);
    pthread_mutex_destroy(&api->mu);
    pthread_cond_destroy(&api->idle);
    free(api);
}
