/* Calls of functions in generated text: every case is fed byte by byte, and with the marks as
 * control tokens; what comes out must be the same, and never the beginning of a call as text. */
#include "support.h"

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":{}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"add\"}}]";

static const char *const marks[] = {"!<｜tool▁calls▁begin｜>",
                                    "!<｜tool▁calls▁end｜>",
                                    "!<｜tool▁call▁begin｜>",
                                    "!<｜tool▁call▁end｜>",
                                    "!<｜tool▁sep｜>",
                                    "<tool_call>",
                                    "</tool_call>",
                                    "!<|python_tag|>",
                                    "<think>",
                                    "</think>",
                                    NULL};

#define CB "<｜tool▁calls▁begin｜>"
#define CE "<｜tool▁calls▁end｜>"
#define B "<｜tool▁call▁begin｜>"
#define E "<｜tool▁call▁end｜>"
#define SEP "<｜tool▁sep｜>"
#define WEATHER(arguments) "C{\"name\":\"get_weather\",\"arguments\":\"" arguments "\"}"
#define ADD(arguments) "C{\"name\":\"add\",\"arguments\":\"" arguments "\"}"

static const struct call_case {
    const char *name, *text, *want; /* want: R, A or C before each kind's text */
    const char *stop;
    bool starts;
} cases[] = {
    {"no call", "Hello there.", "AHello there.", NULL, 0},
    {"nothing", "", "", NULL, 0},
    {"white space", " \n", "A \n", NULL, 0},
    /* DeepSeek */
    {"R1-0528", CB B "function" SEP "get_weather\n```json\n{\"city\": \"北京\"}\n```" E CE,
     WEATHER("{\\\"city\\\": \\\"北京\\\"}"), NULL, 0},
    {"two calls of R1",
     CB B "function" SEP "get_weather\n```json\n{\"city\": \"A\"}\n```" E "\n" B "function" SEP
          "add\n```json\n{\"a\": 1,\n \"b\": 2}\n```" E CE,
     WEATHER("{\\\"city\\\": \\\"A\\\"}") ADD("{\\\"a\\\": 1,\\n \\\"b\\\": 2}"), NULL, 0},
    {"text before", "I will look.\n" CB B "function" SEP "add\n```json\n{}\n```" E CE,
     "AI will look.\n" ADD("{}"), NULL, 0},
    {"after a thought",
     "hm\n</think>\n\n" CB B "function" SEP "add\n```json\n{\"a\": 1.50}\n```" E CE,
     "Rhm\n" ADD("{\\\"a\\\": 1.50}"), NULL, 1},
    {"inside a thought that never closes", "hm " CB B "function" SEP "add\n```json\n{}\n```" E CE,
     "Rhm " ADD("{}"), NULL, 1},
    {"V3.1",
     CB B "get_weather" SEP "{\"city\": \"A\"}" E B "add" SEP "{\"a\": [1, {\"b\": null}]}" E CE,
     WEATHER("{\\\"city\\\": \\\"A\\\"}") ADD("{\\\"a\\\": [1, {\\\"b\\\": null}]}"), NULL, 0},
    {"without the outer marks", B "function" SEP "add\n```json\n{}\n```" E, ADD("{}"), NULL, 0},
    {"the end is missing", CB B "function" SEP "add\n```json\n{\"a\": 1}\n```",
     ADD("{\\\"a\\\": 1}"), NULL, 0},
    {"no fence", CB B "function" SEP "add\n{\"a\": 1}" E CE, ADD("{\\\"a\\\": 1}"), NULL, 0},
    {"no arguments", CB B "function" SEP "add\n```json\n\n```" E CE, ADD("{}"), NULL, 0},
    {"arguments are no JSON", CB B "function" SEP "add\n```json\n{a: 1}\n```" E CE,
     "A" CB B "function" SEP "add\n```json\n{a: 1}\n```" E CE, NULL, 0},
    {"arguments are no object", CB B "function" SEP "add\n```json\n[1]\n```" E CE,
     "A" CB B "function" SEP "add\n```json\n[1]\n```" E CE, NULL, 0},
    {"no name", CB B "function" SEP "\n```json\n{}\n```" E CE,
     "A" CB B "function" SEP "\n```json\n{}\n```" E CE, NULL, 0},
    {"no separator", CB B "function add" E CE, "A" CB B "function add" E CE, NULL, 0},
    {"text among the calls", CB "well" E CE, "A" CB "well" E CE, NULL, 0},
    {"cut off", CB B "function" SEP "add\n```json\n{\"a\": ",
     "A" CB B "function" SEP "add\n```json\n{\"a\": ", NULL, 0},
    /* Qwen2.5 */
    {"Qwen2.5",
     "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"上海\", \"n\": "
     "1.10}}\n</tool_call>",
     WEATHER("{\\\"city\\\": \\\"上海\\\", \\\"n\\\": 1.10}"), NULL, 0},
    {"two calls of Qwen2.5",
     "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": "
     "1}}\n</tool_call>\n<tool_call>\n{\"name\": "
     "\"add\", \"arguments\": {}}\n</tool_call>",
     ADD("{\\\"a\\\": 1}") ADD("{}"), NULL, 0},
    {"text around",
     "First.\n<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>\n\nThen.",
     "AFirst.\n" ADD("{}") "AThen.", NULL, 0},
    {"an end mark inside a string",
     "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"x\": \"a </tool_call> b\"}}\n</tool_call>",
     ADD("{\\\"x\\\": \\\"a </tool_call> b\\\"}"), NULL, 0},
    {"a function that is not there",
     "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>",
     "C{\"name\":\"other\",\"arguments\":\"{}\"}", NULL, 0},
    {"arguments as text",
     "<tool_call>\n{\"name\": \"add\", \"arguments\": \"{\\\"a\\\": 1}\"}\n</tool_call>",
     ADD("{\\\"a\\\": 1}"), NULL, 0},
    {"not closed", "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}",
     ADD("{\\\"a\\\": 1}"), NULL, 0},
    {"malformed", "<tool_call>\n{\"name\": add}\n</tool_call> x",
     "A<tool_call>\n{\"name\": add}\n</tool_call> x", NULL, 0},
    {"empty", "<tool_call>\n</tool_call>", "A<tool_call>\n</tool_call>", NULL, 0},
    {"half a mark", "a <tool_c", "Aa <tool_c", NULL, 0},
    {"almost a mark", "<tool_cat> <tool", "A<tool_cat> <tool", NULL, 0},
    /* without marks */
    {"Llama 3.1", "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"A\"}}",
     WEATHER("{\\\"city\\\": \\\"A\\\"}"), NULL, 0},
    {"Llama 3.1 with its tag", "<|python_tag|>{\"name\": \"add\", \"parameters\": {\"a\": 1}}",
     ADD("{\\\"a\\\": 1}"), NULL, 0},
    {"several of Llama 3.1",
     "{\"name\": \"add\", \"parameters\": {\"a\": 1}}; {\"name\": \"add\", \"parameters\": {\"a\": "
     "2}}",
     ADD("{\\\"a\\\": 1}") ADD("{\\\"a\\\": 2}"), NULL, 0},
    {"typed",
     "{\"type\": \"function\", \"function\": {\"name\": \"add\", \"arguments\": {\"a\": 1}}}",
     ADD("{\\\"a\\\": 1}"), NULL, 0},
    {"Qwen2.5-Coder, bare", "\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n",
     ADD("{\\\"a\\\": 1}"), NULL, 0},
    {"Qwen2.5-Coder, fenced", "```json\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n```",
     ADD("{\\\"a\\\": 1}"), NULL, 0},
    {"Qwen2.5-Coder, tagged", "<tools>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tools>",
     ADD("{\\\"a\\\": 1}"), NULL, 0},
    {"a list",
     "[{\"name\": \"add\", \"arguments\": {}}, {\"name\": \"add\", \"arguments\": {\"a\": 2}}]",
     ADD("{}") ADD("{\\\"a\\\": 2}"), NULL, 0},
    {"Qwen2.5-Coder-1.5B, doubled braces", "{{\"name\": \"add\", \"arguments\": {\"a\": 1}}}",
     ADD("{\\\"a\\\": 1}"), NULL, 0},
    {"doubled, closed once", "{{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n",
     ADD("{\\\"a\\\": 1}"), NULL, 0},
    {"JSON that is no call", "{\"name\": \"Alice\", \"arguments\": {}}",
     "A{\"name\": \"Alice\", \"arguments\": {}}", NULL, 0},
    {"JSON without arguments", "{\"name\": \"add\"}", "A{\"name\": \"add\"}", NULL, 0},
    {"other JSON", "{\"answer\": 42}", "A{\"answer\": 42}", NULL, 0},
    {"code", "```json\n{\"port\": 80}\n```\nis it.", "A```json\n{\"port\": 80}\n```\nis it.", NULL,
     0},
    {"code of another language", "```c\nint x;\n```", "A```c\nint x;\n```", NULL, 0},
    {"a call and more", "{\"name\": \"add\", \"arguments\": {}} That is all.",
     "A{\"name\": \"add\", \"arguments\": {}} That is all.", NULL, 0},
    {"a call later", "Use {\"name\": \"add\", \"arguments\": {}}",
     "AUse {\"name\": \"add\", \"arguments\": {}}", NULL, 0},
    {"duplicate names", "{\"name\": \"add\", \"name\": \"add\", \"arguments\": {}}",
     "A{\"name\": \"add\", \"name\": \"add\", \"arguments\": {}}", NULL, 0},
    /* stop strings */
    {"a stop inside a call is none",
     "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"x\": \"END\"}}\n</tool_call>",
     ADD("{\\\"x\\\": \\\"END\\\"}"), "END", 0},
    {"a stop in the answer",
     "a END <tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>", "Aa ", "END", 0},
    {"a stop in JSON that is no call", "{\"name\": \"END\"}", "A{\"name\": \"", "END", 0},
};

struct seen {
    struct hd_buf text;
    int kind;
};

static void collect(enum hd_split_kind kind, const char *text, size_t len, void *ud)
{
    struct seen *seen = ud;
    assert_true(len > 0);
    if ((int)kind != seen->kind || kind == HD_SPLIT_CALL)
        hd_buf_putc(&seen->text, "RAC"[kind]);
    seen->kind = (int)kind;
    hd_buf_append(&seen->text, text, len);
}

static void run(const struct call_case *c, bool as_tokens)
{
    struct kit kit;
    struct hd_ids ids;
    struct seen seen = {.kind = -1};
    struct hd_splitter *splitter;
    bool stopped = false;
    const struct hd_split_options options = {.starts_in_think = c->starts,
                                             .split_think = true,
                                             .stop = &c->stop,
                                             .n_stop = c->stop != NULL,
                                             .tools = tools};
    hd_ids_init(&ids, 1 << 16);
    hd_buf_init(&seen.text, 1 << 20);
    assert_int_equal(load_json(&kit, make_json(NULL, marks), NULL), 0);
    assert_int_equal(hd_tokenizer_encode(kit.tok, &ids, c->text, strlen(c->text), as_tokens), 0);
    assert_int_equal(hd_splitter_new(&splitter, kit.tok, &options), 0);
    for (size_t i = 0; i < ids.n; i++)
        assert_int_equal(hd_splitter_push(splitter, ids.id[i], collect, &seen, &stopped), 0);
    assert_int_equal(hd_splitter_finish(splitter, collect, &seen), 0);
    if (strcmp(hd_buf_str(&seen.text), c->want) != 0)
        fail_msg("%s%s: %s\nis due: %s", c->name, as_tokens ? ", as tokens" : "",
                 hd_buf_str(&seen.text), c->want);
    hd_splitter_free(splitter);
    hd_buf_dispose(&seen.text);
    hd_ids_dispose(&ids);
    kit_free(&kit);
}

static void finds_calls(void **state)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run(&cases[i], false);
        run(&cases[i], true);
    }
}

/* Without tools nothing is looked for, and what no longer can be a call comes out at once. */
static void holds_back_only_what_may_be_a_call(void **state)
{
    static const char *const plain[] = {"Hello", "{\"answer\": ", "```python\n", "<b>", "[1, "};
    struct kit kit;
    assert_int_equal(load_json(&kit, make_json(NULL, marks), NULL), 0);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        struct hd_splitter *splitter;
        struct seen seen = {.kind = -1};
        bool stopped;
        hd_buf_init(&seen.text, 1 << 10);
        const struct hd_split_options options = {.tools = tools};
        assert_int_equal(hd_splitter_new(&splitter, kit.tok, &options), 0);
        for (const char *p = plain[i]; *p; p++)
            assert_int_equal(
                hd_splitter_push(splitter, (unsigned char)*p, collect, &seen, &stopped), 0);
        assert_string_equal(hd_buf_str(&seen.text) + 1, plain[i]);
        hd_splitter_free(splitter);
        hd_buf_dispose(&seen.text);
    }
    struct hd_splitter *splitter;
    struct seen seen = {.kind = -1};
    bool stopped;
    static const char call[] = "<tool_call>\n{}\n</tool_call>";
    hd_buf_init(&seen.text, 1 << 10);
    assert_int_equal(hd_splitter_new(&splitter, kit.tok, &(struct hd_split_options){0}), 0);
    for (const char *p = call; *p; p++)
        assert_int_equal(hd_splitter_push(splitter, (unsigned char)*p, collect, &seen, &stopped),
                         0);
    assert_string_equal(hd_buf_str(&seen.text), "A<tool_call>\n{}\n</tool_call>");
    hd_splitter_free(splitter);
    hd_buf_dispose(&seen.text);
    kit_free(&kit);
}

static void refuses_tools_that_are_no_list(void **state)
{
    struct kit kit;
    struct hd_splitter *splitter;
    assert_int_equal(load_json(&kit, make_json(NULL, NULL), NULL), 0);
    assert_int_equal(hd_splitter_new(&splitter, kit.tok, &(struct hd_split_options){.tools = "{}"}),
                     HD_ERR_INVALID);
    assert_null(splitter);
    kit_free(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_calls),
        cmocka_unit_test(holds_back_only_what_may_be_a_call),
        cmocka_unit_test(refuses_tools_that_are_no_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
