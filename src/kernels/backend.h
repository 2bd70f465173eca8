/* Back ends: memory, prepared weights and the op table.
 *
 * A back end is one device with one set of kernels: "ref" (scalar, F32 activations, the oracle),
 * "avx2", "avx512" (VNNI), "amx". CUDA comes later behind the same header, hence handles instead of
 * pointers, and a stream instead of "now": ops are queued in order, hd_sync waits for them
 * (on the CPU they are done when the call returns).
 *
 * Threads: one thread at a time per stream. Buffers and weights may be read by several streams.
 *
 * Invariance (design decision 12): an output row of an op depends only on that row, its position,
 * the weights, the form and fixed tile constants; never on how many rows come with it, where a
 * chunk ends, or how many threads run. Prompt and generated rows may use different kernels: the
 * caller names the form by the request's phase.
 *
 * Shapes below: [slowest … fastest], activations F32 unless noted; n = rows (tokens). */
#ifndef HD_KERNELS_BACKEND_H
#define HD_KERNELS_BACKEND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/pool.h"
#include "tensor/tensor.h"

enum { HD_KV_BLOCK = 64 }; /* tokens per KV block, everywhere */

enum hd_form { HD_FORM_PROMPT, HD_FORM_DECODE };

struct hd_backend; /* process lifetime, immutable */
struct hd_stream;  /* an order of ops on a back end, with its scratch; owned by one thread */
struct hd_weight;  /* one or several matrices in the layout that the kernels like; immutable */

/* --- back ends ------------------------------------------------------------------------- */

/* name: "auto" (the best that this machine has), "ref", "avx2", "avx512", "amx".
 * UNSUPPORTED, with a sentence naming what is missing, where the machine lacks it. */
enum hd_err hd_backend_get(const struct hd_backend **out, const char *name, struct hd_errmsg *msg);
const char *hd_backend_name(const struct hd_backend *backend);
/* The KV element type that this back end prefers: F32 for ref, F16 otherwise. */
enum hd_dtype hd_backend_kv_dtype(const struct hd_backend *backend);
/* Peak rate of the integer product on operands in L1, all threads of the pool, in 10^12
 * operations/s (a multiply-add counts two), and best of 5 sequential reads of a 1 GiB buffer in
 * GB/s. */
double hd_backend_probe_int8_tops(const struct hd_backend *backend, struct hd_pool *pool);
double hd_backend_probe_read_gbps(const struct hd_backend *backend, struct hd_pool *pool);
/* Reads the copies of weights (those that have one) once, doing nothing else with them, until
 * `most` bytes are read or all are: the bytes. The caller takes the time. What products of few rows
 * can reach at best: the same pages, at the same moment. */
uint64_t hd_backend_read_weights(struct hd_pool *pool, struct hd_weight *const *weights, size_t n,
                                 uint64_t most);

/* --- memory ------------------------------------------------------------------------------ */

enum hd_err hd_buffer_new(struct hd_buffer **out, const struct hd_backend *backend, size_t bytes,
                          struct hd_errmsg *msg); /* zeroed, aligned to 64 */
void hd_buffer_free(struct hd_buffer *buffer);    /* NULL is fine */
size_t hd_buffer_bytes(const struct hd_buffer *buffer);
void hd_buffer_discard(struct hd_buffer *buffer); /* gives its memory back: it is zeroed again */
/* Contiguous host memory to a tensor and back; the copy is complete when the call returns. */
void hd_tensor_upload(const struct hd_tensor *t, const void *host);
void hd_tensor_download(void *host, const struct hd_tensor *t);
/* The tensor's own memory where the host may read and write it in place, as on the CPU back ends;
 * NULL elsewhere, or where its rows do not follow one another. */
void *hd_tensor_host(const struct hd_tensor *t);

/* --- weights ----------------------------------------------------------------------------- */

/* What a weight will be used for. A product wants the repacked copy, a look-up of rows the rows as
 * they lie in the file; a tied output matrix wants both. */
enum {
    HD_WEIGHT_MATMUL = 1,
    HD_WEIGHT_EMBED = 2,
    /* data lies in a map of a file (never in allocated memory): pages whose contents were copied
     * are dropped from the process with madvise, to be read again should anyone look */
    HD_WEIGHT_MAPPED = 4,
    HD_WEIGHT_LOGITS = 8, /* the output matrix, whose products are computed with more precision */
    HD_WEIGHT_LAZY = 16,  /* the copy is made later, see below */
    HD_WEIGHT_COPY = 32,  /* a copy is wanted even where the back end could do without */
};

/* Prepares n_matrix matrices of n_out rows of n_in elements, rows contiguous, matrices one after
 * another, as they lie in a file. `data` (any alignment) must stay valid while the weight lives
 * (it is usually a map; without HD_WEIGHT_EMBED it may go where hd_weight_bytes tells of a copy;
 * the back end keeps a pointer to it, a repacked copy, or both as it likes). usage: flags as above;
 * MATMUL covers matmul, matmul_heads and moe. Rows that the fast layout cannot hold fall back to a
 * slower kernel, silently and correctly. */
enum hd_err hd_weight_new(struct hd_weight **out, const struct hd_backend *backend,
                          enum hd_dtype dtype, int64_t n_in, int64_t n_out, int64_t n_matrix,
                          const void *data, unsigned usage, struct hd_pool *pool,
                          struct hd_errmsg *msg);
/* Rows that lie nowhere as the weight wants them and are made when they are read. */
struct hd_weight_source {
    /* Blocks [block, block + n_block) of the rows [row, row + n_row) of one matrix, row after row
     * into out. Any thread, any number of times, the same bytes each time. */
    void (*read)(const struct hd_weight_source *source, void *out, int64_t matrix, int64_t row,
                 int64_t n_row, int64_t block, int64_t n_block);
    /* What lies behind it is wanted soon, or not any more. */
    void (*advise)(const struct hd_weight_source *source, bool wanted);
};
/* The same from a source, which must live as long as the weight; no HD_WEIGHT_EMBED. */
enum hd_err hd_weight_new_from(struct hd_weight **out, const struct hd_backend *backend,
                               enum hd_dtype dtype, int64_t n_in, int64_t n_out, int64_t n_matrix,
                               const struct hd_weight_source *source, unsigned usage,
                               struct hd_pool *pool, struct hd_errmsg *msg);
void hd_weight_free(struct hd_weight *weight); /* NULL is fine */
/* Element j of the rows of matrix m belongs to input order[m][j] (GPTQ's act-order). Borrowed,
 * [n_matrix, n_in]; obeyed by hd_op_matmul and hd_op_moe alone. */
void hd_weight_set_order(struct hd_weight *weight, const int32_t *order);
int64_t hd_weight_n_in(const struct hd_weight *weight);
int64_t hd_weight_n_out(const struct hd_weight *weight);
int64_t hd_weight_n_matrix(const struct hd_weight *weight);
size_t hd_weight_bytes(const struct hd_weight *weight); /* of its own copy, 0 if none */
/* What hd_weight_work has to make: the copy's bytes, or, for a lazy one without a copy, those of
 * the file, which are then only read. */
size_t hd_weight_work_bytes(const struct hd_weight *weight);
unsigned hd_weight_usage(const struct hd_weight *weight);

/* A lazy weight is usable at once: what is not copied yet, a product repacks on the way, panel by
 * panel, with the same bits as result. Making the copy: give it memory, then let any number of
 * threads work on it. `progress` (nullable) counts bytes made. on_demand: nobody will work on it,
 * so the first product that wants it makes it. */
void hd_weight_place(struct hd_weight *weight, void *memory, atomic_size_t *progress,
                     bool on_demand); /* hd_weight_bytes of zeroed memory, borrowed */
/* The memory holds the copy already. */
void hd_weight_place_made(struct hd_weight *weight, void *memory, atomic_size_t *progress);
/* Takes parts and makes them until none is left or *stop becomes true; takes none while *hold is
 * true. NULL: never. */
void hd_weight_work(struct hd_weight *weight, const atomic_bool *stop, const atomic_bool *hold);
/* All parts are taken: waits for those that others are making. */
void hd_weight_wait(const struct hd_weight *weight);
/* Asks the kernel to read the weight's part of the file soon. */
void hd_weight_read_ahead(const struct hd_weight *weight);

/* --- streams ------------------------------------------------------------------------------ */

/* The stream computes with `pool` (borrowed). */
enum hd_err hd_stream_new(struct hd_stream **out, const struct hd_backend *backend,
                          struct hd_pool *pool, struct hd_errmsg *msg);
void hd_stream_free(struct hd_stream *stream);
void hd_stream_trim(struct hd_stream *stream); /* gives scratch memory back until it is needed */
/* Waits for everything queued; returns the first failure since the last call (scratch memory). */
enum hd_err hd_sync(struct hd_stream *stream);

/* --- ops ---------------------------------------------------------------------------------- */

/* out[i] = row ids[i] of w (matrix 0), dequantised. out [n, n_in]. Ids must be in range. */
void hd_op_embed(struct hd_stream *s, struct hd_tensor out, const struct hd_weight *w,
                 const int32_t *ids, int64_t n);

/* out = in / sqrt(mean(in²) + eps) · gain, by rows of ne[0]; in may have any row stride and up to
 * three dimensions; out may be in. gain: F32 [ne0]. */
void hd_op_rms_norm(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                    struct hd_tensor gain, float eps);

/* One product of several that share their input: out = in · wᵀ (+ bias) (+ out if accumulate). */
struct hd_matmul {
    const struct hd_weight *w;    /* matrix 0, [n_out, n_in] */
    struct hd_tensor out;         /* [n, n_out], row stride free */
    const struct hd_tensor *bias; /* F32 [n_out] or NULL */
    bool accumulate;              /* adds to what out holds (residual) */
};
void hd_op_matmul(struct hd_stream *s, const struct hd_matmul *products, int n_product,
                  struct hd_tensor in, enum hd_form form);

/* Every head with a matrix of its own: out[i][h] = in[i][h] · w[h]ᵀ.
 * in [n, n_matrix, n_in], out [n, n_matrix, n_out], strides free. */
void hd_op_matmul_heads(struct hd_stream *s, struct hd_tensor out, const struct hd_weight *w,
                        struct hd_tensor in, enum hd_form form);

/* Rotates, in place, the first n_rot elements of each head of x [n, n_head, ≥ n_rot].
 * Angle of pair i at position p: p · inv_freq[i]; cos and sin are multiplied by `mscale`.
 * neox: pairs (i, i + n_rot/2); else adjacent pairs (2i, 2i + 1). inv_freq: F32 [n_rot/2]. */
struct hd_rope {
    int n_rot;
    bool neox;
    struct hd_tensor inv_freq;
    float mscale;
};
void hd_op_rope(struct hd_stream *s, struct hd_tensor x, const struct hd_rope *rope,
                const int32_t *positions, int64_t n);

/* A cache of one layer: [n_block, n_head, HD_KV_BLOCK, dim], dtype F32, F16 or (not in ref) Q8_0: 8
 * bits with a scale for each position, head and 32 elements, dim a multiple of 32. A scale for
 * several positions would change when the next one is written, and a row would then depend on where
 * a chunk ends. nb gives strides. */

/* Rows of one sequence inside a batch. */
struct hd_seq_rows {
    int64_t begin;        /* first row of the batch */
    int64_t n;            /* rows */
    int32_t pos;          /* position of the first one */
    const int32_t *table; /* block table: block of position p is table[p / HD_KV_BLOCK] */
};

/* Stores rows [n, n_head, dim] into the cache at their positions. */
void hd_op_kv_write(struct hd_stream *s, struct hd_tensor cache, struct hd_tensor rows,
                    const struct hd_seq_rows *seqs, int n_seq);
/* Reads positions [0, n) of one sequence: out [n, n_head, dim] F32. */
void hd_op_kv_read(struct hd_stream *s, struct hd_tensor out, struct hd_tensor cache,
                   const int32_t *table, int64_t n);

/* Causal attention with grouped heads: row at position p sees positions 0 … p.
 * q [n, n_head, dim_k]; k cache dim_k, v cache dim_v (v may be a column slice of k: absorbed MLA);
 * out [n, n_head, dim_v]; n_head is a multiple of the caches' n_head. Softmax of scale · q·k. */
void hd_op_attention(struct hd_stream *s, struct hd_tensor out, struct hd_tensor q,
                     struct hd_tensor k, struct hd_tensor v, float scale,
                     const struct hd_seq_rows *seqs, int n_seq, enum hd_form form);

/* out = silu(gate) · up, elementwise, [n, n_ff]. out may be gate. */
void hd_op_silu_mul(struct hd_stream *s, struct hd_tensor out, struct hd_tensor gate,
                    struct hd_tensor up);
/* x += y, [n, m]. */
void hd_op_add(struct hd_stream *s, struct hd_tensor x, struct hd_tensor y);
/* Encoders. out = (in - mean) / sqrt(variance + eps) · gain + bias, by rows of ne[0] of a matrix;
 * out may be in. gain, bias: F32 [ne0]. */
void hd_op_layer_norm(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                      struct hd_tensor gain, struct hd_tensor bias, float eps);

enum hd_activation {
    HD_ACT_GELU,      /* x · Φ(x), Φ by erf */
    HD_ACT_GELU_TANH, /* its approximation by tanh (Hendrycks & Gimpel 2016) */
    HD_ACT_RELU,
    HD_ACT_SILU,
    HD_ACT_TANH,
};
/* out = f(in), elementwise, [n, m]. out may be in. */
void hd_op_activate(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                    enum hd_activation f);

/* Attention without a cache: every row of a sequence sees all rows of it, before and behind.
 * q, k, v, out [n, n_head, dim] F32, strides free; of seqs begin and n count. */
void hd_op_attention_all(struct hd_stream *s, struct hd_tensor out, struct hd_tensor q,
                         struct hd_tensor k, struct hd_tensor v, float scale,
                         const struct hd_seq_rows *seqs, int n_seq);

/* out[i] = mean of the rows of seqs[i]. out [n_seq, m], in [n, m]. */
void hd_op_mean_rows(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                     const struct hd_seq_rows *seqs, int n_seq);

/* out[i] = in[rows[i]]. */
void hd_op_gather_rows(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                       const int32_t *rows, int64_t n);

/* Expert routing (DeepSeek-V3 report, eq. 12–16 and model.py's Gate), all in F32. */
struct hd_router {
    int n_expert, n_used, n_group, n_group_used; /* n_group 1: no groups */
    bool sigmoid;                                /* else softmax */
    bool normalise;                              /* weights divided by their sum + 1e-20 */
    float scale;                                 /* then multiplied by this */
    const struct hd_tensor *bias;                /* F32 [n_expert], for selection only; or NULL */
};
/* logits [n, n_expert] → ids I32 [n, n_used] (best first) and weights F32 [n, n_used].
 * Group score: sum of its two largest biased scores (the largest, where there is no bias). */
void hd_op_route(struct hd_stream *s, struct hd_tensor ids, struct hd_tensor weights,
                 struct hd_tensor logits, const struct hd_router *router);

/* out += Σ_j weights[i][j] · down_e(silu(gate_e(in)) · up_e(in)), e = ids[i][j].
 * gate, up: n_expert matrices [n_ff, n_embd]; down: [n_embd, n_ff]. */
void hd_op_moe(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
               const struct hd_weight *gate, const struct hd_weight *up,
               const struct hd_weight *down, struct hd_tensor ids, struct hd_tensor weights,
               enum hd_form form);

#endif
