/* expand.h with AVX-512: the entries of eight cells of a row (64 elements) come from the book at
 * once, and 16 rows of them are transposed to 16 lines. The formulas are those of
 * tensor/codebooks.h; the bits are the same. */
#ifndef HD_KERNELS_X86_EXPAND_AVX512_H
#define HD_KERNELS_X86_EXPAND_AVX512_H

#include "kernels/x86/expand_bits.h"

/* Elements 64k … 64k + 63 of a block, plus 128. */
HD_EXPAND __m512i expand_cells(enum hd_dtype dtype, const uint8_t *p, int k)
{
    __m512i v = _mm512_inserti64x4(_mm512_castsi256_si512(expand_entries(dtype, p, 2 * k)),
                                   expand_entries(dtype, p, 2 * k + 1), 1);
    if (dtype == HD_IQ1_S || dtype == HD_IQ1_M) {
        /* a bit per cell, in IQ1_S one for four: the eighth is taken off, not added */
        const __m512i bits = dtype == HD_IQ1_S
                                 ? _mm512_setr_epi64(0x8000, 0x8000, 0x8000, 0x8000, 0x80000000,
                                                     0x80000000, 0x80000000, 0x80000000)
                                 : _mm512_setr_epi64(0x8, 0x80, 0x800, 0x8000, 0x80000, 0x800000,
                                                     0x8000000, 0x80000000);
        uint32_t more = hd_codes__u32(p + (dtype == HD_IQ1_S ? 34 : 32) + 4 * k);
        __mmask8 minus = _mm512_test_epi64_mask(_mm512_set1_epi64((long long)more), bits);
        return _mm512_add_epi8(
            _mm512_slli_epi64(v, 3),
            _mm512_mask_blend_epi64(minus, _mm512_set1_epi8(121), _mm512_set1_epi8(119)));
    }
    v = _mm512_mask_sub_epi8(v, (__mmask64)expand_signs(dtype, p, k), _mm512_setzero_si512(), v);
    return _mm512_xor_si512(v, _mm512_set1_epi8((char)0x80));
}

/* v[r]: 16 dwords of row r; becomes dword j of all rows. */
HD_EXPAND void expand_transpose(__m512i v[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* v[i + j]: dword j of every 4, rows i … i + 3 */
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int j = 0; j < 4; j++) { /* quarters: 128 bits of rows 0-3, 4-7, 8-11, 12-15 */
        __m512i a = _mm512_shuffle_i32x4(v[j], v[4 + j], 0x44);
        __m512i b = _mm512_shuffle_i32x4(v[j], v[4 + j], 0xee);
        __m512i c = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0x44);
        __m512i d = _mm512_shuffle_i32x4(v[8 + j], v[12 + j], 0xee);
        t[j] = _mm512_shuffle_i32x4(a, c, 0x88);
        t[4 + j] = _mm512_shuffle_i32x4(a, c, 0xdd);
        t[8 + j] = _mm512_shuffle_i32x4(b, d, 0x88);
        t[12 + j] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
    for (int i = 0; i < 16; i++)
        v[i] = t[i];
}

/* 16 rows of 16 bytes; byte g of all rows goes to out + 16 g, for n values of g. */
HD_EXPAND void expand_put_scales(uint8_t *out, const __m128i row[16], int n)
{
    __m128i v[16], t[16];
    for (int r = 0; r < 16; r++)
        v[r] = row[r];
    for (int step = 0; step < 4; step++) { /* four rounds of interleaving rows i and i + 8 */
        for (int i = 0; i < 8; i++) {
            t[2 * i] = _mm_unpacklo_epi8(v[i], v[i + 8]);
            t[2 * i + 1] = _mm_unpackhi_epi8(v[i], v[i + 8]);
        }
        for (int i = 0; i < 16; i++)
            v[i] = t[i];
    }
    for (int g = 0; g < n; g++)
        _mm_storeu_si128((__m128i *)(out + 16 * g), v[g]);
}

/* A unit, always all of it. */
HD_EXPAND void expand_rows(uint8_t *out, const struct hd_pack *pack, const uint8_t *unit, int begin,
                           int end)
{
    const enum hd_dtype dtype = pack->dtype;
    const int block_bytes = pack->unit_bytes / HD_PANEL;
    __m128i scale[16];
    for (int r = 0; r < 16; r++) {
        const float d = expand_d(dtype, unit + r * block_bytes);
        memcpy(out + 4 * r, &d, 4);
        scale[r] = expand_scales(dtype, unit + r * block_bytes);
    }
    expand_put_scales(out + 64, scale, 256 / pack->group);
    for (int k = 0; k < 4; k++) {
        __m512i v[16];
        for (int r = 0; r < 16; r++)
            v[r] = expand_cells(dtype, unit + r * block_bytes, k);
        expand_transpose(v);
        for (int j = 0; j < 16; j++)
            _mm512_storeu_si512(out + HD_EXPANDED_HEAD + 1024 * k + 64 * j, v[j]);
    }
}

#endif
