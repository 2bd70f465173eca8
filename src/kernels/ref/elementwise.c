/* Ops that treat every row or element alone: embedding, norms, rotation, activation, sums. */
#include <math.h>
#include <string.h>

#include "kernels/ref/ref.h"

enum { ROW_CHUNK = 4 };

/* --- embedding ----------------------------------------------------------------------------- */

struct embed_job {
    const struct hd_tensor *out;
    const struct hd_weight *w;
    const int32_t *ids;
};

static void embed_task(void *ud, size_t begin, size_t end, int thread)
{
    struct embed_job *job = ud;
    const struct hd_dtype_info *info = hd_dtype_info(job->w->dtype);
    for (size_t i = begin; i < end; i++)
        info->dequantise(hd_tensor_row(job->out, (int64_t)i, 0),
                         job->w->data + (size_t)job->ids[i] * job->w->row_bytes, job->w->n_in);
}

void hd_ref_embed(struct hd_stream *s, struct hd_tensor out, const struct hd_weight *w,
                  const int32_t *ids, int64_t n)
{
    struct embed_job job = {&out, w, ids};
    hd_pool_run(s->pool, (size_t)n, ROW_CHUNK, embed_task, &job);
}

/* --- RMS norm ------------------------------------------------------------------------------ */

struct norm_job {
    const struct hd_tensor *out, *in;
    const float *gain;
    float eps;
};

static void norm_task(void *ud, size_t begin, size_t end, int thread)
{
    struct norm_job *job = ud;
    int64_t n = job->in->ne[0];
    for (size_t r = begin; r < end; r++) {
        int64_t i1 = (int64_t)r % job->in->ne[1], i2 = (int64_t)r / job->in->ne[1];
        const float *in = hd_tensor_row(job->in, i1, i2);
        float *out = hd_tensor_row(job->out, i1, i2);
        double sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += (double)in[i] * in[i];
        float scale = 1.0f / sqrtf((float)(sum / (double)n) + job->eps);
        for (int64_t i = 0; i < n; i++)
            out[i] = in[i] * scale * job->gain[i];
    }
}

void hd_ref_rms_norm(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                     struct hd_tensor gain, float eps)
{
    struct norm_job job = {&out, &in, hd_tensor_row(&gain, 0, 0), eps};
    hd_pool_run(s->pool, (size_t)(in.ne[1] * in.ne[2]), ROW_CHUNK, norm_task, &job);
}

/* --- rotary positions ---------------------------------------------------------------------- */

struct rope_job {
    const struct hd_tensor *x;
    const struct hd_rope *rope;
    const float *inv_freq;
    const int32_t *positions;
};

static void rope_task(void *ud, size_t begin, size_t end, int thread)
{
    struct rope_job *job = ud;
    int half = job->rope->n_rot / 2;
    int step = job->rope->neox ? 1 : 2, other = job->rope->neox ? half : 1;
    for (size_t r = begin; r < end; r++)
        for (int i = 0; i < half; i++) { /* one angle serves all heads */
            float angle = (float)job->positions[r] * job->inv_freq[i];
            float c = cosf(angle) * job->rope->mscale, s = sinf(angle) * job->rope->mscale;
            for (int64_t h = 0; h < job->x->ne[1]; h++) {
                float *x = (float *)hd_tensor_row(job->x, h, (int64_t)r) + i * step;
                float a = x[0], b = x[other];
                x[0] = a * c - b * s;
                x[other] = a * s + b * c;
            }
        }
}

void hd_ref_rope(struct hd_stream *s, struct hd_tensor x, const struct hd_rope *rope,
                 const int32_t *positions, int64_t n)
{
    struct rope_job job = {&x, rope, hd_tensor_row(&rope->inv_freq, 0, 0), positions};
    hd_pool_run(s->pool, (size_t)n, ROW_CHUNK, rope_task, &job);
}

/* --- activation, sums, rows ------------------------------------------------------------------ */

struct pair_job {
    const struct hd_tensor *out, *a, *b;
};

static void silu_task(void *ud, size_t begin, size_t end, int thread)
{
    struct pair_job *job = ud;
    for (size_t r = begin; r < end; r++) {
        const float *gate = hd_tensor_row(job->a, (int64_t)r, 0);
        const float *up = hd_tensor_row(job->b, (int64_t)r, 0);
        float *out = hd_tensor_row(job->out, (int64_t)r, 0);
        for (int64_t i = 0; i < job->a->ne[0]; i++)
            out[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    }
}

void hd_ref_silu_mul(struct hd_stream *s, struct hd_tensor out, struct hd_tensor gate,
                     struct hd_tensor up)
{
    struct pair_job job = {&out, &gate, &up};
    hd_pool_run(s->pool, (size_t)gate.ne[1], ROW_CHUNK, silu_task, &job);
}

static void add_task(void *ud, size_t begin, size_t end, int thread)
{
    struct pair_job *job = ud;
    for (size_t r = begin; r < end; r++) {
        float *x = hd_tensor_row(job->a, (int64_t)r, 0);
        const float *y = hd_tensor_row(job->b, (int64_t)r, 0);
        for (int64_t i = 0; i < job->a->ne[0]; i++)
            x[i] += y[i];
    }
}

void hd_ref_add(struct hd_stream *s, struct hd_tensor x, struct hd_tensor y)
{
    struct pair_job job = {NULL, &x, &y};
    hd_pool_run(s->pool, (size_t)x.ne[1], ROW_CHUNK, add_task, &job);
}

void hd_ref_gather_rows(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                        const int32_t *rows, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        memcpy(hd_tensor_row(&out, i, 0), hd_tensor_row(&in, rows[i], 0),
               (size_t)in.ne[0] * sizeof(float));
}
