/* Encoders: what a folder says about itself, and what is refused with which words. */
#include <sys/stat.h>

#include "model/encoder.h"
#include "support.h"

static enum hd_err load(struct hd_hparams *hp, const char *folder, struct hd_errmsg *msg)
{
    struct hd_store *store = NULL;
    struct hd_pool *pool = NULL;
    struct hd_model *model = NULL;
    const struct hd_backend *backend;
    assert_int_equal(hd_backend_get(&backend, "ref", msg), HD_OK);
    assert_int_equal(hd_pool_new(&pool, 1), HD_OK);
    enum hd_err err = hd_store_open(&store, folder, msg);
    if (!err)
        err = hd_model_load(&model, store, backend, pool, msg);
    if (!err)
        *hp = *hd_model_hparams(model);
    hd_model_free(model);
    hd_pool_free(pool);
    hd_store_close(store);
    return err;
}

static void put(const char *folder, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void drop(const char *folder, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    remove(path);
}

static void bad_configs_are_refused(void **state)
{
    static const struct {
        const char *patch;
        enum hd_err err;
        const char *says;
    } cases[] = {
        {"{\"position_embedding_type\":\"relative_key\"}", HD_ERR_UNSUPPORTED,
         "position_embedding_type other than absolute"},
        {"{\"is_decoder\":true}", HD_ERR_UNSUPPORTED, "is_decoder"},
        {"{\"hidden_act\":\"quick_gelu\"}", HD_ERR_UNSUPPORTED, "quick_gelu"},
        {"{\"quantization_config\":{\"quant_method\":\"awq\"}}", HD_ERR_UNSUPPORTED,
         "quantization_config"},
        {"{\"architectures\":[\"BertForSequenceClassification\"]}", HD_ERR_UNSUPPORTED,
         "a classifier with 2 labels"},
        {"{\"hidden_size\":null}", HD_ERR_FORMAT, "hidden_size is missing"},
        {"{\"hidden_size\":-1}", HD_ERR_FORMAT, "whole number"},
        {"{\"num_attention_heads\":5}", HD_ERR_FORMAT, "does not divide into 5 heads"},
        {"{\"num_attention_heads\":0}", HD_ERR_FORMAT, "head count is 0"},
        {"{\"layer_norm_eps\":0}", HD_ERR_FORMAT, "norm epsilon"},
        {"{\"max_position_embeddings\":2}", HD_ERR_FORMAT, "context length is 2"},
        {"{\"max_position_embeddings\":81}", HD_ERR_FORMAT, "position_embeddings.weight"},
        {"{\"num_hidden_layers\":3}", HD_ERR_FORMAT, "encoder.layer.2"},
        {"{\"intermediate_size\":41}", HD_ERR_FORMAT, "intermediate.dense.weight"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_errmsg msg = {0};
        struct hd_hparams hp;
        char folder[64];
        make_folder(folder, "enc-bert", cases[i].patch, 1);
        enum hd_err err = load(&hp, folder, &msg);
        if (err != cases[i].err || !strstr(msg.text, cases[i].says))
            fail_msg("%s: got %d \"%s\", wanted %d naming %s", cases[i].patch, err, msg.text,
                     cases[i].err, cases[i].says);
        remove_folder(folder);
    }
}

static void side_files_are_honoured(void **state)
{
    struct hd_errmsg msg = {0};
    struct hd_hparams hp;
    char folder[64], pooling[96];
    make_folder(folder, "enc-bert", "{}", 1);
    assert_int_equal(load(&hp, folder, &msg), HD_OK); /* none of them */
    assert_true(hp.enc.pooling == HD_POOLING_MEAN && hp.enc.normalise && hp.n_ctx == 80);
    assert_string_equal(hp.enc.query_prefix, "");
    snprintf(pooling, sizeof pooling, "%s/1_Pooling", folder);
    mkdir(pooling, 0700);
    put(folder, "modules.json", "[{\"type\":\"sentence_transformers.models.Transformer\"}]");
    put(folder, "1_Pooling/config.json", "{\"pooling_mode_cls_token\":true}");
    put(folder, "sentence_bert_config.json", "{\"max_seq_length\":20}");
    assert_int_equal(load(&hp, folder, &msg), HD_OK);
    assert_true(hp.enc.pooling == HD_POOLING_CLS && !hp.enc.normalise && hp.n_ctx == 20);
    put(folder, "1_Pooling/config.json", "{\"pooling_mode_max_tokens\":true}");
    assert_int_equal(load(&hp, folder, &msg), HD_ERR_UNSUPPORTED);
    assert_non_null(strstr(msg.text, "this way of pooling"));
    put(folder, "1_Pooling/config.json",
        "{\"pooling_mode_mean_tokens\":true,\"pooling_mode_cls_token\":true}");
    assert_int_equal(load(&hp, folder, &msg), HD_ERR_UNSUPPORTED);
    put(folder, "1_Pooling/config.json", "{\"pooling_mode_mean_tokens\":true}");
    put(folder, "modules.json", "[{\"type\":\"sentence_transformers.models.Dense\"}]");
    assert_int_equal(load(&hp, folder, &msg), HD_ERR_UNSUPPORTED);
    assert_non_null(strstr(msg.text, "module \"Dense\""));
    drop(folder, "modules.json");
    drop(folder, "1_Pooling/config.json");
    drop(folder, "1_Pooling");
    drop(folder, "sentence_bert_config.json");
    remove_folder(folder);
}

static void names_tell_of_prefixes(void **state)
{
    static const struct {
        const char *name, *query;
    } cases[] = {{"intfloat/multilingual-e5-small", "query: "},
                 {"e5", "query: "},
                 {"E5-mistral", "query: "},
                 {"some/bge-e50", ""},
                 {"type5-model", ""},
                 {"", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_errmsg msg = {0};
        struct hd_hparams hp;
        char folder[64], patch[128];
        snprintf(patch, sizeof patch, "{\"_name_or_path\":\"%s\"}", cases[i].name);
        make_folder(folder, "enc-bert", patch, 1);
        assert_int_equal(load(&hp, folder, &msg), HD_OK);
        assert_string_equal(hp.enc.query_prefix, cases[i].query);
        assert_string_equal(hp.enc.passage_prefix, *cases[i].query ? "passage: " : "");
        remove_folder(folder);
    }
}

static void batches_are_checked(void **state)
{
    struct hd_errmsg msg = {0};
    struct hd_store *store;
    struct hd_pool *pool;
    struct hd_model *model;
    struct hd_encoder *encoder;
    const struct hd_backend *backend;
    static const int32_t ids[100] = {2, 5, 3};
    float out[24];
    assert_int_equal(hd_backend_get(&backend, "ref", &msg), HD_OK);
    assert_int_equal(hd_pool_new(&pool, 1), HD_OK);
    assert_int_equal(hd_store_open(&store, MODELS "enc-bert", &msg), HD_OK);
    assert_int_equal(hd_model_load(&model, store, backend, pool, &msg), HD_OK);
    assert_int_equal(hd_encoder_new(&encoder, model, pool, 100, 2, &msg), HD_OK);
    const struct hd_seq_rows good = {.n = 3}, gap = {.begin = 1, .n = 2}, empty = {0};
    const struct hd_seq_rows beyond = {.n = 4}, too_long = {.n = 77};
    struct hd_encoder_batch b = {.ids = ids, .n = 3, .seqs = &good, .n_seq = 1};
    assert_int_equal(hd_encoder_forward(encoder, &b, &msg), HD_OK);
    assert_int_equal(hd_encoder_dense(encoder, out, &msg), HD_OK);
    assert_int_equal(hd_encoder_sparse(encoder, out, &msg), HD_ERR_UNSUPPORTED);
    assert_int_equal(hd_encoder_scores(encoder, out, &msg), HD_ERR_UNSUPPORTED);
    float again[24];
    bool done = false;
    int n_piece = 0;
    assert_int_equal(hd_encoder_begin(encoder, &b, &msg), HD_OK);
    for (; !done; n_piece++)
        assert_int_equal(hd_encoder_step(encoder, &done, &msg), HD_OK);
    assert_int_equal(n_piece, 4 * hd_model_hparams(model)->n_layer);
    assert_int_equal(hd_encoder_dense(encoder, again, &msg), HD_OK);
    assert_memory_equal(again, out, sizeof out);
    assert_int_equal(hd_encoder_step(encoder, &done, &msg), HD_OK); /* nothing is left */
    assert_true(done);
    const struct hd_seq_rows *bad[] = {&gap, &empty, &beyond};
    for (size_t i = 0; i < 3; i++) {
        b.seqs = bad[i];
        assert_int_equal(hd_encoder_forward(encoder, &b, &msg), HD_ERR_INTERNAL);
    }
    b.seqs = &too_long; /* the checkpoint reads 76 */
    b.n = 77;
    assert_int_equal(hd_encoder_forward(encoder, &b, &msg), HD_ERR_INTERNAL);
    b.n = 101;
    assert_int_equal(hd_encoder_forward(encoder, &b, &msg), HD_ERR_INTERNAL);
    hd_encoder_free(encoder);
    hd_model_free(model);
    hd_store_close(store);
    hd_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_configs_are_refused),
        cmocka_unit_test(side_files_are_honoured),
        cmocka_unit_test(names_tell_of_prefixes),
        cmocka_unit_test(batches_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
