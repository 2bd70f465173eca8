/* The probes with AVX2: the maddubs and add pairs of the product kernels, and 32-byte loads. */
#include <immintrin.h>

#include "kernels/x86/rows.h"

double hd_x86_int8_work_avx2(int64_t steps)
{
    enum { CHAINS = 8 };
    __m256i acc[CHAINS], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-2);
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm256_set1_epi16((short)i);
    for (int64_t s = 0; s < steps; s++) {
        __asm__ volatile("" : "+x"(a), "+x"(b)); /* new operands, as far as the compiler knows */
        for (int i = 0; i < CHAINS; i++) {
            __m256i product = _mm256_maddubs_epi16(a, b);
            __asm__ volatile("" : "+x"(product)); /* one product per sum, as in a kernel */
            acc[i] = _mm256_add_epi16(acc[i], product);
        }
    }
    for (int i = 1; i < CHAINS; i++)
        acc[0] = _mm256_add_epi16(acc[0], acc[i]);
    volatile int keep = _mm256_extract_epi16(acc[0], 0);
    (void)keep;
    return 2.0 * 32 * CHAINS * (double)steps;
}

uint64_t hd_x86_read_work_avx2(const void *data, size_t bytes)
{
    const uint8_t *p = data;
    __m256i sum[4];
    for (int i = 0; i < 4; i++)
        sum[i] = _mm256_setzero_si256();
    for (size_t at = 0; at + 128 <= bytes; at += 128)
        for (int i = 0; i < 4; i++)
            sum[i] = _mm256_add_epi64(
                sum[i], _mm256_loadu_si256((const __m256i *)(p + at + 32 * (size_t)i)));
    sum[0] = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
    uint64_t lane[4];
    _mm256_storeu_si256((__m256i *)lane, sum[0]);
    return lane[0] + lane[1] + lane[2] + lane[3];
}
