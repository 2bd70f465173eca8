/* What the expansions with AVX2 and AVX-512 share: entries, signs and scales of a block. No pdep
 * without AVX-512: some processors with AVX2 take hundreds of cycles for it. */
#ifndef HD_KERNELS_X86_EXPAND_BITS_H
#define HD_KERNELS_X86_EXPAND_BITS_H

#include <immintrin.h>
#include <string.h>

#include "tensor/codebooks.h"

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

/* Twice 28 bits, four times seven signs each as in IQ2_XXS and IQ3_XXS, to eight bytes. */
HD_EXPAND uint64_t expand_28(uint32_t first, uint32_t second)
{
#ifdef __AVX512BW__
    uint64_t all = (first & 0x0fffffffu) | (uint64_t)(second & 0x0fffffffu) << 28;
    return expand_even(_pdep_u64(all, 0x7f7f7f7f7f7f7f7fu));
#else
    const uint64_t seven = 0x0000007f0000007fu, v = first | (uint64_t)second << 32;
    return expand_even((v & seven) | (v << 1 & seven << 8) | (v << 2 & seven << 16) |
                       (v << 3 & seven << 24));
#endif
}

/* Four entries of a book of eight bytes, eight of one of four: single loads, which no processor
 * does slower than its gather instructions. */
HD_EXPAND __m256i expand_four(const uint64_t *book, unsigned a, unsigned b, unsigned c, unsigned d)
{
    __m128i low = _mm_loadl_epi64((const __m128i *)(book + a));
    __m128i high = _mm_loadl_epi64((const __m128i *)(book + c));
    low = _mm_insert_epi64(low, (long long)book[b], 1);
    high = _mm_insert_epi64(high, (long long)book[d], 1);
    return _mm256_set_m128i(high, low);
}

HD_EXPAND __m256i expand_eight(const uint32_t *book, const uint8_t *qs, unsigned ninth)
{
    __m128i v[2];
    for (int h = 0; h < 2; h++, qs += 4, ninth >>= 4) {
        v[h] = _mm_loadu_si32(book + (qs[0] | (ninth << 8 & 256)));
        v[h] = _mm_insert_epi32(v[h], (int)book[qs[1] | (ninth << 7 & 256)], 1);
        v[h] = _mm_insert_epi32(v[h], (int)book[qs[2] | (ninth << 6 & 256)], 2);
        v[h] = _mm_insert_epi32(v[h], (int)book[qs[3] | (ninth << 5 & 256)], 3);
    }
    return _mm256_set_m128i(v[1], v[0]);
}

/* The book's entries of cells 4k … 4k + 3 of a block: elements 32k … 32k + 31. */
HD_EXPAND __m256i expand_entries(enum hd_dtype dtype, const uint8_t *p, int k)
{
    if (dtype == HD_IQ2_XXS) {
        const uint8_t *i = p + 2 + 8 * k;
        return expand_four(hd_tensor_iq2_xxs_grid, i[0], i[1], i[2], i[3]);
    }
    if (dtype == HD_IQ2_XS) {
        const uint8_t *i = p + 2 + 8 * k;
        return expand_four(hd_tensor_iq2_xs_grid, hd_codes__u16(i) & 511,
                           hd_codes__u16(i + 2) & 511, hd_codes__u16(i + 4) & 511,
                           hd_codes__u16(i + 6) & 511);
    }
    if (dtype == HD_IQ2_S) {
        const uint8_t *i = p + 2 + 4 * k;
        unsigned more = p[66 + k];
        return expand_four(hd_tensor_iq2_s_grid, i[0] | (more << 8 & 0x300),
                           i[1] | (more << 6 & 0x300), i[2] | (more << 4 & 0x300),
                           i[3] | (more << 2 & 0x300));
    }
    if (dtype == HD_IQ3_XXS)
        return expand_eight(hd_tensor_iq3_xxs_grid, p + 2 + 8 * k, 0);
    if (dtype == HD_IQ3_S)
        return expand_eight(hd_tensor_iq3_s_grid, p + 2 + 8 * k, p[66 + k]);
    if (dtype == HD_IQ1_S) {
        const uint8_t *i = p + 2 + 4 * k;
        unsigned more = hd_codes__u16(p + 34 + 2 * k);
        return expand_four(hd_tensor_iq1_grid, i[0] | (more << 8 & 0x700),
                           i[1] | (more << 5 & 0x700), i[2] | (more << 2 & 0x700),
                           i[3] | (more >> 1 & 0x700));
    }
    const uint8_t *i = p + 4 * k; /* IQ1_M */
    unsigned more = hd_codes__u16(p + 32 + 2 * k);
    return expand_four(hd_tensor_iq1_grid, i[0] | (more << 8 & 0x700), i[1] | (more << 4 & 0x700),
                       i[2] | (more & 0x700), i[3] | (more >> 4 & 0x700));
}

/* The signs of elements 64k … 64k + 63. */
HD_EXPAND uint64_t expand_signs(enum hd_dtype dtype, const uint8_t *p, int k)
{
    if (dtype == HD_IQ2_XXS)
        return expand_28(hd_codes__u32(p + 6 + 16 * k), hd_codes__u32(p + 14 + 16 * k));
    if (dtype == HD_IQ3_XXS)
        return expand_28(hd_codes__u32(p + 66 + 8 * k), hd_codes__u32(p + 70 + 8 * k));
    if (dtype == HD_IQ2_XS) {
        __m128i seven = _mm_srli_epi16(_mm_loadu_si128((const __m128i *)(p + 2 + 16 * k)), 9);
        return expand_even((uint64_t)_mm_cvtsi128_si64(_mm_packus_epi16(seven, seven)));
    }
    return expand_u64(p + (dtype == HD_IQ2_S ? 34 : 74) + 8 * k);
}

/* The upper nibbles of eight bytes `step` apart. */
HD_EXPAND __m128i expand_uppers(const uint8_t *p, int step)
{
    uint64_t s = 0;
    for (int j = 0; j < 8; j++)
        s |= (uint64_t)(p[j * step] >> 4) << 8 * j;
    return _mm_cvtsi64_si128((long long)s);
}

/* Nibbles, the low one of each byte first. */
HD_EXPAND __m128i expand_nibbles(uint64_t bytes)
{
    const __m128i both = _mm_cvtsi64_si128((long long)bytes), nibble = _mm_set1_epi8(15);
    return _mm_unpacklo_epi8(_mm_and_si128(both, nibble),
                             _mm_and_si128(_mm_srli_epi16(both, 4), nibble));
}

/* IQ1_M: four times three bits in each of four words. */
HD_EXPAND __m128i expand_threes(uint64_t words)
{
    const uint64_t three = 0x0007000700070007u;
    uint64_t low = (words & three) | (words >> 3 & three) << 8;
    uint64_t high = (words >> 6 & three) | (words >> 9 & three) << 8;
    return _mm_unpacklo_epi16(_mm_cvtsi64_si128((long long)low),
                              _mm_cvtsi64_si128((long long)high));
}

/* The block's scales, in 16 or the first 8 bytes. */
HD_EXPAND __m128i expand_scales(enum hd_dtype dtype, const uint8_t *p)
{
    __m128i s;
    if (dtype == HD_IQ2_XXS)
        s = expand_uppers(p + 9, 8);
    else if (dtype == HD_IQ3_XXS)
        s = expand_uppers(p + 69, 4);
    else if (dtype == HD_IQ1_M)
        s = expand_threes(expand_u64(p + 48));
    else if (dtype == HD_IQ3_S)
        s = expand_nibbles(hd_codes__u32(p + 106));
    else if (dtype != HD_IQ1_S)
        s = expand_nibbles(expand_u64(p + (dtype == HD_IQ2_S ? 74 : 66)));
    else {
        __m128i words = _mm_srli_epi16(_mm_loadu_si128((const __m128i *)(p + 34)), 12);
        words = _mm_and_si128(words, _mm_set1_epi16(7));
        s = _mm_packus_epi16(words, words);
    }
    return _mm_or_si128(_mm_add_epi8(s, s), _mm_set1_epi8(1));
}

HD_EXPAND float expand_d(enum hd_dtype dtype, const uint8_t *p)
{
    if (dtype == HD_IQ1_M) {
        unsigned d = p[49] >> 4 | (p[51] & 0xf0) | (p[53] >> 4) << 8 | (p[55] >> 4) << 12;
        return hd_f16_to_f32((uint16_t)d) * 0.125f;
    }
    float d = hd_f16_to_f32(hd_codes__u16(p));
    return dtype == HD_IQ3_S ? d : dtype == HD_IQ3_XXS ? d * 0.25f : d * 0.125f;
}

#endif
