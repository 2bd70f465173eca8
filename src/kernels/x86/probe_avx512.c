/* The probes with AVX-512: independent vpdpbusd on registers, and 64-byte loads. */
#include <immintrin.h>

#include "kernels/x86/rows.h"

double hd_x86_int8_work_avx512(int64_t steps)
{
    enum { CHAINS = 12 };
    __m512i acc[CHAINS], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-2);
    for (int i = 0; i < CHAINS; i++)
        acc[i] = _mm512_set1_epi32(i);
    for (int64_t s = 0; s < steps; s++) {
        __asm__ volatile("" : "+v"(a), "+v"(b)); /* new operands, as far as the compiler knows */
        for (int i = 0; i < CHAINS; i++)
            acc[i] = _mm512_dpbusd_epi32(acc[i], a, b);
    }
    for (int i = 1; i < CHAINS; i++)
        acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    volatile int keep = _mm512_reduce_add_epi32(acc[0]);
    (void)keep;
    return 2.0 * 64 * CHAINS * (double)steps;
}

uint64_t hd_x86_read_work_avx512(const void *data, size_t bytes)
{
    const uint8_t *p = data;
    __m512i sum[4];
    for (int i = 0; i < 4; i++)
        sum[i] = _mm512_setzero_si512();
    for (size_t at = 0; at + 256 <= bytes; at += 256)
        for (int i = 0; i < 4; i++)
            sum[i] = _mm512_add_epi64(sum[i], _mm512_loadu_si512(p + at + 64 * i));
    sum[0] = _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]), _mm512_add_epi64(sum[2], sum[3]));
    return (uint64_t)_mm512_reduce_add_epi64(sum[0]);
}
