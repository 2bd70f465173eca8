/* The engine over the tiny models: the same text whatever else runs, reuse of beginnings, memory
 * that runs out, limits, ends of every kind. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "holdfast/holdfast.h"

#define MODELS HD_TEST_ROOT "/golden/models/"
enum { N_VOCAB = 320, MOST = 400 };

static struct hd_engine *start(const char *model, const char *kernels, size_t kv_bytes,
                               int max_sessions, int max_queue)
{
    struct hd_errmsg msg = {0};
    struct hd_engine *e = NULL;
    struct hd_engine_options o = HD_ENGINE_OPTIONS_DEFAULT;
    char path[512];
    o.kernels = kernels;
    o.n_thread = 2;
    o.kv_bytes_max = kv_bytes;
    o.max_sessions = max_sessions;
    o.max_queue = max_queue;
    o.max_batch_tokens = 128;
    snprintf(path, sizeof path, MODELS "%s", model);
    if (hd_engine_new(&e, &o, &msg) || hd_engine_load(e, "tiny", path, 0, &msg))
        fail_msg("%s: %s", model, msg.text);
    return e;
}

/* --- one request ------------------------------------------------------------------------------ */

struct run {
    int32_t prompt[MOST];
    size_t n_prompt;
    struct hd_request request;
    uint64_t id;
    int32_t ids[MOST];
    int n_id;
    char text[16384];
    size_t len;
    struct hd_result result;
    atomic_int done;
};

static void on_token(void *ud, int32_t id)
{
    struct run *r = ud;
    if (r->n_id < MOST)
        r->ids[r->n_id++] = id;
}

static void on_text(void *ud, enum hd_text_kind kind, const char *text, size_t len)
{
    struct run *r = ud;
    if (r->len + len < sizeof r->text) {
        memcpy(r->text + r->len, text, len);
        r->len += len;
        r->text[r->len] = 0;
    }
}

static void on_done(void *ud, const struct hd_result *result)
{
    struct run *r = ud;
    r->result = *result;
    atomic_fetch_add(&r->done, 1);
}

/* A prompt of n ids drawn from `seed`, sampled at temperature 1 with the same seed. */
static void prepare(struct run *r, uint32_t seed, size_t n, int n_max)
{
    *r = (struct run){.n_prompt = n};
    uint32_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        r->prompt[i] = (int32_t)((x >> 8) % 300);
    }
    r->request = (struct hd_request){
        .ids = r->prompt,
        .n_id = n,
        .n_max = n_max,
        .ignore_end = true,
        .sampling = {.temperature = 1, .top_p = 0.95f, .repetition_penalty = 1, .seed = seed},
    };
}

static enum hd_err submit(struct hd_engine *e, struct run *r, struct hd_errmsg *msg)
{
    const struct hd_callbacks callbacks = {
        .on_text = on_text, .on_token = on_token, .on_done = on_done, .ud = r};
    return hd_engine_submit(e, &r->id, &r->request, &callbacks, msg);
}

static void nap(void)
{
    const struct timespec t = {0, 1000 * 1000};
    nanosleep(&t, NULL);
}

static void wait_for(struct run *r)
{
    for (int i = 0; i < 60000 && !atomic_load(&r->done); i++)
        nap();
    assert_int_equal(atomic_load(&r->done), 1);
}

static void must_submit(struct hd_engine *e, struct run *r)
{
    struct hd_errmsg msg = {0};
    if (submit(e, r, &msg))
        fail_msg("%s", msg.text);
}

/* The figures are written at the end of a step, a moment after the last callback. */
static void assert_all_blocks_back(struct hd_engine *e)
{
    struct hd_engine_stats stats;
    for (int i = 0; i < 5000; i++) {
        hd_engine_stats(e, &stats);
        if (!stats.kv_blocks_used)
            return;
        nap();
    }
    fail_msg("%d KV blocks are still held", stats.kv_blocks_used);
}

static void assert_same(const struct run *a, const struct run *b)
{
    assert_int_equal(a->n_id, b->n_id);
    assert_memory_equal(a->ids, b->ids, (size_t)a->n_id * sizeof *a->ids);
    assert_string_equal(a->text, b->text);
}

/* --- the promise ------------------------------------------------------------------------------ */

static const char *const model_files[] = {"qwen2-untied.gguf", "llama3", "deepseek-v3-mla.gguf"};

/* Twelve requests alone, one after another, each in a fresh engine; then all at once, submitted by
 * three threads, in one engine with other chunk sizes: the same tokens. */
enum { CROWD = 12 };

static void prepare_crowd(struct run *runs)
{
    for (int i = 0; i < CROWD; i++)
        prepare(&runs[i], (uint32_t)i + 1, 5 + (size_t)(i * 53) % 230, 12 + i % 5);
}

struct submitter {
    struct hd_engine *e;
    struct run *runs;
    int first;
};

static void *submit_some(void *arg)
{
    struct submitter *s = arg;
    struct hd_errmsg msg;
    for (int i = s->first; i < CROWD; i += 3)
        if (submit(s->e, &s->runs[i], &msg))
            return NULL; /* seen by wait_for */
    return NULL;
}

static void load_changes_no_text(void **state)
{
    static struct run alone[CROWD], crowd[CROWD];
    static const char *const kernels[] = {"ref", "auto"};
    for (size_t k = 0; k < 2 * 3; k++) {
        prepare_crowd(alone);
        prepare_crowd(crowd);
        struct hd_engine *e = start(model_files[k / 2], kernels[k % 2], 8 << 20, 1, 64);
        for (int i = 0; i < CROWD; i++) {
            must_submit(e, &alone[i]);
            wait_for(&alone[i]);
            assert_int_equal(alone[i].result.finish, HD_FINISH_LENGTH);
        }
        hd_engine_free(e);
        e = start(model_files[k / 2], kernels[k % 2], 8 << 20, 8, 64);
        pthread_t threads[3];
        struct submitter s[3];
        for (int i = 0; i < 3; i++) {
            s[i] = (struct submitter){e, crowd, i};
            pthread_create(&threads[i], NULL, submit_some, &s[i]);
        }
        for (int i = 0; i < 3; i++)
            pthread_join(threads[i], NULL);
        for (int i = 0; i < CROWD; i++) {
            wait_for(&crowd[i]);
            assert_same(&alone[i], &crowd[i]);
        }
        struct hd_engine_stats stats;
        assert_all_blocks_back(e);
        hd_engine_stats(e, &stats);
        assert_int_equal(stats.finished, CROWD);
        assert_int_equal(stats.running + stats.waiting, 0);
        hd_engine_free(e);
    }
}

/* So little KV that sessions lose their blocks and replay: the same tokens, and all end. */
static void scarce_memory_changes_no_text(void **state)
{
    static struct run alone[6], crowd[6];
    for (size_t k = 0; k < 3; k++) {
        struct hd_engine *e = start(model_files[k], "ref", 64 << 20, 1, 64);
        for (int i = 0; i < 6; i++) {
            prepare(&alone[i], (uint32_t)i + 50, 40 + (size_t)i * 20, 90);
            prepare(&crowd[i], (uint32_t)i + 50, 40 + (size_t)i * 20, 90);
            must_submit(e, &alone[i]);
            wait_for(&alone[i]);
        }
        hd_engine_free(e);
        /* 6 blocks of 64 tokens, for sequences of up to 230: growth must evict */
        size_t block = k == 2 ? 3 * 64 * 48 * 4 : 3 * 64 * 2 * 16 * 2 * 4;
        e = start(model_files[k], "ref", 6 * block, 6, 64);
        for (int i = 0; i < 6; i++)
            must_submit(e, &crowd[i]);
        for (int i = 0; i < 6; i++) {
            wait_for(&crowd[i]);
            assert_same(&alone[i], &crowd[i]);
        }
        hd_engine_free(e);
    }
}

/* --- reuse ------------------------------------------------------------------------------------ */

static void beginnings_are_reused_and_change_nothing(void **state)
{
    static struct run first, again, longer, fresh, stranger, exact;
    const struct hd_principal other = {.tenant = "other", .key_id = ""};
    for (size_t k = 0; k < 3; k++) {
        struct hd_engine *e = start(model_files[k], "auto", 8 << 20, 4, 64);
        prepare(&first, 9, 200, 10);
        prepare(&again, 9, 200, 10);
        must_submit(e, &first);
        wait_for(&first);
        assert_int_equal(first.result.n_cached, 0);
        must_submit(e, &again);
        wait_for(&again);
        assert_int_equal(again.result.n_cached, 192); /* three full blocks */
        assert_same(&first, &again);
        /* the same beginning, another end */
        prepare(&longer, 9, 250, 10);
        memcpy(longer.prompt, first.prompt, 200 * sizeof *first.prompt);
        must_submit(e, &longer);
        wait_for(&longer);
        assert_int_equal(longer.result.n_cached, 192);
        /* a prompt of whole blocks: its last one is computed for the first token */
        prepare(&exact, 9, 192, 10);
        memcpy(exact.prompt, first.prompt, 192 * sizeof *first.prompt);
        must_submit(e, &exact);
        wait_for(&exact);
        assert_int_equal(exact.result.n_cached, 128);
        /* another tenant shares nothing */
        prepare(&stranger, 9, 200, 10);
        stranger.request.principal = &other;
        must_submit(e, &stranger);
        wait_for(&stranger);
        assert_int_equal(stranger.result.n_cached, 0);
        assert_same(&first, &stranger);
        hd_engine_free(e);
        e = start(model_files[k], "auto", 8 << 20, 4, 64);
        prepare(&fresh, 9, 250, 10);
        memcpy(fresh.prompt, first.prompt, 200 * sizeof *first.prompt);
        must_submit(e, &fresh);
        wait_for(&fresh);
        assert_int_equal(fresh.result.n_cached, 0);
        assert_same(&fresh, &longer);
        hd_engine_free(e);
    }
}

/* --- several answers to one request ----------------------------------------------------------- */

enum { ANSWERS = 5 };

static uint64_t must_submit_many(struct hd_engine *e, struct run *runs, size_t n)
{
    struct hd_callbacks callbacks[HD_ANSWERS_MAX];
    struct hd_errmsg msg = {0};
    uint64_t first = 0;
    for (size_t i = 0; i < n; i++)
        callbacks[i] = (struct hd_callbacks){
            .on_text = on_text, .on_token = on_token, .on_done = on_done, .ud = &runs[i]};
    if (hd_engine_submit_many(e, &first, &runs[0].request, callbacks, n, &msg))
        fail_msg("%s", msg.text);
    return first;
}

/* Together they are what each would be by itself; the prompt is computed once. With fewer places
 * than answers, and beside others, too. */
static void answers_to_one_request_are_those_of_many(void **state)
{
    static struct run alone[ANSWERS], all[ANSWERS], other;
    static const size_t lengths[] = {5, 64, 100, 192};
    for (size_t k = 0; k < 3 * 2; k++) {
        size_t n = lengths[(k + k / 2) % 4];
        struct hd_engine *e = start(model_files[k / 2], "auto", 8 << 20, 1, 64);
        for (int i = 0; i < ANSWERS; i++) {
            prepare(&alone[i], 30, n, 40);
            alone[i].request.sampling.seed = 30 + (uint64_t)i;
            must_submit(e, &alone[i]);
            wait_for(&alone[i]);
        }
        hd_engine_free(e);
        for (int places = 1; places <= 8; places += 3 + places / 4) {
            struct hd_engine_stats stats;
            e = start(model_files[k / 2], "auto", 8 << 20, places, 64);
            prepare(&other, 77, 130, 40);
            for (int i = 0; i < ANSWERS; i++)
                prepare(&all[i], 30, n, 40);
            if (places < 8)
                must_submit(e, &other);
            must_submit_many(e, all, ANSWERS);
            for (int i = 0; i < ANSWERS; i++) {
                wait_for(&all[i]);
                assert_same(&alone[i], &all[i]);
                assert_int_equal(all[i].result.n_prompt, n);
            }
            if (places < 8)
                wait_for(&other);
            assert_all_blocks_back(e);
            hd_engine_stats(e, &stats);
            if (places == 8)
                assert_int_equal(stats.cached_tokens, (ANSWERS - 1) * n);
            hd_engine_free(e);
        }
    }
}

static void answers_to_one_request_end_together(void **state)
{
    static struct run runs[ANSWERS];
    struct hd_callbacks callbacks[HD_ANSWERS_MAX + 1];
    struct hd_errmsg msg = {0};
    struct hd_engine *e = start("qwen2-untied.gguf", "ref", 8 << 20, 8, 0);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < ANSWERS; i++)
            prepare(&runs[i], (uint32_t)round, 230, 60);
        uint64_t first = must_submit_many(e, runs, ANSWERS);
        for (int i = 0; i < round; i++)
            nap();
        for (int i = 0; i < ANSWERS; i++)
            hd_engine_cancel(e, first + (uint64_t)i);
        for (int i = 0; i < ANSWERS; i++) {
            wait_for(&runs[i]);
            assert_true(runs[i].result.finish == HD_FINISH_CANCELLED ||
                        runs[i].result.finish == HD_FINISH_LENGTH);
        }
        assert_all_blocks_back(e);
    }
    for (int i = 0; i <= HD_ANSWERS_MAX; i++)
        callbacks[i] = (struct hd_callbacks){.on_done = on_done, .ud = &runs[0]};
    assert_int_equal(hd_engine_submit_many(e, NULL, &runs[0].request, callbacks, 0, &msg),
                     HD_ERR_INVALID);
    assert_int_equal(
        hd_engine_submit_many(e, NULL, &runs[0].request, callbacks, HD_ANSWERS_MAX + 1, &msg),
        HD_ERR_INVALID);
    /* one waits: all, or none */
    for (int i = 0; i < ANSWERS; i++)
        prepare(&runs[i], 3, 100, 200);
    must_submit_many(e, runs, ANSWERS);
    assert_int_equal(hd_engine_submit_many(e, NULL, &runs[0].request, callbacks, 4, &msg),
                     HD_ERR_BUSY);
    hd_engine_free(e);
    for (int i = 0; i < ANSWERS; i++)
        assert_int_equal(atomic_load(&runs[i].done), 1);
}

/* --- limits and ends -------------------------------------------------------------------------- */

static void long_prompts_are_refused(void **state)
{
    struct hd_errmsg msg = {0};
    static struct run r;
    /* two blocks: a context of 128 */
    struct hd_engine *e = start("qwen2-untied.gguf", "ref", 2 * 3 * 64 * 2 * 16 * 2 * 4, 2, 2);
    struct hd_model_info info;
    assert_int_equal(hd_engine_model_info(e, 0, &info), HD_OK);
    assert_int_equal(info.n_ctx, 128);
    prepare(&r, 1, 128, 4);
    assert_int_equal(submit(e, &r, &msg), HD_ERR_LIMIT);
    assert_non_null(strstr(msg.text, "128"));
    prepare(&r, 1, 300, 4);
    assert_int_equal(submit(e, &r, &msg), HD_ERR_LIMIT);
    /* room for 8: the answer ends there */
    prepare(&r, 1, 120, 100);
    must_submit(e, &r);
    wait_for(&r);
    assert_int_equal(r.result.finish, HD_FINISH_LENGTH);
    assert_int_equal(r.result.n_generated, 8);
    hd_engine_free(e);
}

static void bad_requests_are_refused(void **state)
{
    struct hd_errmsg msg = {0};
    static struct run r;
    const struct hd_message bad_role[] = {{.role = "wizard", .content = "x"}};
    struct hd_engine *e = start("qwen2-untied.gguf", "ref", 8 << 20, 2, 2);
    prepare(&r, 1, 5, 4);
    r.request.model = "absent";
    assert_int_equal(submit(e, &r, &msg), HD_ERR_NOTFOUND);
    prepare(&r, 1, 5, 4);
    r.prompt[3] = N_VOCAB;
    assert_int_equal(submit(e, &r, &msg), HD_ERR_INVALID);
    assert_non_null(strstr(msg.text, "320"));
    prepare(&r, 1, 5, 4);
    r.request.sampling.top_p = NAN;
    assert_int_equal(submit(e, &r, &msg), HD_ERR_INVALID);
    prepare(&r, 1, 5, 4);
    r.request.prompt = "and a text";
    assert_int_equal(submit(e, &r, &msg), HD_ERR_INVALID);
    prepare(&r, 1, 5, -1);
    assert_int_equal(submit(e, &r, &msg), HD_ERR_INVALID);
    prepare(&r, 1, 5, 4);
    r.request.n_id = 0;
    r.request.messages = bad_role;
    r.request.n_message = 1;
    assert_int_not_equal(submit(e, &r, &msg), HD_OK);
    assert_int_equal(atomic_load(&r.done), 0);
    hd_engine_free(e);
}

static void full_queues_are_busy(void **state)
{
    struct hd_errmsg msg = {0};
    static struct run r[4];
    struct hd_engine *e = start("qwen2-untied.gguf", "ref", 8 << 20, 1, 2);
    for (int i = 0; i < 4; i++)
        prepare(&r[i], (uint32_t)i, 30, 300);
    for (int i = 0; i < 3; i++)
        must_submit(e, &r[i]);
    assert_int_equal(submit(e, &r[3], &msg), HD_ERR_BUSY);
    for (int i = 0; i < 3; i++)
        hd_engine_cancel(e, r[i].id);
    for (int i = 0; i < 3; i++) {
        wait_for(&r[i]);
        assert_int_equal(r[i].result.finish, HD_FINISH_CANCELLED);
    }
    hd_engine_free(e);
}

static void time_runs_out(void **state)
{
    static struct run r;
    struct hd_engine *e = start("deepseek-v3", "ref", 64 << 20, 1, 2);
    prepare(&r, 1, 30, MOST);
    r.request.timeout_s = 0.001;
    must_submit(e, &r);
    wait_for(&r);
    assert_int_equal(r.result.finish, HD_FINISH_ERROR);
    assert_int_equal(r.result.err, HD_ERR_TIMEOUT);
    hd_engine_free(e);
}

static void stopping_ends_all(void **state)
{
    static struct run r[5];
    struct hd_engine *e = start("llama3.gguf", "ref", 8 << 20, 2, 8);
    for (int i = 0; i < 5; i++) {
        prepare(&r[i], (uint32_t)i, 30, 300);
        must_submit(e, &r[i]);
    }
    hd_engine_free(e);
    for (int i = 0; i < 5; i++)
        assert_int_equal(atomic_load(&r[i].done), 1);
}

/* The text of a run, then the same run with a piece of that text as stop string. */
static void stop_strings_end_the_text(void **state)
{
    static struct run whole, cut;
    struct hd_engine *e = start("qwen2-untied.gguf", "ref", 8 << 20, 1, 2);
    prepare(&whole, 4, 20, 60);
    must_submit(e, &whole);
    wait_for(&whole);
    assert_true(whole.len > 20);
    char stop[8] = {0};
    size_t at = whole.len / 2;
    while (((unsigned char)whole.text[at] & 0xC0) == 0x80)
        at++; /* a character's beginning */
    size_t end = at + 1;
    while (((unsigned char)whole.text[end] & 0xC0) == 0x80)
        end++;
    memcpy(stop, whole.text + at, end - at);
    const char *stops[] = {stop};
    prepare(&cut, 4, 20, 60);
    cut.request.stop = stops;
    cut.request.n_stop = 1;
    must_submit(e, &cut);
    wait_for(&cut);
    assert_int_equal(cut.result.finish, HD_FINISH_STOP);
    size_t want = (size_t)(strstr(whole.text, stop) - whole.text);
    assert_int_equal(cut.len, want);
    assert_memory_equal(cut.text, whole.text, want);
    hd_engine_free(e);
}

static void chat_forms_and_plain_prompts_run(void **state)
{
    static const char *const files[] = {"qwen2-tied", "llama3.gguf", "deepseek-v3"};
    const struct hd_message messages[] = {{.role = "user", .content = "Hello, 你好"}};
    for (int i = 0; i < 3; i++) {
        struct hd_errmsg msg = {0};
        struct hd_result result;
        char *answer, *reasoning;
        struct hd_engine *e = start(files[i], "ref", 8 << 20, 2, 2);
        struct hd_request r = {.messages = messages,
                               .n_message = 1,
                               .n_max = 12,
                               .ignore_end = true,
                               .sampling = HD_SAMPLING_GREEDY};
        if (hd_engine_generate(e, &answer, &reasoning, &result, &r, &msg))
            fail_msg("%s: %s", files[i], msg.text);
        assert_int_equal(result.n_generated, 12);
        assert_true(result.n_prompt > 4);
        struct hd_model_info info;
        assert_int_equal(hd_engine_model_info(e, 0, &info), HD_OK);
        /* R1's form opens a thought: without </think> everything is reasoning */
        assert_int_equal(info.thinks, i == 2);
        assert_int_equal(result.n_reasoning, i == 2 ? 12 : 0);
        assert_true((i == 2 ? strlen(answer) : strlen(reasoning)) == 0);
        free(answer);
        free(reasoning);
        r = (struct hd_request){.prompt = "Hello", .n_max = 3, .sampling = HD_SAMPLING_GREEDY};
        assert_int_equal(hd_engine_generate(e, NULL, NULL, &result, &r, &msg), HD_OK);
        hd_engine_free(e);
    }
}

/* --- several models, figures -------------------------------------------------------------------
 */

static void models_share_an_engine(void **state)
{
    struct hd_errmsg msg = {0};
    static struct run a, b, alone;
    struct hd_engine *e = start("qwen2-untied.gguf", "ref", 8 << 20, 4, 8);
    assert_int_equal(hd_engine_load(e, "tiny", MODELS "llama3.gguf", 0, &msg), HD_ERR_EXISTS);
    assert_int_equal(hd_engine_load(e, "second", MODELS "deepseek-v3-kvb.gguf", 0, &msg), HD_OK);
    assert_int_equal(hd_engine_n_model(e), 2);
    assert_int_equal(hd_engine_load(e, "absent", MODELS "absent.gguf", 0, &msg), HD_ERR_NOTFOUND);
    assert_int_equal(hd_engine_load(e, "big", MODELS "llama3.gguf", 131072, &msg), HD_ERR_LIMIT);
    assert_int_equal(hd_engine_load(e, "big", MODELS "llama3.gguf", 131073, &msg), HD_ERR_INVALID);
    assert_int_equal(hd_engine_n_model(e), 2);
    prepare(&alone, 3, 100, 20);
    must_submit(e, &alone);
    wait_for(&alone);
    prepare(&a, 3, 100, 20);
    prepare(&b, 3, 100, 20);
    b.request.model = "second";
    must_submit(e, &b);
    must_submit(e, &a);
    wait_for(&a);
    wait_for(&b);
    assert_same(&a, &alone);
    hd_engine_free(e);
}

struct rows {
    int n;
    double sum[8];
};

static void count_row(void *ud, int32_t row, const float *logprob, int n_vocab)
{
    struct rows *rows = ud;
    double sum = 0;
    for (int i = 0; i < n_vocab; i++)
        sum += exp((double)logprob[i]);
    rows->sum[rows->n++] = sum;
}

static void logprobs_are_a_distribution(void **state)
{
    struct hd_errmsg msg = {0};
    static struct run r;
    const int32_t at[] = {0, 70, 199}, wrong[] = {200};
    struct rows rows = {0};
    struct hd_engine *e = start("deepseek-v3-mla.gguf", "auto", 8 << 20, 1, 2);
    prepare(&r, 3, 200, 1);
    assert_int_equal(hd_engine_logits(e, NULL, r.prompt, 200, at, 3, 150, count_row, &rows, &msg),
                     HD_OK);
    assert_int_equal(rows.n, 3);
    for (int i = 0; i < 3; i++)
        assert_float_equal(rows.sum[i], 1, 1e-4);
    assert_int_equal(hd_engine_logits(e, NULL, r.prompt, 200, wrong, 1, 0, count_row, &rows, &msg),
                     HD_ERR_INVALID);
    r.prompt[7] = -1;
    assert_int_equal(hd_engine_logits(e, NULL, r.prompt, 200, at, 3, 0, count_row, &rows, &msg),
                     HD_ERR_INVALID);
    assert_all_blocks_back(e);
    hd_engine_free(e);
}

static void text_to_ids_and_back(void **state)
{
    struct hd_errmsg msg = {0};
    const char *text = "Hello 你好 <|im_end|>";
    int32_t *ids;
    size_t n;
    char *back;
    struct hd_engine *e = start("qwen2-tied", "ref", 8 << 20, 1, 2);
    assert_int_equal(hd_engine_tokenize(e, NULL, text, strlen(text), &ids, &n, &msg), HD_OK);
    assert_int_equal(hd_engine_detokenize(e, NULL, ids, n, &back, &msg), HD_OK);
    assert_string_equal(back, text);
    free(ids);
    free(back);
    assert_int_equal(hd_engine_tokenize(e, NULL, "", 0, &ids, &n, &msg), HD_OK);
    assert_int_equal(n, 0);
    free(ids);
    hd_engine_free(e);
}

static void bad_options_are_refused(void **state)
{
    struct hd_errmsg msg = {0};
    struct hd_engine *e;
    struct hd_engine_options o = HD_ENGINE_OPTIONS_DEFAULT;
    o.kernels = "abacus";
    assert_int_not_equal(hd_engine_new(&e, &o, &msg), HD_OK);
    assert_null(e);
    assert_non_null(strstr(msg.text, "abacus"));
    o = (struct hd_engine_options)HD_ENGINE_OPTIONS_DEFAULT;
    o.max_sessions = 0;
    assert_int_equal(hd_engine_new(&e, &o, &msg), HD_ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_changes_no_text),
        cmocka_unit_test(scarce_memory_changes_no_text),
        cmocka_unit_test(beginnings_are_reused_and_change_nothing),
        cmocka_unit_test(answers_to_one_request_are_those_of_many),
        cmocka_unit_test(answers_to_one_request_end_together),
        cmocka_unit_test(long_prompts_are_refused),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(full_queues_are_busy),
        cmocka_unit_test(time_runs_out),
        cmocka_unit_test(stopping_ends_all),
        cmocka_unit_test(stop_strings_end_the_text),
        cmocka_unit_test(chat_forms_and_plain_prompts_run),
        cmocka_unit_test(models_share_an_engine),
        cmocka_unit_test(logprobs_are_a_distribution),
        cmocka_unit_test(text_to_ids_and_back),
        cmocka_unit_test(bad_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
