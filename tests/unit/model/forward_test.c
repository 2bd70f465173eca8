/* The forward pass: against the references, and the promises of invariance. */
#include "support.h"

#include <math.h>

enum { N = 150, N_VOCAB = 320 };

/* The long prompt of a reference. */
static json_t *long_prompt(json_t *reference, int32_t ids[N])
{
    json_t *prompt = json_array_get(json_object_get(reference, "prompts"), 1);
    json_t *tokens = json_object_get(prompt, "tokens");
    assert_int_equal(json_array_size(tokens), N);
    for (int i = 0; i < N; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(tokens, (size_t)i));
    return prompt;
}

/* Feeds ids [from, to) of one sequence; logits [to - from, N_VOCAB] of every row. */
static void feed(struct opened *o, const int32_t *ids, int from, int to, const int32_t *table,
                 enum hd_form form, float *logits)
{
    int32_t positions[N], rows[N];
    struct hd_errmsg msg = {0};
    struct hd_seq_rows seq = {0, to - from, from, table};
    for (int i = 0; i < to - from; i++) {
        positions[i] = from + i;
        rows[i] = i;
    }
    struct hd_batch batch = {ids + from, positions, to - from, &seq, 1, form, rows, to - from};
    if (hd_runner_forward(o->runner, &batch, &msg) ||
        hd_runner_logits(o->runner, logits, 0, to - from, &msg))
        fail_msg("%s", msg.text);
}

static double worst(const float *a, const float *b, size_t n)
{
    double max = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, fabs((double)a[i] - b[i]));
    return max;
}

static const int32_t table_a[] = {3, 1, 7}, table_b[] = {0, 9, 4}, table_c[] = {11, 2, 5};

static float *all_at_once(struct opened *o, const int32_t *ids)
{
    float *logits = malloc((size_t)N * N_VOCAB * sizeof *logits);
    feed(o, ids, 0, N, table_a, HD_FORM_PROMPT, logits);
    return logits;
}

/* In chunks of one and two blocks, through other blocks: bit for bit the same. */
static void chunks_change_nothing(void **state)
{
    static const char *const names[] = {"qwen2-untied", "llama3", "deepseek-v3"};
    static const char *const kernels[] = {"ref", "auto"};
    for (size_t i = 0; i < 3 * 2; i++) {
        struct opened o;
        char path[512];
        int32_t ids[N];
        snprintf(path, sizeof path, HD_TEST_ROOT "/golden/logits/%s.json", names[i / 2]);
        json_t *reference = load_json(path);
        long_prompt(reference, ids);
        snprintf(path, sizeof path, MODELS "%s.gguf",
                 i / 2 == 2 ? "deepseek-v3-kvb" : names[i / 2]);
        open_model(&o, path, kernels[i % 2]);
        float *want = all_at_once(&o, ids), *got = malloc((size_t)N * N_VOCAB * sizeof *got);
        feed(&o, ids, 0, 64, table_b, HD_FORM_PROMPT, got);
        feed(&o, ids, 64, N, table_b, HD_FORM_PROMPT, got + 64 * N_VOCAB);
        assert_memory_equal(got, want, (size_t)N * N_VOCAB * sizeof *got);
        feed(&o, ids, 0, 128, table_c, HD_FORM_PROMPT, got);
        feed(&o, ids, 128, N, table_c, HD_FORM_PROMPT, got + 128 * N_VOCAB);
        assert_memory_equal(got, want, (size_t)N * N_VOCAB * sizeof *got);
        free(got);
        free(want);
        close_model(&o);
        json_decref(reference);
    }
}

/* Two sequences in one batch, in both forms: each row as if alone. */
static void company_changes_nothing(void **state)
{
    static const char *const files[] = {"qwen2-untied.gguf", "deepseek-v3-mla.gguf"};
    static const char *const kernels[] = {"ref", "auto"};
    for (size_t i = 0; i < 2 * 2; i++) {
        struct opened o;
        char path[512];
        int32_t ids[N], both[80], positions[80];
        const int32_t rows[] = {19, 79};
        struct hd_errmsg msg = {0};
        float alone[N * N_VOCAB], together[2 * N_VOCAB];
        json_t *reference = load_json(HD_TEST_ROOT "/golden/logits/deepseek-v3.json");
        long_prompt(reference, ids);
        json_decref(reference);
        snprintf(path, sizeof path, MODELS "%s", files[i / 2]);
        open_model(&o, path, kernels[i % 2]);
        /* prompts of 20 (ids from 0) and 60 (ids from 50) rows */
        memcpy(both, ids, 20 * sizeof *ids);
        memcpy(both + 20, ids + 50, 60 * sizeof *ids);
        for (int p = 0; p < 80; p++)
            positions[p] = p < 20 ? p : p - 20;
        struct hd_seq_rows seqs[] = {{0, 20, 0, table_a}, {20, 60, 0, table_b}};
        struct hd_batch batch = {both, positions, 80, seqs, 2, HD_FORM_PROMPT, rows, 2};
        assert_int_equal(hd_runner_forward(o.runner, &batch, &msg), HD_OK);
        assert_int_equal(hd_runner_logits(o.runner, together, 0, 2, &msg), HD_OK);
        feed(&o, ids, 0, 20, table_c, HD_FORM_PROMPT, alone);
        assert_memory_equal(together, alone + 19 * N_VOCAB, N_VOCAB * sizeof *alone);
        feed(&o, ids + 50, 0, 60, table_c, HD_FORM_PROMPT, alone);
        assert_memory_equal(together + N_VOCAB, alone + 59 * N_VOCAB, N_VOCAB * sizeof *alone);
        /* one generated row each, together and alone (table_c holds the second prompt) */
        const int32_t next[] = {ids[20], ids[110]}, at[] = {20, 60}, out[] = {0, 1};
        struct hd_seq_rows steps[] = {{0, 1, 20, table_a}, {1, 1, 60, table_b}};
        struct hd_batch step = {next, at, 2, steps, 2, HD_FORM_DECODE, out, 2};
        assert_int_equal(hd_runner_forward(o.runner, &step, &msg), HD_OK);
        assert_int_equal(hd_runner_logits(o.runner, together, 0, 2, &msg), HD_OK);
        struct hd_seq_rows one = {0, 1, 60, table_c};
        struct hd_batch single = {next + 1, at + 1, 1, &one, 1, HD_FORM_DECODE, out, 1};
        assert_int_equal(hd_runner_forward(o.runner, &single, &msg), HD_OK);
        assert_int_equal(hd_runner_logits(o.runner, alone, 0, 1, &msg), HD_OK);
        assert_memory_equal(together + N_VOCAB, alone, N_VOCAB * sizeof *alone);
        close_model(&o);
    }
}

/* Expanded (prompt) and absorbed (generated) attention are one function. */
static void absorbed_equals_expanded(void **state)
{
    static const char *const files[] = {"deepseek-v3", "deepseek-v3-kvb.gguf",
                                        "deepseek-v3-mla.gguf", "deepseek-v3-nogroup.gguf"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct opened o;
        char path[512];
        int32_t ids[N];
        json_t *reference = load_json(HD_TEST_ROOT "/golden/logits/deepseek-v3.json");
        long_prompt(reference, ids);
        json_decref(reference);
        snprintf(path, sizeof path, MODELS "%s", files[i]);
        open_model(&o, path, "ref");
        float *want = all_at_once(&o, ids), *got = malloc((size_t)N * N_VOCAB * sizeof *got);
        for (int p = 0; p < N; p++)
            feed(&o, ids, p, p + 1, table_b, HD_FORM_DECODE, got + p * N_VOCAB);
        assert_true(worst(got, want, (size_t)N * N_VOCAB) < 1e-4);
        free(got);
        free(want);
        close_model(&o);
    }
}

/* --- routing --------------------------------------------------------------------------------- */

struct routes {
    json_t *experts; /* {layer: [[…] per position]} */
    int n_layer_seen;
};

static void check_route(void *ud, int layer, const int32_t *experts, int64_t n, int n_used)
{
    struct routes *routes = ud;
    char key[16];
    snprintf(key, sizeof key, "%d", layer);
    json_t *rows = json_object_get(routes->experts, key);
    assert_int_equal(json_array_size(rows), n);
    for (int64_t i = 0; i < n; i++) {
        json_t *want = json_array_get(rows, (size_t)i);
        assert_int_equal(json_array_size(want), n_used);
        for (int j = 0; j < n_used; j++) {
            int found = 0;
            for (int k = 0; k < n_used; k++)
                found +=
                    json_integer_value(json_array_get(want, (size_t)j)) == experts[i * n_used + k];
            if (found != 1)
                fail_msg("layer %d, position %d: other experts", layer, (int)i);
        }
    }
    routes->n_layer_seen++;
}

static void routing_picks_the_reference_experts(void **state)
{
    static const char *const files[][2] = {{"deepseek-v3", "deepseek-v3"},
                                           {"deepseek-v3", "deepseek-v3-kvb.gguf"},
                                           {"deepseek-v3-nogroup", "deepseek-v3-nogroup.gguf"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct opened o;
        char path[512];
        int32_t ids[N];
        struct routes routes = {0};
        snprintf(path, sizeof path, HD_TEST_ROOT "/golden/logits/%s.json", files[i][0]);
        json_t *reference = load_json(path);
        routes.experts = json_object_get(long_prompt(reference, ids), "experts");
        assert_non_null(routes.experts);
        snprintf(path, sizeof path, MODELS "%s", files[i][1]);
        open_model(&o, path, "ref");
        hd_runner_on_route(o.runner, check_route, &routes);
        free(all_at_once(&o, ids));
        assert_int_equal(routes.n_layer_seen, json_object_size(routes.experts));
        close_model(&o);
        json_decref(reference);
    }
}

/* --- sizes ----------------------------------------------------------------------------------- */

static void bytes_per_token_are_the_files(void **state)
{
    struct opened o;
    size_t all = 0, embedding = 0;
    open_model(&o, MODELS "qwen2-untied.gguf", "ref");
    for (size_t i = 0; i < hd_store_n_tensor(o.store); i++)
        all += hd_store_tensor_at(o.store, i)->bytes;
    embedding = hd_store_tensor(o.store, "token_embd.weight")->bytes;
    assert_int_equal(hd_model_weight_bytes_per_token(o.model), all - embedding);
    close_model(&o);
    open_model(&o, MODELS "qwen2-tied.gguf", "ref");
    all = 0;
    for (size_t i = 0; i < hd_store_n_tensor(o.store); i++)
        all += hd_store_tensor_at(o.store, i)->bytes;
    assert_int_equal(hd_model_weight_bytes_per_token(o.model), all);
    close_model(&o);
    /* 3 of 8 experts; absorbed attention reads k_b and v_b, which are as large as kv_b */
    open_model(&o, MODELS "deepseek-v3-mla.gguf", "ref");
    all = 0;
    for (size_t i = 0; i < hd_store_n_tensor(o.store); i++) {
        const struct hd_store_tensor *t = hd_store_tensor_at(o.store, i);
        if (strcmp(t->name, "token_embd.weight"))
            all += strstr(t->name, "_exps") ? t->bytes / 8 * 3 : t->bytes;
    }
    assert_int_equal(hd_model_weight_bytes_per_token(o.model), all);
    /* F32 cache: 3 layers of 64 tokens of 32 + 16 values */
    assert_int_equal(hd_model_kv_block_bytes(o.model), 3 * 64 * 48 * 4);
    close_model(&o);
}

static void oversized_batches_are_refused(void **state)
{
    struct opened o;
    int32_t ids[200] = {0}, positions[200] = {0};
    struct hd_errmsg msg = {0};
    struct hd_seq_rows seq = {0, 193, 0, table_a};
    float logits[N_VOCAB];
    open_model(&o, MODELS "qwen2-tied.gguf", "ref");
    struct hd_batch batch = {ids, positions, 193, &seq, 1, HD_FORM_PROMPT, NULL, 0};
    assert_int_equal(hd_runner_forward(o.runner, &batch, &msg), HD_ERR_INTERNAL);
    assert_int_equal(hd_runner_logits(o.runner, logits, 0, 1, &msg), HD_ERR_INTERNAL);
    close_model(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_change_nothing),
        cmocka_unit_test(company_changes_nothing),
        cmocka_unit_test(absorbed_equals_expanded),
        cmocka_unit_test(routing_picks_the_reference_experts),
        cmocka_unit_test(bytes_per_token_are_the_files),
        cmocka_unit_test(oversized_batches_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
