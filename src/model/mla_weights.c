/* MLA's key/value up-projection in both forms, from whichever the file has.
 *
 *   attn_kv_b                 n_head × (nope + v) rows of kv_lora_rank     (expanded form)
 *   attn_k_b                  n_head × kv_lora_rank rows of nope           (absorbed form)
 *   attn_v_b                  n_head × v rows of kv_lora_rank              (absorbed form)
 *
 * Older GGUF files and Hugging Face folders carry only the first, newer GGUF files only the other
 * two, in three dimensions or (k_b, v_b) flattened to two. What is missing is built once at
 * loading. F32, F16 and BF16 are only rearranged; a quantised k_b cannot be transposed as it is and
 * becomes F16 (F32 for the reference back end). */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "model/model_impl.h"

static enum hd_dtype built_dtype(const struct hd_binder *b, enum hd_dtype source)
{
    if (source == HD_F32 || source == HD_F16 || source == HD_BF16)
        return source;
    return hd_backend_kv_dtype(b->model->backend) == HD_F32 ? HD_F32 : HD_F16;
}

static void put(void *data, size_t i, enum hd_dtype dtype, float value)
{
    if (dtype == HD_F32)
        ((float *)data)[i] = value;
    else if (dtype == HD_F16)
        ((uint16_t *)data)[i] = hd_f32_to_f16(value);
    else
        ((uint16_t *)data)[i] = hd_f32_to_bf16(value);
}

static enum hd_err alloc_values(void **out, const struct hd_binder *b, enum hd_dtype dtype,
                                int64_t n_head, int64_t rows, int64_t cols)
{
    size_t n = (size_t)hd_dtype_info(dtype)->block_bytes;
    *out = NULL;
    if (!hd_mul(&n, n, (size_t)n_head) || !hd_mul(&n, n, (size_t)rows) ||
        !hd_mul(&n, n, (size_t)cols))
        return HD_ERR_LIMIT;
    *out = malloc(n);
    return *out ? HD_OK
                : hd_fail(b->msg, HD_ERR_NOMEM, "%s: no memory for the absorbed attention weights",
                          hd_store_path(b->model->store));
}

/* Three-dimensional, or flattened to two. */
static enum hd_err check_flat(const struct hd_binder *b, const struct hd_store_tensor *t,
                              int64_t n_in, int64_t n_out)
{
    int64_t n_head = b->model->hp.n_head;
    bool cube = t->ne[0] == n_in && t->ne[1] == n_out && t->ne[2] == n_head;
    bool flat = t->ne[0] == n_in && t->ne[1] == n_out * n_head && t->ne[2] == 1;
    if ((cube || flat) && t->ne[3] == 1)
        return HD_OK;
    return hd_fail(b->msg, HD_ERR_FORMAT,
                   "%s: tensor %s has the shape [%lld, %lld, %lld], expected [%lld, %lld, %lld]",
                   hd_store_path(b->model->store), t->name, (long long)t->ne[0],
                   (long long)t->ne[1], (long long)t->ne[2], (long long)n_in, (long long)n_out,
                   (long long)n_head);
}

static enum hd_err bind_flat(struct hd_weight **out, struct hd_binder *b,
                             const struct hd_store_tensor *t, int64_t n_in, int64_t n_out)
{
    enum hd_err err = check_flat(b, t, n_in, n_out);
    if (err)
        return err;
    err = hd_weight_new(out, b->model->backend, t->dtype, n_in, n_out, b->model->hp.n_head, t->data,
                        HD_WEIGHT_MATMUL | HD_WEIGHT_MAPPED | b->usage, b->pool, b->msg);
    if (!err && (err = hd_model__own(b->model, HD_OWNED_WEIGHT, *out)))
        *out = NULL;
    if (!err)
        b->model->bytes_per_token += t->bytes;
    return err;
}

/* k_b[h][c][i] = kv_b[h·(nope + v) + i][c] */
static enum hd_err build_k_b(struct hd_layer *l, struct hd_binder *b,
                             const struct hd_store_tensor *kv_b)
{
    const struct hd_hparams *hp = &b->model->hp;
    int64_t nope = hp->qk_nope_head_dim, v = hp->v_head_dim, rank = hp->kv_lora_rank;
    enum hd_dtype dtype = built_dtype(b, kv_b->dtype);
    float *values;
    void *data = NULL;
    enum hd_err err = hd_bind__floats(&values, b, kv_b);
    if (!err)
        err = alloc_values(&data, b, dtype, hp->n_head, rank, nope);
    for (int64_t h = 0; !err && h < hp->n_head; h++)
        for (int64_t i = 0; i < nope; i++)
            for (int64_t c = 0; c < rank; c++)
                put(data, (size_t)((h * rank + c) * nope + i), dtype,
                    values[(h * (nope + v) + i) * rank + c]);
    free(values);
    return err ? err
               : hd_bind__own_weight(&l->k_b, b, dtype, nope, rank, hp->n_head, data,
                                     HD_WEIGHT_MATMUL);
}

/* The same from rows whose elements lie in an order of their own, which heads cannot obey. */
static enum hd_err build_v_b_floats(struct hd_layer *l, struct hd_binder *b,
                                    const struct hd_store_tensor *kv_b)
{
    const struct hd_hparams *hp = &b->model->hp;
    int64_t nope = hp->qk_nope_head_dim, v = hp->v_head_dim, rank = hp->kv_lora_rank;
    enum hd_dtype dtype = built_dtype(b, kv_b->dtype);
    float *values;
    void *data = NULL;
    enum hd_err err = hd_bind__floats(&values, b, kv_b);
    if (!err)
        err = alloc_values(&data, b, dtype, hp->n_head, v, rank);
    for (int64_t h = 0; !err && h < hp->n_head; h++)
        for (int64_t i = 0; i < v * rank; i++)
            put(data, (size_t)(h * v * rank + i), dtype,
                values[(h * (nope + v) + nope) * rank + i]);
    free(values);
    return err ? err
               : hd_bind__own_weight(&l->v_b, b, dtype, rank, v, hp->n_head, data,
                                     HD_WEIGHT_MATMUL);
}

/* The v rows of every head, as they are. */
static enum hd_err build_v_b(struct hd_layer *l, struct hd_binder *b,
                             const struct hd_store_tensor *kv_b)
{
    const struct hd_hparams *hp = &b->model->hp;
    int64_t nope = hp->qk_nope_head_dim, v = hp->v_head_dim, rank = hp->kv_lora_rank;
    if (kv_b->quant && kv_b->quant->g_idx)
        return build_v_b_floats(l, b, kv_b);
    struct hd_parts *parts = hd_parts__new(1);
    if (parts) {
        parts->t[0] = kv_b;
        parts->matrix_rows = nope + v;
        parts->first_row = nope;
    }
    return hd_bind__parts(&l->v_b, b, kv_b->dtype, rank, v, hp->n_head, parts, HD_WEIGHT_MATMUL);
}

static enum hd_err build_kv_b(struct hd_layer *l, struct hd_binder *b,
                              const struct hd_store_tensor *k_b, const struct hd_store_tensor *v_b)
{
    const struct hd_hparams *hp = &b->model->hp;
    int64_t nope = hp->qk_nope_head_dim, v = hp->v_head_dim, rank = hp->kv_lora_rank;
    enum hd_dtype dtype =
        k_b->dtype == v_b->dtype ? built_dtype(b, k_b->dtype) : built_dtype(b, HD_Q8_0);
    float *k_values = NULL, *v_values = NULL;
    void *data = NULL;
    enum hd_err err = hd_bind__floats(&k_values, b, k_b);
    if (!err)
        err = hd_bind__floats(&v_values, b, v_b);
    if (!err)
        err = alloc_values(&data, b, dtype, hp->n_head, nope + v, rank);
    for (int64_t h = 0; !err && h < hp->n_head; h++) {
        size_t row = (size_t)(h * (nope + v));
        for (int64_t i = 0; i < nope; i++)
            for (int64_t c = 0; c < rank; c++)
                put(data, (row + (size_t)i) * (size_t)rank + (size_t)c, dtype,
                    k_values[(h * rank + c) * nope + i]);
        for (int64_t i = 0; i < v * rank; i++)
            put(data, (row + (size_t)nope) * (size_t)rank + (size_t)i, dtype,
                v_values[h * v * rank + i]);
    }
    free(k_values);
    free(v_values);
    return err ? err
               : hd_bind__own_weight(&l->kv_b, b, dtype, rank, hp->n_head * (nope + v), 1, data,
                                     HD_WEIGHT_MATMUL);
}

enum hd_err hd_mla__bind(struct hd_binder *b, int layer)
{
    const struct hd_hparams *hp = &b->model->hp;
    struct hd_layer *l = &b->model->layer[layer];
    int64_t nope = hp->qk_nope_head_dim, v = hp->v_head_dim, rank = hp->kv_lora_rank;
    const struct hd_store_tensor *k_b = hd_bind__find(b, HD_ROLE_K_B, layer);
    const struct hd_store_tensor *v_b = hd_bind__find(b, HD_ROLE_V_B, layer);
    const struct hd_store_tensor *kv_b = hd_bind__find(b, HD_ROLE_KV_B, layer);
    enum hd_err err = HD_OK;
    if (kv_b || !k_b || !v_b) {
        size_t before = b->model->bytes_per_token;
        err = hd_bind__matrix(&l->kv_b, b, HD_ROLE_KV_B, layer, rank, hp->n_head * (nope + v), 1);
        if (k_b && v_b)
            b->model->bytes_per_token = before; /* a generated token reads those two instead */
    }
    if (!err)
        err = k_b ? bind_flat(&l->k_b, b, k_b, nope, rank) : build_k_b(l, b, kv_b);
    if (!err)
        err = v_b ? bind_flat(&l->v_b, b, v_b, rank, v) : build_v_b(l, b, kv_b);
    if (!err && !kv_b)
        err = build_kv_b(l, b, k_b, v_b);
    return err;
}
