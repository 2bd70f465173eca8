/* Plain text: which lines become titles, headings, items and paragraphs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kb/doc.h"
#include "kb/parse.h"

/* The blocks as one string, "H1|1. Scope¶P|…". */
static void check(enum hd_err (*parse)(struct hd_buf *, const char *, size_t, struct hd_errmsg *),
                  const char *text, const char *wanted)
{
    struct hd_buf records, shown;
    struct hd_kb__doc doc;
    hd_buf_init(&records, 1 << 20);
    hd_buf_init(&shown, 1 << 20);
    hd_kb__doc_init(&doc);
    assert_int_equal(parse(&records, text, strlen(text), NULL), HD_OK);
    assert_int_equal(hd_kb__doc_read(&doc, records.data, records.len, NULL), HD_OK);
    if (*doc.title)
        hd_buf_printf(&shown, "T|%s¶", doc.title);
    for (size_t i = 0; i < doc.n_block; i++) {
        const struct hd_kb__block *b = &doc.blocks[i];
        hd_buf_printf(&shown, b->kind == HD_KB__HEADING ? "%c%d|" : "%c|", b->kind, b->level);
        hd_buf_append(&shown, doc.text.data + b->begin, b->end - b->begin);
        hd_buf_puts(&shown, "¶");
    }
    assert_string_equal(hd_buf_str(&shown), wanted);
    hd_kb__doc_dispose(&doc);
    hd_buf_dispose(&records);
    hd_buf_dispose(&shown);
}

#define LONG "It rains on the roof of the house, and the roof is old and it is not tight any more"

static void test_headings(void **state)
{
    check(hd_kb__parse_text, "Rules\n" LONG ".\n\n1. Roof\n" LONG ".\n\n2.1 Walls\n\n" LONG ".\n",
          "T|Rules¶P|Rules¶P|" LONG ".¶H1|1. Roof¶P|" LONG ".¶H2|2.1 Walls¶P|" LONG ".¶");
    check(hd_kb__parse_text,
          "仓储规定\n\n一、收货\n\n收货时间为工作日。\n\n（二）存放\n只放黄线区。\n",
          "T|仓储规定¶P|仓储规定¶H2|一、收货¶P|收货时间为工作日。¶H3|（二）存放¶P|只放黄线区。¶");
}

static void test_what_is_no_heading(void **state)
{
    /* numbered lines in a row are a list; a sentence is none; nor is a line after text */
    check(hd_kb__parse_text, LONG ".\n\n1. Apples\n2. Pears\n",
          "P|" LONG ".¶L|1. Apples¶L|2. Pears¶");
    check(hd_kb__parse_text, LONG ".\n\n1. Bring the key.\n\n" LONG ".\n",
          "P|" LONG ".¶L|1. Bring the key.¶P|" LONG ".¶");
    check(hd_kb__parse_text, LONG ".\n3 Apples\n\n", "P|" LONG ". 3 Apples¶");
    /* one line alone, and a first line as wide as the rest, are no titles */
    check(hd_kb__parse_text, "Hello there", "P|Hello there¶");
    check(hd_kb__parse_text, LONG "\n" LONG ".", "P|" LONG " " LONG ".¶");
}

static void test_pages(void **state)
{
    check(hd_kb__parse_pages,
          "Policy\n" LONG ".\n\n1/2\n\f" LONG ".\n- 2 -\n\f" LONG ".\n第 3 页\n\f",
          "T|Policy¶P|Policy¶P|" LONG ".¶P|" LONG ".¶P|" LONG ".¶");
    /* a number that is all there is stays, and so does one that says more */
    check(hd_kb__parse_pages, "42\n\f", "P|42¶");
    check(hd_kb__parse_pages, LONG ".\n14 days\n\f", "P|" LONG ". 14 days¶");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headings),
        cmocka_unit_test(test_what_is_no_heading),
        cmocka_unit_test(test_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
