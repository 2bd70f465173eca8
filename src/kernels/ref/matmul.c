/* Products: a few weight rows are dequantised once and meet all activation rows. */
#include <math.h>
#include <string.h>

#include "kernels/ref/ref.h"

enum {
    ROWS = 4,   /* weight rows that share one read of an activation row */
    LANES = 16, /* partial sums of a dot product; also what lets the compiler vectorise it */
    CHUNK = 64, /* output columns per task */
};

/* At least the bytes of a row of n_in elements of any type: no type takes more than F32, no block
 * is longer than 256. */
static size_t blocks_bytes(int64_t n_in)
{
    return hd_round_up((size_t)n_in, 256) * sizeof(float);
}

size_t hd_ref_product_scratch(int64_t n_in)
{
    /* The rows as numbers; before that, as blocks, where they come from a source. */
    return hd_round_up((size_t)n_in, LANES) * ROWS * sizeof(float) + ROWS * blocks_bytes(n_in);
}

/* Sum of the partial sums, halves added to halves. */
static float fold(const float *lane)
{
    float sum[LANES];
    memcpy(sum, lane, sizeof sum);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            sum[i] += sum[i + width];
    return sum[0];
}

/* Four dot products with the same x; w: four rows, `stride` apart. The partial sums of element i
 * go to lane i % LANES, whatever n is. */
static void dot4(float out[ROWS], const float *x, const float *w, size_t stride, int64_t n)
{
    float lane[ROWS][LANES] = {{0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < LANES; j++)
                lane[r][j] += x[i + j] * w[(size_t)r * stride + (size_t)(i + j)];
    for (; i < n; i++)
        for (int r = 0; r < ROWS; r++)
            lane[r][i % LANES] += x[i] * w[(size_t)r * stride + (size_t)i];
    for (int r = 0; r < ROWS; r++)
        out[r] = fold(lane[r]);
}

void hd_ref_product(const struct hd_ref_product *p, int64_t begin, int64_t end, float *scratch)
{
    const struct hd_weight *w = p->w;
    const struct hd_dtype_info *info = hd_dtype_info(w->dtype);
    size_t stride = hd_round_up((size_t)w->n_in, LANES);
    uint8_t *blocks = (uint8_t *)(scratch + stride * ROWS);
    for (int64_t o = begin; o < end; o += ROWS) {
        int64_t rows = end - o < ROWS ? end - o : ROWS;
        const uint8_t *from = blocks;
        if (w->source)
            w->source->read(w->source, blocks, p->matrix, o, rows, 0,
                            (int64_t)w->row_bytes / info->block_bytes);
        else
            from = hd_weight_rows(w) + (size_t)(p->matrix * w->n_out + o) * w->row_bytes;
        for (int64_t r = 0; r < rows; r++)
            info->dequantise(scratch + (size_t)r * stride, from + (size_t)r * w->row_bytes,
                             w->n_in);
        for (int64_t i = 0; i < p->n; i++) {
            float sum[ROWS];
            dot4(sum, (const float *)(p->in + (size_t)i * p->in_stride), scratch, stride, w->n_in);
            float *out = (float *)(p->out + (size_t)i * p->out_stride) + o;
            for (int64_t r = 0; r < rows; r++) {
                float value = p->bias ? sum[r] + p->bias[o + r] : sum[r];
                out[r] = p->accumulate ? out[r] + value : value;
            }
        }
    }
}

struct job {
    const struct hd_ref_product *products;
    int n_product;
    int64_t n_out; /* per product, where they are alike */
    uint8_t *scratch;
    size_t scratch_bytes; /* per thread */
};

static float *job_scratch(const struct job *job, int thread)
{
    return (float *)(job->scratch + (size_t)thread * job->scratch_bytes);
}

static void columns_task(void *ud, size_t begin, size_t end, int thread)
{
    struct job *job = ud;
    hd_ref_product(job->products, (int64_t)begin, (int64_t)end, job_scratch(job, thread));
}

static bool job_begin(struct job *job, struct hd_stream *s, int64_t n_in)
{
    job->scratch_bytes = hd_round_up(hd_ref_product_scratch(n_in), 64);
    job->scratch = hd_stream_scratch(s, HD_SCRATCH_THREADS,
                                     job->scratch_bytes * (size_t)hd_pool_threads(s->pool));
    /* Four rows are read even where fewer are left: what lies there must be finite numbers. */
    if (job->scratch)
        memset(job->scratch, 0, job->scratch_bytes * (size_t)hd_pool_threads(s->pool));
    return job->scratch;
}

void hd_ref_matmul(struct hd_stream *s, const struct hd_matmul *products, int n_product,
                   struct hd_tensor in, enum hd_form form)
{
    struct job job = {0};
    if (!job_begin(&job, s, in.ne[0]))
        return;
    for (int i = 0; i < n_product; i++) {
        const struct hd_matmul *m = &products[i];
        struct hd_ref_product p = {
            .w = m->w,
            .in = hd_tensor_row(&in, 0, 0),
            .in_stride = in.nb[1],
            .out = hd_tensor_row(&m->out, 0, 0),
            .out_stride = m->out.nb[1],
            .n = in.ne[1],
            .bias = m->bias ? hd_tensor_row(m->bias, 0, 0) : NULL,
            .accumulate = m->accumulate,
        };
        job.products = &p;
        hd_pool_run(s->pool, (size_t)m->w->n_out, CHUNK, columns_task, &job);
    }
}

struct heads_job {
    struct job job;
    const struct hd_weight *w;
    const struct hd_tensor *in, *out;
};

static void heads_task(void *ud, size_t begin, size_t end, int thread)
{
    struct heads_job *job = ud;
    for (size_t h = begin; h < end; h++) {
        struct hd_ref_product p = {
            .w = job->w,
            .matrix = (int64_t)h,
            .in = hd_tensor_row(job->in, (int64_t)h, 0),
            .in_stride = job->in->nb[2],
            .out = hd_tensor_row(job->out, (int64_t)h, 0),
            .out_stride = job->out->nb[2],
            .n = job->in->ne[2],
        };
        hd_ref_product(&p, 0, job->w->n_out, job_scratch(&job->job, thread));
    }
}

void hd_ref_matmul_heads(struct hd_stream *s, struct hd_tensor out, const struct hd_weight *w,
                         struct hd_tensor in, enum hd_form form)
{
    struct heads_job job = {.w = w, .in = &in, .out = &out};
    if (job_begin(&job.job, s, w->n_in))
        hd_pool_run(s->pool, (size_t)w->n_matrix, 1, heads_task, &job);
}
