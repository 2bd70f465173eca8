/* The forward pass of encoders (BERT, XLM-RoBERTa): whole texts in, vectors and scores out.
 *
 * Texts are packed one behind the other without padding; attention stays inside each. A text's
 * results depend on its ids alone, bit for bit, never on what else is in the batch. hd_encoder
 * belongs to one thread; the model is shared. A pass allocates nothing but scratch that a longer
 * batch than ever before needs.
 *
 * Shapes are [slowest … fastest]; n = rows of the batch (one row = one token). */
#ifndef HD_MODEL_ENCODER_H
#define HD_MODEL_ENCODER_H

#include "model/model.h"

struct hd_encoder;

/* n_row_max: rows of one pass; n_seq_max: texts. The model (of HD_ARCH_BERT) and the pool are
 * borrowed. */
enum hd_err hd_encoder_new(struct hd_encoder **out, const struct hd_model *model,
                           struct hd_pool *pool, int64_t n_row_max, int64_t n_seq_max,
                           struct hd_errmsg *msg);
void hd_encoder_free(struct hd_encoder *encoder); /* NULL is fine */
/* Bytes that hd_encoder_new allocates; pages that no batch has needed yet stay untouched. */
size_t hd_encoder_scratch_bytes(const struct hd_model *model, int64_t n_row_max, int64_t n_seq_max);

struct hd_encoder_batch {
    const int32_t *ids;             /* [n], each in [0, n_vocab) */
    const int32_t *types;           /* [n], each in [0, n_type); NULL: all 0 */
    int64_t n;                      /* ≤ n_row_max */
    const struct hd_seq_rows *seqs; /* one per text: begin and n (1 … n_ctx); cover the rows */
    int n_seq;                      /* ≤ n_seq_max */
};
/* Runs the texts through all layers; what follows reads the last hidden states. The same in pieces,
 * for an owner who has other things to do: _begin, then _step until *done (true from the last one
 * on). The batch is read by _begin alone. A piece is at most an eighth of a second's work of two
 * cores at BGE-M3's size. After a failure, or another _begin, the pass is over. */
enum hd_err hd_encoder_begin(struct hd_encoder *encoder, const struct hd_encoder_batch *batch,
                             struct hd_errmsg *msg);
enum hd_err hd_encoder_step(struct hd_encoder *encoder, bool *done, struct hd_errmsg *msg);
enum hd_err hd_encoder_forward(struct hd_encoder *encoder, const struct hd_encoder_batch *batch,
                               struct hd_errmsg *msg);

/* One vector per text, pooled and scaled as the model says: out [n_seq, n_embd], host memory.
 * UNSUPPORTED where the model names no pooling. */
enum hd_err hd_encoder_dense(struct hd_encoder *encoder, float *out, struct hd_errmsg *msg);
/* BGE-M3's lexical weight of every row, ≥ 0: out [n]. */
enum hd_err hd_encoder_sparse(struct hd_encoder *encoder, float *out, struct hd_errmsg *msg);
/* BGE-M3's ColBERT vector of every row, of length 1: out [n, n_colbert]. */
enum hd_err hd_encoder_colbert(struct hd_encoder *encoder, float *out, struct hd_errmsg *msg);
/* The cross-encoder's logit of every text: out [n_seq]. */
enum hd_err hd_encoder_scores(struct hd_encoder *encoder, float *out, struct hd_errmsg *msg);

#endif
