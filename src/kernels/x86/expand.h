/* A unit of a code-book type (IQ1_*, IQ2_*, IQ3_*) as the kernels read it, made just before the
 * product: weights stay in memory as they are in the file, at 1.6 to 3.4 bits each.
 *
 *   stored:   the 16 rows' blocks of 256 elements, one after another
 *   expanded: f32 d[16] │ u8 scale[16 or 8][16] (256 bytes) │ eight blocks of 8-bit lines (pack.h)
 *
 * The values are those of tensor/codebooks.h, plus 128, so everything stays exact. Included by each
 * instruction set's panel file and compiled for it. */
#ifndef HD_KERNELS_X86_EXPAND_H
#define HD_KERNELS_X86_EXPAND_H

#include <string.h>

#include "kernels/x86/pack.h"
#include "tensor/codebooks.h"

enum { HD_EXPANDED_HEAD = 320, HD_EXPANDED_BYTES = HD_EXPANDED_HEAD + 8 * 512 };

#if defined(__AVX512BW__)
#include "kernels/x86/expand_avx512.h"
#elif defined(__AVX2__)
#include "kernels/x86/expand_avx2.h"
#else

static inline __attribute__((always_inline)) void
hd_x86_codes(struct hd_codes *o, enum hd_dtype dtype, const uint8_t *block)
{
    switch (dtype) {
    case HD_IQ1_S:
        hd_codes_iq1_s(o, block);
        break;
    case HD_IQ1_M:
        hd_codes_iq1_m(o, block);
        break;
    case HD_IQ2_XXS:
        hd_codes_iq2_xxs(o, block);
        break;
    case HD_IQ2_XS:
        hd_codes_iq2_xs(o, block);
        break;
    case HD_IQ2_S:
        hd_codes_iq2_s(o, block);
        break;
    case HD_IQ3_XXS:
        hd_codes_iq3_xxs(o, block);
        break;
    default:
        hd_codes_iq3_s(o, block);
        break;
    }
}

static inline void expand_rows(uint8_t *out, const struct hd_pack *pack, const uint8_t *unit,
                               int begin, int end)
{
    const size_t block_bytes = (size_t)pack->unit_bytes / HD_PANEL;
    for (int r = begin; r < end; r++) {
        struct hd_codes codes;
        hd_x86_codes(&codes, pack->dtype, unit + (size_t)r * block_bytes);
        memcpy(out + 4 * r, &codes.d, 4);
        for (int g = 0; g < 256 / pack->group; g++)
            out[64 + 16 * g + r] = codes.scale[g];
        uint8_t *line = out + HD_EXPANDED_HEAD + 4 * r;
        for (int c = 0; c < 32; c++, line += 128) {
            uint32_t low = (uint32_t)codes.q[c], high = (uint32_t)(codes.q[c] >> 32);
            memcpy(line, &low, 4);
            memcpy(line + 64, &high, 4);
        }
    }
}

#endif

/* Rows [begin, end) of a unit: all 16, or either half where that is less work. */
static inline __attribute__((always_inline)) void
hd_x86_expand(uint8_t *out, const struct hd_pack *pack, const uint8_t *unit, int begin, int end)
{
    expand_rows(out, pack, unit, begin, end);
}

/* Declares `name`: the unit as it is, or expanded. */
#define EXPANDED(name, pack, stored, begin, end)                                                   \
    uint8_t name##_expanded[HD_EXPANDED_BYTES] __attribute__((aligned(64)));                       \
    if ((pack)->codes)                                                                             \
        hd_x86_expand(name##_expanded, pack, stored, begin, end);                                  \
    const uint8_t *name = (pack)->codes ? name##_expanded : (stored)

#endif
