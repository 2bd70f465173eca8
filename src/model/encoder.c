/* The encoders' graph: embeddings, post-norm layers, and the heads on top.
 *
 *   x = LN(word + position + type)
 *   x = LN(x + attention(x)),  x = LN(x + down(act(up(x))))   in every layer
 *
 * (Devlin et al. 2018; Conneau et al. 2019 for XLM-RoBERTa; Chen et al. 2024 for BGE-M3's heads.)
 */
#include "model/encoder.h"

#include <math.h>
#include <stdlib.h>

#include "base/checked.h"
#include "model/model_impl.h"

enum { FFN_TILE = 512 }; /* rows whose wide layer is held at once */
enum {
    SCORE_PAIRS = 32 << 20
}; /* pairs of rows, times heads, that one piece of attention scores */

struct hd_encoder {
    const struct hd_model *model;
    int64_t n_row_max, n_seq_max;
    struct hd_stream *stream;
    struct hd_buffer *scratch;          /* all tensors below */
    struct hd_tensor x, h;              /* [rows, n_embd]: the residual stream; work */
    struct hd_tensor q, k, v;           /* [rows, n_embd] */
    struct hd_tensor up;                /* [FFN_TILE, n_ff] */
    struct hd_tensor pooled;            /* [seqs, n_embd] */
    struct hd_tensor scored;            /* [seqs, n_embd], then [seqs, 1] */
    struct hd_tensor colbert;           /* [FFN_TILE, n_colbert] */
    int32_t *zeros, *positions, *first; /* [rows], [rows], [seqs] */
    struct hd_seq_rows *seqs;           /* of the last pass */
    int n_seq;
    int64_t n;
    /* how far the pass is: the layer, and within it the part, and the head or row of that part */
    int layer;
    enum { PART_QKV, PART_ATTENTION, PART_OUT, PART_FFN } part;
    int64_t at;
};

/* --- life ----------------------------------------------------------------------------------- */

static bool place(struct hd_tensor *t, size_t *bytes, int64_t cols, int64_t rows)
{
    size_t size;
    if (!hd_mul(&size, (size_t)cols * sizeof(float), (size_t)rows) || !hd_add(&size, size, 63))
        return false;
    *t = hd_tensor_at(NULL, *bytes, HD_F32, cols, rows, 1, 1);
    t->n_dim = 2;
    return hd_add(bytes, *bytes, size & ~(size_t)63);
}

static size_t place_all(struct hd_encoder *e)
{
    const struct hd_hparams *hp = &e->model->hp;
    int64_t rows = e->n_row_max, tile = rows < FFN_TILE ? rows : FFN_TILE;
    struct hd_tensor *whole[] = {&e->x, &e->h, &e->q, &e->k, &e->v};
    size_t bytes = 0;
    bool ok = true;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        ok = ok && place(whole[i], &bytes, hp->n_embd, rows);
    ok = ok && place(&e->up, &bytes, hp->n_ff, tile);
    ok = ok && place(&e->pooled, &bytes, hp->n_embd, e->n_seq_max);
    ok = ok && place(&e->scored, &bytes, hp->n_embd, e->n_seq_max);
    ok = ok && place(&e->colbert, &bytes, hp->enc.n_colbert ? hp->enc.n_colbert : 1, tile);
    return ok ? bytes : 0;
}

size_t hd_encoder_scratch_bytes(const struct hd_model *model, int64_t n_row_max, int64_t n_seq_max)
{
    struct hd_encoder e = {.model = model, .n_row_max = n_row_max, .n_seq_max = n_seq_max};
    return place_all(&e);
}

static enum hd_err new_memory(struct hd_encoder *e, struct hd_errmsg *msg)
{
    size_t bytes = place_all(e);
    if (!bytes)
        return HD_ERR_LIMIT;
    enum hd_err err = hd_buffer_new(&e->scratch, e->model->backend, bytes, msg);
    if (err)
        return err;
    struct hd_tensor *all[] = {&e->x,  &e->h,      &e->q,      &e->k,      &e->v,
                               &e->up, &e->pooled, &e->scored, &e->colbert};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        all[i]->buffer = e->scratch;
    e->zeros = calloc((size_t)e->n_row_max, sizeof *e->zeros);
    e->positions = calloc((size_t)e->n_row_max, sizeof *e->positions);
    e->first = calloc((size_t)e->n_seq_max, sizeof *e->first);
    e->seqs = calloc((size_t)e->n_seq_max, sizeof *e->seqs);
    return e->zeros && e->positions && e->first && e->seqs ? HD_OK : HD_ERR_NOMEM;
}

enum hd_err hd_encoder_new(struct hd_encoder **out, const struct hd_model *model,
                           struct hd_pool *pool, int64_t n_row_max, int64_t n_seq_max,
                           struct hd_errmsg *msg)
{
    *out = NULL;
    if (model->hp.arch != HD_ARCH_BERT || n_row_max < 1 || n_row_max > 1 << 24 || n_seq_max < 1 ||
        n_seq_max > 1 << 24)
        return hd_fail(msg, HD_ERR_INVALID, "encoder: a size is out of range");
    struct hd_encoder *e = calloc(1, sizeof *e);
    if (!e)
        return hd_fail(msg, HD_ERR_NOMEM, "encoder: out of memory");
    e->model = model;
    e->n_row_max = n_row_max;
    e->n_seq_max = n_seq_max;
    enum hd_err err = hd_stream_new(&e->stream, model->backend, pool, msg);
    if (!err)
        err = new_memory(e, NULL);
    if (err) {
        hd_encoder_free(e);
        return hd_fail(msg, err, "encoder: %lld rows: %s", (long long)n_row_max, hd_err_text(err));
    }
    *out = e;
    return HD_OK;
}

void hd_encoder_free(struct hd_encoder *e)
{
    if (!e)
        return;
    hd_buffer_free(e->scratch);
    hd_stream_free(e->stream);
    free(e->zeros);
    free(e->positions);
    free(e->first);
    free(e->seqs);
    free(e);
}

/* --- the pass ------------------------------------------------------------------------------- */

static const struct hd_tensor *bias_or_null(const struct hd_tensor *bias)
{
    return bias->buffer ? bias : NULL;
}

static void embed(struct hd_encoder *e, const struct hd_encoder_batch *batch)
{
    const struct hd_model *m = e->model;
    struct hd_tensor x = hd__rows(e->x, e->n), h = hd__rows(e->h, e->n);
    hd_op_embed(e->stream, x, m->token_embd, batch->ids, e->n);
    hd_op_embed(e->stream, h, m->enc.position_embd, e->positions, e->n);
    hd_op_add(e->stream, x, h);
    if (m->enc.type_embd) {
        hd_op_embed(e->stream, h, m->enc.type_embd, batch->types ? batch->types : e->zeros, e->n);
        hd_op_add(e->stream, x, h);
    }
    hd_op_layer_norm(e->stream, x, x, m->enc.embd_norm, m->enc.embd_norm_bias, m->hp.norm_eps);
}

static void project(struct hd_encoder *e, const struct hd_layer *l)
{
    const struct hd_matmul qkv[] = {
        {.w = l->q, .out = hd__rows(e->q, e->n), .bias = bias_or_null(&l->q_bias)},
        {.w = l->k, .out = hd__rows(e->k, e->n), .bias = bias_or_null(&l->k_bias)},
        {.w = l->v, .out = hd__rows(e->v, e->n), .bias = bias_or_null(&l->v_bias)},
    };
    hd_op_matmul(e->stream, qkv, 3, hd__rows(e->x, e->n), HD_FORM_PROMPT);
}

/* Heads that one piece takes: all of them for short texts, one for the longest. */
static int64_t heads_at_once(const struct hd_encoder *e)
{
    int64_t pairs = 1;
    for (int i = 0; i < e->n_seq; i++)
        pairs += e->seqs[i].n * e->seqs[i].n;
    int64_t n = SCORE_PAIRS / pairs;
    return n < 1 ? 1 : n;
}

static void attend(struct hd_encoder *e, int64_t first, int64_t n_head)
{
    const struct hd_hparams *hp = &e->model->hp;
    int64_t dim = hp->head_dim, begin = first * dim;
    hd_op_attention_all(e->stream, hd__heads(hd__rows(e->h, e->n), e->n, begin, n_head, dim, dim),
                        hd__heads(hd__rows(e->q, e->n), e->n, begin, n_head, dim, dim),
                        hd__heads(hd__rows(e->k, e->n), e->n, begin, n_head, dim, dim),
                        hd__heads(hd__rows(e->v, e->n), e->n, begin, n_head, dim, dim),
                        (float)(1 / sqrt((double)dim)), e->seqs, e->n_seq);
}

static void attention_out(struct hd_encoder *e, const struct hd_layer *l)
{
    struct hd_tensor x = hd__rows(e->x, e->n);
    const struct hd_matmul o = {
        .w = l->o, .out = x, .bias = bias_or_null(&l->o_bias), .accumulate = true};
    hd_op_matmul(e->stream, &o, 1, hd__rows(e->h, e->n), HD_FORM_PROMPT);
    hd_op_layer_norm(e->stream, x, x, l->attn_norm, l->attn_norm_bias, e->model->hp.norm_eps);
}

/* Row by row the same, so it is done in tiles that keep the wide layer small. */
static void feed_forward(struct hd_encoder *e, const struct hd_layer *l, int64_t at, int64_t n)
{
    const struct hd_hparams *hp = &e->model->hp;
    struct hd_tensor x = hd_tensor_rows(hd__rows(e->x, e->n), at, n);
    struct hd_tensor up = hd__rows(e->up, n);
    const struct hd_matmul wide = {.w = l->up, .out = up, .bias = bias_or_null(&l->up_bias)};
    hd_op_matmul(e->stream, &wide, 1, x, HD_FORM_PROMPT);
    hd_op_activate(e->stream, up, up, hp->enc.act);
    const struct hd_matmul down = {
        .w = l->down, .out = x, .bias = bias_or_null(&l->down_bias), .accumulate = true};
    hd_op_matmul(e->stream, &down, 1, up, HD_FORM_PROMPT);
    hd_op_layer_norm(e->stream, x, x, l->ffn_norm, l->ffn_norm_bias, hp->norm_eps);
}

static enum hd_err take_seqs(struct hd_encoder *e, const struct hd_encoder_batch *batch,
                             struct hd_errmsg *msg)
{
    int64_t at = 0;
    e->n_seq = 0;
    if (batch->n < 1 || batch->n > e->n_row_max || batch->n_seq < 1 || batch->n_seq > e->n_seq_max)
        return hd_fail(msg, HD_ERR_INTERNAL, "encoder: %lld rows of %d texts, at most %lld of %lld",
                       (long long)batch->n, batch->n_seq, (long long)e->n_row_max,
                       (long long)e->n_seq_max);
    for (int i = 0; i < batch->n_seq; i++) {
        const struct hd_seq_rows *s = &batch->seqs[i];
        if (s->begin != at || s->n < 1 || s->n > e->model->hp.n_ctx || s->n > batch->n - at)
            return hd_fail(msg, HD_ERR_INTERNAL, "encoder: text %d of %lld rows is out of place", i,
                           (long long)s->n);
        for (int64_t j = 0; j < s->n; j++)
            e->positions[at + j] = (int32_t)(e->model->hp.enc.pos_first + j);
        e->first[i] = (int32_t)at;
        e->seqs[i] = *s;
        at += s->n;
    }
    e->n = batch->n;
    e->n_seq = batch->n_seq;
    return HD_OK;
}

static enum hd_err finish(struct hd_encoder *e, struct hd_errmsg *msg)
{
    enum hd_err err = hd_sync(e->stream);
    return err ? hd_fail(msg, err, "encoder: %s", hd_err_text(err)) : HD_OK;
}

enum hd_err hd_encoder_begin(struct hd_encoder *e, const struct hd_encoder_batch *batch,
                             struct hd_errmsg *msg)
{
    e->layer = e->model->hp.n_layer; /* no pass, should it fail */
    enum hd_err err = take_seqs(e, batch, msg);
    if (err)
        return err;
    embed(e, batch);
    e->layer = 0;
    e->part = PART_QKV;
    e->at = 0;
    return HD_OK;
}

/* One piece of the part at e->at; its end, and how far the part goes. */
static int64_t compute_piece(struct hd_encoder *e, const struct hd_layer *l, int64_t *whole)
{
    int64_t n_head = e->model->hp.n_head, n = 0;
    *whole = 1;
    switch (e->part) {
    case PART_QKV:
        project(e, l);
        return 1;
    case PART_ATTENTION:
        *whole = n_head;
        n = heads_at_once(e);
        n = n < n_head - e->at ? n : n_head - e->at;
        attend(e, e->at, n);
        return e->at + n;
    case PART_OUT:
        attention_out(e, l);
        return 1;
    case PART_FFN:
        *whole = e->n;
        n = e->n - e->at < FFN_TILE ? e->n - e->at : FFN_TILE;
        feed_forward(e, l, e->at, n);
        return e->at + n;
    }
    return 1;
}

enum hd_err hd_encoder_step(struct hd_encoder *e, bool *done, struct hd_errmsg *msg)
{
    int64_t whole;
    *done = e->layer >= e->model->hp.n_layer;
    if (*done)
        return HD_OK;
    e->at = compute_piece(e, &e->model->layer[e->layer], &whole);
    if (e->at >= whole) {
        e->at = 0;
        e->layer += e->part == PART_FFN;
        e->part = e->part == PART_FFN ? PART_QKV : e->part + 1;
    }
    enum hd_err err = finish(e, msg);
    if (err)
        e->layer = e->model->hp.n_layer;
    *done = e->layer >= e->model->hp.n_layer;
    return err;
}

enum hd_err hd_encoder_forward(struct hd_encoder *e, const struct hd_encoder_batch *batch,
                               struct hd_errmsg *msg)
{
    bool done = false;
    enum hd_err err = hd_encoder_begin(e, batch, msg);
    while (!err && !done)
        err = hd_encoder_step(e, &done, msg);
    return err;
}

/* --- heads ----------------------------------------------------------------------------------- */

/* The first token's state of every text. */
static struct hd_tensor gather_first(struct hd_encoder *e)
{
    struct hd_tensor pooled = hd__rows(e->pooled, e->n_seq);
    hd_op_gather_rows(e->stream, pooled, hd__rows(e->x, e->n), e->first, e->n_seq);
    return pooled;
}

static void scale_to_one(float *v, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    double scale = sum > 0 ? 1 / sqrt(sum) : 0;
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)((double)v[i] * scale);
}

static enum hd_err no_head(const struct hd_encoder *e, const char *what, struct hd_errmsg *msg)
{
    return hd_fail(msg, HD_ERR_UNSUPPORTED, "%s: this model has no %s",
                   hd_store_path(e->model->store), what);
}

enum hd_err hd_encoder_dense(struct hd_encoder *e, float *out, struct hd_errmsg *msg)
{
    const struct hd_hparams *hp = &e->model->hp;
    struct hd_tensor pooled = hd__rows(e->pooled, e->n_seq);
    if (hp->enc.pooling == HD_POOLING_NONE)
        return no_head(e, "pooling, so a text has no one vector", msg);
    if (hp->enc.pooling == HD_POOLING_CLS)
        gather_first(e);
    else
        hd_op_mean_rows(e->stream, pooled, hd__rows(e->x, e->n), e->seqs, e->n_seq);
    enum hd_err err = finish(e, msg);
    if (err)
        return err;
    hd_tensor_download(out, &pooled);
    for (int i = 0; hp->enc.normalise && i < e->n_seq; i++)
        scale_to_one(out + (int64_t)i * hp->n_embd, hp->n_embd);
    return HD_OK;
}

enum hd_err hd_encoder_sparse(struct hd_encoder *e, float *out, struct hd_errmsg *msg)
{
    const struct hd_encoder_weights *w = &e->model->enc;
    if (!w->sparse)
        return no_head(e, "sparse head", msg);
    /* one number per row, into a column of the scratch that the pass no longer needs */
    struct hd_tensor column = hd_tensor_at(e->scratch, e->h.offset, HD_F32, 1, e->n, 1, 1);
    column.n_dim = 2;
    const struct hd_matmul product = {
        .w = w->sparse, .out = column, .bias = bias_or_null(&w->sparse_bias)};
    hd_op_matmul(e->stream, &product, 1, hd__rows(e->x, e->n), HD_FORM_PROMPT);
    hd_op_activate(e->stream, column, column, HD_ACT_RELU);
    enum hd_err err = finish(e, msg);
    if (!err)
        hd_tensor_download(out, &column);
    return err;
}

enum hd_err hd_encoder_colbert(struct hd_encoder *e, float *out, struct hd_errmsg *msg)
{
    const struct hd_encoder_weights *w = &e->model->enc;
    int64_t dim = e->model->hp.enc.n_colbert;
    if (!w->colbert)
        return no_head(e, "ColBERT head", msg);
    for (int64_t at = 0; at < e->n; at += FFN_TILE) {
        int64_t n = e->n - at < FFN_TILE ? e->n - at : FFN_TILE;
        struct hd_tensor tile = hd__rows(e->colbert, n);
        const struct hd_matmul product = {
            .w = w->colbert, .out = tile, .bias = bias_or_null(&w->colbert_bias)};
        hd_op_matmul(e->stream, &product, 1, hd_tensor_rows(hd__rows(e->x, e->n), at, n),
                     HD_FORM_PROMPT);
        enum hd_err err = finish(e, msg);
        if (err)
            return err;
        hd_tensor_download(out + at * dim, &tile);
    }
    for (int64_t i = 0; i < e->n; i++)
        scale_to_one(out + i * dim, dim);
    return HD_OK;
}

enum hd_err hd_encoder_scores(struct hd_encoder *e, float *out, struct hd_errmsg *msg)
{
    const struct hd_encoder_weights *w = &e->model->enc;
    if (!w->score_out)
        return no_head(e, "re-ranking head", msg);
    struct hd_tensor in = gather_first(e), scored = hd__rows(e->scored, e->n_seq);
    if (w->score) {
        const struct hd_matmul dense = {
            .w = w->score, .out = scored, .bias = bias_or_null(&w->score_bias)};
        hd_op_matmul(e->stream, &dense, 1, in, HD_FORM_PROMPT);
        hd_op_activate(e->stream, scored, scored, HD_ACT_TANH);
        in = scored;
    }
    struct hd_tensor column = hd_tensor_at(e->scratch, e->h.offset, HD_F32, 1, e->n_seq, 1, 1);
    column.n_dim = 2;
    const struct hd_matmul product = {
        .w = w->score_out, .out = column, .bias = bias_or_null(&w->score_out_bias)};
    hd_op_matmul(e->stream, &product, 1, in, HD_FORM_PROMPT);
    enum hd_err err = finish(e, msg);
    if (!err)
        hd_tensor_download(out, &column);
    return err;
}
