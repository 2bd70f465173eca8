/* The reference ops: scalar C, activations in F32, no instruction sets. They are the oracle for all
 * other back ends and the fallback of those; correct and plain first, but quick enough to run a
 * hundred positions of a real 1.5B model in seconds.
 *
 * Every element is computed in one fixed order, so results do not depend on threads or batch. */
#ifndef HD_KERNELS_REF_H
#define HD_KERNELS_REF_H

#include "kernels/ops.h"

/* One product of rows by rows, all strides in bytes: out[i] (+)= in[i] · W[matrix]ᵀ (+ bias). */
struct hd_ref_product {
    const struct hd_weight *w;
    int64_t matrix;
    const uint8_t *in;
    size_t in_stride;
    uint8_t *out;
    size_t out_stride;
    int64_t n; /* rows of in and out */
    const float *bias;
    bool accumulate;
};
/* The output columns [begin, end) of a product; scratch: hd_ref_product_scratch(w) bytes. */
void hd_ref_product(const struct hd_ref_product *p, int64_t begin, int64_t end, float *scratch);
size_t hd_ref_product_scratch(int64_t n_in);

void hd_ref_embed(struct hd_stream *s, struct hd_tensor out, const struct hd_weight *w,
                  const int32_t *ids, int64_t n);
void hd_ref_rms_norm(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                     struct hd_tensor gain, float eps);
void hd_ref_matmul(struct hd_stream *s, const struct hd_matmul *products, int n_product,
                   struct hd_tensor in, enum hd_form form);
void hd_ref_matmul_heads(struct hd_stream *s, struct hd_tensor out, const struct hd_weight *w,
                         struct hd_tensor in, enum hd_form form);
void hd_ref_rope(struct hd_stream *s, struct hd_tensor x, const struct hd_rope *rope,
                 const int32_t *positions, int64_t n);
void hd_ref_kv_write(struct hd_stream *s, struct hd_tensor cache, struct hd_tensor rows,
                     const struct hd_seq_rows *seqs, int n_seq);
void hd_ref_kv_read(struct hd_stream *s, struct hd_tensor out, struct hd_tensor cache,
                    const int32_t *table, int64_t n);
void hd_ref_attention(struct hd_stream *s, struct hd_tensor out, struct hd_tensor q,
                      struct hd_tensor k, struct hd_tensor v, float scale,
                      const struct hd_seq_rows *seqs, int n_seq, enum hd_form form);
void hd_ref_silu_mul(struct hd_stream *s, struct hd_tensor out, struct hd_tensor gate,
                     struct hd_tensor up);
void hd_ref_add(struct hd_stream *s, struct hd_tensor x, struct hd_tensor y);
void hd_ref_layer_norm(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                       struct hd_tensor gain, struct hd_tensor bias, float eps);
void hd_ref_activate(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                     enum hd_activation f);
void hd_ref_attention_all(struct hd_stream *s, struct hd_tensor out, struct hd_tensor q,
                          struct hd_tensor k, struct hd_tensor v, float scale,
                          const struct hd_seq_rows *seqs, int n_seq);
void hd_ref_mean_rows(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                      const struct hd_seq_rows *seqs, int n_seq);
void hd_ref_gather_rows(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                        const int32_t *rows, int64_t n);
void hd_ref_route(struct hd_stream *s, struct hd_tensor ids, struct hd_tensor weights,
                  struct hd_tensor logits, const struct hd_router *router);
void hd_ref_moe(struct hd_stream *s, struct hd_tensor out, struct hd_tensor in,
                const struct hd_weight *gate, const struct hd_weight *up,
                const struct hd_weight *down, struct hd_tensor ids, struct hd_tensor weights,
                enum hd_form form);

#endif
