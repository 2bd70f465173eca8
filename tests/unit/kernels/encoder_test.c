/* The encoders' ops: ref against the definitions written once more in double, the vector back ends
 * against ref, and every row or text on its own, bit for bit. */
#include "support.h"

static const char *const names[] = {"ref", "avx2", "avx512"};

struct side {
    const struct hd_backend *b;
    struct hd_pool *one, *three;
    struct hd_stream *s, *s_one;
};

static bool side_open(struct side *side, const char *name)
{
    *side = (struct side){.b = backend_or_null(name)};
    if (!side->b) {
        print_message("skipped: %s\n", name);
        return false;
    }
    assert_int_equal(hd_pool_new(&side->one, 1), HD_OK);
    assert_int_equal(hd_pool_new(&side->three, 3), HD_OK);
    assert_int_equal(hd_stream_new(&side->s_one, side->b, side->one, NULL), HD_OK);
    assert_int_equal(hd_stream_new(&side->s, side->b, side->three, NULL), HD_OK);
    return true;
}

static void side_close(struct side *side)
{
    assert_int_equal(hd_sync(side->s), HD_OK);
    assert_int_equal(hd_sync(side->s_one), HD_OK);
    hd_stream_free(side->s), hd_stream_free(side->s_one);
    hd_pool_free(side->one), hd_pool_free(side->three);
}

#define FOR_EACH_SIDE(side)                                                                        \
    for (int name_ = 0; name_ < 3; name_++)                                                        \
        for (struct side side, *open_ = side_open(&side, names[name_]) ? &side : NULL; open_;      \
             side_close(&side), open_ = NULL)

static void expect_near(const char *what, const float *got, const double *want, size_t n,
                        double limit)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) <= limit * (1 + fabs(want[i]))))
            fail_msg("%s, element %zu: %.9g, expected %.9g", what, i, (double)got[i], want[i]);
}

static struct hd_tensor matrix(const struct side *side, int64_t cols, int64_t rows, const float *x)
{
    struct hd_tensor t = tensor_new(side->b, HD_F32, cols, rows, 1, 1, x);
    t.n_dim = 2;
    return t;
}

/* --- layer norm ------------------------------------------------------------------------------ */

static void layer_norm_is_what_it_says(void **state)
{
    static const int64_t widths[] = {1, 7, 24, 32, 384, 1000};
    enum { ROWS = 5 };
    struct hd_rng rng = {3};
    FOR_EACH_SIDE(side)
    {
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
            int64_t n = widths[w];
            float *x = random_floats(&rng, (size_t)(n * ROWS));
            float *gain = random_floats(&rng, (size_t)n), *bias = random_floats(&rng, (size_t)n);
            double *want = malloc((size_t)(n * ROWS) * sizeof *want);
            for (int64_t i = 0; i < n; i++)
                x[n + i] += 1000; /* a row far from zero: its variance is still its own */
            for (int64_t r = 0; r < ROWS; r++) {
                double mean = 0, square = 0;
                for (int64_t i = 0; i < n; i++)
                    mean += (double)x[r * n + i] / (double)n;
                for (int64_t i = 0; i < n; i++)
                    square += ((double)x[r * n + i] - mean) * ((double)x[r * n + i] - mean);
                for (int64_t i = 0; i < n; i++)
                    want[r * n + i] = ((double)x[r * n + i] - mean) /
                                          sqrt(square / (double)n + 1e-5) * (double)gain[i] +
                                      (double)bias[i];
            }
            struct hd_tensor in = matrix(&side, n, ROWS, x), g = matrix(&side, n, 1, gain);
            struct hd_tensor b = matrix(&side, n, 1, bias);
            hd_op_layer_norm(side.s, in, in, g, b, 1e-5f);
            float *got = tensor_take(&in);
            expect_near("layer norm", got, want, (size_t)(n * ROWS), 1e-3);
            /* the usual row closely, the far one within what its floats hold */
            expect_near("layer norm", got, want, (size_t)n, 2e-6);
            tensor_free(&in), tensor_free(&g), tensor_free(&b);
            free(x), free(gain), free(bias), free(want), free(got);
        }
    }
}

/* --- activations ----------------------------------------------------------------------------- */

static double activated(double x, enum hd_activation f)
{
    switch (f) {
    case HD_ACT_GELU:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case HD_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case HD_ACT_RELU:
        return x > 0 ? x : 0;
    case HD_ACT_SILU:
        return x / (1 + exp(-x));
    case HD_ACT_TANH:
        break;
    }
    return tanh(x);
}

static void activations_follow_their_formulas(void **state)
{
    enum { N = 4003 };
    float x[N];
    double want[N];
    for (int i = 0; i < N; i++)
        x[i] = (float)(i - N / 2) * 0.01f; /* -20 … 20 */
    x[0] = -1e4f;
    x[N - 1] = 1e4f;
    FOR_EACH_SIDE(side)
    {
        for (int f = HD_ACT_GELU; f <= HD_ACT_TANH; f++) {
            struct hd_tensor t = matrix(&side, N, 1, x);
            for (int i = 0; i < N; i++)
                want[i] = activated((double)x[i], (enum hd_activation)f);
            hd_op_activate(side.s, t, t, (enum hd_activation)f);
            float *got = tensor_take(&t);
            expect_near("activation", got, want, N, 1e-6);
            tensor_free(&t);
            free(got);
        }
    }
}

/* --- attention ------------------------------------------------------------------------------- */

enum { HEADS = 3, N_SEQ = 4 };

static float *run_attention(const struct side *side, struct hd_stream *s, const float *const qkv[3],
                            int64_t n, int64_t dim, const struct hd_seq_rows *seqs, int n_seq)
{
    struct hd_tensor t[4];
    float *zeros = calloc((size_t)(n * HEADS * dim), sizeof *zeros);
    for (int i = 0; i < 4; i++)
        t[i] = tensor_new(side->b, HD_F32, dim, HEADS, n, 1, i < 3 ? qkv[i] : zeros);
    hd_op_attention_all(s, t[3], t[0], t[1], t[2], 0.3f, seqs, n_seq);
    float *out = tensor_take(&t[3]);
    for (int i = 0; i < 4; i++)
        tensor_free(&t[i]);
    free(zeros);
    return out;
}

static void attend(double *want, const float *const qkv[3], const struct hd_seq_rows *seq,
                   int64_t dim)
{
    double *p = malloc((size_t)seq->n * sizeof *p);
    for (int64_t r = 0; r < seq->n * HEADS; r++) {
        int64_t h = r % HEADS, row = (seq->begin * HEADS + r) * dim;
        double max = -INFINITY, sum = 0;
        for (int64_t j = 0; j < seq->n; j++) {
            int64_t other = ((seq->begin + j) * HEADS + h) * dim;
            p[j] = 0;
            for (int64_t d = 0; d < dim; d++)
                p[j] += 0.3 * (double)qkv[0][row + d] * (double)qkv[1][other + d];
            max = p[j] > max ? p[j] : max;
        }
        for (int64_t j = 0; j < seq->n; j++)
            sum += p[j] = exp(p[j] - max);
        for (int64_t d = 0; d < dim; d++) {
            want[row + d] = 0;
            for (int64_t j = 0; j < seq->n; j++)
                want[row + d] +=
                    p[j] / sum * (double)qkv[2][((seq->begin + j) * HEADS + h) * dim + d];
        }
    }
    free(p);
}

static void texts_see_themselves_and_nobody_else(void **state)
{
    static const int64_t dims[] = {6, 8, 32, 64, 20}, lengths[N_SEQ] = {1, 64, 150, 9};
    struct hd_rng rng = {5};
    FOR_EACH_SIDE(side)
    {
        for (size_t k = 0; k < sizeof dims / sizeof *dims; k++) {
            struct hd_seq_rows seqs[N_SEQ];
            int64_t n = 0, dim = dims[k], row = HEADS * dim;
            for (int i = 0; i < N_SEQ; i++) {
                seqs[i] = (struct hd_seq_rows){.begin = n, .n = lengths[i]};
                n += lengths[i];
            }
            const float *qkv[3];
            for (int i = 0; i < 3; i++)
                qkv[i] = random_floats(&rng, (size_t)(n * row));
            double *want = malloc((size_t)(n * row) * sizeof *want);
            for (int i = 0; i < N_SEQ; i++)
                attend(want, qkv, &seqs[i], dim);
            float *got = run_attention(&side, side.s, qkv, n, dim, seqs, N_SEQ);
            float *one = run_attention(&side, side.s_one, qkv, n, dim, seqs, N_SEQ);
            expect_near("attention", got, want, (size_t)(n * row), 1e-5);
            assert_memory_equal(got, one, (size_t)(n * row) * sizeof(float));
            for (int i = 0; i < N_SEQ; i++) { /* alone in its batch */
                const struct hd_seq_rows alone = {.begin = 0, .n = seqs[i].n};
                const float *part[3];
                for (int j = 0; j < 3; j++)
                    part[j] = qkv[j] + seqs[i].begin * row;
                float *single = run_attention(&side, side.s, part, alone.n, dim, &alone, 1);
                assert_memory_equal(got + seqs[i].begin * row, single,
                                    (size_t)(alone.n * row) * sizeof(float));
                free(single);
            }
            for (int i = 0; i < 3; i++)
                free((void *)qkv[i]);
            free(want), free(got), free(one);
        }
    }
}

static void means_are_by_text(void **state)
{
    struct hd_rng rng = {7};
    const struct hd_seq_rows seqs[] = {{.begin = 0, .n = 1}, {.begin = 1, .n = 6}};
    FOR_EACH_SIDE(side)
    {
        enum { N = 37 };
        double want[2 * N] = {0};
        float *x = random_floats(&rng, 7 * N);
        struct hd_tensor in = matrix(&side, N, 7, x), out = matrix(&side, N, 2, NULL);
        for (int d = 0; d < N; d++) {
            want[d] = (double)x[d];
            for (int r = 1; r < 7; r++)
                want[N + d] += (double)x[r * N + d] / 6;
        }
        hd_op_mean_rows(side.s, out, in, seqs, 2);
        float *got = tensor_take(&out);
        expect_near("mean", got, want, sizeof want / sizeof *want, 1e-6);
        tensor_free(&in), tensor_free(&out);
        free(x), free(got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layer_norm_is_what_it_says),
        cmocka_unit_test(activations_follow_their_formulas),
        cmocka_unit_test(texts_see_themselves_and_nobody_else),
        cmocka_unit_test(means_are_by_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
