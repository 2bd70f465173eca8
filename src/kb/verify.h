/* Is a sentence of an answer supported, and by what?
 *
 * Attribution looks for the passage sentence that best carries what the answer's sentence says;
 * verification decides whether it carries enough: all its numbers, its names and codes, and most
 * of its content words that the question did not already hold. */
#ifndef HD_KB_VERIFY_H
#define HD_KB_VERIFY_H

#include "kb/kb.h"
#include "kb/passages.h"

struct hd_kb__support {
    size_t passage, line; /* indexes; SIZE_MAX where there is nothing near */
    size_t n_line;        /* the quote is lines [line, line + n_line) */
    double cover;         /* share of the sentence's own content that the quote holds */
    double asked;         /* share of the question that the quote with its passage holds */
    double score;         /* what attribution maximised */
    bool numbers, names;  /* all of them stand in the passage */
    enum hd_kb_verdict verdict;
};

/* marks: passages that the model named, from 1. alone: the model saw one passage and nothing else,
 * and found the answer there; its own words may then differ more, and of a passage in another
 * language its numbers and names decide (sentence then ends with a NUL). */
enum hd_err hd_kb__verify(struct hd_kb__support *out, struct hd_kb__judge *judge,
                          const char *sentence, size_t len, const int *marks, size_t n_mark,
                          const struct hd_kb__passages *passages,
                          const struct hd_kb__evidence *question, bool alone);

/* Whether a sentence says nothing beyond the question that it answers, not even yes or no. */
enum hd_err hd_kb__repeats(bool *out, struct hd_kb__judge *judge, const char *sentence,
                           const char *question);

/* Whether a text says, in either language, that the documents do not answer ("资料中未找到", "not
 * found", "the passages do not mention …"), and little else. */
bool hd_kb__is_refusal(const char *text, size_t len);

#endif
