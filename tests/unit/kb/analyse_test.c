/* The analyser, sentences, numbers and marks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kb/analyse.h"
#include "kb/chunk.h"
#include "kb/cite.h"
#include "kb/numbers.h"
#include "kb/text.h"

static bool has_term(struct hd_kb__terms *terms, const char *word)
{
    for (size_t i = 0; i < terms->n; i++)
        if (!strcmp(hd_kb__term_text(terms, i), word))
            return true;
    return false;
}

static void check_terms(const char *text, unsigned flags, const char *const *want,
                        const char *const *unwanted)
{
    struct hd_kb__analyser *an;
    struct hd_kb__terms terms;
    assert_int_equal(hd_kb__analyser_new(&an), HD_OK);
    hd_kb__terms_init(&terms);
    assert_int_equal(hd_kb__analyse(an, &terms, text, strlen(text), flags), HD_OK);
    for (; *want; want++)
        if (!has_term(&terms, *want))
            fail_msg("%s: no term %s", text, *want);
    for (; *unwanted; unwanted++)
        if (has_term(&terms, *unwanted))
            fail_msg("%s: has term %s", text, *unwanted);
    hd_kb__terms_dispose(&terms);
    hd_kb__analyser_free(an);
}
#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NONE ((const char *const[]){NULL})

static void test_english(void **state)
{
    check_terms("The transformers' running tests", 0, LIST("transform", "run", "test"),
                LIST("the"));
    check_terms("How many tests?", HD_KB__QUERY, LIST("test"), LIST("mani", "many", "how"));
    check_terms("Beyonc\u00e9 at CAF\u00c9", 0, LIST("beyonc", "cafe"), NONE);
}

static void test_codes_and_numbers(void **state)
{
    check_terms("model QF-12A", 0, LIST("qf-12a", "qf12a", "qf", "12a"), NONE);
    check_terms("QF12A", 0, LIST("qf12a"), NONE);
    check_terms("3.5% of 10,000", 0, LIST("3.5", "3.5%", "10000"), LIST("10,000"));
    check_terms("ＱＦ－１２Ａ", 0, LIST("qf12a"), NONE); /* full width */
}

static void test_chinese(void **state)
{
    check_terms("变压器试验", 0, LIST("变压", "压器", "试验"), NONE);
    check_terms("變壓器試驗", 0, LIST("变压", "试验"), LIST("變壓")); /* traditional */
    check_terms("质保期是多少年", HD_KB__QUERY, LIST("质保"), LIST("多少"));
    check_terms("使用 QF-12A 型变压器 3 次", 0, LIST("使用", "qf-12a", "变压", "3"), NONE);
}

static void check_sentences(const char *text, size_t want)
{
    struct hd_kb__sentence *list = NULL;
    size_t n = 0;
    assert_int_equal(hd_kb__sentences(&list, &n, text, strlen(text)), HD_OK);
    if (n != want)
        fail_msg("%s: %zu sentences, not %zu", text, n, want);
    free(list);
}

static void test_sentences(void **state)
{
    check_sentences("Dr. Smith paid 3.5 dollars. He left.", 2);
    check_sentences("See e.g. the U.S. rules. Done!", 2);
    check_sentences("1. Wash your hands. 2. Dry them.", 2);
    check_sentences("他说：“走吧。”然后走了。真的？是！", 4);
    check_sentences("no end", 1);
    check_sentences("", 0);
}

static void check_number(const char *text, bool strict, double want, bool there)
{
    struct hd_kb__numbers numbers = {0};
    assert_int_equal(hd_kb__numbers_find(&numbers, text, strlen(text), strict), HD_OK);
    if (hd_kb__numbers_has(&numbers, want) != there)
        fail_msg("%s: %g %s", text, want, there ? "is missing" : "is there");
    hd_kb__numbers_dispose(&numbers);
}

static void test_numbers(void **state)
{
    check_number("10,000 euros", true, 10000, true);
    check_number("1.5万元", true, 15000, true);
    check_number("二〇一六年", true, 2016, true);
    check_number("三千五百", true, 3500, true);
    check_number("十五天", true, 15, true);
    check_number("eleven per cent", true, 11, true);
    check_number("twenty-five people", true, 25, true);
    check_number("三个", true, 3, false); /* too loose for an answer … */
    check_number("三个", false, 3, true); /* … but it can support one */
    check_number("version 1.2.3", true, 10, false);
}

static void check_marks(const char *text, const char *clean, size_t n_want, const int *want)
{
    int marks[HD_KB__MARKS_MAX];
    size_t n;
    struct hd_buf out;
    hd_buf_init(&out, 4096);
    assert_int_equal(hd_kb__strip_marks(&out, text, strlen(text), 5, marks, &n), HD_OK);
    assert_string_equal(hd_buf_str(&out), clean);
    assert_int_equal(n, n_want);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(marks[i], want[i]);
    hd_buf_dispose(&out);
}
#define MARKS(...) (sizeof((int[]){__VA_ARGS__}) / sizeof(int)), ((int[]){__VA_ARGS__})

static void test_marks(void **state)
{
    check_marks("Yes. [citation:2]", "Yes.", MARKS(2));
    check_marks("Yes [citation: webpage 1].", "Yes.", MARKS(1));
    check_marks("Yes [webpage 3]", "Yes", MARKS(3));
    check_marks("是【1】。", "是。", MARKS(1));
    check_marks("A [1][2], B (citation:4)", "A, B", MARKS(1, 2, 4));
    check_marks("A [citation:1, 2]", "A", MARKS(1, 2));
    check_marks("（资料 3）对", "对", MARKS(3));
    check_marks("A [citation:9]", "A", 0, NULL); /* no such passage */
    check_marks("born (1986) [sic] [2016]", "born (1986) [sic] [2016]", 0, NULL);
    check_marks("open [citation:", "open [citation:", 0, NULL);
    assert_int_equal(hd_kb__open_mark("text [cit", 9), 4);
    assert_int_equal(hd_kb__open_mark("text [1] ok", 11), 0);
}

static void test_encodings(void **state)
{
    static const char gb[] = "\xb1\xe4\xd1\xb9\xc6\xf7\xb5\xc4\xca\xd4\xd1\xe9\xa3\xac\xd2\xbb\xb8"
                             "\xf6\xd4\xc2\xd2\xbb\xb4\xce\xa1\xa3";
    static const char big5[] =
        "\xa7\xda\xad\xcc\xaa\xba\xa4\xbd\xa5\xab\xa4\x40\xa1\x41\xac\x4f\xb3"
        "\xcc\xa4\x6a\xaa\xba\xa1\x43";
    struct hd_buf out;
    hd_buf_init(&out, 4096);
    assert_int_equal(hd_kb__decode(&out, gb, sizeof gb - 1, NULL, NULL), HD_OK);
    assert_string_equal(hd_buf_str(&out), "变压器的试验，一个月一次。");
    hd_buf_clear(&out);
    assert_int_equal(hd_kb__decode(&out, big5, sizeof big5 - 1, NULL, NULL), HD_OK);
    assert_non_null(strstr(hd_buf_str(&out), "我們的"));
    hd_buf_clear(&out);
    assert_int_equal(hd_kb__decode(&out,
                                   "\xff\xfe"
                                   "a\0b\0",
                                   6, NULL, NULL),
                     HD_OK);
    assert_string_equal(hd_buf_str(&out), "ab");
    hd_buf_clear(&out);
    assert_int_equal(hd_kb__decode(&out, "\0\1\2\3\0\0\5\6\0\0", 10, NULL, NULL), HD_ERR_INVALID);
    hd_buf_dispose(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_english),   cmocka_unit_test(test_codes_and_numbers),
        cmocka_unit_test(test_chinese),   cmocka_unit_test(test_sentences),
        cmocka_unit_test(test_numbers),   cmocka_unit_test(test_marks),
        cmocka_unit_test(test_encodings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
