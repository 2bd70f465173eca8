/* The paged cache: rows in and out, through block tables. */
#include <string.h>

#include "kernels/ref/ref.h"

struct kv_job {
    const struct hd_tensor *cache, *rows;
    const struct hd_seq_rows *seq;
    const int32_t *table;
};

static void write_task(void *ud, size_t begin, size_t end, int thread)
{
    struct kv_job *job = ud;
    int64_t dim = job->rows->ne[0];
    for (size_t i = begin; i < end; i++)
        for (int64_t h = 0; h < job->rows->ne[1]; h++) {
            const float *from = hd_tensor_row(job->rows, h, job->seq->begin + (int64_t)i);
            void *to = hd_kv_row(job->cache, job->seq->table, job->seq->pos + (int64_t)i, h);
            if (job->cache->dtype == HD_F32)
                memcpy(to, from, (size_t)dim * sizeof(float));
            else
                for (int64_t d = 0; d < dim; d++)
                    ((uint16_t *)to)[d] = hd_f32_to_f16(from[d]);
        }
}

void hd_ref_kv_write(struct hd_stream *s, struct hd_tensor cache, struct hd_tensor rows,
                     const struct hd_seq_rows *seqs, int n_seq)
{
    for (int i = 0; i < n_seq; i++) {
        struct kv_job job = {.cache = &cache, .rows = &rows, .seq = &seqs[i]};
        hd_pool_run(s->pool, (size_t)seqs[i].n, 16, write_task, &job);
    }
}

static void read_task(void *ud, size_t begin, size_t end, int thread)
{
    struct kv_job *job = ud;
    const struct hd_dtype_info *info = hd_dtype_info(job->cache->dtype);
    for (size_t i = begin; i < end; i++)
        for (int64_t h = 0; h < job->rows->ne[1]; h++)
            info->dequantise(hd_tensor_row(job->rows, h, (int64_t)i),
                             hd_kv_row(job->cache, job->table, (int64_t)i, h), job->rows->ne[0]);
}

void hd_ref_kv_read(struct hd_stream *s, struct hd_tensor out, struct hd_tensor cache,
                    const int32_t *table, int64_t n)
{
    struct kv_job job = {.cache = &cache, .rows = &out, .table = table};
    hd_pool_run(s->pool, (size_t)n, 16, read_task, &job);
}
