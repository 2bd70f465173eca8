/* Inside the tensor room: one dequantiser per type, for the table in dtype.c.
 * n is a multiple of the type's block; blocks may have any alignment. */
#ifndef HD_TENSOR_DEQUANTISE_H
#define HD_TENSOR_DEQUANTISE_H

#include <stdint.h>

#include "tensor/dtype.h"

/* The table of our own types (rows.c): NULL outside it. */
const struct hd_dtype_info *hd_tensor__own_info(int dtype);

void hd_tensor__f32(float *out, const void *blocks, int64_t n);
void hd_tensor__f16(float *out, const void *blocks, int64_t n);
void hd_tensor__bf16(float *out, const void *blocks, int64_t n);
void hd_tensor__q4_0(float *out, const void *blocks, int64_t n);
void hd_tensor__q4_1(float *out, const void *blocks, int64_t n);
void hd_tensor__q5_0(float *out, const void *blocks, int64_t n);
void hd_tensor__q5_1(float *out, const void *blocks, int64_t n);
void hd_tensor__q8_0(float *out, const void *blocks, int64_t n);
void hd_tensor__q2_k(float *out, const void *blocks, int64_t n);
void hd_tensor__q3_k(float *out, const void *blocks, int64_t n);
void hd_tensor__q4_k(float *out, const void *blocks, int64_t n);
void hd_tensor__q5_k(float *out, const void *blocks, int64_t n);
void hd_tensor__q6_k(float *out, const void *blocks, int64_t n);
void hd_tensor__iq1_s(float *out, const void *blocks, int64_t n);
void hd_tensor__iq1_m(float *out, const void *blocks, int64_t n);
void hd_tensor__iq2_xxs(float *out, const void *blocks, int64_t n);
void hd_tensor__iq2_xs(float *out, const void *blocks, int64_t n);
void hd_tensor__iq2_s(float *out, const void *blocks, int64_t n);
void hd_tensor__iq3_xxs(float *out, const void *blocks, int64_t n);
void hd_tensor__iq3_s(float *out, const void *blocks, int64_t n);
void hd_tensor__iq4_nl(float *out, const void *blocks, int64_t n);
void hd_tensor__iq4_xs(float *out, const void *blocks, int64_t n);
void hd_tensor__mxfp4(float *out, const void *blocks, int64_t n);

#endif
