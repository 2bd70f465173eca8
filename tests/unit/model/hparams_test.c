/* Hyper-parameters: the same from both formats, refused with a sentence when they are bad. */
#include "support.h"

#include <math.h>

#include "base/buf.h"

static void read_from(struct hd_hparams *hp, const char *path)
{
    struct hd_store *store;
    struct hd_errmsg msg = {0};
    assert_int_equal(hd_store_open(&store, path, &msg), HD_OK);
    if (hd_hparams_read(hp, store, &msg))
        fail_msg("%s: %s", path, msg.text);
    hd_store_close(store);
}

static void both_formats_agree(void **state)
{
    static const char *const pairs[][2] = {{"qwen2-tied", "qwen2-tied.gguf"},
                                           {"qwen2-untied", "qwen2-untied.gguf"},
                                           {"llama3", "llama3.gguf"},
                                           {"deepseek-v3", "deepseek-v3-kvb.gguf"},
                                           {"deepseek-v3", "deepseek-v3-mla.gguf"},
                                           {"deepseek-v3-mtp", "deepseek-v3-mtp.gguf"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct hd_hparams a, b;
        char path[512];
        snprintf(path, sizeof path, MODELS "%s", pairs[i][0]);
        read_from(&a, path);
        snprintf(path, sizeof path, MODELS "%s", pairs[i][1]);
        read_from(&b, path);
        assert_string_equal(a.arch_name, b.arch_name);
        assert_int_equal(a.n_vocab, b.n_vocab);
        assert_int_equal(a.n_layer, b.n_layer);
        assert_int_equal(a.n_layer_mtp, b.n_layer_mtp);
        assert_int_equal(a.n_head_kv, b.n_head_kv);
        assert_int_equal(a.head_dim, b.head_dim);
        assert_int_equal(a.tied, b.tied);
        assert_int_equal(a.n_expert_group, b.n_expert_group);
        assert_int_equal(a.n_expert_group_used, b.n_expert_group_used);
        assert_int_equal(a.qk_nope_head_dim, b.qk_nope_head_dim);
        assert_true(a.rope.theta == b.rope.theta);
        assert_true(hd_hparams_attention_scale(&a) == hd_hparams_attention_scale(&b));
    }
}

/* --- GGUF headers of our own: hyper-parameters need no weights ---------------------------------
 */

static void put_u32(struct hd_buf *buf, uint32_t v)
{
    hd_buf_append(buf, &v, 4);
}

static void put_u64(struct hd_buf *buf, uint64_t v)
{
    hd_buf_append(buf, &v, 8);
}

static void put_str(struct hd_buf *buf, const char *s)
{
    put_u64(buf, strlen(s));
    hd_buf_append(buf, s, strlen(s));
}

struct number {
    const char *key;
    uint32_t value;
};

/* A deepseek2 header with these keys beside the ones that every file has, and F32 tensors of four
 * elements by name (the embedding: 4 × 4). */
static void read_deepseek2(struct hd_hparams *hp, const struct number *more, size_t n_more,
                           const char *const *tensors, size_t n_tensor)
{
    static const struct number always[] = {
        {"deepseek2.embedding_length", 4},          {"deepseek2.context_length", 512},
        {"deepseek2.feed_forward_length", 8},       {"deepseek2.attention.head_count", 2},
        {"deepseek2.attention.kv_lora_rank", 4},    {"deepseek2.rope.dimension_count", 2},
        {"deepseek2.attention.key_length", 6},      {"deepseek2.attention.value_length", 4},
        {"deepseek2.leading_dense_block_count", 1}, {"deepseek2.expert_used_count", 8},
        {"deepseek2.expert_shared_count", 1},       {"deepseek2.expert_feed_forward_length", 4},
        {"deepseek2.expert_gating_func", 2},
    };
    size_t n_always = sizeof always / sizeof *always;
    char path[] = "/tmp/holdfast-hparams-XXXXXX.gguf";
    struct hd_buf buf;
    int fd = mkstemps(path, 5);
    assert_true(fd >= 0);
    close(fd);
    hd_buf_init(&buf, 1 << 20);
    hd_buf_puts(&buf, "GGUF");
    put_u32(&buf, 3);
    put_u64(&buf, 1 + n_tensor);
    put_u64(&buf, 2 + n_always + n_more);
    put_str(&buf, "general.architecture");
    put_u32(&buf, 8);
    put_str(&buf, "deepseek2");
    put_str(&buf, "deepseek2.attention.layer_norm_rms_epsilon");
    put_u32(&buf, 6);
    hd_buf_append(&buf, &(float){1e-6f}, 4);
    for (size_t i = 0; i < n_always + n_more; i++) {
        const struct number *n = i < n_always ? &always[i] : &more[i - n_always];
        put_str(&buf, n->key);
        put_u32(&buf, 4);
        put_u32(&buf, n->value);
    }
    for (size_t i = 0; i < 1 + n_tensor; i++) {
        put_str(&buf, i ? tensors[i - 1] : "token_embd.weight");
        put_u32(&buf, i ? 1 : 2);
        put_u64(&buf, 4);
        if (!i)
            put_u64(&buf, 4);
        put_u32(&buf, 0);
        put_u64(&buf, i ? 32 + 32 * i : 0);
    }
    while (buf.len % 32)
        hd_buf_putc(&buf, 0);
    for (size_t i = 0; i < 64 + 32 * n_tensor; i++)
        hd_buf_putc(&buf, 0);
    assert_int_equal(buf.err, HD_OK);
    assert_int_equal(hd_file_write(path, buf.data, buf.len, NULL), HD_OK);
    hd_buf_dispose(&buf);
    read_from(hp, path);
    unlink(path);
}

/* Files of the 671B without expert_group keys: 256 experts mean 8 groups, of which 4 are kept. */
static void missing_groups_of_256_experts(void **state)
{
    struct hd_hparams hp;
    const struct number plain[] = {{"deepseek2.block_count", 3}, {"deepseek2.expert_count", 256}};
    read_deepseek2(&hp, plain, 2, NULL, 0);
    assert_int_equal(hp.n_expert_group, 8);
    assert_int_equal(hp.n_expert_group_used, 4);
    const struct number said[] = {{"deepseek2.block_count", 3},
                                  {"deepseek2.expert_count", 256},
                                  {"deepseek2.expert_group_count", 16},
                                  {"deepseek2.expert_group_used_count", 2}};
    read_deepseek2(&hp, said, 4, NULL, 0);
    assert_int_equal(hp.n_expert_group, 16);
    assert_int_equal(hp.n_expert_group_used, 2);
    const struct number fewer[] = {{"deepseek2.block_count", 3}, {"deepseek2.expert_count", 64}};
    read_deepseek2(&hp, fewer, 2, NULL, 0);
    assert_int_equal(hp.n_expert_group, 1);
    assert_int_equal(hp.n_expert_group_used, 1);
}

/* The MTP layer counted in block_count, kept but not counted, and left out by the converter. */
static void mtp_layers_of_gguf_files(void **state)
{
    struct hd_hparams hp;
    static const char *const last[] = {"blk.2.nextn.eh_proj.weight"};
    static const char *const behind[] = {"blk.3.nextn.eh_proj.weight"};
    const struct number keys[] = {{"deepseek2.block_count", 3},
                                  {"deepseek2.expert_count", 256},
                                  {"deepseek2.nextn_predict_layers", 1}};
    read_deepseek2(&hp, keys, 3, last, 1);
    assert_int_equal(hp.n_layer, 2);
    assert_int_equal(hp.n_layer_mtp, 1);
    read_deepseek2(&hp, keys, 3, behind, 1);
    assert_int_equal(hp.n_layer, 3);
    assert_int_equal(hp.n_layer_mtp, 1);
    read_deepseek2(&hp, keys, 3, NULL, 0);
    assert_int_equal(hp.n_layer, 3);
    assert_int_equal(hp.n_layer_mtp, 0);
    read_deepseek2(&hp, keys, 2, last, 1); /* without the key the tensor says nothing */
    assert_int_equal(hp.n_layer, 3);
    assert_int_equal(hp.n_layer_mtp, 0);
}

/* The published R1 values: correction range 10 … 23 of 32 pairs, softmax scale 0.1352338. */
static void yarn_of_r1(void **state)
{
    struct hd_hparams hp = {.arch = HD_ARCH_DEEPSEEK,
                            .qk_nope_head_dim = 128,
                            .qk_rope_head_dim = 64,
                            .rope = {.theta = 10000,
                                     .n_rot = 64,
                                     .scaling = HD_ROPE_YARN,
                                     .factor = 40,
                                     .n_ctx_orig = 4096,
                                     .beta_fast = 32,
                                     .beta_slow = 1,
                                     .mscale = 1,
                                     .mscale_all_dim = 1}};
    float inv_freq[32];
    hd_hparams_inv_freq(inv_freq, &hp, NULL);
    assert_float_equal(hd_hparams_attention_scale(&hp), 0.1352338f, 1e-7);
    for (int i = 0; i < 32; i++) {
        double f = pow(10000, -i / 32.0), ramp = (i - 10) / 13.0;
        double s = 1 - (ramp < 0 ? 0 : ramp > 1 ? 1 : ramp);
        assert_float_equal(inv_freq[i], f / 40 * (1 - s) + f * s, 1e-8);
    }
    assert_true(inv_freq[10] == (float)pow(10000, -10 / 32.0));
    assert_float_equal(inv_freq[23], pow(10000, -23 / 32.0) / 40, 1e-9);
}

/* Loads a changed config; the sentence must name `what`. */
static void expect_refusal(const char *name, const char *patch, enum hd_err want, const char *what)
{
    char folder[64];
    struct hd_store *store = NULL;
    struct hd_model *model = NULL;
    struct hd_pool *pool;
    const struct hd_backend *backend;
    struct hd_errmsg msg = {0};
    make_folder(folder, name, patch, 1);
    assert_int_equal(hd_pool_new(&pool, 1), HD_OK);
    assert_int_equal(hd_backend_get(&backend, "ref", NULL), HD_OK);
    assert_int_equal(hd_store_open(&store, folder, &msg), HD_OK);
    enum hd_err err = hd_model_load(&model, store, backend, pool, &msg);
    assert_null(model);
    if (err != want || !strstr(msg.text, what))
        fail_msg("%s: got %s \"%s\", wanted %s naming %s", patch, hd_err_name(err), msg.text,
                 hd_err_name(want), what);
    hd_store_close(store);
    hd_pool_free(pool);
    remove_folder(folder);
}

static void bad_configs_are_refused(void **state)
{
    expect_refusal("qwen2-tied", "{\"model_type\":\"gpt_neox\"}", HD_ERR_UNSUPPORTED,
                   "supported: Qwen2, Llama, DeepSeek-V3/R1");
    expect_refusal("qwen2-tied", "{\"model_type\":null}", HD_ERR_FORMAT, "model_type");
    expect_refusal("qwen2-tied", "{\"hidden_size\":null}", HD_ERR_FORMAT, "hidden_size");
    expect_refusal("qwen2-tied", "{\"hidden_size\":\"64\"}", HD_ERR_FORMAT, "hidden_size");
    expect_refusal("qwen2-tied", "{\"hidden_size\":-64}", HD_ERR_FORMAT, "hidden_size");
    expect_refusal("qwen2-tied", "{\"hidden_size\":100000000}", HD_ERR_FORMAT, "n_embd");
    expect_refusal("qwen2-tied", "{\"num_hidden_layers\":0}", HD_ERR_FORMAT, "layer count");
    expect_refusal("qwen2-tied", "{\"num_hidden_layers\":1000000}", HD_ERR_FORMAT, "layer count");
    expect_refusal("qwen2-tied", "{\"num_attention_heads\":0}", HD_ERR_FORMAT, "head count");
    expect_refusal("qwen2-tied", "{\"num_attention_heads\":5}", HD_ERR_FORMAT, "5 heads");
    expect_refusal("qwen2-tied", "{\"num_key_value_heads\":3}", HD_ERR_FORMAT, "KV heads");
    expect_refusal("qwen2-tied", "{\"rms_norm_eps\":0}", HD_ERR_FORMAT, "epsilon");
    expect_refusal("qwen2-tied", "{\"rope_theta\":0.5}", HD_ERR_FORMAT, "RoPE base");
    expect_refusal("qwen2-tied", "{\"hidden_act\":\"gelu\"}", HD_ERR_UNSUPPORTED, "gelu");
    expect_refusal("qwen2-tied", "{\"use_sliding_window\":true,\"max_window_layers\":0}",
                   HD_ERR_UNSUPPORTED, "use_sliding_window");
    expect_refusal("qwen2-tied", "{\"rope_scaling\":{\"type\":\"longrope\",\"factor\":4}}",
                   HD_ERR_UNSUPPORTED, "longrope");
    expect_refusal("qwen2-tied", "{\"rope_scaling\":{\"type\":\"yarn\"}}", HD_ERR_FORMAT, "factor");
    expect_refusal("deepseek-v3", "{\"scoring_func\":\"softmax\"}", HD_ERR_UNSUPPORTED,
                   "scoring_func");
    expect_refusal("deepseek-v3", "{\"n_group\":3}", HD_ERR_FORMAT, "groups");
    expect_refusal("deepseek-v3", "{\"num_experts_per_tok\":9}", HD_ERR_FORMAT, "experts used");
    expect_refusal("deepseek-v3", "{\"topk_group\":1}", HD_ERR_FORMAT, "groups kept hold fewer");
    expect_refusal("deepseek-v3", "{\"kv_lora_rank\":0}", HD_ERR_FORMAT, "kv_lora_rank");
}

static void missing_and_misshapen_tensors_are_named(void **state)
{
    expect_refusal("qwen2-tied", "{\"num_hidden_layers\":3}", HD_ERR_FORMAT,
                   "model.layers.2.input_layernorm.weight is missing");
    expect_refusal("qwen2-tied", "{\"tie_word_embeddings\":false}", HD_ERR_FORMAT,
                   "lm_head.weight is missing");
    expect_refusal("qwen2-tied", "{\"vocab_size\":321}", HD_ERR_FORMAT,
                   "model.embed_tokens.weight has the shape [64, 320, 1], expected [64, 321, 1]");
    expect_refusal("qwen2-tied", "{\"intermediate_size\":95}", HD_ERR_FORMAT, "gate_proj");
    expect_refusal("deepseek-v3", "{\"n_routed_experts\":12,\"n_group\":4}", HD_ERR_FORMAT,
                   "mlp.gate.weight");
    expect_refusal("deepseek-v3", "{\"first_k_dense_replace\":0}", HD_ERR_FORMAT,
                   "layers.0.mlp.gate.weight is missing");
    expect_refusal("deepseek-v3", "{\"v_head_dim\":32}", HD_ERR_FORMAT, "kv_b_proj");
}

static void a_folder_without_weights_is_refused(void **state)
{
    char folder[64];
    struct hd_store *store;
    struct hd_model *model;
    struct hd_pool *pool;
    const struct hd_backend *backend;
    struct hd_errmsg msg = {0};
    make_folder(folder, "llama3", "{}", 0);
    assert_int_equal(hd_pool_new(&pool, 1), HD_OK);
    assert_int_equal(hd_backend_get(&backend, "ref", NULL), HD_OK);
    assert_int_equal(hd_store_open(&store, folder, &msg), HD_OK);
    assert_int_equal(hd_model_load(&model, store, backend, pool, &msg), HD_ERR_FORMAT);
    assert_non_null(strstr(msg.text, "model.embed_tokens.weight is missing"));
    hd_store_close(store);
    hd_pool_free(pool);
    remove_folder(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_formats_agree),
        cmocka_unit_test(missing_groups_of_256_experts),
        cmocka_unit_test(mtp_layers_of_gguf_files),
        cmocka_unit_test(yarn_of_r1),
        cmocka_unit_test(bad_configs_are_refused),
        cmocka_unit_test(missing_and_misshapen_tensors_are_named),
        cmocka_unit_test(a_folder_without_weights_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
