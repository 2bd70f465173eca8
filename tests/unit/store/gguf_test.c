/* GGUF: what a good file gives, and that bad ones are refused with a sentence, never read. */
#include "support.h"

static const uint64_t row64[] = {64, 2};

/* Two tensors (F32 [64,2] and Q8_0 [64,2]) and one key of every kind. */
static void good_file(struct hd_buf *buf)
{
    put_header(buf, 3, 2, 8);
    put_kv_str(buf, "general.architecture", "qwen2");
    put_kv_u32(buf, "general.alignment", 64);
    put_str(buf, "t.i8");
    put_u32(buf, 1);
    hd_buf_putc(buf, (char)-5);
    put_str(buf, "t.f32");
    put_u32(buf, 6);
    hd_buf_append(buf, &(float){1.5f}, 4);
    put_str(buf, "t.bool");
    put_u32(buf, 7);
    hd_buf_putc(buf, 1);
    put_str(buf, "t.u64");
    put_u32(buf, 10);
    put_u64(buf, 1ull << 40);
    put_str(buf, "t.strings");
    put_u32(buf, 9);
    put_u32(buf, 8);
    put_u64(buf, 3);
    put_str(buf, "a");
    put_str(buf, "");
    put_str(buf, "ccc");
    put_str(buf, "t.i32s");
    put_u32(buf, 9);
    put_u32(buf, 5);
    put_u64(buf, 2);
    put_u32(buf, 7);
    put_u32(buf, (uint32_t)-1);
    put_info(buf, "f", 2, row64, 0, 0);
    put_info(buf, "q", 2, row64, 8, 512);
    pad(buf, 64);
    for (int i = 0; i < 128; i++)
        hd_buf_append(buf, &(float){(float)i}, 4);
    for (int i = 0; i < 4 * 34; i++)
        hd_buf_putc(buf, (char)i);
}

static enum hd_err open_bytes(struct hd_store **out, const char *folder, const void *data,
                              size_t len, struct hd_errmsg *msg)
{
    char *path = hd_path_join(folder, "m.gguf");
    write_file(folder, "m.gguf", data, len);
    enum hd_err err = open_path(out, path, msg);
    free(path);
    return err;
}

/* Opens a file that must be refused. */
static void refused(struct hd_buf *buf, enum hd_err want, const char *says)
{
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = temp_folder();
    assert_int_equal(buf->err, 0);
    assert_int_equal(open_bytes(&store, folder, buf->data, buf->len, &msg), want);
    assert_says(&msg, says);
    remove_folder(folder);
    hd_buf_dispose(buf);
}

static void reads_a_good_file(void **state)
{
    struct hd_buf buf;
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = temp_folder();
    good_file(&buf);
    assert_int_equal(open_bytes(&store, folder, buf.data, buf.len, &msg), 0);
    assert_int_equal(hd_store_format(store), HD_STORE_GGUF);
    assert_int_equal(hd_store_n_tensor(store), 2);
    assert_int_equal(hd_store_n_key(store), 8);
    assert_int_equal(hd_store_file_bytes(store), buf.len);
    assert_int_equal(hd_store_missing_bytes(store), 0);

    const struct hd_store_tensor *f = hd_store_tensor(store, "f"), *q;
    assert_non_null(f);
    assert_int_equal(f->dtype, HD_F32);
    assert_int_equal(f->n_dim, 2);
    assert_int_equal(f->ne[0], 64);
    assert_int_equal(f->ne[1], 2);
    assert_int_equal(f->ne[2], 1);
    assert_int_equal(f->bytes, 512);
    assert_float_equal(((const float *)f->data)[127], 127.0f, 0);
    assert_int_equal(hd_store_tensor_get(&q, store, "q", &msg), 0);
    assert_int_equal(q->bytes, 4 * 34);
    assert_memory_equal(q->data, buf.data + buf.len - 4 * 34, 4 * 34);
    assert_null(hd_store_tensor(store, "none"));
    assert_int_equal(hd_store_tensor_get(&q, store, "none", &msg), HD_ERR_NOTFOUND);
    assert_says(&msg, "none");

    hd_store_close(store);
    hd_buf_dispose(&buf);
    remove_folder(folder);
}

static void reads_metadata(void **state)
{
    struct hd_buf buf;
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = temp_folder();
    good_file(&buf);
    assert_int_equal(open_bytes(&store, folder, buf.data, buf.len, &msg), 0);
    uint64_t u, n, cursor = 0;
    double f;
    bool b = false;
    const char *s;
    size_t len;
    int type;
    assert_true(hd_store_u64(store, "general.alignment", &u) && u == 64);
    assert_true(hd_store_u64(store, "t.u64", &u) && u == 1ull << 40);
    assert_false(hd_store_u64(store, "t.i8", &u)); /* negative */
    assert_false(hd_store_u64(store, "t.f32", &u));
    assert_false(hd_store_u64(store, "absent", &u));
    assert_true(hd_store_f64(store, "t.i8", &f) && f == -5);
    assert_true(hd_store_f64(store, "t.f32", &f) && f == 1.5);
    assert_false(hd_store_f64(store, "t.bool", &f));
    assert_true(hd_store_bool(store, "t.bool", &b) && b);
    assert_false(hd_store_bool(store, "t.u64", &b));
    assert_true(hd_store_str(store, "general.architecture", &s, &len) && len == 5);
    assert_memory_equal(s, "qwen2", 5);
    assert_true(hd_store_array(store, "t.strings", &type, &n) && type == 8 && n == 3);
    static const char *const want[] = {"a", "", "ccc"};
    for (int i = 0; i < 3; i++) {
        assert_true(hd_store_array_next_str(store, "t.strings", &cursor, &s, &len));
        assert_int_equal(len, strlen(want[i]));
        assert_memory_equal(s, want[i], len);
    }
    assert_false(hd_store_array_next_str(store, "t.strings", &cursor, &s, &len));
    cursor = UINT64_MAX - 3;
    assert_false(hd_store_array_next_str(store, "t.strings", &cursor, &s, &len));
    assert_true(hd_store_array_f64(store, "t.i32s", 1, &f) && f == -1);
    assert_false(hd_store_array_f64(store, "t.i32s", 2, &f));
    assert_false(hd_store_array_f64(store, "t.strings", 0, &f));
    assert_string_equal(hd_store_key_at(store, 1, &type), "general.alignment");
    assert_int_equal(type, 4);
    assert_null(hd_store_key_at(store, 8, NULL));
    hd_store_close(store);
    hd_buf_dispose(&buf);
    remove_folder(folder);
}

/* Every prefix of a good file is refused; looking at it works once the header is whole. */
static void refuses_every_truncation(void **state)
{
    struct hd_buf buf;
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = temp_folder(), *path = hd_path_join(folder, "m.gguf");
    good_file(&buf);
    size_t data = buf.len - 512 - 4 * 34;
    for (size_t len = 0; len < buf.len; len++) {
        assert_int_not_equal(open_bytes(&store, folder, buf.data, len, &msg), 0);
        if (len >= data)
            assert_says(&msg, "bytes are missing of");
        if (hd_store_open_header(&store, path, &msg))
            continue;
        assert_true(hd_store_missing_bytes(store) == buf.len - len);
        const struct hd_store_tensor *q;
        assert_null(hd_store_tensor(store, "q"));
        assert_int_equal(hd_store_tensor_get(&q, store, "q", &msg), HD_ERR_FORMAT);
        hd_store_close(store);
    }
    assert_int_equal(open_bytes(&store, folder, buf.data, data + 100, &msg), HD_ERR_FORMAT);
    assert_says(&msg, "within tensor \"f\"");
    assert_says(&msg, "1 more lie behind it");
    assert_int_equal(hd_store_open_header(&store, path, &msg), HD_OK);
    const struct hd_store_cut *cut = hd_store_cut(store);
    assert_non_null(cut);
    assert_string_equal(cut->tensor, "f");
    assert_true(cut->have == data + 100 && cut->need == buf.len && cut->n_more == 1);
    assert_true(cut->begin < cut->have && cut->end > cut->have);
    hd_store_close(store);
    free(path);
    hd_buf_dispose(&buf);
    remove_folder(folder);
}

static volatile unsigned touched; /* reading every byte that a handle offers */

/* One flipped bit anywhere before the data: refused with a sentence, or harmless. */
static void survives_every_flipped_bit(void **state)
{
    struct hd_buf buf;
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = temp_folder();
    good_file(&buf);
    size_t data = buf.len - 512 - 4 * 34, n_refused = 0;
    for (size_t bit = 0; bit < data * 8; bit++) {
        buf.data[bit / 8] ^= (char)(1 << bit % 8);
        if (open_bytes(&store, folder, buf.data, buf.len, &msg)) {
            n_refused++;
        } else {
            for (size_t i = 0; i < hd_store_n_tensor(store); i++) {
                const struct hd_store_tensor *t = hd_store_tensor_at(store, i);
                for (size_t k = 0; t->data && k < t->bytes; k++)
                    touched += ((const unsigned char *)t->data)[k];
            }
            hd_store_close(store);
        }
        buf.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    assert_true(n_refused > data * 2);
    hd_buf_dispose(&buf);
    remove_folder(folder);
}

static void refuses_absurd_headers(void **state)
{
    struct hd_buf buf;
    put_header(&buf, 3, UINT64_MAX, 0);
    refused(&buf, HD_ERR_FORMAT, "tensors");
    put_header(&buf, 3, 0, UINT64_MAX);
    refused(&buf, HD_ERR_FORMAT, "metadata keys");
    put_header(&buf, 1, 0, 0);
    refused(&buf, HD_ERR_UNSUPPORTED, "version 1");
    put_header(&buf, 0x03000000, 0, 0);
    refused(&buf, HD_ERR_UNSUPPORTED, "big-endian");
    put_header(&buf, 3, 0, 1);
    put_u64(&buf, UINT64_MAX); /* key length */
    pad(&buf, 64);
    refused(&buf, HD_ERR_FORMAT, "past the end");
    put_header(&buf, 3, 0, 1);
    put_str(&buf, "k");
    put_u32(&buf, 9);
    put_u32(&buf, 4);
    put_u64(&buf, 1ull << 62); /* times 4 overflows */
    pad(&buf, 64);
    refused(&buf, HD_ERR_FORMAT, "past the end");
    put_header(&buf, 3, 0, 1);
    put_str(&buf, "k");
    put_u32(&buf, 9);
    put_u32(&buf, 9); /* arrays of arrays */
    put_u64(&buf, 1);
    pad(&buf, 64);
    refused(&buf, HD_ERR_FORMAT, "array of type 9");
    put_header(&buf, 3, 0, 1);
    put_str(&buf, "k");
    put_u32(&buf, 77);
    pad(&buf, 64);
    refused(&buf, HD_ERR_FORMAT, "unknown value type");
}

static void refuses_bad_metadata(void **state)
{
    struct hd_buf buf;
    put_header(&buf, 3, 0, 2);
    put_kv_u32(&buf, "k", 1);
    put_kv_u32(&buf, "k", 2);
    refused(&buf, HD_ERR_FORMAT, "twice");
    put_header(&buf, 3, 0, 1);
    put_kv_u32(&buf, "general.alignment", 48);
    refused(&buf, HD_ERR_FORMAT, "power of two");
    put_header(&buf, 3, 0, 1);
    put_kv_u32(&buf, "general.alignment", 0);
    refused(&buf, HD_ERR_FORMAT, "power of two");
    put_header(&buf, 3, 0, 1);
    put_kv_u32(&buf, "a\nb", 1);
    refused(&buf, HD_ERR_FORMAT, "byte 10");
    put_header(&buf, 3, 0, 1);
    put_str(&buf, "b");
    put_u32(&buf, 7);
    hd_buf_putc(&buf, 2);
    refused(&buf, HD_ERR_FORMAT, "truth value");
}

static void one_tensor(struct hd_buf *buf, uint32_t n_dim, const uint64_t *ne, uint32_t type,
                       uint64_t offset)
{
    put_header(buf, 3, 1, 0);
    put_info(buf, "blk.0.x", n_dim, ne, type, offset);
    pad(buf, 32);
    for (int i = 0; i < 256; i++)
        hd_buf_putc(buf, 0);
}

static void refuses_bad_tensors(void **state)
{
    struct hd_buf buf;
    one_tensor(&buf, 5, (uint64_t[]){1, 1, 1, 1, 1}, 0, 0);
    refused(&buf, HD_ERR_FORMAT, "5 dimensions");
    one_tensor(&buf, 0, NULL, 0, 0);
    refused(&buf, HD_ERR_FORMAT, "0 dimensions");
    one_tensor(&buf, 2, (uint64_t[]){4, 0}, 0, 0);
    refused(&buf, HD_ERR_FORMAT, "dimension 1 is 0");
    one_tensor(&buf, 4, (uint64_t[]){1ull << 20, 1ull << 20, 1ull << 20, 1ull << 20}, 0, 0);
    refused(&buf, HD_ERR_FORMAT, "overflows");
    one_tensor(&buf, 2, (uint64_t[]){4, 1ull << 61}, 0, 0);
    refused(&buf, HD_ERR_FORMAT, "overflows");
    one_tensor(&buf, 2, (uint64_t[]){40, 1}, 8, 0);
    refused(&buf, HD_ERR_FORMAT, "rows of 40 elements");
    one_tensor(&buf, 1, (uint64_t[]){4}, 0, 8);
    refused(&buf, HD_ERR_FORMAT, "not aligned");
    one_tensor(&buf, 1, (uint64_t[]){4}, 0, 0xffffffffffffffe0u);
    refused(&buf, HD_ERR_FORMAT, "overflows");
    one_tensor(&buf, 1, (uint64_t[]){4}, 0, 256);
    refused(&buf, HD_ERR_FORMAT, "\"blk.0.x\"");
    one_tensor(&buf, 1, (uint64_t[]){65}, 0, 0);
    refused(&buf, HD_ERR_FORMAT, "4 bytes are missing of");
    put_header(&buf, 3, 2, 0);
    put_info(&buf, "x", 1, (uint64_t[]){1}, 0, 0);
    put_info(&buf, "x", 1, (uint64_t[]){1}, 0, 0);
    pad(&buf, 32);
    put_u32(&buf, 0);
    refused(&buf, HD_ERR_FORMAT, "\"x\" occurs twice");
    put_header(&buf, 3, 1, 0);
    put_info(&buf, "", 1, (uint64_t[]){1}, 0, 0);
    pad(&buf, 64);
    refused(&buf, HD_ERR_FORMAT, "tensor name of 0 bytes");
}

static void lists_types_it_does_not_read(void **state)
{
    struct hd_buf buf;
    struct hd_errmsg msg;
    struct hd_store *store;
    const struct hd_store_tensor *tensor;
    char *folder = temp_folder();
    one_tensor(&buf, 1, (uint64_t[]){256}, 144, 0);
    assert_int_equal(open_bytes(&store, folder, buf.data, buf.len, &msg), 0);
    assert_int_equal(hd_store_n_tensor(store), 1);
    assert_string_equal(hd_store_tensor_at(store, 0)->type_name, "IQ4_KS");
    assert_null(hd_store_tensor(store, "blk.0.x"));
    assert_int_equal(hd_store_tensor_get(&tensor, store, "blk.0.x", &msg), HD_ERR_UNSUPPORTED);
    assert_says(&msg, "IQ4_KS: not supported (a type of ik_llama.cpp");
    hd_store_close(store);
    hd_buf_dispose(&buf);
    one_tensor(&buf, 1, (uint64_t[]){256}, 777, 0);
    assert_int_equal(open_bytes(&store, folder, buf.data, buf.len, &msg), 0);
    assert_string_equal(hd_store_tensor_at(store, 0)->type_name, "type 777");
    hd_store_close(store);
    hd_buf_dispose(&buf);
    remove_folder(folder);
}

static void says_what_a_file_is(void **state)
{
    static const struct {
        const char *bytes, *says;
    } cases[] = {
        {"", "not a GGUF"},
        {"GG", "not a GGUF"},
        {"GGUF", "cut off"},
        {"PK\3\4....", "PyTorch"},
        {"version https://git-lfs.github.com/spec/v1\n", "LFS"},
        {"{}......{", "safetensors"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_buf buf;
        hd_buf_init(&buf, 1000);
        hd_buf_puts(&buf, cases[i].bytes);
        refused(&buf, HD_ERR_FORMAT, cases[i].says);
    }
    struct hd_store *store;
    struct hd_errmsg msg;
    assert_int_equal(open_path(&store, "/no/such/model.gguf", &msg), HD_ERR_NOTFOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_good_file),        cmocka_unit_test(reads_metadata),
        cmocka_unit_test(refuses_every_truncation), cmocka_unit_test(survives_every_flipped_bit),
        cmocka_unit_test(refuses_absurd_headers),   cmocka_unit_test(refuses_bad_metadata),
        cmocka_unit_test(refuses_bad_tensors),      cmocka_unit_test(lists_types_it_does_not_read),
        cmocka_unit_test(says_what_a_file_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
