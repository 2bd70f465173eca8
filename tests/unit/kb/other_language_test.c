/* Questions in one language over documents in the other. The engine only tokenizes here; what a
 * model would reply is fed by hand. */
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

#include "holdfast/holdfast.h"
#include "kb/kb.h"
#include "kb/translate.h"

static const struct hd_principal local = HD_PRINCIPAL_LOCAL;
static const char *const question = "How many days of maternity leave do women have?";

struct fixture {
    char dir[64];
    struct hd_kb *kb;
    struct hd_engine *engine;
    struct hd_kb_turn *turn;
};

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static void add(struct fixture *f, const char *name, const char *text)
{
    int64_t id = 0;
    assert_int_equal(hd_kb_add_bytes(f->kb, &local, name, text, strlen(text), NULL, &id, NULL),
                     HD_OK);
}

static int set_up(void **state)
{
    struct hd_engine_options o = HD_ENGINE_OPTIONS_DEFAULT;
    struct fixture *f = calloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/hd_kb_other_XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(hd_kb_open(&f->kb, f->dir, &local, "b", true, NULL), HD_OK);
    add(f, "休假制度.txt", "在常州工作的女员工享受产假 128 天，男员工享受陪产假 15 天。");
    assert_int_equal(hd_engine_new(&f->engine, &o, NULL), HD_OK);
    assert_int_equal(
        hd_engine_load(f->engine, "tiny", HD_TEST_ROOT "/golden/models/qwen2-tied.gguf", 0, NULL),
        HD_OK);
    /* Documents are parsed in a child: AddressSanitizer's allocator, unlike the C library's, stays
     * locked in a child if another thread was in it, so none may be at work. */
    hd_engine_wait_loaded(f->engine, "tiny");
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    hd_kb_turn_free(f->turn);
    hd_engine_free(f->engine);
    hd_kb_close(f->kb);
    nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

/* The base is not open while the model works. */
static const struct hd_request *start(struct fixture *f)
{
    struct hd_kb_ask_options options = HD_KB_ASK_DEFAULT;
    struct hd_errmsg msg = {0};
    options.engine = f->engine;
    options.question = question;
    if (hd_kb_turn_new(&f->turn, f->kb, &local, &options, NULL, NULL, &msg))
        fail_msg("%s", msg.text);
    hd_kb_close(f->kb);
    f->kb = NULL;
    return hd_kb_turn_request(f->turn);
}

static const char *last_said(const struct hd_request *request)
{
    return request->messages[request->n_message - 1].content;
}

static const struct hd_request *check(struct fixture *f, double yes)
{
    struct hd_result result = {.finish = HD_FINISH_LENGTH, .n_prompt = 100, .n_generated = 1};
    for (size_t i = 0; i < 4; i++)
        result.watch_logprob[i] = (float)(i < 2 ? yes : 0) - 20;
    return hd_kb_turn_next(f->turn, &result);
}

static struct hd_result said = {.finish = HD_FINISH_STOP, .n_prompt = 50, .n_generated = 9};

static const struct hd_request *reply(struct fixture *f, const char *text)
{
    hd_kb_turn_feed(f->turn, HD_TEXT_ANSWER, text, strlen(text));
    return hd_kb_turn_next(f->turn, &said);
}

static void finish(struct fixture *f, struct hd_kb_answer *answer)
{
    struct hd_errmsg msg = {0};
    if (hd_kb_turn_finish(f->turn, &said, answer, &msg))
        fail_msg("%s", msg.text);
}

static void expect_translation(const struct hd_request *request)
{
    assert_non_null(request);
    assert_non_null(strstr(last_said(request), "Translate the question into Chinese."));
    assert_non_null(strstr(last_said(request), question));
}

/* Nothing near the question at all: translated at once, read in Chinese, answered in English. */
static void test_words_that_do_not_meet(void **state)
{
    struct fixture *f = *state;
    struct hd_kb_answer answer;
    expect_translation(start(f));
    const struct hd_request *request = reply(f, " 女员工的产假有多少天？\nThat is all.");
    assert_non_null(request);
    assert_non_null(strstr(last_said(request), "产假 128 天"));
    assert_non_null(strstr(last_said(request), question)); /* read as it was asked */
    assert_non_null(check(f, 5));
    assert_null(reply(f, "Maternity leave lasts 128 days."));
    finish(f, &answer);
    assert_true(answer.found);
    assert_string_equal(answer.answer, "Maternity leave lasts 128 days.[citation:1]");
    assert_string_equal(answer.citations[0].document.name, "休假制度.txt");
    assert_non_null(strstr(answer.citations[0].quote, "128"));
    assert_int_equal(answer.n_prompt, 200); /* translation, check, answer */
    hd_kb_answer_dispose(&answer);
}

/* The question's own language is read first, and alone if it answers. */
static void test_own_language_first(void **state)
{
    struct fixture *f = *state;
    struct hd_kb_answer answer;
    add(f, "women.txt", "The women's football team has maternity leave like everybody else.");
    const struct hd_request *request = start(f);
    assert_non_null(strstr(last_said(request), "football"));
    expect_translation(check(f, -5));
    request = reply(f, "女员工的产假有多少天？");
    assert_non_null(strstr(last_said(request), "产假"));
    assert_null(strstr(last_said(request), "football"));
    assert_null(check(f, -5));
    finish(f, &answer);
    assert_false(answer.found);
    assert_string_equal(answer.nearest[0].document.name, "women.txt");
    hd_kb_answer_dispose(&answer);
}

/* A number that the passage does not hold is no answer, in whatever language. */
static void test_numbers_must_agree(void **state)
{
    struct fixture *f = *state;
    struct hd_kb_answer answer;
    start(f);
    reply(f, "女员工的产假有多少天？");
    check(f, 5);
    assert_null(reply(f, "Maternity leave lasts 98 days."));
    finish(f, &answer);
    assert_false(answer.found);
    hd_kb_answer_dispose(&answer);
}

/* What would do from the question's own language is not sure enough here. */
static void test_must_be_probable(void **state)
{
    struct fixture *f = *state;
    struct hd_kb_answer answer;
    struct hd_result unsure = said;
    unsure.min_logprob = -1.6f;
    start(f);
    reply(f, "女员工的产假有多少天？");
    check(f, 5);
    hd_kb_turn_feed(f->turn, HD_TEXT_ANSWER, "It lasts 128 days.", 18);
    assert_null(hd_kb_turn_next(f->turn, &unsure));
    finish(f, &answer);
    assert_false(answer.found);
    hd_kb_answer_dispose(&answer);
}

/* Neither a translation that finds nothing nor none at all does harm. */
static void test_nothing_in_either(void **state)
{
    static const char *const useless[] = {"\n \n", "火星上有没有生命？"};
    struct fixture *f = *state;
    struct hd_kb_answer answer;
    for (size_t i = 0; i < 2; i++) {
        if (!f->kb)
            assert_int_equal(hd_kb_open(&f->kb, f->dir, &local, "b", false, NULL), HD_OK);
        expect_translation(start(f));
        assert_null(reply(f, useless[i]));
        finish(f, &answer);
        assert_false(answer.found);
        assert_int_equal(answer.n_citation, 0);
        hd_kb_answer_dispose(&answer);
        hd_kb_turn_free(f->turn);
        f->turn = NULL;
    }
}

/* A base that was removed while the model translated. */
static void test_the_base_is_gone(void **state)
{
    struct fixture *f = *state;
    struct hd_kb_answer answer;
    start(f);
    assert_int_equal(hd_kb_destroy(f->dir, &local, "b", NULL), HD_OK);
    assert_null(reply(f, "女员工的产假有多少天？"));
    finish(f, &answer);
    assert_false(answer.found);
    hd_kb_answer_dispose(&answer);
}

/* An empty base has no other language: nobody is asked. */
static void test_an_empty_base(void **state)
{
    struct fixture *f = *state;
    struct hd_kb_answer answer;
    hd_kb_close(f->kb);
    assert_int_equal(hd_kb_open(&f->kb, f->dir, &local, "empty", true, NULL), HD_OK);
    assert_null(start(f));
    finish(f, &answer);
    assert_false(answer.found);
    hd_kb_answer_dispose(&answer);
}

static void test_translator(void **state)
{
    struct hd_kb__translator t;
    assert_int_equal(hd_kb__translator_init(&t, "产假有多少天？", NULL, &local, 0), HD_OK);
    assert_non_null(strstr(last_said(&t.request), "把问题翻译成英文。"));
    assert_string_equal(hd_kb__translator_text(&t), "");
    hd_kb__translator_feed(&t, "\n How long is it?\nIt is long.", 29);
    assert_string_equal(hd_kb__translator_text(&t), "How long is it?");
    hd_kb__translator_dispose(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_words_that_do_not_meet, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_own_language_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_numbers_must_agree, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_must_be_probable, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_in_either, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_base_is_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_empty_base, set_up, tear_down),
        cmocka_unit_test(test_translator),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
