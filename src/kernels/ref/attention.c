/* Attention by the definition: all scores of a row and head, softmax, weighted sum of values. */
#include <math.h>
#include <string.h>

#include "kernels/ref/ref.h"

enum { LANES = 16 };

struct attention_job {
    const struct hd_tensor *out, *q, *k, *v;
    float scale;
    const struct hd_seq_rows *seq;
    uint8_t *scratch;
    size_t scratch_bytes; /* per thread: scores, then one row of the cache as F32 */
    int64_t n_score;
};

static const float *cache_row(const struct hd_tensor *cache, const struct hd_seq_rows *seq,
                              int64_t pos, int64_t head, float *scratch)
{
    const void *row = hd_kv_row(cache, seq->table, pos, head);
    if (cache->dtype == HD_F32)
        return row;
    hd_dtype_info(cache->dtype)->dequantise(scratch, row, cache->ne[0]);
    return scratch;
}

static float dot(const float *a, const float *b, int64_t n)
{
    float lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        lane[i % LANES] += a[i] * b[i];
    for (int width = LANES / 2; width; width /= 2)
        for (int j = 0; j < width; j++)
            lane[j] += lane[j + width];
    return lane[0];
}

static void attend(const struct attention_job *job, int64_t row, int64_t head, float *score,
                   float *scratch)
{
    int64_t kv_head = head / (job->q->ne[1] / job->k->ne[2]);
    int64_t n = job->seq->pos + row + 1; /* positions that this row sees */
    const float *q = hd_tensor_row(job->q, head, job->seq->begin + row);
    float *out = hd_tensor_row(job->out, head, job->seq->begin + row);
    float max = -INFINITY, sum = 0;
    for (int64_t p = 0; p < n; p++) {
        const float *k = cache_row(job->k, job->seq, p, kv_head, scratch);
        score[p] = job->scale * dot(q, k, job->k->ne[0]);
        max = fmaxf(max, score[p]);
    }
    for (int64_t p = 0; p < n; p++)
        sum += score[p] = expf(score[p] - max);
    memset(out, 0, (size_t)job->v->ne[0] * sizeof *out);
    for (int64_t p = 0; p < n; p++) {
        const float *v = cache_row(job->v, job->seq, p, kv_head, scratch);
        float weight = score[p] / sum;
        for (int64_t d = 0; d < job->v->ne[0]; d++)
            out[d] += weight * v[d];
    }
}

static void attention_task(void *ud, size_t begin, size_t end, int thread)
{
    struct attention_job *job = ud;
    float *score = (float *)(job->scratch + (size_t)thread * job->scratch_bytes);
    for (size_t i = begin; i < end; i++)
        attend(job, (int64_t)i / job->q->ne[1], (int64_t)i % job->q->ne[1], score,
               score + job->n_score);
}

void hd_ref_attention(struct hd_stream *s, struct hd_tensor out, struct hd_tensor q,
                      struct hd_tensor k, struct hd_tensor v, float scale,
                      const struct hd_seq_rows *seqs, int n_seq, enum hd_form form)
{
    for (int i = 0; i < n_seq; i++) {
        struct attention_job job = {
            .out = &out, .q = &q, .k = &k, .v = &v, .scale = scale, .seq = &seqs[i]};
        int64_t dim = k.ne[0] > v.ne[0] ? k.ne[0] : v.ne[0];
        job.n_score = seqs[i].pos + seqs[i].n;
        job.scratch_bytes = hd_round_up((size_t)(job.n_score + dim) * sizeof(float), 64);
        job.scratch = hd_stream_scratch(s, HD_SCRATCH_THREADS,
                                        job.scratch_bytes * (size_t)hd_pool_threads(s->pool));
        if (!job.scratch)
            return;
        hd_pool_run(s->pool, (size_t)(seqs[i].n * q.ne[1]), 4, attention_task, &job);
    }
}
