/* See verify.h. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "kb/attribute.h"
#include "kb/verify.h"

/* Below this share of its own content a sentence is not supported by the line alone … */
static const double enough_line = 0.6;
/* … nor, below this, by the passage around the line. */
static const double enough_passage = 0.75;
/* … nor, below this, by either, where it was read from that passage alone. On 132 answers read so,
 * 0.6 and 0.75 refused 4 of 115 from the right passage, 0.3 refuses 2, and both refuse the same 3
 * of 17 from a wrong one. */
static const double enough_alone = 0.3;

/* --- refusals ----------------------------------------------------------------------------- */

static bool has(const char *text, const char *const *phrases, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strstr(text, phrases[i]))
            return true;
    return false;
}

bool hd_kb__is_refusal(const char *text, size_t len)
{
    static const char *const phrases[] = {"资料中未找到",
                                          "未找到",
                                          "没有找到",
                                          "未提及",
                                          "没有提到",
                                          "没有提及",
                                          "未提到",
                                          "没有说明",
                                          "未说明",
                                          "没有相关",
                                          "无相关",
                                          "无法回答",
                                          "无法确定",
                                          "无法得知",
                                          "不能确定",
                                          "没有给出",
                                          "未给出",
                                          "没有提供",
                                          "未提供",
                                          "资料里没有",
                                          "资料中没有",
                                          "资料没有",
                                          "not found",
                                          "no information",
                                          "not mention",
                                          "not contain",
                                          "not provide",
                                          "not specif",
                                          "not state",
                                          "cannot be answered",
                                          "can't be answered",
                                          "cannot answer",
                                          "unable to answer",
                                          "not available in the",
                                          "no answer",
                                          "not given",
                                          "isn't mentioned",
                                          "not in the passage",
                                          "not in the document",
                                          "does not say",
                                          "do not say",
                                          "don't mention",
                                          "doesn't mention",
                                          "not disclosed"};
    enum { SHORT = 240 }; /* a long answer that also says what is missing is still an answer */
    struct hd_buf folded;
    hd_buf_init(&folded, 1 << 20);
    bool refusal = len <= SHORT && !hd_kb__fold(&folded, text, len) &&
                   has(hd_buf_str(&folded), phrases, sizeof phrases / sizeof *phrases);
    hd_buf_dispose(&folded);
    return refusal;
}

/* --- names -------------------------------------------------------------------------------- */

/* Capitalised words within a sentence, and codes, are names: each must stand in the passage or in
 * the question. The first word of a sentence may be capitalised by grammar alone. */
static bool names_agree(struct hd_kb__judge *judge, const char *sentence, size_t len,
                        const struct hd_kb__evidence *passage,
                        const struct hd_kb__evidence *question)
{
    bool agree = true, first = true;
    for (size_t i = 0; i < len && agree;) {
        size_t n = 0;
        while (i + n < len && ((unsigned char)sentence[i + n] | 32) >= 'a' &&
               ((unsigned char)sentence[i + n] | 32) <= 'z')
            n++;
        bool capital = n > 1 && sentence[i] >= 'A' && sentence[i] <= 'Z';
        if (capital && !first) {
            struct hd_kb__evidence word;
            if (!hd_kb__evidence_of(&word, judge, sentence + i, n, true)) {
                for (size_t k = 0; k < word.n; k++)
                    agree &= word.facts[k].weight == 0 ||
                             hd_kb__evidence_has(passage, word.facts[k].hash) ||
                             hd_kb__evidence_has(question, word.facts[k].hash);
                hd_kb__evidence_dispose(&word);
            }
        }
        if (n)
            first = false;
        i += n ? n : 1;
    }
    return agree;
}

/* --- the verdict -------------------------------------------------------------------------- */

/* The words of a sentence cannot be looked up in a passage of another language, only its numbers
 * and names: they decide, if the sentence brings a number of its own. */
static bool numbers_decide(const char *sentence, const struct hd_kb__evidence *said,
                           const struct hd_kb__passage *p, const struct hd_kb__evidence *question)
{
    return hd_kb__is_chinese(sentence) != hd_kb__is_chinese(p->hit.text) &&
           !hd_kb__numbers_agree(said, question, NULL);
}

static bool supports(const struct hd_kb__support *s, const char *sentence,
                     const struct hd_kb__evidence *said, const struct hd_kb__passage *p,
                     const struct hd_kb__evidence *question, bool alone)
{
    if (!s->names || !hd_kb__numbers_agree(said, &p->said, question))
        return false;
    if (alone && numbers_decide(sentence, said, p, question))
        return true;
    if (s->cover >= (alone ? enough_alone : enough_line))
        return true;
    double own = 0, around = hd_kb__cover(said, &p->said, question, &own);
    return own > 0 && around >= (alone ? enough_alone : enough_passage);
}

enum hd_err hd_kb__verify(struct hd_kb__support *out, struct hd_kb__judge *judge,
                          const char *sentence, size_t len, const int *marks, size_t n_mark,
                          const struct hd_kb__passages *passages,
                          const struct hd_kb__evidence *question, bool alone)
{
    struct hd_kb__evidence said;
    enum hd_err err = hd_kb__evidence_of(&said, judge, sentence, len, true);
    if (err)
        return err;
    hd_kb__attribute(out, &said, marks, n_mark, passages, question);
    out->verdict = HD_KB_UNSUPPORTED;
    if (out->passage != SIZE_MAX) {
        const struct hd_kb__passage *p = &passages->items[out->passage];
        out->names = names_agree(judge, sentence, len, &p->said, question);
        if (supports(out, sentence, &said, p, question, alone)) {
            out->verdict = HD_KB_REATTACHED;
            for (size_t i = 0; i < n_mark; i++)
                if (marks[i] == (int)out->passage + 1)
                    out->verdict = HD_KB_SUPPORTED;
        }
    }
    hd_kb__evidence_dispose(&said);
    return HD_OK;
}

static bool says_yes_or_no(const char *text)
{
    static const char *const words[] = {"yes", "no", "是", "不", "能",
                                        "可",  "有", "没", "对", "会"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strncasecmp(text, words[i], strlen(words[i])))
            return true;
    return false;
}

static bool asks(const char *text)
{
    size_t len = strlen(text);
    return (len >= 1 && text[len - 1] == '?') || (len >= 3 && !strcmp(text + len - 3, "？"));
}

enum hd_err hd_kb__repeats(bool *out, struct hd_kb__judge *judge, const char *sentence,
                           const char *question)
{
    static const double nothing = 0.5; /* less than a pair of characters */
    struct hd_kb__evidence said, asked = {0};
    double own = 0;
    enum hd_err err = hd_kb__evidence_of(&said, judge, sentence, strlen(sentence), true);
    if (!err)
        err = hd_kb__evidence_of(&asked, judge, question, strlen(question), true);
    if (!err)
        hd_kb__cover(&said, &asked, &asked, &own);
    *out = !err && (asks(sentence) || (own < nothing && !says_yes_or_no(sentence)));
    hd_kb__evidence_dispose(&said);
    hd_kb__evidence_dispose(&asked);
    return err;
}
