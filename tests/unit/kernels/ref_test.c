/* The reference ops against independent formulations in double precision. */
#include "support.h"

struct fixture {
    const struct hd_backend *b;
    struct hd_pool *pool;
    struct hd_stream *s;
    struct hd_rng rng;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->rng.state = 7;
    assert_int_equal(hd_backend_get(&f->b, "ref", NULL), HD_OK);
    assert_int_equal(hd_pool_new(&f->pool, 2), HD_OK);
    assert_int_equal(hd_stream_new(&f->s, f->b, f->pool, NULL), HD_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(hd_sync(f->s), HD_OK);
    hd_stream_free(f->s);
    hd_pool_free(f->pool);
    free(f);
    return 0;
}

static void matmul_with_bias_and_sum(void **state)
{
    struct fixture *f = *state;
    for (int t = 0; t < N_WEIGHT_TYPE; t++) {
        int64_t n_in = 512, n_out = random_int(&f->rng, 1, 75), n = random_int(&f->rng, 1, 9);
        uint8_t *blocks = random_blocks(&f->rng, weight_types[t], (size_t)(n_in * n_out));
        float *dense = malloc((size_t)(n_in * n_out) * 4);
        hd_dtype_info(weight_types[t])->dequantise(dense, blocks, n_in * n_out);
        float *x = random_floats(&f->rng, (size_t)(n * n_in));
        float *y = random_floats(&f->rng, (size_t)(n * n_out));
        float *bias = random_floats(&f->rng, (size_t)n_out);
        struct hd_tensor tx = tensor_new(f->b, HD_F32, n_in, n, 1, 1, x);
        struct hd_tensor ty = tensor_new(f->b, HD_F32, n_out, n, 1, 1, y);
        struct hd_tensor tb = tensor_new(f->b, HD_F32, n_out, 1, 1, 1, bias);
        struct hd_weight *w;
        assert_int_equal(hd_weight_new(&w, f->b, weight_types[t], n_in, n_out, 1, blocks,
                                       HD_WEIGHT_MATMUL, f->pool, NULL),
                         HD_OK);
        struct hd_matmul m = {.w = w, .out = ty, .bias = &tb, .accumulate = true};
        hd_op_matmul(f->s, &m, 1, tx, HD_FORM_PROMPT);
        float *got = tensor_take(&ty);
        for (int64_t i = 0; i < n * n_out; i++) {
            double want = (double)y[i] + bias[i % n_out], size = 1e-3;
            for (int64_t k = 0; k < n_in; k++) {
                double p = (double)x[i / n_out * n_in + k] * dense[i % n_out * n_in + k];
                want += p;
                size += fabs(p);
            }
            if (fabs(got[i] - want) > 1e-6 * size)
                fail_msg("%s: %g instead of %g", hd_dtype_info(weight_types[t])->name, got[i],
                         want);
        }
        hd_weight_free(w);
        tensor_free(&tx), tensor_free(&ty), tensor_free(&tb);
        free(blocks), free(dense), free(x), free(y), free(bias), free(got);
    }
}

static void attention_reads_blocks_by_table(void **state)
{
    struct fixture *f = *state;
    enum { DIM = 24, HEADS = 6, KV = 2, BLOCKS = 5, N = 70, POS = 90 };
    const int32_t table[3] = {3, 0, 4};
    float *cache = random_floats(&f->rng, BLOCKS * KV * HD_KV_BLOCK * DIM);
    float *rows = random_floats(&f->rng, (POS + N) * KV * DIM);
    float *q = random_floats(&f->rng, N * HEADS * DIM);
    struct hd_tensor tk = tensor_new(f->b, HD_F32, DIM, HD_KV_BLOCK, KV, BLOCKS, cache);
    struct hd_tensor tr = tensor_new(f->b, HD_F32, DIM, KV, POS + N, 1, rows);
    struct hd_tensor tq = tensor_new(f->b, HD_F32, DIM, HEADS, N, 1, q);
    struct hd_tensor tv = hd_tensor_cols(tk, 0, 16); /* values are a slice of the keys, as in MLA */
    struct hd_tensor to = tensor_new(f->b, HD_F32, 16, HEADS, N, 1, NULL);
    struct hd_seq_rows all = {.begin = 0, .n = POS + N, .pos = 0, .table = table};
    struct hd_seq_rows seq = {.begin = 0, .n = N, .pos = POS, .table = table};
    hd_op_kv_write(f->s, tk, tr, &all, 1);
    hd_op_attention(f->s, to, tq, tk, tv, 0.2f, &seq, 1, HD_FORM_PROMPT);
    float *got = tensor_take(&to);
    for (int i = 0; i < N; i++)
        for (int h = 0; h < HEADS; h++) {
            double weight[POS + N], sum = 0;
            int kv = h / (HEADS / KV);
            for (int p = 0; p <= POS + i; p++) {
                double dot = 0;
                for (int d = 0; d < DIM; d++)
                    dot += (double)q[(i * HEADS + h) * DIM + d] * rows[(p * KV + kv) * DIM + d];
                sum += weight[p] = exp(0.2 * dot);
            }
            for (int d = 0; d < 16; d++) {
                double want = 0;
                for (int p = 0; p <= POS + i; p++)
                    want += weight[p] / sum * rows[(p * KV + kv) * DIM + d];
                assert_true(fabs(want - got[(i * HEADS + h) * 16 + d]) < 1e-5);
            }
        }
    struct hd_tensor back = tensor_new(f->b, HD_F32, DIM, KV, POS + N, 1, NULL);
    hd_op_kv_read(f->s, back, tk, table, POS + N);
    float *read = tensor_take(&back);
    assert_memory_equal(read, rows, (POS + N) * KV * DIM * sizeof(float));
    tensor_free(&tk), tensor_free(&tr), tensor_free(&tq), tensor_free(&to), tensor_free(&back);
    free(cache), free(rows), free(q), free(got), free(read);
}

static void rope_turns_pairs(void **state)
{
    struct fixture *f = *state;
    enum { DIM = 20, ROT = 12, HEADS = 3, N = 4 };
    const int32_t positions[N] = {0, 1, 17, 4000};
    float freq[ROT / 2];
    for (int i = 0; i < ROT / 2; i++)
        freq[i] = powf(10000.0f, -2.0f * (float)i / ROT);
    struct hd_tensor tf = tensor_new(f->b, HD_F32, ROT / 2, 1, 1, 1, freq);
    for (int neox = 0; neox < 2; neox++) {
        float *x = random_floats(&f->rng, N * HEADS * DIM);
        struct hd_tensor tx = tensor_new(f->b, HD_F32, DIM, HEADS, N, 1, x);
        struct hd_rope rope = {.n_rot = ROT, .neox = neox, .inv_freq = tf, .mscale = 1.25f};
        hd_op_rope(f->s, tx, &rope, positions, N);
        float *got = tensor_take(&tx);
        for (int i = 0; i < N * HEADS * DIM; i++) {
            int d = i % DIM, pair = neox ? d % (ROT / 2) : d / 2;
            bool second = neox ? d >= ROT / 2 : d % 2;
            double want = x[i];
            if (d < ROT) {
                double angle = (double)((float)positions[i / DIM / HEADS] * freq[pair]);
                int other = neox ? ROT / 2 : 1;
                double c = cos(angle) * 1.25, s = sin(angle) * 1.25;
                want = second ? x[i - other] * s + x[i] * c : x[i] * c - x[i + other] * s;
            }
            assert_true(fabs(want - got[i]) < 1e-5);
        }
        tensor_free(&tx);
        free(x), free(got);
    }
    tensor_free(&tf);
}

static void norm_activation_rows(void **state)
{
    struct fixture *f = *state;
    enum { D = 37, N = 5 };
    float *x = random_floats(&f->rng, N * D), *gain = random_floats(&f->rng, D);
    struct hd_tensor tx = tensor_new(f->b, HD_F32, D, N, 1, 1, x);
    struct hd_tensor tg = tensor_new(f->b, HD_F32, D, 1, 1, 1, gain);
    struct hd_tensor to = tensor_new(f->b, HD_F32, D, N, 1, 1, NULL);
    hd_op_rms_norm(f->s, to, tx, tg, 1e-3f);
    float *norm = tensor_take(&to);
    hd_op_silu_mul(f->s, to, tx, to);
    float *silu = tensor_take(&to);
    hd_op_add(f->s, to, tx);
    float *sum = tensor_take(&to);
    const int32_t rows[2] = {4, 1};
    struct hd_tensor tp = tensor_new(f->b, HD_F32, D, 2, 1, 1, NULL);
    hd_op_gather_rows(f->s, tp, tx, rows, 2);
    float *picked = tensor_take(&tp);
    for (int i = 0; i < N * D; i++) {
        double square = 0;
        for (int d = 0; d < D; d++)
            square += (double)x[i / D * D + d] * x[i / D * D + d];
        double want = x[i] / sqrt(square / D + 1e-3) * gain[i % D];
        assert_true(fabs(want - norm[i]) < 1e-5);
        double act = x[i] / (1 + exp(-x[i])) * norm[i];
        assert_true(fabs(act - silu[i]) < 1e-5);
        assert_true(fabs((double)silu[i] + x[i] - sum[i]) < 1e-6);
    }
    assert_memory_equal(picked, x + 4 * D, D * sizeof(float));
    assert_memory_equal(picked + D, x + D, D * sizeof(float));
    tensor_free(&tx), tensor_free(&tg), tensor_free(&to), tensor_free(&tp);
    free(x), free(gain), free(norm), free(silu), free(sum), free(picked);
}

/* Routing said differently: an expert is chosen if fewer than n_used eligible experts beat it. */
static void router_picks_groups_then_experts(void **state)
{
    struct fixture *f = *state;
    enum { E = 24, USED = 5, N = 40 };
    for (int variant = 0; variant < 8; variant++) {
        bool sigmoid = variant & 1, biased = variant & 2, grouped = variant & 4;
        float *logits = random_floats(&f->rng, N * E), *bias = random_floats(&f->rng, E);
        for (int i = 0; i < E; i++)
            bias[i] *= 0.3f;
        logits[3] = logits[7] = logits[1]; /* ties: the lower index wins */
        bias[3] = bias[7] = bias[1];
        struct hd_tensor tl = tensor_new(f->b, HD_F32, E, N, 1, 1, logits);
        struct hd_tensor tb = tensor_new(f->b, HD_F32, E, 1, 1, 1, bias);
        struct hd_tensor ti = tensor_new(f->b, HD_I32, USED, N, 1, 1, NULL);
        struct hd_tensor tw = tensor_new(f->b, HD_F32, USED, N, 1, 1, NULL);
        struct hd_router r = {.n_expert = E,
                              .n_used = USED,
                              .n_group = grouped ? 6 : 1,
                              .n_group_used = grouped ? 3 : 1,
                              .sigmoid = sigmoid,
                              .normalise = variant != 3,
                              .scale = 2.5f,
                              .bias = biased ? &tb : NULL};
        hd_op_route(f->s, ti, tw, tl, &r);
        int32_t *ids = tensor_take(&ti);
        float *weights = tensor_take(&tw);
        for (int i = 0; i < N; i++) {
            double score[E], choice[E], group[6], sum = 0, exps = 0, picked = 0;
            int beaten[E];
            for (int e = 0; e < E; e++)
                exps += exp(logits[i * E + e]);
            for (int e = 0; e < E; e++) {
                double l = logits[i * E + e];
                score[e] = sigmoid ? 1 / (1 + exp(-l)) : exp(l) / exps;
                choice[e] = score[e] + (biased ? bias[e] : 0);
            }
            for (int g = 0; g < 6; g++) { /* four experts each: the best pair, or the best one */
                group[g] = -1e9;
                for (int a = 0; a < 4; a++)
                    for (int b = 0; b < a + 1; b++) {
                        double pair = biased
                                          ? (a == b ? -1e9 : choice[g * 4 + a] + choice[g * 4 + b])
                                          : choice[g * 4 + a];
                        group[g] = fmax(group[g], pair);
                    }
            }
            for (int e = 0; e < E; e++) {
                int better = 0;
                for (int g = 0; g < 6; g++)
                    better += group[g] > group[e / 4];
                if (grouped && better >= 3)
                    choice[e] = -1e9;
            }
            for (int e = 0; e < E; e++) {
                beaten[e] = 0;
                for (int o = 0; o < E; o++)
                    beaten[e] += choice[o] > choice[e] || (choice[o] == choice[e] && o < e);
            }
            for (int j = 0; j < USED; j++) {
                assert_in_range(ids[i * USED + j], 0, E - 1);
                assert_int_equal(beaten[ids[i * USED + j]], j); /* best first */
                picked += score[ids[i * USED + j]];
            }
            for (int j = 0; j < USED; j++) {
                double want = score[ids[i * USED + j]] * 2.5 / (r.normalise ? picked : 1);
                assert_true(fabs(want - weights[i * USED + j]) < 1e-5);
                sum += weights[i * USED + j];
            }
            if (r.normalise)
                assert_true(fabs(sum - 2.5) < 1e-5);
        }
        tensor_free(&tl), tensor_free(&tb), tensor_free(&ti), tensor_free(&tw);
        free(logits), free(bias), free(ids), free(weights);
    }
}

static void experts_add_up(void **state)
{
    struct fixture *f = *state;
    enum { E = 5, USED = 2, N = 9, D = 32, FF = 48 };
    float *g = random_floats(&f->rng, E * FF * D), *u = random_floats(&f->rng, E * FF * D);
    float *d = random_floats(&f->rng, E * D * FF), *x = random_floats(&f->rng, N * D);
    float *y = random_floats(&f->rng, N * D), *weight = random_floats(&f->rng, N * USED);
    int32_t ids[N * USED];
    for (int i = 0; i < N; i++) { /* expert 4 gets nobody, expert 0 everybody */
        ids[i * USED] = 0;
        ids[i * USED + 1] = 1 + i % 3;
    }
    struct hd_tensor tx = tensor_new(f->b, HD_F32, D, N, 1, 1, x);
    struct hd_tensor ty = tensor_new(f->b, HD_F32, D, N, 1, 1, y);
    struct hd_tensor ti = tensor_new(f->b, HD_I32, USED, N, 1, 1, ids);
    struct hd_tensor tw = tensor_new(f->b, HD_F32, USED, N, 1, 1, weight);
    struct hd_weight *wg, *wu, *wd;
    hd_weight_new(&wg, f->b, HD_F32, D, FF, E, g, HD_WEIGHT_MATMUL, f->pool, NULL);
    hd_weight_new(&wu, f->b, HD_F32, D, FF, E, u, HD_WEIGHT_MATMUL, f->pool, NULL);
    hd_weight_new(&wd, f->b, HD_F32, FF, D, E, d, HD_WEIGHT_MATMUL, f->pool, NULL);
    hd_op_moe(f->s, ty, tx, wg, wu, wd, ti, tw, HD_FORM_PROMPT);
    float *got = tensor_take(&ty);
    for (int i = 0; i < N; i++) {
        double want[D];
        for (int o = 0; o < D; o++)
            want[o] = y[i * D + o];
        for (int j = 0; j < USED; j++)
            for (int h = 0; h < FF; h++) {
                int row = (ids[i * USED + j] * FF + h) * D;
                double a = 0, b = 0;
                for (int k = 0; k < D; k++) {
                    a += (double)g[row + k] * x[i * D + k];
                    b += (double)u[row + k] * x[i * D + k];
                }
                for (int o = 0; o < D; o++)
                    want[o] += weight[i * USED + j] * a / (1 + exp(-a)) * b *
                               d[(ids[i * USED + j] * D + o) * FF + h];
            }
        for (int o = 0; o < D; o++)
            assert_true(fabs(want[o] - got[i * D + o]) < 1e-4 * (1 + fabs(want[o])));
    }
    hd_weight_free(wg), hd_weight_free(wu), hd_weight_free(wd);
    tensor_free(&tx), tensor_free(&ty), tensor_free(&ti), tensor_free(&tw);
    free(g), free(u), free(d), free(x), free(y), free(weight), free(got);
}

static void refuses_what_it_cannot_do(void **state)
{
    struct fixture *f = *state;
    struct hd_weight *w;
    struct hd_errmsg msg;
    const struct hd_backend *b;
    uint8_t data[64] = {0};
    assert_int_equal(
        hd_weight_new(&w, f->b, HD_I32, 4, 4, 1, data, HD_WEIGHT_MATMUL, f->pool, &msg),
        HD_ERR_UNSUPPORTED);
    assert_null(w);
    assert_int_equal(
        hd_weight_new(&w, f->b, HD_Q4_K, 100, 4, 1, data, HD_WEIGHT_MATMUL, f->pool, &msg),
        HD_ERR_INVALID);
    assert_int_equal(
        hd_weight_new(&w, f->b, HD_F32, INT64_MAX / 2, 4, 1, data, HD_WEIGHT_MATMUL, f->pool, &msg),
        HD_ERR_INVALID);
    assert_int_equal(hd_backend_get(&b, "abacus", &msg), HD_ERR_UNSUPPORTED);
    assert_null(b);
    assert_non_null(strstr(msg.text, "abacus: no such kernels"));
    assert_int_equal(hd_backend_get(&b, "auto", &msg), HD_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matmul_with_bias_and_sum),
        cmocka_unit_test(attention_reads_blocks_by_table),
        cmocka_unit_test(rope_turns_pairs),
        cmocka_unit_test(norm_activation_rows),
        cmocka_unit_test(router_picks_groups_then_experts),
        cmocka_unit_test(experts_add_up),
        cmocka_unit_test(refuses_what_it_cannot_do),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
