/* The prompt for models that think (R1 and its distills): DeepSeek's own search form, one user
 * message, no system prompt, the question last. Other models read passage by passage (read.h). */
#ifndef HD_KB_PROMPT_H
#define HD_KB_PROMPT_H

#include "base/buf.h"
#include "kb/passages.h"

enum hd_err hd_kb__prompt_search_form(struct hd_buf *out, const struct hd_kb__passages *passages,
                                      const char *question);

/* What is said where the documents do not answer, and before quotes, in the question's language. */
const char *hd_kb__say_not_found(const char *question);
const char *hd_kb__say_quoted(const char *question);

#endif
