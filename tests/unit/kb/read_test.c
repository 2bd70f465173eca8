/* The reader: which passages it shows, when it stops, what it answers from. The engine only
 * tokenizes here; what a model would reply is fed by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "holdfast/holdfast.h"
#include "kb/read.h"
#include "kb/read_wording.h"

static struct hd_kb_hit items[] = {
    {.score = 10, .heading = "Terms", .text = "The warranty lasts 36 months."},
    {.score = 8, .heading = "", .text = "Invoices are due after 30 days."},
    {.score = 7, .heading = "", .text = "The canteen closes at two."},
};
static const struct hd_kb_hits hits = {.items = items, .n = 3};
static const struct hd_principal local = HD_PRINCIPAL_LOCAL;

static int set_up(void **state)
{
    struct hd_engine_options o = HD_ENGINE_OPTIONS_DEFAULT;
    struct hd_engine *engine = NULL;
    struct hd_errmsg msg = {0};
    if (hd_engine_new(&engine, &o, &msg) ||
        hd_engine_load(engine, "tiny", HD_TEST_ROOT "/golden/models/qwen2-tied.gguf", 0, &msg))
        fail_msg("%s", msg.text);
    *state = engine;
    return 0;
}

static int tear_down(void **state)
{
    hd_engine_free(*state);
    return 0;
}

static struct hd_kb__reader *start(struct hd_engine *engine, const char *question)
{
    struct hd_kb__reader_options o = {.engine = engine,
                                      .principal = &local,
                                      .question = question,
                                      .hits = &hits,
                                      .n_passage = 5,
                                      .sampling = HD_SAMPLING_GREEDY};
    struct hd_kb__reader *reader = NULL;
    struct hd_errmsg msg = {0};
    if (hd_kb__reader_new(&reader, &o, &msg))
        fail_msg("%s", msg.text);
    return reader;
}

/* What the model replies to a check: log-odds of yes against no. */
static const struct hd_request *reply(struct hd_kb__reader *reader, double yes)
{
    const struct hd_request *request = hd_kb__reader_request(reader);
    struct hd_result result = {.finish = HD_FINISH_LENGTH, .n_prompt = 100, .n_generated = 1};
    assert_non_null(request);
    assert_int_equal(request->n_max, 1);
    assert_int_equal(request->n_watch, 4); /* yes, Yes, no, No */
    for (size_t i = 0; i < 4; i++)
        result.watch_logprob[i] = (float)(i < 2 ? yes : 0) - 20;
    return hd_kb__reader_next(reader, &result);
}

static const struct hd_request *answer(struct hd_kb__reader *reader, const char *text)
{
    struct hd_result result = {.finish = HD_FINISH_STOP, .n_prompt = 120, .n_generated = 9};
    assert_true(hd_kb__reader_request(reader)->n_max > 1);
    hd_kb__reader_feed(reader, text, strlen(text));
    return hd_kb__reader_next(reader, &result);
}

/* As answer(), one token of which the model thought unlikely. */
static const struct hd_request *unsure_answer(struct hd_kb__reader *reader, const char *text)
{
    struct hd_result result = {.finish = HD_FINISH_STOP, .n_generated = 9, .min_logprob = -4};
    hd_kb__reader_feed(reader, text, strlen(text));
    return hd_kb__reader_next(reader, &result);
}

static const char *last_said(const struct hd_request *request, size_t back)
{
    return request->messages[request->n_message - 1 - back].content;
}

static void test_a_sure_passage_ends_the_reading(void **state)
{
    struct hd_kb__reader *reader = start(*state, "How long is the warranty?");
    const struct hd_request *request = hd_kb__reader_request(reader);
    assert_non_null(strstr(last_said(request, 0), "Terms\nThe warranty lasts 36 months."));
    assert_non_null(strstr(last_said(request, 0), "Question: How long is the warranty?"));
    size_t n = request->n_message;
    request = reply(reader, 5);
    assert_int_equal(request->n_message, n + 2); /* the same conversation goes on */
    assert_non_null(strstr(last_said(request, 2), "36 months"));
    assert_null(answer(reader, " It lasts 36 months.\n"));
    struct hd_kb__reading reading;
    hd_kb__reader_result(reader, &reading);
    assert_true(reading.found);
    assert_int_equal(reading.passage, 0);
    assert_string_equal(reading.answer, "It lasts 36 months.");
    assert_true(reading.probability > 0.8);
    assert_int_equal(reading.total.n_prompt, 220);
    assert_int_equal(reading.total.n_generated, 10);
    hd_kb__reader_free(reader);
}

static void test_nothing_is_found(void **state)
{
    struct hd_kb__reader *reader = start(*state, "Who cleans the windows?");
    assert_non_null(reply(reader, -5));
    assert_non_null(reply(reader, -5));
    assert_null(reply(reader, -5));
    struct hd_kb__reading reading;
    hd_kb__reader_result(reader, &reading);
    assert_false(reading.found);
    assert_string_equal(reading.answer, "");
    assert_true(reading.probability < 0.05);
    hd_kb__reader_free(reader);
}

static void test_the_most_probable_answers(void **state)
{
    struct hd_kb__reader *reader = start(*state, "When is an invoice due?");
    assert_non_null(reply(reader, 0));
    assert_non_null(reply(reader, 1));
    const struct hd_request *request = reply(reader, -4);
    assert_non_null(strstr(last_said(request, 2), "Invoices"));
    /* It declines: the next one is tried, and the third, which is improbable, is not. */
    request = answer(reader, "資料沒有提到這件事。");
    assert_non_null(strstr(last_said(request, 2), "warranty"));
    assert_null(answer(reader, "The passage does not mention it."));
    struct hd_kb__reading reading;
    hd_kb__reader_result(reader, &reading);
    assert_false(reading.found);
    hd_kb__reader_free(reader);
}

/* The passage seemed to hold it, but the model guessed a word. */
static void test_an_unsure_answer_is_kept_back(void **state)
{
    struct hd_kb__reading reading;
    struct hd_kb__reader *reader = start(*state, "How long is the warranty?");
    assert_non_null(reply(reader, 5));
    assert_null(unsure_answer(reader, "It lasts 24 months."));
    hd_kb__reader_result(reader, &reading);
    assert_false(reading.found);
    assert_string_equal(reading.answer, "");
    assert_true(reading.probability < 0.3);
    hd_kb__reader_free(reader);
}

/* A little doubt is enough where the passage does not know whom the question names. */
static void test_a_name_that_the_passage_lacks_weighs(void **state)
{
    static const char *const questions[] = {"How long is the warranty?",
                                            "How long is the Zurich warranty?"};
    for (int lacks = 0; lacks < 2; lacks++) {
        struct hd_kb__reading reading;
        struct hd_kb__reader *reader = start(*state, questions[lacks]);
        struct hd_result doubt = {.finish = HD_FINISH_STOP, .n_generated = 9, .min_logprob = -1};
        assert_non_null(reply(reader, 5));
        hd_kb__reader_feed(reader, "36 months.", 10);
        assert_null(hd_kb__reader_next(reader, &doubt));
        hd_kb__reader_result(reader, &reading);
        assert_int_equal(reading.found, !lacks);
        hd_kb__reader_free(reader);
    }
}

static void test_an_error_ends_it(void **state)
{
    struct hd_kb__reader *reader = start(*state, "How long is the warranty?");
    struct hd_result result = {.finish = HD_FINISH_ERROR, .err = HD_ERR_BUSY};
    assert_null(hd_kb__reader_next(reader, &result));
    struct hd_kb__reading reading;
    hd_kb__reader_result(reader, &reading);
    assert_false(reading.found);
    assert_int_equal(reading.total.err, HD_ERR_BUSY);
    hd_kb__reader_free(reader);
}

/* This vocabulary begins 有 and 没有 with the same byte: the reply says nothing then, and the order
 * of retrieval decides. */
static void test_words_that_begin_alike(void **state)
{
    struct hd_kb__reader *reader = start(*state, "保修多久？");
    assert_int_equal(hd_kb__reader_request(reader)->n_watch, 0);
    struct hd_result result = {.finish = HD_FINISH_LENGTH};
    assert_non_null(hd_kb__reader_next(reader, &result));
    hd_kb__reader_free(reader);
}

static void test_wording_follows_the_question(void **state)
{
    const struct hd_kb__wording *english = hd_kb__reading_wording("How long is the warranty?"),
                                *simplified = hd_kb__reading_wording("变压器的质保期有多长？"),
                                *traditional = hd_kb__reading_wording("變壓器的質保期有多長？");
    assert_false(english->is_chinese);
    assert_true(simplified->is_chinese && traditional->is_chinese);
    assert_string_equal(simplified->question, "问题：");
    assert_string_equal(traditional->question, "問題：");
    assert_ptr_equal(hd_kb__reading_wording("TH-O 的质保期是多久？"), simplified);
    /* one traditional character, of a name */
    assert_ptr_equal(hd_kb__reading_wording("乾隆皇帝在位多少年？"), simplified);
    /* in traditional characters the model says yes more readily: evened out */
    assert_true(traditional->yes_scale < simplified->yes_scale);
    for (size_t i = 0; i < HD_KB__N_DEMO; i++)
        assert_int_equal(!english->demos[i].answer, !traditional->demos[i].answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_sure_passage_ends_the_reading),
        cmocka_unit_test(test_nothing_is_found),
        cmocka_unit_test(test_the_most_probable_answers),
        cmocka_unit_test(test_an_unsure_answer_is_kept_back),
        cmocka_unit_test(test_a_name_that_the_passage_lacks_weighs),
        cmocka_unit_test(test_an_error_ends_it),
        cmocka_unit_test(test_words_that_begin_alike),
        cmocka_unit_test(test_wording_follows_the_question),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
