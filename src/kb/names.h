/* The names of a question: who asks in other words still names what he asks about. */
#ifndef HD_KB_NAMES_H
#define HD_KB_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "kb/kb.h"

/* Whether every name of the question stands in hits[passage], its headings or its document's name,
 * or in another of the hits from the same document: names that the document is about need not stand
 * in each passage. A name is a word with a digit, in capitals, or capitalised within a sentence,
 * and, of a Chinese text, what stands in quotation marks or book title marks. Also true where the
 * passage is in the other language, in which names are written differently, and where memory is
 * short. */
bool hd_kb__names_stand(const char *question, const struct hd_kb_hit *hits, size_t n,
                        size_t passage);

#endif
