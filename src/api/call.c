/* Calls: requests that leave the event thread. Their memory lives as long as their HTTP request. */
#include "api/api_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

static void call_free(void *object)
{
    struct hd_api__call *call = object;
    struct hd_api *api = call->api;
    if (call->dispose)
        call->dispose(call);
    free(call->content_type);
    free(call);
    pthread_mutex_lock(&api->mu);
    if (!--api->n_live)
        pthread_cond_broadcast(&api->idle);
    pthread_mutex_unlock(&api->mu);
}

static void call_gone(void *object)
{
    struct hd_api__call *call = object;
    if (call->gone)
        call->gone(call);
}

static void call_work(struct hd_api__job *job)
{
    struct hd_api__call *call = (struct hd_api__call *)job;
    struct hd_http_request *http = call->http; /* may outlive the call's last use below */
    if (!hd_http_request_gone(http))
        call->run(call);
    hd_http_request_unref(http);
}

void hd_api__run_work(struct hd_api__call *call)
{
    struct hd_api__fault fault;
    if (call->work(call, &fault))
        hd_api__reply_fault(call->api, call->http, &fault);
}

/* When a request has to be done: the server's limit, or less where the request says so. */
static int take_deadline(struct hd_api__call *call, struct hd_api__fault *fault)
{
    const char *text = hd_http_request_header(call->http, "X-Request-Timeout");
    double seconds = call->api->options.request_timeout_s, asked = 0;
    if (text) {
        char *end;
        asked = strtod(text, &end);
        if (end == text || *end || !isfinite(asked) || asked <= 0 || asked > 1e6)
            return hd_api__fault(fault, 400, "invalid_value", "X-Request-Timeout",
                                 "X-Request-Timeout: a number of seconds greater than 0");
    }
    if (asked > 0 && (seconds <= 0 || asked < seconds))
        seconds = asked;
    call->deadline = seconds > 0 ? hd_clock_seconds() + seconds : 0;
    return 0;
}

void hd_api__call_start(struct hd_api *api, struct hd_http_request *request, size_t size,
                        struct hd_api__workers *on, const struct hd_api__call *like)
{
    struct hd_api__fault fault;
    struct hd_api__call *call = calloc(1, size);
    if (!call) {
        hd_api__fault(&fault, 503, NULL, NULL, "out of memory");
        hd_api__reply_fault(api, request, &fault);
        return;
    }
    *call = *like;
    call->job.run = call_work;
    call->api = api;
    call->http = request;
    if (take_deadline(call, &fault)) {
        free(call);
        hd_api__reply_fault(api, request, &fault);
        return;
    }
    call->who = hd_api__principal(api, request);
    const char *type = hd_http_request_header(request, "Content-Type");
    call->content_type = type ? strdup(type) : NULL;
    if (call->init)
        call->init(call);
    pthread_mutex_lock(&api->mu);
    api->n_live++;
    pthread_mutex_unlock(&api->mu);
    hd_http_request_attach(request, call, call_gone, call_free);
    hd_http_request_ref(request);
    if (!hd_api__workers_post(on, &call->job, false))
        return;
    hd_metrics_add(api->metrics, M_REJECTED, HD_LABELS("workers"), 1);
    hd_api__fault(&fault, 429, "rate_limit_exceeded", NULL,
                  "too many requests wait for a worker; try again later");
    hd_api__reply_fault(api, request, &fault);
    hd_http_request_unref(request);
}
