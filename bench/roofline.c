/* How near each type's products come to what the machine can do, as a Markdown table.
 *
 *     roofline [-k KERNELS] [-t THREADS] [-n ROWS] [TYPE…]
 *
 * For every type that the back end repacks: one row through matrices of a real shape (the 1.5B's
 * gate: 8960 x 1536) that are together too large for any cache, as in decoding, and ROWS rows (512)
 * through one of them, as in reading a prompt. Bytes are those of the repacked copy, which differs
 * from the file by up to 5%; operations count a multiply-add as two. The bandwidth beside which a
 * type stands is that of the same threads only reading the same copies, pass by pass in turn; the
 * integer rate is probed before, between and after, and the best counts; types that are computed in
 * floats have no share of it. Best of 7 passes each. Block contents are random bytes below 64, so
 * that scales are ordinary numbers. */
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "kernels/backend.h"

enum { N_IN = 1536, N_OUT = 8960, PASSES = 7, WEIGHTS_MAX = 64, DECODE_BYTES = 192 << 20 };

struct line {
    int type;
    double bytes, decode_s, read_s, prompt_s; /* of one matrix */
};

struct bench {
    const struct hd_backend *backend;
    struct hd_pool *pool;
    struct hd_stream *stream;
    struct hd_buffer *buffer; /* inputs [n_row, N_IN], then outputs [n_row, N_OUT] */
    int n_row;
    double tops; /* the best probe so far */
    struct line line[64];
    size_t n_line;
};

static const int types[] = {HD_Q4_0,    HD_Q4_1,  HD_Q5_0,    HD_Q5_1,     HD_Q8_0,   HD_Q2_K,
                            HD_Q3_K,    HD_Q4_K,  HD_Q5_K,    HD_Q6_K,     HD_IQ4_NL, HD_IQ4_XS,
                            HD_MXFP4,   HD_IQ1_S, HD_IQ1_M,   HD_IQ2_XXS,  HD_IQ2_XS, HD_IQ2_S,
                            HD_IQ3_XXS, HD_IQ3_S, HD_FP8_128, HD_INT4_128, HD_NF4_64, HD_BF16,
                            HD_F16,     HD_F32};

/* Seconds of one matrix's product, in a pass through all. */
static double product(const struct bench *b, struct hd_weight *const *w, int n_weight, int n_row,
                      enum hd_form form)
{
    struct hd_tensor in = hd_tensor_at(b->buffer, 0, HD_F32, N_IN, n_row, 1, 1);
    size_t behind = (size_t)b->n_row * N_IN * sizeof(float);
    in.n_dim = 2;
    double start = hd_clock_seconds();
    for (int i = 0; i < n_weight; i++) {
        struct hd_matmul m = {.w = w[i],
                              .out = hd_tensor_at(b->buffer, behind, HD_F32, N_OUT, n_row, 1, 1)};
        m.out.n_dim = 2;
        hd_op_matmul(b->stream, &m, 1, in, form);
    }
    hd_sync(b->stream);
    return (hd_clock_seconds() - start) / n_weight;
}

static double least(double a, double b)
{
    return a < b ? a : b;
}

static void passes(struct line *line, const struct bench *b, struct hd_weight *const *w, int n)
{
    line->decode_s = line->read_s = line->prompt_s = 1e30;
    for (int pass = 0; pass < PASSES; pass++) {
        line->decode_s = least(line->decode_s, product(b, w, n, 1, HD_FORM_DECODE));
        double start = hd_clock_seconds();
        line->bytes = (double)hd_backend_read_weights(b->pool, w, (size_t)n, UINT64_MAX) / n;
        line->read_s = least(line->read_s, (hd_clock_seconds() - start) / n);
        line->prompt_s = least(line->prompt_s, product(b, w, 1, b->n_row, HD_FORM_PROMPT));
    }
}

static bool is_float(int type)
{
    return type == HD_F32 || type == HD_F16 || type == HD_BF16 || type == HD_FP8_128 ||
           type == HD_NF4_64;
}

static void probe(struct bench *b)
{
    double tops = hd_backend_probe_int8_tops(b->backend, b->pool);
    b->tops = tops > b->tops ? tops : b->tops;
}

/* Adds one type's line. */
static enum hd_err measure(struct bench *b, int type, struct hd_errmsg *msg)
{
    size_t bytes = hd_dtype_row_bytes(type, N_IN) * N_OUT;
    int n = (int)(DECODE_BYTES / bytes) + 1;
    struct hd_weight *w[WEIGHTS_MAX] = {NULL};
    uint8_t *data = malloc(bytes);
    struct hd_rng rng = {.state = 1};
    enum hd_err err = data ? HD_OK : hd_fail(msg, HD_ERR_NOMEM, "roofline: out of memory");
    n = n < WEIGHTS_MAX ? n : WEIGHTS_MAX;
    for (size_t i = 0; !err && i < bytes; i++)
        data[i] = hd_rng_next(&rng) & 63;
    for (int i = 0; !err && i < n; i++)
        err = hd_weight_new(&w[i], b->backend, type, N_IN, N_OUT, 1, data, HD_WEIGHT_MATMUL,
                            b->pool, msg);
    if (!err) {
        struct line *line = &b->line[b->n_line++];
        line->type = type;
        passes(line, b, w, n);
    }
    for (int i = 0; i < n; i++)
        hd_weight_free(w[i]);
    free(data);
    return err;
}

static enum hd_err prepare(struct bench *b, const char *kernels, int n_thread,
                           struct hd_errmsg *msg)
{
    size_t n = (size_t)b->n_row * (N_IN + N_OUT);
    enum hd_err err = hd_backend_get(&b->backend, kernels, msg);
    if (!err)
        err = hd_pool_new(&b->pool, n_thread);
    if (!err)
        err = hd_stream_new(&b->stream, b->backend, b->pool, msg);
    if (!err)
        err = hd_buffer_new(&b->buffer, b->backend, n * sizeof(float), msg);
    float *in = err ? NULL : malloc((size_t)b->n_row * N_IN * sizeof *in);
    if (!err && !in)
        return hd_fail(msg, HD_ERR_NOMEM, "roofline: out of memory");
    if (err)
        return err;
    struct hd_rng rng = {.state = 2};
    for (size_t i = 0; i < (size_t)b->n_row * N_IN; i++)
        in[i] = (float)((double)(hd_rng_next(&rng) >> 40) / (1 << 23) - 1);
    struct hd_tensor t = hd_tensor_at(b->buffer, 0, HD_F32, N_IN, b->n_row, 1, 1);
    hd_tensor_upload(&t, in);
    free(in);
    return HD_OK;
}

static void print_table(const struct bench *b)
{
    double ops = 2.0 * N_IN * N_OUT;
    printf("`%s`, %d threads; probed %.3f TOPS int8 in L1. %d x %d; decode: one row, matrices of "
           "%d MB in all; prompt: %d rows.\n\n",
           hd_backend_name(b->backend), hd_pool_threads(b->pool), b->tops, N_OUT, N_IN,
           DECODE_BYTES >> 20, b->n_row);
    puts(
        "| type | MB | decode GOP | ms | GB/s | only read, GB/s | share | prompt GOP | ms | TOPS | "
        "of probed |");
    puts("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for (size_t i = 0; i < b->n_line; i++) {
        const struct line *l = &b->line[i];
        double gbps = l->bytes / l->decode_s / 1e9, tops = ops * b->n_row / l->prompt_s / 1e12;
        printf("| %s | %.2f | %.3f | %.3f | %.1f | %.1f | %.0f%% | %.1f | %.1f | %.3f | ",
               hd_dtype_info(l->type)->name, l->bytes / 1e6, ops / 1e9, l->decode_s * 1e3, gbps,
               l->bytes / l->read_s / 1e9, 100 * l->read_s / l->decode_s, ops * b->n_row / 1e9,
               l->prompt_s * 1e3, tops);
        if (is_float(l->type))
            puts("– |");
        else
            printf("%.0f%% |\n", 100 * tops / b->tops);
    }
}

static bool wanted(const char *name, char **names, int n)
{
    for (int i = 0; i < n; i++)
        if (!strcasecmp(names[i], name))
            return true;
    return !n;
}

int main(int argc, char **argv)
{
    struct hd_errmsg msg = {0};
    struct bench b = {.n_row = 512};
    const char *kernels = "auto";
    int n_thread = 0, c;
    while ((c = getopt(argc, argv, "k:t:n:")) != -1)
        if (c == 'k')
            kernels = optarg;
        else if (c == 't')
            n_thread = (int)strtol(optarg, NULL, 10);
        else if (c == 'n')
            b.n_row = (int)strtol(optarg, NULL, 10);
        else
            return 2;
    if (b.n_row < 1 || n_thread < 0)
        return 2;
    enum hd_err err = prepare(&b, kernels, n_thread, &msg);
    if (!err)
        probe(&b);
    for (size_t i = 0; !err && i < sizeof types / sizeof *types; i++) {
        if (!wanted(hd_dtype_info(types[i])->name, argv + optind, argc - optind))
            continue;
        err = measure(&b, types[i], &msg);
        if (!err && b.n_line % 6 == 0)
            probe(&b);
    }
    if (!err) {
        probe(&b);
        print_table(&b);
    }
    hd_buffer_free(b.buffer);
    hd_stream_free(b.stream);
    hd_pool_free(b.pool);
    if (err)
        fprintf(stderr, "roofline: %s\n", msg.text[0] ? msg.text : hd_err_text(err));
    return err ? 1 : 0;
}
