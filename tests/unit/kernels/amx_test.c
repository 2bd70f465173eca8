/* The AMX kernel with emulated tiles (the same source as the real one) against ref, for every
 * quantised type, odd shapes, and pieces of a batch. */
#include "support.h"

#include "kernels/x86/driver.h"

enum { N_OUT = 16 };

/* sums [n][16] of one panel. */
static float *run_panel(const struct hd_weight *w, const float *x, int64_t n_in, int64_t n)
{
    struct hd_activations a;
    hd_x86_activations_init(&a, (const uint8_t *)x, (size_t)n_in * 4, n_in, n, HD_FORM_PROMPT);
    void *memory = aligned_alloc(64, hd_x86_activations_bytes(n, n_in));
    float *sums = malloc((size_t)n * HD_PANEL * sizeof *sums);
    hd_x86_activations_place(&a, memory);
    for (int64_t t = 0; t * HD_TILE_COLUMNS < n; t++)
        hd_kernels_amx_emulated.quantise(&a, t);
    struct hd_panel_job job = {.sums = (float(*)[HD_PANEL])sums,
                               .pack = w->pack,
                               .panel = hd_pack_panel(w, 0, 0),
                               .n_unit = hd_pack_units(w->pack, n_in),
                               .a = &a,
                               .n = n,
                               .tile = aligned_alloc(64, HD_TILE_BYTES),
                               .form = HD_FORM_PROMPT};
    hd_kernels_amx_emulated.panel(&job);
    free(job.tile), free(memory);
    return sums;
}

static void tiles_match_ref(void **state)
{
    /* Weights and activations are both rounded to 8 bits with a scale per 128. */
    const double tolerance = 1.5e-2;
    struct hd_rng rng = {3};
    struct hd_pool *pool;
    assert_int_equal(hd_pool_new(&pool, 1), HD_OK);
    for (int t = 0; t < N_WEIGHT_TYPE; t++) {
        enum hd_dtype type = weight_types[t];
        if (hd_pack_of(type)->is_float)
            continue;
        for (int i = 0; i < 4; i++) {
            int64_t block = hd_dtype_info(type)->block;
            int64_t n_in =
                i == 3 ? 4096 + 512 : block * random_int(&rng, 512 / block, 1024 / block);
            int64_t n = i == 0 ? 1 : random_int(&rng, 2, 90);
            uint8_t *blocks = random_blocks(&rng, type, (size_t)(n_in * N_OUT));
            float *dense = malloc((size_t)(n_in * N_OUT) * 4);
            float *x = random_floats(&rng, (size_t)(n * n_in)), *want = malloc((size_t)n * 64);
            hd_dtype_info(type)->dequantise(dense, blocks, n_in * N_OUT);
            for (int64_t j = 0; j < n * N_OUT; j++) {
                double sum = 0;
                for (int64_t k = 0; k < n_in; k++)
                    sum += (double)x[j / N_OUT * n_in + k] * dense[j % N_OUT * n_in + k];
                want[j] = (float)sum;
            }
            struct hd_weight w = {.dtype = type,
                                  .n_in = n_in,
                                  .n_out = N_OUT,
                                  .n_matrix = 1,
                                  .row_bytes = hd_dtype_row_bytes(type, n_in),
                                  .data = blocks};
            assert_int_equal(hd_pack_plan(&w, NULL), HD_OK);
            assert_non_null(w.packed = hd_pages_new(w.packed_bytes));
            hd_pack_part(&w, 0, w.n_part);
            float *got = run_panel(&w, x, n_in, n);
            double e = relative_rms(got, want, (size_t)(n * N_OUT));
            if (!(e < (i ? tolerance : 3 * tolerance)))
                fail_msg("%s, %d columns: relative RMS %g", hd_dtype_info(type)->name, (int)n, e);
            for (int64_t begin = 0; begin < n; begin += 23) { /* rows do not know their batch */
                int64_t m = n - begin < 23 ? n - begin : 23;
                float *part = run_panel(&w, x + begin * n_in, n_in, m);
                assert_memory_equal(part, got + begin * N_OUT, (size_t)(m * N_OUT) * 4);
                free(part);
            }
            hd_pages_free(w.packed, w.packed_bytes);
            free(blocks), free(dense), free(x), free(want), free(got);
        }
    }
    hd_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tiles_match_ref)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
