/* Thinking under control, over tiny random models, which obey nothing: one that thinks by itself
 * and one that is asked to. Budgets, answers that always come, loops, ends of turn, pre-emption,
 * turns left out. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <ctype.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "holdfast/holdfast.h"

#define MODELS HD_TEST_ROOT "/golden/models/"
#ifdef __SANITIZE_ADDRESS__ /* ten times as slow: fewer of the same lengths */
enum { STRIDE = 2 };
#else
enum { STRIDE = 1 };
#endif
static const char *const files[] = {"deepseek-v3", "qwen2-tied"};

static struct hd_engine *start_with(const char *model, int n_ctx, size_t kv_bytes, int max_sessions)
{
    struct hd_errmsg msg = {0};
    struct hd_engine *e = NULL;
    struct hd_engine_options o = HD_ENGINE_OPTIONS_DEFAULT;
    char path[512];
    o.kernels = "ref";
    o.n_thread = 1;
    o.kv_bytes_max = kv_bytes;
    o.max_sessions = max_sessions;
    snprintf(path, sizeof path, MODELS "%s", model);
    if (hd_engine_new(&e, &o, &msg) || hd_engine_load(e, "tiny", path, n_ctx, &msg))
        fail_msg("%s: %s", model, msg.text);
    return e;
}

static struct hd_engine *start(const char *model)
{
    return start_with(model, 0, 32 << 20, 4);
}

struct said {
    char *answer, *reasoning;
    struct hd_result result;
};

static void dispose(struct said *said)
{
    free(said->answer);
    free(said->reasoning);
}

static struct hd_request ask(const struct hd_message *message, int n_max, int budget)
{
    return (struct hd_request){.messages = message,
                               .n_message = 1,
                               .ask_think = true,
                               .n_max = n_max,
                               .max_thinking = budget,
                               .sampling = HD_SAMPLING_GREEDY};
}

static struct said generate(struct hd_engine *e, const struct hd_request *r)
{
    struct said said;
    struct hd_errmsg msg = {0};
    if (hd_engine_generate(e, &said.answer, &said.reasoning, &said.result, r, &msg))
        fail_msg("%s", msg.text);
    return said;
}

static bool blank(const char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    return !*text;
}

static void assert_sound(const struct said *said, const struct hd_request *r)
{
    const struct hd_result *result = &said->result;
    assert_false(blank(said->answer));
    assert_null(strstr(said->answer, "<think"));
    assert_null(strstr(said->answer, "</think"));
    assert_null(strstr(said->reasoning, "</think>"));
    assert_true(result->n_generated <= r->n_max);
    if (r->max_thinking)
        assert_true(result->n_reasoning <= r->max_thinking);
    assert_true(result->reasoning_stop > HD_REASONING_NONE);
    assert_true(result->reasoning_stop < HD_REASONING_OPEN);
}

static void budgets_are_kept_and_answers_come(void **state)
{
    const struct hd_message message = {.role = "user", .content = "Why is the sky blue?"};
    for (int f = 0; f < 2; f++) {
        struct hd_engine *e = start(files[f]);
        int stops[HD_REASONING_N] = {0};
        for (int budget = 1; budget < 260; budget += STRIDE * (budget < 24 ? 3 : 59)) {
            struct hd_request r = ask(&message, 400, budget);
            r.any_loops = budget % 2;
            r.sampling = (struct hd_sampling){
                .temperature = 0.9f, .top_p = 1, .repetition_penalty = 1, .seed = (uint64_t)budget};
            struct said said = generate(e, &r);
            assert_sound(&said, &r);
            stops[said.result.reasoning_stop]++;
            dispose(&said);
        }
        assert_true(stops[HD_REASONING_BUDGET] > 0);
        hd_engine_free(e);
    }
}

static void room_for_the_answer_is_kept(void **state)
{
    const struct hd_message message = {.role = "user", .content = "Why is the sky blue?"};
    for (int f = 0; f < 2; f++) {
        struct hd_engine *e = start(files[f]);
        int stops[HD_REASONING_N] = {0};
        for (int n_max = 1; n_max < 200;
             n_max += STRIDE * (n_max < 40 ? (n_max < 5 ? 1 : 5) : 77)) {
            struct hd_request r = ask(&message, n_max, 0);
            r.any_loops = true;
            struct said said = generate(e, &r);
            assert_sound(&said, &r);
            stops[said.result.reasoning_stop]++;
            dispose(&said);
        }
        assert_true(stops[HD_REASONING_LENGTH] > 0);
        hd_engine_free(e);
    }
}

/* Without a thought: the answer cannot begin one. */
static void fast_mode_has_no_thought(void **state)
{
    const struct hd_message message = {.role = "user", .content = "Why is the sky blue?"};
    for (int f = 0; f < 2; f++) {
        struct hd_engine *e = start(files[f]);
        struct hd_request r = ask(&message, 80, 0);
        r.no_think = true;
        struct said said = generate(e, &r);
        assert_int_equal(said.result.reasoning_stop, HD_REASONING_NONE);
        assert_int_equal(said.result.n_reasoning, 0);
        assert_true(blank(said.reasoning));
        assert_false(blank(said.answer) && f == 0);
        dispose(&said);
        hd_engine_free(e);
    }
}

/* Greedy, such models soon repeat themselves; warm, they sooner or later end their turn. */
static void loops_and_ends_of_turn_are_named(void **state)
{
    const struct hd_message message = {.role = "user", .content = "为什么天空是蓝色的？"};
    int loops = 0, ended = 0;
    for (int f = 0; f < 2; f++) {
        struct hd_engine *e = start(files[f]);
        struct hd_request r = ask(&message, 420, 350);
        struct said said = generate(e, &r);
        assert_sound(&said, &r);
        if (said.result.reasoning_stop == HD_REASONING_LOOP) {
            loops++;
            assert_true(said.result.n_reasoning < 350);
            dispose(&said);
            r.any_loops = true;
            said = generate(e, &r);
            assert_int_not_equal(said.result.reasoning_stop, HD_REASONING_LOOP);
            assert_false(said.result.answer_loops);
        }
        dispose(&said);
        for (uint64_t seed = 1; seed <= 6; seed++) {
            r = ask(&message, 420, 350);
            r.sampling = (struct hd_sampling){
                .temperature = 1.5f, .top_p = 1, .repetition_penalty = 1, .seed = seed};
            said = generate(e, &r);
            assert_sound(&said, &r);
            ended += said.result.reasoning_stop == HD_REASONING_ENDED;
            dispose(&said);
        }
        hd_engine_free(e);
    }
    assert_true(loops > 0);
    assert_true(ended > 0);
}

/* --- pre-emption ------------------------------------------------------------------------------ */

enum { CROWD = 6 };

struct run {
    struct hd_message message;
    struct hd_request request;
    char text[8192], content[32];
    size_t len;
    struct hd_result result;
    atomic_int done;
};

static void on_text(void *ud, enum hd_text_kind kind, const char *text, size_t len)
{
    struct run *run = ud;
    assert_true(run->len + len + 1 < sizeof run->text);
    run->text[run->len++] = kind == HD_TEXT_REASONING ? 'r' : 'a';
    memcpy(run->text + run->len, text, len);
    run->len += len;
}

static void on_done(void *ud, const struct hd_result *result)
{
    struct run *run = ud;
    run->result = *result;
    atomic_fetch_add(&run->done, 1);
}

static void begin(struct hd_engine *e, struct run *run, int i)
{
    const struct hd_callbacks callbacks = {.on_text = on_text, .on_done = on_done, .ud = run};
    struct hd_errmsg msg = {0};
    memset(run, 0, sizeof *run);
    snprintf(run->content, sizeof run->content, "Question %d", i);
    run->message = (struct hd_message){.role = "user", .content = run->content};
    run->request = ask(&run->message, 200, 60 + 20 * i);
    run->request.sampling = (struct hd_sampling){
        .temperature = 0.8f, .top_p = 0.95f, .repetition_penalty = 1, .seed = (uint64_t)i};
    if (hd_engine_submit(e, NULL, &run->request, &callbacks, &msg))
        fail_msg("%s", msg.text);
}

static void wait_for(struct run *run)
{
    const struct timespec nap = {0, 1000 * 1000};
    for (int i = 0; i < 60000 && !atomic_load(&run->done); i++)
        nanosleep(&nap, NULL);
    assert_int_equal(atomic_load(&run->done), 1);
}

/* KV bytes for 14 blocks or a little less. */
static size_t few_blocks(const char *model)
{
    struct hd_engine_stats stats;
    struct hd_engine *e = start_with(model, 512, 1 << 20, 64);
    hd_engine_stats(e, &stats);
    hd_engine_free(e);
    return (size_t)(1 << 20) / (size_t)stats.kv_blocks_total * 14;
}

/* Alone with plenty of room, and six at once where KV is so short that they push each other out:
 * forced text, cuts and answers are the same, byte by byte. */
static void pre_emption_changes_nothing(void **state)
{
    static struct run alone[CROWD], together[CROWD];
    struct hd_engine_stats stats;
    for (int f = 0; f < 2; f++) {
        struct hd_engine *e = start(files[f]);
        for (int i = 0; i < CROWD; i++) {
            begin(e, &alone[i], i);
            wait_for(&alone[i]);
        }
        hd_engine_free(e);
        e = start_with(files[f], 512, few_blocks(files[f]), CROWD);
        hd_engine_stats(e, &stats);
        assert_true(stats.kv_blocks_total <= 14); /* six conversations of at least four each */
        for (int i = 0; i < CROWD; i++)
            begin(e, &together[i], i);
        for (int i = 0; i < CROWD; i++)
            wait_for(&together[i]);
        hd_engine_free(e);
        for (int i = 0; i < CROWD; i++) {
            assert_int_equal(alone[i].len, together[i].len);
            assert_memory_equal(alone[i].text, together[i].text, alone[i].len);
            assert_int_equal(alone[i].result.reasoning_stop, together[i].result.reasoning_stop);
            assert_int_equal(alone[i].result.n_reasoning, together[i].result.n_reasoning);
        }
    }
}

/* --- turns left out --------------------------------------------------------------------------- */

enum { TURNS = 40 };

static void whole_turns_are_left_out_when_asked(void **state)
{
    struct hd_message messages[2 * TURNS + 2] = {{.role = "system", .content = "Be brief."}};
    size_t n = 1;
    for (int i = 0; i < TURNS; i++) {
        messages[n++] = (struct hd_message){.role = "user", .content = "A question of some length"};
        messages[n++] = (struct hd_message){.role = "assistant", .content = "An answer like it."};
    }
    messages[n++] = (struct hd_message){.role = "user", .content = "The last one?"};
    struct hd_engine *e = start_with("qwen2-tied", 512, 32 << 20, 2);
    struct hd_model_info info;
    struct hd_errmsg msg = {0};
    assert_int_equal(hd_engine_model_info(e, 0, &info), HD_OK);
    struct hd_request r = {
        .messages = messages, .n_message = n, .n_max = 20, .sampling = HD_SAMPLING_GREEDY};
    assert_int_equal(
        hd_engine_submit(e, NULL, &r, &(struct hd_callbacks){.on_done = on_done}, &msg),
        HD_ERR_LIMIT);
    r.drop_turns = true;
    struct said said = generate(e, &r);
    int dropped = said.result.n_dropped;
    assert_true(dropped > 0 && dropped < 2 * TURNS && dropped % 2 == 0);
    assert_true(said.result.n_prompt + 20 <= info.n_ctx);
    dispose(&said);
    /* one turn less left out would not have fitted; this many by hand is the same prompt */
    memmove(messages + 1, messages + 1 + dropped, (n - 1 - (size_t)dropped) * sizeof *messages);
    r.n_message = n - (size_t)dropped;
    struct said by_hand = generate(e, &r);
    assert_int_equal(by_hand.result.n_dropped, 0);
    assert_int_equal(by_hand.result.n_prompt, said.result.n_prompt);
    dispose(&by_hand);
    hd_engine_free(e);
}

static void efforts_have_names(void **state)
{
    bool none = false;
    int most = 0, before = 0;
    static const char *const efforts[] = {"minimal", "low", "medium", "high", "xhigh"};
    assert_true(hd_reasoning_effort("none", &none, &most) && none && !most);
    for (int i = 0; i < 5; i++) {
        assert_true(hd_reasoning_effort(efforts[i], &none, &most) && !none);
        assert_true(most > before);
        before = most;
    }
    assert_false(hd_reasoning_effort("High", &none, &most));
    for (int i = 0; i < HD_REASONING_N; i++)
        assert_non_null(hd_reasoning_stop_name(i));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(budgets_are_kept_and_answers_come),
        cmocka_unit_test(room_for_the_answer_is_kept),
        cmocka_unit_test(fast_mode_has_no_thought),
        cmocka_unit_test(loops_and_ends_of_turn_are_named),
        cmocka_unit_test(pre_emption_changes_nothing),
        cmocka_unit_test(whole_turns_are_left_out_when_asked),
        cmocka_unit_test(efforts_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
