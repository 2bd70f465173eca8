/* Folding of single code points, and the character classes the analyser works with. */
#ifndef HD_KB_FOLD_H
#define HD_KB_FOLD_H

#include <stdbool.h>
#include <stddef.h>

enum { HD_KB__FOLD_MAX = 18 }; /* most code points that one folds to (U+FDFA) */

/* Writes the folded form of c and returns how many code points it has (0: c vanishes). */
size_t hd_kb__fold_char(unsigned out[HD_KB__FOLD_MAX], unsigned c);

#endif
