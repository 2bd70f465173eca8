/* What the kernel tests share: random tensors in a buffer, random weights of any type. */
#ifndef HD_TESTS_KERNELS_SUPPORT_H
#define HD_TESTS_KERNELS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "kernels/backend.h"

static inline const struct hd_backend *backend_or_null(const char *name)
{
    const struct hd_backend *b = NULL;
    hd_backend_get(&b, name, NULL);
    return b;
}

/* Roughly normal, with a rare outlier as real activations have. */
static inline float random_value(struct hd_rng *rng)
{
    double sum = 0;
    for (int i = 0; i < 6; i++)
        sum += hd_rng_uniform(rng) - 0.5;
    if (hd_rng_next(rng) % 500 == 0)
        sum *= 8;
    return (float)(sum * 1.4);
}

static inline int64_t random_int(struct hd_rng *rng, int64_t low, int64_t high)
{
    return low + (int64_t)(hd_rng_next(rng) % (uint64_t)(high - low + 1));
}

static inline float *random_floats(struct hd_rng *rng, size_t n)
{
    float *p = malloc(n * sizeof *p + 1);
    for (size_t i = 0; i < n; i++)
        p[i] = random_value(rng);
    return p;
}

/* A tensor with a buffer of its own, filled from host memory if there is any. */
static inline struct hd_tensor tensor_new(const struct hd_backend *b, enum hd_dtype dtype,
                                          int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3,
                                          const void *host)
{
    struct hd_buffer *buffer;
    struct hd_tensor t = hd_tensor_at(NULL, 0, dtype, ne0, ne1, ne2, ne3);
    assert_int_equal(hd_buffer_new(&buffer, b, hd_tensor_bytes(&t), NULL), HD_OK);
    t.buffer = buffer;
    if (host)
        hd_tensor_upload(&t, host);
    return t;
}

static inline void *tensor_take(struct hd_tensor *t)
{
    void *host = malloc(hd_tensor_bytes(t) + 1);
    hd_tensor_download(host, t);
    return host;
}

static inline void tensor_free(struct hd_tensor *t)
{
    hd_buffer_free(t->buffer);
}

/* Random blocks of a type: random bytes, f16 fields made small finite numbers. */
static inline uint8_t *random_blocks(struct hd_rng *rng, enum hd_dtype dtype, size_t n_element)
{
    static const struct {
        int dtype, at[2];
    } halves[] = {{HD_Q4_0, {0, -1}},   {HD_Q4_1, {0, 2}},    {HD_Q5_0, {0, -1}},
                  {HD_Q5_1, {0, 2}},    {HD_Q8_0, {0, -1}},   {HD_Q2_K, {80, 82}},
                  {HD_Q3_K, {108, -1}}, {HD_Q4_K, {0, 2}},    {HD_Q5_K, {0, 2}},
                  {HD_Q6_K, {208, -1}}, {HD_IQ1_S, {0, -1}},  {HD_IQ2_XXS, {0, -1}},
                  {HD_IQ2_XS, {0, -1}}, {HD_IQ2_S, {0, -1}},  {HD_IQ3_XXS, {0, -1}},
                  {HD_IQ3_S, {0, -1}},  {HD_IQ4_NL, {0, -1}}, {HD_IQ4_XS, {0, -1}}};
    const struct hd_dtype_info *info = hd_dtype_info(dtype);
    size_t bytes = n_element / (size_t)info->block * (size_t)info->block_bytes;
    uint8_t *p = malloc(bytes + 1);
    if (dtype == HD_F32 || dtype == HD_F16 || dtype == HD_BF16) {
        for (size_t i = 0; i < n_element; i++) {
            float f = random_value(rng) * 0.05f;
            uint16_t h = dtype == HD_F16 ? hd_f32_to_f16(f) : hd_f32_to_bf16(f);
            if (dtype == HD_F32)
                memcpy(p + 4 * i, &f, 4);
            else
                memcpy(p + 2 * i, &h, 2);
        }
        return p;
    }
    for (size_t i = 0; i < bytes; i++)
        p[i] = (uint8_t)hd_rng_next(rng);
    for (size_t b = 0; (int)dtype >= HD_OWN_TYPES && b < bytes; b += (size_t)info->block_bytes) {
        float f = 0.001f + 0.004f * (float)hd_rng_uniform(rng);
        uint16_t h = hd_f32_to_f16(f);
        if (dtype >= HD_INT4_32 && dtype <= HD_INT8_128) {
            memcpy(p + b, &h, 2);
            continue;
        }
        memcpy(p + b, &f, 4);
        for (int i = 4; dtype == HD_FP8_128 && i < info->block_bytes; i++)
            p[b + (size_t)i] &= 0xf7; /* no NaN */
    }
    for (size_t t = 0; t < sizeof halves / sizeof halves[0]; t++)
        for (int j = 0; j < 2 && halves[t].dtype == (int)dtype; j++)
            for (size_t b = 0; halves[t].at[j] >= 0 && b < bytes; b += (size_t)info->block_bytes) {
                float f = 0.001f + 0.004f * (float)hd_rng_uniform(rng);
                /* The minimum comes out near the middle of the values, as in real files. */
                float wide = dtype == HD_Q4_1   ? -7.5f
                             : dtype == HD_Q5_1 ? -15.5f
                             : dtype == HD_Q2_K ? 1.5f
                             : dtype == HD_Q4_K ? 7.5f
                                                : 15.5f;
                uint16_t h = hd_f32_to_f16(j ? f * wide : f);
                memcpy(p + b + halves[t].at[j], &h, 2);
            }
    for (size_t b = 0; dtype == HD_MXFP4 && b < bytes; b += 17)
        p[b] = (uint8_t)random_int(rng, 119, 121); /* 2^-9 … 2^-7 */
    for (size_t b = 0; dtype == HD_IQ1_M && b < bytes; b += 56) {
        uint16_t h = hd_f32_to_f16(0.001f + 0.004f * (float)hd_rng_uniform(rng));
        for (int i = 0; i < 4; i++) /* a nibble in the top of each scale word */
            p[b + 49 + 2 * i] = (uint8_t)((p[b + 49 + 2 * i] & 15) | (h >> 4 * i & 15) << 4);
    }
    return p;
}

/* Relative RMS of the difference; 0 for equal, NaN counts as infinite. */
static inline double relative_rms(const float *a, const float *reference, size_t n)
{
    double diff = 0, norm = 1e-30;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - reference[i];
        if (!isfinite(d))
            return INFINITY;
        diff += d * d;
        norm += (double)reference[i] * reference[i];
    }
    return sqrt(diff / norm);
}

static const enum hd_dtype weight_types[] = {
    HD_F32,     HD_F16,     HD_BF16,     HD_Q4_0,    HD_Q4_1,    HD_Q5_0,     HD_Q5_1,   HD_Q8_0,
    HD_Q2_K,    HD_Q3_K,    HD_Q4_K,     HD_Q5_K,    HD_Q6_K,    HD_IQ4_NL,   HD_IQ4_XS, HD_MXFP4,
    HD_IQ1_S,   HD_IQ1_M,   HD_IQ2_XXS,  HD_IQ2_XS,  HD_IQ2_S,   HD_IQ3_XXS,  HD_IQ3_S,  HD_FP8_128,
    HD_INT4_32, HD_INT4_64, HD_INT4_128, HD_INT8_32, HD_INT8_64, HD_INT8_128, HD_NF4_64, HD_FP4_64};
enum { N_WEIGHT_TYPE = sizeof weight_types / sizeof weight_types[0] };

#endif
