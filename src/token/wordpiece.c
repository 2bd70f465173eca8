/* WordPiece: BERT's basic tokenizer, then the longest piece first, left to right.
 *
 * Pieces that begin a word are kept as GGUF writes them, "▁word"; those that continue one have no
 * mark. In the trie a lead byte that no UTF-8 has tells the two kinds apart. */
#include <string.h>
#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/ustring.h>

#include "base/utf8.h"
#include "token/token_impl.h"

enum { LEAD_FIRST = 0xff, LEAD_LATER = 0xfe };
static const char mark[] = "▁";

/* --- normalising ------------------------------------------------------------------------------ */

static bool is_white(unsigned c)
{
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x80 && u_isUWhiteSpace((UChar32)c));
}

/* The tokenizers library knows Unicode 8 here: what is newer has no category. */
static uint32_t category(unsigned c)
{
    UVersionInfo age;
    u_charAge((UChar32)c, age);
    return age[0] > 8 ? 0 : U_GET_GC_MASK((UChar32)c);
}

/* Categories Cc, Cf and Co; what is not assigned stays, as in the tokenizers library. Line breaks
 * and tabs are white space instead. */
static bool is_control(unsigned c)
{
    if (c == '\t' || c == '\n' || c == '\r')
        return false;
    if (c < 0x7f)
        return c < ' ';
    return (category(c) & (U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK)) != 0;
}

/* The blocks that BERT calls Chinese, as its published code has them. */
static bool is_chinese(unsigned c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static void put_lower(const struct hd_token__norm *norm, struct hd_buf *out, unsigned c)
{
    if (norm->accents && c >= 0x80 && category(c) & U_GC_MN_MASK)
        return;
    if (norm->lower && c == 0x130) {
        hd_buf_puts(out, "i\xcc\x87");
        return;
    }
    hd_buf_put_utf8(out, norm->lower ? (unsigned)u_tolower((UChar32)c) : c);
}

/* Decomposes and lowers one character. Marks are dropped, so that their order does not matter. */
static void put_char(const struct hd_token__norm *norm, const UNormalizer2 *nfd, struct hd_buf *out,
                     unsigned c)
{
    UErrorCode code = U_ZERO_ERROR;
    UChar wide[32];
    int32_t n =
        norm->accents && c >= 0x80 ? unorm2_getDecomposition(nfd, (UChar32)c, wide, 32, &code) : -1;
    if (n < 0 || U_FAILURE(code)) {
        put_lower(norm, out, c);
        return;
    }
    for (int32_t i = 0; i < n;) {
        UChar32 part;
        U16_NEXT(wide, i, n, part);
        put_lower(norm, out, (unsigned)part);
    }
}

enum hd_err hd_token__bert_normalize(const struct hd_token__norm *norm, struct hd_buf *out,
                                     const char *text, size_t len)
{
    UErrorCode code = U_ZERO_ERROR;
    const UNormalizer2 *nfd = unorm2_getNFDInstance(&code);
    if (U_FAILURE(code))
        return HD_ERR_INTERNAL;
    for (size_t i = 0; i < len && !out->err;) {
        unsigned c = (uint8_t)text[i];
        size_t step = c < 0x80 ? 1 : hd_utf8_decode(&c, text + i, len - i, NULL);
        i += step ? step : 1;
        if (norm->clean && (!c || c == HD_UTF8_REPLACEMENT || is_control(c)))
            continue;
        if (norm->clean && is_white(c)) {
            hd_buf_putc(out, ' ');
        } else if (norm->chinese && is_chinese(c)) {
            hd_buf_putc(out, ' ');
            put_char(norm, nfd, out, c);
            hd_buf_putc(out, ' ');
        } else {
            put_char(norm, nfd, out, c);
        }
    }
    return out->err;
}

/* --- the vocabulary --------------------------------------------------------------------------- */

enum hd_err hd_token__wordpiece_set(struct hd_tokenizer *tok, size_t id, const char *piece,
                                    size_t len, bool later)
{
    char marked[HD_TOKEN_MAX_PIECE + 3];
    if (len > HD_TOKEN_MAX_PIECE)
        return HD_ERR_LIMIT;
    if (later)
        return hd_token__vocab_set(&tok->vocab, id, piece, len, HD_TOKEN_NORMAL | HD_TOKEN_RAW);
    memcpy(marked, mark, 3);
    memcpy(marked + 3, piece, len);
    return hd_token__vocab_set(&tok->vocab, id, marked, len + 3, HD_TOKEN_NORMAL);
}

/* Pieces that continue a word carry RAW, those that begin one do not. */
enum hd_err hd_token__wordpiece_finish(struct hd_tokenizer *tok)
{
    enum hd_err err = hd_token__trie_init(&tok->trie);
    for (size_t id = 0; id < tok->vocab.n && !err; id++) {
        const struct hd_token__entry *entry = &tok->vocab.entry[id];
        const char *bytes = tok->vocab.blob.data + entry->at;
        if (!(entry->flags & HD_TOKEN_NORMAL))
            continue;
        if (entry->flags & HD_TOKEN_RAW)
            err = hd_token__trie_add(&tok->trie, LEAD_LATER, bytes, entry->len, (int32_t)id);
        else
            err =
                hd_token__trie_add(&tok->trie, LEAD_FIRST, bytes + 3, entry->len - 3, (int32_t)id);
    }
    if (err)
        return err;
    tok->wordpiece.first = hd_token__trie_child(&tok->trie, 0, LEAD_FIRST);
    tok->wordpiece.later = hd_token__trie_child(&tok->trie, 0, LEAD_LATER);
    return HD_OK;
}

/* --- matching --------------------------------------------------------------------------------- */

/* The longest piece below node that text begins with, whole characters only; its id or -1. */
static int32_t longest(const struct hd_token__trie *trie, uint32_t node, const char *text,
                       size_t len, size_t *n)
{
    int32_t best = -1;
    for (size_t i = 0; i < len && node; i++) {
        node = hd_token__trie_child(trie, node, (uint8_t)text[i]);
        if (node && trie->id[node] >= 0 &&
            (i + 1 == len || ((uint8_t)text[i + 1] & 0xc0) != 0x80)) {
            best = trie->id[node];
            *n = i + 1;
        }
    }
    return best;
}

static enum hd_err match_word(const struct hd_tokenizer *tok, struct hd_ids *out, const char *word,
                              size_t len)
{
    const struct hd_token__wordpiece *wp = &tok->wordpiece;
    size_t begin = out->n, step = 0;
    if (len > wp->max_chars && hd_utf8_count(word, len) > wp->max_chars)
        return hd_ids_push(out, wp->unk);
    for (size_t i = 0; i < len; i += step) {
        uint32_t node = i ? wp->later : wp->first;
        int32_t id = node ? longest(&tok->trie, node, word + i, len - i, &step) : -1;
        if (id < 0) { /* one part that is no piece makes the whole word unknown */
            out->n = out->err ? out->n : begin;
            return hd_ids_push(out, wp->unk);
        }
        enum hd_err err = hd_ids_push(out, id);
        if (err)
            return err;
    }
    return HD_OK;
}

static bool is_punctuation(unsigned c)
{
    if (c < 0x80)
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
               (c >= 123 && c <= 126);
    return (category(c) & U_GC_P_MASK) != 0;
}

enum hd_err hd_token__wordpiece(const struct hd_tokenizer *tok, struct hd_ids *out,
                                const char *text, size_t len)
{
    enum hd_err err = HD_OK;
    size_t begin = 0;
    for (size_t i = 0; i < len && !err;) {
        unsigned c = (uint8_t)text[i];
        size_t step = c < 0x80 ? 1 : hd_utf8_decode(&c, text + i, len - i, NULL);
        bool white = is_white(c), apart = tok->wordpiece.bert_split && is_punctuation(c);
        step = step ? step : 1;
        if ((white || apart) && i > begin)
            err = match_word(tok, out, text + begin, i - begin);
        if (!err && apart)
            err = match_word(tok, out, text + i, step);
        i += step;
        if (white || apart)
            begin = i;
    }
    if (!err && len > begin)
        err = match_word(tok, out, text + begin, len - begin);
    return err;
}
