/* See names.h. */
#include "kb/names.h"

#include <string.h>
#include <unicode/uchar.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "kb/analyse.h"
#include "kb/evidence.h"
#include "kb/words.h"

/* Of a question as long as a request may be, the first names decide. */
enum { MAX_PLACE = 4 << 20, MAX_QUOTED = 24 /* code points */, MAX_NAMES = 64 };

/* A word of the question as it is written. */
struct word {
    size_t begin, len;
    int n_char, n_digit, n_capital;
    bool capitalised;
};

/* The code point at text[*at], which moves on; U+FFFD, one byte long, for what is not UTF-8. */
static unsigned take(const char *text, size_t *at)
{
    unsigned c = HD_UTF8_REPLACEMENT;
    size_t n = hd_utf8_decode(&c, text + *at, strnlen(text + *at, 4), NULL);
    *at += n ? n : 1;
    return n ? c : HD_UTF8_REPLACEMENT;
}

static bool in_word(unsigned c)
{
    return u_isalnum((UChar32)c) && !hd_kb__is_han(c);
}

/* The word at *at, in which a hyphen may stand; *at moves behind it. */
static struct word take_word(const char *text, size_t *at)
{
    struct word w = {.begin = *at};
    size_t next = *at;
    for (unsigned c = take(text, &next); in_word(c) || (c == '-' && w.len); c = take(text, &next)) {
        w.capitalised |= !w.n_char && u_isupper((UChar32)c);
        w.n_char += c != '-';
        w.n_digit += u_isdigit((UChar32)c) != 0;
        w.n_capital += u_isupper((UChar32)c) != 0;
        w.len = next - w.begin;
        if (!text[next])
            break;
    }
    *at = w.begin + w.len;
    while (w.len && text[w.begin + w.len - 1] == '-')
        w.len--;
    return w;
}

static bool is_common(const char *text, struct word w)
{
    char folded[32];
    if (w.len >= sizeof folded)
        return false;
    for (size_t i = 0; i < w.len; i++)
        folded[i] =
            (char)(text[w.begin + i] | ('A' <= text[w.begin + i] && text[w.begin + i] <= 'Z') << 5);
    folded[w.len] = '\0';
    return hd_kb__is_stop_word(folded) || hd_kb__is_question_word(folded);
}

/* first: of its sentence, where grammar alone may have capitalised it. */
static bool is_name(const char *text, struct word w, bool first, bool chinese)
{
    if (w.n_digit || (w.n_char > 1 && w.n_capital == w.n_char))
        return true;
    return w.n_char > 1 && w.n_capital &&
           (chinese || (w.capitalised && !first && !is_common(text, w)));
}

/* place is folded. English plurals also match their singular. */
static bool stands(const struct hd_buf *place, const char *name, size_t len)
{
    struct hd_buf folded;
    hd_buf_init(&folded, MAX_PLACE);
    bool found = hd_kb__fold(&folded, name, len) != HD_OK || !folded.len;
    if (!found) {
        found = strstr(hd_buf_str(place), hd_buf_str(&folded)) != NULL;
        if (!found && folded.len > 3 && folded.data[folded.len - 1] == 's') {
            folded.data[folded.len - 1] = '\0';
            found = strstr(hd_buf_str(place), folded.data) != NULL;
        }
    }
    hd_buf_dispose(&folded);
    return found;
}

/* The mark that closes what an opening mark of a title or quotation begins; 0: c is none. */
static unsigned closing(unsigned c)
{
    static const unsigned pairs[][2] = {
        {0x300C, 0x300D}, {0x300E, 0x300F}, {0x300A, 0x300B}, {0x3008, 0x3009}, {0x201C, 0x201D}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (pairs[i][0] == c)
            return pairs[i][1];
    return 0;
}

/* Bytes before the closing mark; 0 where what is quoted is long, or no ideograph is in it. */
static size_t quoted(const char *text, size_t at, unsigned close)
{
    bool han = false;
    size_t begin = at, end = at;
    for (int n = 0; text[at] && n <= MAX_QUOTED; n++) {
        unsigned c = take(text, &at);
        if (c == close)
            return han ? end - begin : 0;
        han |= hd_kb__is_han(c);
        end = at;
    }
    return 0;
}

static bool all_stand(const struct hd_buf *place, const char *text, bool chinese)
{
    bool first = true;
    int n_name = 0;
    for (size_t at = 0; text[at] && n_name < MAX_NAMES;) {
        size_t next = at, n = 0;
        unsigned c = take(text, &next), close = closing(c);
        if (close && (n = quoted(text, next, close)) && !stands(place, text + next, n))
            return false;
        n_name += n > 0;
        if (!in_word(c)) {
            first |= c == '.' || c == '?' || c == '!' || c == ':';
            at = next;
            continue;
        }
        struct word w = take_word(text, &at);
        bool name = is_name(text, w, first, chinese);
        if (name && !stands(place, text + w.begin, w.len))
            return false;
        n_name += name;
        first = false;
    }
    return true;
}

/* Appends what a passage and its headings say, folded. */
static enum hd_err add(struct hd_buf *place, const struct hd_kb_hit *hit)
{
    const char *parts[] = {hit->text, hit->heading, hit->document.name};
    enum hd_err err = HD_OK;
    for (size_t i = 0; !err && i < 3; i++)
        if (parts[i]) {
            err = hd_kb__fold(place, parts[i], strlen(parts[i]));
            if (!err)
                err = hd_buf_puts(place, "\n");
        }
    return err;
}

bool hd_kb__names_stand(const char *question, const struct hd_kb_hit *hits, size_t n,
                        size_t passage)
{
    bool chinese = hd_kb__is_chinese(question);
    struct hd_buf place;
    if (hd_kb__is_chinese(hits[passage].text) != chinese)
        return true;
    hd_buf_init(&place, MAX_PLACE);
    if (all_stand(&place, question, chinese)) /* nowhere: there are none */
        return true;
    enum hd_err err = add(&place, &hits[passage]);
    for (size_t i = 0; !err && i < n; i++)
        if (i != passage && hits[i].document.id == hits[passage].document.id)
            err = add(&place, &hits[i]);
    bool stand = err || all_stand(&place, question, chinese);
    hd_buf_dispose(&place);
    return stand;
}
