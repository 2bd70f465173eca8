/* DeepSeek-V3 and R1: multi-head latent attention and the mixture of experts.
 *
 * Paper: DeepSeek-V3 technical report, section 2.1; the equations follow model.py of the published
 * repository. The KV cache holds, per token and layer, the normed latent c_kv [kv_lora_rank] and
 * one rotated key k_pe [rope] that all heads share.
 *
 *   expanded (prompt rows)     k_h = [W_kb[h]·c_kv, k_pe], v_h = W_vb[h]·c_kv, plain attention
 *   absorbed (generated rows)  q'_h = W_kb[h]ᵀ·q_nope, score = q'_h·c_kv + q_pe·k_pe,
 *                              out_h = W_vb[h]·Σ p·c_kv
 *
 * The two are equal in exact arithmetic; the first costs less per prompt row, the second reads only
 * the compressed cache. */
#include "model/model_impl.h"

static enum hd_err bind_query(struct hd_binder *b, int layer)
{
    const struct hd_hparams *hp = &b->model->hp;
    struct hd_layer *l = &b->model->layer[layer];
    int64_t n_q = (int64_t)hp->n_head * (hp->qk_nope_head_dim + hp->qk_rope_head_dim);
    if (!hp->q_lora_rank)
        return hd_bind__matrix(&l->q, b, HD_ROLE_Q, layer, hp->n_embd, n_q, 1);
    enum hd_err err =
        hd_bind__matrix(&l->q_a, b, HD_ROLE_Q_A, layer, hp->n_embd, hp->q_lora_rank, 1);
    if (!err)
        err = hd_bind__vector(&l->q_a_norm, b, HD_ROLE_Q_A_NORM, layer, hp->q_lora_rank, 0);
    return err ? err : hd_bind__matrix(&l->q_b, b, HD_ROLE_Q_B, layer, hp->q_lora_rank, n_q, 1);
}

static enum hd_err bind_experts(struct hd_binder *b, int layer)
{
    const struct hd_hparams *hp = &b->model->hp;
    struct hd_layer *l = &b->model->layer[layer];
    int64_t n_embd = hp->n_embd, n_ff = hp->n_ff_exp;
    enum hd_err err =
        hd_bind__matrix(&l->router, b, HD_ROLE_ROUTER, layer, n_embd, hp->n_expert, 1);
    if (!err)
        err = hd_bind__vector(&l->route_bias, b, HD_ROLE_ROUTE_BIAS, layer, hp->n_expert, 0);
    if (!err)
        err = hd_bind__experts(&l->gate_exps, b, HD_ROLE_GATE_EXPS, layer, n_embd, n_ff);
    if (!err)
        err = hd_bind__experts(&l->up_exps, b, HD_ROLE_UP_EXPS, layer, n_embd, n_ff);
    if (!err)
        err = hd_bind__experts(&l->down_exps, b, HD_ROLE_DOWN_EXPS, layer, n_ff, n_embd);
    if (err || !hp->n_expert_shared)
        return err;
    l->n_ff = n_ff * hp->n_expert_shared;
    err = hd_bind__matrix(&l->gate, b, HD_ROLE_GATE_SHEXP, layer, n_embd, l->n_ff, 1);
    if (!err)
        err = hd_bind__matrix(&l->up, b, HD_ROLE_UP_SHEXP, layer, n_embd, l->n_ff, 1);
    return err ? err : hd_bind__matrix(&l->down, b, HD_ROLE_DOWN_SHEXP, layer, l->n_ff, n_embd, 1);
}

enum hd_err hd_deepseek__bind(struct hd_binder *b, int layer)
{
    const struct hd_hparams *hp = &b->model->hp;
    struct hd_layer *l = &b->model->layer[layer];
    enum hd_err err = bind_query(b, layer);
    if (!err)
        err = hd_bind__matrix(&l->kv_a, b, HD_ROLE_KV_A, layer, hp->n_embd,
                              hp->kv_lora_rank + hp->qk_rope_head_dim, 1);
    if (!err)
        err = hd_bind__vector(&l->kv_a_norm, b, HD_ROLE_KV_A_NORM, layer, hp->kv_lora_rank, 0);
    if (!err)
        err = hd_mla__bind(b, layer);
    if (!err)
        err = hd_bind__matrix(&l->o, b, HD_ROLE_O, layer, (int64_t)hp->n_head * hp->v_head_dim,
                              hp->n_embd, 1);
    if (err)
        return err;
    return layer < hp->n_layer_dense ? hd_ffn__bind(b, layer, hp->n_ff) : bind_experts(b, layer);
}

/* q [n, n_head·(nope + rope)] and the cache rows kv_a [n, kv_lora_rank + rope], rotated. */
static void project(struct hd_runner *r, const struct hd_layer *l, const struct hd_batch *batch)
{
    const struct hd_hparams *hp = &r->model->hp;
    int64_t n = batch->n, nope = hp->qk_nope_head_dim, rope_dim = hp->qk_rope_head_dim;
    struct hd_tensor h = hd__rows(r->h, n), q = hd__rows(r->q, n), kv_a = hd__rows(r->kv_a, n);
    struct hd_tensor q_a = hd__rows(r->q_a, n);
    const struct hd_matmul first[] = {{.w = l->kv_a, .out = kv_a},
                                      {.w = l->q_a ? l->q_a : l->q, .out = l->q_a ? q_a : q}};
    hd_op_matmul(r->stream, first, 2, h, batch->form);
    if (l->q_a) {
        const struct hd_matmul second = {.w = l->q_b, .out = q};
        hd_op_rms_norm(r->stream, q_a, q_a, l->q_a_norm, hp->norm_eps);
        hd_op_matmul(r->stream, &second, 1, q_a, batch->form);
    }
    struct hd_tensor latent = hd_tensor_cols(kv_a, 0, hp->kv_lora_rank);
    hd_op_rms_norm(r->stream, latent, latent, l->kv_a_norm, hp->norm_eps);

    const struct hd_rope rope = {hp->rope.n_rot, hp->rope.neox, r->model->inv_freq,
                                 (float)hp->rope.mscale};
    hd_op_rope(r->stream, hd__heads(q, n, nope, hp->n_head, rope_dim, nope + rope_dim), &rope,
               batch->positions, n);
    hd_op_rope(r->stream, hd__heads(kv_a, n, hp->kv_lora_rank, 1, rope_dim, rope_dim), &rope,
               batch->positions, n);
}

/* Keys and values of positions [0, n) of one sequence, per head, into the expanded cache. */
static void expand(struct hd_runner *r, const struct hd_layer *l, struct hd_tensor cache,
                   const int32_t *table, int64_t n)
{
    const struct hd_hparams *hp = &r->model->hp;
    int64_t nope = hp->qk_nope_head_dim, rope_dim = hp->qk_rope_head_dim, v = hp->v_head_dim;
    int64_t width = hp->kv_lora_rank + rope_dim;
    struct hd_tensor latent = hd__rows(r->latent, n);
    hd_op_kv_read(r->stream, hd__heads(latent, n, 0, 1, width, width), cache, table, n);
    for (int64_t i = 0; i < n; i += HD_MLA_TILE) {
        int64_t rows = n - i < HD_MLA_TILE ? n - i : HD_MLA_TILE;
        struct hd_tensor in = hd_tensor_rows(latent, i, rows), tile = hd__rows(r->kv_tile, rows);
        const struct hd_matmul up = {.w = l->kv_b, .out = tile};
        const struct hd_seq_rows seq = {0, rows, (int32_t)i, r->identity};
        hd_op_matmul(r->stream, &up, 1, hd_tensor_cols(in, 0, hp->kv_lora_rank), HD_FORM_PROMPT);
        hd_op_kv_write(r->stream, hd_tensor_cols(r->k_exp, 0, nope),
                       hd__heads(tile, rows, 0, hp->n_head, nope, nope + v), &seq, 1);
        /* one key for all heads: a head stride of 0 */
        hd_op_kv_write(r->stream, hd_tensor_cols(r->k_exp, nope, rope_dim),
                       hd__heads(in, rows, hp->kv_lora_rank, hp->n_head, rope_dim, 0), &seq, 1);
        hd_op_kv_write(r->stream, r->v_exp, hd__heads(tile, rows, nope, hp->n_head, v, nope + v),
                       &seq, 1);
    }
}

static void attend_expanded(struct hd_runner *r, const struct hd_layer *l, struct hd_tensor cache,
                            const struct hd_batch *batch)
{
    const struct hd_hparams *hp = &r->model->hp;
    int64_t qk = hp->qk_nope_head_dim + hp->qk_rope_head_dim, v = hp->v_head_dim;
    for (int s = 0; s < batch->n_seq; s++) {
        struct hd_seq_rows seq = batch->seqs[s];
        expand(r, l, cache, seq.table, seq.pos + seq.n);
        seq.table = r->identity;
        hd_op_attention(r->stream,
                        hd__heads(hd__rows(r->att, batch->n), batch->n, 0, hp->n_head, v, v),
                        hd__heads(hd__rows(r->q, batch->n), batch->n, 0, hp->n_head, qk, qk),
                        r->k_exp, r->v_exp, hd_hparams_attention_scale(hp), &seq, 1, batch->form);
    }
}

static void attend_absorbed(struct hd_runner *r, const struct hd_layer *l, struct hd_tensor cache,
                            const struct hd_batch *batch)
{
    const struct hd_hparams *hp = &r->model->hp;
    int64_t n = batch->n, nope = hp->qk_nope_head_dim, rope_dim = hp->qk_rope_head_dim;
    int64_t rank = hp->kv_lora_rank, width = rank + rope_dim, v = hp->v_head_dim;
    struct hd_tensor q = hd__rows(r->q, n), q_abs = hd__rows(r->q_abs, n),
                     ctx = hd__rows(r->ctx, n);
    hd_op_matmul_heads(r->stream, hd__heads(q_abs, n, 0, hp->n_head, rank, width), l->k_b,
                       hd__heads(q, n, 0, hp->n_head, nope, nope + rope_dim), batch->form);
    /* q_pe of every head behind its absorbed q: rows of heads, copied one by one */
    struct hd_tensor from = hd__heads(q, 1, nope, n * hp->n_head, rope_dim, nope + rope_dim);
    struct hd_tensor to = hd__heads(q_abs, 1, rank, n * hp->n_head, rope_dim, width);
    from.n_dim = to.n_dim = 2;
    hd_op_gather_rows(r->stream, to, from, r->identity, n * hp->n_head);
    hd_op_attention(r->stream, hd__heads(ctx, n, 0, hp->n_head, rank, rank),
                    hd__heads(q_abs, n, 0, hp->n_head, width, width), cache,
                    hd_tensor_cols(cache, 0, rank), hd_hparams_attention_scale(hp), batch->seqs,
                    batch->n_seq, batch->form);
    hd_op_matmul_heads(r->stream, hd__heads(hd__rows(r->att, n), n, 0, hp->n_head, v, v), l->v_b,
                       hd__heads(ctx, n, 0, hp->n_head, rank, rank), batch->form);
}

void hd_deepseek__attention(struct hd_runner *r, int layer, const struct hd_batch *batch)
{
    const struct hd_hparams *hp = &r->model->hp;
    const struct hd_layer *l = &r->model->layer[layer];
    struct hd_tensor cache = r->kv[layer].k;
    int64_t n = batch->n, width = hp->kv_lora_rank + hp->qk_rope_head_dim;
    project(r, l, batch);
    hd_op_kv_write(r->stream, cache, hd__heads(hd__rows(r->kv_a, n), n, 0, 1, width, width),
                   batch->seqs, batch->n_seq);
    if (batch->form == HD_FORM_PROMPT)
        attend_expanded(r, l, cache, batch);
    else
        attend_absorbed(r, l, cache, batch);
    const struct hd_matmul o = {.w = l->o, .out = hd__rows(r->x, n), .accumulate = true};
    hd_op_matmul(r->stream, &o, 1, hd__rows(r->att, n), batch->form);
}

void hd_deepseek__feed_forward(struct hd_runner *r, int layer, const struct hd_batch *batch)
{
    const struct hd_hparams *hp = &r->model->hp;
    const struct hd_layer *l = &r->model->layer[layer];
    int64_t n = batch->n;
    if (l->router) {
        struct hd_tensor h = hd__rows(r->h, n), logits = hd__rows(r->route_logits, n);
        struct hd_tensor ids = hd__rows(r->route_ids, n), weights = hd__rows(r->route_weights, n);
        const struct hd_matmul gate = {.w = l->router, .out = logits};
        const struct hd_router router = {.n_expert = hp->n_expert,
                                         .n_used = hp->n_expert_used,
                                         .n_group = hp->n_expert_group,
                                         .n_group_used = hp->n_expert_group_used,
                                         .sigmoid = true,
                                         .normalise = hp->expert_norm,
                                         .scale = hp->routed_scale,
                                         .bias = &l->route_bias};
        hd_op_matmul(r->stream, &gate, 1, h, batch->form);
        hd_op_route(r->stream, ids, weights, logits, &router);
        if (r->on_route && hd_sync(r->stream) == HD_OK) {
            hd_tensor_download(r->route_host, &ids);
            r->on_route(r->on_route_ud, layer, r->route_host, n, hp->n_expert_used);
        }
        hd_op_moe(r->stream, hd__rows(r->x, n), h, l->gate_exps, l->up_exps, l->down_exps, ids,
                  weights, batch->form);
    }
    if (l->gate)
        hd_ffn__forward(r, layer, batch);
}
