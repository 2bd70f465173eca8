/* Exported by rows_avx2.c, rows_avx512.c, attention_avx2.c and attention_avx512.c; see the
 * *_impl.h files. */
#ifndef HD_KERNELS_X86_ROWS_H
#define HD_KERNELS_X86_ROWS_H

#include "kernels/x86/x86.h"

#define HD_ROW_OPS(isa)                                                                            \
    void hd_x86_rms_norm_##isa(struct hd_stream *, struct hd_tensor, struct hd_tensor,             \
                               struct hd_tensor, float);                                           \
    void hd_x86_silu_mul_row_##isa(float *, const float *, const float *, int64_t);                \
    void hd_x86_silu_mul_##isa(struct hd_stream *, struct hd_tensor, struct hd_tensor,             \
                               struct hd_tensor);                                                  \
    void hd_x86_add_##isa(struct hd_stream *, struct hd_tensor, struct hd_tensor);                 \
    void hd_x86_layer_norm_##isa(struct hd_stream *, struct hd_tensor, struct hd_tensor,           \
                                 struct hd_tensor, struct hd_tensor, float);                       \
    void hd_x86_activate_##isa(struct hd_stream *, struct hd_tensor, struct hd_tensor,             \
                               enum hd_activation);                                                \
    void hd_x86_attention_all_##isa(struct hd_stream *, struct hd_tensor, struct hd_tensor,        \
                                    struct hd_tensor, struct hd_tensor, float,                     \
                                    const struct hd_seq_rows *, int);                              \
    void hd_x86_kv_write_##isa(struct hd_stream *, struct hd_tensor, struct hd_tensor,             \
                               const struct hd_seq_rows *, int);                                   \
    void hd_x86_attention_##isa(struct hd_stream *, struct hd_tensor, struct hd_tensor,            \
                                struct hd_tensor, struct hd_tensor, float,                         \
                                const struct hd_seq_rows *, int, enum hd_form);                    \
    double hd_x86_int8_work_##isa(int64_t);                                                        \
    uint64_t hd_x86_read_work_##isa(const void *, size_t);
HD_ROW_OPS(avx2)
HD_ROW_OPS(avx512)
double hd_x86_int8_work_amx(int64_t);

#endif
