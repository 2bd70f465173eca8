/* See passages.h. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "kb/passages.h"

static enum hd_err cut_lines(struct hd_kb__passage *p, struct hd_kb__judge *judge,
                             const struct hd_kb__evidence *question)
{
    struct hd_kb__sentence *sentences = NULL;
    size_t n = 0;
    const char *text = p->hit.text;
    enum hd_err err = hd_kb__sentences(&sentences, &n, text, strlen(text));
    if (!err) {
        p->lines = calloc(n + 1, sizeof *p->lines);
        err = p->lines ? HD_OK : HD_ERR_NOMEM;
    }
    size_t at = 0;
    int64_t cp = 0;
    for (size_t i = 0; i < n && !err; i++) {
        struct hd_kb__line *line = &p->lines[p->n_line];
        line->begin = sentences[i].begin;
        line->end = sentences[i].end;
        line->cp_begin = cp + (int64_t)hd_utf8_count(text + at, line->begin - at);
        line->cp_end =
            line->cp_begin + (int64_t)hd_utf8_count(text + line->begin, line->end - line->begin);
        at = line->end;
        cp = line->cp_end;
        err = hd_kb__evidence_of(&line->said, judge, text + line->begin, line->end - line->begin,
                                 false);
        line->asked = hd_kb__cover(question, &line->said, NULL, NULL);
        p->n_line++;
    }
    free(sentences);
    return err;
}

static enum hd_err judge_whole(struct hd_kb__passage *p, struct hd_kb__judge *judge,
                               const struct hd_kb__evidence *question)
{
    struct hd_buf all;
    hd_buf_init(&all, (size_t)1 << 26);
    hd_buf_printf(&all, "%s\n%s\n", p->hit.document.name, p->hit.heading);
    hd_buf_puts(&all, p->hit.text);
    enum hd_err err = all.err;
    if (!err)
        err = hd_kb__evidence_of(&p->said, judge, all.data, all.len, false);
    p->asked = hd_kb__cover(question, &p->said, NULL, NULL);
    hd_buf_dispose(&all);
    return err;
}

enum hd_err hd_kb__passages_take(struct hd_kb__passages *out, struct hd_kb_hits *hits, size_t n,
                                 struct hd_kb__judge *judge, const struct hd_kb__evidence *question)
{
    memset(out, 0, sizeof *out);
    out->items = calloc(n + 1, sizeof *out->items);
    enum hd_err err = out->items ? HD_OK : HD_ERR_NOMEM;
    for (size_t i = 0; i < n && !err; i++) {
        struct hd_kb__passage *p = &out->items[out->n++];
        p->hit = hits->items[i];
        memset(&hits->items[i], 0, sizeof hits->items[i]);
        err = cut_lines(p, judge, question);
        if (!err)
            err = judge_whole(p, judge, question);
    }
    if (err)
        hd_kb__passages_dispose(out);
    return err;
}

void hd_kb__passages_dispose(struct hd_kb__passages *passages)
{
    for (size_t i = 0; i < passages->n; i++) {
        struct hd_kb__passage *p = &passages->items[i];
        for (size_t j = 0; j < p->n_line; j++)
            hd_kb__evidence_dispose(&p->lines[j].said);
        free(p->lines);
        hd_kb__evidence_dispose(&p->said);
        free(p->hit.document.name);
        free(p->hit.document.revision);
        free(p->hit.heading);
        free(p->hit.text);
    }
    free(passages->items);
    memset(passages, 0, sizeof *passages);
}

size_t hd_kb__window(const struct hd_kb_hits *hits, size_t most, size_t budget,
                     size_t (*count)(void *ud, const struct hd_kb_hit *hit), void *ud)
{
    /* Measured on the sample handbook and four reading sets: of the right passages among the first
     * five, at most 0.2 % score below this share of the best, and leaving the rest out brings five
     * passages down to between 1.6 and 3.7. At 0.5 up to 0.7 % are lost. */
    static const double far_below = 0.4;
    size_t n = 0, used = 0;
    for (; n < hits->n && n < most; n++) {
        size_t tokens = count(ud, &hits->items[n]);
        if (n > 0 &&
            (used + tokens > budget || hits->items[n].score < far_below * hits->items[0].score))
            break;
        used += tokens;
    }
    return n;
}
