/* See quote.h. */
#include <math.h>
#include <string.h>

#include "kb/lines.h"
#include "kb/quote.h"

/* A sentence counts by the share of the question it holds, by its neighbours' and its passage's
 * share, by what kind of thing is asked for, and by its passage's rank. */
static const double w_line = 1.0, w_near = 0.25, w_passage = 0.35, w_kind = 0.15, w_rank = 0.03;
/* A further sentence must come this near to the best and hold as much of the question. */
static const double further = 0.93;

static bool holds(const char *text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcasestr(text, words[i]))
            return true;
    return false;
}

/* Whether the question asks for a quantity, a date or another number. */
static bool asks_number(const char *question)
{
    static const char *const cues[] = {
        "多少",    "几",       "多大",     "多长",      "多久",      "多高",      "多远",
        "何时",    "什么时候", "哪年",     "哪天",      "日期",      "电话",      "号码",
        "金额",    "how many", "how much", "when",      "how long",  "how often", "how old",
        "how far", "how high", "how soon", "what year", "what date", "what time", "number",
        "percent", "price",    "deadline"};
    return holds(question, cues, sizeof cues / sizeof *cues);
}

static bool says_new_number(const struct hd_kb__evidence *said,
                            const struct hd_kb__evidence *question)
{
    for (size_t i = 0; i < said->numbers.n; i++)
        if (!hd_kb__numbers_has(&question->numbers, said->numbers.items[i]))
            return true;
    return false;
}

/* A line alone between blank ones, without a full stop or a colon, is a heading more often than
 * not: it repeats the question's words but says nothing. */
static bool is_heading(const struct hd_kb__passage *p, size_t j)
{
    const char *s = p->hit.text + p->lines[j].begin, *after = p->hit.text + p->lines[j].end;
    size_t n = p->lines[j].end - p->lines[j].begin;
    return !strncmp(after, "\n\n", 2) && !memchr(s, ':', n) && !memmem(s, n, "：", 3) &&
           !hd_kb__ends_sentence(s, n);
}

static double line_score(const struct hd_kb__passage *p, size_t j, size_t rank, bool number,
                         const struct hd_kb__evidence *question)
{
    double near = j > 0 ? p->lines[j - 1].asked : 0;
    if (j + 1 < p->n_line && p->lines[j + 1].asked > near)
        near = p->lines[j + 1].asked;
    bool kind = number && says_new_number(&p->lines[j].said, question);
    double length = (double)(p->lines[j].end - p->lines[j].begin);
    double fullness = (length < 30 ? length / 30 : 1) * (is_heading(p, j) ? 0.5 : 1);
    return fullness * (w_line * p->lines[j].asked + w_near * near + w_passage * p->asked +
                       (kind ? w_kind : 0)) -
           w_rank * (double)rank;
}

static void insert(struct hd_kb__quotes *out, size_t passage, size_t line, double score)
{
    size_t at = out->n;
    while (at > 0 && out->items[at - 1].score < score)
        at--;
    if (at >= HD_KB__QUOTES_MAX)
        return;
    if (out->n < HD_KB__QUOTES_MAX)
        out->n++;
    memmove(&out->items[at + 1], &out->items[at], (out->n - at - 1) * sizeof out->items[0]);
    out->items[at].passage = passage;
    out->items[at].line = line;
    out->items[at].score = score;
}

void hd_kb__quote(struct hd_kb__quotes *out, const char *question_text,
                  const struct hd_kb__passages *passages, const struct hd_kb__evidence *question)
{
    memset(out, 0, sizeof *out);
    bool number = asks_number(question_text);
    for (size_t i = 0; i < passages->n; i++)
        for (size_t j = 0; j < passages->items[i].n_line; j++)
            insert(out, i, j, line_score(&passages->items[i], j, i, number, question));
    if (!out->n || out->items[0].score <= 0) {
        out->n = 0;
        return;
    }
    size_t keep = 1;
    while (keep < out->n && out->items[keep].score >= further * out->items[0].score)
        keep++;
    out->n = keep;
    const struct hd_kb__passage *best = &passages->items[out->items[0].passage];
    double line = best->lines[out->items[0].line].asked;
    out->confidence = 1 / (1 + exp(-(5.0 * best->asked + 2.5 * line - 3.0)));
}
