/* Router, percent decoding, multipart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "http/http.h"

static void nothing(struct hd_http_request *request, void *ud)
{
}

static const struct hd_http_route routes[] = {
    {"GET", "/", nothing, 1},
    {"GET", "/v1/models", nothing, 2},
    {"POST", "/v1/kb/{kb}/documents", nothing, 3},
    {"GET", "/v1/kb/{kb}/documents", nothing, 4},
    {"DELETE", "/v1/kb/{kb}/documents/{id}", nothing, 5},
};

static void test_routes(void **state)
{
    static const struct {
        const char *method, *path;
        int status, tag;
        const char *first, *second;
    } cases[] = {
        {"GET", "/", 200, 1, NULL, NULL},
        {"HEAD", "/v1/models", 200, 2, NULL, NULL},
        {"GET", "/v1/models/", 404, 0, NULL, NULL},
        {"GET", "/v1//models", 404, 0, NULL, NULL},
        {"GET", "", 404, 0, NULL, NULL},
        {"GET", "*", 404, 0, NULL, NULL},
        {"POST", "/v1/models", 405, 0, NULL, NULL},
        {"POST", "/v1/kb/%E6%89%8B%E5%86%8C/documents", 200, 3, "手册", NULL},
        {"DELETE", "/v1/kb/a%2Fb/documents/7", 200, 5, "a/b", "7"},
        {"DELETE", "/v1/kb/a/b/documents/7", 404, 0, NULL, NULL},
        {"GET", "/v1/kb//documents", 404, 0, NULL, NULL},
        {"GET", "/v1/kb/%ff/documents", 400, 0, NULL, NULL},
        {"GET", "/v1/kb/a%00b/documents", 400, 0, NULL, NULL},
        {"GET", "/v1/kb/a%4/documents", 400, 0, NULL, NULL},
        {"GET", "/v1/models/../models", 404, 0, NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_http_match match;
        hd_http_route_match(&match, routes, sizeof routes / sizeof *routes, cases[i].method,
                            cases[i].path);
        if (match.status != cases[i].status)
            fail_msg("%s %s: %d", cases[i].method, cases[i].path, match.status);
        assert_int_equal(match.route ? match.route->tag : 0, cases[i].tag);
        if (cases[i].first)
            assert_string_equal(match.var[0].value, cases[i].first);
        if (cases[i].second)
            assert_string_equal(match.var[1].value, cases[i].second);
        hd_http_match_dispose(&match);
    }
}

static void test_allow_lists_every_method(void **state)
{
    struct hd_http_match match;
    hd_http_route_match(&match, routes, sizeof routes / sizeof *routes, "PUT",
                        "/v1/kb/x/documents");
    assert_int_equal(match.status, 405);
    assert_string_equal(match.allow, "POST, GET");
    hd_http_match_dispose(&match);
}

static void test_multipart(void **state)
{
    static const char body[] = "--XX\r\nContent-Disposition: form-data; name=\"file\"; "
                               "filename=\"a \\\"b\\\".txt\"\r\nContent-Type: text/plain\r\n\r\n"
                               "line\r\n--X not the mark\r\n--XX\r\n"
                               "Content-Disposition: form-data; name=name\r\n\r\n\r\n--XX--\r\n";
    struct hd_http_parts parts;
    struct hd_errmsg msg;
    assert_int_equal(hd_http_multipart_parse(&parts, "multipart/form-data; boundary=\"XX\"", body,
                                             sizeof body - 1, &msg),
                     HD_OK);
    assert_int_equal(parts.n, 2);
    assert_string_equal(parts.part[0].name, "file");
    assert_string_equal(parts.part[0].filename, "a \"b\".txt");
    assert_string_equal(parts.part[0].content_type, "text/plain");
    assert_int_equal(parts.part[0].len, strlen("line\r\n--X not the mark"));
    assert_string_equal(parts.part[1].name, "name");
    assert_int_equal(parts.part[1].len, 0);
    hd_http_parts_dispose(&parts);
}

/* Every prefix of a good body, and a few lies: an error or a result, never a read past the end. */
static void test_multipart_bad(void **state)
{
    static const char body[] =
        "--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nabc\r\n--B--\r\n";
    struct hd_http_parts parts;
    struct hd_errmsg msg;
    const char *type = "multipart/form-data; boundary=B";
    size_t whole = sizeof body - 1 - 2; /* the last line end is optional */
    for (size_t n = 0; n < whole; n++) {
        char *copy = malloc(n + 1);
        memcpy(copy, body, n);
        assert_int_not_equal(hd_http_multipart_parse(&parts, type, copy, n, &msg), HD_OK);
        free(copy);
    }
    assert_int_equal(hd_http_multipart_parse(&parts, "multipart/form-data", body, whole, &msg),
                     HD_ERR_INVALID);
    assert_int_equal(hd_http_multipart_parse(&parts, "text/plain", body, whole, &msg),
                     HD_ERR_INVALID);
    assert_int_equal(hd_http_multipart_parse(&parts, NULL, body, whole, &msg), HD_ERR_INVALID);
    static const char nameless[] = "--B\r\nX: y\r\n\r\nabc\r\n--B--";
    assert_int_equal(hd_http_multipart_parse(&parts, type, nameless, sizeof nameless - 1, &msg),
                     HD_ERR_INVALID);
}

static void test_percent_decode(void **state)
{
    char *s = hd_http_percent_decode("a+b%20c", 7, true);
    assert_string_equal(s, "a b c");
    free(s);
    s = hd_http_percent_decode("a+b", 3, false);
    assert_string_equal(s, "a+b");
    free(s);
    assert_null(hd_http_percent_decode("%", 1, false));
    assert_null(hd_http_percent_decode("%g0", 3, false));
    assert_null(hd_http_percent_decode("%c0%80", 6, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),         cmocka_unit_test(test_allow_lists_every_method),
        cmocka_unit_test(test_multipart),      cmocka_unit_test(test_multipart_bad),
        cmocka_unit_test(test_percent_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
