/* The passage sentence that best carries an answer's sentence. */
#ifndef HD_KB_ATTRIBUTE_H
#define HD_KB_ATTRIBUTE_H

#include "kb/verify.h"

/* Fills passage, line, n_line, cover, asked, score, numbers. `own` is what the sentence says beyond
 * the question (falls back to all it says). marks weigh in favour of the passages they name. */
void hd_kb__attribute(struct hd_kb__support *out, const struct hd_kb__evidence *said,
                      const int *marks, size_t n_mark, const struct hd_kb__passages *passages,
                      const struct hd_kb__evidence *question);

#endif
