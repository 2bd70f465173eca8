/* Blocks to F32, by the formulas of the GGUF block formats (ggml's ggml-common.h and its reference
 * decoders, MIT): products and sums in the published order, so that the bits agree.
 *
 * All blocks are read byte by byte: a row in a file has no alignment. f16 values are little-endian.
 */
#include "tensor/dequantise.h"

#include <string.h>

#include "tensor/dtype.h"

static float f16_at(const uint8_t *p)
{
    return hd_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

void hd_tensor__f32(float *out, const void *blocks, int64_t n)
{
    memcpy(out, blocks, (size_t)n * sizeof *out);
}

void hd_tensor__f16(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t i = 0; i < n; i++)
        out[i] = f16_at(p + 2 * i);
}

void hd_tensor__bf16(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t i = 0; i < n; i++)
        out[i] = hd_bf16_to_f32((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
}

/* --- blocks of 32: element i is the low nibble of byte i, element i + 16 the high one --------- */

/* d f16, 16 bytes of nibbles: d · (q - 8) */
void hd_tensor__q4_0(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < n / 32; b++, p += 18, out += 32) {
        float d = f16_at(p);
        for (int i = 0; i < 16; i++) {
            out[i] = (float)((p[2 + i] & 15) - 8) * d;
            out[i + 16] = (float)((p[2 + i] >> 4) - 8) * d;
        }
    }
}

/* d f16, m f16, nibbles: d · q + m */
void hd_tensor__q4_1(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < n / 32; b++, p += 20, out += 32) {
        float d = f16_at(p), m = f16_at(p + 2);
        for (int i = 0; i < 16; i++) {
            out[i] = (float)(p[4 + i] & 15) * d + m;
            out[i + 16] = (float)(p[4 + i] >> 4) * d + m;
        }
    }
}

/* d f16, 32 fifth bits, nibbles: d · (q - 16) */
void hd_tensor__q5_0(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < n / 32; b++, p += 22, out += 32) {
        float d = f16_at(p);
        uint32_t high = u32_at(p + 2);
        for (int i = 0; i < 16; i++) {
            int lo = (p[6 + i] & 15) | (int)(high >> i & 1) << 4;
            int hi = p[6 + i] >> 4 | (int)(high >> (i + 16) & 1) << 4;
            out[i] = (float)(lo - 16) * d;
            out[i + 16] = (float)(hi - 16) * d;
        }
    }
}

/* d f16, m f16, 32 fifth bits, nibbles: d · q + m */
void hd_tensor__q5_1(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < n / 32; b++, p += 24, out += 32) {
        float d = f16_at(p), m = f16_at(p + 2);
        uint32_t high = u32_at(p + 4);
        for (int i = 0; i < 16; i++) {
            int lo = (p[8 + i] & 15) | (int)(high >> i & 1) << 4;
            int hi = p[8 + i] >> 4 | (int)(high >> (i + 16) & 1) << 4;
            out[i] = (float)lo * d + m;
            out[i + 16] = (float)hi * d + m;
        }
    }
}

/* d f16, 32 int8 */
void hd_tensor__q8_0(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < n / 32; b++, p += 34, out += 32) {
        float d = f16_at(p);
        for (int i = 0; i < 32; i++)
            out[i] = (float)(int8_t)p[2 + i] * d;
    }
}

/* --- super-blocks of 256 ---------------------------------------------------------------------- */

/* scales[16] (low nibble: scale, high: minimum), qs[64], d f16, dmin f16.
 * Each half of 128 elements lies in 32 bytes, two bits per 32 elements; a scale covers 16. */
void hd_tensor__q2_k(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < n / 256; b++, p += 84, out += 256) {
        float d = f16_at(p + 80), dmin = f16_at(p + 82);
        for (int g = 0; g < 16; g++) { /* groups of 16 elements */
            const uint8_t *q = p + 16 + g / 8 * 32 + g % 2 * 16;
            int shift = g / 2 % 4 * 2;
            float dl = d * (float)(p[g] & 15), ml = dmin * (float)(p[g] >> 4);
            for (int i = 0; i < 16; i++)
                out[16 * g + i] = dl * (float)(q[i] >> shift & 3) - ml;
        }
    }
}

/* hmask[32], qs[64], scales[12], d f16. As Q2_K, with a third bit in hmask (bit = 32-element group;
 * a clear bit subtracts 4) and sixteen 6-bit scales, offset 32: low nibbles in bytes 0-7, then the
 * upper two bits, four scales to a byte. */
void hd_tensor__q3_k(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < n / 256; b++, p += 110, out += 256) {
        float d = f16_at(p + 108);
        const uint8_t *sc = p + 96;
        for (int g = 0; g < 16; g++) {
            const uint8_t *q = p + 32 + g / 8 * 32 + g % 2 * 16;
            const uint8_t *h = p + g % 2 * 16;
            int shift = g / 2 % 4 * 2, bit = g / 2;
            int low = g < 8 ? sc[g] & 15 : sc[g - 8] >> 4;
            int high = sc[8 + g % 4] >> (g / 4 * 2) & 3;
            float dl = d * (float)((low | high << 4) - 32);
            for (int i = 0; i < 16; i++)
                out[16 * g + i] = dl * (float)((q[i] >> shift & 3) - (h[i] >> bit & 1 ? 0 : 4));
        }
    }
}

/* The eight 6-bit scales and minima of Q4_K and Q5_K: the first four of each in the low six bits of
 * bytes 0-3 and 4-7, the others' low nibbles in bytes 8-11 and their top bits above the first. */
static void scale_min(const uint8_t *s, int j, float *scale, float *min)
{
    if (j < 4) {
        *scale = (float)(s[j] & 63);
        *min = (float)(s[j + 4] & 63);
    } else {
        *scale = (float)((s[j + 4] & 15) | s[j - 4] >> 6 << 4);
        *min = (float)(s[j + 4] >> 4 | s[j] >> 6 << 4);
    }
}

/* d f16, dmin f16, scales[12], qs[128]: each 32 bytes hold 64 elements, low nibbles first. */
void hd_tensor__q4_k(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < n / 256; b++, p += 144, out += 256) {
        float d = f16_at(p), dmin = f16_at(p + 2);
        for (int j = 0; j < 8; j++) {
            const uint8_t *q = p + 16 + j / 2 * 32;
            int shift = j % 2 * 4;
            float scale, min;
            scale_min(p + 4, j, &scale, &min);
            float dl = d * scale, ml = dmin * min;
            for (int i = 0; i < 32; i++)
                out[32 * j + i] = dl * (float)(q[i] >> shift & 15) - ml;
        }
    }
}

/* d f16, dmin f16, scales[12], qh[32], qs[128]: as Q4_K, fifth bit of group j in bit j of qh. */
void hd_tensor__q5_k(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < n / 256; b++, p += 176, out += 256) {
        float d = f16_at(p), dmin = f16_at(p + 2);
        const uint8_t *h = p + 16;
        for (int j = 0; j < 8; j++) {
            const uint8_t *q = p + 48 + j / 2 * 32;
            int shift = j % 2 * 4;
            float scale, min;
            scale_min(p + 4, j, &scale, &min);
            float dl = d * scale, ml = dmin * min;
            for (int i = 0; i < 32; i++)
                out[32 * j + i] = dl * (float)((q[i] >> shift & 15) | (h[i] >> j & 1) << 4) - ml;
        }
    }
}

/* ql[128], qh[64], scales[16] int8, d f16: per half of 128, 64 bytes of nibbles (elements 0-63 low,
 * 64-127 high) and 32 bytes of upper bit pairs; offset 32; a scale covers 16. */
void hd_tensor__q6_k(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < n / 256; b++, p += 210, out += 256) {
        float d = f16_at(p + 208);
        for (int g = 0; g < 16; g++) {
            int half = g / 8, quarter = g % 8 / 2; /* 32 elements each */
            const uint8_t *l = p + half * 64 + quarter % 2 * 32 + g % 2 * 16;
            const uint8_t *h = p + 128 + half * 32 + g % 2 * 16;
            int shift = quarter / 2 * 4, shift_h = quarter * 2;
            float dl = d * (float)(int8_t)p[192 + g];
            for (int i = 0; i < 16; i++) {
                int q = (l[i] >> shift & 15) | (h[i] >> shift_h & 3) << 4;
                out[16 * g + i] = dl * (float)(q - 32);
            }
        }
    }
}
