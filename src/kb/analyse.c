/* Terms from text. See analyse.h. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <friso/friso.h>
#include <libstemmer.h>

#include "base/utf8.h"
#include "kb/analyse.h"
#include "kb/fold.h"
#include "kb/words.h"

#define LEXICON "/usr/share/friso/dict/UTF-8/"

enum {
    RUN_MAX = 64,     /* characters of one word or code; longer runs are cut */
    HAN_RUN_MAX = 256 /* characters given to the segmenter at once */
};

/* Loaded once, then read-only, for the whole process. */
static pthread_once_t lexicon_once = PTHREAD_ONCE_INIT;
static friso_t lexicon;

static void load_lexicon(void)
{
    FILE *probe = fopen(LEXICON "friso.lex.ini",
                        "re"); /* friso itself ends the process where it is missing */
    if (!probe)
        return;
    fclose(probe);
    friso_config_t config = friso_new_config();
    lexicon = friso_new();
    if (!config || !lexicon)
        return;
    config->add_syn = 0;
    lexicon->dic = friso_dic_new();
    friso_dic_load_from_ifile(lexicon, config, (char *)LEXICON, 0x7fffffff);
    friso_free_config(config);
}

struct hd_kb__analyser {
    struct sb_stemmer *stemmer;
    friso_config_t config; /* the segmenter; NULL without a dictionary */
    friso_task_t task;
    unsigned *chars;  /* folded code points */
    uint32_t *source; /* the offset each came from */
    size_t n, cap;
};

enum hd_err hd_kb__analyser_new(struct hd_kb__analyser **out)
{
    *out = NULL;
    struct hd_kb__analyser *an = calloc(1, sizeof *an);
    if (!an || !(an->stemmer = sb_stemmer_new("english", NULL))) {
        free(an);
        return HD_ERR_NOMEM;
    }
    *out = an;
    return HD_OK;
}

void hd_kb__analyser_free(struct hd_kb__analyser *an)
{
    if (!an)
        return;
    sb_stemmer_delete(an->stemmer);
    if (an->task)
        friso_free_task(an->task);
    if (an->config)
        friso_free_config(an->config);
    free(an->chars);
    free(an->source);
    free(an);
}

/* The dictionary takes a while to load: only when the first ideographs come along. */
static bool segmenter_ready(struct hd_kb__analyser *an)
{
    if (an->task)
        return true;
    pthread_once(&lexicon_once, load_lexicon);
    if (!lexicon)
        return false;
    an->config = friso_new_config();
    an->task = an->config ? friso_new_task() : NULL;
    if (!an->task)
        return false;
    an->config->add_syn = 0;
    an->config->clr_stw = 0;
    an->config->max_len = 7;
    return true;
}

void hd_kb__terms_init(struct hd_kb__terms *terms)
{
    memset(terms, 0, sizeof *terms);
    hd_buf_init(&terms->text, (size_t)1 << 30);
}

void hd_kb__terms_dispose(struct hd_kb__terms *terms)
{
    free(terms->items);
    hd_buf_dispose(&terms->text);
    terms->items = NULL;
    terms->n = terms->cap = 0;
}

static enum hd_err add_term(struct hd_kb__terms *terms, const char *text, size_t len,
                            enum hd_kb__term_kind kind, bool part, uint32_t source)
{
    if (!len)
        return HD_OK;
    if (terms->n == terms->cap) {
        size_t cap = terms->cap ? terms->cap * 2 : 64;
        struct hd_kb__term *items = realloc(terms->items, cap * sizeof *items);
        if (!items)
            return HD_ERR_NOMEM;
        terms->items = items;
        terms->cap = cap;
    }
    size_t at = terms->text.len;
    if (hd_buf_append(&terms->text, text, len) || hd_buf_putc(&terms->text, '\0'))
        return terms->text.err;
    terms->items[terms->n++] = (struct hd_kb__term){.at = (uint32_t)at,
                                                    .len = (uint16_t)len,
                                                    .kind = kind,
                                                    .part = part,
                                                    .pos = terms->n_pos,
                                                    .source = source};
    return HD_OK;
}

static size_t encode(char *out, const unsigned *chars, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++)
        len += hd_utf8_encode(out + len, chars[i]);
    return len;
}

static bool is_digit(unsigned c)
{
    return c >= '0' && c <= '9';
}

/* One word of letters: stop words out, English stem. */
static enum hd_err add_word(struct hd_kb__analyser *an, struct hd_kb__terms *terms,
                            const unsigned *chars, size_t n, bool part, uint32_t source,
                            unsigned flags)
{
    char word[RUN_MAX * 4 + 4];
    size_t len = encode(word, chars, n);
    word[len] = '\0';
    if (hd_kb__is_stop_word(word) || ((flags & HD_KB__QUERY) && hd_kb__is_question_word(word)))
        return HD_OK;
    const sb_symbol *stem = sb_stemmer_stem(an->stemmer, (const sb_symbol *)word, (int)len);
    if (!stem)
        return HD_ERR_NOMEM;
    return add_term(terms, (const char *)stem, (size_t)sb_stemmer_length(an->stemmer),
                    HD_KB__TERM_WORD, part, source);
}

struct shape {
    bool letter, digit;
};

static struct shape shape_of(const unsigned *chars, size_t n)
{
    struct shape shape = {0};
    for (size_t i = 0; i < n; i++) {
        if (is_digit(chars[i]))
            shape.digit = true;
        else if (hd_kb__is_word(chars[i]))
            shape.letter = true;
    }
    return shape;
}

/* A piece without separators: a word, a number, or letters and digits together ("12a", "10kv"),
 * which also give their parts. */
static enum hd_err add_piece(struct hd_kb__analyser *an, struct hd_kb__terms *terms,
                             const unsigned *chars, size_t n, bool part, uint32_t source,
                             unsigned flags)
{
    struct shape shape = shape_of(chars, n);
    if (!shape.digit)
        return add_word(an, terms, chars, n, part, source, flags);
    char text[RUN_MAX * 4];
    enum hd_err err = add_term(terms, text, encode(text, chars, n),
                               shape.letter ? HD_KB__TERM_CODE : HD_KB__TERM_NUMBER, part, source);
    if (!shape.letter)
        return err;
    for (size_t i = 0; i < n && !err;) {
        size_t j = i + 1;
        while (j < n && is_digit(chars[j]) == is_digit(chars[i]))
            j++;
        if (is_digit(chars[i]))
            err = add_term(terms, text, encode(text, chars + i, j - i), HD_KB__TERM_NUMBER, true,
                           source);
        else if (j - i > 1)
            err = add_word(an, terms, chars + i, j - i, true, source, flags);
        i = j;
    }
    return err;
}

static bool is_joiner(unsigned before, unsigned c, unsigned after)
{
    switch (c) {
    case '-':
    case '_':
    case '.':
    case '/':
    case '\'':
    case '&':
    case '+':
        return true;
    case ',':
    case ':':
        return is_digit(before) && is_digit(after);
    default:
        return false;
    }
}

/* A run of pieces held together by separators. Decimals and amounts are one number; what holds a
 * digit is kept whole beside its pieces; other words are only their pieces. */
static enum hd_err add_compound(struct hd_kb__analyser *an, struct hd_kb__terms *terms,
                                const unsigned *chars, size_t n, uint32_t source, unsigned flags)
{
    unsigned plain[RUN_MAX + 1];
    size_t n_plain = 0, n_sep = 0, n_dot = 0;
    for (size_t i = 0; i < n; i++) {
        if (chars[i] == ',')
            continue;
        plain[n_plain++] = chars[i];
        if (!hd_kb__is_word(chars[i])) {
            n_sep++;
            n_dot += chars[i] == '.';
        }
    }
    struct shape shape = shape_of(plain, n_plain);
    char text[RUN_MAX * 4 + 4];
    if (shape.digit && !shape.letter && n_sep == n_dot && n_dot <= 1)
        return add_term(terms, text, encode(text, plain, n_plain), HD_KB__TERM_NUMBER, false,
                        source);
    enum hd_err err = HD_OK;
    if (shape.digit) {
        enum hd_kb__term_kind kind = shape.letter ? HD_KB__TERM_CODE : HD_KB__TERM_NUMBER;
        err = add_term(terms, text, encode(text, plain, n_plain), kind, false, source);
        size_t k = 0;
        for (size_t i = 0; i < n_plain; i++)
            if (hd_kb__is_word(plain[i]))
                plain[k++] = plain[i];
        if (shape.letter && !err)
            err = add_term(terms, text, encode(text, plain, k), kind, true, source);
    }
    for (size_t i = 0; i < n && !err;) {
        size_t j = i;
        while (j < n && hd_kb__is_word(chars[j]))
            j++;
        /* "nfl's", "don't": what follows an apostrophe is grammar. */
        bool grammar = i > 0 && chars[i - 1] == '\'' && j - i <= 2;
        if (j > i && !grammar)
            err = add_piece(an, terms, chars + i, j - i, shape.digit, source, flags);
        i = j + 1;
    }
    return err;
}

/* Letters and digits from i on; returns where the run ends. */
static enum hd_err add_run(struct hd_kb__analyser *an, struct hd_kb__terms *terms, size_t *io,
                           unsigned flags)
{
    const unsigned *chars = an->chars;
    size_t i = *io, end = i;
    bool compound = false;
    while (end < an->n && end - i < RUN_MAX) {
        if (hd_kb__is_word(chars[end])) {
            end++;
        } else if (end > i && end + 1 < an->n && end + 1 - i < RUN_MAX &&
                   hd_kb__is_word(chars[end + 1]) &&
                   is_joiner(chars[end - 1], chars[end], chars[end + 1])) {
            compound = true;
            end++;
        } else {
            break;
        }
    }
    uint32_t source = an->source[i];
    enum hd_err err = compound ? add_compound(an, terms, chars + i, end - i, source, flags)
                               : add_piece(an, terms, chars + i, end - i, false, source, flags);
    /* The sign after a number belongs to it: 3.5% is also a term of its own. */
    if (!err && end < an->n && chars[end] == '%' && is_digit(chars[end - 1])) {
        char text[RUN_MAX * 4 + 8];
        size_t len = 0;
        for (size_t k = i; k <= end; k++)
            if (chars[k] != ',')
                len += hd_utf8_encode(text + len, chars[k]);
        err = add_term(terms, text, len, HD_KB__TERM_NUMBER, true, source);
        end++;
    }
    terms->n_pos++;
    *io = end;
    return err;
}

/* Segments a run: adds the dictionary words of three characters and more, and marks the pairs from
 * first_pair on that no word holds. */
static enum hd_err add_long_words(struct hd_kb__analyser *an, struct hd_kb__terms *terms,
                                  size_t from, size_t to, size_t first_pair)
{
    if (to - from < 3 || !segmenter_ready(an))
        return HD_OK;
    char text[HAN_RUN_MAX * 4 + 1];
    bool starts[HAN_RUN_MAX + 1] = {false}; /* a word begins at this character */
    text[encode(text, an->chars + from, to - from)] = '\0';
    size_t n_pair_end = terms->n;
    friso_set_text(an->task, text);
    enum hd_err err = HD_OK;
    friso_token_t token;
    while (!err && (token = an->config->next_token(lexicon, an->config, an->task))) {
        size_t len = strnlen(token->word, sizeof token->word);
        size_t n = hd_utf8_count(token->word, len);
        size_t first = token->offset >= 0 ? hd_utf8_count(text, (size_t)token->offset) : 0;
        if (first >= to - from || !hd_utf8_valid(token->word, len))
            continue;
        starts[first] = true;
        if (n >= 3)
            err =
                add_term(terms, token->word, len, HD_KB__TERM_LONG, true, an->source[from + first]);
    }
    for (size_t i = first_pair, at = 0; i < n_pair_end; i++) {
        while (at < to - from && an->source[from + at] != terms->items[i].source)
            at++;
        terms->items[i].straddles = at + 1 < to - from && starts[at + 1];
    }
    return err;
}

static enum hd_err add_cjk(struct hd_kb__analyser *an, struct hd_kb__terms *terms, size_t *io,
                           unsigned flags)
{
    size_t from = *io, to = from;
    while (to < an->n && to - from < HAN_RUN_MAX && hd_kb__is_cjk(an->chars[to]))
        to++;
    enum hd_err err = HD_OK;
    char text[16];
    size_t first_pair = terms->n;
    if (to - from == 1) {
        err = add_term(terms, text, encode(text, an->chars + from, 1), HD_KB__TERM_PAIR, false,
                       an->source[from]);
        terms->n_pos++;
    }
    for (size_t i = from; i + 1 < to && !err; i++) {
        bool skip =
            hd_kb__is_function_pair(an->chars[i], an->chars[i + 1]) ||
            ((flags & HD_KB__QUERY) && hd_kb__is_question_pair(an->chars[i], an->chars[i + 1]));
        if (!skip)
            err = add_term(terms, text, encode(text, an->chars + i, 2), HD_KB__TERM_PAIR, false,
                           an->source[i]);
        terms->n_pos++;
    }
    if (!err)
        err = add_long_words(an, terms, from, to, first_pair);
    *io = to;
    return err;
}

static enum hd_err fold_all(struct hd_kb__analyser *an, const char *text, size_t len)
{
    an->n = 0;
    uint32_t offset = 0;
    for (size_t i = 0; i < len; offset++) {
        unsigned c, folded[HD_KB__FOLD_MAX];
        size_t k = hd_utf8_decode(&c, text + i, len - i, NULL);
        if (!k) {
            c = HD_UTF8_REPLACEMENT;
            k = 1;
        }
        i += k;
        size_t n = hd_kb__fold_char(folded, c);
        if (an->n + n > an->cap) {
            size_t cap = an->cap ? an->cap * 2 : 1024;
            unsigned *chars = realloc(an->chars, cap * sizeof *chars);
            if (chars)
                an->chars = chars;
            uint32_t *source = realloc(an->source, cap * sizeof *source);
            if (source)
                an->source = source;
            if (!chars || !source)
                return HD_ERR_NOMEM;
            an->cap = cap;
        }
        for (size_t j = 0; j < n; j++) {
            an->chars[an->n] = folded[j];
            an->source[an->n++] = offset;
        }
    }
    return HD_OK;
}

enum hd_err hd_kb__analyse(struct hd_kb__analyser *an, struct hd_kb__terms *terms, const char *text,
                           size_t len, unsigned flags)
{
    terms->n = 0;
    terms->n_pos = 0;
    hd_buf_clear(&terms->text);
    enum hd_err err = fold_all(an, text, len);
    for (size_t i = 0; i < an->n && !err;) {
        if (hd_kb__is_cjk(an->chars[i]))
            err = add_cjk(an, terms, &i, flags);
        else if (hd_kb__is_word(an->chars[i]))
            err = add_run(an, terms, &i, flags);
        else
            i++;
    }
    return err;
}
