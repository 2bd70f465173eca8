/* Word lists of the two languages: words without content, and words that only ask. */
#ifndef HD_KB_WORDS_H
#define HD_KB_WORDS_H

#include <stdbool.h>

/* word: folded, NUL-terminated. */
bool hd_kb__is_stop_word(const char *word);
bool hd_kb__is_question_word(const char *word);

/* Neighbouring ideographs, simplified. */
bool hd_kb__is_function_char(unsigned c);
bool hd_kb__is_function_pair(unsigned a, unsigned b);
bool hd_kb__is_question_pair(unsigned a, unsigned b);

#endif
