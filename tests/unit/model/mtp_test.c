/* The multi-token-prediction layer: rows are as invariant as the main model's, sizes, refusals.
 * Values are compared in tests/golden/check_mtp.py. */
#include "support.h"

#include <math.h>

enum { N = 150, N_VOCAB = 320 };

static const int32_t table_a[] = {3, 1, 7}, table_b[] = {0, 9, 4};

static void read_ids(int32_t ids[N])
{
    json_t *reference = load_json(HD_TEST_ROOT "/golden/mtp/deepseek-v3-mtp.json");
    json_t *prompt = json_array_get(json_object_get(reference, "prompts"), 1);
    json_t *tokens = json_object_get(prompt, "tokens");
    assert_int_equal(json_array_size(tokens), N);
    for (int i = 0; i < N; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(tokens, (size_t)i));
    json_decref(reference);
}

/* Rows [from, to) through the main model and then the layer; drafts [to - from, N_VOCAB]. */
static void draft(struct opened *o, const int32_t *ids, int from, int to, const int32_t *table,
                  enum hd_form form, float *logits)
{
    int32_t positions[N], rows[N];
    struct hd_errmsg msg = {0};
    struct hd_seq_rows seq = {0, to - from, from, table};
    for (int i = 0; i < to - from; i++) {
        positions[i] = from + i;
        rows[i] = i;
    }
    struct hd_batch batch = {ids + from, positions, to - from, &seq, 1, form, NULL, 0};
    assert_int_equal(hd_runner_forward(o->runner, &batch, &msg), HD_OK);
    batch.ids = ids + from + 1;
    batch.out_rows = rows;
    batch.n_out = to - from;
    if (hd_runner_draft(o->runner, &batch, rows, &msg) ||
        hd_runner_logits(o->runner, logits, 0, to - from, &msg))
        fail_msg("%s", msg.text);
}

static void chunks_change_nothing(void **state)
{
    static const char *const kernels[] = {"ref", "auto"};
    int32_t ids[N];
    read_ids(ids);
    for (int i = 0; i < 2; i++) {
        struct opened o;
        float *want = calloc((size_t)N * N_VOCAB, sizeof *want);
        float *got = calloc((size_t)N * N_VOCAB, sizeof *got);
        open_model(&o, MODELS "deepseek-v3-mtp.gguf", kernels[i]);
        draft(&o, ids, 0, N - 1, table_a, HD_FORM_PROMPT, want);
        draft(&o, ids, 0, 64, table_b, HD_FORM_PROMPT, got);
        draft(&o, ids, 64, N - 1, table_b, HD_FORM_PROMPT, got + 64 * N_VOCAB);
        assert_memory_equal(got, want, (size_t)(N - 1) * N_VOCAB * sizeof *got);
        free(got);
        free(want);
        close_model(&o);
    }
}

/* Prompt and generated rows are one function. */
static void absorbed_equals_expanded(void **state)
{
    struct opened o;
    int32_t ids[N];
    float *want = calloc((size_t)N * N_VOCAB, sizeof *want), got[N_VOCAB];
    double worst = 0;
    read_ids(ids);
    open_model(&o, MODELS "deepseek-v3-mtp", "ref");
    draft(&o, ids, 0, N - 1, table_a, HD_FORM_PROMPT, want);
    for (int p = 0; p < N - 1; p++) {
        draft(&o, ids, p, p + 1, table_b, HD_FORM_DECODE, got);
        for (int i = 0; i < N_VOCAB; i++)
            worst = fmax(worst, fabs((double)got[i] - want[p * N_VOCAB + i]));
    }
    assert_true(worst < 1e-4);
    free(want);
    close_model(&o);
}

/* Two sequences in one pass; only the second goes on to the draft: its rows as if alone. */
static void some_rows_of_a_pass(void **state)
{
    struct opened o;
    int32_t ids[N], both[80], positions[80], rows[60];
    struct hd_errmsg msg = {0};
    float *alone = calloc((size_t)60 * N_VOCAB, sizeof *alone);
    float *got = calloc((size_t)60 * N_VOCAB, sizeof *got);
    read_ids(ids);
    open_model(&o, MODELS "deepseek-v3-mtp.gguf", "ref");
    memcpy(both, ids, 20 * sizeof *ids);
    memcpy(both + 20, ids + 50, 60 * sizeof *ids);
    for (int i = 0; i < 80; i++)
        positions[i] = i < 20 ? i : i - 20;
    struct hd_seq_rows seqs[] = {{0, 20, 0, table_a}, {20, 60, 0, table_b}};
    struct hd_batch batch = {both, positions, 80, seqs, 2, HD_FORM_PROMPT, NULL, 0};
    assert_int_equal(hd_runner_forward(o.runner, &batch, &msg), HD_OK);
    for (int i = 0; i < 60; i++)
        rows[i] = 20 + i;
    int32_t out[60];
    for (int i = 0; i < 60; i++)
        out[i] = i;
    struct hd_seq_rows second = {0, 60, 0, table_b};
    struct hd_batch drafts = {ids + 51, positions + 20, 60, &second, 1, HD_FORM_PROMPT, out, 60};
    assert_int_equal(hd_runner_draft(o.runner, &drafts, rows, &msg), HD_OK);
    assert_int_equal(hd_runner_logits(o.runner, got, 0, 60, &msg), HD_OK);
    draft(&o, ids + 50, 0, 60, table_a, HD_FORM_PROMPT, alone);
    assert_memory_equal(got, alone, (size_t)60 * N_VOCAB * sizeof *got);
    free(alone);
    free(got);
    close_model(&o);
}

static void refusals(void **state)
{
    struct opened o;
    struct hd_errmsg msg = {0};
    int32_t id = 5, position = 0, row = 0;
    struct hd_seq_rows seq = {0, 1, 0, table_a};
    struct hd_batch batch = {&id, &position, 1, &seq, 1, HD_FORM_PROMPT, NULL, 0};
    open_model(&o, MODELS "deepseek-v3", "ref");
    assert_false(hd_model_has_mtp(o.model));
    assert_int_equal(hd_runner_forward(o.runner, &batch, &msg), HD_OK);
    assert_int_equal(hd_runner_draft(o.runner, &batch, &row, &msg), HD_ERR_UNSUPPORTED);
    close_model(&o);
    open_model(&o, MODELS "deepseek-v3-mtp", "ref");
    assert_int_equal(hd_runner_draft(o.runner, &batch, &row, &msg), HD_ERR_INTERNAL);
    assert_int_equal(hd_runner_forward(o.runner, &batch, &msg), HD_OK);
    row = 1;
    assert_int_equal(hd_runner_draft(o.runner, &batch, &row, &msg), HD_ERR_INTERNAL);
    row = 0;
    assert_int_equal(hd_runner_draft(o.runner, &batch, &row, &msg), HD_OK);
    close_model(&o);
}

/* Not asked for, the layer costs nothing; asked for, only its own weights and its KV. */
static void loaded_only_on_request(void **state)
{
    struct opened o;
    struct hd_model *plain;
    struct hd_errmsg msg = {0};
    open_model(&o, MODELS "deepseek-v3-mtp.gguf", "auto");
    assert_int_equal(hd_model_hparams(o.model)->n_layer, 2);
    assert_int_equal(hd_model_hparams(o.model)->n_layer_mtp, 1);
    assert_int_equal(
        hd_model_bind(&plain, o.store, o.backend, o.pool, HD_PRELOAD_MMAP, false, &msg), HD_OK);
    assert_false(hd_model_has_mtp(plain));
    assert_true(hd_model_has_mtp(o.model));
    assert_true(hd_model_work_bytes(plain) < hd_model_work_bytes(o.model));
    assert_int_equal(hd_model_kv_block_bytes(plain) * 3, hd_model_kv_block_bytes(o.model) * 2);
    assert_int_equal(hd_model_weight_bytes_per_token(plain),
                     hd_model_weight_bytes_per_token(o.model));
    hd_model_free(plain);
    close_model(&o);
}

/* A layer of which a part is missing is damage, not absence. */
static void a_layer_in_part_is_named(void **state)
{
    char folder[64];
    struct hd_store *store;
    struct hd_model *model;
    struct hd_pool *pool;
    const struct hd_backend *backend;
    struct hd_errmsg msg = {0};
    /* the layer is there, but its experts are not as many as promised */
    make_folder(folder, "deepseek-v3-mtp", "{\"first_k_dense_replace\":2,\"n_routed_experts\":16}",
                1);
    assert_int_equal(hd_pool_new(&pool, 1), HD_OK);
    assert_int_equal(hd_backend_get(&backend, "ref", NULL), HD_OK);
    assert_int_equal(hd_store_open(&store, folder, &msg), HD_OK);
    assert_int_equal(hd_model_load(&model, store, backend, pool, &msg), HD_ERR_FORMAT);
    assert_null(model);
    hd_store_close(store);
    hd_pool_free(pool);
    remove_folder(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_change_nothing),  cmocka_unit_test(absorbed_equals_expanded),
        cmocka_unit_test(some_rows_of_a_pass),    cmocka_unit_test(refusals),
        cmocka_unit_test(loaded_only_on_request), cmocka_unit_test(a_layer_in_part_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
