/* Addresses, and what the client refuses before it sends a byte. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "net/client.h"
#include "net/url.h"

static void addresses_resolve_against_a_base(void **state)
{
    static const struct {
        const char *base, *text, *want;
    } cases[] = {
        {NULL, "https://h/a/b?c=d#e", "https://h/a/b?c=d"},
        {"https://h/a/b", "/x", "https://h/x"},
        {"https://h/a/b", "x", "https://h/a/x"},
        {"https://h/a/b", "//g/x", "https://g/x"},
        {"https://h/a", "http://g/x", "http://g/x"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_url url;
        assert_int_equal(hd_url_parse(&url, cases[i].base, cases[i].text, NULL), HD_OK);
        assert_string_equal(url.text, cases[i].want);
        hd_url_dispose(&url);
    }
}

static void what_is_no_address_is_refused(void **state)
{
    static const char *const bad[] = {"", "h/a", "https://", "https://h:99999/", "ht!tp://h/"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hd_url url;
        struct hd_errmsg msg = {0};
        assert_int_equal(hd_url_parse(&url, NULL, bad[i], &msg), HD_ERR_INVALID);
        assert_true(msg.text[0]);
    }
}

static void origins_differ_by_scheme_host_and_port(void **state)
{
    static const struct {
        const char *text;
        bool same;
    } cases[] = {
        {"https://h/x", true},      {"https://H:443/y", true}, {"http://h/x", false},
        {"https://h:444/x", false}, {"https://h.g/x", false},
    };
    struct hd_url a, b;
    assert_int_equal(hd_url_parse(&a, NULL, "https://h/", NULL), HD_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(hd_url_parse(&b, NULL, cases[i].text, NULL), HD_OK);
        assert_int_equal(hd_url_same_origin(&a, &b), cases[i].same);
        hd_url_dispose(&b);
    }
    hd_url_dispose(&a);
}

static void file_addresses_give_paths(void **state)
{
    char *path = hd_url_file_path("file:///a%20b/%E6%96%87");
    assert_string_equal(path, "/a b/文");
    free(path);
    assert_null(hd_url_file_path("file://host/a"));
    assert_null(hd_url_file_path("file:///a%00b"));
    assert_null(hd_url_file_path("/a"));
}

static void loopback_is_this_machine_alone(void **state)
{
    assert_true(hd_net_is_loopback("127.0.0.1"));
    assert_true(hd_net_is_loopback("127.1.2.3"));
    assert_true(hd_net_is_loopback("[::1]"));
    assert_true(hd_net_is_loopback("LocalHost"));
    assert_false(hd_net_is_loopback("10.0.0.1"));
    assert_false(hd_net_is_loopback("localhost.example.org"));
    assert_false(hd_net_is_loopback("127.example.org"));
}

static void forbidden_addresses_are_refused_unasked(void **state)
{
    static const char *const bad[] = {"http://192.0.2.1/x", "ftp://127.0.0.1/x",
                                      "https://user:pass@127.0.0.1/x", "http://127.example.org/x"};
    struct hd_net_client *client;
    assert_int_equal(hd_net_client_new(&client, NULL), HD_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hd_net_response r;
        struct hd_errmsg msg = {0};
        assert_int_equal(hd_net_perform(client, &r, &(struct hd_net_request){.url = bad[i]}, &msg),
                         HD_ERR_DENIED);
        assert_null(strstr(msg.text, "pass@"));
        assert_int_equal(r.status, 0);
    }
    hd_net_client_free(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_resolve_against_a_base),
        cmocka_unit_test(what_is_no_address_is_refused),
        cmocka_unit_test(origins_differ_by_scheme_host_and_port),
        cmocka_unit_test(file_addresses_give_paths),
        cmocka_unit_test(loopback_is_this_machine_alone),
        cmocka_unit_test(forbidden_addresses_are_refused_unasked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
