/* What a reading model is told, per language and script of the question. */
#ifndef HD_KB_READ_WORDING_H
#define HD_KB_READ_WORDING_H

#include <stdbool.h>

enum { HD_KB__N_DEMO = 4 };

/* A reading shown before the real one. Without these a small model says yes to whatever is about
 * the same things; they also show what an answer looks like. Always the same, so cached. */
struct hd_kb__demo {
    const char *passage, *question, *answer; /* answer NULL: the passage holds none */
};
struct hd_kb__wording {
    bool is_chinese;
    const char *passage, *before, *question; /* what stands before each */
    const char *check;                       /* asks whether the answer is there */
    const char *answer;                      /* asks for it */
    const char *yes[2], *no[2];              /* replies to check; NULL = no second way */
    double yes_scale, yes_shift;             /* make its log-odds comparable with the others' */
    struct hd_kb__demo demos[HD_KB__N_DEMO];
};

/* Never NULL. A question in traditional characters is answered in them. */
const struct hd_kb__wording *hd_kb__reading_wording(const char *question);

#endif
