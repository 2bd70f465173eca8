/* Loading: hyper-parameters, then every weight by name. */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>

#include "model/model_impl.h"

static enum hd_err bind_rope(struct hd_binder *b)
{
    const struct hd_rope_hparams *r = &b->model->hp.rope;
    int64_t n = r->n_rot / 2;
    float *factors = NULL, *inv_freq = malloc((size_t)n * sizeof *inv_freq);
    const struct hd_store_tensor *t = hd_bind__find(b, HD_ROLE_ROPE_FREQS, -1);
    enum hd_err err = inv_freq ? HD_OK : HD_ERR_NOMEM;
    if (!err && t)
        err = hd_bind__need(&t, b, HD_ROLE_ROPE_FREQS, -1, n, 1, 1);
    if (!err && t)
        err = hd_bind__floats(&factors, b, t);
    for (int64_t i = 0; !err && factors && i < n; i++)
        if (!(factors[i] > 1e-6f && factors[i] < 1e9f))
            err = hd_fail(b->msg, HD_ERR_FORMAT, "%s: rope_freqs.weight[%lld] is %g",
                          hd_store_path(b->model->store), (long long)i, (double)factors[i]);
    if (!err) {
        hd_hparams_inv_freq(inv_freq, &b->model->hp, factors);
        err = hd_bind__upload(&b->model->inv_freq, b, inv_freq, n);
    }
    free(factors);
    free(inv_freq);
    return err;
}

static enum hd_err bind_layer(struct hd_binder *b, int layer)
{
    struct hd_layer *l = &b->model->layer[layer];
    int64_t n_embd = b->model->hp.n_embd;
    enum hd_err err = hd_bind__vector(&l->attn_norm, b, HD_ROLE_ATTN_NORM, layer, n_embd, 0);
    if (!err)
        err = hd_bind__vector(&l->ffn_norm, b, HD_ROLE_FFN_NORM, layer, n_embd, 0);
    if (err)
        return err;
    switch (b->model->hp.arch) {
    case HD_ARCH_QWEN2:
        return hd_qwen2__bind(b, layer);
    case HD_ARCH_LLAMA:
        return hd_llama__bind(b, layer);
    case HD_ARCH_DEEPSEEK:
        return hd_deepseek__bind(b, layer);
    case HD_ARCH_BERT:
        break;
    }
    return HD_ERR_INTERNAL;
}

static void work_task(void *ud, size_t begin, size_t end, int thread)
{
    hd_model_work(ud, NULL);
}

static enum hd_err bind_all(struct hd_binder *b, bool with_mtp)
{
    struct hd_model *m = b->model;
    const struct hd_hparams *hp = &m->hp;
    if (hp->arch == HD_ARCH_BERT)
        return hd_encoder__bind(b);
    enum hd_err err =
        hd_bind__matrix(&m->token_embd, b, HD_ROLE_TOKEN_EMBD, -1, hp->n_embd, hp->n_vocab, 1);
    if (!err)
        err = hd_bind__vector(&m->output_norm, b, HD_ROLE_OUTPUT_NORM, -1, hp->n_embd, 0);
    if (!err && !hp->tied)
        err = hd_bind__matrix(&m->output, b, HD_ROLE_OUTPUT, -1, hp->n_embd, hp->n_vocab, 1);
    else if (!err)
        m->output = m->token_embd;
    if (!err)
        err = bind_rope(b);
    for (int i = 0; !err && i < hp->n_layer; i++)
        err = bind_layer(b, i);
    if (err || !with_mtp || !hp->n_layer_mtp)
        return err;
    size_t per_token = m->bytes_per_token; /* a draft is no part of a token's pass */
    err = bind_layer(b, hp->n_layer);
    if (!err)
        err = hd_mtp__bind(b);
    m->bytes_per_token = per_token;
    return err;
}

enum hd_err hd_model_bind(struct hd_model **out, const struct hd_store *store,
                          const struct hd_backend *backend, struct hd_pool *pool,
                          enum hd_preload preload, bool with_mtp, struct hd_errmsg *msg)
{
    struct hd_hparams hp;
    *out = NULL;
    enum hd_err err = hd_hparams_read(&hp, store, msg);
    if (err)
        return err;
    struct hd_model *model = calloc(1, sizeof *model);
    if (model)
        model->layer = calloc((size_t)hp.n_layer + (size_t)hp.n_layer_mtp, sizeof *model->layer);
    if (!model || !model->layer) {
        hd_model_free(model);
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", hd_store_path(store));
    }
    model->store = store;
    model->backend = backend;
    model->hp = hp;
    model->preload = preload;
    model->kv_dtype = hd_backend_kv_dtype(backend);
    struct hd_binder binder = {.model = model, .pool = pool, .usage = HD_WEIGHT_LAZY, .msg = msg};
    if (preload == HD_PRELOAD_SHM || preload == HD_PRELOAD_MEMFD)
        binder.usage |= HD_WEIGHT_COPY;
    err = bind_all(&binder, with_mtp);
    if (!err)
        err = hd_copies__plan(model, msg);
    if (err) {
        hd_model_free(model);
        return err;
    }
    *out = model;
    return HD_OK;
}

enum hd_err hd_model_load(struct hd_model **out, const struct hd_store *store,
                          const struct hd_backend *backend, struct hd_pool *pool,
                          struct hd_errmsg *msg)
{
    enum hd_err err = hd_model_bind(out, store, backend, pool, HD_PRELOAD_MMAP, true, msg);
    if (!err)
        err = hd_model_reserve(*out, NULL, NULL, msg);
    if (!err) {
        hd_pool_run(pool, (size_t)hd_pool_threads(pool), 1, work_task, *out);
        hd_model_seal(*out);
    } else {
        hd_model_free(*out);
        *out = NULL;
    }
    return err;
}

void hd_model_free(struct hd_model *model)
{
    if (!model)
        return;
    /* Weights before the memory that they point into. */
    for (size_t i = model->n_owned; i-- > 0;) {
        struct hd_owned *o = &model->owned[i];
        if (o->kind == HD_OWNED_WEIGHT)
            hd_weight_free(o->ptr);
        else if (o->kind == HD_OWNED_BUFFER)
            hd_buffer_free(o->ptr);
        else
            free(o->ptr);
    }
    hd_arena_free(model->arena);
    hd_repack_free(model->repack);
    free(model->work);
    free(model->owned);
    free(model->layer);
    free(model);
}

const struct hd_hparams *hd_model_hparams(const struct hd_model *model)
{
    return &model->hp;
}

const struct hd_backend *hd_model_backend(const struct hd_model *model)
{
    return model->backend;
}

bool hd_model_has_mtp(const struct hd_model *model)
{
    return model->mtp.eh_proj != NULL;
}

int hd_model__n_kv(const struct hd_model *model)
{
    return model->hp.n_layer + hd_model_has_mtp(model);
}

size_t hd_model_weight_bytes_per_token(const struct hd_model *model)
{
    return model->bytes_per_token;
}
