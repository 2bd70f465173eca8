/* The code-book types to F32; codebooks.h has the formulas. */
#include "tensor/codebooks.h"
#include "tensor/dequantise.h"

static void codes_to_floats(float *out, const struct hd_codes *codes, int group)
{
    for (int g = 0; g < 256 / group; g++) {
        float scale = codes->d * (float)codes->scale[g];
        for (int i = g * group; i < (g + 1) * group; i++)
            out[i] = scale * (float)((int)(codes->q[i / 8] >> i % 8 * 8 & 255) - 128);
    }
}

#define DEQUANTISE(type, bytes, group)                                                             \
    void hd_tensor__##type(float *out, const void *blocks, int64_t n)                              \
    {                                                                                              \
        const uint8_t *p = blocks;                                                                 \
        for (int64_t b = 0; b < n / 256; b++, p += bytes, out += 256) {                            \
            struct hd_codes codes;                                                                 \
            hd_codes_##type(&codes, p);                                                            \
            codes_to_floats(out, &codes, group);                                                   \
        }                                                                                          \
    }
DEQUANTISE(iq1_s, 50, 32)
DEQUANTISE(iq1_m, 56, 16)
DEQUANTISE(iq2_xxs, 66, 32)
DEQUANTISE(iq2_xs, 74, 16)
DEQUANTISE(iq2_s, 82, 16)
DEQUANTISE(iq3_xxs, 98, 32)
DEQUANTISE(iq3_s, 110, 32)

/* 16 bytes of nibbles: 32 values of a book, low nibbles first. */
static void nibbles_to_floats(float *out, const uint8_t *p, const int8_t book[16], float d)
{
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)book[p[i] & 15];
        out[i + 16] = d * (float)book[p[i] >> 4];
    }
}

/* f16 d, nibbles */
void hd_tensor__iq4_nl(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < n / 32; b++, p += 18, out += 32)
        nibbles_to_floats(out, p + 2, hd_tensor_iq4_values, hd_f16_to_f32(hd_codes__u16(p)));
}

/* f16 d, u16: upper two bits of eight 6-bit scales (offset 32), four bytes of lower nibbles, then
 * eight times 16 bytes of nibbles. */
void hd_tensor__iq4_xs(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < n / 256; b++, p += 136) {
        float d = hd_f16_to_f32(hd_codes__u16(p));
        unsigned high = hd_codes__u16(p + 2);
        for (int j = 0; j < 8; j++, out += 32) {
            int scale = (p[4 + j / 2] >> 4 * (j % 2) & 15) | (int)(high >> 2 * j & 3) << 4;
            nibbles_to_floats(out, p + 8 + 16 * j, hd_tensor_iq4_values, d * (float)(scale - 32));
        }
    }
}

/* E8M0 scale, nibbles: E2M1 numbers, doubled in the book. */
void hd_tensor__mxfp4(float *out, const void *blocks, int64_t n)
{
    const uint8_t *p = blocks;
    for (int64_t b = 0; b < n / 32; b++, p += 17, out += 32)
        nibbles_to_floats(out, p + 1, hd_tensor_mxfp4_values, hd_e8m0_half(*p));
}
