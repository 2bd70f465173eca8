/* The OpenAI API, the knowledge-base API, health and metrics over HTTP.
 *
 * Turns JSON into calls of engine and kb and back. Generation is submitted to the engine and
 * answered from its callbacks; what may block (parsing, tokenizing, searching, reading documents)
 * runs in two small bounded worker pools, so that the event thread of http/ never waits.
 *
 * Lifetime: hd_api_free waits for every request it has given to the engine, so it comes before
 * hd_engine_free. */
#ifndef HD_API_API_H
#define HD_API_API_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "holdfast/holdfast.h"

struct hd_api;

struct hd_api_file { /* one file of the web page; "index.html" also answers "/" */
    const char *name, *content_type;
    const void *data;
    size_t len;
};

struct hd_api_options {
    struct hd_engine *engine; /* may hold no model: then only quoting answers are given */
    const char *kb_dir;       /* folder of all tenants' bases */
    const char *host;
    int port;
    size_t body_max;
    int max_sessions, max_queue; /* as given to the engine: full queues are refused early */
    const char *api_key;         /* of tenant "local"; NULL or "": none */
    const char *keys_file;       /* keys of tenants (see docs/api.md), or NULL */
    double request_timeout_s;    /* of a generation, unless the request says less; 0 = none */
    const struct hd_api_file *files;
    size_t n_file;
};

/* Listens at once; until hd_api_set_ready, only health, metrics, tokens and the page are answered.
 */
enum hd_err hd_api_new(struct hd_api **out, const struct hd_api_options *options,
                       struct hd_errmsg *msg);
int hd_api_port(const struct hd_api *api);
/* What start-up is doing: shown by /startupz. done of total steps. */
void hd_api_set_stage(struct hd_api *api, const char *stage, int done, int total);
void hd_api_set_ready(struct hd_api *api);
/* Refuses new work (503, not ready) and waits at most `seconds` for the running requests. Returns
 * how many are still running. */
int hd_api_drain(struct hd_api *api, double seconds);
/* Ends connections, cancels what runs, waits for it. NULL is fine. */
void hd_api_free(struct hd_api *api);

#endif
