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
    [HD_IQ2_XXS] = {"IQ2_XXS", 256, 66, hd_tensor__iq2_xxs},
    [HD_IQ2_XS] = {"IQ2_XS", 256, 74, hd_tensor__iq2_xs},
    [HD_IQ3_XXS] = {"IQ3_XXS", 256, 98, hd_tensor__iq3_xxs},
    [HD_IQ1_S] = {"IQ1_S", 256, 50, hd_tensor__iq1_s},
    [HD_IQ4_NL] = {"IQ4_NL", 32, 18, hd_tensor__iq4_nl},
    [HD_IQ3_S] = {"IQ3_S", 256, 110, hd_tensor__iq3_s},
    [HD_IQ2_S] = {"IQ2_S", 256, 82, hd_tensor__iq2_s},
    [HD_IQ4_XS] = {"IQ4_XS", 256, 136, hd_tensor__iq4_xs},
    [HD_I32] = {"I32", 1, 4, NULL},
    [HD_IQ1_M] = {"IQ1_M", 256, 56, hd_tensor__iq1_m},
    [HD_BF16] = {"BF16", 1, 2, hd_tensor__bf16},
    [HD_MXFP4] = {"MXFP4", 32, 17, hd_tensor__mxfp4},
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
    [40] = "NVFP4",    [41] = "Q1_0",
};

const struct hd_dtype_info *hd_dtype_info(int dtype)
{
    if (dtype >= HD_OWN_TYPES)
        return hd_tensor__own_info(dtype);
    if (dtype < 0 || dtype >= (int)(sizeof infos / sizeof infos[0]) || !infos[dtype].name)
        return NULL;
    return &infos[dtype];
}

size_t hd_dtype_row_bytes(int dtype, int64_t n)
{
    const struct hd_dtype_info *info = hd_dtype_info(dtype);
    if (!info || n < 0 || (n % info->block && dtype < HD_OWN_TYPES))
        return 0;
    size_t bytes, blocks = (size_t)(n / info->block) + (n % info->block != 0);
    if (__builtin_mul_overflow(blocks, (size_t)info->block_bytes, &bytes))
        return 0;
    return bytes;
}

/* Types that only ik_llama.cpp writes (its ggml.h, MIT). */
static const struct {
    int id;
    const char *name;
} ik_names[] = {
    {36, "I2_S"},       {98, "Q8_0_X4"},     {99, "Q8_1_X4"},    {133, "Q6_0"},
    {134, "IQ1_BN"},    {135, "IQ2_BN"},     {136, "Q8_K64"},    {137, "IQ2_K"},
    {138, "IQ3_K"},     {139, "IQ4_K"},      {140, "IQ5_K"},     {141, "IQ6_K"},
    {144, "IQ4_KS"},    {145, "IQ2_KS"},     {146, "IQ4_KSS"},   {147, "Q8_K16"},
    {148, "Q8_K32"},    {149, "Q8_KR8"},     {150, "Q8_K128"},   {151, "Q8_KV"},
    {152, "IQ5_KS"},    {153, "IQ2_KT"},     {154, "IQ3_KT"},    {155, "IQ4_KT"},
    {156, "IQ3_KS"},    {157, "IQ2_KL"},     {158, "IQ1_KT"},    {202, "Q4_0_R8"},
    {206, "Q5_0_R4"},   {208, "Q8_0_R8"},    {210, "Q2_K_R4"},   {211, "Q3_K_R4"},
    {212, "Q4_K_R4"},   {213, "Q5_K_R4"},    {214, "Q6_K_R4"},   {216, "IQ2_XXS_R4"},
    {217, "IQ2_XS_R4"}, {218, "IQ3_XXS_R4"}, {219, "IQ1_S_R4"},  {220, "IQ4_NL_R4"},
    {221, "IQ3_S_R4"},  {222, "IQ2_S_R4"},   {223, "IQ4_XS_R8"}, {229, "IQ1_M_R4"},
    {230, "BF16_R16"},  {233, "Q6_0_R4"},    {335, "IQ2_BN_R4"}, {337, "IQ2_K_R4"},
    {338, "IQ3_K_R4"},  {339, "IQ4_K_R4"},   {340, "IQ5_K_R4"},  {344, "IQ4_KS_R4"},
    {352, "IQ5_KS_R4"}, {398, "Q8_KV_R8"},   {399, "Q8_K_R8"},
};

static const char *ik_name(int id)
{
    for (size_t i = 0; i < sizeof ik_names / sizeof ik_names[0]; i++)
        if (ik_names[i].id == id)
            return ik_names[i].name;
    return NULL;
}

const char *hd_dtype_gguf_name(int id)
{
    if (id >= 0 && id < (int)(sizeof gguf_names / sizeof gguf_names[0]) && gguf_names[id])
        return gguf_names[id];
    const char *name = ik_name(id);
    return name ? name : "unknown";
}

const char *hd_dtype_gguf_advice(int id)
{
    if (ik_name(id))
        return "a type of ik_llama.cpp alone: requantise the model with llama.cpp's "
               "`llama-quantize`, or get its Q4_K_M";
    if (id >= 31 && id <= 33) /* Q4_0_4_4, … */
        return "Q4_0 in an order that was withdrawn: get the plain Q4_0, or the Q4_K_M";
    if (id == 9 || id == 15) /* Q8_1, Q8_K */
        return "a type for activations, not for files: get the model's Q8_0 or Q4_K_M";
    return "requantise the model with llama.cpp's `llama-quantize`, or get its Q4_K_M";
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
