/* Which names of a question a passage lacks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "kb/names.h"

/* Two passages of one document, and one of another. */
static struct hd_kb_hit items[] = {
    {.document = {.id = 1, .name = "atlas-8d.md"},
     .heading = "The Odense Works",
     .text = "Each TH-O transformer from 2015 has a Buchholz relay; the gates close at 22."},
    {.document = {.id = 1, .name = "atlas-8d.md"}, .heading = "", .text = "Müller & Co. deliver."},
    {.document = {.id = 2, .name = "b.txt"},
     .heading = "",
     .text = "在《安全规程》里，K-12 学校和「包浩斯學院」的大门于 1998 年开放。"},
};

static bool stand(const char *question, size_t passage)
{
    return hd_kb__names_stand(question, items, 3, passage);
}

static void names_that_the_passage_or_its_document_holds(void **state)
{
    assert_true(stand("When do the gates close?", 0));
    assert_true(stand("Which relay has the TH-O transformer of 2015?", 0));
    assert_true(stand("When do the Odense gates close?", 0));      /* in the heading */
    assert_true(stand("What does an 8D report hold?", 0));         /* in the document's name */
    assert_true(stand("What do we buy from Muller?", 0));          /* in another of its passages */
    assert_true(stand("Apart from me, who? Within how long?", 0)); /* a sentence's first word */
    assert_true(stand("Do the Odenses close?", 0));                /* plural */
    assert_true(stand("", 0));
}

static void names_that_it_lacks(void **state)
{
    assert_false(stand("Which relay has the TH-D transformer?", 0));
    assert_false(stand("When do the Zurich gates close?", 0));
    assert_false(stand("When did the gates close in 2016?", 0));
    assert_false(stand("What does the ENR compile?", 0));
    assert_false(stand("WHICH RELAYS?", 0)); /* all in capitals, each word is one */
    assert_false(stand("TH-D: which relay has it?", 0));
}

static void chinese_names(void **state)
{
    assert_true(stand("K-12学校的大门哪年开放？", 2));
    assert_true(stand("《安全规程》里写了什么？", 2));
    assert_true(stand("谁创办了「包浩斯学院」？", 2)); /* simplified and traditional */
    assert_false(stand("谁创办了“法兰克福学院”？", 2));
    assert_false(stand("ENR在哪一年编制了数据？", 2));
    assert_false(stand("2010年的大门", 2));
    assert_true(stand("《没有结尾的书名", 2));
    assert_true(stand("《这是一个长得离谱而且肯定不是书名因为它一直写下去没有停的句子》", 2));
}

static void another_language_writes_names_differently(void **state)
{
    assert_true(stand("When does the Changzhou school open?", 2));
    assert_true(stand("TH-D 的继电器是什么？", 0));
}

/* As long as a request may be, and made to take long: every word is a name that stands. */
static void a_question_without_end(void **state)
{
    enum { N = 1 << 17 };
    static char question[8 * N + 1];
    double start = hd_clock_seconds();
    for (size_t i = 0; i < N; i++)
        memcpy(question + 8 * i, " Odense ", 8);
    assert_true(stand(question, 0));
    for (size_t i = 0; i < 8 * N; i++)
        question[i] = "close "[i % 6];
    assert_true(stand(question, 0));
    assert_true(hd_clock_seconds() - start < 5);
}

static void bytes_that_are_no_text(void **state)
{
    assert_true(stand("\xff\xfe close?", 0));
    assert_true(stand("\xe3\x80\x8c", 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_that_the_passage_or_its_document_holds),
        cmocka_unit_test(names_that_it_lacks),
        cmocka_unit_test(chinese_names),
        cmocka_unit_test(another_language_writes_names_differently),
        cmocka_unit_test(a_question_without_end),
        cmocka_unit_test(bytes_that_are_no_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
