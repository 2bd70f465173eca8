/* expand.h with AVX2: the codes of four cells of a row (32 elements) come from the book at once,
 * and eight rows of them are transposed to eight half lines. The formulas are those of
 * tensor/codebooks.h; the bits are the same. */
#ifndef HD_KERNELS_X86_EXPAND_AVX2_H
#define HD_KERNELS_X86_EXPAND_AVX2_H

#include "kernels/x86/expand_bits.h"

/* Magnitudes with the signs of four bytes, plus 128. */
HD_EXPAND __m256i expand_signed(__m256i magnitudes, uint32_t signs)
{
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                            2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i mask = _mm256_shuffle_epi8(_mm256_set1_epi32((int)signs), spread);
    mask = _mm256_cmpeq_epi8(_mm256_and_si256(mask, bit), bit);
    __m256i v = _mm256_sub_epi8(_mm256_xor_si256(magnitudes, mask), mask);
    return _mm256_xor_si256(v, _mm256_set1_epi8((char)0x80));
}

/* Elements 64k … 64k + 63 of a block, plus 128. */
HD_EXPAND void expand_cells(__m256i out[2], enum hd_dtype dtype, const uint8_t *p, int k)
{
    uint64_t signs = dtype == HD_IQ1_S || dtype == HD_IQ1_M ? 0 : expand_signs(dtype, p, k);
    for (int h = 0; h < 2; h++, signs >>= 32) {
        __m256i v = expand_entries(dtype, p, 2 * k + h);
        if (dtype != HD_IQ1_S && dtype != HD_IQ1_M) {
            out[h] = expand_signed(v, (uint32_t)signs);
            continue;
        }
        /* a bit per cell, in IQ1_S one for all: the eighth is taken off, not added */
        const __m256i bits = dtype == HD_IQ1_S ? _mm256_set1_epi64x(0x8000)
                                               : _mm256_setr_epi64x(0x8, 0x80, 0x800, 0x8000);
        unsigned more = hd_codes__u16(p + (dtype == HD_IQ1_S ? 34 : 32) + 4 * k + 2 * h);
        __m256i minus = _mm256_and_si256(_mm256_set1_epi64x(more), bits);
        minus = _mm256_cmpeq_epi64(minus, bits);
        __m256i offset = _mm256_add_epi8(_mm256_set1_epi8(121), _mm256_add_epi8(minus, minus));
        out[h] = _mm256_add_epi8(_mm256_slli_epi64(v, 3), offset);
    }
}

/* v[r]: eight dwords of row r; becomes dword j of all rows. */
HD_EXPAND void expand_transpose(__m256i v[8])
{
    __m256i t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) { /* v[i + j]: dwords j and j + 4, rows i … i + 3 */
        v[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int j = 0; j < 4; j++) {
        t[j] = _mm256_permute2x128_si256(v[j], v[4 + j], 0x20);
        t[4 + j] = _mm256_permute2x128_si256(v[j], v[4 + j], 0x31);
    }
    for (int i = 0; i < 8; i++)
        v[i] = t[i];
}

/* Eight rows of 16 bytes; byte g of all rows goes to out + 16 g. */
HD_EXPAND void expand_put_scales(uint8_t *out, __m128i v[8], int n)
{
    __m128i t[8];
    for (int step = 0; step < 3; step++) { /* three rounds of interleaving rows i and i + 4 */
        for (int i = 0; i < 4; i++) {
            t[2 * i] = _mm_unpacklo_epi8(v[i], v[i + 4]);
            t[2 * i + 1] = _mm_unpackhi_epi8(v[i], v[i + 4]);
        }
        for (int i = 0; i < 8; i++)
            v[i] = t[i];
    }
    for (int g = 0; g < n; g += 2) {
        _mm_storel_epi64((__m128i *)(out + 16 * g), v[g / 2]);
        _mm_storel_epi64((__m128i *)(out + 16 * g + 16), _mm_unpackhi_epi64(v[g / 2], v[g / 2]));
    }
}

/* Rows 8 half … 8 half + 7 of a unit. */
HD_EXPAND void expand_half(uint8_t *out, const struct hd_pack *pack, const uint8_t *unit, int half)
{
    const enum hd_dtype dtype = pack->dtype;
    const int block_bytes = pack->unit_bytes / HD_PANEL;
    __m128i scale[8];
    unit += 8 * half * block_bytes;
    for (int r = 0; r < 8; r++) {
        const float d = expand_d(dtype, unit + r * block_bytes);
        memcpy(out + 32 * half + 4 * r, &d, 4);
        scale[r] = expand_scales(dtype, unit + r * block_bytes);
    }
    expand_put_scales(out + 64 + 8 * half, scale, 256 / pack->group);
    out += HD_EXPANDED_HEAD + 32 * half;
    for (int k = 0; k < 4; k++, out += 1024) {
        __m256i v[2][8];
        for (int r = 0; r < 8; r++) {
            __m256i cells[2];
            expand_cells(cells, dtype, unit + r * block_bytes, k);
            v[0][r] = cells[0];
            v[1][r] = cells[1];
        }
        for (int h = 0; h < 2; h++) {
            expand_transpose(v[h]);
            for (int j = 0; j < 8; j++)
                _mm256_storeu_si256((__m256i *)(out + 512 * h + 64 * j), v[h][j]);
        }
    }
}

/* Whole halves of a unit. */
HD_EXPAND void expand_rows(uint8_t *out, const struct hd_pack *pack, const uint8_t *unit, int begin,
                           int end)
{
    for (int row = begin; row < end; row += 8)
        expand_half(out, pack, unit, row / 8);
}

#endif
