/* Added tokens inside text: leftmost, longest, with the flags of tokenizer.json. Used only where
 * the caller asked for special tokens; text from outside never comes here. */
#include <stdlib.h>
#include <string.h>
#include <unicode/uchar.h>

#include "base/utf8.h"
#include "token/token_impl.h"

enum hd_err hd_token__added_push(struct hd_token__added_set *set,
                                 const struct hd_token__added *token)
{
    if (set->n == set->cap) {
        size_t cap = set->cap * 2 + 64;
        struct hd_token__added *grown = realloc(set->token, cap * sizeof *grown);
        if (!grown)
            return HD_ERR_NOMEM;
        set->token = grown;
        set->cap = cap;
    }
    set->token[set->n++] = *token;
    return HD_OK;
}

static const char *bytes_of(const struct hd_tokenizer *tok, const struct hd_token__added *token,
                            size_t *len)
{
    const struct hd_token__entry *entry = &tok->vocab.entry[token->id];
    *len = entry->len;
    return tok->vocab.blob.data + entry->at;
}

static int by_bytes(const void *a, const void *b, void *ud)
{
    size_t n_a, n_b;
    const char *s_a = bytes_of(ud, a, &n_a), *s_b = bytes_of(ud, b, &n_b);
    int order = memcmp(s_a, s_b, n_a < n_b ? n_a : n_b);
    if (order)
        return order;
    return n_a < n_b ? -1 : n_a > n_b;
}

static void sort_set(struct hd_tokenizer *tok, struct hd_token__added_set *set)
{
    size_t len;
    if (set->n)
        qsort_r(set->token, set->n, sizeof *set->token, by_bytes, tok);
    for (size_t i = 0; i < set->n; i++)
        set->first[(uint8_t)*bytes_of(tok, &set->token[i], &len)] = true;
}

void hd_token__added_sort(struct hd_tokenizer *tok)
{
    sort_set(tok, &tok->raw);
    sort_set(tok, &tok->normalized);
}

/* The first in [low, high) whose byte k is at least c; all there share their first k bytes. */
static size_t narrow(const struct hd_tokenizer *tok, const struct hd_token__added_set *set,
                     size_t low, size_t high, size_t k, unsigned c)
{
    while (low < high) {
        size_t mid = low + (high - low) / 2, len;
        const char *bytes = bytes_of(tok, &set->token[mid], &len);
        if (len <= k || (uint8_t)bytes[k] < c)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* The longest token that text begins with, or NULL. */
static const struct hd_token__added *longest(const struct hd_tokenizer *tok,
                                             const struct hd_token__added_set *set,
                                             const char *text, size_t len)
{
    const struct hd_token__added *best = NULL;
    size_t low = 0, high = set->n;
    for (size_t k = 0; k < len && low < high; k++) {
        unsigned c = (uint8_t)text[k];
        size_t n;
        low = narrow(tok, set, low, high, k, c);
        high = narrow(tok, set, low, high, k, c + 1);
        if (low == high)
            break;
        bytes_of(tok, &set->token[low], &n);
        if (n == k + 1)
            best = &set->token[low];
    }
    return best;
}

static bool is_word(unsigned c)
{
    return u_hasBinaryProperty((UChar32)c, UCHAR_ALPHABETIC) || u_isdigit((UChar32)c) || c == '_' ||
           (U_GET_GC_MASK((UChar32)c) & (U_GC_M_MASK | U_GC_PC_MASK)) != 0;
}

/* Start of the character that ends at `end`. */
static size_t step_back(const char *text, size_t end)
{
    size_t at = end - 1;
    while (at && ((uint8_t)text[at] & 0xc0) == 0x80)
        at--;
    return at;
}

static bool touches_word(const char *text, size_t len, size_t begin, size_t end)
{
    unsigned c;
    size_t before = begin ? step_back(text, begin) : 0;
    if (begin && hd_utf8_decode(&c, text + before, begin - before, NULL) && is_word(c))
        return true;
    return end < len && hd_utf8_decode(&c, text + end, len - end, NULL) && is_word(c);
}

static size_t skip_white_back(const char *text, size_t begin, size_t least)
{
    unsigned c;
    while (begin > least) {
        size_t before = step_back(text, begin);
        if (before < least || !hd_utf8_decode(&c, text + before, begin - before, NULL) ||
            !u_isUWhiteSpace((UChar32)c))
            break;
        begin = before;
    }
    return begin;
}

static size_t skip_white(const char *text, size_t end, size_t len)
{
    unsigned c;
    while (end < len) {
        size_t step = hd_utf8_decode(&c, text + end, len - end, NULL);
        if (!step || !u_isUWhiteSpace((UChar32)c))
            break;
        end += step;
    }
    return end;
}

enum hd_err hd_token__added_split(const struct hd_tokenizer *tok,
                                  const struct hd_token__added_set *set, const char *text,
                                  size_t len, hd_token__stretch_fn fn, void *ud)
{
    enum hd_err err = HD_OK;
    size_t done = 0, n;
    for (size_t i = 0; set->n && i < len && !err;) {
        const struct hd_token__added *token =
            set->first[(uint8_t)text[i]] ? longest(tok, set, text + i, len - i) : NULL;
        if (!token) {
            i++;
            continue;
        }
        bytes_of(tok, token, &n);
        size_t begin = i, end = i + n;
        i = end;
        if (token->single_word && touches_word(text, len, begin, end))
            continue;
        if (token->lstrip)
            begin = skip_white_back(text, begin, done);
        if (token->rstrip)
            i = end = skip_white(text, end, len);
        if (begin > done)
            err = fn(ud, -1, text + done, begin - done);
        if (!err)
            err = fn(ud, token->id, text + begin, end - begin);
        done = end;
    }
    return !err && done < len ? fn(ud, -1, text + done, len - done) : err;
}
