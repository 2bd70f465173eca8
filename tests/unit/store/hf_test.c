/* Hugging Face folders: safetensors, shards, JSON files, and what is refused. */
#include "support.h"

/* A safetensors file: header, padding to make lengths visible, n_data bytes 0, 1, 2, … */
static void put_safetensors(const char *folder, const char *name, const char *header, size_t n_data)
{
    struct hd_buf buf;
    hd_buf_init(&buf, 1 << 20);
    put_u64(&buf, strlen(header));
    hd_buf_puts(&buf, header);
    for (size_t i = 0; i < n_data; i++)
        hd_buf_putc(&buf, (char)i);
    write_file(folder, name, buf.data, buf.len);
    hd_buf_dispose(&buf);
}

static void reads_one_file(void **state)
{
    struct hd_errmsg msg;
    struct hd_store *store;
    const struct hd_store_tensor *t;
    char *folder = temp_folder();
    write_text(folder, "config.json", "{\"model_type\": \"qwen2\"}");
    put_safetensors(folder, "model.safetensors",
                    "{\"__metadata__\":{\"format\":\"pt\"},"
                    "\"w\":{\"dtype\":\"BF16\",\"shape\":[2,3,4],\"data_offsets\":[0,48]},"
                    "\"one\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[48,52]},"
                    "\"fp8\":{\"dtype\":\"F8_E4M3\",\"shape\":[4],\"data_offsets\":[52,56]},"
                    "\"odd\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[56,58]}}",
                    58);
    assert_int_equal(open_path(&store, folder, &msg), 0);
    assert_int_equal(hd_store_format(store), HD_STORE_HF);
    assert_int_equal(hd_store_n_tensor(store), 4);
    assert_string_equal(json_string_value(json_object_get(hd_store_config(store), "model_type")),
                        "qwen2");
    assert_null(hd_store_tokenizer(store));
    t = hd_store_tensor(store, "w");
    assert_non_null(t);
    assert_int_equal(t->dtype, HD_BF16);
    assert_int_equal(t->n_dim, 3);
    assert_true(t->ne[0] == 4 && t->ne[1] == 3 && t->ne[2] == 2 && t->ne[3] == 1);
    assert_int_equal(t->bytes, 48);
    assert_int_equal(((const uint8_t *)t->data)[47], 47);
    t = hd_store_tensor(store, "one");
    assert_true(t && t->n_dim == 1 && t->ne[0] == 1);
    assert_int_equal(((const uint8_t *)t->data)[0], 48);
    assert_null(hd_store_tensor(store, "fp8"));
    assert_int_equal(hd_store_tensor_get(&t, store, "fp8", &msg), HD_ERR_UNSUPPORTED);
    assert_says(&msg, "F8_E4M3: not supported");
    assert_int_equal(hd_store_tensor_get(&t, store, "odd", &msg), HD_ERR_UNSUPPORTED);
    assert_says(&msg, "F4");
    uint64_t u;
    assert_false(hd_store_u64(store, "general.alignment", &u));
    assert_int_equal(hd_store_n_key(store), 0);
    hd_store_close(store);
    remove_folder(folder);
}

static void refused(const char *header, size_t n_data, const char *says)
{
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = temp_folder();
    write_text(folder, "config.json", "{}");
    put_safetensors(folder, "model.safetensors", header, n_data);
    assert_int_equal(open_path(&store, folder, &msg), HD_ERR_FORMAT);
    assert_says(&msg, says);
    remove_folder(folder);
}

static void refuses_bad_tensors(void **state)
{
#define T(dtype, shape, offsets)                                                                   \
    "{\"w\":{" dtype "\"shape\":" shape ",\"data_offsets\":" offsets "}}"
#define F32 "\"dtype\":\"F32\","
    refused(T(F32, "[4]", "[0,16]"), 15, "1 bytes are missing");
    refused(T(F32, "[4]", "[0,16]"), 0, "\"w\"");
    refused(T(F32, "[4]", "[0,12]"), 16, "do not span");
    refused(T(F32, "[4]", "[16,0]"), 16, "ascending");
    refused(T(F32, "[4]", "[-16,0]"), 16, "ascending");
    refused(T(F32, "[4]", "[0]"), 16, "ascending");
    refused(T(F32, "[4]", "[9223372036854775800,9223372036854775807]"), 16, "do not span");
    refused(T(F32, "[0]", "[0,0]"), 16, "above 0");
    refused(T(F32, "[4.0]", "[0,16]"), 16, "above 0");
    refused(T(F32, "[1,1,1,1,4]", "[0,16]"), 16, "more than 4");
    refused(T(F32, "[4294967296,4294967296]", "[0,16]"), 16, "overflows");
    refused(T(F32, "[4611686018427387904]", "[0,0]"), 16, "do not span");
    refused(T("", "[4]", "[0,16]"), 16, "no dtype");
    refused("{\"w\":[]}", 16, "no dtype");
    refused("{\"w\":1}", 16, "no dtype");
    refused("[1]", 16, "no tensor table");
    refused("{\"w\":{},\"w\":{}}", 16, "duplicate");
    refused("{\"w\":", 16, "header");
    refused("", 16, "header");
#undef T
#undef F32
}

static void refuses_lying_lengths(void **state)
{
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = temp_folder();
    static const uint64_t lengths[] = {UINT64_MAX, 100 * 1000 * 1000 + 1, 9, 1ull << 63};
    write_text(folder, "config.json", "{}");
    for (size_t i = 0; i < 4; i++) {
        struct hd_buf buf;
        hd_buf_init(&buf, 100);
        put_u64(&buf, lengths[i]);
        hd_buf_puts(&buf, "{}");
        write_file(folder, "model.safetensors", buf.data, buf.len);
        hd_buf_dispose(&buf);
        assert_int_equal(open_path(&store, folder, &msg), HD_ERR_FORMAT);
    }
    for (size_t len = 0; len < 8; len++) {
        write_file(folder, "model.safetensors", "\2\0\0\0\0\0\0\0", len);
        assert_int_equal(open_path(&store, folder, &msg), HD_ERR_FORMAT);
    }
    remove_folder(folder);
}

static const char one_a[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
static const char one_b[] = "{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";

static enum hd_err open_index(const char *index, struct hd_errmsg *msg)
{
    struct hd_store *store;
    char *folder = temp_folder();
    write_text(folder, "config.json", "{}");
    write_text(folder, "model.safetensors.index.json", index);
    put_safetensors(folder, "a.st", one_a, 4);
    put_safetensors(folder, "b.st", one_b, 4);
    enum hd_err err = open_path(&store, folder, msg);
    if (!err) {
        assert_non_null(hd_store_tensor(store, "a"));
        assert_non_null(hd_store_tensor(store, "b"));
    }
    hd_store_close(store);
    remove_folder(folder);
    return err;
}

static void reads_shards(void **state)
{
    static const struct {
        const char *map;
        enum hd_err err;
        const char *says;
    } cases[] = {
        {"{\"a\":\"a.st\",\"b\":\"b.st\"}", HD_OK, ""},
        {"{\"a\":\"../a.st\"}", HD_ERR_FORMAT, "no plain file name"},
        {"{\"a\":\"/etc/passwd\"}", HD_ERR_FORMAT, "no plain file name"},
        {"{\"a\":\"x\\\\a.st\"}", HD_ERR_FORMAT, "no plain file name"},
        {"{\"a\":\"..\"}", HD_ERR_FORMAT, "no plain file name"},
        {"{\"a\":\"\"}", HD_ERR_FORMAT, "no plain file name"},
        {"{\"a\":7}", HD_ERR_FORMAT, "no plain file name"},
        {"{\"a\":\"missing.st\"}", HD_ERR_NOTFOUND, "missing.st"},
        {"{\"c\":\"a.st\",\"b\":\"b.st\"}", HD_ERR_FORMAT, "\"c\""},
        {"[]", HD_ERR_FORMAT, "weight_map"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_errmsg msg;
        char index[256];
        snprintf(index, sizeof index, "{\"weight_map\":%s}", cases[i].map);
        assert_int_equal(open_index(index, &msg), cases[i].err);
        assert_says(&msg, cases[i].says);
    }
}

/* A download in progress: shards that are absent, cut off, or end within their header. */
static void looks_at_what_is_there(void **state)
{
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = temp_folder();
    write_text(folder, "config.json", "{}");
    write_text(folder, "model.safetensors.index.json",
               "{\"metadata\":{\"total_size\":1000},\"weight_map\":"
               "{\"a\":\"a.st\",\"b\":\"b.st\",\"c\":\"c.st\"}}");
    put_safetensors(folder, "a.st", one_a, 3);
    write_file(folder, "b.st", "\x40\0\0\0\0\0\0\0{\"b\"", 12);
    assert_int_equal(hd_store_open(&store, folder, &msg), HD_ERR_FORMAT);
    assert_says(&msg, "1 bytes are missing of");
    assert_int_equal(hd_store_open_header(&store, folder, &msg), HD_OK);
    assert_int_equal(hd_store_n_tensor(store), 1);
    assert_null(hd_store_tensor(store, "a"));
    assert_string_equal(hd_store_missing_part(store, 0), "b.st");
    assert_string_equal(hd_store_missing_part(store, 1), "c.st");
    assert_null(hd_store_missing_part(store, 2));
    assert_int_equal(hd_store_missing_bytes(store), 1 + 1000 - 4);
    const struct hd_store_cut *cut = hd_store_cut(store);
    assert_non_null(cut);
    assert_string_equal(cut->tensor, "a");
    assert_true(cut->need == cut->have + 1 && cut->n_more == 0);
    hd_store_close(store);
    put_safetensors(folder, "a.st", one_a, 4);
    put_safetensors(folder, "b.st", one_b, 4);
    assert_int_equal(hd_store_open(&store, folder, &msg), HD_ERR_NOTFOUND);
    assert_says(&msg, "shard c.st is missing, one of 3");
    assert_int_equal(hd_store_open_header(&store, folder, &msg), HD_OK);
    assert_int_equal(hd_store_n_tensor(store), 2);
    assert_null(hd_store_cut(store));
    hd_store_close(store);
    remove_folder(folder);
}

static void refuses_a_tensor_in_two_shards(void **state)
{
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = temp_folder();
    write_text(folder, "config.json", "{}");
    write_text(folder, "model.safetensors.index.json",
               "{\"weight_map\":{\"a\":\"a.st\",\"b\":\"b.st\"}}");
    put_safetensors(folder, "a.st", one_a, 4);
    put_safetensors(folder, "b.st", one_a, 4);
    assert_int_equal(open_path(&store, folder, &msg), HD_ERR_FORMAT);
    assert_says(&msg, "twice");
    remove_folder(folder);
}

static void reads_json_files(void **state)
{
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = temp_folder();
    assert_int_equal(open_path(&store, folder, &msg), HD_ERR_NOTFOUND);
    assert_says(&msg, "config.json");
    write_text(folder, "tokenizer.json", "{}");
    write_text(folder, "tokenizer_config.json",
               "{\"model_max_length\": 1000000000000000019884624838656}");
    write_text(folder, "generation_config.json", "{\"eos_token_id\": [1, 2]}");
    assert_int_equal(open_path(&store, folder, &msg), 0); /* a tokenizer alone is a model, too */
    assert_non_null(hd_store_tokenizer(store));
    assert_non_null(hd_store_tokenizer_config(store));
    assert_non_null(hd_store_generation_config(store));
    assert_null(hd_store_config(store));
    assert_int_equal(hd_store_n_tensor(store), 0);
    hd_store_close(store);
    static const struct {
        const char *text, *says;
    } bad[] = {{"{\"a\":1,\"a\":2}", "duplicate"}, {"{", "line 1"}, {"[]", "not a JSON object"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text(folder, "config.json", bad[i].text);
        assert_int_equal(open_path(&store, folder, &msg), HD_ERR_FORMAT);
        assert_says(&msg, "config.json");
        assert_says(&msg, bad[i].says);
    }
    remove_folder(folder);
}

/* A header flipped bit by bit never reads outside the file. */
static void survives_every_flipped_bit(void **state)
{
    struct hd_errmsg msg;
    struct hd_store *store;
    struct hd_buf buf;
    char *folder = temp_folder();
    size_t n_refused = 0;
    write_text(folder, "config.json", "{}");
    hd_buf_init(&buf, 1000);
    put_u64(&buf, strlen(one_a));
    hd_buf_puts(&buf, one_a);
    put_u32(&buf, 0);
    for (size_t bit = 0; bit < (buf.len - 4) * 8; bit++) {
        buf.data[bit / 8] ^= (char)(1 << bit % 8);
        write_file(folder, "model.safetensors", buf.data, buf.len);
        if (open_path(&store, folder, &msg)) {
            n_refused++;
        } else {
            for (size_t i = 0; i < hd_store_n_tensor(store); i++) {
                const struct hd_store_tensor *t = hd_store_tensor_at(store, i);
                if (t->data)
                    assert_true(t->bytes <= 4);
            }
            hd_store_close(store);
        }
        buf.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    assert_true(n_refused > buf.len * 4);
    hd_buf_dispose(&buf);
    remove_folder(folder);
}

/* The committed tiny models: the same tensors from GGUF and from the folder. */
static void reads_the_committed_models(void **state)
{
    struct hd_errmsg msg;
    struct hd_store *gguf, *hf;
    assert_int_equal(open_path(&hf, HD_TEST_ROOT "/golden/models/llama3", &msg), 0);
    assert_int_equal(open_path(&gguf, HD_TEST_ROOT "/golden/models/llama3.gguf", &msg), 0);
    const struct hd_store_tensor *a = hd_store_tensor(hf, "model.embed_tokens.weight");
    const struct hd_store_tensor *b = hd_store_tensor(gguf, "token_embd.weight");
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(a->dtype, b->dtype);
    assert_memory_equal(a->ne, b->ne, sizeof a->ne);
    assert_int_equal(a->bytes, b->bytes);
    assert_memory_equal(a->data, b->data, a->bytes);
    hd_store_close(hf);
    hd_store_close(gguf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_one_file),
        cmocka_unit_test(refuses_bad_tensors),
        cmocka_unit_test(refuses_lying_lengths),
        cmocka_unit_test(reads_shards),
        cmocka_unit_test(looks_at_what_is_there),
        cmocka_unit_test(refuses_a_tensor_in_two_shards),
        cmocka_unit_test(reads_json_files),
        cmocka_unit_test(survives_every_flipped_bit),
        cmocka_unit_test(reads_the_committed_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
