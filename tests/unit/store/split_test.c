/* Models in several GGUF files: any part opens all of them; what does not fit is refused. */
#include "support.h"

/* What a part says; the rest of it is the same in all tests. */
struct part {
    const char *name; /* of the file */
    uint32_t no, count, n_tensor;
    const char *tensor; /* of one F32 [4]; NULL: none */
};

static const struct part good[3] = {
    {"p-00001-of-00003.gguf", 0, 3, 2, NULL}, /* metadata alone, as --no-tensor-first-split does */
    {"p-00002-of-00003.gguf", 1, 3, 2, "a"},
    {"p-00003-of-00003.gguf", 2, 3, 2, "b"},
};

static void write_part(const char *folder, const struct part *p)
{
    struct hd_buf buf;
    put_header(&buf, 3, p->tensor ? 1 : 0, p->no ? 3 : 4);
    put_kv_u32(&buf, "split.no", p->no);
    put_kv_u32(&buf, "split.count", p->count);
    put_kv_u32(&buf, "split.tensors.count", p->n_tensor);
    if (!p->no)
        put_kv_str(&buf, "general.architecture", "qwen2");
    if (p->tensor)
        put_info(&buf, p->tensor, 1, (uint64_t[]){4}, 0, 0);
    pad(&buf, 32);
    for (int i = 0; i < 4 && p->tensor; i++)
        hd_buf_append(&buf, &(float){(float)p->no}, 4);
    write_file(folder, p->name, buf.data, buf.len);
    hd_buf_dispose(&buf);
}

static char *folder_with(const struct part *parts, int n)
{
    char *folder = temp_folder();
    for (int i = 0; i < n; i++)
        write_part(folder, &parts[i]);
    return folder;
}

static enum hd_err open_in(struct hd_store **out, const char *folder, const char *name,
                           struct hd_errmsg *msg)
{
    char *path = hd_path_join(folder, name);
    enum hd_err err = open_path(out, path, msg);
    free(path);
    return err;
}

static void refused(const struct part *parts, int n, const char *name, enum hd_err want,
                    const char *says)
{
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = folder_with(parts, n);
    assert_int_equal(open_in(&store, folder, name, &msg), want);
    assert_says(&msg, says);
    remove_folder(folder);
}

static void any_part_opens_all(void **state)
{
    char *folder = folder_with(good, 3);
    for (int i = 0; i < 3; i++) {
        struct hd_errmsg msg;
        struct hd_store *store;
        const char *arch;
        size_t len, bytes, total = 0;
        if (open_in(&store, folder, good[i].name, &msg))
            fail_msg("%s", msg.text);
        assert_int_equal(hd_store_n_tensor(store), 2);
        assert_int_equal(hd_store_n_file(store), 3);
        for (size_t f = 0; f < 3; f++) {
            assert_non_null(strstr(hd_store_file_at(store, f, &bytes), good[f].name));
            total += bytes;
        }
        assert_null(hd_store_file_at(store, 3, &bytes));
        assert_int_equal(hd_store_file_bytes(store), total);
        assert_true(hd_store_str(store, "general.architecture", &arch, &len) && len == 5);
        assert_float_equal(((const float *)hd_store_tensor(store, "a")->data)[3], 1, 0);
        assert_float_equal(((const float *)hd_store_tensor(store, "b")->data)[0], 2, 0);
        assert_string_equal(hd_store_tensor_at(store, 1)->name, "b");
        assert_null(hd_store_missing_part(store, 0));
        hd_store_close(store);
    }
    remove_folder(folder);
}

static void names_a_missing_part(void **state)
{
    refused((struct part[]){good[0], good[2]}, 2, good[2].name, HD_ERR_NOTFOUND,
            "part 2 of 3 is missing: \"p-00002-of-00003.gguf\"");
    refused(&good[1], 2, good[1].name, HD_ERR_NOTFOUND, "part 1 of 3 is missing");
}

static void looking_needs_no_other_part(void **state)
{
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = folder_with(&good[1], 1), *path = hd_path_join(folder, good[1].name);
    assert_int_equal(hd_store_open_header(&store, path, &msg), HD_OK);
    assert_int_equal(hd_store_n_tensor(store), 1);
    assert_string_equal(hd_store_missing_part(store, 0), good[0].name);
    assert_string_equal(hd_store_missing_part(store, 1), good[2].name);
    assert_null(hd_store_missing_part(store, 2));
    hd_store_close(store);
    free(path);
    remove_folder(folder);

    struct part renamed = good[1];
    renamed.name = "m.gguf";
    folder = folder_with(&renamed, 1);
    path = hd_path_join(folder, "m.gguf");
    assert_int_equal(hd_store_open_header(&store, path, &msg), HD_OK);
    assert_int_equal(hd_store_n_tensor(store), 1);
    hd_store_close(store);
    free(path);
    remove_folder(folder);
}

static void refuses_what_does_not_fit(void **state)
{
    struct part parts[3];
#define WITH(i, field, value)                                                                      \
    memcpy(parts, good, sizeof good);                                                              \
    parts[i].field = value
    WITH(1, tensor, "b");
    refused(parts, 3, good[0].name, HD_ERR_FORMAT, "\"b\" occurs twice");
    WITH(1, tensor, NULL);
    refused(parts, 3, good[0].name, HD_ERR_FORMAT, "hold 1 tensors, split.tensors.count says 2");
    WITH(1, no, 2);
    refused(parts, 3, good[0].name, HD_ERR_FORMAT, "parts of different models");
    WITH(2, n_tensor, 7);
    refused(parts, 3, good[0].name, HD_ERR_FORMAT, "parts of different models");
    WITH(2, count, 4);
    refused(parts, 3, good[0].name, HD_ERR_FORMAT, "parts of different models");
    WITH(0, count, 2);
    refused(parts, 3, good[0].name, HD_ERR_FORMAT, "under another name");
    WITH(0, name, "m.gguf");
    refused(parts, 1, "m.gguf", HD_ERR_FORMAT, "-00001-of-00003.gguf");
    WITH(0, no, 3);
    refused(parts, 1, good[0].name, HD_ERR_FORMAT, "split.no 3 of split.count 3");
    WITH(0, count, 1000000);
    refused(parts, 1, good[0].name, HD_ERR_FORMAT, "split.count 1000000");
    WITH(0, n_tensor, 0xffffffff);
    refused(parts, 1, good[0].name, HD_ERR_FORMAT, "split.tensors.count");
#undef WITH
}

static void a_cut_part_says_how_much_is_missing(void **state)
{
    struct hd_errmsg msg;
    struct hd_store *store;
    char *folder = folder_with(good, 3), *path = hd_path_join(folder, good[2].name);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 6), 0);
    assert_int_equal(open_in(&store, folder, good[0].name, &msg), HD_ERR_FORMAT);
    assert_says(&msg, "p-00003-of-00003.gguf: the file stops early: 6 bytes are missing of");
    free(path);
    path = hd_path_join(folder, good[0].name);
    assert_int_equal(hd_store_open_header(&store, path, &msg), HD_OK);
    assert_int_equal(hd_store_missing_bytes(store), 6);
    hd_store_close(store);
    free(path);
    remove_folder(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_part_opens_all),
        cmocka_unit_test(names_a_missing_part),
        cmocka_unit_test(looking_needs_no_other_part),
        cmocka_unit_test(refuses_what_does_not_fit),
        cmocka_unit_test(a_cut_part_says_how_much_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
