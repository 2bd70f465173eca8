/* Quantised Hugging Face folders: what is put together, what is refused by name, and parts whose
 * shapes lie. */
#include "support.h"

/* A safetensors file of tensors given as "name dtype shape bytes; …", zeros for data. */
static void put_tensors(const char *folder, const char *list)
{
    struct hd_buf header, file;
    char name[80], dtype[16], shape[40];
    size_t bytes, at = 0;
    int used;
    hd_buf_init(&header, 1 << 16);
    hd_buf_init(&file, 1 << 20);
    hd_buf_puts(&header, "{");
    while (sscanf(list, " %79s %15s %39s %zu;%n", name, dtype, shape, &bytes, &used) == 4) {
        char entry[256];
        snprintf(entry, sizeof entry,
                 "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                 at ? "," : "", name, dtype, shape, at, at + bytes);
        hd_buf_puts(&header, entry);
        at += bytes;
        list += used;
    }
    hd_buf_puts(&header, "}");
    put_u64(&file, header.len);
    hd_buf_append(&file, header.data, header.len);
    for (size_t i = 0; i < at; i++)
        hd_buf_putc(&file, 0);
    write_file(folder, "model.safetensors", file.data, file.len);
    hd_buf_dispose(&header);
    hd_buf_dispose(&file);
}

static enum hd_err open_with(struct hd_store **out, const char *config, const char *tensors,
                             struct hd_errmsg *msg)
{
    char *folder = temp_folder();
    write_text(folder, "config.json", config);
    put_tensors(folder, tensors);
    enum hd_err err = open_path(out, folder, msg);
    remove_folder(folder);
    return err;
}

#define CONFIG(inside) "{\"quantization_config\":{" inside "}}"
#define AWQ "\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,\"version\":\"gemm\""
#define GPTQ "\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32"
#define FP8 "\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]"
#define BNB "\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true"

static void puts_parts_together(void **state)
{
    static const struct {
        const char *config, *tensors;
        enum hd_dtype dtype;
        int n_part;
        size_t bytes;
    } cases[] = {
        {CONFIG(AWQ), "w.qweight I32 [64,2] 512; w.qzeros I32 [2,2] 16; w.scales F16 [2,16] 64;",
         HD_INT4_32, 3, 592},
        {CONFIG(GPTQ), "w.qweight I32 [8,16] 512; w.qzeros I32 [2,2] 16; w.scales F16 [2,16] 64; ",
         HD_INT4_32, 3, 592},
        {CONFIG(FP8), "w.weight F8_E4M3 [130,200] 26000; w.weight_scale_inv F32 [2,2] 16;",
         HD_FP8_128, 2, 26016},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_errmsg msg;
        struct hd_store *store;
        char tensors[512];
        snprintf(tensors, sizeof tensors, "norm.weight F32 [4] 16; %s w.bias F16 [16] 32;",
                 cases[i].tensors);
        if (open_with(&store, cases[i].config, tensors, &msg))
            fail_msg("%s", msg.text);
        assert_int_equal(hd_store_n_tensor(store), 3);
        const struct hd_store_tensor *t = hd_store_tensor(store, "w.weight");
        assert_true(t && t->quant && t->data == t->quant->q);
        assert_int_equal(t->dtype, cases[i].dtype);
        assert_int_equal(t->quant->n_part, cases[i].n_part);
        assert_int_equal(t->bytes, cases[i].bytes);
        assert_int_equal(t->ne[0], cases[i].dtype == HD_FP8_128 ? 200 : 64);
        assert_int_equal(t->ne[1], cases[i].dtype == HD_FP8_128 ? 130 : 16);
        assert_null(hd_store_tensor(store, "w.qweight"));
        assert_true(hd_store_tensor(store, "norm.weight") && hd_store_tensor(store, "w.bias"));
        hd_store_close(store);
    }
}

static void refuses_other_schemes_by_name(void **state)
{
    static const struct {
        const char *config, *tensors, *says;
    } cases[] = {
        {CONFIG("\"quant_method\":\"awq\",\"bits\":4,\"version\":\"gemv\""), "", "\"gemv\""},
        {CONFIG("\"quant_method\":\"awq\",\"bits\":4,\"version\":\"gemv_fast\""), "", "gemv_fast"},
        {CONFIG("\"quant_method\":\"awq\",\"bits\":8,\"version\":\"gemm\""), "", "AWQ with 8 bits"},
        {CONFIG("\"quant_method\":\"awq\",\"backend\":\"llm-awq\""), "", "llm-awq"},
        {CONFIG(AWQ), "w.qweight I16 [4,64] 512;", "llm-awq"},
        {CONFIG(AWQ), "a.W_q U8 [4] 4;", "HQQ"},
        {CONFIG("\"quant_method\":\"gptq\",\"bits\":3"), "", "GPTQ with 3 bits"},
        {CONFIG("\"quant_method\":\"gptq\",\"bits\":2"), "", "GPTQ with 2 bits"},
        {CONFIG("\"quant_method\":\"gptq\",\"bits\":4,\"checkpoint_format\":\"marlin\""), "",
         "\"marlin\""},
        {CONFIG("\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":16"),
         "w.qweight I32 [8,16] 512; w.qzeros I32 [4,2] 32; w.scales F16 [4,16] 128;",
         "groups of 16"},
        {CONFIG("\"quant_method\":\"fp8\""), "", "scale per tensor"},
        {CONFIG("\"quant_method\":\"fp8\",\"weight_block_size\":[64,64]"), "", "128 columns"},
        {CONFIG("\"quant_method\":\"fp8\",\"weight_block_size\":[128,128],\"fmt\":\"e5m2\""), "",
         "e4m3"},
        {CONFIG("\"quant_method\":\"compressed-tensors\""), "", "compressed-tensors"},
        {CONFIG("\"quant_method\":\"bitsandbytes\",\"load_in_8bit\":true"), "", "LLM.int8"},
        {CONFIG("\"quant_method\":\"hqq\""), "", "\"hqq\""},
        {CONFIG("\"quant_method\":\"exl2\""), "", "\"exl2\""},
        {CONFIG("\"quant_method\":7"), "", "\"?\""},
        {"{\"quantization\":{\"group_size\":64,\"bits\":4}}", "", "MLX"},
        {"{}", "w.weight I8 [4] 4; w.SCB F32 [1] 4;", "LLM.int8"},
        {"{}", "w.W_q U8 [4] 4;", "HQQ"},
        {"{}", "w.q_weight I32 [4] 16;", "EXL2"},
        {"{}", "w.trellis I16 [4] 8;", "EXL3"},
        {"{}", "w.weight_packed I32 [4] 16;", "compressed-tensors"},
        {"{}", "w.weight F8_E4M3 [4] 4; w.weight_scale F32 [1] 4;", "scale per tensor"},
        {"{}", "w.qweight I32 [8,16] 512;", "without their settings"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_errmsg msg;
        struct hd_store *store;
        if (open_with(&store, cases[i].config, cases[i].tensors, &msg) != HD_ERR_UNSUPPORTED)
            fail_msg("%s, %s: not refused", cases[i].config, cases[i].tensors);
        assert_says(&msg, cases[i].says);
        assert_says(&msg, "support");
    }
}

static void refuses_parts_that_lie(void **state)
{
#define Q "w.qweight I32 [8,16] 512; "
#define Z "w.qzeros I32 [2,2] 16; "
#define S "w.scales F16 [2,16] 64; "
    static const struct {
        const char *config, *tensors, *says;
    } cases[] = {
        {CONFIG(GPTQ), Q Z, ".scales: is missing"},
        {CONFIG(GPTQ), Q S, ".qzeros: is missing"},
        {CONFIG(GPTQ), Q Z "w.scales F16 [2,8] 32;",
         ".scales: is F16 [2, 8], expected F16 [2, 16]"},
        {CONFIG(GPTQ), Q Z "w.scales F16 [1,16] 32;", ".scales"},
        {CONFIG(GPTQ), Q Z "w.scales F32 [2,16] 128;", "is F32"},
        {CONFIG(GPTQ), Q S "w.qzeros I32 [2,1] 8;", ".qzeros"},
        {CONFIG(GPTQ), Q Z S "w.g_idx I32 [63] 252;", ".g_idx"},
        {CONFIG(GPTQ), Q Z S "w.g_idx I32 [64] 256;", "unequal size"},
        {CONFIG(GPTQ), "w.qweight F32 [8,16] 512; " Z S, ".qweight"},
        {CONFIG(GPTQ), Q Z S "w.weight F32 [1] 4;", "twice"},
        {CONFIG("\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":0"), Q Z S, "group_size 0"},
        {CONFIG(AWQ), "w.qweight I32 [64,2] 512; w.qzeros I32 [2,2] 16;", ".scales"},
        {CONFIG(FP8), "w.weight F8_E4M3 [130,200] 26000;", "weight_scale_inv: is missing"},
        {CONFIG(FP8), "w.weight F8_E4M3 [130,200] 26000; w.weight_scale_inv F32 [2,1] 8;",
         "expected F32 [2, 2]"},
        {CONFIG(FP8), "w.weight F8_E4M3 [4,4] 16; w.weight_scale_inv I32 [1,1] 4;", "neither"},
        {CONFIG(BNB), "w.weight U8 [128,1] 128; w.weight.quant_state.bitsandbytes__nf4 U8 [4] 4;",
         "no quantisation state"},
    };
#undef Q
#undef Z
#undef S
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_errmsg msg;
        struct hd_store *store;
        if (open_with(&store, cases[i].config, cases[i].tensors, &msg) != HD_ERR_FORMAT)
            fail_msg("%s, %s: not refused", cases[i].config, cases[i].tensors);
        assert_says(&msg, cases[i].says);
    }
}

/* Looking shows what is there, whatever it is. */
static void looking_refuses_nothing(void **state)
{
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = temp_folder();
    write_text(folder, "config.json", CONFIG("\"quant_method\":\"hqq\""));
    put_tensors(folder, "w.W_q U8 [4] 4; norm.weight F32 [1] 4;");
    assert_int_equal(hd_store_open_header(&store, folder, &msg), HD_OK);
    assert_int_equal(hd_store_n_tensor(store), 2);
    hd_store_close(store);
    write_text(folder, "config.json", CONFIG(GPTQ));
    put_tensors(folder, "w.qweight I32 [8,16] 512; norm.weight F32 [1] 4;");
    assert_int_equal(hd_store_open_header(&store, folder, &msg), HD_OK);
    assert_int_equal(hd_store_n_tensor(store), 2);
    hd_store_close(store);
    remove_folder(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(puts_parts_together),
        cmocka_unit_test(refuses_other_schemes_by_name),
        cmocka_unit_test(refuses_parts_that_lie),
        cmocka_unit_test(looking_refuses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
