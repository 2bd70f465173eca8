/* Repacked weights on disk: whatever happens to the file, products give the same bits. */
#include "support.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "kernels/ops.h"
#include "kernels/repack_impl.h"

enum { N_WEIGHT = 3, N_OUT = 200 };
#define IDENTITY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
static char folder[] = "/tmp/hd_repack_XXXXXX", path[64];

/* --- three weights of a model ---------------------------------------------------------------- */

static const struct {
    enum hd_dtype type;
    int64_t n_in, n_matrix;
} shapes[N_WEIGHT] = {{HD_Q4_K, 4096, 1}, {HD_F16, 160, 1}, {HD_Q8_0, 512, 3}};

struct model {
    const struct hd_backend *b;
    struct hd_pool *pool;
    uint8_t *rows[N_WEIGHT];
    struct hd_weight *w[N_WEIGHT];
    uint8_t *want; /* the copies as repacking makes them */
    size_t bytes;
};

static const struct hd_backend *vector_backend(void)
{
    const struct hd_backend *b = backend_or_null("auto");
    return strcmp(hd_backend_name(b), "ref") != 0 ? b : NULL;
}

/* Weights without memory for their copies yet. */
static void bind_weights(struct model *m)
{
    for (int i = 0; i < N_WEIGHT; i++)
        assert_int_equal(hd_weight_new(&m->w[i], m->b, shapes[i].type, shapes[i].n_in, N_OUT,
                                       shapes[i].n_matrix, m->rows[i],
                                       HD_WEIGHT_MATMUL | HD_WEIGHT_LAZY, m->pool, NULL),
                         HD_OK);
    m->bytes = hd_repack_bytes(m->w, N_WEIGHT);
}

static void free_weights(struct model *m)
{
    for (int i = 0; i < N_WEIGHT; i++)
        hd_weight_free(m->w[i]);
}

static void place_and_work(struct model *m, uint8_t *memory, struct hd_repack *r)
{
    for (int i = 0; i < N_WEIGHT; i++) {
        hd_weight_place(m->w[i], memory, NULL, false);
        if (r)
            hd_repack_attach(r, m->w[i], (size_t)i);
        hd_weight_work(m->w[i], NULL, NULL);
        assert_true(hd_weight_ready(m->w[i]));
        memory += hd_round_up(hd_weight_bytes(m->w[i]), HD_REPACK_PAGE);
    }
}

/* Its copies are made in m->want. */
static bool model_open(struct model *m)
{
    struct hd_rng rng = {3};
    *m = (struct model){.b = vector_backend()};
    if (!m->b)
        return false;
    assert_int_equal(hd_pool_new(&m->pool, 2), 0);
    for (int i = 0; i < N_WEIGHT; i++)
        m->rows[i] = random_blocks(&rng, shapes[i].type,
                                   (size_t)(shapes[i].n_in * N_OUT * shapes[i].n_matrix));
    bind_weights(m);
    m->want = hd_pages_new(m->bytes);
    place_and_work(m, m->want, NULL);
    return true;
}

static void model_close(struct model *m)
{
    free_weights(m);
    for (int i = 0; i < N_WEIGHT; i++)
        free(m->rows[i]);
    hd_pages_free(m->want, m->bytes);
    hd_pool_free(m->pool);
}

static struct hd_repack_key key_of(const struct model *m)
{
    return (struct hd_repack_key){.path = path,
                                  .identity = IDENTITY,
                                  .source = "/models/m.gguf",
                                  .weights = m->w,
                                  .n = N_WEIGHT};
}

static void save(const struct model *m)
{
    struct hd_errmsg msg = {0};
    const struct hd_repack_key key = key_of(m);
    if (hd_repack_write(&key, NULL, &msg))
        fail_msg("%s", msg.text);
}

static enum hd_err try_open(const struct model *m, const char *identity, struct hd_errmsg *msg)
{
    struct hd_repack *r;
    struct hd_repack_key key = key_of(m);
    key.identity = identity;
    enum hd_err err = hd_repack_open(&r, &key, msg);
    hd_repack_free(r);
    return err;
}

/* Fresh weights that take what the file holds, as a map or read into memory: `n_bad` pieces were
 * made anew, and all are right. */
static void expect_copies(struct model *m, bool mapped, size_t n_bad)
{
    struct hd_errmsg msg = {0};
    struct hd_repack *r;
    free_weights(m);
    bind_weights(m);
    const struct hd_repack_key key = key_of(m);
    if (hd_repack_open(&r, &key, &msg))
        fail_msg("%s", msg.text);
    uint8_t *own = hd_pages_new(m->bytes), *memory = mapped ? hd_repack_map(r, true) : own;
    assert_non_null(memory);
    place_and_work(m, memory, r);
    assert_int_equal(hd_repack_n_bad(r), n_bad);
    hd_repack_seal(r);
    assert_memory_equal(memory, m->want, m->bytes);
    free_weights(m);
    hd_repack_free(r);
    hd_pages_free(own, m->bytes);
    bind_weights(m);
    place_and_work(m, m->want, NULL);
}

/* --- the file -------------------------------------------------------------------------------- */

static off_t file_bytes(void)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static void flip(off_t at)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static off_t data_at(void)
{
    struct hd_repack__head head;
    int fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, &head, sizeof head, 0), sizeof head);
    close(fd);
    return (off_t)head.data_at;
}

static void put_u32(off_t at, uint32_t value)
{
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, &value, 4, at), 4);
    close(fd);
}

static void what_was_written_is_used(void **state)
{
    struct model m;
    struct stat st;
    if (!model_open(&m))
        skip();
    assert_int_equal(try_open(&m, IDENTITY, NULL), HD_ERR_NOTFOUND);
    save(&m);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(st.st_size % (2 << 20), 0);
    expect_copies(&m, false, 0);
    expect_copies(&m, true, 0);
    int fd = open(path, O_RDONLY);
    struct hd_repack_info info;
    assert_int_equal(hd_repack_look(&info, fd, NULL), HD_OK);
    assert_string_equal(info.source, "/models/m.gguf");
    assert_string_equal(info.identity, IDENTITY);
    free(info.source);
    close(fd);
    model_close(&m);
}

static void damaged_pieces_are_made_anew(void **state)
{
    struct model m;
    if (!model_open(&m))
        skip();
    for (int mapped = 0; mapped < 2; mapped++) {
        save(&m);
        size_t first = hd_round_up(hd_weight_bytes(m.w[0]), HD_REPACK_PAGE);
        flip(data_at());
        flip(data_at() + 40);                /* the same piece */
        flip(data_at() + (off_t)first + 17); /* another weight */
        expect_copies(&m, mapped, 2);
        flip(data_at() + (off_t)first + 17);
        expect_copies(&m, mapped, 1);
    }
    model_close(&m);
}

static void what_does_not_fit_is_refused(void **state)
{
    struct model m;
    struct hd_errmsg msg = {0};
    if (!model_open(&m))
        skip();
    save(&m);
    char other[65] = IDENTITY;
    other[5] = 'f';
    assert_int_equal(try_open(&m, other, &msg), HD_ERR_FORMAT);
    assert_non_null(strstr(msg.text, "another model file"));
    off_t size = file_bytes();
    assert_int_equal(truncate(path, size - 4096), 0);
    assert_int_equal(try_open(&m, IDENTITY, &msg), HD_ERR_FORMAT);
    assert_int_equal(truncate(path, 10), 0);
    assert_int_equal(try_open(&m, IDENTITY, &msg), HD_ERR_FORMAT);
    assert_int_equal(hd_file_write(path, "foreign", 7, NULL), 0);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(try_open(&m, IDENTITY, &msg), HD_ERR_FORMAT);
    save(&m); /* over it */
    assert_int_equal(try_open(&m, IDENTITY, &msg), HD_OK);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(try_open(&m, IDENTITY, &msg), HD_ERR_DENIED);
    save(&m);
    put_u32(8, HD_REPACK_VERSION + 1);
    assert_int_equal(try_open(&m, IDENTITY, &msg), HD_ERR_UNSUPPORTED);
    assert_non_null(strstr(msg.text, "newer than this program's"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/dev/zero", path), 0);
    assert_int_equal(try_open(&m, IDENTITY, &msg), HD_ERR_IO);
    save(&m);
    assert_int_equal(try_open(&m, IDENTITY, &msg), HD_OK);
    model_close(&m);
}

/* Every byte of head and table is covered. */
static void a_damaged_table_is_noticed(void **state)
{
    struct model m;
    if (!model_open(&m))
        skip();
    save(&m);
    size_t n = sizeof(struct hd_repack__head) + N_WEIGHT * sizeof(struct hd_repack__row) + 8;
    for (size_t at = 0; at < n; at++) {
        flip((off_t)at);
        if (!try_open(&m, IDENTITY, NULL))
            fail_msg("byte %zu is not checked", at);
        flip((off_t)at);
    }
    assert_int_equal(try_open(&m, IDENTITY, NULL), HD_OK);
    model_close(&m);
}

static void a_stop_leaves_nothing(void **state)
{
    struct model m;
    atomic_bool stop = true;
    char temporary[80];
    if (!model_open(&m))
        skip();
    unlink(path);
    const struct hd_repack_key key = key_of(&m);
    assert_int_equal(hd_repack_write(&key, &stop, NULL), HD_ERR_CANCELLED);
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    assert_false(hd_path_exists(path) || hd_path_exists(temporary));
    model_close(&m);
}

static void copies_give_place_to_the_file(void **state)
{
    struct model m;
    struct hd_errmsg msg = {0};
    struct hd_repack *r;
    if (!model_open(&m))
        skip();
    save(&m);
    const struct hd_repack_key key = key_of(&m);
    assert_int_equal(hd_repack_open(&r, &key, &msg), HD_OK);
    uint8_t *copy = malloc(m.bytes), *memory = hd_pages_new(m.bytes);
    memcpy(copy, m.want, m.bytes);
    memcpy(memory, m.want, m.bytes);
    memory[m.bytes / 2] ^= 1;
    assert_int_equal(hd_repack_move(r, memory, m.bytes, true, NULL, &msg), HD_ERR_FORMAT);
    memory[m.bytes / 2] ^= 1;
    if (hd_repack_move(r, memory, m.bytes, true, NULL, &msg))
        fail_msg("%s", msg.text);
    assert_memory_equal(memory, copy, m.bytes);
    free(copy);
    hd_pages_free(memory, m.bytes);
    hd_repack_free(r);
    model_close(&m);
}

/* --- the layout ------------------------------------------------------------------------------ */

/* A digest of what every type is repacked to. Where it changes on purpose, HD_REPACK_LAYOUT must be
 * raised, or programs would meet files of the other layout. */
static void the_layout_has_its_number(void **state)
{
    static const struct {
        uint32_t layout;
        uint64_t digest;
    } known = {1, 0x96e519cac6c6b2b6};
    const struct hd_backend *b = vector_backend();
    struct hd_rng rng = {9};
    uint64_t digest = 0;
    if (!b)
        skip();
    struct hd_pool *pool;
    assert_int_equal(hd_pool_new(&pool, 1), 0);
    for (int type = 0; type < HD_OWN_TYPES_END; type++) {
        const struct hd_dtype_info *info = hd_dtype_info((enum hd_dtype)type);
        struct hd_weight *w;
        if (!info || !info->dequantise)
            continue;
        size_t n = (size_t)(512 * 20), bytes = n / (size_t)info->block * (size_t)info->block_bytes;
        uint8_t *rows = malloc(bytes);
        for (size_t i = 0; i < bytes; i++)
            rows[i] = (uint8_t)hd_rng_next(&rng);
        if (!hd_weight_new(&w, b, (enum hd_dtype)type, 512, 20, 1, rows, HD_WEIGHT_MATMUL, pool,
                           NULL)) {
            digest = hd_hash64_bulk(w->packed, w->packed_bytes, digest + (uint64_t)type);
            hd_weight_free(w);
        }
        free(rows);
    }
    hd_pool_free(pool);
    assert_int_equal(HD_REPACK_LAYOUT, known.layout);
    if (digest != known.digest)
        fail_msg("the layout's digest is 0x%016llx", (unsigned long long)digest);
}

static int make_folder(void **state)
{
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/a.repack", folder);
    return 0;
}

static int remove_folder(void **state)
{
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_used),
        cmocka_unit_test(damaged_pieces_are_made_anew),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(a_damaged_table_is_noticed),
        cmocka_unit_test(a_stop_leaves_nothing),
        cmocka_unit_test(copies_give_place_to_the_file),
        cmocka_unit_test(the_layout_has_its_number),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
