/* A small E5S1 file into GGUF: every key and tensor, bit for bit; and broken ones refused. */
#include "support.h"

#include <fcntl.h>

#include "base/hash.h"
#include "store/charsmap_build.h"
#include "store/e5_convert.h"
#include "store/gguf_write.h"

enum { HIDDEN = 32, FFN = 64, VOCAB = 8, POSITIONS = 16, TYPES = 2, PIECES = 6 };

static const char *const pieces[PIECES] = {"<s>", "<pad>", "</s>", "<unk>", "▁a", "<mask>"};

struct wanted {
    const char *name, *from;
    int64_t ne0, ne1; /* ne1 0: a vector */
    bool q4;
};
static const struct wanted wanted[] = {
    {"token_embd.weight", "emb.word", HIDDEN, VOCAB, true},
    {"position_embd.weight", "emb.pos", HIDDEN, POSITIONS, false},
    {"token_types.weight", "emb.type", HIDDEN, TYPES, false},
    {"token_embd_norm.weight", "emb.ln.w", HIDDEN, 0, false},
    {"token_embd_norm.bias", "emb.ln.b", HIDDEN, 0, false},
    {"blk.0.attn_q.weight", "l0.q.w", HIDDEN, HIDDEN, true},
    {"blk.0.attn_q.bias", "l0.q.b", HIDDEN, 0, false},
    {"blk.0.attn_k.weight", "l0.k.w", HIDDEN, HIDDEN, true},
    {"blk.0.attn_k.bias", "l0.k.b", HIDDEN, 0, false},
    {"blk.0.attn_v.weight", "l0.v.w", HIDDEN, HIDDEN, true},
    {"blk.0.attn_v.bias", "l0.v.b", HIDDEN, 0, false},
    {"blk.0.attn_output.weight", "l0.ao.w", HIDDEN, HIDDEN, true},
    {"blk.0.attn_output.bias", "l0.ao.b", HIDDEN, 0, false},
    {"blk.0.attn_output_norm.weight", "l0.aln.w", HIDDEN, 0, false},
    {"blk.0.attn_output_norm.bias", "l0.aln.b", HIDDEN, 0, false},
    {"blk.0.ffn_up.weight", "l0.fi.w", HIDDEN, FFN, true},
    {"blk.0.ffn_up.bias", "l0.fi.b", FFN, 0, false},
    {"blk.0.ffn_down.weight", "l0.fo.w", FFN, HIDDEN, true},
    {"blk.0.ffn_down.bias", "l0.fo.b", HIDDEN, 0, false},
    {"blk.0.layer_output_norm.weight", "l0.oln.w", HIDDEN, 0, false},
    {"blk.0.layer_output_norm.bias", "l0.oln.b", HIDDEN, 0, false},
};
enum { N_WANTED = sizeof wanted / sizeof *wanted };

static size_t elements(const struct wanted *w)
{
    return (size_t)(w->ne0 * (w->ne1 ? w->ne1 : 1));
}

static size_t bytes_of(const struct wanted *w)
{
    return w->q4 ? elements(w) / 32 * 18 : elements(w) * 4;
}

/* Byte k of tensor i: neither zeros nor one pattern. */
static uint8_t noise(size_t i, size_t k)
{
    return (uint8_t)((i * 131 + k * 7 + k / 251) ^ 0x5a);
}

static void put_head(struct hd_buf *buf)
{
    float eps = 1e-12f;
    uint32_t at = 0;
    hd_buf_append(buf, "E5S1", 4);
    const uint32_t numbers[] = {1, HIDDEN, 1, 2, FFN, VOCAB, POSITIONS, TYPES};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        put_u32(buf, numbers[i]);
    hd_buf_append(buf, &eps, 4);
    put_u32(buf, 32);
    const uint32_t ids[] = {PIECES, 0, 2, 1, 3};
    for (size_t i = 0; i < 5; i++)
        put_u32(buf, ids[i]);
    for (int i = 0; i < PIECES; i++)
        at += (uint32_t)strlen(pieces[i]);
    put_u64(buf, at);
    at = 0;
    for (int i = 0; i <= PIECES; i++) {
        put_u32(buf, at);
        at += i < PIECES ? (uint32_t)strlen(pieces[i]) : 0;
    }
    for (int i = 0; i < PIECES; i++)
        hd_buf_append(buf, &(float){i < 4 ? 0 : -1.5f}, 4);
    for (int i = 0; i < PIECES; i++)
        hd_buf_puts(buf, pieces[i]);
    put_u32(buf, 2); /* the normaliser: A → a, U+00AD → nothing */
    put_u32(buf, 14);
    put_u32(buf, 'A');
    hd_buf_putc(buf, 1);
    put_u32(buf, 'a');
    put_u32(buf, 0xad);
    hd_buf_putc(buf, 0);
}

static void make_e5(struct hd_buf *buf)
{
    put_head(buf);
    put_u32(buf, N_WANTED);
    size_t table = 0;
    for (size_t i = 0; i < N_WANTED; i++)
        table += 23 + strlen(wanted[i].from);
    size_t at = buf->len + table;
    for (size_t i = 0; i < N_WANTED; i++) {
        size_t n = strlen(wanted[i].from);
        hd_buf_append(buf, (char[]){(char)n, 0}, 2);
        hd_buf_append(buf, wanted[i].from, n);
        hd_buf_putc(buf, wanted[i].q4);
        put_u32(buf, (uint32_t)elements(&wanted[i]));
        put_u64(buf, at);
        put_u64(buf, bytes_of(&wanted[i]));
        at += bytes_of(&wanted[i]);
    }
    for (size_t i = 0; i < N_WANTED; i++)
        for (size_t k = 0; k < bytes_of(&wanted[i]); k++)
            hd_buf_putc(buf, (char)noise(i, k));
    assert_int_equal(buf->err, 0);
    assert_int_equal(buf->len, at);
}

/* Converts bytes; the result is m.gguf of the folder. */
static enum hd_err convert(const char *folder, const void *data, size_t len, struct hd_errmsg *msg)
{
    char *in = hd_path_join(folder, "a.st"), *out = hd_path_join(folder, "m.gguf");
    write_file(folder, "a.st", data, len);
    int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    enum hd_err err = hd_e5_convert(fd, in, msg);
    close(fd);
    free(in);
    free(out);
    return err;
}

static void every_key_and_tensor_is_there(void **state)
{
    struct hd_buf buf;
    struct hd_store *store;
    struct hd_errmsg msg = {0};
    char *folder = temp_folder(), *path = hd_path_join(folder, "m.gguf");
    hd_buf_init(&buf, 1 << 20);
    make_e5(&buf);
    if (convert(folder, buf.data, buf.len, &msg) || hd_store_open(&store, path, &msg))
        fail_msg("%s", msg.text);
    static const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {{"bert.block_count", 1},
                   {"bert.context_length", POSITIONS},
                   {"bert.embedding_length", HIDDEN},
                   {"bert.feed_forward_length", FFN},
                   {"bert.attention.head_count", 2},
                   {"bert.pooling_type", 1},
                   {"tokenizer.ggml.token_type_count", TYPES},
                   {"tokenizer.ggml.bos_token_id", 0},
                   {"tokenizer.ggml.eos_token_id", 2},
                   {"tokenizer.ggml.padding_token_id", 1},
                   {"tokenizer.ggml.unknown_token_id", 3},
                   {"tokenizer.ggml.mask_token_id", 5}};
    uint64_t value, cursor = 0;
    bool flag = true;
    double number;
    const char *text;
    size_t len;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        assert_true(hd_store_u64(store, numbers[i].key, &value));
        assert_int_equal(value, numbers[i].value);
    }
    assert_true(hd_store_bool(store, "bert.attention.causal", &flag) && !flag);
    assert_true(hd_store_f64(store, "bert.attention.layer_norm_epsilon", &number));
    assert_true((float)number == 1e-12f);
    assert_true(hd_store_str(store, "holdfast.prefix.query", &text, &len));
    assert_memory_equal(text, "query: ", len);
    static const double types[VOCAB] = {3, 3, 3, 2, 1, 3, 5, 5};
    for (size_t i = 0; i < VOCAB; i++) {
        assert_true(hd_store_array_next_str(store, "tokenizer.ggml.tokens", &cursor, &text, &len));
        if (i < PIECES)
            assert_memory_equal(text, pieces[i], len);
        assert_true(hd_store_array_f64(store, "tokenizer.ggml.token_type", i, &number));
        assert_true(number == types[i]);
        assert_true(hd_store_array_f64(store, "tokenizer.ggml.scores", i, &number));
        assert_true(number == (i < 4 ? 0 : i < PIECES ? -1.5 : -10000));
    }
    assert_int_equal(hd_store_n_tensor(store), N_WANTED);
    for (size_t i = 0; i < N_WANTED; i++) {
        const struct hd_store_tensor *t = hd_store_tensor(store, wanted[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, wanted[i].q4 ? HD_Q4_0 : HD_F32);
        assert_int_equal(t->n_dim, wanted[i].ne1 ? 2 : 1);
        assert_int_equal(t->ne[0], wanted[i].ne0);
        assert_int_equal(t->ne[1], wanted[i].ne1 ? wanted[i].ne1 : 1);
        assert_int_equal(t->bytes, bytes_of(&wanted[i]));
        for (size_t k = 0; k < t->bytes; k++)
            assert_int_equal(((const uint8_t *)t->data)[k], noise(i, k));
    }
    hd_store_close(store);
    hd_buf_dispose(&buf);
    free(path);
    remove_folder(folder);
}

/* A file that stops anywhere is refused with a sentence, and so is one with any byte of its header
 * turned over, or it is still converted: nothing is read outside (the sanitizers watch). */
static void broken_files_are_refused(void **state)
{
    struct hd_buf buf;
    char *folder = temp_folder();
    hd_buf_init(&buf, 1 << 20);
    make_e5(&buf);
    size_t data = 0;
    for (size_t i = 0; i < N_WANTED; i++)
        data += bytes_of(&wanted[i]);
    size_t head = buf.len - data;
    for (size_t len = 0; len < buf.len; len += len < head ? 3 : 997) {
        struct hd_errmsg msg = {0};
        assert_int_not_equal(convert(folder, buf.data, len, &msg), 0);
        assert_true(msg.text[0]);
    }
    for (size_t at = 0; at < head; at++) {
        struct hd_errmsg msg = {0};
        buf.data[at] = (char)~buf.data[at];
        if (convert(folder, buf.data, buf.len, &msg))
            assert_true(msg.text[0]);
        buf.data[at] = (char)~buf.data[at];
    }
    hd_buf_dispose(&buf);
    remove_folder(folder);
}

static void charsmaps_need_an_ascending_list(void **state)
{
    static const struct hd_charsmap_entry twice[] = {{65, "a"}, {65, "b"}}, nul[] = {{0, "a"}},
                                          surrogate[] = {{0xd800, "a"}}, broken[] = {{65, "\xff"}};
    struct hd_buf buf;
    hd_buf_init(&buf, 1 << 20);
    assert_int_equal(hd_charsmap_build(&buf, twice, 2), HD_ERR_INVALID);
    assert_int_equal(hd_charsmap_build(&buf, nul, 1), HD_ERR_INVALID);
    assert_int_equal(hd_charsmap_build(&buf, surrogate, 1), HD_ERR_INVALID);
    assert_int_equal(hd_charsmap_build(&buf, broken, 1), HD_ERR_INVALID);
    assert_int_equal(hd_charsmap_build(&buf, NULL, 0), HD_OK);
    assert_true(buf.len >= 4);
    hd_buf_dispose(&buf);
}

static void the_writer_counts_bytes(void **state)
{
    struct hd_gguf_writer *w;
    int fd = open("/dev/null", O_WRONLY);
    char data[256] = {0};
    assert_int_equal(hd_gguf_writer_new(&w, fd), 0);
    hd_gguf_put_tensor(w, "a", HD_F32, 1, (int64_t[]){3});
    hd_gguf_put_tensor(w, "b", HD_Q4_0, 2, (int64_t[]){32, 2});
    assert_int_equal(hd_gguf_begin(w, NULL), 0);
    assert_int_equal(hd_gguf_write(w, data, 20, NULL), 0); /* across two tensors */
    assert_int_equal(hd_gguf_finish(w, NULL), HD_ERR_INVALID);
    assert_int_equal(hd_gguf_write(w, data, 28, NULL), 0);
    assert_int_equal(hd_gguf_finish(w, NULL), 0);
    assert_int_equal(hd_gguf_write(w, data, 1, NULL), HD_ERR_INVALID);
    hd_gguf_writer_free(w);
    assert_int_equal(hd_gguf_writer_new(&w, fd), 0);
    hd_gguf_put_tensor(w, "c", HD_Q4_0, 1, (int64_t[]){33}); /* no whole blocks */
    assert_int_equal(hd_gguf_begin(w, NULL), HD_ERR_INVALID);
    hd_gguf_writer_free(w);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_and_tensor_is_there),
        cmocka_unit_test(broken_files_are_refused),
        cmocka_unit_test(charsmaps_need_an_ascending_list),
        cmocka_unit_test(the_writer_counts_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
