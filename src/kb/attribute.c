/* See attribute.h. */
#include <stdint.h>
#include <string.h>

#include "kb/attribute.h"

/* Weights of the attribution's score. What the sentence says counts most; the question tells apart
 * the passages that hold the same words ("50" stands in many); a mark of the model breaks ties. */
static const double w_cover = 1.0, w_numbers = 0.5, w_asked = 0.7, w_passage = 0.4, w_mark = 0.15,
                    w_rank = 0.03;

static bool marked(const int *marks, size_t n_mark, size_t passage)
{
    for (size_t i = 0; i < n_mark; i++)
        if (marks[i] == (int)passage + 1)
            return true;
    return false;
}

/* The share of the sentence's own content that a line holds. Where the sentence says nothing beyond
 * the question ("Yes."; a repetition), all it says counts. */
static double cover_own(const struct hd_kb__evidence *said, const struct hd_kb__evidence *by,
                        const struct hd_kb__evidence *question)
{
    double own = 0;
    double cover = hd_kb__cover(said, by, question, &own);
    return own > 0 ? cover : hd_kb__cover(said, by, NULL, NULL);
}

void hd_kb__attribute(struct hd_kb__support *out, const struct hd_kb__evidence *said,
                      const int *marks, size_t n_mark, const struct hd_kb__passages *passages,
                      const struct hd_kb__evidence *question)
{
    memset(out, 0, sizeof *out);
    out->passage = out->line = SIZE_MAX;
    for (size_t i = 0; i < passages->n; i++) {
        const struct hd_kb__passage *p = &passages->items[i];
        for (size_t j = 0; j < p->n_line; j++) {
            const struct hd_kb__line *line = &p->lines[j];
            double cover = cover_own(said, &line->said, question);
            bool numbers = hd_kb__numbers_agree(said, &line->said, NULL);
            double score = w_cover * cover + (numbers ? w_numbers : 0) + w_asked * line->asked +
                           w_passage * p->asked + (marked(marks, n_mark, i) ? w_mark : 0) -
                           w_rank * (double)i;
            if (out->passage != SIZE_MAX && score <= out->score)
                continue;
            *out = (struct hd_kb__support){.passage = i,
                                           .line = j,
                                           .n_line = 1,
                                           .cover = cover,
                                           .asked = line->asked,
                                           .score = score,
                                           .numbers = numbers};
        }
    }
}
