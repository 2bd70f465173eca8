// room: token
/* The first byte chooses: a GBNF grammar, a JSON schema, or a pattern; a grammar and a text to
 * match are parted by a NUL. A grammar compiles or is refused with a sentence; what a schema
 * becomes always compiles; a run never takes a text that it does not take byte by byte. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "token/grammar/grammar_impl.h"

static void run(const char *gbnf, size_t len, const char *text, size_t n_text, bool must)
{
    struct hd_grammar *grammar;
    struct hd_grammar_run *whole, *steps;
    struct hd_errmsg msg = {0};
    enum hd_err err = hd_grammar_new(&grammar, gbnf, len, NULL, false, &msg);
    if (err ? !msg.text[0] : !grammar)
        abort();
    if (err && must && err != HD_ERR_LIMIT && !strstr(msg.text, "allows no text"))
        abort();
    if (err)
        return;
    if (hd_grammar_run_new(&whole, grammar, NULL) || hd_grammar_run_new(&steps, grammar, NULL))
        abort();
    err = hd_grammar_run_accept_bytes(whole, text, n_text);
    enum hd_err one = HD_OK;
    for (size_t i = 0; i < n_text && !one; i++)
        one = hd_grammar_run_accept_bytes(steps, text + i, 1);
    if ((err == HD_OK) != (one == HD_OK))
        abort();
    if (!err && hd_grammar_run_may_end(whole) != hd_grammar_run_may_end(steps))
        abort();
    hd_grammar_run_free(whole);
    hd_grammar_run_free(steps);
    hd_grammar_unref(grammar);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data + 1;
    struct hd_buf gbnf;
    struct hd_errmsg msg = {0};
    if (!size)
        return 0;
    size--;
    const char *cut = memchr(text, 0, size);
    size_t len = cut ? (size_t)(cut - text) : size;
    const char *rest = cut ? cut + 1 : text;
    size_t n_rest = cut ? size - len - 1 : 0;
    hd_buf_init(&gbnf, 1 << 20);
    if (*data == 'g') {
        run(text, len, rest, n_rest, false);
    } else if (*data == 's') {
        enum hd_err err = hd_grammar_from_schema(&gbnf, text, len, &msg);
        if (err ? !msg.text[0] : 0)
            abort();
        if (!err)
            run(hd_buf_str(&gbnf), gbnf.len, rest, n_rest, true);
    } else if (*data == 'p') {
        hd_buf_puts(&gbnf, "root ::= ");
        enum hd_err err = hd_grammar__regex(&gbnf, text, len, &msg);
        hd_buf_putc(&gbnf, '\n');
        hd_buf_puts(&gbnf, hd_grammar__json);
        if (!err && !gbnf.err)
            run(hd_buf_str(&gbnf), gbnf.len, rest, n_rest, true);
    }
    hd_buf_dispose(&gbnf);
    return 0;
}
