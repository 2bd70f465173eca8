/* Unigram (sentencepiece): of all ways to cut a text into pieces, the one whose scores add up to
 * the most (Viterbi). Characters that no piece covers cost the least score − 10; a run of them is
 * one unknown token. Same order of trying, same ties, same double precision as the tokenizers
 * library and llama.cpp. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unicode/uchar.h>

#include "base/utf8.h"
#include "token/token_impl.h"

static const char mark[] = "▁"; /* stands for a space; three bytes */
enum { MARK = 3 };
static const double unk_penalty = 10;

/* --- the vocabulary --------------------------------------------------------------------------- */

enum hd_err hd_token__unigram_set(struct hd_tokenizer *tok, size_t id, const char *piece,
                                  size_t len, double score, unsigned flags)
{
    struct hd_token__unigram *uni = &tok->unigram;
    if (len > HD_TOKEN_MAX_PIECE || id >= HD_TOKEN_MAX_VOCAB)
        return HD_ERR_LIMIT;
    if (!isfinite(score))
        return HD_ERR_FORMAT;
    if (id >= uni->cap) {
        size_t cap = id + id / 2 + 1024;
        float *grown = realloc(uni->score, cap * sizeof *grown);
        if (!grown)
            return HD_ERR_NOMEM;
        memset(grown + uni->cap, 0, (cap - uni->cap) * sizeof *grown);
        uni->score = grown;
        uni->cap = cap;
    }
    uni->score[id] = (float)score;
    return hd_token__vocab_set(&tok->vocab, id, piece, len, flags);
}

static bool has_inner_mark(const char *piece, size_t len)
{
    return len > MARK && memmem(piece + 1, len - 1, mark, MARK) != NULL;
}

static void find_bytes(struct hd_tokenizer *tok)
{
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        uint32_t node = 0;
        int n = snprintf(text, sizeof text, "<0x%02X>", byte);
        for (int i = 0; i < n && (i == 0 || node); i++)
            node = hd_token__trie_child(&tok->trie, node, (uint8_t)text[i]);
        tok->unigram.byte[byte] = node ? tok->trie.id[node] : -1;
    }
}

enum hd_err hd_token__unigram_finish(struct hd_tokenizer *tok)
{
    struct hd_token__unigram *uni = &tok->unigram;
    enum hd_err err = hd_token__trie_init(&tok->trie);
    double least = INFINITY;
    for (size_t id = 0; id < tok->vocab.n && !err; id++) {
        const struct hd_token__entry *entry = &tok->vocab.entry[id];
        const char *bytes = tok->vocab.blob.data + entry->at;
        if (entry->flags != HD_TOKEN_NORMAL || !entry->len)
            continue;
        if (uni->score[id] < least)
            least = uni->score[id];
        if (entry->len > uni->max_piece)
            uni->max_piece = entry->len;
        if (uni->whole_text && has_inner_mark(bytes, entry->len))
            uni->meta_split = false;
        err = hd_token__trie_add(&tok->trie, -1, bytes, entry->len, (int32_t)id);
    }
    if (err)
        return err;
    if (uni->max_piece < 4)
        uni->max_piece = 4; /* a character that no piece covers */
    uni->unk_score = (isfinite(least) ? least : 0) - unk_penalty;
    if (uni->byte_fallback)
        find_bytes(tok);
    return HD_OK;
}

/* --- the lattice ------------------------------------------------------------------------------ */

struct cell {
    int32_t id;    /* of the best piece that ends here; -1: none does */
    uint32_t from; /* where it begins; later where the next one ends */
};

struct lattice {
    const struct hd_tokenizer *tok;
    struct hd_ids *out;
    struct cell *cell; /* [cap] */
    size_t cap;
    double *score; /* ring [mask + 1]: a position is written at most max_piece ahead of its turn */
    size_t mask;
};

static void offer(struct lattice *lat, size_t begin, size_t end, double score, int32_t id)
{
    double *best = &lat->score[end & lat->mask];
    if (lat->cell[end].id >= 0 && score <= *best)
        return;
    *best = score;
    lat->cell[end] = (struct cell){.id = id, .from = (uint32_t)begin};
}

static void fill(struct lattice *lat, const char *text, size_t len)
{
    const struct hd_tokenizer *tok = lat->tok;
    const struct hd_token__unigram *uni = &tok->unigram;
    for (size_t i = 0; i < len;) {
        unsigned c = (uint8_t)text[i];
        size_t step = c < 0x80 ? 1 : hd_utf8_decode(&c, text + i, len - i, NULL);
        double score = i ? lat->score[i & lat->mask] : 0;
        bool covered = false;
        uint32_t node = 0;
        step = step ? step : 1;
        for (size_t k = i; k < len; k++) {
            node = hd_token__trie_child(&tok->trie, node, (uint8_t)text[k]);
            if (!node)
                break;
            int32_t id = tok->trie.id[node];
            if (id < 0)
                continue;
            offer(lat, i, k + 1, score + uni->score[id], id);
            covered |= k + 1 - i == step;
        }
        if (!covered)
            offer(lat, i, i + step, score + uni->unk_score, uni->unk);
        i += step;
    }
}

/* A run of characters that no piece covers: its bytes, where the vocabulary has them all. */
static enum hd_err put_unknown(struct lattice *lat, const char *text, size_t len)
{
    const struct hd_token__unigram *uni = &lat->tok->unigram;
    enum hd_err err = HD_OK;
    bool all = uni->byte_fallback;
    for (size_t i = 0; i < len && all; i++)
        all = uni->byte[(uint8_t)text[i]] >= 0;
    if (!all)
        return hd_ids_push(lat->out, uni->unk);
    for (size_t i = 0; i < len && !err; i++)
        err = hd_ids_push(lat->out, uni->byte[(uint8_t)text[i]]);
    return err;
}

/* Turns the links of the best path round and follows them. */
static enum hd_err follow(struct lattice *lat, const char *text, size_t len)
{
    size_t forward = 0, run = 0, begin = 0;
    enum hd_err err = HD_OK;
    for (size_t end = len; end;) {
        size_t from = lat->cell[end].from;
        lat->cell[end].from = (uint32_t)forward;
        forward = end;
        end = from;
    }
    for (size_t end = forward; end && !err; end = lat->cell[end].from) {
        bool unknown = lat->cell[end].id == lat->tok->unigram.unk;
        if (!unknown && run < begin)
            err = put_unknown(lat, text + run, begin - run);
        if (!unknown && !err)
            err = hd_ids_push(lat->out, lat->cell[end].id);
        begin = end;
        run = unknown ? run : end;
    }
    return !err && run < len ? put_unknown(lat, text + run, len - run) : err;
}

static enum hd_err best_path(struct lattice *lat, const char *text, size_t len)
{
    if (!len)
        return HD_OK;
    if (len >= lat->cap) {
        size_t cap = len + len / 2 + 256;
        struct cell *grown = realloc(lat->cell, cap * sizeof *grown);
        if (!grown)
            return HD_ERR_NOMEM;
        lat->cell = grown;
        lat->cap = cap;
    }
    for (size_t i = 0; i <= len; i++)
        lat->cell[i].id = -1;
    fill(lat, text, len);
    return follow(lat, text, len);
}

/* --- words ------------------------------------------------------------------------------------ */

/* text has ▁ for spaces. */
static enum hd_err split_marks(struct lattice *lat, const char *text, size_t len)
{
    enum hd_err err = HD_OK;
    size_t begin = 0;
    if (!lat->tok->unigram.meta_split)
        return best_path(lat, text, len);
    while (begin < len && !err) {
        size_t from = begin + 1;
        const char *next = from < len ? memmem(text + from, len - from, mark, MARK) : NULL;
        size_t end = next ? (size_t)(next - text) : len;
        err = best_path(lat, text + begin, end - begin);
        begin = end;
    }
    return err;
}

/* Puts ▁ for spaces, and one in front where the model wants it (Metaspace). */
static enum hd_err metaspace(struct lattice *lat, struct hd_buf *buf, const char *text, size_t len,
                             bool first)
{
    enum hd_token__prepend prepend = lat->tok->unigram.prepend;
    bool marked = len >= MARK && !memcmp(text, mark, MARK);
    bool wanted = prepend == HD_PREPEND_ALWAYS || (prepend == HD_PREPEND_FIRST && first);
    hd_buf_clear(buf);
    if (wanted && !marked && (!len || *text != ' '))
        hd_buf_puts(buf, mark);
    for (size_t i = 0; i < len;) {
        const char *space = memchr(text + i, ' ', len - i);
        size_t end = space ? (size_t)(space - text) : len;
        hd_buf_append(buf, text + i, end - i);
        if (space)
            hd_buf_puts(buf, mark);
        i = end + (space != NULL);
    }
    return buf->err ? buf->err : split_marks(lat, hd_buf_str(buf), buf->len);
}

static enum hd_err split_white(struct lattice *lat, struct hd_buf *buf, const char *text,
                               size_t len)
{
    enum hd_err err = HD_OK;
    size_t begin = 0;
    for (size_t i = 0; i < len && !err;) {
        unsigned c = (uint8_t)text[i];
        size_t step = c < 0x80 ? 1 : hd_utf8_decode(&c, text + i, len - i, NULL);
        bool white = u_isUWhiteSpace((UChar32)c);
        if (white && i > begin)
            err = metaspace(lat, buf, text + begin, i - begin, begin == 0);
        i += step ? step : 1;
        if (white)
            begin = i;
    }
    if (!err && len > begin)
        err = metaspace(lat, buf, text + begin, len - begin, begin == 0);
    return err;
}

enum hd_err hd_token__unigram(const struct hd_tokenizer *tok, struct hd_ids *out, const char *text,
                              size_t len)
{
    struct lattice lat = {.tok = tok, .out = out, .mask = 63};
    struct hd_buf buf;
    enum hd_err err = HD_OK;
    if (!len)
        return HD_OK;
    hd_buf_init(&buf, (size_t)HD_TOKEN_MAX_TEXT * 2);
    while (lat.mask < tok->unigram.max_piece)
        lat.mask = lat.mask * 2 + 1;
    lat.score = malloc((lat.mask + 1) * sizeof *lat.score);
    if (!lat.score)
        err = HD_ERR_NOMEM;
    else if (tok->unigram.white_split)
        err = split_white(&lat, &buf, text, len);
    else if (tok->unigram.prepend == HD_PREPEND_NEVER && !memchr(text, ' ', len))
        err = split_marks(&lat, text, len);
    else
        err = metaspace(&lat, &buf, text, len, true);
    free(lat.score);
    free(lat.cell);
    hd_buf_dispose(&buf);
    return err;
}
