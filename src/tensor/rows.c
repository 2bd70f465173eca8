/* The row forms of quantised Hugging Face checkpoints: what a matrix becomes when it is read, so
 * that everything above sees rows of blocks. Nothing is rounded on the way.
 *
 *   FP8      DeepSeek-V3's weight_scale_inv: w = scale · e4m3fn(q), in F32
 *   INT4/8   AutoAWQ and GPTQ: w = scale · (q - zero). scale has 11 significant bits and q - zero
 *            at most 9, so the F32 product is exact (the packages round it to F16).
 *   NF4/FP4  bitsandbytes: w = absmax · code[q], in F32
 *
 * The codes are figures of bitsandbytes (MIT): functional.py, create_normal_map and the FP4 table;
 * as F32 they are what its files carry as quant_map. */
#include <stddef.h>
#include <string.h>

#include "tensor/dequantise.h"

static const float nf4[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

static const float fp4[16] = {
    0.0f,
    0.005208333333333333f,
    0.6666666666666666f,
    1.0f,
    0.3333333333333333f,
    0.5f,
    0.16666666666666666f,
    0.25f,
    0.0f,
    -0.005208333333333333f,
    -0.6666666666666666f,
    -1.0f,
    -0.3333333333333333f,
    -0.5f,
    -0.16666666666666666f,
    -0.25f,
};

static float f16_at(const uint8_t *p)
{
    return hd_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

/* Elements of block b of a row of n. */
static int block_length(int64_t n, int64_t b, int block)
{
    return n - b * block < block ? (int)(n - b * block) : block;
}

/* Sign, four bits of exponent (bias 7), three of mantissa; no infinities, all ones is NaN
 * ("FP8 formats for deep learning", Micikevicius et al. 2022). */
static float e4m3_to_f32(uint8_t v)
{
    uint32_t magnitude = v & 0x7f, bits;
    float f;
    if (magnitude == 0x7f)
        bits = 0x7fc00000;
    else if (magnitude >= 8)
        bits = (magnitude << 20) + (120u << 23);
    else {
        f = (float)magnitude * 0x1p-9f;
        memcpy(&bits, &f, 4);
    }
    bits |= (uint32_t)(v & 0x80) << 24;
    memcpy(&f, &bits, 4);
    return f;
}

static void fp8_128(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b * 128 < n; b++, p += 132, out += 128) {
        float scale;
        memcpy(&scale, p, 4);
        for (int i = 0; i < block_length(n, b, 128); i++)
            out[i] = e4m3_to_f32(p[4 + i]) * scale;
    }
}

static void int4(float *out, const uint8_t *p, int64_t n, int block)
{
    for (int64_t b = 0; b * block < n; b++, p += 3 + block / 2, out += block) {
        float scale = f16_at(p);
        for (int i = 0; i < block_length(n, b, block); i++) {
            int q = p[3 + i / 2] >> (i % 2 * 4) & 15;
            out[i] = (float)(q - p[2]) * scale;
        }
    }
}

static void int8(float *out, const uint8_t *p, int64_t n, int block)
{
    for (int64_t b = 0; b * block < n; b++, p += 3 + block, out += block) {
        float scale = f16_at(p);
        for (int i = 0; i < block_length(n, b, block); i++)
            out[i] = (float)(p[3 + i] - p[2]) * scale;
    }
}

static void code4(float *out, const uint8_t *p, int64_t n, const float *code)
{
    for (int64_t b = 0; b * 64 < n; b++, p += 36, out += 64) {
        float scale;
        memcpy(&scale, p, 4);
        for (int i = 0; i < block_length(n, b, 64); i++)
            out[i] = code[p[4 + i / 2] >> (i % 2 * 4) & 15] * scale;
    }
}

static void int4_32(float *out, const void *blocks, int64_t n)
{
    int4(out, blocks, n, 32);
}

static void int4_64(float *out, const void *blocks, int64_t n)
{
    int4(out, blocks, n, 64);
}

static void int4_128(float *out, const void *blocks, int64_t n)
{
    int4(out, blocks, n, 128);
}

static void int8_32(float *out, const void *blocks, int64_t n)
{
    int8(out, blocks, n, 32);
}

static void int8_64(float *out, const void *blocks, int64_t n)
{
    int8(out, blocks, n, 64);
}

static void int8_128(float *out, const void *blocks, int64_t n)
{
    int8(out, blocks, n, 128);
}

static void nf4_64(float *out, const void *blocks, int64_t n)
{
    code4(out, blocks, n, nf4);
}

static void fp4_64(float *out, const void *blocks, int64_t n)
{
    code4(out, blocks, n, fp4);
}

static const struct hd_dtype_info infos[HD_OWN_TYPES_END - HD_OWN_TYPES] = {
    [HD_FP8_128 - HD_OWN_TYPES] = {"FP8_128", 128, 132, fp8_128},
    [HD_INT4_32 - HD_OWN_TYPES] = {"INT4_32", 32, 19, int4_32},
    [HD_INT4_64 - HD_OWN_TYPES] = {"INT4_64", 64, 35, int4_64},
    [HD_INT4_128 - HD_OWN_TYPES] = {"INT4_128", 128, 67, int4_128},
    [HD_INT8_32 - HD_OWN_TYPES] = {"INT8_32", 32, 35, int8_32},
    [HD_INT8_64 - HD_OWN_TYPES] = {"INT8_64", 64, 67, int8_64},
    [HD_INT8_128 - HD_OWN_TYPES] = {"INT8_128", 128, 131, int8_128},
    [HD_NF4_64 - HD_OWN_TYPES] = {"NF4_64", 64, 36, nf4_64},
    [HD_FP4_64 - HD_OWN_TYPES] = {"FP4_64", 64, 36, fp4_64},
};

const struct hd_dtype_info *hd_tensor__own_info(int dtype)
{
    if (dtype < HD_OWN_TYPES || dtype >= HD_OWN_TYPES_END)
        return NULL;
    return &infos[dtype - HD_OWN_TYPES];
}

const float *hd_dtype_code(int dtype)
{
    return dtype == HD_NF4_64 ? nf4 : dtype == HD_FP4_64 ? fp4 : NULL;
}
