/* Answering without a language model: the sentences that best meet the question, verbatim. */
#ifndef HD_KB_QUOTE_H
#define HD_KB_QUOTE_H

#include "kb/passages.h"

enum { HD_KB__QUOTES_MAX = 3 };

struct hd_kb__quotes {
    struct {
        size_t passage, line;
        double score;
    } items[HD_KB__QUOTES_MAX]; /* best first */
    size_t n;
    double confidence; /* of the best, 0..1 */
};
/* n is 0 where no sentence comes near. */
void hd_kb__quote(struct hd_kb__quotes *out, const char *question_text,
                  const struct hd_kb__passages *passages, const struct hd_kb__evidence *question);

#endif
