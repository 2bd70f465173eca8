/* The runner: one scratch buffer, the KV cache, and the pass over the layers. */
#include <stdlib.h>

#include "base/checked.h"
#include "model/model_impl.h"

/* --- scratch -------------------------------------------------------------------------------- */

/* Lays tensors out one after another; sizes first, the buffer when all are known. */
struct layout {
    size_t bytes;
    bool overflow;
    struct hd_tensor *tensors[32];
    int n;
};

static void place(struct layout *l, struct hd_tensor *t, enum hd_dtype dtype, int64_t ne0,
                  int64_t ne1, int64_t ne2, int64_t ne3)
{
    size_t bytes = hd_dtype_row_bytes(dtype, ne0), padded;
    if (!hd_mul(&bytes, bytes, (size_t)ne1) || !hd_mul(&bytes, bytes, (size_t)ne2) ||
        !hd_mul(&bytes, bytes, (size_t)ne3) || !hd_add(&padded, bytes, 63)) {
        l->overflow = true;
        return;
    }
    *t = hd_tensor_at(NULL, l->bytes, dtype, ne0, ne1, ne2, ne3);
    if (t->n_dim < 2)
        t->n_dim = 2;
    l->tensors[l->n++] = t;
    l->overflow = l->overflow || !hd_add(&l->bytes, l->bytes, padded & ~(size_t)63);
}

static void place_mla(struct layout *l, struct hd_runner *r)
{
    const struct hd_hparams *hp = &r->model->hp;
    int64_t rows = r->options.n_row_max, n_head = hp->n_head, v = hp->v_head_dim;
    int64_t nope = hp->qk_nope_head_dim, rope = hp->qk_rope_head_dim, rank = hp->kv_lora_rank;
    int64_t n_ctx = r->options.n_ctx, n_block = (n_ctx + HD_KV_BLOCK - 1) / HD_KV_BLOCK;
    int64_t n_tile = n_ctx < HD_MLA_TILE ? n_ctx : HD_MLA_TILE;
    enum hd_dtype kv = hd_backend_kv_dtype(r->model->backend);
    place(l, &r->q_a, HD_F32, hp->q_lora_rank ? hp->q_lora_rank : 1, rows, 1, 1);
    place(l, &r->kv_a, HD_F32, rank + rope, rows, 1, 1);
    place(l, &r->q_abs, HD_F32, n_head * (rank + rope), rows, 1, 1);
    place(l, &r->ctx, HD_F32, n_head * rank, rows, 1, 1);
    place(l, &r->latent, HD_F32, rank + rope, n_ctx, 1, 1);
    place(l, &r->kv_tile, HD_F32, n_head * (nope + v), n_tile, 1, 1);
    place(l, &r->k_exp, kv, nope + rope, HD_KV_BLOCK, n_head, n_block);
    place(l, &r->v_exp, kv, v, HD_KV_BLOCK, n_head, n_block);
    if (hp->n_expert) {
        place(l, &r->route_logits, HD_F32, hp->n_expert, rows, 1, 1);
        place(l, &r->route_weights, HD_F32, hp->n_expert_used, rows, 1, 1);
        place(l, &r->route_ids, HD_I32, hp->n_expert_used, rows, 1, 1);
    }
}

/* What attention needs and what the feed-forward needs, in the same memory: a layer does one after
 * the other. */
static void place_layer(struct layout *l, struct hd_runner *r)
{
    const struct hd_hparams *hp = &r->model->hp;
    bool mla = hp->arch == HD_ARCH_DEEPSEEK;
    int64_t rows = r->options.n_row_max, n_tile = rows < HD_FFN_TILE ? rows : HD_FFN_TILE;
    int64_t qk = mla ? hp->qk_nope_head_dim + hp->qk_rope_head_dim : hp->head_dim;
    int64_t v = mla ? hp->v_head_dim : hp->head_dim;
    int64_t n_ff = hp->n_ff, n_shared = (int64_t)hp->n_ff_exp * hp->n_expert_shared;
    n_ff = n_ff > n_shared ? n_ff : n_shared;
    size_t begin = l->bytes;
    place(l, &r->q, HD_F32, hp->n_head * qk, rows, 1, 1);
    place(l, &r->att, HD_F32, hp->n_head * v, rows, 1, 1);
    if (!mla) {
        place(l, &r->k, HD_F32, (int64_t)hp->n_head_kv * hp->head_dim, rows, 1, 1);
        place(l, &r->v, HD_F32, (int64_t)hp->n_head_kv * hp->head_dim, rows, 1, 1);
    }
    size_t end = l->bytes;
    l->bytes = begin;
    place(l, &r->gate, HD_F32, n_ff, n_tile, 1, 1);
    place(l, &r->up, HD_F32, n_ff, n_tile, 1, 1);
    l->bytes = l->bytes > end ? l->bytes : end;
}

static void place_all(struct layout *l, struct hd_runner *r)
{
    const struct hd_hparams *hp = &r->model->hp;
    bool mla = hp->arch == HD_ARCH_DEEPSEEK;
    int64_t rows = r->options.n_row_max, n_embd = hp->n_embd;
    place(l, &r->x, HD_F32, n_embd, rows, 1, 1);
    place(l, &r->h, HD_F32, n_embd, rows, 1, 1);
    place(l, &r->kept, HD_F32, n_embd, rows, 1, 1);
    place_layer(l, r);
    place(l, &r->logits, HD_F32, hp->n_vocab, r->options.n_out_max, 1, 1);
    if (hd_model_has_mtp(r->model)) {
        place(l, &r->hidden, HD_F32, n_embd, rows, 1, 1);
        place(l, &r->draft_in, HD_F32, 2 * n_embd, rows, 1, 1);
    }
    if (mla) {
        place_mla(l, r);
    }
}

size_t hd_runner_scratch_bytes(const struct hd_model *model,
                               const struct hd_runner_options *options)
{
    struct hd_runner r = {.model = model, .options = *options};
    struct layout l = {0};
    place_all(&l, &r);
    return l.overflow ? 0 : l.bytes;
}

/* --- KV cache ------------------------------------------------------------------------------- */

/* Bytes per block of one layer's k and v. */
static void kv_widths(const struct hd_hparams *hp, int64_t *k, int64_t *v)
{
    *k = (int64_t)hp->n_head_kv * hp->head_dim;
    *v = hp->arch == HD_ARCH_DEEPSEEK ? 0 : *k;
}

enum hd_err hd_model_set_kv8(struct hd_model *model, struct hd_errmsg *msg)
{
    enum { GROUP = 32 };
    const struct hd_hparams *hp = &model->hp;
    if (model->kv_dtype == HD_F32)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "--kv-type q8: the %s kernels keep KV in F32 (use others, or f16)",
                       hd_backend_name(model->backend));
    if (hp->head_dim % GROUP || (hp->arch == HD_ARCH_DEEPSEEK && hp->kv_lora_rank % GROUP))
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "--kv-type q8: heads of %d elements are no multiple of %d (use f16)",
                       hp->head_dim, GROUP);
    model->kv_dtype = HD_Q8_0;
    return HD_OK;
}

size_t hd_model_kv_block_bytes(const struct hd_model *model)
{
    int64_t k, v;
    kv_widths(&model->hp, &k, &v);
    return hd_dtype_row_bytes(model->kv_dtype, k + v) * HD_KV_BLOCK * (size_t)hd_model__n_kv(model);
}

/* A layer's k or v at `offset` of each block. */
static struct hd_tensor cache_view(const struct hd_runner *r, size_t offset, size_t block_bytes)
{
    const struct hd_hparams *hp = &r->model->hp;
    struct hd_tensor t = hd_tensor_at(r->kv_buffer, offset, r->model->kv_dtype, hp->head_dim,
                                      HD_KV_BLOCK, hp->n_head_kv, r->options.n_block);
    t.nb[3] = block_bytes;
    return t;
}

static enum hd_err new_kv(struct hd_runner *r, struct hd_errmsg *msg)
{
    const struct hd_hparams *hp = &r->model->hp;
    size_t block = hd_model_kv_block_bytes(r->model), bytes;
    bool mla = hp->arch == HD_ARCH_DEEPSEEK;
    int n = hd_model__n_kv(r->model);
    size_t one = block / (size_t)n / (mla ? 1 : 2);
    r->kv = calloc((size_t)n, sizeof *r->kv);
    if (!r->kv)
        return HD_ERR_NOMEM;
    if (!hd_mul(&bytes, block, (size_t)r->options.n_block))
        return HD_ERR_LIMIT;
    enum hd_err err = hd_buffer_new(&r->kv_buffer, r->model->backend, bytes, msg);
    for (int i = 0; !err && i < n; i++) {
        size_t at = (size_t)i * one * (mla ? 1 : 2);
        r->kv[i].k = cache_view(r, at, block);
        if (!mla)
            r->kv[i].v = cache_view(r, at + one, block);
    }
    return err;
}

/* A block's bytes lie together. */
static struct hd_tensor block_bytes(const struct hd_runner *r, int32_t block)
{
    size_t bytes = hd_model_kv_block_bytes(r->model);
    return hd_tensor_at(r->kv_buffer, (size_t)block * bytes, HD_F32, (int64_t)(bytes / 4), 1, 1, 1);
}

void hd_runner_kv_download(struct hd_runner *r, void *host, int32_t block)
{
    struct hd_tensor t = block_bytes(r, block);
    hd_tensor_download(host, &t);
}

void hd_runner_kv_upload(struct hd_runner *r, int32_t block, const void *host)
{
    struct hd_tensor t = block_bytes(r, block);
    hd_tensor_upload(&t, host);
}

/* --- life ----------------------------------------------------------------------------------- */

static enum hd_err new_scratch(struct hd_runner *r, struct hd_errmsg *msg)
{
    const struct hd_hparams *hp = &r->model->hp;
    struct layout l = {0};
    place_all(&l, r);
    if (l.overflow)
        return HD_ERR_LIMIT;
    enum hd_err err = hd_buffer_new(&r->scratch, r->model->backend, l.bytes, msg);
    if (err)
        return err;
    for (int i = 0; i < l.n; i++)
        l.tensors[i]->buffer = r->scratch;
    if (hp->arch != HD_ARCH_DEEPSEEK)
        return HD_OK;
    int64_t n = r->options.n_row_max * hp->n_head, n_block = r->options.n_ctx / HD_KV_BLOCK + 1;
    n = n > n_block ? n : n_block;
    r->identity = malloc((size_t)n * sizeof *r->identity);
    if (!r->identity)
        return HD_ERR_NOMEM;
    for (int64_t i = 0; i < n; i++)
        r->identity[i] = (int32_t)i;
    return HD_OK;
}

enum hd_err hd_runner_new(struct hd_runner **out, const struct hd_model *model,
                          struct hd_pool *pool, const struct hd_runner_options *options,
                          struct hd_errmsg *msg)
{
    *out = NULL;
    if (options->n_row_max < 1 || options->n_row_max > 1 << 20 || options->n_out_max < 1 ||
        options->n_ctx < 1 || options->n_block < 1 || options->n_block > INT32_MAX)
        return hd_fail(msg, HD_ERR_INVALID, "runner: a size is out of range");
    struct hd_runner *r = calloc(1, sizeof *r);
    if (!r)
        return hd_fail(msg, HD_ERR_NOMEM, "runner: out of memory");
    r->model = model;
    r->options = *options;
    if (msg)
        msg->text[0] = 0;
    enum hd_err err = hd_stream_new(&r->stream, model->backend, pool, msg);
    if (!err)
        err = new_scratch(r, msg);
    if (!err)
        err = new_kv(r, msg);
    if (err) {
        if (msg && !msg->text[0])
            hd_fail(msg, err, "runner: %s", hd_err_text(err));
        hd_runner_free(r);
        return err;
    }
    *out = r;
    return HD_OK;
}

void hd_runner_free(struct hd_runner *r)
{
    if (!r)
        return;
    hd_buffer_free(r->kv_buffer);
    free(r->kv);
    hd_buffer_free(r->scratch);
    hd_stream_free(r->stream);
    free(r->identity);
    free(r->route_host);
    free(r->logits_host);
    free(r);
}

void hd_runner_trim(struct hd_runner *r)
{
    r->n_kept = 0;
    hd_buffer_discard(r->scratch);
    hd_stream_trim(r->stream);
}

void hd_runner_on_route(struct hd_runner *r, hd_runner_route_fn fn, void *ud)
{
    const struct hd_hparams *hp = &r->model->hp;
    if (fn && !r->route_host && hp->n_expert)
        r->route_host = malloc((size_t)r->options.n_row_max * (size_t)hp->n_expert_used *
                               sizeof *r->route_host);
    r->on_route = r->route_host ? fn : NULL;
    r->on_route_ud = ud;
}

/* --- the pass ------------------------------------------------------------------------------- */

void hd_runner__layer(struct hd_runner *r, int i, const struct hd_batch *batch)
{
    const struct hd_layer *l = &r->model->layer[i];
    struct hd_tensor x = hd__rows(r->x, batch->n), h = hd__rows(r->h, batch->n);
    float eps = r->model->hp.norm_eps;
    bool deepseek = r->model->hp.arch == HD_ARCH_DEEPSEEK;
    hd_op_rms_norm(r->stream, h, x, l->attn_norm, eps);
    if (deepseek)
        hd_deepseek__attention(r, i, batch);
    else
        hd_dense__attention(r, i, batch);
    hd_op_rms_norm(r->stream, h, x, l->ffn_norm, eps);
    if (deepseek)
        hd_deepseek__feed_forward(r, i, batch);
    else
        hd_ffn__forward(r, i, batch);
}

enum hd_err hd_runner__keep(struct hd_runner *r, struct hd_tensor norm,
                            const struct hd_batch *batch, struct hd_errmsg *msg)
{
    if (batch->n_out > 0) {
        struct hd_tensor kept = hd__rows(r->kept, batch->n_out);
        hd_op_gather_rows(r->stream, kept, hd__rows(r->x, batch->n), batch->out_rows, batch->n_out);
        hd_op_rms_norm(r->stream, kept, kept, norm, r->model->hp.norm_eps);
    }
    enum hd_err err = hd_sync(r->stream);
    if (err)
        return hd_fail(msg, err, "forward pass: %s", hd_err_text(err));
    r->n_kept = batch->n_out;
    r->kept_form = batch->form;
    return HD_OK;
}

/* A hint for those who make the copies (copies.c); no part of the model's state. */
static void set_busy(const struct hd_model *m, bool busy)
{
    atomic_store(&((struct hd_model *)m)->busy, busy);
}

enum hd_err hd_runner_forward(struct hd_runner *r, const struct hd_batch *batch,
                              struct hd_errmsg *msg)
{
    const struct hd_model *m = r->model;
    r->n_kept = r->n_hidden = 0;
    if (batch->n < 1 || batch->n > r->options.n_row_max || batch->n_out > batch->n)
        return hd_fail(msg, HD_ERR_INTERNAL, "forward: %lld rows, at most %lld",
                       (long long)batch->n, (long long)r->options.n_row_max);
    set_busy(m, true);
    hd_op_embed(r->stream, hd__rows(r->x, batch->n), m->token_embd, batch->ids, batch->n);
    for (int i = 0; i < m->hp.n_layer; i++)
        hd_runner__layer(r, i, batch);
    if (hd_model_has_mtp(m)) /* any row may be drafted from */
        hd_op_rms_norm(r->stream, hd__rows(r->hidden, batch->n), hd__rows(r->x, batch->n),
                       m->output_norm, m->hp.norm_eps);
    enum hd_err err = hd_runner__keep(r, m->output_norm, batch, msg);
    set_busy(m, false);
    r->n_hidden = err ? 0 : batch->n;
    return err;
}

static enum hd_err output_product(struct hd_tensor *out, struct hd_runner *r, int64_t begin,
                                  int64_t n, struct hd_errmsg *msg)
{
    if (begin < 0 || n < 1 || n > r->options.n_out_max || begin + n > r->n_kept)
        return hd_fail(msg, HD_ERR_INTERNAL, "logits: rows out of range");
    *out = hd__rows(r->logits, n);
    const struct hd_matmul head = {.w = r->model->output, .out = *out};
    set_busy(r->model, true);
    hd_op_matmul(r->stream, &head, 1, hd_tensor_rows(hd__rows(r->kept, begin + n), begin, n),
                 r->kept_form);
    enum hd_err err = hd_sync(r->stream);
    set_busy(r->model, false);
    return err ? hd_fail(msg, err, "output product: %s", hd_err_text(err)) : HD_OK;
}

enum hd_err hd_runner_logits(struct hd_runner *r, float *logits, int64_t begin, int64_t n,
                             struct hd_errmsg *msg)
{
    struct hd_tensor out;
    enum hd_err err = output_product(&out, r, begin, n, msg);
    if (!err)
        hd_tensor_download(logits, &out);
    return err;
}

enum hd_err hd_runner_logits_view(struct hd_runner *r, float **logits, int64_t begin, int64_t n,
                                  struct hd_errmsg *msg)
{
    struct hd_tensor out;
    enum hd_err err = output_product(&out, r, begin, n, msg);
    if (err)
        return err;
    *logits = hd_tensor_host(&out);
    if (*logits)
        return HD_OK;
    size_t row = (size_t)r->logits.ne[0] * sizeof **logits;
    if (!r->logits_host)
        r->logits_host = malloc((size_t)r->options.n_out_max * row);
    if (!r->logits_host)
        return hd_fail(msg, HD_ERR_NOMEM, "logits: out of memory");
    hd_tensor_download(r->logits_host, &out);
    *logits = r->logits_host;
    return HD_OK;
}
