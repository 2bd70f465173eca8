/* Encoders in the engine over the tiny models: many requests at once, cuts, ends of every kind, and
 * models asked for what they are not. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "holdfast/holdfast.h"

#define MODELS HD_TEST_ROOT "/golden/models/"

static struct hd_engine *start(int max_queue, int max_batch_tokens)
{
    static const char *const models[] = {"qwen2-tied.gguf", "enc-bert", "enc-m3", "enc-cross",
                                         "enc-reranker"};
    struct hd_errmsg msg = {0};
    struct hd_engine *e = NULL;
    struct hd_engine_options o = HD_ENGINE_OPTIONS_DEFAULT;
    char path[512];
    o.kernels = "ref";
    o.n_thread = 2;
    o.kv_bytes_max = 1 << 20;
    o.max_sessions = 1;
    o.max_queue = max_queue;
    o.max_batch_tokens = max_batch_tokens;
    assert_int_equal(hd_engine_new(&e, &o, &msg), HD_OK);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        snprintf(path, sizeof path, MODELS "%s", models[i]);
        if (hd_engine_load(e, models[i], path, 0, &msg))
            fail_msg("%s: %s", models[i], msg.text);
    }
    return e;
}

static void expect(struct hd_engine *e, const struct hd_embed_request *r, enum hd_err want,
                   const char *says)
{
    struct hd_embeddings *out = NULL;
    struct hd_errmsg msg = {0};
    enum hd_err err = hd_engine_embed_wait(e, &out, r, &msg);
    hd_embeddings_free(out);
    if (err != want || !strstr(msg.text, says))
        fail_msg("got %d \"%s\", wanted %d \"%s\"", err, msg.text, want, says);
}

static void models_say_what_they_are(void **state)
{
    struct hd_engine *e = start(8, 128);
    struct hd_model_info info;
    static const enum hd_model_kind kinds[] = {HD_MODEL_LANGUAGE, HD_MODEL_ENCODER,
                                               HD_MODEL_ENCODER, HD_MODEL_RERANKER,
                                               HD_MODEL_RERANKER};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(hd_engine_model_info(e, i, &info), HD_OK);
        assert_int_equal(info.kind, kinds[i]);
    }
    assert_int_equal(hd_engine_model_find(e, "enc-bert", &info), HD_OK);
    assert_true(info.n_ctx == 76 && info.n_embd == 24); /* sentence_bert_config.json's length */
    assert_int_equal(hd_engine_model_find(e, "enc-m3", &info), HD_OK);
    assert_int_equal(info.n_ctx, 80); /* positions count from the row after the padding's */
    hd_engine_free(e);
}

static void models_are_asked_for_what_they_are_not(void **state)
{
    struct hd_engine *e = start(8, 128);
    struct hd_errmsg msg = {0};
    const struct hd_embed_text one = {.text = "a", .len = 1};
    const struct hd_embed_text pair = {.text = "a", .len = 1, .pair = "b", .pair_len = 1};
    const int32_t far = 64;
    const struct hd_embed_text bad_id = {.ids = &far, .n_id = 1}, neither = {0};
    struct hd_embed_request r = {.what = HD_EMBED_DENSE, .texts = &one, .n_text = 1};
    r.model = "qwen2-tied.gguf";
    expect(e, &r, HD_ERR_UNSUPPORTED, "is a language model");
    r.model = "enc-cross";
    expect(e, &r, HD_ERR_UNSUPPORTED, "is a re-ranker");
    r.model = "nobody";
    expect(e, &r, HD_ERR_NOTFOUND, "nobody");
    r.model = "enc-bert";
    r.what = HD_EMBED_SPARSE;
    expect(e, &r, HD_ERR_UNSUPPORTED, "no sparse head");
    r.what = HD_EMBED_DENSE | HD_EMBED_COLBERT;
    expect(e, &r, HD_ERR_UNSUPPORTED, "no ColBERT head");
    r.what = HD_EMBED_DENSE | HD_EMBED_SCORE;
    expect(e, &r, HD_ERR_INVALID, "either vectors or scores");
    r.what = HD_EMBED_SCORE;
    expect(e, &r, HD_ERR_INVALID, "scores are of pairs");
    r.texts = &pair;
    expect(e, &r, HD_ERR_UNSUPPORTED, "is no re-ranker");
    r.what = HD_EMBED_DENSE;
    expect(e, &r, HD_ERR_INVALID, "vectors of single texts");
    r.texts = &bad_id;
    expect(e, &r, HD_ERR_INVALID, "token id 64");
    r.texts = &neither;
    expect(e, &r, HD_ERR_INVALID, "either characters or token ids");
    r.texts = &one;
    r.n_text = 0;
    expect(e, &r, HD_ERR_INVALID, "1 to 2048 texts");
    r.n_text = 1;
    r.model = "enc-m3";
    expect(e, &r, HD_ERR_UNSUPPORTED, "carries no tokenizer");
    const struct hd_request chat = {
        .model = "enc-bert", .prompt = "x", .sampling = HD_SAMPLING_GREEDY};
    assert_int_equal(hd_engine_generate(e, NULL, NULL, NULL, &chat, &msg), HD_ERR_UNSUPPORTED);
    assert_non_null(strstr(msg.text, "is an encoder"));
    hd_engine_free(e);
}

/* Prefixes as the model's prompts say; cuts at the model's length, said in the result. */
static void prefixes_and_cuts(void **state)
{
    struct hd_engine *e = start(8, 128);
    struct hd_embeddings *as = NULL, *plain = NULL;
    char longer[400];
    memset(longer, 'a', sizeof longer);
    for (size_t i = 1; i < sizeof longer; i += 2)
        longer[i] = ' ';
    const struct hd_embed_text bare[] = {{.text = "two", .len = 3}, {.text = "two", .len = 3}};
    const struct hd_embed_text whole[] = {{.text = "ask: two", .len = 8},
                                          {.text = "text: two", .len = 9},
                                          {.text = longer, .len = sizeof longer}};
    struct hd_embed_request r = {.model = "enc-bert",
                                 .what = HD_EMBED_DENSE,
                                 .as = HD_AS_PASSAGE,
                                 .first_is_query = true,
                                 .texts = bare,
                                 .n_text = 2};
    assert_int_equal(hd_engine_embed_wait(e, &as, &r, NULL), HD_OK);
    r = (struct hd_embed_request){
        .model = "enc-bert", .what = HD_EMBED_DENSE, .texts = whole, .n_text = 3};
    assert_int_equal(hd_engine_embed_wait(e, &plain, &r, NULL), HD_OK);
    size_t bytes = (size_t)plain->n_dim * sizeof(float);
    assert_int_equal(plain->n_dim, 24);
    assert_memory_equal(as->item[0].dense, plain->item[0].dense, bytes);
    assert_memory_equal(as->item[1].dense, plain->item[1].dense, bytes);
    assert_false(plain->item[0].truncated);
    assert_true(plain->item[2].truncated && plain->item[2].n_token == 76);
    double square = 0;
    for (int i = 0; i < 24; i++)
        square += (double)plain->item[2].dense[i] * (double)plain->item[2].dense[i];
    assert_true(fabs(square - 1) < 1e-6);
    assert_int_equal(plain->n_token, (uint64_t)(plain->item[0].n_token + plain->item[1].n_token +
                                                plain->item[2].n_token));
    hd_embeddings_free(as);
    hd_embeddings_free(plain);
    hd_engine_free(e);
}

static void pairs_are_ranked(void **state)
{
    struct hd_engine *e = start(8, 128);
    static const char *const documents[] = {"it is a pair", "b b b", ""};
    float score[3], other[1];
    assert_int_equal(
        hd_engine_rerank(e, score, "enc-cross", NULL, "what is it", documents, 3, NULL), HD_OK);
    assert_int_equal(
        hd_engine_rerank(e, other, "enc-cross", NULL, "what is it", documents, 1, NULL), HD_OK);
    for (int i = 0; i < 3; i++)
        assert_true(score[i] > 0 && score[i] < 1);
    assert_true(score[0] == other[0] && score[0] != score[1]);
    hd_engine_free(e);
}

/* --- many at once ----------------------------------------------------------------------------- */

struct slot {
    atomic_int done;
    enum hd_err err;
    struct hd_embeddings *result;
};

static void on_done(void *ud, enum hd_err err, const struct hd_errmsg *message,
                    struct hd_embeddings *result)
{
    struct slot *s = ud;
    s->err = err;
    s->result = result;
    atomic_fetch_add(&s->done, 1);
}

static void wait_for(struct slot *s)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    while (!atomic_load(&s->done))
        nanosleep(&pause, NULL);
}

enum { MANY = 300, TOKENS = 40 };

/* ids of text i: no two alike. */
static void fill_texts(struct hd_embed_text *texts, int32_t (*ids)[TOKENS], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t len = 1 + i * 7 % TOKENS;
        for (size_t j = 0; j < len; j++)
            ids[i][j] = (int32_t)((i * 31 + j * j * 7 + i * j) % 64);
        texts[i] = (struct hd_embed_text){.ids = ids[i], .n_id = len};
    }
}

static void requests_share_batches_and_change_nothing(void **state)
{
    struct hd_engine *e = start(8, 64);
    static int32_t ids[MANY][TOKENS];
    static struct hd_embed_text texts[MANY];
    struct slot slots[3] = {{0}};
    struct hd_embeddings *alone = NULL;
    fill_texts(texts, ids, MANY);
    struct hd_embed_request r = {.model = "enc-m3",
                                 .what = HD_EMBED_DENSE | HD_EMBED_SPARSE | HD_EMBED_COLBERT,
                                 .texts = texts,
                                 .n_text = MANY};
    for (int i = 0; i < 3; i++) /* the same texts three times, beside each other */
        assert_int_equal(hd_engine_embed(e, NULL, &r, on_done, &slots[i], NULL), HD_OK);
    for (int i = 0; i < 3; i++) {
        wait_for(&slots[i]);
        assert_int_equal(slots[i].err, HD_OK);
        assert_int_equal(slots[i].result->n, MANY);
    }
    for (size_t i = 0; i < MANY; i += 23) {
        r.texts = &texts[i];
        r.n_text = 1;
        assert_int_equal(hd_engine_embed_wait(e, &alone, &r, NULL), HD_OK);
        const struct hd_embedding *want = &alone->item[0];
        assert_int_equal(want->n_colbert, texts[i].n_id - 1);
        for (size_t j = 1; j < want->n_sparse; j++)
            assert_true(want->sparse_ids[j - 1] < want->sparse_ids[j]);
        for (int s = 0; s < 3; s++) {
            const struct hd_embedding *got = &slots[s].result->item[i];
            assert_memory_equal(got->dense, want->dense, 24 * sizeof(float));
            assert_int_equal(got->n_sparse, want->n_sparse);
            assert_memory_equal(got->sparse_ids, want->sparse_ids, want->n_sparse * sizeof(int));
            assert_memory_equal(got->sparse_weight, want->sparse_weight,
                                want->n_sparse * sizeof(float));
            assert_memory_equal(got->colbert, want->colbert, want->n_colbert * 24 * sizeof(float));
        }
        hd_embeddings_free(alone);
    }
    struct hd_engine_stats stats;
    hd_engine_stats(e, &stats);
    assert_int_equal(stats.embed_texts, 3 * MANY + (MANY + 22) / 23);
    assert_int_equal(stats.embed_waiting, 0);
    for (int i = 0; i < 3; i++)
        hd_embeddings_free(slots[i].result);
    hd_engine_free(e);
}

/* --- beside a generation ---------------------------------------------------------------------- */

enum { LONG = 230, LONG_TOKENS = 70, STAMPS = 4096 };

struct beside {
    struct hd_engine *engine;
    struct hd_embed_request request;
    struct slot slot;
    double done_s, stamp[STAMPS]; /* when tokens came */
    atomic_int n_stamp, generation_done;
    uint64_t generation, job;
    bool cancel; /* the job, two tokens after it was asked for */
};

static void on_vectors(void *ud, enum hd_err err, const struct hd_errmsg *message,
                       struct hd_embeddings *result)
{
    struct beside *b = ud;
    b->done_s = hd_clock_seconds();
    on_done(&b->slot, err, message, result);
}

/* The first token asks for the vectors of one large batch. */
static void on_token(void *ud, int32_t id)
{
    struct beside *b = ud;
    int n = atomic_load(&b->n_stamp);
    if (n == STAMPS)
        return;
    b->stamp[n] = hd_clock_seconds();
    if (!n)
        assert_int_equal(hd_engine_embed(b->engine, &b->job, &b->request, on_vectors, b, NULL), 0);
    if (n == 4 && b->cancel)
        hd_engine_cancel(b->engine, b->job);
    atomic_store(&b->n_stamp, n + 1);
    if (atomic_load(&b->slot.done))
        hd_engine_cancel(b->engine, b->generation);
}

static void on_end(void *ud, const struct hd_result *result)
{
    atomic_store(&((struct beside *)ud)->generation_done, 1);
}

/* Runs both, and counts the tokens that came after the batch began and before its vectors did. */
static int tokens_meanwhile(struct beside *b)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    const int32_t prompt[] = {1, 2, 3};
    const struct hd_request chat = {.model = "qwen2-tied.gguf",
                                    .ids = prompt,
                                    .n_id = 3,
                                    .n_max = STAMPS,
                                    .any_loops = true,
                                    .ignore_end = true,
                                    .sampling = HD_SAMPLING_GREEDY};
    const struct hd_callbacks callbacks = {.on_token = on_token, .on_done = on_end, .ud = b};
    assert_int_equal(hd_engine_submit(b->engine, &b->generation, &chat, &callbacks, NULL), HD_OK);
    wait_for(&b->slot);
    while (!atomic_load(&b->generation_done))
        nanosleep(&pause, NULL);
    double begin_s = b->done_s - (b->slot.result ? b->slot.result->compute_s : 0);
    int n = 0;
    for (int i = 0; i < atomic_load(&b->n_stamp); i++)
        n += b->stamp[i] > begin_s && b->stamp[i] < b->done_s;
    return n;
}

/* A batch is computed in slices, and the language model has its steps between them; who leaves
 * meanwhile takes his texts out of it. */
static void generations_go_on_beside_a_long_batch(void **state)
{
    struct hd_engine *e =
        start(8, 4 * LONG * LONG_TOKENS); /* a quarter of it takes all texts at once */
    static int32_t ids[LONG][LONG_TOKENS];
    static struct hd_embed_text texts[LONG];
    static struct beside first, second;
    struct hd_embeddings *alone = NULL;
    for (size_t i = 0; i < LONG; i++) {
        for (size_t j = 0; j < LONG_TOKENS; j++)
            ids[i][j] = (int32_t)((i * 13 + j * 5 + i * j) % 64);
        texts[i] = (struct hd_embed_text){.ids = ids[i], .n_id = LONG_TOKENS};
    }
    first.engine = second.engine = e;
    first.request = (struct hd_embed_request){
        .model = "enc-bert", .what = HD_EMBED_DENSE, .texts = texts, .n_text = LONG};
    second.request = first.request;
    int n = tokens_meanwhile(&first);
    assert_int_equal(first.slot.err, HD_OK);
    if (n < 2)
        fail_msg("%d tokens in %.3f s of one batch", n, first.slot.result->compute_s);
    for (size_t i = 0; i < LONG; i += 37) {
        struct hd_embed_request r = first.request;
        r.texts = &texts[i];
        r.n_text = 1;
        assert_int_equal(hd_engine_embed_wait(e, &alone, &r, NULL), HD_OK);
        assert_memory_equal(alone->item[0].dense, first.slot.result->item[i].dense,
                            (size_t)alone->n_dim * sizeof(float));
        hd_embeddings_free(alone);
    }
    second.cancel = true;
    tokens_meanwhile(&second);
    assert_true(second.slot.err == HD_ERR_CANCELLED || second.slot.err == HD_OK);
    hd_embeddings_free(first.slot.result);
    hd_embeddings_free(second.slot.result);
    hd_engine_free(e);
}

/* One is cancelled, one is late, and what is left ends with the engine; each is answered exactly
 * once. */
static void ends_of_every_kind(void **state)
{
    struct hd_engine *e = start(4, 64);
    static int32_t ids[MANY][TOKENS];
    static struct hd_embed_text texts[MANY];
    struct slot slots[5] = {{0}};
    uint64_t id[5];
    fill_texts(texts, ids, MANY);
    struct hd_embed_request r = {
        .model = "enc-m3", .what = HD_EMBED_DENSE, .texts = texts, .n_text = MANY};
    for (int i = 0; i < 5; i++) {
        r.timeout_s = i == 3 ? 1e-6 : 0;
        assert_int_equal(hd_engine_embed(e, &id[i], &r, on_done, &slots[i], NULL), HD_OK);
    }
    hd_engine_cancel(e, id[4]);
    hd_engine_cancel(e, 123456789); /* nobody */
    wait_for(&slots[4]);
    assert_true(slots[4].err == HD_ERR_CANCELLED || slots[4].err == HD_OK);
    wait_for(&slots[3]);
    assert_int_equal(slots[3].err, HD_ERR_TIMEOUT);
    assert_null(slots[3].result);
    hd_engine_free(e);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(atomic_load(&slots[i].done), 1);
        assert_true((slots[i].err == HD_OK) == (slots[i].result != NULL));
        hd_embeddings_free(slots[i].result);
    }
}

/* The scheduler stands still in a callback, so what is submitted meanwhile stays in the queue. */
static atomic_int gate;

static void on_first(void *ud, enum hd_err err, const struct hd_errmsg *message,
                     struct hd_embeddings *result)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    atomic_store(&gate, 1);
    while (atomic_load(&gate) != 2)
        nanosleep(&pause, NULL);
    on_done(ud, err, message, result);
}

static void full_queues_are_busy(void **state)
{
    struct hd_engine *e = start(2, 64); /* three at once: one runs, two wait */
    const struct timespec pause = {.tv_nsec = 1000000};
    static int32_t ids[1][TOKENS];
    struct hd_embed_text text;
    struct slot slots[4] = {{0}};
    struct hd_errmsg msg = {0};
    fill_texts(&text, ids, 1);
    const struct hd_embed_request r = {
        .model = "enc-m3", .what = HD_EMBED_DENSE, .texts = &text, .n_text = 1};
    atomic_store(&gate, 0);
    assert_int_equal(hd_engine_embed(e, NULL, &r, on_first, &slots[0], NULL), HD_OK);
    while (!atomic_load(&gate))
        nanosleep(&pause, NULL);
    for (int i = 1; i < 4; i++)
        assert_int_equal(hd_engine_embed(e, NULL, &r, on_done, &slots[i], NULL), HD_OK);
    assert_int_equal(hd_engine_embed(e, NULL, &r, on_done, NULL, &msg), HD_ERR_BUSY);
    assert_non_null(strstr(msg.text, "try again later"));
    atomic_store(&gate, 2);
    for (int i = 0; i < 4; i++) {
        wait_for(&slots[i]);
        assert_int_equal(slots[i].err, HD_OK);
        hd_embeddings_free(slots[i].result);
    }
    hd_engine_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_say_what_they_are),
        cmocka_unit_test(models_are_asked_for_what_they_are_not),
        cmocka_unit_test(prefixes_and_cuts),
        cmocka_unit_test(pairs_are_ranked),
        cmocka_unit_test(requests_share_batches_and_change_nothing),
        cmocka_unit_test(generations_go_on_beside_a_long_batch),
        cmocka_unit_test(ends_of_every_kind),
        cmocka_unit_test(full_queues_are_busy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
