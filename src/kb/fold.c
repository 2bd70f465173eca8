/* Folding: NFKC with case folding (ICU), Latin accents off, traditional to simplified.
 *
 * One code point at a time, so that offsets stay known. The traditional-to-simplified step is ICU's
 * transliterator, read once into a table of the two blocks that matter, because running it over
 * every text would cost more than all the rest of the analysis. */
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/utf16.h>
#include <unicode/utrans.h>

#include "base/utf8.h"
#include "kb/analyse.h"
#include "kb/fold.h"

enum { HAN_FIRST = 0x3400, HAN_END = 0xA000 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint16_t simplified[HAN_END - HAN_FIRST]; /* 0 = itself */
static const UNormalizer2 *nfkc_cf, *nfd;

/* Transliterates a block of characters separated by line feeds and notes the one-to-one changes. */
static void read_block(UTransliterator *trans, unsigned from, unsigned to)
{
    enum { STEP = 512 };
    UChar text[STEP * 4];
    for (unsigned start = from; start < to; start += STEP) {
        int32_t n = 0;
        for (unsigned c = start; c < start + STEP && c < to; c++) {
            text[n++] = (UChar)c;
            text[n++] = '\n';
        }
        UErrorCode status = U_ZERO_ERROR;
        int32_t limit = n;
        utrans_transUChars(trans, text, &n, STEP * 4, 0, &limit, &status);
        if (U_FAILURE(status))
            return;
        unsigned c = start;
        for (int32_t i = 0; i < n && c < to; i++) {
            if (text[i] == '\n')
                c++;
            else if (text[i] != c && text[i + 1 < n ? i + 1 : i] == '\n' &&
                     (i == 0 || text[i - 1] == '\n') && !U16_IS_SURROGATE(text[i]))
                simplified[c - HAN_FIRST] = text[i];
        }
    }
}

static void load(void)
{
    UErrorCode status = U_ZERO_ERROR;
    nfkc_cf = unorm2_getNFKCCasefoldInstance(&status);
    nfd = unorm2_getNFDInstance(&status);
    if (U_FAILURE(status))
        nfkc_cf = nfd = NULL;
    static const UChar id[] = u"Traditional-Simplified";
    status = U_ZERO_ERROR;
    UTransliterator *trans = utrans_openU(id, -1, UTRANS_FORWARD, NULL, 0, NULL, &status);
    if (U_SUCCESS(status)) {
        read_block(trans, 0x3400, 0x4DC0);
        read_block(trans, 0x4E00, 0xA000);
        utrans_close(trans);
    }
}

static unsigned simplify(unsigned c)
{
    if (c < HAN_FIRST || c >= HAN_END)
        return c;
    unsigned s = simplified[c - HAN_FIRST];
    return s ? s : c;
}

/* Latin and Greek letters lose their accents; marks of scripts that need them stay. */
static unsigned strip_accent(unsigned c)
{
    if (c < 0xC0 || (c >= 0x250 && c < 0x370) || (c >= 0x400 && c < 0x1E00) || c >= 0x2000 || !nfd)
        return c;
    UChar parts[8];
    UErrorCode status = U_ZERO_ERROR;
    int32_t n = unorm2_getDecomposition(nfd, (UChar32)c, parts, 8, &status);
    return U_SUCCESS(status) && n > 0 ? parts[0] : c;
}

size_t hd_kb__fold_char(unsigned out[HD_KB__FOLD_MAX], unsigned c)
{
    if (c < 0x80) {
        out[0] = c >= 'A' && c <= 'Z' ? c + 32 : c;
        return 1;
    }
    pthread_once(&once, load);
    if (c >= 0x4E00 && c < HAN_END) {
        out[0] = simplify(c);
        return 1;
    }
    if (c >= 0x300 && c < 0x370)
        return 0; /* combining accents */
    if ((c >= 0x2010 && c <= 0x2015) || c == 0x2212) {
        out[0] = '-';
        return 1;
    }
    if (c == 0x2018 || c == 0x2019) {
        out[0] = '\'';
        return 1;
    }
    UChar source[2], folded[HD_KB__FOLD_MAX];
    int32_t n_source = 0;
    U16_APPEND_UNSAFE(source, n_source, c);
    UErrorCode status = U_ZERO_ERROR;
    int32_t n = nfkc_cf
                    ? unorm2_normalize(nfkc_cf, source, n_source, folded, HD_KB__FOLD_MAX, &status)
                    : -1;
    if (n < 0 || U_FAILURE(status)) {
        out[0] = c;
        return 1;
    }
    size_t k = 0;
    for (int32_t i = 0; i < n && k < HD_KB__FOLD_MAX;) {
        UChar32 f;
        U16_NEXT(folded, i, n, f);
        if (f >= 0x300 && f < 0x370)
            continue;
        out[k++] = simplify(strip_accent((unsigned)f));
    }
    return k;
}

enum hd_err hd_kb__fold(struct hd_buf *out, const char *text, size_t len)
{
    unsigned folded[HD_KB__FOLD_MAX];
    for (size_t i = 0; i < len;) {
        unsigned c;
        size_t k = hd_utf8_decode(&c, text + i, len - i, NULL);
        if (!k) {
            c = HD_UTF8_REPLACEMENT;
            k = 1;
        }
        i += k;
        size_t n = hd_kb__fold_char(folded, c);
        for (size_t j = 0; j < n; j++)
            hd_buf_put_utf8(out, folded[j]);
    }
    return out->err;
}

bool hd_kb__is_han(unsigned c)
{
    return (c >= 0x4E00 && c < 0xA000) || (c >= 0x3400 && c < 0x4DC0) || c == 0x3007 ||
           c == 0x3005 || (c >= 0xF900 && c < 0xFB00) || (c >= 0x20000 && c < 0x32000);
}

bool hd_kb__is_cjk(unsigned c)
{
    if (c < 0x0E00)
        return false;
    return hd_kb__is_han(c) || (c >= 0x3041 && c < 0x3100) || (c >= 0x31F0 && c < 0x3200) ||
           (c >= 0xAC00 && c < 0xD7B0) || (c >= 0x1100 && c < 0x1200) ||
           (c >= 0x0E00 && c < 0x0E60);
}

bool hd_kb__is_word(unsigned c)
{
    if (c < 0x80)
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z');
    if (hd_kb__is_cjk(c))
        return false;
    return u_isalnum((UChar32)c) || U_GET_GC_MASK((UChar32)c) & (U_GC_MN_MASK | U_GC_MC_MASK);
}
