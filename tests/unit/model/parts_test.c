/* Matrices of quantised checkpoints: every value bit for bit what the published formulas give
 * (tests/golden/checkpoints.txt, made by tools/golden/make_checkpoints.py), and files that lie. */
#include "support.h"

#include <math.h>

#include "base/hash.h"
#include "model/model_impl.h"

/* [n_out, n_in] in F32, in the natural order. */
static float *dequantised(const struct hd_store_tensor *t, struct hd_pool *pool)
{
    size_t n_in = (size_t)t->ne[0], n_out = (size_t)t->ne[1];
    size_t row_bytes = hd_dtype_row_bytes(t->dtype, t->ne[0]);
    float *values = malloc(n_in * n_out * sizeof *values), *row = malloc(n_in * sizeof *row);
    char *rows = malloc(row_bytes * n_out);
    int32_t *order;
    assert_int_equal(hd_parts__order(&order, t), HD_OK);
    hd_parts__rows(rows, t, order, pool);
    for (size_t o = 0; o < n_out; o++) {
        hd_dtype_info(t->dtype)->dequantise(row, rows + o * row_bytes, t->ne[0]);
        for (size_t j = 0; j < n_in; j++)
            values[o * n_in + (order ? (size_t)order[j] : j)] = row[j];
    }
    free(row), free(rows), free(order);
    return values;
}

static void dequantises_bit_for_bit(void **state)
{
    char folder[64], name[128], want[80], path[512], got[65], last[64] = "";
    struct hd_store *store = NULL;
    struct hd_pool *pool;
    struct hd_errmsg msg;
    int n = 0, n_ordered = 0, n_folder = 0;
    FILE *list = fopen(HD_TEST_ROOT "/golden/checkpoints.txt", "r");
    assert_non_null(list);
    assert_int_equal(hd_pool_new(&pool, 3), HD_OK);
    while (fscanf(list, "%63s %127s %79s", folder, name, want) == 3) {
        if (strcmp(folder, last) != 0) {
            hd_store_close(store);
            snprintf(path, sizeof path, MODELS "%s", folder);
            if (hd_store_open(&store, path, &msg))
                fail_msg("%s", msg.text);
            strcpy(last, folder);
            n_folder++;
        }
        const struct hd_store_tensor *t = hd_store_tensor(store, name);
        if (!t || !t->quant)
            fail_msg("%s: no quantised matrix %s", folder, name);
        float *values = dequantised(t, pool);
        hd_sha256_hex(got, values, (size_t)(t->ne[0] * t->ne[1]) * sizeof *values);
        if (strcmp(got, want) != 0)
            fail_msg("%s: %s differs from the golden values", folder, name);
        n_ordered += t->quant->g_idx != NULL;
        free(values);
        n++;
    }
    fclose(list);
    hd_store_close(store);
    hd_pool_free(pool);
    assert_true(n_folder >= 12 && n > 100 && n_ordered > 10);
}

/* FP8 has NaN: a block that holds one comes out as NaN in every kernel. */
static void nan_stays_visible(void **state)
{
    struct hd_store *store;
    struct hd_pool *pool;
    struct hd_errmsg msg;
    assert_int_equal(hd_pool_new(&pool, 1), HD_OK);
    assert_int_equal(hd_store_open(&store, MODELS "deepseek-v3-fp8", &msg), HD_OK);
    const struct hd_store_tensor *t =
        hd_store_tensor(store, "model.layers.0.self_attn.q_a_proj.weight");
    assert_non_null(t);
    struct hd_store_tensor copy = *t;
    struct hd_store_quant quant = *t->quant;
    size_t n_in = (size_t)t->ne[0], n = n_in * (size_t)t->ne[1];
    uint8_t *q = malloc(n);
    memcpy(q, quant.q, n);
    q[n - 1] = 0xff; /* in the second, shorter block of the last row */
    quant.q = q;
    copy.quant = &quant;
    float *values = dequantised(&copy, pool);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(isnan(values[i]), i >= n - n_in + 128);
    free(q), free(values);
    hd_store_close(store);
    hd_pool_free(pool);
}

/* Scales of FP8 blocks in BF16 or F16 mean what they say in F32. */
static void fp8_scales_come_in_three_types(void **state)
{
    struct hd_store *store;
    struct hd_pool *pool;
    struct hd_errmsg msg;
    assert_int_equal(hd_pool_new(&pool, 1), HD_OK);
    assert_int_equal(hd_store_open(&store, MODELS "deepseek-v3-fp8", &msg), HD_OK);
    const struct hd_store_tensor *t =
        hd_store_tensor(store, "model.layers.0.self_attn.q_a_proj.weight");
    assert_non_null(t);
    enum { N = 2 }; /* 32 rows of 144: one block by two */
    static const float scale[N] = {0.5f, 0.25f};
    uint16_t bf16[N], f16[N];
    for (int i = 0; i < N; i++) {
        bf16[i] = hd_f32_to_bf16(scale[i]);
        f16[i] = hd_f32_to_f16(scale[i]);
    }
    const void *const scales[] = {scale, bf16, f16};
    static const enum hd_dtype types[] = {HD_F32, HD_BF16, HD_F16};
    float *values[3];
    for (int i = 0; i < 3; i++) {
        struct hd_store_tensor copy = *t;
        struct hd_store_quant quant = *t->quant;
        quant.scale = scales[i];
        quant.scale_dtype = types[i];
        copy.quant = &quant;
        values[i] = dequantised(&copy, pool);
    }
    size_t bytes = (size_t)(t->ne[0] * t->ne[1]) * sizeof(float);
    assert_memory_equal(values[0], values[1], bytes);
    assert_memory_equal(values[0], values[2], bytes);
    for (int i = 0; i < 3; i++)
        free(values[i]);
    hd_store_close(store);
    hd_pool_free(pool);
}

/* Any piece of the rows is what lies there among all rows. */
static void pieces_are_parts_of_the_whole(void **state)
{
    static const char *const folders[] = {"qwen2-awq", "qwen2-gptq-act", "qwen2-gptq-8",
                                          "qwen2-nf4", "deepseek-v3-fp8"};
    struct hd_pool *pool;
    struct hd_errmsg msg;
    assert_int_equal(hd_pool_new(&pool, 1), HD_OK);
    for (size_t f = 0; f < sizeof folders / sizeof folders[0]; f++) {
        struct hd_store *store;
        char path[512];
        snprintf(path, sizeof path, MODELS "%s", folders[f]);
        assert_int_equal(hd_store_open(&store, path, &msg), HD_OK);
        const struct hd_store_tensor *t =
            hd_store_tensor(store, "model.layers.0.self_attn.o_proj.weight");
        assert_non_null(t);
        size_t row_bytes = hd_dtype_row_bytes(t->dtype, t->ne[0]);
        size_t block_bytes = (size_t)hd_dtype_info(t->dtype)->block_bytes;
        uint8_t *all = malloc(row_bytes * (size_t)t->ne[1]), *piece = malloc(row_bytes * 16);
        int32_t *order;
        assert_int_equal(hd_parts__order(&order, t), HD_OK);
        hd_parts__rows(all, t, order, pool);
        struct hd_parts *parts = hd_parts__new(1);
        parts->t[0] = t;
        parts->order = order;
        parts->matrix_rows = 5;
        parts->first_row = 2;
        for (int64_t m = 0; m < 3; m++)
            for (int64_t row = 0; row < 9; row++)
                for (size_t b = 0; b < row_bytes / block_bytes; b++) {
                    parts->source.read(&parts->source, piece, m, row, 7, (int64_t)b, 1);
                    for (int64_t i = 0; i < 7; i++)
                        assert_memory_equal(piece + (size_t)i * block_bytes,
                                            all + (size_t)(5 * m + 2 + row + i) * row_bytes +
                                                b * block_bytes,
                                            block_bytes);
                }
        free(all), free(piece), free(order), free(parts);
        hd_store_close(store);
    }
    hd_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dequantises_bit_for_bit),
        cmocka_unit_test(nan_stays_visible),
        cmocka_unit_test(fp8_scales_come_in_three_types),
        cmocka_unit_test(pieces_are_parts_of_the_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
