/* Inside the model room: bound weights, the runner's fields, the architectures' entry points. */
#ifndef HD_MODEL_MODEL_IMPL_H
#define HD_MODEL_MODEL_IMPL_H

#include <stdatomic.h>

#include "kernels/arena.h"
#include "kernels/repack.h"
#include "model/model.h"

/* One layer's weights. A field that an architecture lacks stays NULL (or has no buffer).
 * Matrices: [n_out, n_in], written as the row length last. */
struct hd_layer {
    struct hd_tensor attn_norm; /* [n_embd] */
    struct hd_tensor ffn_norm;  /* [n_embd] */

    /* grouped-head attention (qwen2, llama) */
    struct hd_weight
        *q; /* [n_head·head_dim, n_embd]; deepseek without q_lora: [n_head·qk, n_embd] */
    struct hd_weight *k, *v; /* [n_head_kv·head_dim, n_embd] */
    struct hd_weight *o; /* [n_embd, n_head·head_dim]; deepseek: [n_embd, n_head·v_head_dim] */
    struct hd_tensor q_bias, k_bias, v_bias, o_bias; /* no buffer: none */

    /* encoders: attn_norm and ffn_norm come after the residual sums, and all have biases */
    struct hd_tensor attn_norm_bias, ffn_norm_bias; /* [n_embd] */
    struct hd_tensor up_bias;                       /* [n_ff] */
    struct hd_tensor down_bias;                     /* [n_embd] */

    /* MLA */
    struct hd_weight *q_a;      /* [q_lora_rank, n_embd] */
    struct hd_tensor q_a_norm;  /* [q_lora_rank] */
    struct hd_weight *q_b;      /* [n_head·(nope + rope), q_lora_rank] */
    struct hd_weight *kv_a;     /* [kv_lora_rank + rope, n_embd] */
    struct hd_tensor kv_a_norm; /* [kv_lora_rank] */
    struct hd_weight *kv_b;     /* [n_head·(nope + v), kv_lora_rank]: expanded form */
    struct hd_weight *k_b;      /* n_head × [kv_lora_rank, nope]: absorbed form */
    struct hd_weight *v_b;      /* n_head × [v, kv_lora_rank]: absorbed form */

    /* feed-forward: dense, or the shared expert of a MoE layer */
    struct hd_weight *gate, *up; /* [n_ff, n_embd] */
    struct hd_weight *down;      /* [n_embd, n_ff] */
    int64_t n_ff;

    /* routed experts; router NULL in a dense layer */
    struct hd_weight *router;              /* [n_expert, n_embd] */
    struct hd_tensor route_bias;           /* [n_expert], for selection; no buffer: none */
    struct hd_weight *gate_exps, *up_exps; /* n_expert × [n_ff_exp, n_embd] */
    struct hd_weight *down_exps;           /* n_expert × [n_embd, n_ff_exp] */
};

/* What an encoder has outside its layers. */
struct hd_encoder_weights {
    struct hd_weight *position_embd;            /* [positions, n_embd] */
    struct hd_weight *type_embd;                /* [n_type, n_embd]; NULL: none */
    struct hd_tensor embd_norm, embd_norm_bias; /* [n_embd] */
    struct hd_weight *score;                    /* [n_embd, n_embd], then tanh; NULL: not there */
    struct hd_tensor score_bias;
    struct hd_weight *score_out; /* [1, n_embd] */
    struct hd_tensor score_out_bias;
    struct hd_weight *sparse; /* [1, n_embd] */
    struct hd_tensor sparse_bias;
    struct hd_weight *colbert; /* [n_colbert, n_embd] */
    struct hd_tensor colbert_bias;
};

/* What the model frees: kept in one list so that a failed load owes nothing. */
enum hd_owned_kind { HD_OWNED_WEIGHT, HD_OWNED_BUFFER, HD_OWNED_HOST };
struct hd_owned {
    enum hd_owned_kind kind;
    void *ptr;
};

/* The multi-token-prediction layer beside its decoder block, which is layer[n_layer]. */
struct hd_mtp {
    struct hd_weight *eh_proj;     /* [n_embd, 2·n_embd]; NULL: not there, or not asked for */
    struct hd_tensor enorm, hnorm; /* [n_embd] of the token's embedding, of the hidden state */
    struct hd_tensor head_norm;    /* [n_embd] before the shared output matrix */
};

struct hd_model {
    const struct hd_store *store;
    const struct hd_backend *backend;
    struct hd_hparams hp;
    enum hd_dtype kv_dtype;
    struct hd_weight *token_embd; /* [n_vocab, n_embd] */
    struct hd_weight *output;     /* [n_vocab, n_embd]; token_embd where tied */
    struct hd_tensor output_norm; /* [n_embd] */
    struct hd_tensor inv_freq;    /* [n_rot / 2] */
    struct hd_layer *layer;       /* [n_layer + n_layer_mtp] */
    struct hd_mtp mtp;
    struct hd_encoder_weights enc;
    size_t bytes_per_token;
    struct hd_owned *owned;
    size_t n_owned, cap_owned;

    /* copies.c: weights in the order in which a pass wants them */
    enum hd_preload preload;
    struct hd_weight **work; /* [n_work], those that the loader works on */
    size_t n_work, work_bytes, copy_bytes;
    struct hd_arena *arena;
    struct hd_repack *repack; /* the cache's file, in use or moved to; NULL */
    bool from_cache;          /* pieces are taken from it, as long as they are right */
    atomic_size_t n_made;     /* bytes */
    atomic_bool read_from;    /* somebody told the kernel to read the first weights */
    atomic_bool busy;         /* a pass runs */
    double reserved_at;       /* hd_clock_seconds */
};

/* KV of one layer, views of the one buffer of all layers: [n_block][n_layer][k, v]. A block's KV of
 * all layers lies together (1.8 MB for 28 layers of 2 heads), so that memory is touched block by
 * block, a huge page at a time, and not a huge page per layer. Dense: k, v [n_block, n_head_kv,
 * HD_KV_BLOCK, head_dim]. MLA: k alone, [n_block, 1, HD_KV_BLOCK, kv_lora_rank + rope]; v is a
 * column slice of it. */
struct hd_kv_layer {
    struct hd_tensor k, v;
};

struct hd_runner {
    const struct hd_model *model;
    struct hd_runner_options options;
    struct hd_stream *stream;
    struct hd_buffer *scratch; /* everything below up to the KV */

    /* rows = n_row_max */
    struct hd_tensor x;        /* [rows, n_embd] the residual stream */
    struct hd_tensor h;        /* [rows, n_embd] normed */
    struct hd_tensor q;        /* [rows, n_head·qk] */
    struct hd_tensor k, v;     /* [rows, n_head_kv·head_dim] */
    struct hd_tensor att;      /* [rows, n_head·v_dim] attention's output */
    struct hd_tensor gate, up; /* [rows, n_ff] */
    struct hd_tensor kept;     /* [rows, n_embd] normed last hidden states of out_rows */
    struct hd_tensor logits;   /* [n_out_max, n_vocab] */
    float *logits_host;        /* the same for the host, where it cannot read them in place */

    /* MLA and MoE */
    struct hd_tensor q_a;     /* [rows, q_lora_rank] */
    struct hd_tensor kv_a;    /* [rows, kv_lora_rank + rope] */
    struct hd_tensor q_abs;   /* [rows, n_head·(kv_lora_rank + rope)] absorbed query */
    struct hd_tensor ctx;     /* [rows, n_head·kv_lora_rank] absorbed attention's output */
    struct hd_tensor latent;  /* [n_ctx, kv_lora_rank + rope] one sequence, read back */
    struct hd_tensor kv_tile; /* [TILE, n_head·(nope + v)] expanded keys and values */
    struct hd_tensor k_exp;   /* [n_ctx / block, n_head, HD_KV_BLOCK, nope + rope] */
    struct hd_tensor v_exp;   /* [n_ctx / block, n_head, HD_KV_BLOCK, v] */
    struct hd_tensor route_logits, route_weights; /* [rows, n_expert], [rows, n_expert_used] */
    struct hd_tensor route_ids;                   /* I32 [rows, n_expert_used] */
    int32_t *identity; /* 0, 1, 2, …: block table of the expanded cache, rows of a plain copy */

    /* with an MTP layer only */
    struct hd_tensor hidden;   /* [rows, n_embd] normed last hidden states of all rows */
    struct hd_tensor draft_in; /* [rows, 2·n_embd] what eh_proj takes */
    int64_t n_hidden;          /* rows in hidden, of the last hd_runner_forward */

    int64_t n_kept; /* rows in kept, of the last pass, in this form */
    enum hd_form kept_form;
    struct hd_buffer *kv_buffer;
    struct hd_kv_layer *kv; /* [n_layer], the MTP layer's behind them */
    hd_runner_route_fn on_route;
    void *on_route_ud;
    int32_t *route_host; /* [rows, n_expert_used], only with on_route */
};

/* --- binding (bind.c) ---------------------------------------------------------------------- */

enum hd_role {
#define HD_ROLE(id, gguf, hf) HD_ROLE_##id,
#include "model/roles.inc"
#undef HD_ROLE
    HD_N_ROLE
};
enum { HD_OPTIONAL = 1 };

struct hd_parts;
struct hd_binder {
    struct hd_model *model;
    struct hd_pool *pool;
    unsigned usage; /* added to that of every weight */
    struct hd_errmsg *msg;
    const char *prefix; /* of an encoder's names in a folder, or NULL */
};

/* The tensor of a role, or NULL; layer < 0 for those outside layers. */
const struct hd_store_tensor *hd_bind__find(const struct hd_binder *b, enum hd_role role,
                                            int layer);
/* As above, NOTFOUND→FORMAT with a sentence; shape [ne0, ne1, ne2] checked. */
enum hd_err hd_bind__need(const struct hd_store_tensor **out, const struct hd_binder *b,
                          enum hd_role role, int layer, int64_t ne0, int64_t ne1, int64_t ne2);
/* n_matrix matrices [n_out, n_in] stored as one tensor. Counts its bytes. */
enum hd_err hd_bind__matrix(struct hd_weight **out, struct hd_binder *b, enum hd_role role,
                            int layer, int64_t n_in, int64_t n_out, int64_t n_matrix);
/* As F32 on the back end; HD_OPTIONAL: an absent one leaves out->buffer NULL. */
enum hd_err hd_bind__vector(struct hd_tensor *out, struct hd_binder *b, enum hd_role role,
                            int layer, int64_t n, int flags);
/* The experts' matrices: one 3-D tensor (GGUF), or one tensor per expert (Hugging Face), which are
 * then gathered into memory of our own. Counts used / n_expert of the bytes. */
enum hd_err hd_bind__experts(struct hd_weight **out, struct hd_binder *b, enum hd_role role,
                             int layer, int64_t n_in, int64_t n_out);
/* A weight from memory of the model's own (data becomes the model's, even on failure; it is freed
 * where the back end made a copy). usage: HD_WEIGHT_MATMUL, … */
enum hd_err hd_bind__own_weight(struct hd_weight **out, struct hd_binder *b, enum hd_dtype dtype,
                                int64_t n_in, int64_t n_out, int64_t n_matrix, void *data,
                                unsigned usage);
/* A weight whose rows `parts` reads (it becomes the model's, even on failure). */
enum hd_err hd_bind__parts(struct hd_weight **out, struct hd_binder *b, enum hd_dtype dtype,
                           int64_t n_in, int64_t n_out, int64_t n_matrix, struct hd_parts *parts,
                           unsigned usage);
enum hd_err hd_bind__upload(struct hd_tensor *out, struct hd_binder *b, const float *values,
                            int64_t n);
/* Reads a tensor of any type as F32; *out is owned by the caller. */
enum hd_err hd_bind__floats(float **out, const struct hd_binder *b,
                            const struct hd_store_tensor *t);
/* Lists the weights that the loader works on; after binding. */
enum hd_err hd_copies__plan(struct hd_model *model, struct hd_errmsg *msg);
/* Rows of matrices that lie in tensors of a Hugging Face folder, one tensor per matrix or all in
 * one (parts.c). They are read from the file's map whenever they are wanted. */
struct hd_parts {
    struct hd_weight_source source; /* first, so that it can be had back from a pointer to it */
    int64_t n_tensor;
    /* one tensor for all: row r of matrix m is its row m · matrix_rows + first_row + r */
    int64_t matrix_rows, first_row;
    /* element p of a row of tensor t is input order[t][p], [n_tensor, n_in]; NULL: p */
    const int32_t *order;
    const struct hd_store_tensor *t[];
};
/* With room for n_tensor tensors, to be filled in; NULL when out of memory; free() frees it. */
struct hd_parts *hd_parts__new(int64_t n_tensor);
/* GPTQ's desc_act: the inputs in the order of their groups, owned; NULL: the natural order. */
enum hd_err hd_parts__order(int32_t **out, const struct hd_store_tensor *t);
/* All rows of one tensor, as blocks of t->dtype. */
void hd_parts__rows(void *out, const struct hd_store_tensor *t, const int32_t *order,
                    struct hd_pool *pool);
enum hd_err hd_model__own(struct hd_model *model, enum hd_owned_kind kind, void *ptr);

/* --- architectures -------------------------------------------------------------------------- */

enum hd_err hd_qwen2__bind(struct hd_binder *b, int layer);
enum hd_err hd_llama__bind(struct hd_binder *b, int layer);
enum hd_err hd_dense__bind(struct hd_binder *b, int layer, bool need_qkv_bias);
void hd_dense__attention(struct hd_runner *r, int layer, const struct hd_batch *batch);

enum hd_err hd_deepseek__bind(struct hd_binder *b, int layer);
void hd_deepseek__attention(struct hd_runner *r, int layer, const struct hd_batch *batch);
void hd_deepseek__feed_forward(struct hd_runner *r, int layer, const struct hd_batch *batch);
/* attn_kv_b, attn_k_b and attn_v_b, whichever of them the file has (mla_weights.c). */
enum hd_err hd_mla__bind(struct hd_binder *b, int layer);

enum hd_err hd_encoder__bind(struct hd_binder *b); /* everything, layers too */

enum hd_err hd_mtp__bind(struct hd_binder *b); /* the layer itself is bound like the others */

enum hd_err hd_ffn__bind(struct hd_binder *b, int layer, int64_t n_ff);
void hd_ffn__forward(struct hd_runner *r, int layer, const struct hd_batch *batch);

/* --- small helpers -------------------------------------------------------------------------- */

/* One decoder layer on the rows of r->x, in place (runner.c). */
void hd_runner__layer(struct hd_runner *r, int layer, const struct hd_batch *batch);
/* Normed, the batch's out_rows of r->x become what hd_runner_logits reads; waits for the pass. */
enum hd_err hd_runner__keep(struct hd_runner *r, struct hd_tensor norm,
                            const struct hd_batch *batch, struct hd_errmsg *msg);
/* Layers with a KV cache: all, and the MTP layer where it was loaded. */
int hd_model__n_kv(const struct hd_model *model);

enum { HD_MLA_TILE = 512 }; /* rows expanded at a time */
/* Rows that go through the feed-forward layer at a time: its width is several times the model's, so
 * all rows of a prompt's chunk at once would be most of the working memory. A multiple of what the
 * kernels take at once (12, 16, 48). */
enum { HD_FFN_TILE = 192 };

/* The first n rows of a scratch matrix, the first `cols` columns of them. */
struct hd_tensor hd__rows(struct hd_tensor t, int64_t n);
/* A matrix [n, …] seen as heads [n, n_head, dim], heads `stride` elements apart, from column
 * `begin` on. */
struct hd_tensor hd__heads(struct hd_tensor t, int64_t n, int64_t begin, int64_t n_head,
                           int64_t dim, int64_t stride);

#endif
