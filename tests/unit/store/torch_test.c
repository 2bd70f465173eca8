/* PyTorch's files: the tensors of a real one, and refusals of everything that is more than a table
 * of tensors, cut off or damaged. */
#include "support.h"

#define HEADS HD_TEST_ROOT "/golden/models/enc-m3/"

static char *folder;
static uint8_t *real; /* sparse_linear.pt of the tiny model */
static size_t n_real;

static int setup(void **state)
{
    struct hd_errmsg msg;
    char *text;
    folder = temp_folder();
    write_text(folder, "config.json", "{}");
    assert_int_equal(hd_file_read(&text, &n_real, HEADS "sparse_linear.pt", 1 << 20, &msg), 0);
    real = (uint8_t *)text;
    return 0;
}

static int teardown(void **state)
{
    remove_folder(folder);
    free(real);
    return 0;
}

static enum hd_err open_bytes(struct hd_store **store, const void *data, size_t len,
                              struct hd_errmsg *msg)
{
    write_file(folder, "pytorch_model.bin", data, len);
    return hd_store_open(store, folder, msg);
}

static void tensors_are_found(void **state)
{
    struct hd_store *store;
    struct hd_errmsg msg;
    assert_int_equal(hd_store_open(&store, HD_TEST_ROOT "/golden/models/enc-m3", &msg), HD_OK);
    const struct hd_store_tensor *t = hd_store_tensor(store, "sparse_linear.weight");
    assert_non_null(t);
    assert_int_equal(t->dtype, HD_F32);
    assert_int_equal(t->n_dim, 2);
    assert_true(t->ne[0] == 24 && t->ne[1] == 1 && t->bytes == 96);
    t = hd_store_tensor(store, "colbert_linear.bias");
    assert_true(t && t->dtype == HD_F16 && t->ne[0] == 24 && t->bytes == 48);
    t = hd_store_tensor(store, "embeddings.word_embeddings.weight");
    assert_true(t && t->dtype == HD_F16 && t->ne[0] == 24 && t->ne[1] == 64);
    assert_null(hd_store_tensor(store, "version"));
    hd_store_close(store);
}

/* A member's bytes inside `real`, found by its name in the directory at the end. */
static size_t find(const char *what, size_t len)
{
    for (size_t i = 0; i + len <= n_real; i++)
        if (!memcmp(real + i, what, len))
            return i;
    fail_msg("%.*s is not in the file", (int)len, what);
    return 0;
}

static void expect(enum hd_err want, const char *says, const void *data, size_t len)
{
    struct hd_store *store;
    struct hd_errmsg msg = {0};
    enum hd_err err = open_bytes(&store, data, len, &msg);
    if (err != want || !strstr(msg.text, says))
        fail_msg("got %d \"%s\", wanted %d \"%s\"", err, msg.text, want, says);
}

static void other_programs_are_refused(void **state)
{
    uint8_t *copy = malloc(n_real);
    /* another name of the same length where OrderedDict stands: it would be called */
    memcpy(copy, real, n_real);
    memcpy(copy + find("collections\nOrderedDict\n", 24), "posixpaths0\nsystem_____\n", 24);
    expect(HD_ERR_UNSUPPORTED, "system_____", copy, n_real);
    memcpy(copy, real, n_real);
    memcpy(copy + find("torch._utils\n_rebuild_tensor_v2\n", 32),
           "torch._utils\n_rebuild_parameter\n", 32);
    expect(HD_ERR_FORMAT, "a parameter without a tensor", copy, n_real);
    memcpy(copy, real, n_real);
    memcpy(copy + find("FloatStorage", 12), "QInt8Storage", 12);
    expect(HD_ERR_UNSUPPORTED, "QInt8Storage", copy, n_real);
    /* instructions that build objects, or belong to other protocols */
    size_t at = find("\x80\x02"
                     "ccollections",
                     13);
    static const uint8_t others[] = {'i', 'o', 0x81, 0x92, 0x93, 0x95, 'P', 'l', 0x8e};
    for (size_t i = 0; i < sizeof others; i++) {
        memcpy(copy, real, n_real);
        copy[at + 2] = others[i];
        expect(HD_ERR_UNSUPPORTED, "the instruction", copy, n_real);
    }
    memcpy(copy, real, n_real);
    copy[at + 1] = 4;
    expect(HD_ERR_FORMAT, "protocol 2", copy, n_real);
    free(copy);
}

static void damage_is_refused_or_harmless(void **state)
{
    struct hd_errmsg msg;
    struct hd_store *store;
    uint8_t *copy = malloc(n_real);
    unsigned sum = 0;
    for (size_t len = 0; len < n_real; len += 7)
        assert_int_not_equal(open_bytes(&store, real, len, &msg), HD_OK);
    for (size_t i = 0; i < n_real; i++) { /* every byte, three ways; what opens may be read */
        for (int how = 0; how < 3; how++) {
            memcpy(copy, real, n_real);
            copy[i] = how == 0 ? 0xff : how == 1 ? 0 : copy[i] ^ 1;
            if (open_bytes(&store, copy, n_real, &msg))
                continue;
            for (size_t t = 0; t < hd_store_n_tensor(store); t++) {
                const struct hd_store_tensor *x = hd_store_tensor_at(store, t);
                for (size_t b = 0; x->data && b < x->bytes; b++)
                    sum += ((const uint8_t *)x->data)[b];
            }
            hd_store_close(store);
        }
    }
    assert_true(sum > 0);
    free(copy);
}

static void old_and_foreign_files_say_so(void **state)
{
    expect(HD_ERR_FORMAT, "before version 1.6", "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.",
           15);
    expect(HD_ERR_FORMAT, "no zip archive", "", 0);
    uint8_t *copy = malloc(n_real);
    memcpy(copy, real, n_real);
    size_t entry = find("PK\x01\x02", 4);
    copy[entry + 10] = 8;
    expect(HD_ERR_UNSUPPORTED, "compressed", copy, n_real);
    memcpy(copy, real, n_real);
    memset(copy + entry + 42, 0xff, 4);
    expect(HD_ERR_UNSUPPORTED, "4 GB", copy, n_real);
    memcpy(copy, real, n_real);
    memcpy(copy + find("little", 6), "bigbig", 6);
    expect(HD_ERR_UNSUPPORTED, "big endian", copy, n_real);
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_found),
        cmocka_unit_test(other_programs_are_refused),
        cmocka_unit_test(damage_is_refused_or_harmless),
        cmocka_unit_test(old_and_foreign_files_say_so),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
