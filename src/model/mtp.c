/* DeepSeek-V3's multi-token prediction (MTP): one layer more, that drafts the token after the next.
 *
 * DeepSeek-V3 technical report, section 2.2, for depth 1. Row i has the main model's last hidden
 * state h_i and the token t_{i+1} that followed it:
 *
 *   h'_i = eh_proj · [enorm(emb(t_{i+1})); hnorm(h_i)]
 *   out  = head · head_norm(block(h')_i)           log-probabilities of t_{i+2}
 *
 * with the model's own embedding and output matrix, and a whole decoder layer (MLA, experts) with a
 * KV cache of its own as `block`. Three points on which the report leaves a choice or differs from
 * the released weights, settled by published implementations: the embedding is the first half of
 * eh_proj's input, although the report writes the hidden state first (vLLM, SGLang and transformers
 * agree); h_i is taken behind the model's final norm (transformers); the first row is a row like
 * any other (SGLang, transformers; vLLM zeroes the embedding at position 0). Row i rotates by
 * position i; only distances matter, so i + 1 would give the same.
 *
 * Copies of the embedding and the head that a checkpoint stores with the layer are not read. */
#include "model/model_impl.h"

enum hd_err hd_mtp__bind(struct hd_binder *b)
{
    struct hd_mtp *mtp = &b->model->mtp;
    int layer = b->model->hp.n_layer;
    int64_t n_embd = b->model->hp.n_embd;
    enum hd_err err = hd_bind__vector(&mtp->enorm, b, HD_ROLE_MTP_ENORM, layer, n_embd, 0);
    if (!err)
        err = hd_bind__vector(&mtp->hnorm, b, HD_ROLE_MTP_HNORM, layer, n_embd, 0);
    if (!err)
        err = hd_bind__vector(&mtp->head_norm, b, HD_ROLE_MTP_HEAD_NORM, layer, n_embd, 0);
    if (!err)
        err = hd_bind__matrix(&mtp->eh_proj, b, HD_ROLE_MTP_EH_PROJ, layer, 2 * n_embd, n_embd, 1);
    return err;
}

static enum hd_err check(const struct hd_runner *r, const struct hd_batch *batch,
                         const int32_t *rows, struct hd_errmsg *msg)
{
    if (!hd_model_has_mtp(r->model))
        return hd_fail(msg, HD_ERR_UNSUPPORTED, "draft: the model has no MTP layer");
    bool fits = batch->n >= 1 && batch->n <= r->n_hidden && batch->n_out <= batch->n;
    for (int64_t i = 0; fits && i < batch->n; i++)
        fits = rows[i] >= 0 && rows[i] < r->n_hidden;
    return fits ? HD_OK
                : hd_fail(msg, HD_ERR_INTERNAL, "draft: rows that the last pass did not compute");
}

enum hd_err hd_runner_draft(struct hd_runner *r, const struct hd_batch *batch, const int32_t *rows,
                            struct hd_errmsg *msg)
{
    const struct hd_model *m = r->model;
    int64_t n = batch->n, n_embd = m->hp.n_embd;
    r->n_kept = 0;
    enum hd_err err = check(r, batch, rows, msg);
    if (err)
        return err;
    struct hd_tensor x = hd__rows(r->x, n), h = hd__rows(r->h, n), in = hd__rows(r->draft_in, n);
    const struct hd_matmul project = {.w = m->mtp.eh_proj, .out = x};
    hd_op_embed(r->stream, x, m->token_embd, batch->ids, n);
    hd_op_rms_norm(r->stream, hd_tensor_cols(in, 0, n_embd), x, m->mtp.enorm, m->hp.norm_eps);
    hd_op_gather_rows(r->stream, h, hd__rows(r->hidden, r->n_hidden), rows, n);
    hd_op_rms_norm(r->stream, hd_tensor_cols(in, n_embd, n_embd), h, m->mtp.hnorm, m->hp.norm_eps);
    hd_op_matmul(r->stream, &project, 1, in, batch->form);
    hd_runner__layer(r, m->hp.n_layer, batch);
    return hd_runner__keep(r, m->mtp.head_norm, batch, msg);
}
