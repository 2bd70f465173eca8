#include "tensor/dtype.h"

#include <math.h>
#include <string.h>

#include "tensor/dequantise.h"

static const struct hd_dtype_info infos[] = {
    [HD_F32] = {"F32", 1, 4, hd_tensor__f32},
    [HD_F16] = {"F16", 1, 2, hd_tensor__f16},
    [HD_Q4_0] = {"Q4_0", 32, 18, hd_tensor__q4_0},
    [HD_Q4_1] = {"Q4_1", 32, 20, hd_tensor__q4_1},
    [HD_Q5_0] = {"Q5_0", 32, 22, hd_tensor__q5_0},
    [HD_Q5_1] = {"Q5_1", 32, 24, hd_tensor__q5_1},
    [HD_Q8_0] = {"Q8_0", 32, 34, hd_tensor__q8_0},
    [HD_Q2_K] = {"Q2_K", 256, 84, hd_tensor__q2_k},
    [HD_Q3_K] = {"Q3_K", 256, 110, hd_tensor__q3_k},
    [HD_Q4_K] = {"Q4_K", 256, 144, hd_tensor__q4_k},
    [HD_Q5_K] = {"Q5_K", 256, 176, hd_tensor__q5_k},
    [HD_Q6_K] = {"Q6_K", 256, 210, hd_tensor__q6_k},
    [HD_I32] = {"I32", 1, 4, NULL},
    [HD_BF16] = {"BF16", 1, 2, hd_tensor__bf16},
};

/* Ids without a name were withdrawn before GGUF v3. */
static const char *const gguf_names[] = {
    [0] = "F32",       [1] = "F16",       [2] = "Q4_0",   [3] = "Q4_1",    [6] = "Q5_0",
    [7] = "Q5_1",      [8] = "Q8_0",      [9] = "Q8_1",   [10] = "Q2_K",   [11] = "Q3_K",
    [12] = "Q4_K",     [13] = "Q5_K",     [14] = "Q6_K",  [15] = "Q8_K",   [16] = "IQ2_XXS",
    [17] = "IQ2_XS",   [18] = "IQ3_XXS",  [19] = "IQ1_S", [20] = "IQ4_NL", [21] = "IQ3_S",
    [22] = "IQ2_S",    [23] = "IQ4_XS",   [24] = "I8",    [25] = "I16",    [26] = "I32",
    [27] = "I64",      [28] = "F64",      [29] = "IQ1_M", [30] = "BF16",   [31] = "Q4_0_4_4",
    [32] = "Q4_0_4_8", [33] = "Q4_0_8_8", [34] = "TQ1_0", [35] = "TQ2_0",  [39] = "MXFP4",
    [40] = "NVFP4",
};

const struct hd_dtype_info *hd_dtype_info(int dtype)
{
    if (dtype < 0 || dtype >= (int)(sizeof infos / sizeof infos[0]) || !infos[dtype].name)
        return NULL;
    return &infos[dtype];
}

size_t hd_dtype_row_bytes(int dtype, int64_t n)
{
    const struct hd_dtype_info *info = hd_dtype_info(dtype);
    if (!info || n < 0 || n % info->block)
        return 0;
    size_t bytes;
    if (__builtin_mul_overflow((size_t)(n / info->block), (size_t)info->block_bytes, &bytes))
        return 0;
    return bytes;
}

const char *hd_dtype_gguf_name(int id)
{
    if (id < 0 || id >= (int)(sizeof gguf_names / sizeof gguf_names[0]) || !gguf_names[id])
        return "unknown";
    return gguf_names[id];
}

void hd_quantise_q8_0(void *out, const float *in, int64_t n)
{
    uint8_t *p = out;
    for (int64_t b = 0; b < n / 32; b++, p += 34, in += 32) {
        float amax = 0;
        for (int i = 0; i < 32; i++)
            amax = fmaxf(amax, fabsf(in[i]));
        float d = amax / 127.0f;
        float inverse = d != 0 ? 1.0f / d : 0.0f;
        uint16_t h = hd_f32_to_f16(d);
        memcpy(p, &h, sizeof h);
        for (int i = 0; i < 32; i++)
            p[2 + i] = (uint8_t)(int8_t)roundf(in[i] * inverse);
    }
}
