/* Making text what the vocabulary was trained on: valid UTF-8, then the tokenizer's own steps. */
#include <stdlib.h>
#include <string.h>
#include <unicode/uchar.h>
#include <unicode/ustring.h>

#include "base/utf8.h"
#include "token/token_impl.h"

size_t hd_token__broken_len(const char *s, size_t len)
{
    unsigned codepoint;
    for (size_t k = len < 3 ? len : 3; k > 1; k--) {
        size_t need;
        if (!hd_utf8_decode(&codepoint, s, k, &need) && need)
            return k;
    }
    return 1;
}

enum hd_err hd_token__repair(char **owned, const char **text, size_t *len)
{
    struct hd_buf buf;
    if (hd_utf8_valid(*text, *len))
        return HD_OK;
    hd_buf_init(&buf, 3 * *len);
    for (size_t i = 0; i < *len;) {
        unsigned codepoint;
        size_t step = hd_utf8_decode(&codepoint, *text + i, *len - i, NULL);
        if (step)
            hd_buf_append(&buf, *text + i, step);
        else
            hd_buf_put_utf8(&buf, HD_UTF8_REPLACEMENT);
        i += step ? step : hd_token__broken_len(*text + i, *len - i);
    }
    size_t n = buf.len;
    enum hd_err err = buf.err;
    char *repaired = err ? NULL : hd_buf_take(&buf);
    hd_buf_dispose(&buf);
    if (!repaired)
        return err ? err : HD_ERR_NOMEM;
    free(*owned);
    *text = *owned = repaired;
    *len = n;
    return HD_OK;
}

void hd_token__norm_dispose(struct hd_token__norm *norm)
{
    pcre2_code_free(norm->code);
    free(norm->text);
    *norm = (struct hd_token__norm){0};
}

enum hd_err hd_token__norm_push(struct hd_tokenizer *tok, const struct hd_token__norm *norm)
{
    struct hd_token__norm copy = *norm;
    if (tok->n_norm == HD_TOKEN_MAX_NORMALIZERS) {
        hd_token__norm_dispose(&copy);
        return HD_ERR_LIMIT;
    }
    tok->norm[tok->n_norm++] = copy;
    return HD_OK;
}

enum hd_err hd_token__normalizer_add(struct hd_tokenizer *tok, const char *type)
{
    UErrorCode code = U_ZERO_ERROR;
    struct hd_token__norm norm = {.kind = HD_NORM_FORM};
    if (!strcmp(type, "NFC"))
        norm.form = unorm2_getNFCInstance(&code);
    else if (!strcmp(type, "NFD"))
        norm.form = unorm2_getNFDInstance(&code);
    else if (!strcmp(type, "NFKC"))
        norm.form = unorm2_getNFKCInstance(&code);
    else if (!strcmp(type, "NFKD"))
        norm.form = unorm2_getNFKDInstance(&code);
    if (!norm.form || U_FAILURE(code))
        return HD_ERR_UNSUPPORTED;
    return hd_token__norm_push(tok, &norm);
}

/* --- Unicode's forms -------------------------------------------------------------------------- */

/* ASCII is normal in every form. */
static bool is_ascii(const char *text, size_t len)
{
    uint64_t word;
    size_t i = 0;
    for (; i + sizeof word <= len; i += sizeof word) {
        memcpy(&word, text + i, sizeof word);
        if (word & 0x8080808080808080u)
            return false;
    }
    for (; i < len; i++)
        if (text[i] & 0x80)
            return false;
    return true;
}

static enum hd_err to_utf8(char **owned, const char **text, size_t *len, const UChar *wide,
                           int32_t n)
{
    UErrorCode code = U_ZERO_ERROR;
    int32_t bytes = 0;
    char *out = malloc(3 * (size_t)n + 1);
    if (!out)
        return HD_ERR_NOMEM;
    u_strToUTF8(out, 3 * n + 1, &bytes, wide, n, &code);
    if (U_FAILURE(code)) {
        free(out);
        return HD_ERR_INTERNAL;
    }
    free(*owned);
    *text = *owned = out;
    *len = (size_t)bytes;
    return HD_OK;
}

/* One form; text that has it already stays as it is. */
static enum hd_err apply_form(const UNormalizer2 *normalizer, char **owned, const char **text,
                              size_t *len)
{
    UErrorCode code = U_ZERO_ERROR;
    enum hd_err err = HD_OK;
    int32_t n = 0, n_normal = 0;
    if (is_ascii(*text, *len))
        return HD_OK;
    UChar *wide = malloc((*len + 1) * sizeof *wide), *normal = NULL;
    if (!wide)
        return HD_ERR_NOMEM;
    u_strFromUTF8(wide, (int32_t)*len + 1, &n, *text, (int32_t)*len, &code);
    if (U_SUCCESS(code) && unorm2_spanQuickCheckYes(normalizer, wide, n, &code) == n)
        goto out;
    code = U_ZERO_ERROR;
    n_normal = unorm2_normalize(normalizer, wide, n, NULL, 0, &code);
    if (code != U_BUFFER_OVERFLOW_ERROR && U_FAILURE(code)) {
        err = HD_ERR_INTERNAL;
        goto out;
    }
    if (n_normal > HD_TOKEN_MAX_TEXT / 2) {
        err = HD_ERR_LIMIT;
        goto out;
    }
    normal = malloc(((size_t)n_normal + 1) * sizeof *normal);
    if (!normal) {
        err = HD_ERR_NOMEM;
        goto out;
    }
    code = U_ZERO_ERROR;
    n_normal = unorm2_normalize(normalizer, wide, n, normal, n_normal + 1, &code);
    err = U_FAILURE(code) ? HD_ERR_INTERNAL : to_utf8(owned, text, len, normal, n_normal);
out:
    free(wide);
    free(normal);
    return err;
}

/* --- the other steps -------------------------------------------------------------------------- */

static void lowercase(struct hd_buf *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        unsigned c;
        size_t step = hd_utf8_decode(&c, text + i, len - i, NULL);
        if (c == 0x130) /* the one character whose small form is two, in every language */
            hd_buf_puts(out, "i\xcc\x87");
        else
            hd_buf_put_utf8(out, (unsigned)u_tolower((UChar32)c));
        i += step ? step : 1;
    }
}

static void strip_accents(struct hd_buf *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        unsigned c;
        size_t step = hd_utf8_decode(&c, text + i, len - i, NULL);
        if (!(U_GET_GC_MASK((UChar32)c) & U_GC_M_MASK))
            hd_buf_append(out, text + i, step);
        i += step ? step : 1;
    }
}

static void strip(struct hd_buf *out, const struct hd_token__norm *norm, const char *text,
                  size_t len)
{
    size_t begin = 0, end = 0;
    bool inside = !norm->left;
    for (size_t i = 0; i < len;) {
        unsigned c;
        size_t step = hd_utf8_decode(&c, text + i, len - i, NULL);
        bool white = u_isUWhiteSpace((UChar32)c);
        step = step ? step : 1;
        if (!white && !inside) {
            inside = true;
            begin = i;
        }
        i += step;
        if (!white || !norm->right)
            end = i;
    }
    if (inside && end > begin)
        hd_buf_append(out, text + begin, end - begin);
}

static enum hd_err replace(struct hd_buf *out, const struct hd_token__norm *norm, const char *text,
                           size_t len)
{
    pcre2_match_context *context = hd_token__match_context();
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    enum hd_err err = context && match ? HD_OK : HD_ERR_NOMEM;
    size_t done = 0;
    while (!err && !out->err) {
        int rc = pcre2_match(norm->code, (PCRE2_SPTR)text, len, done,
                             PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, match, context);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(match);
        if (rc < 0 || at[0] < done || at[1] <= at[0]) {
            err = HD_ERR_LIMIT;
            break;
        }
        hd_buf_append(out, text + done, at[0] - done);
        hd_buf_puts(out, norm->text);
        done = at[1];
    }
    hd_buf_append(out, text + done, len - done);
    pcre2_match_data_free(match);
    pcre2_match_context_free(context);
    return err ? err : out->err;
}

static enum hd_err run(const struct hd_tokenizer *tok, const struct hd_token__norm *norm,
                       struct hd_buf *out, const char *text, size_t len)
{
    switch (norm->kind) {
    case HD_NORM_FORM:
        break;
    case HD_NORM_LOWERCASE:
        lowercase(out, text, len);
        break;
    case HD_NORM_STRIP_ACCENTS:
        strip_accents(out, text, len);
        break;
    case HD_NORM_STRIP:
        strip(out, norm, text, len);
        break;
    case HD_NORM_REPLACE:
        return replace(out, norm, text, len);
    case HD_NORM_PREPEND:
        if (len) {
            hd_buf_puts(out, norm->text);
            hd_buf_append(out, text, len);
        }
        break;
    case HD_NORM_CHARSMAP:
        return hd_token__charsmap_apply(&tok->charsmap, out, text, len);
    case HD_NORM_SENTENCEPIECE:
        return hd_token__sentencepiece(&tok->charsmap, norm, out, text, len);
    case HD_NORM_BERT:
        return hd_token__bert_normalize(norm, out, text, len);
    }
    return out->err;
}

enum hd_err hd_token__normalize(const struct hd_tokenizer *tok, char **owned, const char **text,
                                size_t *len)
{
    enum hd_err err = HD_OK;
    for (size_t i = 0; i < tok->n_norm && !err; i++) {
        const struct hd_token__norm *norm = &tok->norm[i];
        struct hd_buf out;
        if (norm->kind == HD_NORM_FORM) {
            err = apply_form(norm->form, owned, text, len);
            continue;
        }
        hd_buf_init(&out, HD_TOKEN_MAX_TEXT);
        hd_buf_reserve(&out, *len + *len / 8 + 16);
        err = run(tok, norm, &out, *text, *len);
        size_t n = out.len;
        char *taken = err ? NULL : hd_buf_take(&out);
        hd_buf_dispose(&out);
        if (!err && !taken)
            err = HD_ERR_NOMEM;
        if (!err) {
            free(*owned);
            *text = *owned = taken;
            *len = n;
        }
    }
    return err;
}
