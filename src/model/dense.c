/* What Qwen2 and Llama share: grouped-head attention and the SwiGLU feed-forward. */
#include "model/model_impl.h"

struct hd_tensor hd__rows(struct hd_tensor t, int64_t n)
{
    t.n_dim = 2;
    t.ne[1] = n;
    return t;
}

struct hd_tensor hd__heads(struct hd_tensor t, int64_t n, int64_t begin, int64_t n_head,
                           int64_t dim, int64_t stride)
{
    size_t row = t.nb[1];
    t.offset += (size_t)begin * t.nb[0];
    t.n_dim = 3;
    t.ne[0] = dim;
    t.ne[1] = n_head;
    t.ne[2] = n;
    t.ne[3] = 1;
    t.nb[1] = (size_t)stride * t.nb[0];
    t.nb[2] = row;
    t.nb[3] = row * (size_t)n;
    return t;
}

static const struct hd_tensor *bias_or_null(const struct hd_tensor *bias)
{
    return bias->buffer ? bias : NULL;
}

enum hd_err hd_ffn__bind(struct hd_binder *b, int layer, int64_t n_ff)
{
    struct hd_layer *l = &b->model->layer[layer];
    int64_t n_embd = b->model->hp.n_embd;
    l->n_ff = n_ff;
    enum hd_err err = hd_bind__matrix(&l->gate, b, HD_ROLE_GATE, layer, n_embd, n_ff, 1);
    if (!err)
        err = hd_bind__matrix(&l->up, b, HD_ROLE_UP, layer, n_embd, n_ff, 1);
    return err ? err : hd_bind__matrix(&l->down, b, HD_ROLE_DOWN, layer, n_ff, n_embd, 1);
}

enum hd_err hd_dense__bind(struct hd_binder *b, int layer, bool need_qkv_bias)
{
    const struct hd_hparams *hp = &b->model->hp;
    struct hd_layer *l = &b->model->layer[layer];
    int64_t n_q = (int64_t)hp->n_head * hp->head_dim, n_kv = (int64_t)hp->n_head_kv * hp->head_dim;
    int flags = need_qkv_bias ? 0 : HD_OPTIONAL;
    enum hd_err err = hd_bind__matrix(&l->q, b, HD_ROLE_Q, layer, hp->n_embd, n_q, 1);
    if (!err)
        err = hd_bind__matrix(&l->k, b, HD_ROLE_K, layer, hp->n_embd, n_kv, 1);
    if (!err)
        err = hd_bind__matrix(&l->v, b, HD_ROLE_V, layer, hp->n_embd, n_kv, 1);
    if (!err)
        err = hd_bind__matrix(&l->o, b, HD_ROLE_O, layer, n_q, hp->n_embd, 1);
    if (!err)
        err = hd_bind__vector(&l->q_bias, b, HD_ROLE_Q_BIAS, layer, n_q, flags);
    if (!err)
        err = hd_bind__vector(&l->k_bias, b, HD_ROLE_K_BIAS, layer, n_kv, flags);
    if (!err)
        err = hd_bind__vector(&l->v_bias, b, HD_ROLE_V_BIAS, layer, n_kv, flags);
    if (!err)
        err = hd_bind__vector(&l->o_bias, b, HD_ROLE_O_BIAS, layer, hp->n_embd, HD_OPTIONAL);
    return err ? err : hd_ffn__bind(b, layer, hp->n_ff);
}

void hd_dense__attention(struct hd_runner *r, int layer, const struct hd_batch *batch)
{
    const struct hd_hparams *hp = &r->model->hp;
    const struct hd_layer *l = &r->model->layer[layer];
    const struct hd_kv_layer *kv = &r->kv[layer];
    int64_t n = batch->n, dim = hp->head_dim;
    struct hd_tensor q = hd__rows(r->q, n), k = hd__rows(r->k, n), v = hd__rows(r->v, n);
    const struct hd_matmul qkv[] = {
        {.w = l->q, .out = q, .bias = bias_or_null(&l->q_bias)},
        {.w = l->k, .out = k, .bias = bias_or_null(&l->k_bias)},
        {.w = l->v, .out = v, .bias = bias_or_null(&l->v_bias)},
    };
    hd_op_matmul(r->stream, qkv, 3, hd__rows(r->h, n), batch->form);

    struct hd_tensor q_heads = hd__heads(q, n, 0, hp->n_head, dim, dim);
    struct hd_tensor k_heads = hd__heads(k, n, 0, hp->n_head_kv, dim, dim);
    struct hd_tensor v_heads = hd__heads(v, n, 0, hp->n_head_kv, dim, dim);
    const struct hd_rope rope = {hp->rope.n_rot, hp->rope.neox, r->model->inv_freq,
                                 (float)hp->rope.mscale};
    hd_op_rope(r->stream, q_heads, &rope, batch->positions, n);
    hd_op_rope(r->stream, k_heads, &rope, batch->positions, n);
    hd_op_kv_write(r->stream, kv->k, k_heads, batch->seqs, batch->n_seq);
    hd_op_kv_write(r->stream, kv->v, v_heads, batch->seqs, batch->n_seq);
    hd_op_attention(r->stream, hd__heads(r->att, n, 0, hp->n_head, dim, dim), q_heads, kv->k, kv->v,
                    hd_hparams_attention_scale(hp), batch->seqs, batch->n_seq, batch->form);

    const struct hd_matmul o = {
        .w = l->o, .out = hd__rows(r->x, n), .bias = bias_or_null(&l->o_bias), .accumulate = true};
    hd_op_matmul(r->stream, &o, 1, hd__rows(r->att, n), batch->form);
}

void hd_ffn__forward(struct hd_runner *r, int layer, const struct hd_batch *batch)
{
    const struct hd_layer *l = &r->model->layer[layer];
    for (int64_t at = 0; at < batch->n; at += HD_FFN_TILE) {
        int64_t n = batch->n - at < HD_FFN_TILE ? batch->n - at : HD_FFN_TILE;
        struct hd_tensor gate = hd_tensor_cols(hd__rows(r->gate, n), 0, l->n_ff);
        struct hd_tensor up = hd_tensor_cols(hd__rows(r->up, n), 0, l->n_ff);
        const struct hd_matmul wide[] = {{.w = l->gate, .out = gate}, {.w = l->up, .out = up}};
        hd_op_matmul(r->stream, wide, 2, hd_tensor_rows(hd__rows(r->h, batch->n), at, n),
                     batch->form);
        hd_op_silu_mul(r->stream, gate, gate, up);
        const struct hd_matmul down = {.w = l->down,
                                       .out = hd_tensor_rows(hd__rows(r->x, batch->n), at, n),
                                       .accumulate = true};
        hd_op_matmul(r->stream, &down, 1, gate, batch->form);
    }
}
