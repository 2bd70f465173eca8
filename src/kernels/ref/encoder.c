/* Ops of encoders by their definitions: layer norm, activations, attention over whole sequences,
 * means of rows. */
#include <math.h>
#include <string.h>

#include "kernels/ref/ref.h"

enum { ROW_CHUNK = 4 };

/* --- layer norm ---------------------------------------------------------------------------- */

struct norm_job {
    const struct hd_tensor *out, *in;
    const float *gain, *bias;
    float eps;
};

static void norm_task(void *ud, size_t begin, size_t end, int thread)
{
    struct norm_job *job = ud;
    int64_t n = job->in->ne[0];
    for (size_t r = begin; r < end; r++) {
        const float *in = hd_tensor_row(job->in, (int64_t)r, 0);
        float *out = hd_tensor_row(job->out, (int64_t)r, 0);
        double sum = 0, square = 0;
        for (int64_t i = 0; i < n; i++)
            sum += (double)in[i];
        double mean = sum / (double)n;
        for (int64_t i = 0; i < n; i++)
            square += ((double)in[i] - mean) * ((double)in[i] - mean);
        double scale = 1.0 / sqrt(square / (double)n + (double)job->eps);
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)(((double)in[i] - mean) * scale) * job->gain[i] + job->bias[i];
    }
}

void hd_ref_layer_norm(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                       struct hd_tensor gain, struct hd_tensor bias, float eps)
{
    struct norm_job job = {&out, &in, hd_tensor_row(&gain, 0, 0), hd_tensor_row(&bias, 0, 0), eps};
    hd_pool_run(s->pool, (size_t)in.ne[1], ROW_CHUNK, norm_task, &job);
}

/* --- activations --------------------------------------------------------------------------- */

struct activate_job {
    const struct hd_tensor *out, *in;
    enum hd_activation f;
};

static float activated(float x, enum hd_activation f)
{
    switch (f) {
    case HD_ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case HD_ACT_GELU_TANH: /* sqrt(2 / pi) */
        return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case HD_ACT_RELU:
        return x > 0 ? x : 0;
    case HD_ACT_SILU:
        return x / (1.0f + expf(-x));
    case HD_ACT_TANH:
        break;
    }
    return tanhf(x);
}

static void activate_task(void *ud, size_t begin, size_t end, int thread)
{
    struct activate_job *job = ud;
    for (size_t r = begin; r < end; r++) {
        const float *in = hd_tensor_row(job->in, (int64_t)r, 0);
        float *out = hd_tensor_row(job->out, (int64_t)r, 0);
        for (int64_t i = 0; i < job->in->ne[0]; i++)
            out[i] = activated(in[i], job->f);
    }
}

void hd_ref_activate(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                     enum hd_activation f)
{
    struct activate_job job = {&out, &in, f};
    hd_pool_run(s->pool, (size_t)in.ne[1], ROW_CHUNK, activate_task, &job);
}

/* --- attention ----------------------------------------------------------------------------- */

struct attention_job {
    const struct hd_tensor *out, *q, *k, *v;
    float scale;
    const struct hd_seq_rows *seq;
    uint8_t *scratch;
    size_t scratch_bytes; /* per thread: the scores */
};

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static void attend(const struct attention_job *job, int64_t row, int64_t head, float *score)
{
    int64_t n = job->seq->n, begin = job->seq->begin, dim = job->v->ne[0];
    const float *q = hd_tensor_row(job->q, head, begin + row);
    float *out = hd_tensor_row(job->out, head, begin + row);
    float max = -INFINITY;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const float *k = hd_tensor_row(job->k, head, begin + i);
        score[i] = (float)((double)job->scale * dot(q, k, job->k->ne[0]));
        max = fmaxf(max, score[i]);
    }
    for (int64_t i = 0; i < n; i++)
        sum += (double)(score[i] = expf(score[i] - max));
    memset(out, 0, (size_t)dim * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        const float *v = hd_tensor_row(job->v, head, begin + i);
        float weight = (float)((double)score[i] / sum);
        for (int64_t d = 0; d < dim; d++)
            out[d] += weight * v[d];
    }
}

static void attention_task(void *ud, size_t begin, size_t end, int thread)
{
    struct attention_job *job = ud;
    float *score = (float *)(job->scratch + (size_t)thread * job->scratch_bytes);
    for (size_t i = begin; i < end; i++)
        attend(job, (int64_t)i / job->q->ne[1], (int64_t)i % job->q->ne[1], score);
}

void hd_ref_attention_all(struct hd_stream *s, struct hd_tensor out, struct hd_tensor q,
                          struct hd_tensor k, struct hd_tensor v, float scale,
                          const struct hd_seq_rows *seqs, int n_seq)
{
    for (int i = 0; i < n_seq; i++) {
        struct attention_job job = {
            .out = &out, .q = &q, .k = &k, .v = &v, .scale = scale, .seq = &seqs[i]};
        job.scratch_bytes = hd_round_up((size_t)seqs[i].n * sizeof(float), 64);
        job.scratch = hd_stream_scratch(s, HD_SCRATCH_THREADS,
                                        job.scratch_bytes * (size_t)hd_pool_threads(s->pool));
        if (!job.scratch)
            return;
        hd_pool_run(s->pool, (size_t)(seqs[i].n * q.ne[1]), 4, attention_task, &job);
    }
}

/* --- means --------------------------------------------------------------------------------- */

/* Few rows come out, so this is plain on every back end. */
void hd_ref_mean_rows(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                      const struct hd_seq_rows *seqs, int n_seq)
{
    for (int i = 0; i < n_seq; i++) {
        float *mean = hd_tensor_row(&out, i, 0);
        memset(mean, 0, (size_t)in.ne[0] * sizeof *mean);
        for (int64_t r = 0; r < seqs[i].n; r++) {
            const float *row = hd_tensor_row(&in, seqs[i].begin + r, 0);
            for (int64_t d = 0; d < in.ne[0]; d++)
                mean[d] += row[d];
        }
        for (int64_t d = 0; d < in.ne[0]; d++)
            mean[d] /= (float)seqs[i].n;
    }
}
