/* The passages that an answer may rest on, cut into sentences, with what each of them says. */
#ifndef HD_KB_PASSAGES_H
#define HD_KB_PASSAGES_H

#include "kb/chunk.h"
#include "kb/evidence.h"

/* Passages fetched before the window is cut, and tokens of passages in one prompt at most. */
enum { HD_KB__CANDIDATES = 24, HD_KB__PROMPT_TOKENS = 2400 };

struct hd_kb__line {             /* a sentence of a passage */
    size_t begin, end;           /* bytes of hit.text */
    int64_t cp_begin, cp_end;    /* code points of hit.text */
    struct hd_kb__evidence said; /* by the sentence alone */
    double asked;                /* share of the question's weight that it holds */
};
struct hd_kb__passage {
    struct hd_kb_hit hit; /* owned */
    struct hd_kb__line *lines;
    size_t n_line;
    struct hd_kb__evidence said; /* by the whole passage with its heading path */
    double asked;
};
struct hd_kb__passages {
    struct hd_kb__passage *items;
    size_t n;
};

/* Takes hits[0, n) over (their strings move; hits keeps the rest). */
enum hd_err hd_kb__passages_take(struct hd_kb__passages *out, struct hd_kb_hits *hits, size_t n,
                                 struct hd_kb__judge *judge,
                                 const struct hd_kb__evidence *question);
void hd_kb__passages_dispose(struct hd_kb__passages *passages);

/* How many of the hits, best first, are worth reading: at most `most`, within the token budget, cut
 * where the score falls far below the best. At least one where there is any. count(ud, hit) gives
 * a passage's tokens. */
size_t hd_kb__window(const struct hd_kb_hits *hits, size_t most, size_t budget,
                     size_t (*count)(void *ud, const struct hd_kb_hit *hit), void *ud);

#endif
