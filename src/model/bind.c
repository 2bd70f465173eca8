/* Tensors by role: names from the table, shapes checked, weights and vectors made. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "model/model_impl.h"

static const struct {
    const char *gguf, *hf;
} roles[HD_N_ROLE] = {
#define HD_ROLE(id, gguf, hf) [HD_ROLE_##id] = {gguf, hf},
#include "model/roles.inc"
#undef HD_ROLE
};

/* Puts layer and expert where the pattern has %d. */
static const char *role_name(char out[160], const struct hd_binder *b, enum hd_role role, int layer,
                             int expert)
{
    const char *p =
        hd_store_format(b->model->store) == HD_STORE_GGUF ? roles[role].gguf : roles[role].hf;
    size_t n = 0;
    int which = 0;
    while (*p && n < 140) {
        if (p[0] == '^') {
            n += (size_t)snprintf(out + n, 160 - n, "%s", b->prefix ? b->prefix : "");
            p++;
        } else if (p[0] == '%' && p[1] == 'd') {
            n += (size_t)snprintf(out + n, 160 - n, "%d", which++ ? expert : layer);
            p += 2;
        } else {
            out[n++] = *p++;
        }
    }
    out[n] = 0;
    return out;
}

const struct hd_store_tensor *hd_bind__find(const struct hd_binder *b, enum hd_role role, int layer)
{
    char name[160];
    role_name(name, b, role, layer, 0);
    return name[0] ? hd_store_tensor(b->model->store, name) : NULL;
}

static enum hd_err need_named(const struct hd_store_tensor **out, const struct hd_binder *b,
                              const char *name, const int64_t ne[3])
{
    const char *path = hd_store_path(b->model->store);
    const struct hd_store_tensor *t = hd_store_tensor(b->model->store, name);
    if (!t)
        return hd_fail(b->msg, HD_ERR_FORMAT,
                       "%s: tensor %s is missing (incomplete file, or not the architecture that "
                       "it claims)",
                       path, name);
    if (t->ne[0] != ne[0] || t->ne[1] != ne[1] || t->ne[2] != ne[2] || t->ne[3] != 1)
        return hd_fail(b->msg, HD_ERR_FORMAT,
                       "%s: tensor %s has the shape [%lld, %lld, %lld], expected [%lld, %lld, "
                       "%lld] (row length first)",
                       path, name, (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2],
                       (long long)ne[0], (long long)ne[1], (long long)ne[2]);
    *out = t;
    return HD_OK;
}

enum hd_err hd_bind__need(const struct hd_store_tensor **out, const struct hd_binder *b,
                          enum hd_role role, int layer, int64_t ne0, int64_t ne1, int64_t ne2)
{
    char name[160];
    return need_named(out, b, role_name(name, b, role, layer, 0), (int64_t[3]){ne0, ne1, ne2});
}

enum hd_err hd_model__own(struct hd_model *model, enum hd_owned_kind kind, void *ptr)
{
    if (model->n_owned == model->cap_owned) {
        size_t cap = model->cap_owned ? 2 * model->cap_owned : 256;
        struct hd_owned *owned = realloc(model->owned, cap * sizeof *owned);
        if (!owned) {
            if (kind == HD_OWNED_WEIGHT)
                hd_weight_free(ptr);
            else if (kind == HD_OWNED_BUFFER)
                hd_buffer_free(ptr);
            else
                free(ptr);
            return HD_ERR_NOMEM;
        }
        model->owned = owned;
        model->cap_owned = cap;
    }
    model->owned[model->n_owned++] = (struct hd_owned){kind, ptr};
    return HD_OK;
}

static enum hd_err make_weight(struct hd_weight **out, struct hd_binder *b, enum hd_dtype dtype,
                               int64_t n_in, int64_t n_out, int64_t n_matrix, const void *data,
                               unsigned usage)
{
    struct hd_weight *w = NULL;
    *out = NULL;
    /* Memory of our own is copied at once, so that it can go. */
    usage |= usage & HD_WEIGHT_MAPPED ? b->usage : 0;
    enum hd_err err = hd_weight_new(&w, b->model->backend, dtype, n_in, n_out, n_matrix, data,
                                    usage, b->pool, b->msg);
    if (!err)
        err = hd_model__own(b->model, HD_OWNED_WEIGHT, w);
    if (!err)
        *out = w;
    return err;
}

enum hd_err hd_bind__own_weight(struct hd_weight **out, struct hd_binder *b, enum hd_dtype dtype,
                                int64_t n_in, int64_t n_out, int64_t n_matrix, void *data,
                                unsigned usage)
{
    unsigned lazily = b->usage;
    b->usage &= ~(unsigned)(HD_WEIGHT_LAZY | HD_WEIGHT_COPY); /* data would be a second copy */
    enum hd_err err = make_weight(out, b, dtype, n_in, n_out, n_matrix, data, usage);
    b->usage = lazily;
    if (!err && !(hd_weight_bytes(*out) && !(usage & HD_WEIGHT_EMBED)))
        return hd_model__own(b->model, HD_OWNED_HOST, data);
    free(data);
    return err;
}

enum hd_err hd_bind__parts(struct hd_weight **out, struct hd_binder *b, enum hd_dtype dtype,
                           int64_t n_in, int64_t n_out, int64_t n_matrix, struct hd_parts *parts,
                           unsigned usage)
{
    struct hd_weight *w = NULL;
    *out = NULL;
    if (!parts)
        return hd_fail(b->msg, HD_ERR_NOMEM, "%s: out of memory", hd_store_path(b->model->store));
    enum hd_err err = hd_model__own(b->model, HD_OWNED_HOST, parts);
    if (!err)
        err = hd_weight_new_from(&w, b->model->backend, dtype, n_in, n_out, n_matrix,
                                 &parts->source, usage | b->usage, b->pool, b->msg);
    if (!err)
        err = hd_model__own(b->model, HD_OWNED_WEIGHT, w);
    if (!err) {
        hd_weight_set_order(w, parts->order);
        *out = w;
    }
    return err;
}

/* Rows of embeddings are looked up one by one, so they are laid out at once. */
static enum hd_err embed_parts(struct hd_weight **out, struct hd_binder *b,
                               const struct hd_store_tensor *t, unsigned usage)
{
    size_t bytes;
    if (!hd_mul(&bytes, hd_dtype_row_bytes(t->dtype, t->ne[0]), (size_t)t->ne[1]))
        return HD_ERR_LIMIT;
    if (t->quant->g_idx)
        return hd_fail(b->msg, HD_ERR_UNSUPPORTED, "%s: tensor %s: embeddings with desc_act",
                       hd_store_path(b->model->store), t->name);
    void *rows = malloc(bytes);
    if (!rows)
        return hd_fail(b->msg, HD_ERR_NOMEM, "%s: no memory for tensor %s (%zu bytes)",
                       hd_store_path(b->model->store), t->name, bytes);
    hd_parts__rows(rows, t, NULL, b->pool);
    return hd_bind__own_weight(out, b, t->dtype, t->ne[0], t->ne[1], 1, rows, usage);
}

static enum hd_err bind_parts(struct hd_weight **out, struct hd_binder *b,
                              const struct hd_store_tensor *t, unsigned usage)
{
    int32_t *order = NULL;
    if (usage & HD_WEIGHT_EMBED)
        return embed_parts(out, b, t, usage);
    enum hd_err err = hd_parts__order(&order, t);
    if (!err && order)
        err = hd_model__own(b->model, HD_OWNED_HOST, order);
    struct hd_parts *parts = err ? NULL : hd_parts__new(1);
    if (parts) {
        parts->t[0] = t;
        parts->order = order;
    }
    return err ? err : hd_bind__parts(out, b, t->dtype, t->ne[0], t->ne[1], 1, parts, usage);
}

enum hd_err hd_bind__matrix(struct hd_weight **out, struct hd_binder *b, enum hd_role role,
                            int layer, int64_t n_in, int64_t n_out, int64_t n_matrix)
{
    const struct hd_store_tensor *t;
    bool embeds = role == HD_ROLE_TOKEN_EMBD || role == HD_ROLE_ENC_TOKEN_EMBD ||
                  role == HD_ROLE_ENC_POSITION_EMBD || role == HD_ROLE_ENC_TYPE_EMBD;
    unsigned usage = embeds ? HD_WEIGHT_EMBED : HD_WEIGHT_MATMUL;
    enum hd_err err = hd_bind__need(&t, b, role, layer, n_in, n_out, n_matrix);
    if (err)
        return err;
    if (role == HD_ROLE_TOKEN_EMBD && b->model->hp.tied)
        usage |= HD_WEIGHT_MATMUL | HD_WEIGHT_LOGITS;
    if (role == HD_ROLE_OUTPUT)
        usage |= HD_WEIGHT_LOGITS;
    if (usage & HD_WEIGHT_MATMUL)
        b->model->bytes_per_token += t->bytes;
    if (t->quant)
        return bind_parts(out, b, t, usage);
    return make_weight(out, b, t->dtype, n_in, n_out, n_matrix, t->data, usage | HD_WEIGHT_MAPPED);
}

static enum hd_err check_experts(const struct hd_store_tensor **first, struct hd_binder *b,
                                 enum hd_role role, int layer, const int64_t ne[3])
{
    const struct hd_store_tensor *t = NULL;
    char name[160];
    *first = NULL;
    for (int e = 0; e < b->model->hp.n_expert; e++) {
        enum hd_err err = need_named(&t, b, role_name(name, b, role, layer, e), ne);
        if (err)
            return err;
        if (!*first)
            *first = t;
        if (t->dtype != (*first)->dtype || !t->quant != !(*first)->quant)
            return hd_fail(b->msg, HD_ERR_FORMAT, "%s: tensor %s differs in type from expert 0's",
                           hd_store_path(b->model->store), name);
    }
    return HD_OK;
}

/* The experts' orders of inputs one after another, as the model's; NULL where none has one. */
static enum hd_err experts_order(const int32_t **out, struct hd_binder *b,
                                 const struct hd_parts *parts, int64_t n_in)
{
    bool any = false;
    size_t bytes;
    *out = NULL;
    for (int64_t e = 0; e < parts->n_tensor; e++)
        any = any || (parts->t[e]->quant && parts->t[e]->quant->g_idx);
    if (!any)
        return HD_OK;
    int32_t *orders = hd_mul(&bytes, (size_t)parts->n_tensor * sizeof *orders, (size_t)n_in)
                          ? malloc(bytes)
                          : NULL;
    enum hd_err err = orders ? HD_OK : HD_ERR_NOMEM;
    for (int64_t e = 0; e < parts->n_tensor && !err; e++) {
        int32_t *order = NULL;
        err = hd_parts__order(&order, parts->t[e]);
        for (int64_t i = 0; i < n_in && !err; i++)
            orders[e * n_in + i] = order ? order[i] : (int32_t)i;
        free(order);
    }
    if (err) {
        free(orders);
        return hd_fail(b->msg, err, "%s: out of memory", hd_store_path(b->model->store));
    }
    *out = orders;
    return hd_model__own(b->model, HD_OWNED_HOST, orders);
}

enum hd_err hd_bind__experts(struct hd_weight **out, struct hd_binder *b, enum hd_role role,
                             int layer, int64_t n_in, int64_t n_out)
{
    const struct hd_hparams *hp = &b->model->hp;
    const struct hd_store_tensor *t;
    char name[160];
    enum hd_err err;
    if (hd_store_format(b->model->store) == HD_STORE_GGUF) {
        err = hd_bind__need(&t, b, role, layer, n_in, n_out, hp->n_expert);
        if (err)
            return err;
        b->model->bytes_per_token += t->bytes / (size_t)hp->n_expert * (size_t)hp->n_expert_used;
        return make_weight(out, b, t->dtype, n_in, n_out, hp->n_expert, t->data,
                           HD_WEIGHT_MATMUL | HD_WEIGHT_MAPPED);
    }
    err = check_experts(&t, b, role, layer, (int64_t[3]){n_in, n_out, 1});
    if (err)
        return err;
    b->model->bytes_per_token += t->bytes * (size_t)hp->n_expert_used;
    struct hd_parts *parts = hd_parts__new(hp->n_expert);
    for (int e = 0; parts && e < hp->n_expert; e++)
        parts->t[e] = hd_store_tensor(b->model->store, role_name(name, b, role, layer, e));
    err = parts ? experts_order(&parts->order, b, parts, n_in) : HD_OK;
    if (err) {
        free(parts);
        return err;
    }
    return hd_bind__parts(out, b, t->dtype, n_in, n_out, hp->n_expert, parts, HD_WEIGHT_MATMUL);
}

/* values: [t->ne[1], t->ne[0]], in the natural order. */
static enum hd_err floats_of_parts(float *values, const struct hd_binder *b,
                                   const struct hd_store_tensor *t)
{
    size_t n_in = (size_t)t->ne[0], row_bytes = hd_dtype_row_bytes(t->dtype, t->ne[0]), bytes;
    int32_t *order = NULL;
    float *row = malloc(n_in * sizeof *row);
    char *rows = hd_mul(&bytes, row_bytes, (size_t)t->ne[1]) ? malloc(bytes) : NULL;
    enum hd_err err = row && rows ? hd_parts__order(&order, t) : HD_ERR_NOMEM;
    if (!err)
        hd_parts__rows(rows, t, order, b->pool);
    for (size_t o = 0; o < (size_t)t->ne[1] && !err; o++) {
        hd_dtype_info(t->dtype)->dequantise(row, rows + o * row_bytes, t->ne[0]);
        for (size_t j = 0; j < n_in; j++)
            values[o * n_in + (order ? (size_t)order[j] : j)] = row[j];
    }
    free(row);
    free(rows);
    free(order);
    return err ? hd_fail(b->msg, err, "%s: no memory for tensor %s", hd_store_path(b->model->store),
                         t->name)
               : HD_OK;
}

enum hd_err hd_bind__floats(float **out, const struct hd_binder *b, const struct hd_store_tensor *t)
{
    const struct hd_dtype_info *info = hd_dtype_info(t->dtype);
    size_t n = 1, bytes;
    *out = NULL;
    bool fits = true;
    for (int i = 0; i < 4; i++)
        fits = fits && hd_mul(&n, n, (size_t)t->ne[i]);
    if (!fits || !hd_mul(&bytes, n, sizeof(float)) || !info || !info->dequantise)
        return hd_fail(b->msg, HD_ERR_FORMAT, "%s: tensor %s cannot be read as numbers",
                       hd_store_path(b->model->store), t->name);
    float *values = malloc(bytes ? bytes : 1);
    if (!values)
        return hd_fail(b->msg, HD_ERR_NOMEM, "%s: no memory for tensor %s",
                       hd_store_path(b->model->store), t->name);
    *out = values;
    if (!t->quant) {
        info->dequantise(values, t->data, (int64_t)n);
        return HD_OK;
    }
    enum hd_err err = floats_of_parts(values, b, t);
    if (err) {
        free(values);
        *out = NULL;
    }
    return err;
}

enum hd_err hd_bind__upload(struct hd_tensor *out, struct hd_binder *b, const float *values,
                            int64_t n)
{
    struct hd_buffer *buffer = NULL;
    enum hd_err err = hd_buffer_new(&buffer, b->model->backend, (size_t)n * sizeof(float), b->msg);
    if (!err)
        err = hd_model__own(b->model, HD_OWNED_BUFFER, buffer);
    if (err)
        return err;
    *out = hd_tensor_at(buffer, 0, HD_F32, n, 1, 1, 1);
    hd_tensor_upload(out, values);
    return HD_OK;
}

enum hd_err hd_bind__vector(struct hd_tensor *out, struct hd_binder *b, enum hd_role role,
                            int layer, int64_t n, int flags)
{
    const struct hd_store_tensor *t;
    float *values;
    *out = (struct hd_tensor){0};
    if ((flags & HD_OPTIONAL) && !hd_bind__find(b, role, layer))
        return HD_OK;
    enum hd_err err = hd_bind__need(&t, b, role, layer, n, 1, 1);
    if (!err)
        err = hd_bind__floats(&values, b, t);
    if (err)
        return err;
    bool finite = true;
    for (int64_t i = 0; i < n; i++)
        finite = finite && isfinite(values[i]);
    if (finite)
        err = hd_bind__upload(out, b, values, n);
    else
        err = hd_fail(b->msg, HD_ERR_FORMAT, "%s: tensor %s holds a value that is no number",
                      hd_store_path(b->model->store), t->name);
    free(values);
    b->model->bytes_per_token += t->bytes;
    return err;
}
