/* Matrices of quantised checkpoints: every value bit for bit what the published formulas give
 * (tests/golden/checkpoints.txt, made by tools/golden/make_checkpoints.py), and files that lie. */
#include "support.h"

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
    assert_int_equal(hd_parts__rows(rows, t, order, pool), HD_OK);
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

/* NaN in the codes. */
static void values_that_are_no_numbers_are_refused(void **state)
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
    size_t n = (size_t)(t->ne[0] * t->ne[1]);
    uint8_t *q = malloc(n), *rows = malloc(hd_dtype_row_bytes(t->dtype, t->ne[0]) * n);
    memcpy(q, quant.q, n);
    quant.q = q;
    copy.quant = &quant;
    assert_int_equal(hd_parts__rows(rows, &copy, NULL, pool), HD_OK);
    q[n - 1] = 0xff;
    assert_int_equal(hd_parts__rows(rows, &copy, NULL, pool), HD_ERR_FORMAT);
    q[n - 1] = 0x7f;
    assert_int_equal(hd_parts__rows(rows, &copy, NULL, pool), HD_ERR_FORMAT);
    free(q), free(rows);
    hd_store_close(store);
    hd_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dequantises_bit_for_bit),
        cmocka_unit_test(values_that_are_no_numbers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
