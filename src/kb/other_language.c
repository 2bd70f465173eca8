/* See other_language.h. */
#include "kb/other_language.h"

#include <stdlib.h>
#include <string.h>

#include "kb/translate.h"

/* The question's own language does not answer, so that an answer exists at all is less likely: it
 * must be more probable than not. Of eight read so from the sample handbook, four were right, of
 * 0.63 and more, and four wrong, of 0.41 to 0.59. */
static const double probable = 0.5;

enum step { WAITING, TRANSLATING, READING, OVER };

struct hd_kb__other {
    enum step step;
    char *folder; /* owned: the base's */
    const struct hd_principal *who;
    const char *question, *model;
    struct hd_engine *engine;
    struct hd_sampling sampling;
    int n_max;
    double timeout_s;
    size_t n_passage;
    struct hd_kb__translator translator;
    struct hd_kb__reader *reader;
    struct hd_kb__passages passages;
    struct hd_result spent; /* on the translation */
};

enum hd_err hd_kb__other_new(struct hd_kb__other **out, const struct hd_kb *kb,
                             const struct hd_principal *who,
                             const struct hd_kb_ask_options *options, const char *question,
                             const char *model, size_t n_passage)
{
    struct hd_kb__other *other = calloc(1, sizeof *other);
    *out = other;
    if (!other || !(other->folder = strdup(kb->folder)))
        return HD_ERR_NOMEM;
    other->who = who;
    other->question = question;
    other->model = model;
    other->engine = options->engine;
    other->sampling = options->sampling;
    other->n_max = options->n_max;
    other->timeout_s = options->timeout_s;
    other->n_passage = n_passage;
    return HD_OK;
}

void hd_kb__other_free(struct hd_kb__other *other)
{
    if (!other)
        return;
    hd_kb__translator_dispose(&other->translator);
    hd_kb__reader_free(other->reader);
    hd_kb__passages_dispose(&other->passages);
    free(other->folder);
    free(other);
}

const struct hd_request *hd_kb__other_begin(struct hd_kb__other *other)
{
    enum hd_err err = hd_kb__translator_init(&other->translator, other->question, other->model,
                                             other->who, other->timeout_s);
    other->step = err ? OVER : TRANSLATING;
    return hd_kb__other_request(other);
}

const struct hd_request *hd_kb__other_request(const struct hd_kb__other *other)
{
    if (other->step == TRANSLATING)
        return &other->translator.request;
    return other->step == READING ? hd_kb__reader_request(other->reader) : NULL;
}

void hd_kb__other_feed(struct hd_kb__other *other, const char *text, size_t len)
{
    if (other->step == TRANSLATING)
        hd_kb__translator_feed(&other->translator, text, len);
    else if (other->step == READING)
        hd_kb__reader_feed(other->reader, text, len);
}

/* Passages of the question's own language have been read. */
static void keep_other_language(struct hd_kb_hits *hits, bool chinese_question)
{
    size_t n = 0;
    for (size_t i = 0; i < hits->n; i++)
        if (hd_kb__is_chinese(hits->items[i].text) != chinese_question) {
            struct hd_kb_hit hit = hits->items[i];
            hits->items[i] = hits->items[n];
            hits->items[n++] = hit;
        }
    if (n == hits->n)
        return;
    struct hd_kb_hits rest = {.items = malloc((hits->n - n) * sizeof *rest.items)};
    if (rest.items) {
        rest.n = hits->n - n;
        memcpy(rest.items, hits->items + n, rest.n * sizeof *rest.items);
        hits->n = n;
        hd_kb_hits_dispose(&rest);
    }
}

static size_t count_tokens(void *ud, const struct hd_kb_hit *hit)
{
    (void)ud;
    return hd_kb__estimate_tokens(hit->text, strlen(hit->text));
}

static enum hd_err read_hits(struct hd_kb__other *other, struct hd_kb_hits *hits,
                             const struct hd_kb__evidence *asked, struct hd_kb__judge *judge)
{
    struct hd_kb__reader_options o = {.engine = other->engine,
                                      .model = other->model,
                                      .principal = other->who,
                                      .question = other->question,
                                      .hits = hits,
                                      .sampling = other->sampling,
                                      .n_max = other->n_max,
                                      .timeout_s = other->timeout_s};
    o.n_passage = hd_kb__window(hits, other->n_passage, HD_KB__PROMPT_TOKENS, count_tokens, NULL);
    if (!o.n_passage)
        return HD_ERR_NOTFOUND;
    enum hd_err err = hd_kb__reader_new(&other->reader, &o, NULL);
    if (!err)
        err = hd_kb__passages_take(&other->passages, hits, o.n_passage, judge, asked);
    return err;
}

/* Searches with the translation and begins to read. */
static enum hd_err search_again(struct hd_kb__other *other, const char *translation,
                                struct hd_kb__judge *judge)
{
    struct hd_kb *kb = NULL;
    struct hd_kb_hits hits = {0};
    struct hd_kb__query query = {0};
    struct hd_kb__evidence asked = {0};
    struct hd_kb__query_text text = {translation, 1};
    struct hd_kb_search_options options = {.top = HD_KB__CANDIDATES, .passages = true};
    enum hd_err err = hd_kb__open_folder(&kb, other->folder, other->who, NULL);
    if (err)
        return err;
    err = hd_kb__search(kb, other->who, &text, 1, &options, &hits, &query, NULL);
    if (!err) {
        keep_other_language(&hits, hd_kb__is_chinese(other->question));
        err = hd_kb__evidence_of_query(&asked, judge, translation, &query);
    }
    if (!err)
        err = read_hits(other, &hits, &asked, judge);
    hd_kb__evidence_dispose(&asked);
    hd_kb__query_dispose(&query);
    hd_kb_hits_dispose(&hits);
    hd_kb_close(kb);
    return err;
}

const struct hd_request *hd_kb__other_next(struct hd_kb__other *other,
                                           const struct hd_result *result,
                                           struct hd_kb__judge *judge)
{
    if (other->step == TRANSLATING) {
        hd_kb__add_up(&other->spent, result);
        const char *translation = hd_kb__translator_text(&other->translator);
        bool fine = result->finish == HD_FINISH_STOP && *translation;
        other->step = fine && !search_again(other, translation, judge) ? READING : OVER;
    } else if (other->step == READING && !hd_kb__reader_next(other->reader, result)) {
        other->step = OVER;
    }
    return hd_kb__other_request(other);
}

void hd_kb__other_result(struct hd_kb__other *other, struct hd_kb__reading *reading,
                         struct hd_kb__passages **passages)
{
    *reading = (struct hd_kb__reading){.answer = ""};
    *passages = &other->passages;
    if (other->reader)
        hd_kb__reader_result(other->reader, reading);
    reading->found = reading->found && reading->probability >= probable;
    struct hd_result total = other->spent;
    hd_kb__add_up(&total, &reading->total);
    reading->total = total;
}
