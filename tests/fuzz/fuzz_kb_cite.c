// room: kb
/* Citation marks, refusals, numbers and terms in whatever a model may write. */
#include <stdint.h>
#include <stdlib.h>

#include "base/utf8.h"
#include "kb/analyse.h"
#include "kb/cite.h"
#include "kb/numbers.h"
#include "kb/verify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    int marks[HD_KB__MARKS_MAX];
    size_t n = 0;
    if (size > 1 << 14 || !hd_utf8_valid(text, size))
        return 0;
    struct hd_buf out;
    struct hd_kb__numbers numbers = {0};
    hd_buf_init(&out, 1 << 20);
    if (hd_kb__strip_marks(&out, text, size, 5, marks, &n) || out.len > size ||
        hd_kb__open_mark(text, size) > size)
        abort();
    for (size_t i = 0; i < n; i++)
        if (marks[i] < 1 || marks[i] > 5)
            abort();
    hd_buf_clear(&out);
    if (!hd_kb__fold(&out, text, size))
        hd_kb__numbers_find(&numbers, hd_buf_str(&out), out.len, true);
    hd_kb__is_refusal(text, size);
    struct hd_kb__analyser *analyser = NULL;
    struct hd_kb__terms terms;
    hd_kb__terms_init(&terms);
    if (!hd_kb__analyser_new(&analyser))
        hd_kb__analyse(analyser, &terms, text, size, HD_KB__QUERY);
    hd_kb__analyser_free(analyser);
    hd_kb__terms_dispose(&terms);
    hd_kb__numbers_dispose(&numbers);
    hd_buf_dispose(&out);
    return 0;
}
