/* The table of back ends, the objects that are the same on all of them, and dispatch. */
#include "kernels/backend.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "kernels/x86/x86.h"

static const char *nothing_missing(void)
{
    return NULL;
}

/* Best last: "auto" takes the last one that the machine can run. */
static const struct hd_backend backends[] = {
    {"ref", HD_F32, &hd_ops_ref, NULL, nothing_missing},
#if HD_X86
    {"avx2", HD_F16, &hd_ops_avx2, &hd_kernels_avx2, hd_x86_missing_avx2},
    {"avx512", HD_F16, &hd_ops_avx512, &hd_kernels_avx512, hd_x86_missing_avx512},
    {"amx", HD_F16, &hd_ops_amx, &hd_kernels_amx, hd_x86_missing_amx},
#endif
};
enum { N_BACKEND = sizeof backends / sizeof backends[0] };

static const struct hd_backend *best(void)
{
    for (int i = N_BACKEND - 1; i > 0; i--)
        if (!backends[i].missing())
            return &backends[i];
    return &backends[0];
}

enum hd_err hd_backend_get(const struct hd_backend **out, const char *name, struct hd_errmsg *msg)
{
    *out = NULL;
    if (!strcmp(name, "auto")) {
        *out = best();
        return HD_OK;
    }
    for (int i = 0; i < N_BACKEND; i++) {
        if (strcmp(backends[i].name, name))
            continue;
        const char *missing = backends[i].missing();
        if (missing)
            return hd_fail(msg, HD_ERR_UNSUPPORTED, "%s: %s (use %s or auto)", name, missing,
                           best()->name);
        *out = &backends[i];
        return HD_OK;
    }
    return hd_fail(msg, HD_ERR_UNSUPPORTED,
                   "%s: no such kernels (auto, ref, avx2, avx512 or amx; auto is %s here)", name,
                   best()->name);
}

const char *hd_backend_name(const struct hd_backend *backend)
{
    return backend->name;
}

enum hd_dtype hd_backend_kv_dtype(const struct hd_backend *backend)
{
    return backend->kv_dtype;
}

/* --- streams ------------------------------------------------------------------------------ */

enum hd_err hd_stream_new(struct hd_stream **out, const struct hd_backend *backend,
                          struct hd_pool *pool, struct hd_errmsg *msg)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return hd_fail(msg, HD_ERR_NOMEM, "stream: out of memory");
    (*out)->backend = backend;
    (*out)->pool = pool;
    return HD_OK;
}

void hd_stream_trim(struct hd_stream *stream)
{
    for (int i = 0; i < HD_SCRATCH_COUNT; i++) {
        hd_pages_free(stream->scratch[i].data, stream->scratch[i].bytes);
        stream->scratch[i].data = NULL;
        stream->scratch[i].bytes = 0;
    }
}

void hd_stream_free(struct hd_stream *stream)
{
    if (!stream)
        return;
    hd_stream_trim(stream);
    free(stream);
}

enum hd_err hd_sync(struct hd_stream *stream)
{
    enum hd_err err = stream->failure;
    stream->failure = HD_OK;
    return err;
}

/* --- dispatch ------------------------------------------------------------------------------ */

void hd_op_embed(struct hd_stream *s, struct hd_tensor out, const struct hd_weight *w,
                 const int32_t *ids, int64_t n)
{
    s->backend->ops->embed(s, out, w, ids, n);
}

void hd_op_rms_norm(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                    struct hd_tensor gain, float eps)
{
    s->backend->ops->rms_norm(s, out, in, gain, eps);
}

struct order_job {
    float *out;
    const uint8_t *rows;
    size_t stride;
    const int32_t *index, *order;
    size_t n_in;
};

static void order_task(void *ud, size_t begin, size_t end, int thread)
{
    const struct order_job *job = ud;
    for (size_t i = begin; i < end; i++) {
        size_t at = job->index ? (size_t)job->index[i] : i;
        const float *row = (const float *)(job->rows + at * job->stride);
        for (size_t j = 0; j < job->n_in; j++)
            job->out[i * job->n_in + j] = row[job->order[j]];
    }
}

void hd_weight_order_rows(float *out, struct hd_pool *pool, const struct hd_weight *w,
                          int64_t matrix, const uint8_t *rows, size_t stride, const int32_t *index,
                          int64_t n)
{
    struct order_job job = {out, rows, stride, index, hd_weight_order(w, matrix), (size_t)w->n_in};
    hd_pool_run(pool, (size_t)n, 16, order_task, &job);
}

/* Products whose weights share an order, on the input put in it. */
static void matmul_ordered(struct hd_stream *s, const struct hd_matmul *products, int n_product,
                           const struct hd_tensor *in, enum hd_form form)
{
    size_t bytes = (size_t)(in->ne[0] * in->ne[1]) * sizeof(float);
    struct hd_buffer buffer = {s->backend, hd_stream_scratch(s, HD_SCRATCH_ORDERED, bytes), bytes};
    if (!buffer.data)
        return;
    hd_weight_order_rows((float *)buffer.data, s->pool, products[0].w, 0, hd_tensor_row(in, 0, 0),
                         in->nb[1], NULL, in->ne[1]);
    struct hd_tensor ordered = hd_tensor_at(&buffer, 0, HD_F32, in->ne[0], in->ne[1], 1, 1);
    s->backend->ops->matmul(s, products, n_product, ordered, form);
}

static bool same_order(const struct hd_weight *a, const struct hd_weight *b)
{
    if (!a->order || !b->order)
        return a->order == b->order;
    return a->n_in == b->n_in && !memcmp(a->order, b->order, (size_t)a->n_in * sizeof *a->order);
}

void hd_op_matmul(struct hd_stream *s, const struct hd_matmul *products, int n_product,
                  struct hd_tensor in, enum hd_form form)
{
    for (int i = 0, n; i < n_product; i += n) {
        n = 1;
        while (i + n < n_product && same_order(products[i].w, products[i + n].w))
            n++;
        if (products[i].w->order)
            matmul_ordered(s, products + i, n, &in, form);
        else
            s->backend->ops->matmul(s, products + i, n, in, form);
    }
}

void hd_op_matmul_heads(struct hd_stream *s, struct hd_tensor out, const struct hd_weight *w,
                        struct hd_tensor in, enum hd_form form)
{
    s->backend->ops->matmul_heads(s, out, w, in, form);
}

void hd_op_rope(struct hd_stream *s, struct hd_tensor x, const struct hd_rope *rope,
                const int32_t *positions, int64_t n)
{
    s->backend->ops->rope(s, x, rope, positions, n);
}

void hd_op_kv_write(struct hd_stream *s, struct hd_tensor cache, struct hd_tensor rows,
                    const struct hd_seq_rows *seqs, int n_seq)
{
    s->backend->ops->kv_write(s, cache, rows, seqs, n_seq);
}

void hd_op_kv_read(struct hd_stream *s, struct hd_tensor out, struct hd_tensor cache,
                   const int32_t *table, int64_t n)
{
    s->backend->ops->kv_read(s, out, cache, table, n);
}

void hd_op_attention(struct hd_stream *s, struct hd_tensor out, struct hd_tensor q,
                     struct hd_tensor k, struct hd_tensor v, float scale,
                     const struct hd_seq_rows *seqs, int n_seq, enum hd_form form)
{
    s->backend->ops->attention(s, out, q, k, v, scale, seqs, n_seq, form);
}

void hd_op_silu_mul(struct hd_stream *s, struct hd_tensor out, struct hd_tensor gate,
                    struct hd_tensor up)
{
    s->backend->ops->silu_mul(s, out, gate, up);
}

void hd_op_add(struct hd_stream *s, struct hd_tensor x, struct hd_tensor y)
{
    s->backend->ops->add(s, x, y);
}

void hd_op_layer_norm(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                      struct hd_tensor gain, struct hd_tensor bias, float eps)
{
    s->backend->ops->layer_norm(s, out, in, gain, bias, eps);
}

void hd_op_activate(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                    enum hd_activation f)
{
    s->backend->ops->activate(s, out, in, f);
}

void hd_op_attention_all(struct hd_stream *s, struct hd_tensor out, struct hd_tensor q,
                         struct hd_tensor k, struct hd_tensor v, float scale,
                         const struct hd_seq_rows *seqs, int n_seq)
{
    s->backend->ops->attention_all(s, out, q, k, v, scale, seqs, n_seq);
}

void hd_op_mean_rows(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                     const struct hd_seq_rows *seqs, int n_seq)
{
    s->backend->ops->mean_rows(s, out, in, seqs, n_seq);
}

void hd_op_gather_rows(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                       const int32_t *rows, int64_t n)
{
    s->backend->ops->gather_rows(s, out, in, rows, n);
}

void hd_op_route(struct hd_stream *s, struct hd_tensor ids, struct hd_tensor weights,
                 struct hd_tensor logits, const struct hd_router *router)
{
    s->backend->ops->route(s, ids, weights, logits, router);
}

void hd_op_moe(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
               const struct hd_weight *gate, const struct hd_weight *up,
               const struct hd_weight *down, struct hd_tensor ids, struct hd_tensor weights,
               enum hd_form form)
{
    s->backend->ops->moe(s, out, in, gate, up, down, ids, weights, form);
}
