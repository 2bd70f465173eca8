/* Ops on single rows, written once for both vector widths: include a vec_*.h first and define
 * ISA(name) to the exported name. Every row is one thread's work in one fixed order. */

#include <math.h>

#include "kernels/x86/rows.h"

enum { ROW_CHUNK = 2 };

/* --- RMS norm ------------------------------------------------------------------------------- */

struct norm_job {
    const struct hd_tensor *out, *in;
    const float *gain;
    float eps;
};

static void norm_task(void *ud, size_t begin, size_t end, int thread)
{
    struct norm_job *job = ud;
    int64_t n = job->in->ne[0];
    for (size_t row = begin; row < end; row++) {
        int64_t i1 = (int64_t)row % job->in->ne[1], i2 = (int64_t)row / job->in->ne[1];
        const float *in = hd_tensor_row(job->in, i1, i2);
        float *out = hd_tensor_row(job->out, i1, i2);
        vec sum[2] = {vec_zero(), vec_zero()};
        for (int64_t i = 0; i < n; i += 2 * VW)
            for (int j = 0; j < 2; j++) {
                int64_t at = i + j * VW;
                vec x = vec_load_n(in + at, n - at > 0 ? n - at : 0);
                sum[j] = vec_fma(x, x, sum[j]);
            }
        float mean = vec_sum(vec_add(sum[0], sum[1])) / (float)n;
        vec scale = vec_set1(1.0f / sqrtf(mean + job->eps));
        for (int64_t i = 0; i < n; i += VW) {
            vec x = vec_mul(vec_load_n(in + i, n - i), scale);
            vec_store_n(out + i, vec_mul(x, vec_load_n(job->gain + i, n - i)), n - i);
        }
    }
}

void ISA(rms_norm)(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                   struct hd_tensor gain, float eps)
{
    struct norm_job job = {&out, &in, hd_tensor_row(&gain, 0, 0), eps};
    hd_pool_run(s->pool, (size_t)(in.ne[1] * in.ne[2]), 8, norm_task, &job);
}

/* --- layer norm ------------------------------------------------------------------------------ */

struct layer_norm_job {
    const struct hd_tensor *out, *in;
    const float *gain, *bias;
    float eps;
};

/* Sum of x - shift, or of its squares, over a row. */
INLINE float row_sum(const float *x, int64_t n, float shift, bool squared)
{
    vec sum = vec_zero(), s = vec_set1(shift);
    int64_t i = 0;
    for (; i + VW <= n; i += VW) {
        vec d = vec_sub(vec_load(x + i), s);
        sum = squared ? vec_fma(d, d, sum) : vec_add(sum, d);
    }
    float total = vec_sum(sum);
    for (; i < n; i++)
        total += squared ? (x[i] - shift) * (x[i] - shift) : x[i] - shift;
    return total;
}

static void layer_norm_task(void *ud, size_t begin, size_t end, int thread)
{
    struct layer_norm_job *job = ud;
    int64_t n = job->in->ne[0];
    for (size_t row = begin; row < end; row++) {
        const float *in = hd_tensor_row(job->in, (int64_t)row, 0);
        float *out = hd_tensor_row(job->out, (int64_t)row, 0);
        float mean = row_sum(in, n, 0, false) / (float)n;
        float variance = row_sum(in, n, mean, true) / (float)n;
        vec shift = vec_set1(mean), scale = vec_set1(1.0f / sqrtf(variance + job->eps));
        for (int64_t i = 0; i < n; i += VW) {
            vec x = vec_mul(vec_sub(vec_load_n(in + i, n - i), shift), scale);
            vec y = vec_fma(x, vec_load_n(job->gain + i, n - i), vec_load_n(job->bias + i, n - i));
            vec_store_n(out + i, y, n - i);
        }
    }
}

void ISA(layer_norm)(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                     struct hd_tensor gain, struct hd_tensor bias, float eps)
{
    struct layer_norm_job job = {&out, &in, hd_tensor_row(&gain, 0, 0), hd_tensor_row(&bias, 0, 0),
                                 eps};
    hd_pool_run(s->pool, (size_t)in.ne[1], 8, layer_norm_task, &job);
}

/* --- activations ------------------------------------------------------------------------------ */

struct activate_job {
    const struct hd_tensor *out, *in;
    enum hd_activation f;
};

INLINE vec activated(vec x, enum hd_activation f)
{
    switch (f) {
    case HD_ACT_GELU:
        return vec_gelu(x);
    case HD_ACT_GELU_TANH:
        return vec_gelu_tanh(x);
    case HD_ACT_RELU:
        return vec_max(x, vec_zero());
    case HD_ACT_SILU:
        return vec_silu(x);
    case HD_ACT_TANH:
        break;
    }
    vec e = vec_exp(vec_mul(x, vec_set1(-2.0f)));
    return vec_sub(vec_div(vec_set1(2.0f), vec_add(vec_set1(1.0f), e)), vec_set1(1.0f));
}

static void activate_task(void *ud, size_t begin, size_t end, int thread)
{
    struct activate_job *job = ud;
    int64_t n = job->in->ne[0];
    for (size_t r = begin; r < end; r++) {
        const float *in = hd_tensor_row(job->in, (int64_t)r, 0);
        float *out = hd_tensor_row(job->out, (int64_t)r, 0);
        for (int64_t i = 0; i < n; i += VW)
            vec_store_n(out + i, activated(vec_load_n(in + i, n - i), job->f), n - i);
    }
}

void ISA(activate)(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                   enum hd_activation f)
{
    struct activate_job job = {&out, &in, f};
    hd_pool_run(s->pool, (size_t)in.ne[1], ROW_CHUNK, activate_task, &job);
}

/* --- silu · up and sums ----------------------------------------------------------------------- */

struct pair_job {
    const struct hd_tensor *out, *a, *b;
};

void ISA(silu_mul_row)(float *out, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i += VW) {
        vec g = vec_load_n(gate + i, n - i), u = vec_load_n(up + i, n - i);
        vec_store_n(out + i, vec_mul(vec_silu(g), u), n - i);
    }
}

static void silu_task(void *ud, size_t begin, size_t end, int thread)
{
    struct pair_job *job = ud;
    for (size_t r = begin; r < end; r++)
        ISA(silu_mul_row)
    (hd_tensor_row(job->out, (int64_t)r, 0), hd_tensor_row(job->a, (int64_t)r, 0),
     hd_tensor_row(job->b, (int64_t)r, 0), job->a->ne[0]);
}

void ISA(silu_mul)(struct hd_stream *s, struct hd_tensor out, struct hd_tensor gate,
                   struct hd_tensor up)
{
    struct pair_job job = {&out, &gate, &up};
    hd_pool_run(s->pool, (size_t)gate.ne[1], ROW_CHUNK, silu_task, &job);
}

static void add_task(void *ud, size_t begin, size_t end, int thread)
{
    struct pair_job *job = ud;
    int64_t n = job->a->ne[0];
    for (size_t r = begin; r < end; r++) {
        float *x = hd_tensor_row(job->a, (int64_t)r, 0);
        const float *y = hd_tensor_row(job->b, (int64_t)r, 0);
        for (int64_t i = 0; i < n; i += VW)
            vec_store_n(x + i, vec_add(vec_load_n(x + i, n - i), vec_load_n(y + i, n - i)), n - i);
    }
}

void ISA(add)(struct hd_stream *s, struct hd_tensor x, struct hd_tensor y)
{
    struct pair_job job = {NULL, &x, &y};
    hd_pool_run(s->pool, (size_t)x.ne[1], 8, add_task, &job);
}

/* --- the cache: rounding rows to f16 ------------------------------------------------------------
 */

struct write_job {
    const struct hd_tensor *cache, *rows;
    const struct hd_seq_rows *seq;
};

static void write_task(void *ud, size_t begin, size_t end, int thread)
{
    struct write_job *job = ud;
    int64_t dim = job->rows->ne[0];
    for (size_t i = begin; i < end; i++)
        for (int64_t h = 0; h < job->rows->ne[1]; h++) {
            const float *from = hd_tensor_row(job->rows, h, job->seq->begin + (int64_t)i);
            void *to = hd_kv_row(job->cache, job->seq->table, job->seq->pos + (int64_t)i, h);
            if (job->cache->dtype == HD_Q8_0) {
                hd_quantise_q8_0(to, from, dim);
                continue;
            }
            for (int64_t d = 0; d < dim; d += VW) {
                vec v = vec_load_n(from + d, dim - d);
                if (job->cache->dtype == HD_F32)
                    vec_store_n((float *)to + d, v, dim - d);
                else
                    vec_store_f16_n((uint16_t *)to + d, v, dim - d);
            }
        }
}

void ISA(kv_write)(struct hd_stream *s, struct hd_tensor cache, struct hd_tensor rows,
                   const struct hd_seq_rows *seqs, int n_seq)
{
    for (int i = 0; i < n_seq; i++) {
        struct write_job job = {&cache, &rows, &seqs[i]};
        hd_pool_run(s->pool, (size_t)seqs[i].n, 16, write_task, &job);
    }
}
