/* Code-book blocks (IQ1_*, IQ2_*, IQ3_*): the books, and the way from a block of 256 elements to
 * small integers. dequantise_iq.c and the vector kernels (kernels/x86/expand.h) share it, so it is
 * inline; formulas are those of ggml's reference decoders (MIT).
 *
 * A value is d · scale · (q - 128): q a byte, scale an odd number below 32 for 16 or 32 elements.
 * All three factors together have at most 24 significant bits, so F32 products are exact. */
#ifndef HD_TENSOR_CODEBOOKS_H
#define HD_TENSOR_CODEBOOKS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "tensor/dtype.h"

/* Entries of eight or four magnitudes, the first in the lowest byte (codebooks.c). */
extern const uint64_t hd_tensor_iq2_xxs_grid[256], hd_tensor_iq2_xs_grid[512];
extern const uint64_t hd_tensor_iq2_s_grid[1024];
extern const uint32_t hd_tensor_iq3_xxs_grid[256], hd_tensor_iq3_s_grid[512];
/* Eight values -1, 0 or 1, each plus 1. */
extern const uint64_t hd_tensor_iq1_grid[2048];
/* Seven signs to eight: the last makes the number of negative ones even. */
extern const uint8_t hd_tensor_even_signs[128];
/* A byte of signs to a mask of eight bytes, 0xff where the bit is set. */
extern const uint64_t hd_tensor_sign_masks[256];
/* What a nibble of IQ4_NL and IQ4_XS, and of MXFP4, stands for. */
extern const int8_t hd_tensor_iq4_values[16], hd_tensor_mxfp4_values[16];

struct hd_codes {
    uint64_t q[32];    /* element i is byte i % 8 of q[i / 8], plus 128 */
    uint8_t scale[16]; /* per 16 elements, or the first 8 per 32 */
    float d;
};

static inline uint16_t hd_codes__u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t hd_codes__u32(const uint8_t *p)
{
    return (uint32_t)hd_codes__u16(p) | (uint32_t)hd_codes__u16(p + 2) << 16;
}

/* Eight magnitudes (1 … 127) with signs, plus 128. No byte of the sum carries: where the sign is
 * set, the byte is at most 254 before it. */
static inline uint64_t hd_codes__signed(uint64_t magnitudes, uint8_t signs)
{
    uint64_t mask = hd_tensor_sign_masks[signs], ones = 0x0101010101010101u;
    return ((magnitudes ^ mask) + (mask & ones)) ^ 0x80 * ones;
}

static inline uint64_t hd_codes__two(uint32_t first, uint32_t second)
{
    return (uint64_t)first | (uint64_t)second << 32;
}

/* f16 d; eight times: four indices, u32: four times seven signs, scale in the upper four bits. */
static inline void hd_codes_iq2_xxs(struct hd_codes *o, const uint8_t *p)
{
    o->d = hd_f16_to_f32(hd_codes__u16(p)) * 0.125f;
    p += 2;
    for (int j = 0; j < 8; j++, p += 8) {
        uint32_t more = hd_codes__u32(p + 4);
        o->scale[j] = (uint8_t)(2 * (more >> 28) + 1);
        for (int i = 0; i < 4; i++)
            o->q[4 * j + i] = hd_codes__signed(hd_tensor_iq2_xxs_grid[p[i]],
                                               hd_tensor_even_signs[more >> 7 * i & 127]);
    }
}

/* f16 d, u16[32]: nine bits of index, seven signs; sixteen 4-bit scales. */
static inline void hd_codes_iq2_xs(struct hd_codes *o, const uint8_t *p)
{
    o->d = hd_f16_to_f32(hd_codes__u16(p)) * 0.125f;
    for (int g = 0; g < 16; g++)
        o->scale[g] = (uint8_t)(2 * (p[66 + g / 2] >> 4 * (g % 2) & 15) + 1);
    for (int c = 0; c < 32; c++) {
        uint16_t code = hd_codes__u16(p + 2 + 2 * c);
        o->q[c] =
            hd_codes__signed(hd_tensor_iq2_xs_grid[code & 511], hd_tensor_even_signs[code >> 9]);
    }
}

/* f16 d, qs[32], signs[32], qh[8] (two bits per index), sixteen 4-bit scales. */
static inline void hd_codes_iq2_s(struct hd_codes *o, const uint8_t *p)
{
    o->d = hd_f16_to_f32(hd_codes__u16(p)) * 0.125f;
    for (int g = 0; g < 16; g++)
        o->scale[g] = (uint8_t)(2 * (p[74 + g / 2] >> 4 * (g % 2) & 15) + 1);
    for (int j = 0; j < 8; j++) {
        unsigned high = p[66 + j];
        for (int i = 0; i < 4; i++)
            o->q[4 * j + i] =
                hd_codes__signed(hd_tensor_iq2_s_grid[p[2 + 4 * j + i] | (high >> 2 * i & 3) << 8],
                                 p[34 + 4 * j + i]);
    }
}

/* f16 d, qs[64], u32[8] as in IQ2_XXS. */
static inline void hd_codes_iq3_xxs(struct hd_codes *o, const uint8_t *p)
{
    o->d = hd_f16_to_f32(hd_codes__u16(p)) * 0.25f;
    for (int j = 0; j < 8; j++) {
        uint32_t more = hd_codes__u32(p + 66 + 4 * j);
        const uint8_t *qs = p + 2 + 8 * j;
        o->scale[j] = (uint8_t)(2 * (more >> 28) + 1);
        for (int i = 0; i < 4; i++)
            o->q[4 * j + i] = hd_codes__signed(hd_codes__two(hd_tensor_iq3_xxs_grid[qs[2 * i]],
                                                             hd_tensor_iq3_xxs_grid[qs[2 * i + 1]]),
                                               hd_tensor_even_signs[more >> 7 * i & 127]);
    }
}

/* f16 d, qs[64], qh[8] (a ninth bit per index), signs[32], eight 4-bit scales. */
static inline void hd_codes_iq3_s(struct hd_codes *o, const uint8_t *p)
{
    o->d = hd_f16_to_f32(hd_codes__u16(p));
    for (int j = 0; j < 8; j++) {
        const uint8_t *qs = p + 2 + 8 * j;
        unsigned high = p[66 + j];
        o->scale[j] = (uint8_t)(2 * (p[106 + j / 2] >> 4 * (j % 2) & 15) + 1);
        for (int i = 0; i < 4; i++) {
            uint32_t first = hd_tensor_iq3_s_grid[qs[2 * i] | (high >> 2 * i & 1) << 8];
            uint32_t second = hd_tensor_iq3_s_grid[qs[2 * i + 1] | (high >> (2 * i + 1) & 1) << 8];
            o->q[4 * j + i] = hd_codes__signed(hd_codes__two(first, second), p[74 + 4 * j + i]);
        }
    }
}

/* Eight times (value ± 1/8) for an entry of the IQ1 book, plus 128: 8 · (entry - 1) ± 1 + 128. */
static inline uint64_t hd_codes__iq1(unsigned index, bool minus)
{
    const uint64_t ones = 0x0101010101010101u;
    return (hd_tensor_iq1_grid[index] << 3) + (minus ? 119 : 121) * ones;
}

/* f16 d, qs[32], u16[8]: four times three bits of index, three bits of scale, the sign of 1/8. */
static inline void hd_codes_iq1_s(struct hd_codes *o, const uint8_t *p)
{
    o->d = hd_f16_to_f32(hd_codes__u16(p)) * 0.125f;
    for (int j = 0; j < 8; j++) {
        unsigned more = hd_codes__u16(p + 34 + 2 * j);
        o->scale[j] = (uint8_t)(2 * (more >> 12 & 7) + 1);
        for (int i = 0; i < 4; i++)
            o->q[4 * j + i] =
                hd_codes__iq1(p[2 + 4 * j + i] | (more >> 3 * i & 7) << 8, more >> 15);
    }
}

/* qs[32], qh[16]: nibbles of three bits of index and the sign of 1/8; u16[4]: four times three bits
 * of scale, a nibble of the f16 d. */
static inline void hd_codes_iq1_m(struct hd_codes *o, const uint8_t *p)
{
    unsigned d = 0;
    for (int i = 0; i < 4; i++) {
        unsigned more = hd_codes__u16(p + 48 + 2 * i);
        d |= more >> 12 << 4 * i;
        for (int g = 0; g < 4; g++)
            o->scale[4 * i + g] = (uint8_t)(2 * (more >> 3 * g & 7) + 1);
    }
    o->d = hd_f16_to_f32((uint16_t)d) * 0.125f;
    for (int c = 0; c < 32; c += 2) {
        unsigned more = p[32 + c / 2];
        o->q[c] = hd_codes__iq1(p[c] | (more & 0x07) << 8, more & 0x08);
        o->q[c + 1] = hd_codes__iq1(p[c + 1] | (more & 0x70) << 4, more & 0x80);
    }
}

/* The E8M0 scale of MXFP4 for values that are doubled: 2^(e - 128), denormals included. */
static inline float hd_e8m0_half(uint8_t e)
{
    uint32_t bits = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

#endif
