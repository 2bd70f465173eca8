/* E5S1 into GGUF. Everything in the file is checked before it sizes anything. */
#include "store/e5_convert.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/utf8.h"
#include "store/charsmap_build.h"
#include "store/gguf_write.h"

enum {
    MAX_WIDTH = 1 << 16,
    MAX_LAYERS = 1 << 10,
    MAX_PIECES = 1 << 21,
    MAX_BLOB = 64 << 20,
    MAX_NORM_BYTES = 16 << 20,
    MAX_TENSORS = 1 << 15,
    MAX_NAME = 31,
    BLOCK = 32,
    STEP = 1 << 20
};
enum { E5_F32 = 0, E5_Q4_0 = 1 };

struct tensor {
    char name[MAX_NAME + 1];
    uint8_t dtype;
    uint32_t elements;
    uint64_t offset, bytes;
};

struct e5 {
    const char *path;
    struct hd_errmsg *msg;
    enum hd_err err; /* the first failure; later reads give zeros */
    int fd;
    uint64_t size, at;
    int32_t hidden, layers, heads, ffn, vocab, positions, types;
    float eps;
    int32_t pieces, bos, eos, pad, unk;
    uint32_t *offset; /* [pieces + 1] */
    float *score;     /* [pieces] */
    char *blob;
    struct hd_buf charsmap;
    struct tensor *tensor; /* [n_tensor] */
    int32_t n_tensor;
};

/* --- reading ---------------------------------------------------------------------------------- */

static enum hd_err refuse(struct e5 *e5, const char *what)
{
    if (!e5->err)
        e5->err = hd_fail(e5->msg, HD_ERR_FORMAT, "%s: %s", e5->path, what);
    return e5->err;
}

static void read_at(struct e5 *e5, void *out, uint64_t offset, size_t len)
{
    char *p = out;
    if (!e5->err && (offset > e5->size || len > e5->size - offset))
        refuse(e5, "ends too early (fetch it again)");
    while (len && !e5->err) {
        ssize_t n = pread(e5->fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            e5->err = hd_fail(e5->msg, HD_ERR_IO, "%s: %s", e5->path,
                              n ? strerror(errno) : "became shorter while it was read");
            break;
        }
        p += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    if (e5->err)
        memset(p, 0, len);
}

static void take(struct e5 *e5, void *out, size_t len)
{
    read_at(e5, out, e5->at, len);
    e5->at += len;
}

static uint64_t take_number(struct e5 *e5, int bytes)
{
    uint8_t raw[8] = {0};
    uint64_t value = 0;
    take(e5, raw, (size_t)bytes);
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)raw[i] << 8 * i;
    return value;
}

/* A count in [least, most]. */
static int32_t take_count(struct e5 *e5, const char *what, int32_t least, int32_t most)
{
    int64_t value = (int32_t)(uint32_t)take_number(e5, 4);
    if (!e5->err && (value < least || value > most))
        e5->err = hd_fail(e5->msg, HD_ERR_FORMAT, "%s: %s is %lld (from %d to %d are read)",
                          e5->path, what, (long long)value, least, most);
    return e5->err ? least : (int32_t)value;
}

/* Room for n things of `size`, read from the file; NULL on failure. */
static void *take_array(struct e5 *e5, size_t n, size_t size)
{
    size_t bytes;
    if (e5->err)
        return NULL;
    if (!hd_mul(&bytes, n, size) || bytes > e5->size) {
        refuse(e5, "ends too early (fetch it again)");
        return NULL;
    }
    void *out = malloc(bytes + 1);
    if (!out)
        e5->err = hd_fail(e5->msg, HD_ERR_NOMEM, "%s: out of memory", e5->path);
    else
        take(e5, out, bytes);
    return out;
}

static void read_shape(struct e5 *e5)
{
    char magic[4] = {0};
    uint32_t bits;
    take(e5, magic, 4);
    if (!e5->err && memcmp(magic, "E5S1", 4) != 0)
        refuse(e5, "is no E5S1 file");
    take_count(e5, "version", 1, 1);
    e5->hidden = take_count(e5, "hidden size", BLOCK, MAX_WIDTH);
    e5->layers = take_count(e5, "number of layers", 1, MAX_LAYERS);
    e5->heads = take_count(e5, "number of heads", 1, MAX_WIDTH);
    e5->ffn = take_count(e5, "inner size", BLOCK, MAX_WIDTH);
    e5->vocab = take_count(e5, "vocabulary size", 1, MAX_PIECES);
    e5->positions = take_count(e5, "number of positions", 1, 1 << 20);
    e5->types = take_count(e5, "number of token types", 1, 256);
    bits = (uint32_t)take_number(e5, 4);
    memcpy(&e5->eps, &bits, sizeof bits);
    take_count(e5, "block size", BLOCK, BLOCK);
    if (e5->hidden % BLOCK || e5->ffn % BLOCK || e5->hidden % e5->heads)
        refuse(e5, "hidden and inner size do not divide into blocks and heads");
    if (!(e5->eps > 0 && e5->eps < 1))
        refuse(e5, "epsilon is not between 0 and 1");
}

/* --- the tokenizer ---------------------------------------------------------------------------- */

static void check_pieces(struct e5 *e5, uint64_t bytes)
{
    if (!e5->err && (e5->offset[0] || e5->offset[e5->pieces] != bytes))
        refuse(e5, "the pieces' offsets do not fill their bytes");
    for (int32_t i = 0; i < e5->pieces && !e5->err; i++) {
        uint32_t begin = e5->offset[i], end = e5->offset[i + 1];
        if (begin > end || end > bytes || !hd_utf8_valid(e5->blob + begin, end - begin))
            refuse(e5, "a piece is not within the pieces' bytes, or no UTF-8");
        else if (!isfinite(e5->score[i]))
            refuse(e5, "a piece's score is no number");
    }
}

static void read_pieces(struct e5 *e5)
{
    e5->pieces = take_count(e5, "number of pieces", 1, e5->vocab);
    e5->bos = take_count(e5, "bos", 0, e5->pieces - 1);
    e5->eos = take_count(e5, "eos", 0, e5->pieces - 1);
    e5->pad = take_count(e5, "pad", 0, e5->pieces - 1);
    e5->unk = take_count(e5, "unk", 0, e5->pieces - 1);
    uint64_t bytes = take_number(e5, 8);
    if (bytes > MAX_BLOB)
        refuse(e5, "its pieces have more than 64 MB");
    e5->offset = take_array(e5, (size_t)e5->pieces + 1, sizeof *e5->offset);
    e5->score = take_array(e5, (size_t)e5->pieces, sizeof *e5->score);
    e5->blob = take_array(e5, bytes, 1);
    check_pieces(e5, bytes);
}

/* One entry of the normaliser: its replacement as NUL-terminated UTF-8 behind the others. */
static uint32_t read_norm(struct e5 *e5, struct hd_buf *text)
{
    uint32_t code = (uint32_t)take_number(e5, 4);
    int n = (int)take_number(e5, 1);
    for (int i = 0; i < n && !e5->err; i++) {
        uint32_t to = (uint32_t)take_number(e5, 4);
        if (!to || to > 0x10ffff || (to >= 0xd800 && to < 0xe000))
            refuse(e5, "its normaliser has something that is no character");
        hd_buf_put_utf8(text, to);
    }
    hd_buf_putc(text, 0);
    return code;
}

static void read_normaliser(struct e5 *e5)
{
    int32_t n = take_count(e5, "number of normalised characters", 0, HD_CHARSMAP_MAX_ENTRIES);
    uint64_t bytes = take_number(e5, 4), begin = e5->at;
    struct hd_charsmap_entry *entry = calloc((size_t)n + 1, sizeof *entry);
    size_t *at = calloc((size_t)n + 1, sizeof *at);
    struct hd_buf text;
    hd_buf_init(&text, MAX_NORM_BYTES);
    if (!entry || !at)
        e5->err = e5->err ? e5->err : hd_fail(e5->msg, HD_ERR_NOMEM, "%s: out of memory", e5->path);
    for (int32_t i = 0; i < n && !e5->err; i++) {
        at[i] = text.len;
        entry[i].code = read_norm(e5, &text);
    }
    for (int32_t i = 0; i < n && !e5->err; i++)
        entry[i].text = hd_buf_str(&text) + at[i];
    if (!e5->err && (text.err || e5->at - begin != bytes))
        refuse(e5, "its normaliser does not have the bytes that it says");
    if (!e5->err && hd_charsmap_build(&e5->charsmap, entry, (size_t)n))
        refuse(e5, "its normaliser is no ascending list of characters");
    hd_buf_dispose(&text);
    free(entry);
    free(at);
}

static void put_tokens(const struct e5 *e5, struct hd_gguf_writer *w)
{
    char spare[32];
    hd_gguf_put_array(w, "tokenizer.ggml.tokens", HD_GGUF_STR, (uint64_t)e5->vocab);
    for (int32_t i = 0; i < e5->pieces; i++)
        hd_gguf_item_str(w, e5->blob + e5->offset[i], e5->offset[i + 1] - e5->offset[i]);
    for (int32_t i = e5->pieces; i < e5->vocab; i++) {
        int n = snprintf(spare, sizeof spare, "[PAD%d]", i);
        hd_gguf_item_str(w, spare, (size_t)n);
    }
}

static int32_t mask_of(const struct e5 *e5)
{
    static const char mask[] = "<mask>";
    for (int32_t i = e5->pieces; i-- > 0;)
        if (e5->offset[i + 1] - e5->offset[i] == sizeof mask - 1 &&
            !memcmp(e5->blob + e5->offset[i], mask, sizeof mask - 1))
            return i;
    return -1;
}

/* tokenizer.ggml.token_type: 1 normal, 2 unknown, 3 control, 5 unused. Unused ones get the score
 * that llama.cpp's converters give them. */
static void put_scores_and_types(const struct e5 *e5, struct hd_gguf_writer *w, int32_t mask)
{
    static const float unused = -10000;
    hd_gguf_put_array(w, "tokenizer.ggml.scores", HD_GGUF_F32, (uint64_t)e5->vocab);
    hd_gguf_item(w, e5->score, (size_t)e5->pieces * sizeof *e5->score);
    for (int32_t i = e5->pieces; i < e5->vocab; i++)
        hd_gguf_item(w, &unused, sizeof unused);
    hd_gguf_put_array(w, "tokenizer.ggml.token_type", HD_GGUF_I32, (uint64_t)e5->vocab);
    for (int32_t i = 0; i < e5->vocab; i++) {
        bool control = i == e5->bos || i == e5->eos || i == e5->pad || i == mask;
        int32_t type = i >= e5->pieces ? 5 : i == e5->unk ? 2 : control ? 3 : 1;
        hd_gguf_item(w, &type, sizeof type);
    }
}

static void put_tokenizer(const struct e5 *e5, struct hd_gguf_writer *w)
{
    int32_t mask = mask_of(e5);
    hd_gguf_put_str(w, "tokenizer.ggml.model", "t5"); /* GGUF's word for Unigram */
    hd_gguf_put_str(w, "tokenizer.ggml.pre", "default");
    put_tokens(e5, w);
    put_scores_and_types(e5, w, mask);
    hd_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", true);
    hd_gguf_put_bool(w, "tokenizer.ggml.remove_extra_whitespaces", true);
    hd_gguf_put_array(w, "tokenizer.ggml.precompiled_charsmap", HD_GGUF_U8, e5->charsmap.len);
    hd_gguf_item(w, hd_buf_str(&e5->charsmap), e5->charsmap.len);
    hd_gguf_put_u32(w, "tokenizer.ggml.token_type_count", (uint32_t)e5->types);
    hd_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)e5->bos);
    hd_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)e5->eos);
    hd_gguf_put_u32(w, "tokenizer.ggml.unknown_token_id", (uint32_t)e5->unk);
    hd_gguf_put_u32(w, "tokenizer.ggml.seperator_token_id",
                    (uint32_t)e5->eos); /* spelt like this */
    hd_gguf_put_u32(w, "tokenizer.ggml.padding_token_id", (uint32_t)e5->pad);
    hd_gguf_put_u32(w, "tokenizer.ggml.cls_token_id", (uint32_t)e5->bos);
    if (mask >= 0)
        hd_gguf_put_u32(w, "tokenizer.ggml.mask_token_id", (uint32_t)mask);
    hd_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", true);
    hd_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", true);
}

static void put_metadata(const struct e5 *e5, struct hd_gguf_writer *w)
{
    hd_gguf_put_str(w, "general.architecture", "bert");
    hd_gguf_put_str(w, "general.type", "model");
    hd_gguf_put_str(w, "general.name", "multilingual-e5-small");
    hd_gguf_put_str(w, "general.license", "mit");
    hd_gguf_put_u32(w, "general.file_type", 2); /* mostly Q4_0 */
    hd_gguf_put_u32(w, "general.quantization_version", 2);
    hd_gguf_put_u32(w, "bert.block_count", (uint32_t)e5->layers);
    hd_gguf_put_u32(w, "bert.context_length", (uint32_t)e5->positions);
    hd_gguf_put_u32(w, "bert.embedding_length", (uint32_t)e5->hidden);
    hd_gguf_put_u32(w, "bert.feed_forward_length", (uint32_t)e5->ffn);
    hd_gguf_put_u32(w, "bert.attention.head_count", (uint32_t)e5->heads);
    hd_gguf_put_f32(w, "bert.attention.layer_norm_epsilon", e5->eps);
    hd_gguf_put_bool(w, "bert.attention.causal", false);
    hd_gguf_put_u32(w, "bert.pooling_type", 1); /* mean */
    hd_gguf_put_str(w, "holdfast.prefix.query", "query: ");
    hd_gguf_put_str(w, "holdfast.prefix.passage", "passage: ");
    put_tokenizer(e5, w);
}

/* --- tensors ---------------------------------------------------------------------------------- */

static void read_tensors(struct e5 *e5)
{
    e5->n_tensor = take_count(e5, "number of tensors", 0, MAX_TENSORS);
    e5->tensor = calloc((size_t)e5->n_tensor + 1, sizeof *e5->tensor);
    if (!e5->tensor && !e5->err)
        e5->err = hd_fail(e5->msg, HD_ERR_NOMEM, "%s: out of memory", e5->path);
    for (int32_t i = 0; i < e5->n_tensor && !e5->err; i++) {
        struct tensor *t = &e5->tensor[i];
        size_t len = take_number(e5, 2);
        if (len > MAX_NAME)
            refuse(e5, "a tensor's name is too long");
        else
            take(e5, t->name, len);
        t->dtype = (uint8_t)take_number(e5, 1);
        t->elements = (uint32_t)take_number(e5, 4);
        t->offset = take_number(e5, 8);
        t->bytes = take_number(e5, 8);
    }
}

/* A tensor of the output: its name there and in the file, its shape (row length first). */
struct plan {
    char name[48], from[MAX_NAME + 1];
    int64_t ne[2]; /* ne[1] 0: a vector */
    uint8_t dtype;
};

static const char *const layer_names[][2] = {
    {"attn_q", "q"},
    {"attn_k", "k"},
    {"attn_v", "v"},
    {"attn_output", "ao"},
    {"attn_output_norm", "aln"},
    {"ffn_up", "fi"},
    {"ffn_down", "fo"},
    {"layer_output_norm", "oln"},
};
enum {
    HEAD_TENSORS = 5,
    LAYER_KINDS = sizeof layer_names / sizeof *layer_names,
    LAYER_TENSORS = 2 * LAYER_KINDS
};

static void set_plan(struct plan *p, const char *name, const char *from, int64_t row, int64_t rows,
                     uint8_t dtype)
{
    snprintf(p->name, sizeof p->name, "%s", name);
    snprintf(p->from, sizeof p->from, "%s", from);
    p->ne[0] = row;
    p->ne[1] = rows;
    p->dtype = dtype;
}

/* The i-th tensor of the output. */
static void plan_at(struct plan *p, const struct e5 *e5, int32_t i)
{
    char name[48], from[16];
    int64_t h = e5->hidden, f = e5->ffn;
    switch (i) {
    case 0:
        set_plan(p, "token_embd.weight", "emb.word", h, e5->vocab, E5_Q4_0);
        return;
    case 1:
        set_plan(p, "position_embd.weight", "emb.pos", h, e5->positions, E5_F32);
        return;
    case 2:
        set_plan(p, "token_types.weight", "emb.type", h, e5->types, E5_F32);
        return;
    case 3:
    case 4:
        set_plan(p, i == 3 ? "token_embd_norm.weight" : "token_embd_norm.bias",
                 i == 3 ? "emb.ln.w" : "emb.ln.b", h, 0, E5_F32);
        return;
    default:
        break;
    }
    i -= HEAD_TENSORS;
    int layer = i / LAYER_TENSORS, kind = i % LAYER_TENSORS / 2;
    bool bias = i % 2, norm = kind == 4 || kind == 7, up = kind == 5, down = kind == 6;
    snprintf(name, sizeof name, "blk.%d.%s.%s", layer, layer_names[kind][0],
             bias ? "bias" : "weight");
    snprintf(from, sizeof from, "l%d.%s.%s", layer, layer_names[kind][1], bias ? "b" : "w");
    int64_t rows = up ? f : h, row = down ? f : h;
    if (bias || norm)
        set_plan(p, name, from, rows, 0, E5_F32);
    else
        set_plan(p, name, from, row, rows, E5_Q4_0);
}

static const struct tensor *find_tensor(struct e5 *e5, const struct plan *p)
{
    enum hd_dtype dtype = p->dtype == E5_Q4_0 ? HD_Q4_0 : HD_F32;
    uint64_t rows = p->ne[1] ? (uint64_t)p->ne[1] : 1;
    uint64_t bytes = rows * hd_dtype_row_bytes(dtype, p->ne[0]);
    for (int32_t i = 0; i < e5->n_tensor; i++) {
        const struct tensor *t = &e5->tensor[i];
        if (strcmp(t->name, p->from) != 0)
            continue;
        if (t->dtype != p->dtype || t->elements != rows * (uint64_t)p->ne[0] || t->bytes != bytes)
            e5->err = hd_fail(e5->msg, HD_ERR_FORMAT,
                              "%s: tensor %s has not the type and size that its model needs",
                              e5->path, p->from);
        else if (t->offset > e5->size || bytes > e5->size - t->offset)
            e5->err = hd_fail(e5->msg, HD_ERR_FORMAT,
                              "%s: tensor %s ends behind the file's end (fetch it again)", e5->path,
                              p->from);
        return e5->err ? NULL : t;
    }
    e5->err = hd_fail(e5->msg, HD_ERR_FORMAT, "%s: lacks the tensor %s", e5->path, p->from);
    return NULL;
}

static void copy_tensor(struct e5 *e5, struct hd_gguf_writer *w, const struct tensor *t, char *step)
{
    for (uint64_t done = 0; done < t->bytes && !e5->err;) {
        size_t n = t->bytes - done < STEP ? (size_t)(t->bytes - done) : STEP;
        read_at(e5, step, t->offset + done, n);
        if (!e5->err)
            e5->err = hd_gguf_write(w, step, n, e5->msg);
        done += n;
    }
}

static void write_gguf(struct e5 *e5, struct hd_gguf_writer *w)
{
    int32_t n = HEAD_TENSORS + e5->layers * LAYER_TENSORS;
    struct plan plan;
    char *step = malloc(STEP);
    /* First that the weights are there: a small file must not claim a large vocabulary. */
    for (int32_t i = 0; i < n && !e5->err; i++) {
        plan_at(&plan, e5, i);
        find_tensor(e5, &plan);
    }
    if (!e5->err)
        put_metadata(e5, w);
    for (int32_t i = 0; i < n && !e5->err; i++) {
        plan_at(&plan, e5, i);
        hd_gguf_put_tensor(w, plan.name, plan.dtype == E5_Q4_0 ? HD_Q4_0 : HD_F32,
                           plan.ne[1] ? 2 : 1, plan.ne);
    }
    if (!e5->err && !step)
        e5->err = hd_fail(e5->msg, HD_ERR_NOMEM, "%s: out of memory", e5->path);
    if (!e5->err)
        e5->err = hd_gguf_begin(w, e5->msg);
    for (int32_t i = 0; i < n && !e5->err; i++) {
        plan_at(&plan, e5, i);
        const struct tensor *t = find_tensor(e5, &plan);
        if (t)
            copy_tensor(e5, w, t, step);
    }
    if (!e5->err)
        e5->err = hd_gguf_finish(w, e5->msg);
    free(step);
}

/* --- all -------------------------------------------------------------------------------------- */

enum hd_err hd_e5_convert(int fd, const char *path, struct hd_errmsg *msg)
{
    struct e5 e5 = {.path = path, .msg = msg};
    struct hd_gguf_writer *w = NULL;
    struct stat st;
    hd_buf_init(&e5.charsmap, MAX_NORM_BYTES * 2);
    e5.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (e5.fd < 0 || fstat(e5.fd, &st))
        e5.err = hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(errno));
    else
        e5.size = (uint64_t)st.st_size;
    read_shape(&e5);
    if (!e5.err)
        read_pieces(&e5);
    if (!e5.err)
        read_normaliser(&e5);
    if (!e5.err)
        read_tensors(&e5);
    if (!e5.err)
        e5.err = hd_gguf_writer_new(&w, fd);
    if (!e5.err)
        write_gguf(&e5, w);
    hd_gguf_writer_free(w);
    free(e5.offset);
    free(e5.score);
    free(e5.blob);
    free(e5.tensor);
    hd_buf_dispose(&e5.charsmap);
    if (e5.fd >= 0)
        close(e5.fd);
    return e5.err;
}
