/* The op tables of the vector back ends: what is faster here, the rest from ref/. */
#include "kernels/ref/ref.h"
#include "kernels/x86/rows.h"

#define VECTOR_OPS(isa, products)                                                                  \
    {                                                                                              \
        .weight_plan = hd_pack_plan, .weight_part = hd_pack_part, .embed = hd_ref_embed,           \
        .rms_norm = hd_x86_rms_norm_##isa, .matmul = hd_x86_matmul,                                \
        .matmul_heads = hd_x86_matmul_heads, .rope = hd_ref_rope,                                  \
        .kv_write = hd_x86_kv_write_##isa, .kv_read = hd_ref_kv_read,                              \
        .attention = hd_x86_attention_##isa, .silu_mul = hd_x86_silu_mul_##isa,                    \
        .add = hd_x86_add_##isa, .layer_norm = hd_x86_layer_norm_##isa,                            \
        .activate = hd_x86_activate_##isa, .attention_all = hd_x86_attention_all_##isa,            \
        .mean_rows = hd_ref_mean_rows, .gather_rows = hd_ref_gather_rows, .route = hd_ref_route,   \
        .moe = hd_x86_moe, .int8_work = hd_x86_int8_work_##products,                               \
        .read_work = hd_x86_read_work_##isa,                                                       \
    }

const struct hd_ops hd_ops_avx2 = VECTOR_OPS(avx2, avx2);
const struct hd_ops hd_ops_avx512 = VECTOR_OPS(avx512, avx512);
const struct hd_ops hd_ops_amx = VECTOR_OPS(avx512, amx);
