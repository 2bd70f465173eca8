/* See evidence.h. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/utf8.h"
#include "kb/evidence.h"
#include "kb/fold.h"

static const float number_weight = 1.5f; /* of a number or a code; a word's is 1 */

enum hd_err hd_kb__judge_init(struct hd_kb__judge *judge)
{
    memset(judge, 0, sizeof *judge);
    hd_kb__terms_init(&judge->terms);
    hd_buf_init(&judge->folded, (size_t)1 << 28);
    return hd_kb__analyser_new(&judge->analyser);
}

void hd_kb__judge_dispose(struct hd_kb__judge *judge)
{
    hd_kb__analyser_free(judge->analyser);
    hd_kb__terms_dispose(&judge->terms);
    hd_buf_dispose(&judge->folded);
    judge->analyser = NULL;
}

void hd_kb__evidence_dispose(struct hd_kb__evidence *evidence)
{
    free(evidence->facts);
    hd_kb__numbers_dispose(&evidence->numbers);
    memset(evidence, 0, sizeof *evidence);
}

static int by_hash(const void *a, const void *b)
{
    const struct hd_kb__fact *x = a, *y = b;
    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

/* Sorts and drops repeats; the heaviest of equals stays. */
static void distinct(struct hd_kb__evidence *e)
{
    if (!e->n)
        return;
    qsort(e->facts, e->n, sizeof *e->facts, by_hash);
    size_t k = 0;
    for (size_t i = 1; i < e->n; i++) {
        if (e->facts[i].hash != e->facts[k].hash)
            e->facts[++k] = e->facts[i];
        else if (e->facts[i].weight > e->facts[k].weight)
            e->facts[k].weight = e->facts[i].weight;
    }
    e->n = k + 1;
}

static struct hd_kb__fact fact_of(const struct hd_kb__terms *terms, size_t i)
{
    const struct hd_kb__term *term = &terms->items[i];
    bool exact = term->kind == HD_KB__TERM_NUMBER || term->kind == HD_KB__TERM_CODE;
    float weight = term->part                       ? 0
                   : exact                          ? number_weight
                   : term->straddles                ? 0.1f
                   : term->kind == HD_KB__TERM_PAIR ? 0.8f
                                                    : 1;
    return (struct hd_kb__fact){hd_hash64(hd_kb__term_text(terms, i), term->len, 0), weight,
                                exact && !term->part};
}

static enum hd_err find_numbers(struct hd_kb__evidence *out, struct hd_kb__judge *judge,
                                const char *text, size_t len, bool strict)
{
    hd_buf_clear(&judge->folded);
    enum hd_err err = hd_kb__fold(&judge->folded, text, len);
    if (!err)
        err = hd_kb__numbers_find(&out->numbers, hd_buf_str(&judge->folded), judge->folded.len,
                                  strict);
    return err;
}

enum hd_err hd_kb__evidence_of(struct hd_kb__evidence *out, struct hd_kb__judge *judge,
                               const char *text, size_t len, bool strict)
{
    memset(out, 0, sizeof *out);
    enum hd_err err = hd_kb__analyse(judge->analyser, &judge->terms, text, len, 0);
    if (!err) {
        out->facts = malloc((judge->terms.n + 1) * sizeof *out->facts);
        err = out->facts ? HD_OK : HD_ERR_NOMEM;
    }
    for (size_t i = 0; i < judge->terms.n && !err; i++) {
        struct hd_kb__fact fact = fact_of(&judge->terms, i);
        if (judge->terms.items[i].kind == HD_KB__TERM_NUMBER)
            fact.weight = 0; /* counted by value */
        out->facts[out->n++] = fact;
    }
    out->number_weight = number_weight;
    if (!err) {
        distinct(out);
        err = find_numbers(out, judge, text, len, strict);
    }
    if (err)
        hd_kb__evidence_dispose(out);
    return err;
}

enum hd_err hd_kb__evidence_of_query(struct hd_kb__evidence *out, struct hd_kb__judge *judge,
                                     const char *question, const struct hd_kb__query *query)
{
    memset(out, 0, sizeof *out);
    out->facts = malloc((query->n + 1) * sizeof *out->facts);
    enum hd_err err = out->facts ? HD_OK : HD_ERR_NOMEM;
    for (size_t i = 0; i < query->n && !err; i++) {
        const struct hd_kb__query_term *item = &query->items[i];
        if (item->term == UINT32_MAX) /* from the turn before */
            continue;
        struct hd_kb__fact fact = fact_of(&query->terms, item->term);
        fact.weight *= (float)item->idf;
        out->facts[out->n++] = fact;
    }
    if (!err) {
        distinct(out);
        err = find_numbers(out, judge, question, strlen(question), true);
    }
    if (err)
        hd_kb__evidence_dispose(out);
    return err;
}

bool hd_kb__evidence_has(const struct hd_kb__evidence *evidence, uint64_t hash)
{
    size_t lo = 0, hi = evidence->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (evidence->facts[mid].hash < hash)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < evidence->n && evidence->facts[lo].hash == hash;
}

double hd_kb__cover(const struct hd_kb__evidence *what, const struct hd_kb__evidence *by,
                    const struct hd_kb__evidence *except, double *total)
{
    double sum = 0, held = 0;
    for (size_t i = 0; i < what->n; i++) {
        const struct hd_kb__fact *fact = &what->facts[i];
        if (except && hd_kb__evidence_has(except, fact->hash))
            continue;
        sum += fact->weight;
        if (hd_kb__evidence_has(by, fact->hash))
            held += fact->weight;
    }
    for (size_t i = 0; i < what->numbers.n && what->number_weight > 0; i++) {
        double value = what->numbers.items[i];
        if (except && hd_kb__numbers_has(&except->numbers, value))
            continue;
        sum += what->number_weight;
        if (hd_kb__numbers_has(&by->numbers, value))
            held += what->number_weight;
    }
    if (total)
        *total = sum;
    return sum > 0 ? held / sum : 0;
}

bool hd_kb__numbers_agree(const struct hd_kb__evidence *what, const struct hd_kb__evidence *by,
                          const struct hd_kb__evidence *also)
{
    for (size_t i = 0; i < what->numbers.n; i++) {
        double value = what->numbers.items[i];
        if (!hd_kb__numbers_has(&by->numbers, value) &&
            !(also && hd_kb__numbers_has(&also->numbers, value)))
            return false;
    }
    return true;
}

bool hd_kb__is_chinese(const char *text)
{
    size_t han = 0, words = 0, len = strlen(text);
    bool in_word = false;
    for (size_t i = 0; i < len;) {
        unsigned c;
        size_t k = hd_utf8_decode(&c, text + i, len - i, NULL);
        i += k ? k : 1;
        bool letter = k && hd_kb__is_word(c) && !(c >= '0' && c <= '9');
        han += k && hd_kb__is_han(c);
        words += letter && !in_word;
        in_word = letter;
    }
    return han >= 2 && han >= words;
}

bool hd_kb__is_traditional(const char *text)
{
    size_t len = strlen(text), n, han = 0, changed = 0;
    for (size_t i = 0; i < len; i += n ? n : 1) {
        unsigned c, folded[HD_KB__FOLD_MAX];
        n = hd_utf8_decode(&c, text + i, len - i, NULL);
        if (!n || !hd_kb__is_han(c))
            continue;
        han++;
        changed += hd_kb__fold_char(folded, c) == 1 && folded[0] != c;
    }
    return changed >= 2 && changed * 10 >= han;
}
