#include "kernels/ref/ref.h"

#include <string.h>

/* The integer probe in plain C: 32-bit sums of 8-bit products, as the compiler makes them. */
static double int8_work(int64_t steps)
{
    int8_t a[64];
    int32_t sum[64] = {0};
    for (int i = 0; i < 64; i++)
        a[i] = (int8_t)(i - 32);
    for (int64_t s = 0; s < steps / 16; s++) {
        __asm__ volatile("" : "+m"(a)); /* or the products would be taken out of the loop */
        for (int i = 0; i < 64; i++)
            sum[i] += a[i] * a[63 - i];
    }
    volatile int32_t keep = sum[steps % 64];
    return 2.0 * 64 * (double)(steps / 16) + 0.0 * (double)keep;
}

static uint64_t read_work(const void *data, size_t bytes)
{
    const uint8_t *p = data;
    uint64_t sum[4] = {0}, word;
    for (size_t i = 0; i + 32 <= bytes; i += 32)
        for (int j = 0; j < 4; j++) {
            memcpy(&word, p + i + 8 * j, 8);
            sum[j] += word;
        }
    return sum[0] + sum[1] + sum[2] + sum[3];
}

const struct hd_ops hd_ops_ref = {
    .embed = hd_ref_embed,
    .rms_norm = hd_ref_rms_norm,
    .matmul = hd_ref_matmul,
    .matmul_heads = hd_ref_matmul_heads,
    .rope = hd_ref_rope,
    .kv_write = hd_ref_kv_write,
    .kv_read = hd_ref_kv_read,
    .attention = hd_ref_attention,
    .silu_mul = hd_ref_silu_mul,
    .add = hd_ref_add,
    .layer_norm = hd_ref_layer_norm,
    .activate = hd_ref_activate,
    .attention_all = hd_ref_attention_all,
    .mean_rows = hd_ref_mean_rows,
    .gather_rows = hd_ref_gather_rows,
    .route = hd_ref_route,
    .moe = hd_ref_moe,
    .int8_work = int8_work,
    .read_work = read_work,
};
