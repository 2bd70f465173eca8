/* Float vectors of AVX-512, for code that is written once for both widths (rows_impl.h,
 * attention_impl.h). Included only by files compiled for AVX-512. */
#ifndef HD_KERNELS_X86_VEC_AVX512_H
#define HD_KERNELS_X86_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

typedef __m512 vec;
enum { VW = 16 }; /* floats per vector */

/* The first n of VW lanes. */
INLINE __mmask16 vec_first(int64_t n)
{
    return n >= VW ? (__mmask16)0xffff : n > 0 ? (__mmask16)((1u << n) - 1) : 0;
}

INLINE vec vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
INLINE vec vec_load_n(const float *p, int64_t n) /* lanes ≥ n are zero */
{
    return _mm512_maskz_loadu_ps(vec_first(n), p);
}
INLINE void vec_store(float *p, vec v)
{
    _mm512_storeu_ps(p, v);
}
INLINE void vec_store_n(float *p, vec v, int64_t n)
{
    _mm512_mask_storeu_ps(p, vec_first(n), v);
}
INLINE vec vec_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
INLINE vec vec_load_f16_n(const uint16_t *p, int64_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vec_first(n), p));
}
INLINE void vec_store_f16_n(uint16_t *p, vec v, int64_t n)
{
    _mm256_mask_storeu_epi16(p, vec_first(n),
                             _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
INLINE vec vec_set1(float f)
{
    return _mm512_set1_ps(f);
}
INLINE vec vec_zero(void)
{
    return _mm512_setzero_ps();
}
INLINE vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
INLINE vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
INLINE vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
INLINE vec vec_div(vec a, vec b)
{
    return _mm512_div_ps(a, b);
}
INLINE vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}
INLINE vec vec_fma(vec a, vec b, vec c) /* a · b + c */
{
    return _mm512_fmadd_ps(a, b, c);
}
INLINE float vec_sum(vec v)
{
    return _mm512_reduce_add_ps(v);
}
INLINE float vec_largest(vec v)
{
    return _mm512_reduce_max_ps(v);
}

/* 2^n · e^r, |r| ≤ ln 2 / 2, the series to r^7 (error below 1e-8); 0 below -87.3, and there the
 * result would leave the normal range; above 88 the largest power stands. */
INLINE vec vec_exp(vec x)
{
    const vec low = _mm512_set1_ps(-87.3f);
    __mmask16 in_range = _mm512_cmp_ps_mask(x, low, _CMP_GE_OQ);
    x = _mm512_min_ps(_mm512_max_ps(x, low), _mm512_set1_ps(88.0f));
    vec n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                 _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vec r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e430p-1f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-0x1.05c610p-29f), r);
    vec p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(in_range, p, n);
}

INLINE vec vec_silu(vec x)
{
    vec e = vec_exp(_mm512_sub_ps(_mm512_setzero_ps(), x));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
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
