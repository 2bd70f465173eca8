/* Block formats against golden blocks (tools/golden/make_quants.py), conversions, the tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/rng.h"
#include "tensor/dtype.h"

/* A golden file: two counts, then two parts. */
struct golden {
    char *file;
    uint32_t n, n_bytes;
    char *body;
};

static struct golden golden_open(const char *name)
{
    struct golden g = {0};
    char path[512];
    size_t len;
    struct hd_errmsg msg;
    snprintf(path, sizeof path, "%s/golden/quants/%s.bin", HD_TEST_ROOT, name);
    if (hd_file_read(&g.file, &len, path, 1 << 20, &msg))
        fail_msg("%s", msg.text);
    assert_true(len > 8);
    memcpy(&g.n, g.file, 4);
    memcpy(&g.n_bytes, g.file + 4, 4);
    assert_int_equal(len, 8 + g.n_bytes + 4 * (size_t)g.n);
    g.body = g.file + 8;
    return g;
}

static void dequantises_bit_for_bit(void **state)
{
    static const int types[] = {HD_F16,   HD_BF16,   HD_Q4_0,    HD_Q4_1,   HD_Q5_0,  HD_Q5_1,
                                HD_Q8_0,  HD_Q2_K,   HD_Q3_K,    HD_Q4_K,   HD_Q5_K,  HD_Q6_K,
                                HD_IQ1_S, HD_IQ1_M,  HD_IQ2_XXS, HD_IQ2_XS, HD_IQ2_S, HD_IQ3_XXS,
                                HD_IQ3_S, HD_IQ4_NL, HD_IQ4_XS,  HD_MXFP4};
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        const struct hd_dtype_info *info = hd_dtype_info(types[t]);
        struct golden g = golden_open(info->name);
        assert_int_equal(hd_dtype_row_bytes(types[t], g.n), g.n_bytes);
        float *out = malloc(4 * (size_t)g.n);
        char *shifted = malloc(g.n_bytes + 1); /* blocks may start anywhere */
        memcpy(shifted + 1, g.body, g.n_bytes);
        info->dequantise(out, shifted + 1, g.n);
        if (memcmp(out, g.body + g.n_bytes, 4 * (size_t)g.n))
            fail_msg("%s differs from the golden values", info->name);
        free(shifted);
        free(out);
        free(g.file);
    }
}

/* The type of a name, by looking. */
static int type_named(const char *name)
{
    for (int id = 0; id < 64; id++)
        if (hd_dtype_info(id) && !strcmp(hd_dtype_info(id)->name, name))
            return id;
    fail_msg("no type %s", name);
    return -1;
}

/* Enough random blocks for every entry of every code book to occur. */
static void dequantises_every_code(void **state)
{
    static const struct {
        int type, at[2];
    } halves[] = {{HD_Q2_K, {80, 82}},  {HD_Q3_K, {108, 108}}, {HD_Q6_K, {208, 208}},
                  {HD_IQ1_M, {54, 54}}, {HD_Q4_1, {0, 2}},     {HD_Q5_1, {0, 2}},
                  {HD_Q4_K, {0, 2}},    {HD_Q5_K, {0, 2}}};
    char name[32], want[65], got[65], *file, path[512];
    unsigned long long seed, n;
    int used, lines = 0;
    size_t len;
    snprintf(path, sizeof path, "%s/golden/quants/digests.txt", HD_TEST_ROOT);
    assert_int_equal(hd_file_read(&file, &len, path, 1 << 16, NULL), HD_OK);
    for (char *at = file; sscanf(at, "%31s %llu %llu %64s %n", name, &seed, &n, want, &used) == 4;
         at += used, lines++) {
        int type = type_named(name);
        const struct hd_dtype_info *info = hd_dtype_info(type);
        size_t bytes = hd_dtype_row_bytes(type, (int64_t)n), block = (size_t)info->block_bytes;
        uint8_t *blocks = malloc(bytes);
        float *out = malloc(n * sizeof *out);
        struct hd_rng rng = {seed};
        for (size_t i = 0; i + 8 <= bytes; i += 8)
            memcpy(blocks + i, &(uint64_t){hd_rng_next(&rng)}, 8);
        int half[2] = {type == HD_MXFP4 ? -1 : 0, 0};
        for (size_t i = 0; i < sizeof halves / sizeof halves[0]; i++)
            if (halves[i].type == type)
                memcpy(half, halves[i].at, sizeof half);
        for (size_t i = 0; half[0] >= 0 && i < bytes; i += block)
            for (int j = 0; j < 2; j++)
                blocks[i + (size_t)half[j] + 1] &= 0xbf;
        info->dequantise(out, blocks, (int64_t)n);
        assert_int_equal(hd_sha256_hex(got, out, n * sizeof *out), HD_OK);
        if (strcmp(got, want))
            fail_msg("%s: values differ from the published decoder's", name);
        free(blocks), free(out);
    }
    assert_int_equal(lines, 20);
    free(file);
}

static void quantises_q8_0_like_the_reference(void **state)
{
    struct golden g = golden_open("Q8_0-quantised");
    float *in = malloc(4 * (size_t)g.n);
    char *out = malloc(g.n_bytes);
    memcpy(in, g.body, 4 * (size_t)g.n);
    hd_quantise_q8_0(out, in, g.n);
    assert_memory_equal(out, g.body + 4 * (size_t)g.n, g.n_bytes);
    free(out);
    free(in);
    free(g.file);
}

static void halves_survive_a_round_trip(void **state)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = hd_f16_to_f32((uint16_t)h);
        if ((h & 0x7fff) > 0x7c00)
            assert_true(isnan(f) && isnan(hd_f16_to_f32(hd_f32_to_f16(f))));
        else
            assert_int_equal(hd_f32_to_f16(f), h);
        f = hd_bf16_to_f32((uint16_t)h);
        if ((h & 0x7fff) > 0x7f80)
            assert_true(isnan(f) && isnan(hd_bf16_to_f32(hd_f32_to_bf16(f))));
        else
            assert_int_equal(hd_f32_to_bf16(f), h);
    }
}

static void halves_round_to_nearest_even(void **state)
{
    assert_int_equal(hd_f32_to_f16(1.0f), 0x3c00);
    assert_int_equal(hd_f32_to_f16(1.0f + 0x1p-11f), 0x3c00);            /* tie: even below */
    assert_int_equal(hd_f32_to_f16(1.0f + 0x1.8p-10f), 0x3c02);          /* tie: even above */
    assert_int_equal(hd_f32_to_f16(1.0f + 0x1p-11f + 0x1p-20f), 0x3c01); /* above the tie */
    assert_int_equal(hd_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(hd_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(hd_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(hd_f32_to_f16(0x1p-24f), 1);
    assert_int_equal(hd_f32_to_f16(0x1p-25f), 0);   /* tie to zero */
    assert_int_equal(hd_f32_to_f16(0x1.8p-24f), 2); /* tie to the even denormal */
    assert_int_equal(hd_f32_to_f16(-0.0f), 0x8000);
    assert_int_equal(hd_f32_to_bf16(1.0f + 0x1p-8f), 0x3f80);
    assert_int_equal(hd_f32_to_bf16(1.0f + 0x1.8p-7f), 0x3f82);
}

static void table_knows_its_limits(void **state)
{
    assert_null(hd_dtype_info(-1));
    assert_null(hd_dtype_info(4));
    assert_null(hd_dtype_info(34));
    assert_null(hd_dtype_info(40));
    assert_null(hd_dtype_info(31));
    assert_null(hd_dtype_info(1 << 20));
    assert_null(hd_dtype_info(HD_I32)->dequantise);
    assert_int_equal(hd_dtype_row_bytes(HD_Q4_K, 512), 288);
    assert_int_equal(hd_dtype_row_bytes(HD_Q4_K, 500), 0);
    assert_int_equal(hd_dtype_row_bytes(HD_F32, -1), 0);
    assert_int_equal(hd_dtype_row_bytes(HD_F32, INT64_MAX), 0);
    assert_int_equal(hd_dtype_row_bytes(99, 32), 0);
    assert_string_equal(hd_dtype_gguf_name(16), "IQ2_XXS");
    assert_string_equal(hd_dtype_gguf_name(-5), "unknown");
    assert_string_equal(hd_dtype_gguf_name(38), "unknown");
    assert_string_equal(hd_dtype_gguf_name(144), "IQ4_KS");
    assert_non_null(strstr(hd_dtype_gguf_advice(144), "ik_llama.cpp"));
    assert_non_null(strstr(hd_dtype_gguf_advice(31), "plain Q4_0"));
    assert_non_null(strstr(hd_dtype_gguf_advice(34), "llama-quantize"));
    assert_string_equal(hd_dtype_gguf_name(1000), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dequantises_bit_for_bit),
        cmocka_unit_test(dequantises_every_code),
        cmocka_unit_test(quantises_q8_0_like_the_reference),
        cmocka_unit_test(halves_survive_a_round_trip),
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(table_knows_its_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
