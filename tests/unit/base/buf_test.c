#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/base64.h"
#include "base/buf.h"
#include "base/utf8.h"

static void keeps_its_maximum_and_its_first_error(void **state)
{
    struct hd_buf buf;
    hd_buf_init(&buf, 10);
    assert_int_equal(hd_buf_puts(&buf, "0123456789"), HD_OK);
    assert_int_equal(hd_buf_putc(&buf, 'x'), HD_ERR_LIMIT);
    assert_int_equal(hd_buf_puts(&buf, ""), HD_ERR_LIMIT);
    assert_string_equal(hd_buf_str(&buf), "0123456789");
    assert_null(hd_buf_take(&buf));
    hd_buf_clear(&buf);
    assert_int_equal(hd_buf_printf(&buf, "%d-%s", 7, "ab"), HD_OK);
    char *owned = hd_buf_take(&buf);
    assert_string_equal(owned, "7-ab");
    assert_string_equal(hd_buf_str(&buf), "");
    free(owned);
    hd_buf_dispose(&buf);
}

static void refuses_sizes_that_would_overflow(void **state)
{
    struct hd_buf buf;
    hd_buf_init(&buf, 1000);
    hd_buf_puts(&buf, "abc");
    assert_null(hd_buf_reserve(&buf, SIZE_MAX));
    assert_int_equal(buf.err, HD_ERR_LIMIT);
    hd_buf_dispose(&buf);
}

static void base64_there_and_back(void **state)
{
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"\xff\xfe", "//4="},
                                           {"fooba", "Zm9vYmE="}};
    static const char *const bad[] = {"Zg", "Zg=", "Z===", " Zg==", "Zm9v Zg=", "Zm9v*g=="};
    struct hd_buf text, back;
    hd_buf_init(&text, 100);
    hd_buf_init(&back, 100);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        hd_buf_clear(&text);
        hd_buf_clear(&back);
        assert_int_equal(hd_base64_encode(&text, pairs[i][0], strlen(pairs[i][0])), HD_OK);
        assert_string_equal(hd_buf_str(&text), pairs[i][1]);
        assert_int_equal(hd_base64_decode(&back, text.data ? text.data : "", text.len), HD_OK);
        assert_string_equal(hd_buf_str(&back), pairs[i][0]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (hd_base64_decode(&back, bad[i], strlen(bad[i])) != HD_ERR_FORMAT)
            fail_msg("%s", bad[i]);
    hd_buf_dispose(&text);
    hd_buf_dispose(&back);
}

static void decodes_only_strict_utf8(void **state)
{
    static const struct {
        const char *bytes;
        size_t len, n, need;
        unsigned codepoint;
    } cases[] = {
        {"a", 1, 1, 0, 'a'},
        {"\xC3\xA9", 2, 2, 0, 0xE9},
        {"\xE4\xB8\xAD", 3, 3, 0, 0x4E2D},
        {"\xF0\x9F\x98\x80", 4, 4, 0, 0x1F600},
        {"\xE4\xB8", 2, 0, 1, 0}, /* a true prefix */
        {"\xF0", 1, 0, 3, 0},
        {"\xC0\x80", 2, 0, 0, 0}, /* overlong */
        {"\xE0\x80\x80", 3, 0, 0, 0},
        {"\xED\xA0\x80", 3, 0, 0, 0},     /* surrogate */
        {"\xF4\x90\x80\x80", 4, 0, 0, 0}, /* above U+10FFFF */
        {"\x80", 1, 0, 0, 0},
        {"\xFF", 1, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned codepoint = 0;
        size_t need = 99;
        assert_int_equal(hd_utf8_decode(&codepoint, cases[i].bytes, cases[i].len, &need),
                         cases[i].n);
        assert_int_equal(need, cases[i].need);
        if (cases[i].n)
            assert_int_equal(codepoint, cases[i].codepoint);
    }
}

static void encodes_every_scalar_value_so_that_it_decodes(void **state)
{
    for (unsigned c = 0; c <= 0x10FFFF; c++) {
        char bytes[4];
        unsigned back = 0;
        size_t n = hd_utf8_encode(bytes, c);
        assert_int_equal(hd_utf8_decode(&back, bytes, n, NULL), n);
        assert_int_equal(back, c >= 0xD800 && c <= 0xDFFF ? HD_UTF8_REPLACEMENT : c);
    }
}

static void complete_never_ends_inside_a_character(void **state)
{
    const char *text = "a\xE4\xB8\xAD\xF0\x9F\x98\x80";
    static const size_t expected[] = {0, 1, 1, 1, 4, 4, 4, 4, 8};
    for (size_t n = 0; n <= 8; n++)
        assert_int_equal(hd_utf8_complete(text, n), expected[n]);
    assert_int_equal(hd_utf8_complete("\xFF", 1), 1); /* not a prefix of anything: passed on */
    assert_int_equal(hd_utf8_count(text, 8), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_its_maximum_and_its_first_error),
        cmocka_unit_test(refuses_sizes_that_would_overflow),
        cmocka_unit_test(base64_there_and_back),
        cmocka_unit_test(decodes_only_strict_utf8),
        cmocka_unit_test(encodes_every_scalar_value_so_that_it_decodes),
        cmocka_unit_test(complete_never_ends_inside_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
