/* The streaming splitter: every case is fed byte by byte, in pieces of two to seven bytes, as one
 * token, and with the markers as control tokens; what comes out must always be the same. */
#include "support.h"

#include "base/utf8.h"

struct split_case {
    const char *name, *text;
    bool starts, split;
    const char *stop[3];
    const char *reasoning, *answer;
    bool stopped;
};

static const struct split_case cases[] = {
    {"plain answer", "Hello, 世界!", 0, 1, {0}, "", "Hello, 世界!", 0},
    {"opened by the prompt", "Let me see.\n</think>\n\n42", 1, 1, {0}, "Let me see.\n", "42", 0},
    {"opened by the output", "<think>\nhm\n</think>\n\n42", 0, 1, {0}, "hm\n", "42", 0},
    {"both", "<think>\nhm</think>42", 1, 1, {0}, "hm", "42", 0},
    {"no closing", "I wonder whether", 1, 1, {0}, "I wonder whether", "", 0},
    {"no opening", "reasoning</think>answer", 0, 1, {0}, "", "reasoninganswer", 0},
    {"empty thought", "<think>\n\n</think>\n\nyes", 0, 1, {0}, "", "yes", 0},
    {"empty thought, opened", "\n</think>\n\nyes", 1, 1, {0}, "", "yes", 0},
    {"closed at once", "</think>yes", 1, 1, {0}, "", "yes", 0},
    {"reopened", "a</think>b<think>c</think>d", 1, 1, {0}, "ac", "bd", 0},
    {"reopened after line breaks",
     "a\n</think>\n\n<think>\nb\n</think>\nc",
     1,
     1,
     {0},
     "a\nb\n",
     "c",
     0},
    {"reopened, never closed", "a</think>b<think>c", 1, 1, {0}, "ac", "b", 0},
    {"opened twice", "<think><think>a</think>b", 0, 1, {0}, "a", "b", 0},
    {"closed twice", "a</think></think>b", 1, 1, {0}, "a", "b", 0},
    {"nothing", "", 1, 1, {0}, "", "", 0},
    {"half a marker at the end", "a</thin", 1, 1, {0}, "a</thin", "", 0},
    {"almost a marker",
     "a</thinx <thin <think/> <<think>b</think>c",
     0,
     1,
     {0},
     "b",
     "a</thinx <thin <think/> <c",
     0},
    {"marker case matters", "<THINK>a</Think>", 0, 1, {0}, "", "<THINK>a</Think>", 0},
    {"spaces stay", "</think>  indented", 1, 1, {0}, "", "  indented", 0},
    {"no splitting", "<think>a</think>\nb", 0, 0, {0}, "", "<think>a</think>\nb", 0},
    {"no splitting, though opened", "a</think>b", 1, 0, {0}, "", "a</think>b", 0},
    {"stop", "one END two", 0, 1, {"END"}, "", "one ", 1},
    {"stop at once", "END two", 0, 1, {"END"}, "", "", 1},
    {"stop is no stop in a thought", "END</think>x END y", 1, 1, {"END"}, "END", "x ", 1},
    {"half a stop", "one EN", 0, 1, {"END"}, "", "one EN", 0},
    {"half a stop, then another", "ENEND", 0, 1, {"END"}, "", "EN", 1},
    {"first of two stops", "a\n\nUser: b", 0, 1, {"User:", "\n\n"}, "", "a", 1},
    {"stop of many bytes", "答案。问题：x", 0, 1, {"问题："}, "", "答案。", 1},
    {"stop after the marker's breaks", "t</think>\n\nyes\n\nno", 1, 1, {"\n\n"}, "t", "yes", 1},
    {"stop inside a marker's beginning", "a<thi", 0, 1, {"<t"}, "", "a", 1},
    {"empty stop is none", "abc", 0, 1, {"", "c"}, "", "ab", 1},
    {"stop without splitting", "<think>END", 0, 0, {"END"}, "", "<think>", 1},
    {"four byte characters", "👩‍💻</think>𠮷👍", 1, 1, {0}, "👩‍💻", "𠮷👍", 0},
    {"broken byte",
     "a\xff"
     "b",
     0,
     1,
     {0},
     "",
     "a\xef\xbf\xbd"
     "b",
     0},
    {"half a character at the end", "a\xe4\xbd", 0, 1, {0}, "", "a\xef\xbf\xbd", 0},
    {"half a character in the middle",
     "\xe4\xbd!\xf0\x9f\x91\xe4\xbd\xa0",
     0,
     1,
     {0},
     "",
     "\xef\xbf\xbd!\xef\xbf\xbd\xe4\xbd\xa0",
     0},
    {"half a character before a marker", "\xe4\xbd</think>a", 1, 1, {0}, "\xef\xbf\xbd", "a", 0},
};

struct seen {
    struct hd_buf text[2];
};

/* Each emission is whole characters, never empty, never a marker. */
static void collect(enum hd_split_kind kind, const char *text, size_t len, void *ud)
{
    struct seen *seen = ud;
    assert_true(len > 0);
    assert_true(hd_utf8_valid(text, len));
    hd_buf_append(&seen->text[kind], text, len);
}

static void run(const struct hd_tokenizer *tok, const struct split_case *c, const int32_t *ids,
                size_t n, const char *how)
{
    struct hd_splitter *splitter;
    struct seen seen;
    bool stopped = false;
    struct hd_split_options options = {.starts_in_think = c->starts,
                                       .split_think = c->split,
                                       .stop = c->stop,
                                       .n_stop = c->stop[0] ? (c->stop[1] ? 2 : 1) : 0};
    hd_buf_init(&seen.text[0], 1 << 20);
    hd_buf_init(&seen.text[1], 1 << 20);
    assert_int_equal(hd_splitter_new(&splitter, tok, &options), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(hd_splitter_push(splitter, ids[i], collect, &seen, &stopped), 0);
    assert_int_equal(hd_splitter_finish(splitter, collect, &seen), 0);
    if (strcmp(hd_buf_str(&seen.text[HD_SPLIT_REASONING]), c->reasoning) ||
        strcmp(hd_buf_str(&seen.text[HD_SPLIT_ANSWER]), c->answer) || stopped != c->stopped)
        fail_msg("%s, %s: reasoning \"%s\", answer \"%s\", stopped %d", c->name, how,
                 hd_buf_str(&seen.text[HD_SPLIT_REASONING]),
                 hd_buf_str(&seen.text[HD_SPLIT_ANSWER]), stopped);
    hd_splitter_free(splitter);
    hd_buf_dispose(&seen.text[0]);
    hd_buf_dispose(&seen.text[1]);
}

/* A vocabulary whose ids from 256 on are the text's pieces of `size` bytes. */
static void run_pieces(const struct split_case *c, size_t size)
{
    struct kit kit;
    json_t *json = make_json(NULL, NULL);
    json_t *vocab = json_object_get(json_object_get(json, "model"), "vocab");
    int32_t ids[128];
    size_t n = 0, len = strlen(c->text);
    char how[32];
    for (size_t i = 0; i < len; i += size, n++) {
        char *piece = to_alphabet(c->text + i, len - i < size ? len - i : size);
        if (!json_object_get(vocab, piece))
            json_object_set_new(vocab, piece, json_integer((json_int_t)json_object_size(vocab)));
        ids[n] = (int32_t)json_integer_value(json_object_get(vocab, piece));
        free(piece);
    }
    assert_int_equal(load_json(&kit, json, NULL), 0);
    snprintf(how, sizeof how, "pieces of %zu", size);
    run(kit.tok, c, ids, n, how);
    kit_free(&kit);
}

/* Markers as the single tokens that R1's vocabularies have; they may be control tokens. */
static void run_marker_tokens(const struct split_case *c, const char *const *added)
{
    struct kit kit;
    struct hd_ids ids;
    hd_ids_init(&ids, 1000);
    assert_int_equal(load_json(&kit, make_json(NULL, added), NULL), 0);
    for (const char *p = c->text; *p;) {
        size_t step = !strncmp(p, "<think>", 7) ? 7 : !strncmp(p, "</think>", 8) ? 8 : 1;
        hd_ids_push(&ids, step == 7 ? 256 : step == 8 ? 257 : (uint8_t)*p);
        p += step;
    }
    run(kit.tok, c, ids.id, ids.n, added[0][0] == '!' ? "control tokens" : "added tokens");
    hd_ids_dispose(&ids);
    kit_free(&kit);
}

static void splits_however_the_text_arrives(void **state)
{
    static const char *const control[] = {"!<think>", "!</think>", NULL};
    static const char *const plain[] = {"<think>", "</think>", NULL};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = strlen(cases[i].text);
        for (size_t size = 1; size <= 7; size++)
            run_pieces(&cases[i], size);
        run_pieces(&cases[i], len ? len : 1);
        run_marker_tokens(&cases[i], control);
        run_marker_tokens(&cases[i], plain);
    }
}

/* Text that cannot become a marker leaves at once: streaming does not lag. */
static void holds_back_no_more_than_it_must(void **state)
{
    struct kit kit;
    struct hd_splitter *splitter;
    struct seen seen;
    bool stopped;
    static const struct {
        const char *sent, *out;
    } steps[] = {{"a", "a"},
                 {"<", "a"},
                 {"b", "a<b"},
                 {"\xe4\xbd", "a<b"},
                 {"\xa0", "a<b你"},
                 {"E", "a<b你"},
                 {"x", "a<b你Ex"},
                 {"</thin", "a<b你Ex"},
                 {"g>", "a<b你Ex</thing>"}};
    const char *stop[] = {"END"};
    struct hd_split_options options = {.split_think = true, .stop = stop, .n_stop = 1};
    hd_buf_init(&seen.text[0], 100);
    hd_buf_init(&seen.text[1], 100);
    assert_int_equal(load_json(&kit, make_json(NULL, NULL), NULL), 0);
    assert_int_equal(hd_splitter_new(&splitter, kit.tok, &options), 0);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        for (const char *p = steps[i].sent; *p; p++)
            hd_splitter_push(splitter, (uint8_t)*p, collect, &seen, &stopped);
        assert_string_equal(hd_buf_str(&seen.text[HD_SPLIT_ANSWER]), steps[i].out);
    }
    hd_splitter_free(splitter);
    hd_buf_dispose(&seen.text[0]);
    hd_buf_dispose(&seen.text[1]);
    kit_free(&kit);
}

static void ignores_ids_that_do_not_exist(void **state)
{
    struct kit kit;
    struct split_case c = {"unknown ids", "", 0, 1, {0}, "", "ab", 0};
    static const int32_t ids[] = {'a', -1, INT32_MAX, 100000, 'b'};
    assert_int_equal(load_json(&kit, make_json(NULL, NULL), NULL), 0);
    run(kit.tok, &c, ids, 5, "unknown ids");
    kit_free(&kit);
}

static void refuses_stop_strings_that_are_no_text(void **state)
{
    struct kit kit;
    struct hd_splitter *splitter;
    const char *stop[] = {"\x80"};
    struct hd_split_options options = {.stop = stop, .n_stop = 1};
    assert_int_equal(load_json(&kit, make_json(NULL, NULL), NULL), 0);
    assert_int_equal(hd_splitter_new(&splitter, kit.tok, &options), HD_ERR_INVALID);
    assert_null(splitter);
    kit_free(&kit);
}

/* Asked thinkers end their thoughts with tags of their own: these part thought and answer too, and
 * show nowhere; without the option they are text. */
static void answer_tags_part_thought_and_answer(void **state)
{
    static const struct {
        const char *sent, *reasoning, *answer;
    } rows[] = {
        {"so</think> <final answer>\n42</final answer>", "so", "42"},
        {"so\n<final answer>\n42\n</final answer>\n", "so\n", "42\n"},
        {"so <answer>42</answer> done", "so ", "42done"},
        {"so</answer>, and so <最终答案>42</最终答案>", "so, and so ", "42"},
        {"a <answers> b</think><final>c", "a <answers> b", "<final>c"},
    };
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        struct kit kit;
        struct hd_splitter *splitter;
        struct seen seen;
        bool stopped, on = i % 2;
        struct hd_split_options options = {
            .split_think = true, .starts_in_think = true, .answer_tags = on};
        hd_buf_init(&seen.text[0], 200);
        hd_buf_init(&seen.text[1], 200);
        assert_int_equal(load_json(&kit, make_json(NULL, NULL), NULL), 0);
        assert_int_equal(hd_splitter_new(&splitter, kit.tok, &options), 0);
        for (const char *p = rows[i / 2].sent; *p; p++)
            hd_splitter_push(splitter, (uint8_t)*p, collect, &seen, &stopped);
        hd_splitter_finish(splitter, collect, &seen);
        const char *thought = hd_buf_str(&seen.text[HD_SPLIT_REASONING]);
        const char *answer = hd_buf_str(&seen.text[HD_SPLIT_ANSWER]);
        if (on) {
            assert_string_equal(thought, rows[i / 2].reasoning);
            assert_string_equal(answer, rows[i / 2].answer);
        } else {
            size_t len = strlen(rows[i / 2].sent);
            assert_true(strlen(thought) + strlen(answer) + strlen("</think>\n\n") >= len);
        }
        hd_splitter_free(splitter);
        hd_buf_dispose(&seen.text[0]);
        hd_buf_dispose(&seen.text[1]);
        kit_free(&kit);
    }
}

/* What steers a thought may ask where the text is. */
static void says_what_comes_next(void **state)
{
    struct kit kit;
    struct hd_splitter *splitter;
    struct seen seen;
    bool stopped;
    static const struct {
        const char *sent;
        enum hd_split_kind kind;
        bool in_character, holds_text;
    } steps[] = {
        {"a", HD_SPLIT_REASONING, false, false},    {"\xe4\xbd", HD_SPLIT_REASONING, true, true},
        {"\xa0", HD_SPLIT_REASONING, false, false}, {"</think", HD_SPLIT_REASONING, false, true},
        {">", HD_SPLIT_ANSWER, false, false},       {"<", HD_SPLIT_ANSWER, false, true},
        {"b", HD_SPLIT_ANSWER, false, false},       {"<think>", HD_SPLIT_REASONING, false, false}};
    struct hd_split_options options = {.split_think = true, .starts_in_think = true};
    hd_buf_init(&seen.text[0], 100);
    hd_buf_init(&seen.text[1], 100);
    assert_int_equal(load_json(&kit, make_json(NULL, NULL), NULL), 0);
    assert_int_equal(hd_splitter_new(&splitter, kit.tok, &options), 0);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        for (const char *p = steps[i].sent; *p; p++)
            hd_splitter_push(splitter, (uint8_t)*p, collect, &seen, &stopped);
        assert_int_equal(hd_splitter_kind(splitter), steps[i].kind);
        assert_int_equal(hd_splitter_in_character(splitter), steps[i].in_character);
        assert_int_equal(hd_splitter_holds_text(splitter), steps[i].holds_text);
    }
    hd_splitter_free(splitter);
    hd_buf_dispose(&seen.text[0]);
    hd_buf_dispose(&seen.text[1]);
    kit_free(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_however_the_text_arrives),
        cmocka_unit_test(holds_back_no_more_than_it_must),
        cmocka_unit_test(answer_tags_part_thought_and_answer),
        cmocka_unit_test(says_what_comes_next),
        cmocka_unit_test(ignores_ids_that_do_not_exist),
        cmocka_unit_test(refuses_stop_strings_that_are_no_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
