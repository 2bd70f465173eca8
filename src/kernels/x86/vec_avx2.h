/* Float vectors of AVX2 with FMA and F16C: the counterpart of vec_avx512.h, same names. */
#ifndef HD_KERNELS_X86_VEC_AVX2_H
#define HD_KERNELS_X86_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef __m256 vec;
enum { VW = 8 }; /* floats per vector */

/* The first n of VW lanes. */
INLINE __m256i vec_first(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < VW ? (int)n : VW),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE vec vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
INLINE vec vec_load_n(const float *p, int64_t n) /* lanes ≥ n are zero */
{
    return n >= VW ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, vec_first(n));
}
INLINE void vec_store(float *p, vec v)
{
    _mm256_storeu_ps(p, v);
}
INLINE void vec_store_n(float *p, vec v, int64_t n)
{
    if (n >= VW)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, vec_first(n), v);
}
INLINE vec vec_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
INLINE vec vec_load_f16_n(const uint16_t *p, int64_t n)
{
    if (n >= VW)
        return vec_load_f16(p);
    uint16_t half[VW] = {0};
    memcpy(half, p, n > 0 ? (size_t)n * 2 : 0);
    return vec_load_f16(half);
}
INLINE void vec_store_f16_n(uint16_t *p, vec v, int64_t n)
{
    uint16_t half[VW];
    _mm_storeu_si128((__m128i *)half, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    memcpy(p, half, (size_t)(n < VW ? n : VW) * 2);
}
INLINE vec vec_set1(float f)
{
    return _mm256_set1_ps(f);
}
INLINE vec vec_zero(void)
{
    return _mm256_setzero_ps();
}
INLINE vec vec_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}
INLINE vec vec_sub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}
INLINE vec vec_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}
INLINE vec vec_div(vec a, vec b)
{
    return _mm256_div_ps(a, b);
}
INLINE vec vec_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}
INLINE vec vec_fma(vec a, vec b, vec c) /* a · b + c */
{
    return _mm256_fmadd_ps(a, b, c);
}
INLINE float vec_sum(vec v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
INLINE float vec_largest(vec v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* As in vec_avx512.h; 2^n is made in the exponent field, where -126 ≤ n ≤ 127. */
INLINE vec vec_exp(vec x)
{
    const vec low = _mm256_set1_ps(-87.3f);
    vec in_range = _mm256_cmp_ps(x, low, _CMP_GE_OQ);
    x = _mm256_min_ps(_mm256_max_ps(x, low), _mm256_set1_ps(88.0f));
    vec n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                            _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vec r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e430p-1f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-0x1.05c610p-29f), r);
    vec p = _mm256_set1_ps(1.0f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i power =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_and_ps(in_range, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

INLINE vec vec_silu(vec x)
{
    vec e = vec_exp(_mm256_sub_ps(_mm256_setzero_ps(), x));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

/* x · Φ(x) = max(x, 0) - |x| · erfc(|x| / √2) / 2, with erfc(z) = t · poly(t) · exp(-z²),
 * t = 1 / (1 + 0.3275911 z): Abramowitz and Stegun 7.1.26, error of erfc below 1.5e-7. */
INLINE vec vec_gelu(vec x)
{
    vec zero = vec_zero(), magnitude = vec_max(x, vec_sub(zero, x));
    vec z = vec_mul(magnitude, vec_set1(0.70710678f));
    vec t = vec_div(vec_set1(1.0f), vec_fma(z, vec_set1(0.3275911f), vec_set1(1.0f)));
    vec p = vec_set1(1.061405429f);
    p = vec_fma(p, t, vec_set1(-1.453152027f));
    p = vec_fma(p, t, vec_set1(1.421413741f));
    p = vec_fma(p, t, vec_set1(-0.284496736f));
    p = vec_fma(p, t, vec_set1(0.254829592f));
    p = vec_mul(vec_mul(p, t), vec_exp(vec_sub(zero, vec_mul(z, z))));
    return vec_sub(vec_max(x, zero), vec_mul(vec_mul(magnitude, vec_set1(0.5f)), p));
}

/* tanh(y) = 2 · sigmoid(2 y) - 1 turns the approximation into x · sigmoid(2 y). */
INLINE vec vec_gelu_tanh(vec x)
{
    vec cube = vec_mul(vec_mul(x, x), x);
    vec y = vec_mul(vec_fma(cube, vec_set1(0.044715f), x), vec_set1(2 * 0.79788456f));
    return vec_div(x, vec_add(vec_set1(1.0f), vec_exp(vec_sub(vec_zero(), y))));
}

#endif
