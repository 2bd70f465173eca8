/* expand.h with AVX-512: the codes of eight cells of a row (64 elements) are gathered from the book
 * at once, and 16 rows of them transposed to 16 lines. The formulas are those of
 * tensor/codebooks.h; the bits are the same. */
#ifndef HD_KERNELS_X86_EXPAND_AVX512_H
#define HD_KERNELS_X86_EXPAND_AVX512_H

#include <immintrin.h>

#define HD_EXPAND static inline __attribute__((always_inline))

HD_EXPAND uint64_t expand_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* Eight bytes of seven signs each: the eighth makes their number even. */
HD_EXPAND uint64_t expand_even(uint64_t seven)
{
    uint64_t parity = seven ^ seven >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return seven | (parity & 0x0101010101010101u) << 7;
}

/* Twice 28 bits: four times seven signs each, as in IQ2_XXS and IQ3_XXS. */
HD_EXPAND uint64_t expand_signs(uint32_t first, uint32_t second)
{
    uint64_t all = (first & 0x0fffffffu) | (uint64_t)(second & 0x0fffffffu) << 28;
    return expand_even(_pdep_u64(all, 0x7f7f7f7f7f7f7f7fu));
}

/* Eight entries of a book of eight bytes, sixteen of one of four: single loads, which no processor
 * does slower than its gather instructions. */
HD_EXPAND __m128i expand_two(const uint64_t *book, uint64_t first, uint64_t second)
{
    __m128i low = _mm_loadl_epi64((const __m128i *)(book + first));
    return _mm_insert_epi64(low, (long long)book[second], 1);
}

HD_EXPAND __m512i expand_gather8(const uint64_t *book, __m512i index)
{
    uint64_t i[8] __attribute__((aligned(64)));
    _mm512_store_si512(i, index);
    __m256i low = _mm256_set_m128i(expand_two(book, i[2], i[3]), expand_two(book, i[0], i[1]));
    __m256i high = _mm256_set_m128i(expand_two(book, i[6], i[7]), expand_two(book, i[4], i[5]));
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

HD_EXPAND __m128i expand_four(const uint32_t *book, const uint32_t *i)
{
    __m128i v = _mm_loadu_si32(book + i[0]);
    v = _mm_insert_epi32(v, (int)book[i[1]], 1);
    v = _mm_insert_epi32(v, (int)book[i[2]], 2);
    return _mm_insert_epi32(v, (int)book[i[3]], 3);
}

HD_EXPAND __m512i expand_gather4(const uint32_t *book, __m512i index)
{
    uint32_t i[16] __attribute__((aligned(64)));
    _mm512_store_si512(i, index);
    __m256i low = _mm256_set_m128i(expand_four(book, i + 4), expand_four(book, i));
    __m256i high = _mm256_set_m128i(expand_four(book, i + 12), expand_four(book, i + 8));
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

HD_EXPAND __m512i expand_bytes(uint64_t eight)
{
    return _mm512_cvtepu8_epi64(_mm_cvtsi64_si128((long long)eight));
}

/* Bits [at, at + 3 or 2] of the word in all lanes, moved to bit 8. */
HD_EXPAND __m512i expand_high(uint32_t word, __m512i at, int mask)
{
    __m512i bits = _mm512_srlv_epi64(_mm512_set1_epi64((long long)word), at);
    return _mm512_slli_epi64(_mm512_and_si512(bits, _mm512_set1_epi64(mask)), 8);
}

/* Magnitudes with signs, plus 128. */
HD_EXPAND __m512i expand_signed(__m512i magnitudes, uint64_t signs)
{
    __m512i v =
        _mm512_mask_sub_epi8(magnitudes, (__mmask64)signs, _mm512_setzero_si512(), magnitudes);
    return _mm512_xor_si512(v, _mm512_set1_epi8((char)0x80));
}

HD_EXPAND __m512i expand_iq1(__m512i index, __mmask8 minus)
{
    __m512i offset = _mm512_mask_blend_epi64(minus, _mm512_set1_epi8(121), _mm512_set1_epi8(119));
    __m512i v = expand_gather8(hd_tensor_iq1_grid, index);
    return _mm512_add_epi8(_mm512_slli_epi64(v, 3), offset);
}

/* Cells 8k … 8k + 7 of a block: elements 64k … 64k + 63. */
HD_EXPAND __m512i expand_cells(enum hd_dtype dtype, const uint8_t *p, int k)
{
    if (dtype == HD_IQ2_XXS) {
        const uint64_t a = expand_u64(p + 2 + 16 * k), b = expand_u64(p + 10 + 16 * k);
        return expand_signed(
            expand_gather8(hd_tensor_iq2_xxs_grid, expand_bytes((uint32_t)a | b << 32)),
            expand_signs((uint32_t)(a >> 32), (uint32_t)(b >> 32)));
    }
    if (dtype == HD_IQ2_XS) {
        const __m128i code = _mm_loadu_si128((const __m128i *)(p + 2 + 16 * k));
        __m128i seven = _mm_srli_epi16(code, 9);
        __m512i index = _mm512_cvtepu16_epi64(_mm_and_si128(code, _mm_set1_epi16(511)));
        uint64_t signs = (uint64_t)_mm_cvtsi128_si64(_mm_packus_epi16(seven, seven));
        return expand_signed(expand_gather8(hd_tensor_iq2_xs_grid, index), expand_even(signs));
    }
    if (dtype == HD_IQ2_S) {
        const __m512i at = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
        __m512i index = expand_high(hd_codes__u16(p + 66 + 2 * k), at, 3);
        index = _mm512_or_si512(index, expand_bytes(expand_u64(p + 2 + 8 * k)));
        return expand_signed(expand_gather8(hd_tensor_iq2_s_grid, index),
                             expand_u64(p + 34 + 8 * k));
    }
    if (dtype == HD_IQ3_XXS || dtype == HD_IQ3_S) {
        __m512i index = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p + 2 + 16 * k)));
        if (dtype == HD_IQ3_XXS)
            return expand_signed(
                expand_gather4(hd_tensor_iq3_xxs_grid, index),
                expand_signs(hd_codes__u32(p + 66 + 8 * k), hd_codes__u32(p + 70 + 8 * k)));
        __mmask16 ninth = (__mmask16)hd_codes__u16(p + 66 + 2 * k);
        index = _mm512_mask_or_epi32(index, ninth, index, _mm512_set1_epi32(256));
        return expand_signed(expand_gather4(hd_tensor_iq3_s_grid, index),
                             expand_u64(p + 74 + 8 * k));
    }
    if (dtype == HD_IQ1_S) {
        const __m512i at = _mm512_setr_epi64(0, 3, 6, 9, 16, 19, 22, 25);
        uint32_t more = hd_codes__u32(p + 34 + 4 * k);
        __m512i index =
            _mm512_or_si512(expand_high(more, at, 7), expand_bytes(expand_u64(p + 2 + 8 * k)));
        return expand_iq1(index, (__mmask8)((more & 0x8000 ? 0x0f : 0) | (more >> 31 ? 0xf0 : 0)));
    }
    const __m512i at = _mm512_setr_epi64(0, 4, 8, 12, 16, 20, 24, 28); /* IQ1_M */
    uint32_t more = hd_codes__u32(p + 32 + 4 * k);
    __m512i index = _mm512_or_si512(expand_high(more, at, 7), expand_bytes(expand_u64(p + 8 * k)));
    return expand_iq1(index, (__mmask8)_pext_u32(more, 0x88888888u));
}

/* The block's scales, in 16 or the first 8 bytes. */
HD_EXPAND __m128i expand_scales(enum hd_dtype dtype, const uint8_t *p)
{
    __m128i s;
    if (dtype == HD_IQ2_XXS) {
        s = _mm512_cvtepi64_epi8(_mm512_srli_epi64(_mm512_loadu_si512(p + 2), 60));
    } else if (dtype == HD_IQ3_XXS) {
        __m256i words = _mm256_loadu_si256((const __m256i *)(p + 66));
        s = _mm256_cvtepi32_epi8(_mm256_srli_epi32(words, 28));
    } else if (dtype == HD_IQ1_S) {
        __m128i words = _mm_loadu_si128((const __m128i *)(p + 34));
        s = _mm_cvtepi16_epi8(_mm_and_si128(_mm_srli_epi16(words, 12), _mm_set1_epi16(7)));
    } else if (dtype == HD_IQ1_M) {
        uint64_t all = _pext_u64(expand_u64(p + 48), 0x0fff0fff0fff0fffu);
        s = _mm_set_epi64x((long long)_pdep_u64(all >> 24, 0x0707070707070707u),
                           (long long)_pdep_u64(all, 0x0707070707070707u));
    } else {
        __m128i both =
            dtype == HD_IQ3_S
                ? _mm_cvtsi32_si128((int)hd_codes__u32(p + 106))
                : _mm_cvtsi64_si128((long long)expand_u64(p + (dtype == HD_IQ2_S ? 74 : 66)));
        const __m128i nibble = _mm_set1_epi8(15);
        s = _mm_unpacklo_epi8(_mm_and_si128(both, nibble),
                              _mm_and_si128(_mm_srli_epi16(both, 4), nibble));
    }
    return _mm_or_si128(_mm_add_epi8(s, s), _mm_set1_epi8(1));
}

HD_EXPAND float expand_d(enum hd_dtype dtype, const uint8_t *p)
{
    if (dtype == HD_IQ1_M) {
        uint64_t d = _pext_u64(expand_u64(p + 48), 0xf000f000f000f000u);
        return hd_f16_to_f32((uint16_t)d) * 0.125f;
    }
    float d = hd_f16_to_f32(hd_codes__u16(p));
    return dtype == HD_IQ3_S ? d : dtype == HD_IQ3_XXS ? d * 0.25f : d * 0.125f;
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

/* All 16 rows of a unit. */
HD_EXPAND void expand_unit(uint8_t *out, const struct hd_pack *pack, const uint8_t *unit)
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

#undef HD_EXPAND

#endif
