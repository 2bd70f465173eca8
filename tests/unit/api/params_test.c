/* Request bodies: what is refused, naming which field, and what is accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "api/api_impl.h"
#include "fake_engine.h"
#include "fake_kb.h"

#define M "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static void test_bad_chat(void **state)
{
    static const struct {
        const char *body, *param, *code;
    } cases[] = {
        {"", "", "invalid_json"},
        {"[]", "", "invalid_json"},
        {"{", "", "invalid_json"},
        {"{\"a\":1,\"a\":2}", "", "invalid_json"},
        {"{" M ",\"x\":\"\xff\"}", "", "invalid_json"},
        {"{" M ",\"x\":\"\\u0000\"}", "", "invalid_json"},
        {"{" M ",\"seed\":1e999}", "", "invalid_json"},
        {"{" M ",\"surprise\":1}", "surprise", "unknown_parameter"},
        {"{" M ",\"temprature\":1}", "temprature", "unknown_parameter"},
        {"{}", "messages", "invalid_type"},
        {"{\"messages\":[]}", "messages", "invalid_type"},
        {"{\"messages\":{}}", "messages", "invalid_type"},
        {"{\"messages\":[1]}", "messages[0]", "invalid_type"},
        {"{\"messages\":[{\"content\":\"x\"}]}", "messages[0].role", "invalid_type"},
        {"{\"messages\":[{\"role\":\"function\",\"content\":\"x\"}]}", "messages[0].role",
         "unsupported_value"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content", "invalid_type"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":3}]}", "messages[0].content",
         "invalid_type"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "messages[0].content", "unsupported_value"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[7]}]}", "messages[0].content",
         "invalid_type"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"weight\":1}]}",
         "messages[0].weight", "unknown_parameter"},
        {"{" M ",\"model\":3}", "model", "invalid_type"},
        {"{" M ",\"stream\":\"yes\"}", "stream", "invalid_type"},
        {"{" M ",\"stream_options\":[]}", "stream_options", "invalid_type"},
        {"{" M ",\"stream_options\":{\"x\":1}}", "stream_options.x", "unknown_parameter"},
        {"{" M ",\"temperature\":2.5}", "temperature", "invalid_value"},
        {"{" M ",\"temperature\":\"hot\"}", "temperature", "invalid_type"},
        {"{" M ",\"top_p\":-0.1}", "top_p", "invalid_value"},
        {"{" M ",\"top_k\":1.5}", "top_k", "invalid_type"},
        {"{" M ",\"max_tokens\":0}", "max_tokens", "invalid_value"},
        {"{" M ",\"max_completion_tokens\":-1}", "max_completion_tokens", "invalid_value"},
        {"{" M ",\"n\":9}", "n", "invalid_value"},
        {"{" M ",\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]}", "stop", "invalid_value"},
        {"{" M ",\"stop\":[1]}", "stop", "invalid_type"},
        {"{" M ",\"stop\":\"\"}", "stop", "invalid_value"},
        {"{" M ",\"logprobs\":2}", "logprobs", "invalid_type"},
        {"{" M ",\"top_logprobs\":2}", "top_logprobs", "invalid_value"},
        {"{" M ",\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs", "invalid_value"},
        {"{" M ",\"logit_bias\":{\"x\":5}}", "logit_bias", "invalid_type"},
        {"{" M ",\"logit_bias\":{\"1\":101}}", "logit_bias", "invalid_value"},
        {"{" M ",\"grammar\":\"root ::=  (\"}", "grammar", "invalid_value"},
        {"{" M
         ",\"grammar\":\"root ::= \\\"a\\\"\",\"response_format\":{\"type\":\"json_object\"}}",
         "grammar", "invalid_value"},
        {"{" M ",\"tools\":{}}", "tools", "invalid_type"},
        {"{" M ",\"tools\":[{}]}", "tools[0]", "unsupported_value"},
        {"{" M ",\"tools\":[{\"type\":\"web_search\"}]}", "tools[0]", "unsupported_value"},
        {"{" M ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]}",
         "tools[0].function.name", "invalid_type"},
        {"{" M ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
         "\"parameters\":[]}}]}",
         "tools[0].function.parameters", "invalid_type"},
        {"{" M ",\"functions\":[{}]}", "functions", "unsupported_value"},
        {"{" M ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}}",
         "tool_choice", "invalid_value"},
        {"{" M ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
         "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}}",
         "tool_choice", "invalid_value"},
        {"{" M ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":"
         "{\"type\":\"object\",\"properties\":{\"a\":{\"not\":{}}}}}}],"
         "\"tool_choice\":\"required\"}",
         "tools[0].function.parameters", "unsupported_value"},
        {"{" M ",\"tool_choice\":\"sometimes\"}", "tool_choice", "unsupported_value"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":{}}]}", "messages[0].tool_calls",
         "invalid_type"},
        {"{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]}",
         "messages[0].tool_calls[0]", "invalid_type"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":[{}]}]}",
         "messages[0].tool_calls", "invalid_type"},
        {"{\"messages\":[{\"role\":\"tool\"}]}", "messages[0].content", "invalid_type"},
        {"{\"messages\":[{\"role\":\"tool\",\"content\":\"x\",\"tool_call_id\":1}]}",
         "messages[0].tool_call_id", "invalid_type"},
        {"{" M ",\"tool_choice\":\"required\"}", "tool_choice", "invalid_value"},
        {"{" M ",\"response_format\":{\"type\":\"xml\"}}", "response_format", "unsupported_value"},
        {"{" M ",\"response_format\":{\"type\":\"json_schema\"}}", "response_format.json_schema",
         "invalid_type"},
        {"{" M ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\","
         "\"schema\":{\"uniqueItems\":true}}}}",
         "response_format.json_schema.schema", "unsupported_value"},
        {"{" M ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"x\":1}}}",
         "response_format.json_schema.x", "unknown_parameter"},
        {"{" M ",\"modalities\":[\"audio\"]}", "modalities", "unsupported_value"},
        {"{" M ",\"reasoning_effort\":\"huge\"}", "reasoning_effort", "invalid_value"},
        {"{" M ",\"thinking\":true}", "thinking", "invalid_type"},
        {"{" M ",\"chat_template_kwargs\":{\"a\":1}}", "chat_template_kwargs", "unsupported_value"},
        {"{" M ",\"presence_penalty\":3}", "presence_penalty", "invalid_value"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_api__params p;
        struct hd_api__fault fault;
        int rc = hd_api__params_chat(&p, cases[i].body, strlen(cases[i].body), &fault);
        if (rc != 400 || strcmp(fault.param, cases[i].param) || !fault.code ||
            strcmp(fault.code, cases[i].code))
            fail_msg("%s: %d %s %s", cases[i].body, rc, rc ? fault.param : "",
                     rc && fault.code ? fault.code : "");
        hd_api__params_dispose(&p);
    }
}

static void test_bad_completions(void **state)
{
    static const struct {
        const char *body, *param;
    } cases[] = {
        {"{}", "prompt"},
        {"{\"prompt\":[]}", "prompt"},
        {"{\"prompt\":[\"a\",\"b\"]}", "prompt"},
        {"{\"prompt\":[1,-2]}", "prompt"},
        {"{\"prompt\":[1,\"x\"]}", "prompt"},
        {"{\"prompt\":{}}", "prompt"},
        {"{\"prompt\":[1],\"echo\":true}", "echo"},
        {"{\"prompt\":\"x\",\"echo\":true,\"logprobs\":1}", "echo"},
        {"{\"prompt\":[1],\"suffix\":\"y\"}", "suffix"},
        {"{\"prompt\":\"x\",\"best_of\":3}", "best_of"},
        {"{\"prompt\":\"x\",\"logprobs\":true}", "logprobs"},
        {"{\"prompt\":\"x\",\"logprobs\":21}", "logprobs"},
        {"{\"prompt\":\"x\",\"messages\":[]}", "messages"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_api__params p;
        struct hd_api__fault fault;
        int rc = hd_api__params_completion(&p, cases[i].body, strlen(cases[i].body), &fault);
        if (rc != 400 || strcmp(fault.param, cases[i].param))
            fail_msg("%s: %d %s", cases[i].body, rc, rc ? fault.param : "");
        hd_api__params_dispose(&p);
    }
}

static void test_good_chat(void **state)
{
    static const char body[] =
        "{\"model\":\"m@kb\",\"messages\":[{\"role\":\"developer\",\"content\":\"be brief\"},"
        "{\"role\":\"assistant\",\"content\":null},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"text\",\"text\":\"b\"}]}],\"stream\":true,"
        "\"stream_options\":{\"include_usage\":true},\"temperature\":0,\"top_p\":0.5,"
        "\"seed\":-5,\"stop\":[\"x\",\"y\"],\"max_tokens\":7,\"n\":1,\"user\":\"u\","
        "\"metadata\":{\"a\":\"b\"},\"store\":false,\"logprobs\":false,\"logit_bias\":{},"
        "\"tools\":[],\"tool_choice\":\"none\",\"response_format\":{\"type\":\"text\"},"
        "\"reasoning_effort\":\"none\",\"presence_penalty\":null}";
    struct hd_api__params p;
    struct hd_api__fault fault = {0};
    int rc = hd_api__params_chat(&p, body, sizeof body - 1, &fault);
    if (rc)
        fail_msg("%s: %s", fault.param, fault.msg.text);
    assert_int_equal(p.n_message, 3);
    assert_string_equal(p.message[0].role, "system");
    assert_string_equal(p.message[1].content, "");
    assert_string_equal(p.message[2].content, "a\nb");
    assert_true(p.stream && p.include_usage && p.no_think);
    assert_int_equal(p.n_stop, 2);
    assert_int_equal(p.max_tokens, 7);
    assert_true(p.seed == (uint64_t)-5);
    struct hd_sampling s = hd_api__params_sampling(&p, true);
    assert_true(s.temperature == 0 && s.top_p == 0.5f && s.repetition_penalty == 1);
    hd_api__params_dispose(&p);
}

/* Every spelling of how much to think, and what wins. */
static void test_thinking(void **state)
{
    static const struct {
        const char *fields;
        bool no_think, ask_think;
        int most;
    } rows[] = {
        {"\"user\":\"u\"", false, false, 0},
        {"\"reasoning_effort\":\"none\"", true, false, 0},
        {"\"reasoning_effort\":\"minimal\"", false, true, 128},
        {"\"reasoning_effort\":\"low\"", false, true, 512},
        {"\"reasoning_effort\":\"medium\"", false, true, 2048},
        {"\"reasoning_effort\":\"high\"", false, true, 8192},
        {"\"max_thinking_tokens\":0", true, false, 0},
        {"\"max_thinking_tokens\":77", false, true, 77},
        {"\"max_thinking_tokens\":77,\"reasoning_effort\":\"high\"", false, true, 77},
        {"\"max_thinking_tokens\":77,\"reasoning_effort\":\"none\"", true, false, 77},
        {"\"thinking\":{\"type\":\"enabled\"}", false, true, 0},
        {"\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":9}", false, true, 9},
        {"\"thinking\":{\"type\":\"disabled\"}", true, false, 0},
        {"\"chat_template_kwargs\":{\"enable_thinking\":true}", false, true, 0},
        {"\"chat_template_kwargs\":{\"enable_thinking\":false}", true, false, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char body[256];
        struct hd_api__params p;
        struct hd_api__fault fault = {0};
        snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],%s}",
                 rows[i].fields);
        if (hd_api__params_chat(&p, body, strlen(body), &fault))
            fail_msg("%s: %s", rows[i].fields, fault.msg.text);
        assert_int_equal(p.no_think, rows[i].no_think);
        assert_int_equal(p.ask_think, rows[i].ask_think);
        assert_int_equal(p.max_thinking, rows[i].most);
        assert_false(p.any_loops || p.drop_turns);
        hd_api__params_dispose(&p);
    }
    static const char *const refused[] = {"\"reasoning_effort\":\"much\"",
                                          "\"max_thinking_tokens\":-1",
                                          "\"thinking\":true",
                                          "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":0}",
                                          "\"truncation\":\"middle\"",
                                          "\"loop_detection\":1"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        char body[256];
        struct hd_api__params p;
        struct hd_api__fault fault = {0};
        snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],%s}",
                 refused[i]);
        assert_int_not_equal(hd_api__params_chat(&p, body, strlen(body), &fault), 0);
        assert_int_equal(fault.status, 400);
        assert_memory_equal(refused[i] + 1, fault.param, strcspn(fault.param, "."));
        hd_api__params_dispose(&p);
    }
    static const char policies[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],"
                                   "\"truncation\":\"auto\",\"loop_detection\":false}";
    struct hd_api__params p;
    struct hd_api__fault fault = {0};
    assert_int_equal(hd_api__params_chat(&p, policies, sizeof policies - 1, &fault), 0);
    assert_true(p.any_loops && p.drop_turns);
    hd_api__params_dispose(&p);
}

static void test_tools(void **state)
{
    static const char body[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\","
        "\"content\":null,\"tool_calls\":[{\"id\":\"c1\",\"type\":\"function\",\"function\":{"
        "\"name\":\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c1\","
        "\"name\":\"f\",\"content\":[{\"type\":\"text\",\"text\":\"r\"}]}],"
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true}}],"
        "\"tool_choice\":\"auto\",\"parallel_tool_calls\":true}";
    struct hd_api__params p;
    struct hd_api__fault fault = {0};
    int rc = hd_api__params_chat(&p, body, sizeof body - 1, &fault);
    if (rc)
        fail_msg("%s: %s", fault.param, fault.msg.text);
    assert_string_equal(p.tools,
                        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true}}]");
    assert_null(p.message[0].tool_calls);
    assert_null(p.message[1].content);
    assert_non_null(strstr(p.message[1].tool_calls, "\"id\":\"c1\""));
    assert_string_equal(p.message[2].role, "tool");
    assert_string_equal(p.message[2].content, "r");
    assert_string_equal(p.message[2].tool_call_id, "c1");
    assert_string_equal(p.message[2].name, "f");
    hd_api__params_dispose(&p);
}

static void test_depth(void **state)
{
    char deep[400] = "{\"x\":";
    struct hd_api__params p;
    struct hd_api__fault fault;
    for (int i = 0; i < 100; i++)
        strcat(deep, "[");
    assert_int_equal(hd_api__params_chat(&p, deep, strlen(deep), &fault), 400);
    assert_non_null(strstr(fault.msg.text, "64 levels"));
    hd_api__params_dispose(&p);
    json_t *root; /* brackets inside strings are no levels */
    static const char flat[] =
        "{\"a\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
        "[[[[[[[[[[[[[[\\\"[[[[[[\"}";
    assert_int_equal(hd_api__parse(&root, flat, sizeof flat - 1, &fault), 0);
    json_decref(root);
}

static void test_escaping(void **state)
{
    struct hd_buf out;
    hd_buf_init(&out, 1000);
    hd_api__put_json(&out, "a\"\\\n\x01é", 7);
    assert_string_equal(hd_buf_str(&out), "\"a\\\"\\\\\\n\\u0001é\"");
    hd_buf_clear(&out);
    hd_api__put_error(&out, NULL, 400, NULL, NULL, "cut in a character: \xe4\xb8");
    json_t *parsed = json_loads(hd_buf_str(&out), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(parsed);
    json_decref(parsed);
    hd_buf_dispose(&out);
}

static void test_hosts(void **state)
{
    assert_true(hd_api__host_is_loopback("localhost:8080"));
    assert_true(hd_api__host_is_loopback("127.0.0.1"));
    assert_true(hd_api__host_is_loopback("[::1]:80"));
    assert_false(hd_api__host_is_loopback("localhost.evil.example"));
    assert_false(hd_api__host_is_loopback("127.0.0.1.evil.example:80"));
    assert_false(hd_api__host_is_loopback("localhost:80@evil"));
    assert_false(hd_api__host_is_loopback(""));
    assert_true(hd_api__origin_is_host("http://a:1", "a:1"));
    assert_false(hd_api__origin_is_host("http://a:2", "a:1"));
    assert_false(hd_api__origin_is_host("null", "a:1"));
    assert_false(hd_api__origin_is_host("http://a:1", NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_chat),  cmocka_unit_test(test_bad_completions),
        cmocka_unit_test(test_good_chat), cmocka_unit_test(test_tools),
        cmocka_unit_test(test_thinking),  cmocka_unit_test(test_depth),
        cmocka_unit_test(test_escaping),  cmocka_unit_test(test_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
