/* The vector back ends that this machine has, against ref over random shapes, within declared
 * tolerances; and the invariance rule (design decision 12) bit by bit: a row's result depends
 * neither on the batch, nor on where a chunk ends, nor on the number of threads. */
#include "support.h"

/* Relative RMS against ref. Activations are rounded to 8 bits with a scale per 32, which alone
 * costs about 6e-3 on these inputs; weights in a float type meet the activations in F32; F16 caches
 * round keys and values to 11 bits. */
static const double TOLERANCE_8BIT = 1e-2, TOLERANCE_FLOAT = 1e-5, TOLERANCE_F16 = 1e-3;

static const char *const names[] = {"avx2", "avx512", "amx"};
enum { N_NAME = sizeof names / sizeof names[0] };

/* A back end beside ref, with pools of one and of three threads. */
struct pair {
    const char *name;
    const struct hd_backend *b, *ref;
    struct hd_pool *one, *three;
    struct hd_stream *s, *s_one, *s_ref;
    struct hd_rng rng;
};

static bool pair_open(struct pair *p, const char *name)
{
    struct hd_errmsg msg;
    *p = (struct pair){.name = name, .rng = {11}};
    if (hd_backend_get(&p->b, name, &msg)) {
        print_message("skipped: %s\n", msg.text);
        return false;
    }
    assert_int_equal(hd_backend_get(&p->ref, "ref", NULL), HD_OK);
    assert_int_equal(hd_pool_new(&p->one, 1), HD_OK);
    assert_int_equal(hd_pool_new(&p->three, 3), HD_OK);
    assert_int_equal(hd_stream_new(&p->s, p->b, p->three, NULL), HD_OK);
    assert_int_equal(hd_stream_new(&p->s_one, p->b, p->one, NULL), HD_OK);
    assert_int_equal(hd_stream_new(&p->s_ref, p->ref, p->three, NULL), HD_OK);
    return true;
}

static void pair_close(struct pair *p)
{
    assert_int_equal(hd_sync(p->s), HD_OK);
    hd_stream_free(p->s), hd_stream_free(p->s_one), hd_stream_free(p->s_ref);
    hd_pool_free(p->one), hd_pool_free(p->three);
}

#define FOR_EACH_BACKEND(p)                                                                        \
    for (int name_ = 0; name_ < N_NAME; name_++)                                                   \
        for (struct pair p, *open_ = pair_open(&p, names[name_]) ? &p : NULL; open_;               \
             pair_close(&p), open_ = NULL)

static void expect_close(const char *what, const char *name, const float *got, const float *want,
                         size_t n, double tolerance)
{
    double e = relative_rms(got, want, n);
    if (!(e <= tolerance))
        fail_msg("%s, %s: relative RMS %g, allowed %g", what, name, e, tolerance);
}

static bool is_float(enum hd_dtype t)
{
    return t == HD_F32 || t == HD_F16 || t == HD_BF16 || t == HD_FP8_128 || t == HD_NF4_64 ||
           t == HD_FP4_64;
}

static struct hd_weight *weight_new(const struct pair *p, const struct hd_backend *b,
                                    enum hd_dtype type, int64_t n_in, int64_t n_out,
                                    int64_t n_matrix, const void *data)
{
    struct hd_weight *w;
    struct hd_errmsg msg;
    if (hd_weight_new(&w, b, type, n_in, n_out, n_matrix, data, HD_WEIGHT_MATMUL, p->three, &msg))
        fail_msg("%s", msg.text);
    return w;
}

/* --- products ----------------------------------------------------------------------------------
 */

static float *run_matmul(const struct hd_backend *b, struct hd_stream *s, const struct hd_weight *w,
                         const float *x, int64_t n, const float *bias, enum hd_form form)
{
    int64_t n_in = hd_weight_n_in(w), n_out = hd_weight_n_out(w);
    struct hd_tensor tx = tensor_new(b, HD_F32, n_in, n, 1, 1, x);
    struct hd_tensor ty = tensor_new(b, HD_F32, n_out, n, 1, 1, NULL);
    struct hd_tensor tb = tensor_new(b, HD_F32, n_out, 1, 1, 1, bias);
    struct hd_matmul m = {.w = w, .out = ty, .bias = bias ? &tb : NULL};
    hd_op_matmul(s, &m, 1, tx, form);
    float *y = tensor_take(&ty);
    tensor_free(&tx), tensor_free(&ty), tensor_free(&tb);
    return y;
}

static void matmul_case(struct pair *p, enum hd_dtype type, int64_t n_in, int64_t n_out, int64_t n,
                        double *error)
{
    uint8_t *blocks = random_blocks(&p->rng, type, (size_t)(n_in * n_out));
    uint8_t *shifted = malloc(hd_dtype_row_bytes(type, n_in) * (size_t)n_out + 3);
    memcpy(shifted + 3, blocks, hd_dtype_row_bytes(type, n_in) * (size_t)n_out);
    float *x = random_floats(&p->rng, (size_t)(n * n_in));
    float *bias = random_floats(&p->rng, (size_t)n_out);
    struct hd_weight *w = weight_new(p, p->b, type, n_in, n_out, 1, shifted + 3);
    struct hd_weight *wr = weight_new(p, p->ref, type, n_in, n_out, 1, blocks);
    enum hd_form form = n % 2 ? HD_FORM_DECODE : HD_FORM_PROMPT;
    float *got = run_matmul(p->b, p->s, w, x, n, bias, form);
    float *want = run_matmul(p->ref, p->s_ref, wr, x, n, bias, form);
    /* A single block with an outlier may lose more than the average over all shapes. */
    expect_close(hd_dtype_info(type)->name, p->name, got, want, (size_t)(n * n_out),
                 is_float(type) ? TOLERANCE_FLOAT : 3 * TOLERANCE_8BIT);
    double e = relative_rms(got, want, (size_t)(n * n_out));
    *error += e * e;
    hd_weight_free(w), hd_weight_free(wr);
    free(blocks), free(shifted), free(x), free(bias), free(got), free(want);
}

static void matmul_matches_ref(void **state)
{
    enum { CASES = 9 };
    FOR_EACH_BACKEND(p)
    {
        double error = 0;
        for (int t = 0; t < N_WEIGHT_TYPE; t++) {
            enum hd_dtype type = weight_types[t];
            double type_error = 0;
            for (int i = 0; i < CASES; i++) {
                int64_t block = hd_dtype_info(type)->block;
                int64_t n_in = is_float(type) && type < HD_OWN_TYPES
                                   ? random_int(&p.rng, 1, 700)
                                   : block * random_int(&p.rng, 1, 1024 / block);
                int64_t n = i < 4 ? i + 1 : random_int(&p.rng, 5, 130);
                matmul_case(&p, type, n_in, random_int(&p.rng, 1, 100), n, &type_error);
            }
            if (sqrt(type_error / CASES) > TOLERANCE_8BIT)
                fail_msg("%s, %s: mean relative RMS %g", p.name, hd_dtype_info(type)->name,
                         sqrt(type_error / CASES));
        }
        matmul_case(&p, HD_Q4_K, 4096 + 1024, 20, 14, &error); /* several unpacked tiles */
        matmul_case(&p, HD_Q5_0, 4096 + 96, 20, 14, &error);
        matmul_case(&p, HD_Q6_K, 8960, 33, 9, &error);
    }
}

/* Types of our own may end within a block; what pads it must not count. */
static void rows_may_end_within_a_block(void **state)
{
    FOR_EACH_BACKEND(p)
    {
        for (int type = HD_OWN_TYPES; type < HD_OWN_TYPES_END; type++)
            for (int i = 0; i < 6; i++) {
                int64_t n_in = random_int(&p.rng, 1, 700), n_out = random_int(&p.rng, 1, 60);
                int64_t block = hd_dtype_info(type)->block, n = i < 3 ? i + 1 : 9 * i;
                int64_t row = (n_in + block - 1) / block;
                uint8_t *blocks =
                    random_blocks(&p.rng, (enum hd_dtype)type, (size_t)(row * block * n_out));
                float *x = random_floats(&p.rng, (size_t)(n * n_in)), *y[2];
                for (int r = 0; r < 2; r++) {
                    const struct hd_backend *b = r ? p.ref : p.b;
                    struct hd_weight *w =
                        weight_new(&p, b, (enum hd_dtype)type, n_in, n_out, 1, blocks);
                    y[r] = run_matmul(b, r ? p.s_ref : p.s, w, x, n, NULL, HD_FORM_DECODE);
                    hd_weight_free(w);
                }
                expect_close(hd_dtype_info(type)->name, p.name, y[0], y[1], (size_t)(n * n_out),
                             is_float((enum hd_dtype)type) ? TOLERANCE_FLOAT : 3 * TOLERANCE_8BIT);
                free(blocks), free(x), free(y[0]), free(y[1]);
            }
    }
}

/* A weight whose elements lie in an order of their own meets the inputs in that order. */
static void order_is_obeyed(void **state)
{
    enum { N_IN = 256, N_OUT = 40, N = 7 };
    FOR_EACH_BACKEND(p)
    {
        int32_t order[N_IN];
        for (int i = 0; i < N_IN; i++)
            order[i] = (i * 77 + 13) % N_IN;
        float *x = random_floats(&p.rng, N * N_IN), *moved = malloc(N * N_IN * sizeof *moved);
        for (int i = 0; i < N * N_IN; i++)
            moved[i] = x[i / N_IN * N_IN + order[i % N_IN]];
        uint8_t *blocks = random_blocks(&p.rng, HD_INT4_32, N_IN * N_OUT);
        struct hd_weight *w[3];
        struct hd_matmul m[3];
        struct hd_tensor tx = tensor_new(p.b, HD_F32, N_IN, N, 1, 1, x);
        for (int i = 0; i < 3; i++) { /* ordered, plain, ordered: three products at once */
            w[i] = weight_new(&p, p.b, HD_INT4_32, N_IN, N_OUT, 1, blocks);
            m[i] =
                (struct hd_matmul){.w = w[i], .out = tensor_new(p.b, HD_F32, N_OUT, N, 1, 1, NULL)};
        }
        hd_weight_set_order(w[0], order);
        hd_weight_set_order(w[2], order);
        hd_op_matmul(p.s, m, 3, tx, HD_FORM_DECODE);
        float *plain = run_matmul(p.b, p.s, w[1], x, N, NULL, HD_FORM_DECODE);
        float *want = run_matmul(p.b, p.s, w[1], moved, N, NULL, HD_FORM_DECODE);
        for (int i = 0; i < 3; i++) {
            float *got = tensor_take(&m[i].out);
            assert_memory_equal(got, i == 1 ? plain : want, N * N_OUT * sizeof(float));
            free(got);
            tensor_free(&m[i].out);
            hd_weight_free(w[i]);
        }
        tensor_free(&tx);
        free(x), free(moved), free(blocks), free(plain), free(want);
    }
}

struct memory_source {
    struct hd_weight_source source;
    const uint8_t *data;
    size_t row_bytes, block_bytes;
    int64_t n_out;
};

static void read_memory(const struct hd_weight_source *source, void *out, int64_t matrix,
                        int64_t row, int64_t n_row, int64_t block, int64_t n_block)
{
    const struct memory_source *m = (const struct memory_source *)source;
    size_t n = (size_t)n_block * m->block_bytes;
    for (int64_t i = 0; i < n_row; i++)
        memcpy((uint8_t *)out + (size_t)i * n,
               m->data + (size_t)(matrix * m->n_out + row + i) * m->row_bytes +
                   (size_t)block * m->block_bytes,
               n);
}

static void advise_nothing(const struct hd_weight_source *source, bool wanted)
{
}

/* Rows that are made when they are read give the same bits as rows in memory. */
static void sources_give_the_same_bits(void **state)
{
    enum { N_IN = 1280, N_OUT = 37, MATRICES = 3, N = 5 };
    FOR_EACH_BACKEND(p)
    {
        for (int t = 0; t < 2 * N_WEIGHT_TYPE; t++) {
            enum hd_dtype type = weight_types[t / 2];
            const struct hd_backend *b = t % 2 ? p.ref : p.b;
            uint8_t *blocks = random_blocks(&p.rng, type, MATRICES * N_IN * N_OUT);
            const struct memory_source source = {{read_memory, advise_nothing},
                                                 blocks,
                                                 hd_dtype_row_bytes(type, N_IN),
                                                 (size_t)hd_dtype_info(type)->block_bytes,
                                                 N_OUT};
            float *x = random_floats(&p.rng, N * MATRICES * N_IN), *y[2];
            for (int i = 0; i < 2; i++) {
                struct hd_weight *w;
                if (i)
                    assert_int_equal(hd_weight_new_from(&w, b, type, N_IN, N_OUT, MATRICES,
                                                        &source.source, HD_WEIGHT_MATMUL, p.three,
                                                        NULL),
                                     HD_OK);
                else
                    w = weight_new(&p, b, type, N_IN, N_OUT, MATRICES, blocks);
                struct hd_tensor tx = tensor_new(b, HD_F32, N_IN, MATRICES, N, 1, x);
                struct hd_tensor ty = tensor_new(b, HD_F32, N_OUT, MATRICES, N, 1, NULL);
                hd_op_matmul_heads(t % 2 ? p.s_ref : p.s, ty, w, tx, HD_FORM_DECODE);
                y[i] = tensor_take(&ty);
                tensor_free(&tx), tensor_free(&ty);
                hd_weight_free(w);
            }
            if (memcmp(y[0], y[1], N * MATRICES * N_OUT * sizeof(float)) != 0)
                fail_msg("%s, %s: rows from a source", hd_dtype_info(type)->name,
                         hd_backend_name(b));
            free(blocks), free(x), free(y[0]), free(y[1]);
        }
    }
}

/* Activations that 8 bits hold exactly (integers, 127 in every block of 32): what is left is the
 * weights, which the kernels hold exactly too, so every code of every book must be right. */
static void weights_are_the_files_to_the_last_bit(void **state)
{
    enum { N_IN = 2048, N_OUT = 41, N = 14 };
    FOR_EACH_BACKEND(p)
    {
        for (int t = 0; t < N_WEIGHT_TYPE; t++) {
            uint8_t *blocks = random_blocks(&p.rng, weight_types[t], N_IN * N_OUT);
            float *x = malloc(N * N_IN * sizeof *x);
            for (int i = 0; i < N * N_IN; i++)
                x[i] = i % 32 ? (float)random_int(&p.rng, -127, 127) : 127;
            struct hd_weight *w = weight_new(&p, p.b, weight_types[t], N_IN, N_OUT, 1, blocks);
            struct hd_weight *wr = weight_new(&p, p.ref, weight_types[t], N_IN, N_OUT, 1, blocks);
            float *want = run_matmul(p.ref, p.s_ref, wr, x, N, NULL, HD_FORM_DECODE);
            for (int n = 1; n <= N; n += N - 1) { /* few columns and many */
                float *got = run_matmul(p.b, p.s, w, x, n, NULL, HD_FORM_DECODE);
                expect_close(hd_dtype_info(weight_types[t])->name, p.name, got, want,
                             (size_t)(n * N_OUT), 2e-6);
                free(got);
            }
            hd_weight_free(w), hd_weight_free(wr);
            free(blocks), free(x), free(want);
        }
    }
}

static void extremes_do_not_saturate(void **state)
{
    static const enum hd_dtype types[] = {HD_Q4_0, HD_Q5_0, HD_Q8_0,   HD_Q4_K,
                                          HD_Q5_K, HD_Q6_K, HD_IQ4_NL, HD_IQ3_XXS};
    enum { N_IN = 256, N_OUT = 16, N = 6 };
    FOR_EACH_BACKEND(p)
    {
        for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
            uint8_t *blocks = random_blocks(&p.rng, types[t], N_IN * N_OUT);
            size_t row = hd_dtype_row_bytes(types[t], N_IN);
            int from = types[t] == HD_Q4_K || types[t] == HD_Q5_K ? 16
                       : types[t] == HD_Q6_K                      ? 0
                                                                  : 2;
            int block = hd_dtype_info(types[t])->block_bytes;
            for (size_t i = 0; i < row * N_OUT; i++) { /* every element at its limit */
                int at = (int)(i % row) % block;
                if (at >= from && !(types[t] == HD_Q6_K && at >= 192))
                    blocks[i] = types[t] == HD_Q8_0 ? (i / row % 2 ? 0x80 : 0x7f) : 0xff;
            }
            float x[N * N_IN];
            for (int i = 0; i < N * N_IN; i++)
                x[i] = i / N_IN % 2 ? 1.0f : -1.0f; /* quantises to ±127 throughout */
            struct hd_weight *w = weight_new(&p, p.b, types[t], N_IN, N_OUT, 1, blocks);
            struct hd_weight *wr = weight_new(&p, p.ref, types[t], N_IN, N_OUT, 1, blocks);
            float *got = run_matmul(p.b, p.s, w, x, N, NULL, HD_FORM_PROMPT);
            float *want = run_matmul(p.ref, p.s_ref, wr, x, N, NULL, HD_FORM_PROMPT);
            expect_close(hd_dtype_info(types[t])->name, p.name, got, want, N * N_OUT, 1e-4);
            hd_weight_free(w), hd_weight_free(wr);
            free(blocks), free(got), free(want);
        }
    }
}

/* A massive element leaves nothing of its neighbours in 8 bits; the remainder column does. The
 * error is measured against what all other elements contribute. */
static void massive_elements_do_not_crush_their_block(void **state)
{
    static const enum hd_dtype types[] = {HD_Q5_0, HD_Q8_0, HD_Q4_K, HD_Q6_K};
    enum { N_IN = 512, N_OUT = 48, N = 14 };
    FOR_EACH_BACKEND(p)
    {
        for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
            uint8_t *blocks = random_blocks(&p.rng, types[t], N_IN * N_OUT);
            float *x = random_floats(&p.rng, N * N_IN), *rest = malloc(N * N_IN * sizeof *rest);
            memcpy(rest, x, N * N_IN * sizeof *rest);
            for (int i = 0; i < N; i += 3) {
                int at = i * N_IN + random_int(&p.rng, 0, N_IN - 1);
                x[at] = 3000;
                rest[at] = 0;
            }
            struct hd_weight *w = weight_new(&p, p.b, types[t], N_IN, N_OUT, 1, blocks);
            struct hd_weight *wr = weight_new(&p, p.ref, types[t], N_IN, N_OUT, 1, blocks);
            float *got = run_matmul(p.b, p.s, w, x, N, NULL, HD_FORM_DECODE);
            float *want = run_matmul(p.ref, p.s_ref, wr, x, N, NULL, HD_FORM_DECODE);
            float *small = run_matmul(p.ref, p.s_ref, wr, rest, N, NULL, HD_FORM_DECODE);
            for (int i = 0; i < N * N_OUT; i++) /* what is left beside the massive product */
                got[i] += small[i] - want[i];
            expect_close(hd_dtype_info(types[t])->name, p.name, got, small, N * N_OUT, 2e-2);
            hd_weight_free(w), hd_weight_free(wr);
            free(blocks), free(x), free(rest), free(got), free(want), free(small);
        }
    }
}

static void matmul_rows_are_invariant(void **state)
{
    enum { N_IN = 1280, N_OUT = 72, N = 61 };
    FOR_EACH_BACKEND(p)
    {
        for (int t = 0; t < N_WEIGHT_TYPE; t++)
            for (int form = HD_FORM_PROMPT; form <= HD_FORM_DECODE; form++) {
                uint8_t *blocks = random_blocks(&p.rng, weight_types[t], N_IN * N_OUT);
                float *x = random_floats(&p.rng, N * N_IN);
                for (int i = 0; i < 9; i++) /* some rows with a massive element */
                    x[random_int(&p.rng, 0, N * N_IN - 1)] = 1000;
                struct hd_weight *w = weight_new(&p, p.b, weight_types[t], N_IN, N_OUT, 1, blocks);
                float *all = run_matmul(p.b, p.s, w, x, N, NULL, (enum hd_form)form);
                float *one = run_matmul(p.b, p.s_one, w, x, N, NULL, (enum hd_form)form);
                assert_memory_equal(all, one, N * N_OUT * sizeof(float));
                for (int64_t begin = 0, n; begin < N; begin += n) { /* the same rows in pieces */
                    n = random_int(&p.rng, 1, 17);
                    n = n < N - begin ? n : N - begin;
                    float *part =
                        run_matmul(p.b, p.s, w, x + begin * N_IN, n, NULL, (enum hd_form)form);
                    if (memcmp(part, all + begin * N_OUT, (size_t)(n * N_OUT) * sizeof(float)))
                        fail_msg("%s, %s: rows %d + %d differ from the batch's", p.name,
                                 hd_dtype_info(weight_types[t])->name, (int)begin, (int)n);
                    free(part);
                }
                hd_weight_free(w);
                free(blocks), free(x), free(all), free(one);
            }
    }
}

static void products_share_input_and_accumulate(void **state)
{
    enum { N_IN = 512, N = 13 };
    static const enum hd_dtype types[3] = {HD_Q4_K, HD_F32, HD_Q6_K};
    static const int64_t n_out[3] = {40, 7, 129};
    FOR_EACH_BACKEND(p)
    {
        float *x = random_floats(&p.rng, N * N_IN), *y = random_floats(&p.rng, N * 129);
        struct hd_tensor tx = tensor_new(p.b, HD_F32, N_IN, N, 1, 1, x);
        struct hd_tensor wide = tensor_new(p.b, HD_F32, 200, N, 1, 1, NULL);
        struct hd_weight *w[3];
        struct hd_matmul m[3];
        uint8_t *blocks[3];
        for (int i = 0; i < 3; i++) {
            blocks[i] = random_blocks(&p.rng, types[i], (size_t)(N_IN * n_out[i]));
            w[i] = weight_new(&p, p.b, types[i], N_IN, n_out[i], 1, blocks[i]);
        }
        m[0] = (struct hd_matmul){.w = w[0], .out = hd_tensor_cols(wide, 3, 40)};
        m[1] = (struct hd_matmul){.w = w[1], .out = hd_tensor_cols(wide, 50, 7)};
        m[2] = (struct hd_matmul){
            .w = w[2], .out = tensor_new(p.b, HD_F32, 129, N, 1, 1, y), .accumulate = true};
        hd_op_matmul(p.s, m, 3, tx, HD_FORM_PROMPT);
        float *got = tensor_take(&wide), *sum = tensor_take(&m[2].out);
        for (int i = 0; i < 3; i++) {
            float *alone = run_matmul(p.b, p.s, w[i], x, N, NULL, HD_FORM_PROMPT);
            for (int64_t j = 0; j < N * n_out[i]; j++) {
                int64_t row = j / n_out[i], col = j % n_out[i];
                float have = i == 2 ? sum[j] : got[row * 200 + (i ? 50 : 3) + col];
                float want = i == 2 ? alone[j] + y[j] : alone[j];
                assert_true(have == want);
            }
            free(alone), free(blocks[i]);
            hd_weight_free(w[i]);
        }
        for (int row = 0; row < N; row++) /* nothing beside the slices was written */
            for (int col = 57; col < 200; col++)
                assert_true(got[row * 200 + col] == 0);
        tensor_free(&tx), tensor_free(&wide), tensor_free(&m[2].out);
        free(x), free(y), free(got), free(sum);
    }
}

static void heads_have_their_own_matrices(void **state)
{
    enum { HEADS = 9, N_IN = 64, N_OUT = 37 };
    static const enum hd_dtype types[] = {HD_F32, HD_F16, HD_BF16, HD_Q8_0, HD_IQ4_NL, HD_MXFP4};
    FOR_EACH_BACKEND(p)
    {
        for (int t = 0; t < 6; t++) {
            int64_t n = t >= 3 ? 30 : t + 1;
            uint8_t *blocks = random_blocks(&p.rng, types[t], HEADS * N_IN * N_OUT);
            float *x = random_floats(&p.rng, (size_t)n * HEADS * N_IN), *y[2];
            for (int r = 0; r < 2; r++) {
                const struct hd_backend *b = r ? p.ref : p.b;
                struct hd_weight *w = weight_new(&p, b, types[t], N_IN, N_OUT, HEADS, blocks);
                struct hd_tensor tx = tensor_new(b, HD_F32, N_IN, HEADS, n, 1, x);
                struct hd_tensor ty = tensor_new(b, HD_F32, N_OUT, HEADS, n, 1, NULL);
                hd_op_matmul_heads(r ? p.s_ref : p.s, ty, w, tx, HD_FORM_DECODE);
                y[r] = tensor_take(&ty);
                tensor_free(&tx), tensor_free(&ty);
                hd_weight_free(w);
            }
            expect_close("heads", p.name, y[0], y[1], (size_t)n * HEADS * N_OUT,
                         is_float(types[t]) ? TOLERANCE_FLOAT : TOLERANCE_8BIT);
            free(blocks), free(x), free(y[0]), free(y[1]);
        }
    }
}

/* --- experts
 * --------------------------------------------------------------------------------------- */

static float *run_moe(const struct pair *p, const struct hd_backend *b, struct hd_stream *s,
                      struct hd_weight *const w[3], const float *x, const int32_t *ids,
                      const float *weights, int64_t used, int64_t n)
{
    int64_t n_embd = hd_weight_n_in(w[0]);
    struct hd_tensor tx = tensor_new(b, HD_F32, n_embd, n, 1, 1, x);
    struct hd_tensor ty = tensor_new(b, HD_F32, n_embd, n, 1, 1, x); /* the residual */
    struct hd_tensor ti = tensor_new(b, HD_I32, used, n, 1, 1, ids);
    struct hd_tensor tw = tensor_new(b, HD_F32, used, n, 1, 1, weights);
    hd_op_moe(s, ty, tx, w[0], w[1], w[2], ti, tw, HD_FORM_PROMPT);
    float *y = tensor_take(&ty);
    tensor_free(&tx), tensor_free(&ty), tensor_free(&ti), tensor_free(&tw);
    return y;
}

static void experts_match_ref_and_are_invariant(void **state)
{
    enum { E = 12, USED = 3, N = 50, D = 256, FF = 96 };
    static const enum hd_dtype types[][2] = {{HD_Q4_K, HD_Q5_0},    {HD_Q8_0, HD_Q8_0},
                                             {HD_F16, HD_F32},      {HD_IQ3_S, HD_MXFP4},
                                             {HD_IQ1_M, HD_IQ4_NL}, {HD_IQ2_XXS, HD_IQ4_NL}};
    enum { N_PAIR = sizeof types / sizeof types[0] };
    FOR_EACH_BACKEND(p)
    {
        for (int t = 0; t < N_PAIR; t++) {
            struct hd_weight *w[3], *wr[3];
            uint8_t *blocks[3];
            for (int i = 0; i < 3; i++) {
                enum hd_dtype type = types[t][i == 2];
                blocks[i] = random_blocks(&p.rng, type, E * D * FF);
                w[i] = weight_new(&p, p.b, type, i == 2 ? FF : D, i == 2 ? D : FF, E, blocks[i]);
                wr[i] = weight_new(&p, p.ref, type, i == 2 ? FF : D, i == 2 ? D : FF, E, blocks[i]);
            }
            float *x = random_floats(&p.rng, N * D), weights[N * USED];
            int32_t ids[N * USED];
            for (int i = 0; i < N * USED; i++) { /* expert 0 gets all, 11 nobody, 10 one token */
                weights[i] = 0.2f + (float)hd_rng_uniform(&p.rng);
                ids[i] = i % USED == 0 ? 0 : i == 4 ? 10 : 1 + 3 * (i % USED) + i % 3;
            }
            float *got = run_moe(&p, p.b, p.s, w, x, ids, weights, USED, N);
            float *want = run_moe(&p, p.ref, p.s_ref, wr, x, ids, weights, USED, N);
            expect_close("experts", p.name, got, want, N * D, t == 2 ? TOLERANCE_FLOAT : 1.5e-2);
            float *one = run_moe(&p, p.b, p.s_one, w, x, ids, weights, USED, N);
            assert_memory_equal(got, one, N * D * sizeof(float));
            for (int i = 0; i < N; i += 7) {
                float *row = run_moe(&p, p.b, p.s, w, x + i * D, ids + i * USED, weights + i * USED,
                                     USED, 1);
                assert_memory_equal(row, got + i * D, D * sizeof(float));
                free(row);
            }
            for (int i = 0; i < 3; i++) {
                hd_weight_free(w[i]), hd_weight_free(wr[i]);
                free(blocks[i]);
            }
            free(x), free(got), free(want), free(one);
        }
    }
}

/* Matrices whose elements were moved, each in its own way, give with their orders what they gave
 * before; experts and even gate and up of one expert may differ. */
static void experts_obey_their_orders(void **state)
{
    enum { E = 5, USED = 2, N = 21, D = 96, FF = 64, MAX = 96 };
    FOR_EACH_BACKEND(p)
    {
        float *x = random_floats(&p.rng, N * D), weights[N * USED], *plain[3], *moved[3];
        int32_t ids[N * USED], order[3][E * MAX];
        for (int i = 0; i < N * USED; i++) {
            weights[i] = 0.2f + (float)hd_rng_uniform(&p.rng);
            ids[i] = i % USED ? 3 + i % 2 : i % 3;
        }
        for (int m = 0; m < 3; m++) {
            int64_t n_in = m == 2 ? FF : D, n_out = m == 2 ? D : FF;
            plain[m] = random_floats(&p.rng, E * D * FF);
            moved[m] = malloc(E * D * FF * sizeof(float));
            for (int64_t i = 0; i < E * n_in; i++) /* steps that share no factor with n_in */
                order[m][i] = (int32_t)((i % n_in * (5 + 2 * m) + 11 * (i / n_in) + m) % n_in);
            for (int64_t i = 0; i < E * D * FF; i++)
                moved[m][i] =
                    plain[m][i / n_in * n_in + order[m][i / n_in / n_out * n_in + i % n_in]];
        }
        /* all ordered; down alone; up alone */
        for (int which = 0; which < 3; which++) {
            struct hd_weight *w[3], *wr[3];
            for (int m = 0; m < 3; m++) {
                bool has = which == 0 || m == 3 - which;
                int64_t n_in = m == 2 ? FF : D, n_out = m == 2 ? D : FF;
                w[m] = weight_new(&p, p.b, HD_F32, n_in, n_out, E,
                                  (uint8_t *)(has ? moved[m] : plain[m]));
                wr[m] = weight_new(&p, p.ref, HD_F32, n_in, n_out, E, (uint8_t *)plain[m]);
                if (has)
                    hd_weight_set_order(w[m], order[m]);
            }
            float *got = run_moe(&p, p.b, p.s, w, x, ids, weights, USED, N);
            float *want = run_moe(&p, p.ref, p.s_ref, wr, x, ids, weights, USED, N);
            expect_close("ordered experts", p.name, got, want, N * D, TOLERANCE_FLOAT);
            for (int m = 0; m < 3; m++)
                hd_weight_free(w[m]), hd_weight_free(wr[m]);
            free(got), free(want);
        }
        for (int m = 0; m < 3; m++)
            free(plain[m]), free(moved[m]);
        free(x);
    }
}

/* --- attention
 * ---------------------------------------------------------------------------------------- */

struct heads_shape {
    int64_t heads, kv_heads, dim_k, dim_v;
    bool v_in_k;
    bool kv8; /* an 8-bit cache; ref gets rows that were rounded so before */
};

/* Sequences of one batch with caches of their own, blocks scattered. */
struct attention_case {
    struct heads_shape shape;
    int n_seq;
    struct hd_seq_rows seqs[4];
    int32_t table[4][8];
    int64_t n; /* rows of the batch */
    float *q, *k_rows, *v_rows;
    int64_t n_kv_row;
};

/* What an 8-bit cache makes of rows. */
static void round_rows(float *rows, int64_t n, int64_t dim)
{
    uint8_t block[34 * 8];
    for (int64_t i = 0; i < n; i++, rows += dim) {
        hd_quantise_q8_0(block, rows, dim);
        hd_dtype_info(HD_Q8_0)->dequantise(rows, block, dim);
    }
}

static float *run_attention(const struct hd_backend *b, struct hd_stream *s,
                            const struct attention_case *c, enum hd_form form)
{
    const struct heads_shape *h = &c->shape;
    bool ref = hd_backend_kv_dtype(b) == HD_F32;
    enum hd_dtype kv = h->kv8 && !ref ? HD_Q8_0 : hd_backend_kv_dtype(b);
    if (h->kv8 && ref) {
        round_rows(c->k_rows, c->n_kv_row * h->kv_heads, h->dim_k);
        round_rows(c->v_rows, c->n_kv_row * h->kv_heads, h->dim_v);
    }
    struct hd_tensor k = tensor_new(b, kv, h->dim_k, HD_KV_BLOCK, h->kv_heads, 32, NULL);
    struct hd_tensor v = tensor_new(b, kv, h->dim_v, HD_KV_BLOCK, h->kv_heads, 32, NULL);
    struct hd_tensor kr = tensor_new(b, HD_F32, h->dim_k, h->kv_heads, c->n_kv_row, 1, c->k_rows);
    struct hd_tensor vr = tensor_new(b, HD_F32, h->dim_v, h->kv_heads, c->n_kv_row, 1, c->v_rows);
    struct hd_tensor q = tensor_new(b, HD_F32, h->dim_k, h->heads, c->n, 1, c->q);
    struct hd_tensor out = tensor_new(b, HD_F32, h->dim_v, h->heads, c->n, 1, NULL);
    int64_t begin = 0;
    for (int i = 0; i < c->n_seq; i++) { /* every row up to the last one that a query sees */
        struct hd_seq_rows all = {
            .begin = begin, .n = c->seqs[i].pos + c->seqs[i].n, .pos = 0, .table = c->table[i]};
        hd_op_kv_write(s, k, kr, &all, 1);
        hd_op_kv_write(s, v, vr, &all, 1);
        begin += all.n;
    }
    hd_op_attention(s, out, q, k, h->v_in_k ? hd_tensor_cols(k, 0, h->dim_v) : v, 0.11f, c->seqs,
                    c->n_seq, form);
    float *got = tensor_take(&out);
    tensor_free(&k), tensor_free(&v), tensor_free(&kr), tensor_free(&vr);
    tensor_free(&q), tensor_free(&out);
    return got;
}

static void attention_matches_ref_and_is_invariant(void **state)
{
    static const struct heads_shape shapes[] = {
        {12, 2, 128, 128, false, false}, {14, 2, 64, 64, false, false},
        {3, 3, 20, 12, false, false},    {5, 1, 72, 64, true, false},
        {96, 1, 80, 64, true, false},    {12, 2, 128, 128, false, true},
        {14, 2, 64, 64, false, true},    {5, 1, 96, 64, true, true},
    };
    FOR_EACH_BACKEND(p)
    {
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
            struct attention_case c = {.shape = shapes[i], .n_seq = 4};
            for (int s = 0; s < c.n_seq; s++) {
                int64_t n = s == 2 ? random_int(&p.rng, 60, 140) : random_int(&p.rng, 1, 9);
                c.seqs[s] = (struct hd_seq_rows){.begin = c.n,
                                                 .n = n,
                                                 .pos = (int32_t)random_int(&p.rng, 0, 300),
                                                 .table = c.table[s]};
                for (int b = 0; b < 8; b++)
                    c.table[s][b] = (b * 4 + s) * 13 % 32;
                c.n += n;
                c.n_kv_row += c.seqs[s].pos + n;
            }
            int64_t row = c.shape.heads * c.shape.dim_v, q_row = c.shape.heads * c.shape.dim_k;
            c.q = random_floats(&p.rng, (size_t)(c.n * q_row));
            c.k_rows =
                random_floats(&p.rng, (size_t)(c.n_kv_row * c.shape.kv_heads * c.shape.dim_k));
            c.v_rows =
                random_floats(&p.rng, (size_t)(c.n_kv_row * c.shape.kv_heads * c.shape.dim_v));
            float *got = run_attention(p.b, p.s, &c, HD_FORM_PROMPT);
            float *want = run_attention(p.ref, p.s_ref, &c, HD_FORM_PROMPT);
            expect_close("attention", p.name, got, want, (size_t)(c.n * row), TOLERANCE_F16);
            float *one = run_attention(p.b, p.s_one, &c, HD_FORM_PROMPT);
            assert_memory_equal(got, one, (size_t)(c.n * row) * sizeof(float));
            /* The long sequence cut in two: the first rows alone, the rest alone. */
            struct hd_seq_rows *cut = &c.seqs[2], whole = *cut;
            cut->n = 37;
            float *head = run_attention(p.b, p.s, &c, HD_FORM_PROMPT);
            assert_memory_equal(got + whole.begin * row, head + whole.begin * row,
                                (size_t)(37 * row) * sizeof(float));
            *cut = (struct hd_seq_rows){.begin = whole.begin + 37,
                                        .n = whole.n - 37,
                                        .pos = whole.pos + 37,
                                        .table = whole.table};
            float *rest = run_attention(p.b, p.s, &c, HD_FORM_PROMPT);
            assert_memory_equal(got + cut->begin * row, rest + cut->begin * row,
                                (size_t)(cut->n * row) * sizeof(float));
            free(got), free(want), free(one), free(head), free(rest);
            free(c.q), free(c.k_rows), free(c.v_rows);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matmul_matches_ref),
        cmocka_unit_test(rows_may_end_within_a_block),
        cmocka_unit_test(order_is_obeyed),
        cmocka_unit_test(sources_give_the_same_bits),
        cmocka_unit_test(weights_are_the_files_to_the_last_bit),
        cmocka_unit_test(extremes_do_not_saturate),
        cmocka_unit_test(massive_elements_do_not_crush_their_block),
        cmocka_unit_test(matmul_rows_are_invariant),
        cmocka_unit_test(products_share_input_and_accumulate),
        cmocka_unit_test(heads_have_their_own_matrices),
        cmocka_unit_test(experts_match_ref_and_are_invariant),
        cmocka_unit_test(experts_obey_their_orders),
        cmocka_unit_test(attention_matches_ref_and_is_invariant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
