/* The analyser: text to index terms, the same way for documents and for questions.
 *
 * Steps: compatibility folding (full-width, ligatures, case, Latin accents), traditional to
 * simplified characters, then per run of script
 *   Latin and other letters  lower-cased words, stop words out, English stems
 *   numbers and codes        whole ("3.5%", "qf-12a", "10000" for 10,000), joined ("qf12a") and
 *                            in parts ("qf", "12a")
 *   Chinese, kana, hangul    every pair of neighbours, plus dictionary words of three characters
 *                            and more (friso; two-character words are pairs already)
 * A text may mix all of them. Without friso's dictionary the words are left out; pairs alone still
 * find them. */
#ifndef HD_KB_ANALYSE_H
#define HD_KB_ANALYSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

enum hd_kb__term_kind {
    HD_KB__TERM_WORD,   /* letters */
    HD_KB__TERM_NUMBER, /* digits, with sign marks and separators */
    HD_KB__TERM_CODE,   /* letters and digits */
    HD_KB__TERM_PAIR,   /* two neighbours, or one character alone */
    HD_KB__TERM_LONG,   /* dictionary word of three characters or more */
};

struct hd_kb__term {
    uint32_t at;  /* offset of the term's text in terms.text */
    uint16_t len; /* bytes */
    uint8_t kind;
    bool part;       /* repeats what a longer term beside it holds */
    bool straddles;  /* a pair across the border of two dictionary words: it means little */
    uint32_t pos;    /* position in the text, counted in tokens */
    uint32_t source; /* code-point offset where it begins in the text given */
};

struct hd_kb__terms {
    struct hd_kb__term *items; /* owned */
    size_t n, cap;
    struct hd_buf text;
    uint32_t n_pos; /* length of the text in tokens, for length normalisation */
};

static inline const char *hd_kb__term_text(const struct hd_kb__terms *terms, size_t i)
{
    return terms->text.data + terms->items[i].at;
}

/* Not thread-safe: one per thread or per lock. Cheap; the dictionary and the folding table are
 * loaded once per process, on first use. */
struct hd_kb__analyser;
enum hd_err hd_kb__analyser_new(struct hd_kb__analyser **out);
void hd_kb__analyser_free(struct hd_kb__analyser *analyser);

enum {
    HD_KB__QUERY = 1, /* a question: its question words ("what", "多少") carry no content */
};
void hd_kb__terms_init(struct hd_kb__terms *terms);
void hd_kb__terms_dispose(struct hd_kb__terms *terms);
/* Replaces what terms held. text must be valid UTF-8. */
enum hd_err hd_kb__analyse(struct hd_kb__analyser *analyser, struct hd_kb__terms *terms,
                           const char *text, size_t len, unsigned flags);

/* Folds text for comparison: as above up to simplified characters, nothing removed but accents.
 * Appends UTF-8 to out. */
enum hd_err hd_kb__fold(struct hd_buf *out, const char *text, size_t len);

/* Character classes shared by the room; c is a folded or plain code point. */
bool hd_kb__is_han(unsigned c);  /* ideographs */
bool hd_kb__is_cjk(unsigned c);  /* written without spaces: ideographs, kana, hangul, Thai */
bool hd_kb__is_word(unsigned c); /* letter or digit of any other script */

#endif
