/* Health, readiness, start-up and metrics: answered on the event thread, whatever else is busy. */
#include "api/api_impl.h"

#include <string.h>

/* A step of a large prompt on a slow machine takes seconds; nothing takes this long. */
enum { STUCK_AFTER_S = 120 };

void hd_api__healthz(struct hd_http_request *request, void *ud)
{
    struct hd_api *api = ud;
    struct hd_engine_stats stats;
    hd_engine_stats(api->engine, &stats);
    bool alive = stats.last_step_age_s < STUCK_AFTER_S;
    hd_api__reply_json(request, alive ? 200 : 503,
                       json_pack("{s:s,s:f,s:i,s:i}", "status",
                                 alive ? "ok" : "the engine makes no progress", "step_age_seconds",
                                 stats.last_step_age_s, "running", stats.running, "waiting",
                                 stats.waiting));
}

void hd_api__readyz(struct hd_http_request *request, void *ud)
{
    struct hd_api *api = ud;
    bool draining = atomic_load(&api->draining), ready = atomic_load(&api->ready);
    const char *status = draining ? "draining" : ready ? "ready" : "loading";
    hd_api__reply_json(request, ready && !draining ? 200 : 503,
                       json_pack("{s:s,s:I}", "status", status, "models",
                                 (json_int_t)hd_engine_n_model(api->engine)));
}

static json_t *progress_json(const struct hd_load_progress *p)
{
    return json_pack(
        "{s:s,s:I,s:I,s:f,s:f,s:o,s:b,s:b}", "id", p->name, "bytes", (json_int_t)p->bytes_done,
        "bytes_total", (json_int_t)p->bytes_total, "percent",
        p->bytes_total ? 100.0 * (double)p->bytes_done / (double)p->bytes_total : 100.0, "seconds",
        p->seconds, "eta_seconds", p->eta_s < 0 ? json_null() : json_real(p->eta_s), "ready",
        (int)p->ready, "loaded", (int)p->loaded);
}

/* Bytes of the models that are bound so far; later ones are not known yet. */
void hd_api__startupz(struct hd_http_request *request, void *ud)
{
    struct hd_api *api = ud;
    struct hd_load_progress p;
    bool ready = atomic_load(&api->ready), weights = false;
    double bytes = 0, total = 0, eta = 0;
    json_t *models = json_array();
    for (size_t i = 0; !hd_engine_load_progress(api->engine, i, &p); i++) {
        json_array_append_new(models, progress_json(&p));
        bytes += (double)p.bytes_done;
        total += (double)p.bytes_total;
        weights |= !p.loaded;
        eta = p.eta_s < 0 || eta < 0 ? -1 : eta > p.eta_s ? eta : p.eta_s;
    }
    pthread_mutex_lock(&api->mu);
    json_t *body = json_pack(
        "{s:s,s:s,s:i,s:i,s:I,s:I,s:f,s:o,s:o}", "status", ready ? "ready" : "loading", "stage",
        weights ? "weights"
        : ready ? "ready"
                : api->stage,
        "done", api->stage_done, "total", api->stage_total, "bytes", (json_int_t)bytes,
        "bytes_total", (json_int_t)total, "percent",
        total > 0 ? 100 * bytes / total
        : ready   ? 100.0
                  : 0.0,
        "eta_seconds", eta < 0 || (!ready && total <= 0) ? json_null() : json_real(eta), "models",
        models);
    pthread_mutex_unlock(&api->mu);
    hd_api__reply_json(request, ready ? 200 : 503, body);
}

void hd_api__show_metrics(struct hd_http_request *request, void *ud)
{
    struct hd_api *api = ud;
    struct hd_buf text;
    hd_buf_init(&text, 4 << 20);
    hd_api__metrics_collect(api);
    hd_metrics_write(api->metrics, &text);
    hd_http_reply(request, text.err ? 503 : 200, "text/plain; version=0.0.4; charset=utf-8",
                  hd_buf_str(&text), text.err ? 0 : text.len);
    hd_buf_dispose(&text);
}
