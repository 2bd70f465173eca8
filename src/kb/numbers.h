/* Numbers in text, whatever way they are written: 1,000 · 1.5万 · 百分之五 · eleven per cent ·
 * 二〇一六年 · February. Used to check that the numbers of an answer stand in the passage it cites.
 */
#ifndef HD_KB_NUMBERS_H
#define HD_KB_NUMBERS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct hd_kb__numbers {
    double *items; /* owned; a number with a magnitude ("1.5万") gives both 1.5 and 15000 */
    size_t n, cap;
};

/* Replaces what out held. text is folded (hd_kb__fold). strict: only what is surely meant as a
 * number: no 一, 两, "one", months. */
enum hd_err hd_kb__numbers_find(struct hd_kb__numbers *out, const char *text, size_t len,
                                bool strict);
void hd_kb__numbers_dispose(struct hd_kb__numbers *numbers);
bool hd_kb__numbers_has(const struct hd_kb__numbers *numbers, double value);

#endif
