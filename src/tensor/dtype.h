/* Element types and quantised block formats.
 *
 * The numbers are GGUF's type ids (ggml.h of the GGUF v3 specification, MIT), so that a file's
 * number can be used as it is after hd_dtype_info() said that we know it. */
#ifndef HD_TENSOR_DTYPE_H
#define HD_TENSOR_DTYPE_H

#include <stddef.h>
#include <stdint.h>

enum hd_dtype {
    HD_F32 = 0,
    HD_F16 = 1,
    HD_Q4_0 = 2,
    HD_Q4_1 = 3,
    HD_Q5_0 = 6,
    HD_Q5_1 = 7,
    HD_Q8_0 = 8,
    HD_Q2_K = 10,
    HD_Q3_K = 11,
    HD_Q4_K = 12,
    HD_Q5_K = 13,
    HD_Q6_K = 14,
    HD_IQ2_XXS = 16,
    HD_IQ2_XS = 17,
    HD_IQ3_XXS = 18,
    HD_IQ1_S = 19,
    HD_IQ4_NL = 20,
    HD_IQ3_S = 21,
    HD_IQ2_S = 22,
    HD_IQ4_XS = 23,
    HD_I32 = 26,
    HD_IQ1_M = 29,
    HD_BF16 = 30,
    HD_MXFP4 = 39,

    /* Row forms of quantised Hugging Face checkpoints, whose own layouts are not row-wise (rows.c).
     * Numbers of ours: no file holds them. The number in a name is the elements per block; a row
     * may end within a block, which is padded. */
    HD_OWN_TYPES = 1000,
    HD_FP8_128 = HD_OWN_TYPES, /* f32 scale, e4m3fn: scale · q */
    HD_INT4_32,                /* f16 scale, u8 zero, nibbles: scale · (q - zero) */
    HD_INT4_64,
    HD_INT4_128,
    HD_INT8_32, /* f16 scale, u8 zero, bytes: scale · (q - zero) */
    HD_INT8_64,
    HD_INT8_128,
    HD_NF4_64, /* f32 scale, nibbles: scale · code[q] */
    HD_FP4_64,
    HD_OWN_TYPES_END,
};

struct hd_dtype_info {
    const char *name; /* "Q4_K" */
    int block;        /* elements per block; a row's length is a multiple of it */
    int block_bytes;  /* bytes per block */
    /* The published formula, bit for bit: n elements (a multiple of block; types of our own: any n)
     * to F32. NULL for I32. */
    void (*dequantise)(float *out, const void *blocks, int64_t n);
};

/* NULL where the number is not a type that we read. */
const struct hd_dtype_info *hd_dtype_info(int dtype);
/* Bytes of a row of n elements; 0 where n is no multiple of the block (types of our own: any n)
 * or the type is unknown. */
size_t hd_dtype_row_bytes(int dtype, int64_t n);
/* The name of any GGUF type id, also of those that we do not read ("IQ4_KS"); never NULL. */
const char *hd_dtype_gguf_name(int id);
/* What to do with a file that holds a type that we do not read: a hint for a sentence. */
const char *hd_dtype_gguf_advice(int id);

/* The 16 values of bitsandbytes' 4-bit codes, HD_NF4_64 or HD_FP4_64. */
const float *hd_dtype_code(int dtype);

float hd_f16_to_f32(uint16_t h);
uint16_t hd_f32_to_f16(float f); /* round to nearest even */
float hd_bf16_to_f32(uint16_t h);
uint16_t hd_f32_to_bf16(float f);

/* F32 to Q8_0 (32 elements: f16 scale, 32 int8; scale = amax / 127), the reference quantiser. */
void hd_quantise_q8_0(void *out, const float *in, int64_t n);

#endif
