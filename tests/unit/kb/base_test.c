/* A base's life: adding, searching, access, removing without residue, answering by quoting. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/utf8.h"
#include "kb/kb.h"
#include "kb/store.h"
#include "kb/verify.h"

static const struct hd_principal local = {.tenant = "local", .key_id = ""};

struct fixture {
    char dir[64];
    struct hd_kb *kb;
};

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/hd_kb_test_XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(hd_kb_open(&f->kb, f->dir, &local, "b", true, NULL), HD_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    hd_kb_close(f->kb);
    nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

static int64_t add(struct fixture *f, const char *name, const char *text)
{
    int64_t id = 0;
    struct hd_errmsg msg = {0};
    enum hd_err err = hd_kb_add_bytes(f->kb, &local, name, text, strlen(text), NULL, &id, &msg);
    if (err)
        fail_msg("%s", msg.text);
    return id;
}

static void check_store(struct fixture *f)
{
    struct hd_kb__store store;
    char folder[96];
    struct hd_errmsg msg = {0};
    snprintf(folder, sizeof folder, "%s/local/b", f->dir);
    assert_int_equal(hd_kb__store_open(&store, folder, HD_KB__READ, &msg), HD_OK);
    if (hd_kb__store_check(&store, &msg))
        fail_msg("%s", msg.text);
    hd_kb__store_close(&store);
}

static void test_search(void **state)
{
    struct fixture *f = *state;
    add(f, "a/pump.md",
        "# Pump\n\nThe pump QF-12A weighs 40 kg.\n\n## Oil\n\nChange the oil twice.\n");
    add(f, "zh.txt", "油浸式变压器的质保期为三十六个月。\n食堂十二点开门。");
    struct hd_kb_hits hits;
    struct hd_kb_search_options options = {.top = 10};
    assert_int_equal(hd_kb_search(f->kb, &local, "qf12a weight", &options, &hits, NULL), HD_OK);
    assert_int_equal(hits.n, 1);
    assert_string_equal(hits.items[0].document.name, "a/pump.md");
    assert_int_equal(hits.items[0].span[1] - hits.items[0].span[0],
                     hd_utf8_count(hits.items[0].text, strlen(hits.items[0].text)));
    hd_kb_hits_dispose(&hits);
    assert_int_equal(hd_kb_search(f->kb, &local, "變壓器質保多久？", &options, &hits, NULL), HD_OK);
    assert_int_equal(hits.n, 1);
    assert_string_equal(hits.items[0].document.name, "zh.txt");
    hd_kb_hits_dispose(&hits);
    assert_int_equal(hd_kb_search(f->kb, &local, "zebra", &options, &hits, NULL), HD_OK);
    assert_int_equal(hits.n, 0);
    hd_kb_hits_dispose(&hits);
    check_store(f);
}

static void test_update(void **state)
{
    struct fixture *f = *state;
    int64_t first = add(f, "x.txt", "The old price is 10 euros.");
    assert_int_equal(add(f, "x.txt", "The old price is 10 euros."), first);
    struct hd_kb_documents docs;
    add(f, "x.txt", "The new price is 20 euros.");
    assert_int_equal(hd_kb_list(f->kb, &local, &docs, NULL), HD_OK);
    assert_int_equal(docs.n, 1);
    assert_int_equal(docs.version, 2); /* an unchanged file makes no version */
    hd_kb_documents_dispose(&docs);
    check_store(f);
}

/* No byte of a removed document's words is left in any file of the base. */
static void test_no_residue(void **state)
{
    struct fixture *f = *state;
    struct hd_errmsg msg = {0};
    add(f, "keep.txt", "Harmless words stay here.");
    add(f, "secret.txt", "The password is xylophonezebra and the place is Quixotania.");
    if (hd_kb_remove(f->kb, &local, "secret.txt", &msg))
        fail_msg("%s", msg.text);
    static const char *const files[] = {"kb.db", "kb.db-wal"};
    for (size_t i = 0; i < 2; i++) {
        char path[128], *data = NULL;
        size_t len = 0;
        snprintf(path, sizeof path, "%s/local/b/%s", f->dir, files[i]);
        if (!hd_path_exists(path))
            continue;
        assert_int_equal(hd_file_read(&data, &len, path, 1 << 26, NULL), HD_OK);
        assert_null(memmem(data, len, "xylophonezebra", 14));
        assert_null(memmem(data, len, "uixotania", 9));
        free(data);
    }
    assert_int_equal(hd_kb_remove(f->kb, &local, "secret.txt", &msg), HD_ERR_NOTFOUND);
    check_store(f);
}

static void test_access(void **state)
{
    struct fixture *f = *state;
    static const char *const groups[] = {"board"};
    struct hd_kb_add_options options = {.groups = groups, .n_group = 1};
    static const char text[] = "The merger is planned for May.";
    assert_int_equal(
        hd_kb_add_bytes(f->kb, &local, "m.txt", text, strlen(text), &options, NULL, NULL), HD_OK);
    struct hd_principal board = {.tenant = "local", .key_id = "", .groups = groups, .n_group = 1};
    struct hd_principal other = {.tenant = "acme", .key_id = ""};
    struct hd_kb_search_options search = {.top = 5};
    struct hd_kb_hits hits;
    assert_int_equal(hd_kb_search(f->kb, &local, "merger", &search, &hits, NULL), HD_OK);
    assert_int_equal(hits.n, 0);
    hd_kb_hits_dispose(&hits);
    assert_int_equal(hd_kb_search(f->kb, &board, "merger", &search, &hits, NULL), HD_OK);
    assert_int_equal(hits.n, 1);
    hd_kb_hits_dispose(&hits);
    assert_int_equal(hd_kb_search(f->kb, &other, "merger", &search, &hits, NULL), HD_ERR_NOTFOUND);
    assert_int_equal(hd_kb_remove(f->kb, &local, "m.txt", NULL), HD_ERR_NOTFOUND);
}

static void test_one_writer(void **state)
{
    struct fixture *f = *state;
    struct hd_kb__store store;
    char folder[96];
    struct hd_errmsg msg = {0};
    snprintf(folder, sizeof folder, "%s/local/b", f->dir);
    assert_int_equal(hd_kb__store_open(&store, folder, HD_KB__WRITE, &msg), HD_OK);
    assert_int_equal(hd_kb_add_bytes(f->kb, &local, "a.txt", "x y", 3, NULL, NULL, &msg),
                     HD_ERR_BUSY);
    hd_kb__store_close(&store);
    add(f, "a.txt", "now it works");
}

static void check_refused(struct fixture *f, const char *name, const char *data, size_t len)
{
    struct hd_errmsg msg = {0};
    assert_int_not_equal(hd_kb_add_bytes(f->kb, &local, name, data, len, NULL, NULL, &msg), HD_OK);
    assert_non_null(strstr(msg.text, name));
}

static void test_bad_files(void **state)
{
    struct fixture *f = *state;
    check_refused(f, "a.docx", "PK\3\4 no zip", 11);
    check_refused(f, "b.epub", "", 0);
    check_refused(f, "c.pdf", "%PDF-1.4 broken", 15);
    check_refused(f, "d.txt", "\0\1\2\0\0\0\3\0", 8);
    check_refused(f, "e.exe", "MZ", 2);
    add(f, "fine.html", "<title>T</title><h1>H</h1><p>Good text.<script>bad()</script>");
    struct hd_kb_documents docs;
    assert_int_equal(hd_kb_list(f->kb, &local, &docs, NULL), HD_OK);
    assert_int_equal(docs.n, 1);
    char *text = NULL;
    assert_int_equal(hd_kb_text(f->kb, &local, docs.items[0].id, &text, NULL), HD_OK);
    assert_non_null(strstr(text, "Good text."));
    assert_null(strstr(text, "bad()"));
    free(text);
    hd_kb_documents_dispose(&docs);
}

static void test_names(void **state)
{
    struct fixture *f = *state;
    struct hd_kb *kb = NULL;
    assert_int_equal(hd_kb_open(&kb, f->dir, &local, "../x", true, NULL), HD_ERR_INVALID);
    assert_int_equal(hd_kb_open(&kb, f->dir, &local, "none", false, NULL), HD_ERR_NOTFOUND);
    assert_int_equal(hd_kb_create(f->dir, &local, "b", NULL), HD_ERR_EXISTS);
    assert_int_equal(hd_kb_create(f->dir, &local, "手册", NULL), HD_OK);
    struct hd_kb_names names;
    assert_int_equal(hd_kb_list_bases(&names, f->dir, &local, NULL), HD_OK);
    assert_int_equal(names.n, 2);
    hd_kb_names_dispose(&names);
    assert_int_equal(hd_kb_destroy(f->dir, &local, "手册", NULL), HD_OK);
}

static void test_quoting(void **state)
{
    struct fixture *f = *state;
    add(f, "pump.txt", "The pump was built in Delft.\nThe pump QF-12A weighs 40 kg.");
    add(f, "z.txt", "变压器的质保期为36个月。食堂十二点开门。");
    struct hd_kb_ask_options options = HD_KB_ASK_DEFAULT;
    struct hd_kb_answer a;
    options.question = "How much does the pump QF-12A weigh?";
    assert_int_equal(hd_kb_ask(f->kb, &local, &options, NULL, NULL, &a, NULL), HD_OK);
    assert_true(a.found && a.quoted);
    assert_true(a.n_citation >= 1);
    assert_string_equal(a.citations[0].quote, "The pump QF-12A weighs 40 kg.");
    assert_non_null(strstr(a.answer, "[citation:1]"));
    assert_string_equal(a.citations[0].document.name, "pump.txt");
    char *text = NULL; /* the span names exactly the quote (ASCII: bytes are code points) */
    assert_int_equal(hd_kb_text(f->kb, &local, a.citations[0].document.id, &text, NULL), HD_OK);
    assert_memory_equal(text + a.citations[0].span[0], a.citations[0].quote,
                        strlen(a.citations[0].quote));
    free(text);
    hd_kb_answer_dispose(&a);
    options.question = "变压器的质保期有多长？";
    assert_int_equal(hd_kb_ask(f->kb, &local, &options, NULL, NULL, &a, NULL), HD_OK);
    assert_true(a.found);
    assert_string_equal(a.citations[0].quote, "变压器的质保期为36个月。");
    hd_kb_answer_dispose(&a);
    /* a heading repeats the question and says nothing */
    add(f, "crane.md",
        "# Crane\n\n## Weight of the crane in hall two\n\nThe crane has a mass of 9 tonnes without "
        "its hook.\n");
    options.question = "What is the weight of the crane in hall two?";
    assert_int_equal(hd_kb_ask(f->kb, &local, &options, NULL, NULL, &a, NULL), HD_OK);
    assert_true(a.found);
    assert_string_equal(a.citations[0].quote, "The crane has a mass of 9 tonnes without its hook.");
    hd_kb_answer_dispose(&a);
    options.question = "總經理的電話號碼是多少？";
    assert_int_equal(hd_kb_ask(f->kb, &local, &options, NULL, NULL, &a, NULL), HD_OK);
    assert_string_equal(a.answer, "資料中未找到這個問題的答案。");
    hd_kb_answer_dispose(&a);
    options.question = "Who invented the telephone exchange in Boston?";
    assert_int_equal(hd_kb_ask(f->kb, &local, &options, NULL, NULL, &a, NULL), HD_OK);
    assert_false(a.found);
    assert_int_equal(a.n_citation, 0);
    hd_kb_answer_dispose(&a);
}

static void test_verify(void **state)
{
    struct fixture *f = *state;
    add(f, "w.txt", "The warranty lasts 36 months. It begins on the day of delivery.");
    struct hd_kb_hits hits;
    struct hd_kb_search_options search = {.top = 5, .passages = true};
    assert_int_equal(hd_kb_search(f->kb, &local, "warranty", &search, &hits, NULL), HD_OK);
    struct hd_kb__judge judge;
    struct hd_kb__evidence question;
    struct hd_kb__passages passages;
    assert_int_equal(hd_kb__judge_init(&judge), HD_OK);
    static const char asked[] = "How long is the warranty?";
    assert_int_equal(hd_kb__evidence_of(&question, &judge, asked, strlen(asked), true), HD_OK);
    assert_int_equal(hd_kb__passages_take(&passages, &hits, hits.n, &judge, &question), HD_OK);
    static const struct {
        const char *text;
        int mark;
        bool alone;
        enum hd_kb_verdict verdict;
    } cases[] = {
        {"The warranty lasts 36 months.", 1, false, HD_KB_SUPPORTED},
        {"The warranty lasts 36 months.", 0, false, HD_KB_REATTACHED},
        {"The warranty lasts 48 months.", 1, false, HD_KB_UNSUPPORTED},
        {"It is honoured by Siemens in Berlin.", 1, false, HD_KB_UNSUPPORTED},
        /* numbers count by value, however they are written */
        {"It lasts thirty-six months.", 1, true, HD_KB_SUPPORTED},
        /* words of its own: enough only where it was read from that passage alone */
        {"Customers are covered from the day of delivery onwards.", 1, false, HD_KB_UNSUPPORTED},
        {"Customers are covered from the day of delivery onwards.", 1, true, HD_KB_SUPPORTED},
        {"Customers are covered for 48 months.", 1, true, HD_KB_UNSUPPORTED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_kb__support s;
        assert_int_equal(hd_kb__verify(&s, &judge, cases[i].text, strlen(cases[i].text),
                                       &cases[i].mark, cases[i].mark ? 1 : 0, &passages, &question,
                                       cases[i].alone),
                         HD_OK);
        if (s.verdict != cases[i].verdict)
            fail_msg("%s: verdict %d, cover %.2f", cases[i].text, (int)s.verdict, s.cover);
    }
    static const struct {
        const char *text, *question;
        bool repeats;
    } echoes[] = {{"The warranty is long.", asked, true},
                  {"How long is the warranty?", asked, true},
                  {"The warranty lasts 36 months.", asked, false},
                  {"Yes, the warranty is long.", "Is the warranty long?", false},
                  {"岳父去世，可以请丧假。", "岳父去世，可以请几天丧假？", true},
                  {"岳父去世，可以请3天丧假。", "岳父去世，可以请几天丧假？", false},
                  {"可以请丧假。", "岳父去世，可以请丧假吗？", false}};
    for (size_t i = 0; i < sizeof echoes / sizeof *echoes; i++) {
        bool repeats;
        assert_int_equal(hd_kb__repeats(&repeats, &judge, echoes[i].text, echoes[i].question),
                         HD_OK);
        if (repeats != echoes[i].repeats)
            fail_msg("%s", echoes[i].text);
    }
    assert_true(hd_kb__is_refusal("资料中未找到。", strlen("资料中未找到。")));
    assert_true(hd_kb__is_refusal("Not found in the documents.", 27));
    assert_false(hd_kb__is_refusal("36 months", 9));
    hd_kb__passages_dispose(&passages);
    hd_kb__evidence_dispose(&question);
    hd_kb__judge_dispose(&judge);
    hd_kb_hits_dispose(&hits);
}

/* A base written by schema 1 stays readable; one of a newer schema is refused by name. */
static void test_versions(void **state)
{
    struct fixture *f = *state;
    char path[128], *data = NULL;
    size_t len = 0;
    struct hd_errmsg msg = {0};
    struct hd_kb *kb = NULL;
    assert_int_equal(
        hd_file_read(&data, &len, HD_TEST_ROOT "/golden/kb/version-1.db", 1 << 22, NULL), HD_OK);
    snprintf(path, sizeof path, "%s/local/old", f->dir);
    assert_int_equal(hd_mkdirs(path, NULL), HD_OK);
    strcat(path, "/kb.db");
    assert_int_equal(hd_file_write(path, data, len, NULL), HD_OK);
    if (hd_kb_open(&kb, f->dir, &local, "old", false, &msg))
        fail_msg("%s", msg.text);
    struct hd_kb_hits hits;
    struct hd_kb_search_options options = {.top = 1};
    assert_int_equal(hd_kb_search(kb, &local, "质保期", &options, &hits, NULL), HD_OK);
    assert_int_equal(hits.n, 1);
    hd_kb_hits_dispose(&hits);
    hd_kb_close(kb);
    data[60 + 3] = 99; /* user_version, big-endian at byte 60 of the header */
    assert_int_equal(hd_file_write(path, data, len, NULL), HD_OK);
    assert_int_equal(hd_kb_open(&kb, f->dir, &local, "old", false, &msg), HD_ERR_UNSUPPORTED);
    assert_non_null(strstr(msg.text, "newer"));
    data[0] = 'X';
    assert_int_equal(hd_file_write(path, data, len, NULL), HD_OK);
    assert_int_equal(hd_kb_open(&kb, f->dir, &local, "old", false, &msg), HD_ERR_FORMAT);
    free(data);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_search),     TEST(test_update),    TEST(test_no_residue), TEST(test_access),
        TEST(test_one_writer), TEST(test_bad_files), TEST(test_names),      TEST(test_quoting),
        TEST(test_verify),     TEST(test_versions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
