/* The weights of BERT and XLM-RoBERTa by name. */
#include "model/model_impl.h"

/* A vector that must be there, unless the whole family may lack biases (none that we know does). */
static enum hd_err pair(struct hd_tensor *gain, struct hd_tensor *bias, struct hd_binder *b,
                        enum hd_role role, enum hd_role bias_role, int layer)
{
    int64_t n = b->model->hp.n_embd;
    enum hd_err err = hd_bind__vector(gain, b, role, layer, n, 0);
    return err ? err : hd_bind__vector(bias, b, bias_role, layer, n, 0);
}

static enum hd_err linear(struct hd_weight **w, struct hd_tensor *bias, struct hd_binder *b,
                          enum hd_role role, enum hd_role bias_role, int layer, int64_t n_in,
                          int64_t n_out)
{
    enum hd_err err = hd_bind__matrix(w, b, role, layer, n_in, n_out, 1);
    return err ? err : hd_bind__vector(bias, b, bias_role, layer, n_out, HD_OPTIONAL);
}

static enum hd_err bind_layer(struct hd_binder *b, int i)
{
    struct hd_layer *l = &b->model->layer[i];
    int64_t n = b->model->hp.n_embd, n_ff = b->model->hp.n_ff;
    l->n_ff = n_ff;
    enum hd_err err = linear(&l->q, &l->q_bias, b, HD_ROLE_ENC_Q, HD_ROLE_ENC_Q_BIAS, i, n, n);
    if (!err)
        err = linear(&l->k, &l->k_bias, b, HD_ROLE_ENC_K, HD_ROLE_ENC_K_BIAS, i, n, n);
    if (!err)
        err = linear(&l->v, &l->v_bias, b, HD_ROLE_ENC_V, HD_ROLE_ENC_V_BIAS, i, n, n);
    if (!err)
        err = linear(&l->o, &l->o_bias, b, HD_ROLE_ENC_O, HD_ROLE_ENC_O_BIAS, i, n, n);
    if (!err)
        err = linear(&l->up, &l->up_bias, b, HD_ROLE_ENC_UP, HD_ROLE_ENC_UP_BIAS, i, n, n_ff);
    if (!err)
        err =
            linear(&l->down, &l->down_bias, b, HD_ROLE_ENC_DOWN, HD_ROLE_ENC_DOWN_BIAS, i, n_ff, n);
    if (!err)
        err = pair(&l->attn_norm, &l->attn_norm_bias, b, HD_ROLE_ENC_ATTN_NORM,
                   HD_ROLE_ENC_ATTN_NORM_BIAS, i);
    return err ? err
               : pair(&l->ffn_norm, &l->ffn_norm_bias, b, HD_ROLE_ENC_FFN_NORM,
                      HD_ROLE_ENC_FFN_NORM_BIAS, i);
}

/* XLM-RoBERTa: classifier.dense and classifier.out_proj. BERT: pooler.dense and classifier. A
 * converter may have left the first of them out of a GGUF file: then the second one alone. */
static enum hd_err bind_score(struct hd_binder *b)
{
    struct hd_encoder_weights *e = &b->model->enc;
    int64_t n = b->model->hp.n_embd;
    enum hd_role dense = HD_ROLE_ENC_CLS, dense_bias = HD_ROLE_ENC_CLS_BIAS;
    enum hd_role out = HD_ROLE_ENC_CLS_OUT, out_bias = HD_ROLE_ENC_CLS_OUT_BIAS;
    if (!hd_bind__find(b, out, -1) && hd_bind__find(b, HD_ROLE_ENC_CLASSIFIER, -1)) {
        dense = HD_ROLE_ENC_POOLER;
        dense_bias = HD_ROLE_ENC_POOLER_BIAS;
        out = HD_ROLE_ENC_CLASSIFIER;
        out_bias = HD_ROLE_ENC_CLASSIFIER_BIAS;
    }
    enum hd_err err = HD_OK;
    if (dense != HD_ROLE_ENC_POOLER || hd_store_format(b->model->store) != HD_STORE_GGUF)
        err = linear(&e->score, &e->score_bias, b, dense, dense_bias, -1, n, n);
    return err ? err : linear(&e->score_out, &e->score_out_bias, b, out, out_bias, -1, n, 1);
}

static enum hd_err bind_heads(struct hd_binder *b)
{
    const struct hd_encoder_hparams *hp = &b->model->hp.enc;
    struct hd_encoder_weights *e = &b->model->enc;
    int64_t n = b->model->hp.n_embd;
    enum hd_err err = HD_OK;
    if (hp->score_head)
        err = bind_score(b);
    if (!err && hp->sparse_head)
        err = linear(&e->sparse, &e->sparse_bias, b, HD_ROLE_ENC_SPARSE, HD_ROLE_ENC_SPARSE_BIAS,
                     -1, n, 1);
    if (!err && hp->colbert_head)
        err = linear(&e->colbert, &e->colbert_bias, b, HD_ROLE_ENC_COLBERT,
                     HD_ROLE_ENC_COLBERT_BIAS, -1, n, hp->n_colbert);
    return err;
}

/* Checkpoints of a body alone have plain names, those of a body with a head have it prefixed. */
static void find_prefix(struct hd_binder *b)
{
    static const char *const prefixes[] = {"", "bert.", "roberta.", "xlm-roberta.", "model."};
    if (hd_store_format(b->model->store) == HD_STORE_GGUF)
        return;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        b->prefix = prefixes[i];
        if (hd_bind__find(b, HD_ROLE_ENC_TOKEN_EMBD, -1))
            return;
    }
    b->prefix = "";
}

enum hd_err hd_encoder__bind(struct hd_binder *b)
{
    struct hd_model *m = b->model;
    struct hd_encoder_weights *e = &m->enc;
    const struct hd_hparams *hp = &m->hp;
    find_prefix(b);
    enum hd_err err =
        hd_bind__matrix(&m->token_embd, b, HD_ROLE_ENC_TOKEN_EMBD, -1, hp->n_embd, hp->n_vocab, 1);
    if (!err) {
        /* a checkpoint may have more rows than its texts may have tokens */
        const struct hd_store_tensor *t = hd_bind__find(b, HD_ROLE_ENC_POSITION_EMBD, -1);
        int64_t need = hp->n_ctx + hp->enc.pos_first;
        int64_t rows = t && t->ne[1] > need ? t->ne[1] : need;
        err = hd_bind__matrix(&e->position_embd, b, HD_ROLE_ENC_POSITION_EMBD, -1, hp->n_embd, rows,
                              1);
    }
    if (!err && hp->enc.n_type)
        err = hd_bind__matrix(&e->type_embd, b, HD_ROLE_ENC_TYPE_EMBD, -1, hp->n_embd,
                              hp->enc.n_type, 1);
    if (!err)
        err = pair(&e->embd_norm, &e->embd_norm_bias, b, HD_ROLE_ENC_EMBD_NORM,
                   HD_ROLE_ENC_EMBD_NORM_BIAS, -1);
    for (int i = 0; !err && i < hp->n_layer; i++)
        err = bind_layer(b, i);
    return err ? err : bind_heads(b);
}
