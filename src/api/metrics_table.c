/* Every metric of the server, in one table. */
#include "api/api_impl.h"

#include <stdio.h>

static const double ttft_buckets[] = {0.05, 0.1, 0.25, 0.5, 0.75, 1,  1.5, 2,
                                      3,    5,   7.5,  10,  20,   40, 80,  160};
static const double overhead_buckets[] = {0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075,
                                          0.01,    0.025,  0.05,  0.1,   0.25,  1};
static const double tpot_buckets[] = {0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06,
                                      0.08,  0.1,  0.15,  0.2,  0.3,  0.5,  1};
static const double duration_buckets[] = {0.1, 0.25, 0.5, 1,  2,  3,   5,   7.5,
                                          10,  15,   20,  30, 60, 120, 240, 600};
static const double queue_buckets[] = {0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60};
static const double kb_buckets[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                    0.5,   1,      2.5,   5,    10,    30,   60};

#define BUCKETS(array) array, sizeof array / sizeof *array

static const struct hd_metric table[M_COUNT] = {
    [M_HTTP_REQUESTS] = {"holdfast_http_requests_total",
                         HD_METRIC_COUNTER,
                         "HTTP requests by route; code 499: the client left first.",
                         {"route", "method", "code"},
                         NULL,
                         0},
    [M_REJECTED] = {"holdfast_rejected_total",
                    HD_METRIC_COUNTER,
                    "Requests refused before any work.",
                    {"reason"},
                    NULL,
                    0},
    [M_CANCELLED] = {"holdfast_cancelled_total",
                     HD_METRIC_COUNTER,
                     "Generations cancelled, by how far they had come.",
                     {"phase"},
                     NULL,
                     0},
    [M_TOKENS] =
        {"holdfast_tokens_total",
         HD_METRIC_COUNTER,
         "Tokens: prompt, cached (of the prompt, not computed again), generated, reasoning "
         "(of the generated).",
         {"phase"},
         NULL,
         0},
    [M_REASONING_STOPS] =
        {"holdfast_reasoning_stops_total",
         HD_METRIC_COUNTER,
         "Thoughts by why they ended: closed (by the model), budget, length, loop, ended (the "
         "model's turn, without an answer), open (cancelled or failed).",
         {"reason"},
         NULL,
         0},
    [M_ANSWER_LOOPS] = {"holdfast_answer_loops_total",
                        HD_METRIC_COUNTER,
                        "Answers that went round in circles and were cut.",
                        {NULL},
                        NULL,
                        0},
    [M_TTFT] = {"holdfast_ttft_seconds",
                HD_METRIC_HISTOGRAM,
                "From submission to the first token.",
                {NULL},
                BUCKETS(ttft_buckets)},
    [M_FIRST_OVERHEAD] = {"holdfast_first_token_overhead_seconds",
                          HD_METRIC_HISTOGRAM,
                          "What the server adds to the first token of a stream: from the "
                          "request's last byte to the first text sent, without the engine's work.",
                          {NULL},
                          BUCKETS(overhead_buckets)},
    [M_TPOT] = {"holdfast_tpot_seconds",
                HD_METRIC_HISTOGRAM,
                "Time per generated token after the first.",
                {NULL},
                BUCKETS(tpot_buckets)},
    [M_DURATION] = {"holdfast_request_duration_seconds",
                    HD_METRIC_HISTOGRAM,
                    "Generations from request to last byte, by end.",
                    {"finish"},
                    BUCKETS(duration_buckets)},
    [M_QUEUE_WAIT] = {"holdfast_queue_wait_seconds",
                      HD_METRIC_HISTOGRAM,
                      "Time a generation waited for its turn.",
                      {NULL},
                      BUCKETS(queue_buckets)},
    [M_QUEUE_DEPTH] =
        {"holdfast_queue_depth", HD_METRIC_GAUGE, "Generations that wait.", {NULL}, NULL, 0},
    [M_RUNNING] =
        {"holdfast_running_requests", HD_METRIC_GAUGE, "Generations that run.", {NULL}, NULL, 0},
    [M_WORKER_QUEUE] = {"holdfast_worker_queue_depth",
                        HD_METRIC_GAUGE,
                        "Calls that wait for a worker thread.",
                        {"pool"},
                        NULL,
                        0},
    [M_KV_USED_RATIO] = {"holdfast_kv_cache_used_ratio",
                         HD_METRIC_GAUGE,
                         "Share of KV blocks in use.",
                         {NULL},
                         NULL,
                         0},
    [M_KV_BLOCKS] =
        {"holdfast_kv_blocks", HD_METRIC_GAUGE, "KV blocks of 64 tokens.", {"state"}, NULL, 0},
    [M_AHEAD_TOKENS] = {"holdfast_ahead_tokens_total",
                        HD_METRIC_COUNTER,
                        "Prompt tokens of next turns: computed while idle; used by requests, which "
                        "were saved that time.",
                        {"kind"},
                        NULL,
                        0},
    [M_KV_DISK_BLOCKS] = {"holdfast_kv_disk_blocks_total",
                          HD_METRIC_COUNTER,
                          "KV blocks written to disk, and read back instead of being computed.",
                          {"kind"},
                          NULL,
                          0},
    [M_KV_DISK_BYTES] =
        {"holdfast_kv_disk_bytes", HD_METRIC_GAUGE, "KV blocks on disk.", {NULL}, NULL, 0},
    [M_ENGINE_REQUESTS] = {"holdfast_engine_requests_total",
                           HD_METRIC_COUNTER,
                           "Generations by outcome.",
                           {"outcome"},
                           NULL,
                           0},
    [M_ENGINE_STEPS] =
        {"holdfast_engine_steps_total", HD_METRIC_COUNTER, "Scheduler steps.", {NULL}, NULL, 0},
    [M_ENGINE_BUSY] = {"holdfast_engine_busy_seconds_total",
                       HD_METRIC_COUNTER,
                       "Time inside scheduler steps.",
                       {NULL},
                       NULL,
                       0},
    [M_STEP_AGE] = {"holdfast_engine_step_age_seconds",
                    HD_METRIC_GAUGE,
                    "Since the last step ended; 0 while idle.",
                    {NULL},
                    NULL,
                    0},
    [M_MODEL_INFO] = {"holdfast_model_load_seconds",
                      HD_METRIC_GAUGE,
                      "Loaded models and how long loading took.",
                      {"model", "arch", "backend"},
                      NULL,
                      0},
    [M_BUILD_INFO] =
        {"holdfast_build_info", HD_METRIC_GAUGE, "Always 1.", {"version", "compiler"}, NULL, 0},
    [M_READY] =
        {"holdfast_ready", HD_METRIC_GAUGE, "1 while new work is accepted.", {NULL}, NULL, 0},
    [M_KB_STAGE] = {"holdfast_kb_stage_seconds",
                    HD_METRIC_HISTOGRAM,
                    "Stages of grounded answers and searches.",
                    {"stage"},
                    BUCKETS(kb_buckets)},
    [M_KB_ANSWERS] = {"holdfast_kb_answers_total",
                      HD_METRIC_COUNTER,
                      "Grounded answers: found, not_found, quoted.",
                      {"outcome"},
                      NULL,
                      0},
    [M_EMBED_TEXTS] = {"holdfast_embed_texts_total",
                       HD_METRIC_COUNTER,
                       "Texts that encoders computed; truncated: longer than the model reads.",
                       {"kind"},
                       NULL,
                       0},
    [M_EMBED_TOKENS] = {"holdfast_embed_tokens_total",
                        HD_METRIC_COUNTER,
                        "Tokens that encoders computed.",
                        {NULL},
                        NULL,
                        0},
    [M_EMBED_DURATION] = {"holdfast_embed_duration_seconds",
                          HD_METRIC_HISTOGRAM,
                          "Requests for vectors and scores, from arrival to the last result.",
                          {"route"},
                          BUCKETS(kb_buckets)},
    [M_EMBED_QUEUE] = {"holdfast_embed_queue_depth",
                       HD_METRIC_GAUGE,
                       "Requests for vectors and scores that run or wait.",
                       {NULL},
                       NULL,
                       0},
};

enum hd_err hd_api__metrics_new(struct hd_metrics **out)
{
    enum hd_err err = hd_metrics_new(out, table, M_COUNT, 1000);
    if (err)
        return err;
    hd_metrics_set(*out, M_BUILD_INFO, HD_LABELS(HOLDFAST_VERSION, __VERSION__), 1);
    for (size_t i = 0; i < 3; i++) /* counters exist from the start, so that rates do */
        hd_metrics_add(*out, M_CANCELLED,
                       HD_LABELS(((const char *[]){"queue", "prefill", "decode"})[i]), 0);
    return HD_OK;
}

static void collect_models(struct hd_api *api)
{
    struct hd_model_info info;
    for (size_t i = 0; i < hd_engine_n_model(api->engine); i++)
        if (!hd_engine_model_info(api->engine, i, &info))
            hd_metrics_set(api->metrics, M_MODEL_INFO,
                           HD_LABELS(info.name, info.arch, info.backend), info.load_s);
}

void hd_api__metrics_collect(struct hd_api *api)
{
    struct hd_metrics *m = api->metrics;
    struct hd_engine_stats s;
    hd_engine_stats(api->engine, &s);
    hd_metrics_set(m, M_QUEUE_DEPTH, NULL, s.waiting);
    hd_metrics_set(m, M_RUNNING, NULL, s.running);
    hd_metrics_set(m, M_STEP_AGE, NULL, s.last_step_age_s);
    hd_metrics_set(m, M_ENGINE_STEPS, NULL, (double)s.steps);
    hd_metrics_set(m, M_ENGINE_BUSY, NULL, s.busy_s);
    hd_metrics_set(m, M_KV_BLOCKS, HD_LABELS("used"), s.kv_blocks_used);
    hd_metrics_set(m, M_KV_BLOCKS, HD_LABELS("total"), s.kv_blocks_total);
    hd_metrics_set(m, M_AHEAD_TOKENS, HD_LABELS("computed"), (double)s.ahead_tokens);
    hd_metrics_set(m, M_AHEAD_TOKENS, HD_LABELS("used"), (double)s.ahead_used);
    hd_metrics_set(m, M_KV_DISK_BLOCKS, HD_LABELS("written"), (double)s.disk_written);
    hd_metrics_set(m, M_KV_DISK_BLOCKS, HD_LABELS("read"), (double)s.disk_read);
    hd_metrics_set(m, M_KV_DISK_BYTES, NULL, (double)s.disk_bytes);
    hd_metrics_set(m, M_KV_USED_RATIO, NULL,
                   s.kv_blocks_total ? (double)s.kv_blocks_used / s.kv_blocks_total : 0);
    hd_metrics_set(m, M_TOKENS, HD_LABELS("prompt"), (double)s.prompt_tokens);
    hd_metrics_set(m, M_TOKENS, HD_LABELS("cached"), (double)s.cached_tokens);
    hd_metrics_set(m, M_TOKENS, HD_LABELS("generated"), (double)s.generated_tokens);
    hd_metrics_set(m, M_TOKENS, HD_LABELS("reasoning"), (double)s.reasoning_tokens);
    for (int i = HD_REASONING_NONE + 1; i < HD_REASONING_N; i++)
        hd_metrics_set(m, M_REASONING_STOPS, HD_LABELS(hd_reasoning_stop_name(i)),
                       (double)s.reasoning_stops[i]);
    hd_metrics_set(m, M_ANSWER_LOOPS, NULL, (double)s.answer_loops);
    hd_metrics_set(m, M_ENGINE_REQUESTS, HD_LABELS("finished"), (double)s.finished);
    hd_metrics_set(m, M_ENGINE_REQUESTS, HD_LABELS("cancelled"), (double)s.cancelled);
    hd_metrics_set(m, M_ENGINE_REQUESTS, HD_LABELS("failed"), (double)s.failed);
    hd_metrics_set(m, M_ENGINE_REQUESTS, HD_LABELS("refused"), (double)s.refused);
    hd_metrics_set(m, M_EMBED_TEXTS, HD_LABELS("whole"),
                   (double)(s.embed_texts - s.embed_truncated));
    hd_metrics_set(m, M_EMBED_TEXTS, HD_LABELS("truncated"), (double)s.embed_truncated);
    hd_metrics_set(m, M_EMBED_TOKENS, NULL, (double)s.embed_tokens);
    hd_metrics_set(m, M_EMBED_QUEUE, NULL, s.embed_waiting);
    hd_metrics_set(m, M_READY, NULL, atomic_load(&api->ready) && !atomic_load(&api->draining));
    hd_metrics_set(m, M_WORKER_QUEUE, HD_LABELS("quick"), hd_api__workers_waiting(api->quick));
    hd_metrics_set(m, M_WORKER_QUEUE, HD_LABELS("slow"), hd_api__workers_waiting(api->slow));
    collect_models(api);
}

void hd_api__metrics_result(struct hd_api *api, const struct hd_result *result, double seconds)
{
    static const char *const ends[] = {"stop", "length", "cancelled", "error"};
    struct hd_metrics *m = api->metrics;
    hd_metrics_observe(m, M_DURATION, HD_LABELS(ends[result->finish]), seconds);
    hd_metrics_observe(m, M_QUEUE_WAIT, NULL, result->queue_s);
    if (result->n_generated > 0)
        hd_metrics_observe(m, M_TTFT, NULL, result->ttft_s);
    if (result->n_generated > 1)
        hd_metrics_observe(m, M_TPOT, NULL, result->decode_s / (result->n_generated - 1));
    if (result->finish == HD_FINISH_CANCELLED)
        hd_metrics_add(m, M_CANCELLED,
                       HD_LABELS(result->n_generated > 0 ? "decode"
                                 : result->prefill_s > 0 ? "prefill"
                                                         : "queue"),
                       1);
}
