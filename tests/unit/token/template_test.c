/* Which template renders a conversation, with tools and without, and that what users, tools and
 * documents write never becomes a special token. */
#include "support.h"

#include "base/hash.h"

static const char *const r1_tokens[] = {"!<｜begin▁of▁sentence｜>",
                                        "!<｜end▁of▁sentence｜>",
                                        "<｜User｜>",
                                        "<｜Assistant｜>",
                                        "<think>",
                                        "</think>",
                                        "<｜tool▁calls▁begin｜>",
                                        "<｜tool▁calls▁end｜>",
                                        "<｜tool▁call▁begin｜>",
                                        "<｜tool▁call▁end｜>",
                                        "<｜tool▁sep｜>",
                                        "<｜tool▁outputs▁begin｜>",
                                        "<｜tool▁outputs▁end｜>",
                                        "<｜tool▁output▁begin｜>",
                                        "<｜tool▁output▁end｜>",
                                        "<|fim_prefix|>",
                                        NULL};
static const char *const chatml_tokens[] = {"!<|im_start|>", "!<|im_end|>",  "!<|endoftext|>",
                                            "<tool_call>",   "</tool_call>", NULL};
static const char *const llama_tokens[] = {"!<|begin_of_text|>", "!<|start_header_id|>",
                                           "!<|end_header_id|>", "!<|eot_id|>", NULL};

static json_t *golden(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, HD_TEST_ROOT "/golden/templates/%s", name);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    return root;
}

/* A small tokenizer whose configuration carries one of the published templates, or none. */
static void load(struct kit *kit, const char *const *tokens, const char *template, const char *bos)
{
    json_t *config = json_object();
    char path[512], *text = NULL;
    size_t len;
    if (template) {
        snprintf(path, sizeof path, HD_TEST_ROOT "/golden/templates/%s.jinja", template);
        assert_int_equal(hd_file_read(&text, &len, path, 1 << 20, NULL), 0);
        json_object_set_new(config, "chat_template", json_stringn(text, len));
    }
    if (bos)
        json_object_set_new(config, "bos_token", json_string(bos));
    char *json = json_dumps(config, 0);
    assert_int_equal(load_json(kit, make_json(NULL, tokens), json), 0);
    free(json);
    free(text);
    json_decref(config);
}

struct prompt {
    char *text;
    size_t n_special;
    enum hd_err err;
    struct hd_errmsg msg;
};

static void render(struct prompt *out, const struct kit *kit,
                   const struct hd_chat_message *messages, size_t n,
                   const struct hd_chat_options *options)
{
    struct hd_ids ids;
    struct hd_buf text;
    *out = (struct prompt){0};
    hd_ids_init(&ids, 1 << 20);
    hd_buf_init(&text, 1 << 22);
    out->err = hd_chat_render(kit->tok, &ids, messages, n, options, &out->msg);
    for (size_t i = 0; i < ids.n; i++)
        out->n_special += ids.id[i] >= 256;
    if (!out->err)
        assert_int_equal(hd_tokenizer_decode(kit->tok, &text, ids.id, ids.n, true, NULL), 0);
    out->text = hd_buf_take(&text);
    assert_non_null(out->text);
    hd_ids_dispose(&ids);
    hd_buf_dispose(&text);
}

/* --- conversations of the goldens ------------------------------------------------------------- */

struct talk {
    struct hd_chat_message message[64];
    char *calls[64];
    size_t n;
    char *tools;
};

static void take_talk(struct talk *talk, json_t *root, json_t *conversation)
{
    json_t *list = json_object_get(conversation, "messages"), *n_tool, *message;
    size_t i;
    *talk = (struct talk){.n = json_array_size(list)};
    assert_true(talk->n <= 64);
    json_array_foreach(list, i, message)
    {
        json_t *calls = json_object_get(message, "tool_calls");
        talk->calls[i] = calls ? json_dumps(calls, 0) : NULL;
        talk->message[i] = (struct hd_chat_message){
            .role = json_string_value(json_object_get(message, "role")),
            .content = json_string_value(json_object_get(message, "content")),
            .tool_calls = talk->calls[i],
            .tool_call_id = json_string_value(json_object_get(message, "tool_call_id")),
            .name = json_string_value(json_object_get(message, "name")),
        };
    }
    if ((n_tool = json_object_get(conversation, "tools"))) {
        json_t *tools = json_array();
        for (json_int_t k = 0; k < json_integer_value(n_tool); k++)
            json_array_append(tools, json_array_get(json_object_get(root, "tools"), (size_t)k));
        talk->tools = json_dumps(tools, 0);
        json_decref(tools);
    }
}

static void free_talk(struct talk *talk)
{
    for (size_t i = 0; i < talk->n; i++)
        free(talk->calls[i]);
    free(talk->tools);
}

static size_t check_form(const struct kit *kit, const char *form, bool only_tools)
{
    json_t *root = golden("renderings.json"), *builtin = golden("builtin.json"), *conversation;
    json_t *wants = json_object_get(builtin, form);
    size_t i, n = 0;
    json_array_foreach(json_object_get(root, "conversations"), i, conversation)
    {
        const char *want = json_string_value(json_array_get(wants, i));
        struct talk talk;
        struct prompt prompt;
        char hex[65] = "";
        take_talk(&talk, root, conversation);
        const struct hd_chat_options options = {.tools = talk.tools};
        if (want && (talk.tools || !only_tools)) {
            render(&prompt, kit, talk.message, talk.n, &options);
            hd_sha256_hex(hex, prompt.text, strlen(prompt.text));
            if (strncmp(hex, want, 16) != 0)
                fail_msg("%s, conversation %zu: %s%s", form, i, prompt.msg.text, prompt.text);
            free(prompt.text);
            n++;
        }
        free_talk(&talk);
    }
    json_decref(root);
    json_decref(builtin);
    return n;
}

static void builtin_templates_render_as_jinja_does(void **state)
{
    struct kit kit;
    load(&kit, r1_tokens, NULL, NULL);
    assert_int_equal(hd_chat_form(kit.tok), HD_CHAT_DEEPSEEK_R1_DISTILL);
    assert_string_equal(hd_chat_source(kit.tok), "built in");
    assert_true(check_form(&kit, "deepseek-r1-distill", false) > 200);
    kit_free(&kit);
    const char *tokens[20];
    memcpy(tokens, r1_tokens, sizeof r1_tokens);
    tokens[15] = NULL; /* without Qwen's token: the 671B */
    load(&kit, tokens, NULL, NULL);
    assert_int_equal(hd_chat_form(kit.tok), HD_CHAT_DEEPSEEK_R1);
    assert_true(check_form(&kit, "deepseek-r1", false) > 200);
    kit_free(&kit);
    load(&kit, chatml_tokens, NULL, NULL);
    assert_true(check_form(&kit, "chatml", false) > 200);
    kit_free(&kit);
    load(&kit, llama_tokens, NULL, NULL);
    assert_true(check_form(&kit, "llama3", false) > 150);
    kit_free(&kit);
}

/* R1's published templates are wrong about tools: ours takes over there, and there alone. */
static void mends_published_tool_templates(void **state)
{
    static const char *const names[] = {"r1-distill-qwen-7b", "r1-distill-llama-8b",
                                        "r1-distill-qwen-32b-mended"};
    for (size_t i = 0; i < 3; i++) {
        struct kit kit;
        load(&kit, r1_tokens, names[i], "<｜begin▁of▁sentence｜>");
        assert_string_equal(hd_chat_source(kit.tok), "checkpoint, tools built in");
        assert_true(hd_chat_thinks(kit.tok));
        assert_true(check_form(&kit, "deepseek-r1-distill", true) > 50);
        kit_free(&kit);
    }
}

/* --- what is promised whatever the template --------------------------------------------------- */

static void check_text(const struct kit *kit, const struct hd_chat_message *messages, size_t n,
                       const struct hd_chat_options *options, const char *want)
{
    struct prompt prompt;
    render(&prompt, kit, messages, n, options);
    if (prompt.err)
        fail_msg("%s", prompt.msg.text);
    assert_string_equal(prompt.text, want);
    free(prompt.text);
}

static void r1_prompts_open_the_thought(void **state)
{
    static const struct hd_chat_message messages[] = {
        {.role = "user", .content = "1+1?"},
        {.role = "assistant", .content = "<think>\nhm\n</think>\n\n2"},
        {.role = "user", .content = "2+2?"},
    };
    static const char *const names[] = {"r1-distill-qwen-7b", "r1-distill-llama-8b",
                                        "r1-distill-qwen-32b-mended", NULL};
    static const struct hd_chat_options off = {.no_think = true};
#define TALK                                                                                                         \
    "<｜begin▁of▁sentence｜><｜User｜>1+1?<｜Assistant｜>\n\n2<｜end▁of▁sentence｜><｜User｜>2+2?" \
    "<｜Assistant｜><think>\n"
    for (size_t i = 0; i < 4; i++) {
        struct kit kit;
        load(&kit, r1_tokens, names[i], "<｜begin▁of▁sentence｜>");
        check_text(&kit, messages, 3, NULL, TALK);
        check_text(&kit, messages, 3, &off, TALK "</think>");
        kit_free(&kit);
    }
}

/* A model that does not think by itself: the system message asks, in the question's language, and
 * the turn begins with the thought. */
static void others_think_when_asked(void **state)
{
    static const char *const chatml[] = {"!<|im_start|>", "!<|im_end|>", NULL};
    static const struct hd_chat_options ask = {.ask_think = true},
                                        both = {.ask_think = true, .no_think = true};
    struct hd_chat_message messages[] = {
        {.role = "user", .content = "1+1?"},
        {.role = "assistant", .content = "<think>\nhm\n</think>\n\n2"},
        {.role = "user", .content = "等于几？"},
        {.role = "system", .content = "Be brief."},
    };
    struct kit kit;
    struct prompt prompt;
    assert_int_equal(load_json(&kit, make_json(NULL, chatml), NULL), 0);
    assert_false(hd_chat_thinks(kit.tok));
    render(&prompt, &kit, messages, 3, &ask);
    assert_int_equal(prompt.err, HD_OK);
    assert_ptr_equal(strstr(prompt.text, "<|im_start|>system\n请先思考"), prompt.text);
    assert_non_null(strstr(prompt.text, "<|im_start|>assistant\n\n\n2<|im_end|>"));
    assert_non_null(strstr(prompt.text, "等于几？<|im_end|>\n<|im_start|>assistant\n<think>\n"));
    free(prompt.text);
    /* its own system message stays, and comes first */
    messages[1] = messages[0];
    messages[0] = messages[3];
    render(&prompt, &kit, messages, 2, &ask);
    assert_int_equal(prompt.err, HD_OK);
    assert_ptr_equal(strstr(prompt.text, "<|im_start|>system\nBe brief.\n\nThink first"),
                     prompt.text);
    free(prompt.text);
    check_text(&kit, messages, 2, &both,
               "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n"
               "<|im_start|>assistant\n");
    kit_free(&kit);
    /* a model that thinks anyway needs no asking */
    load(&kit, r1_tokens, "r1-distill-qwen-7b", "<｜begin▁of▁sentence｜>");
    check_text(&kit, messages, 2, &ask,
               "<｜begin▁of▁sentence｜>Be brief.<｜User｜>1+1?<｜Assistant｜><think>\n");
    kit_free(&kit);
}

static void v3_does_not_think(void **state)
{
    struct kit kit;
    static const struct hd_chat_message hello = {.role = "user", .content = "hello"};
    load(&kit, r1_tokens, "deepseek-v3", "<｜begin▁of▁sentence｜>");
    assert_int_equal(hd_chat_form(kit.tok), HD_CHAT_DEEPSEEK_V3);
    assert_string_equal(hd_chat_form_name(HD_CHAT_DEEPSEEK_V3), "deepseek-v3");
    assert_false(hd_chat_thinks(kit.tok));
    check_text(&kit, &hello, 1, NULL, "<｜begin▁of▁sentence｜><｜User｜>hello<｜Assistant｜>");
    kit_free(&kit);
}

#define CALLS(arguments)                                                                           \
    "[{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":" arguments  \
    "}}]"

/* Templates that print a call's arguments get the text, those that want JSON get the object. */
static void arguments_are_text_and_object(void **state)
{
    static const struct hd_chat_message messages[] = {
        {.role = "user", .content = "q"},
        {.role = "assistant", .tool_calls = CALLS("\"{\\\"a\\\":  1}\"")},
        {.role = "tool", .content = "r", .tool_call_id = "c1"},
    };
    static const char config[] =
        "{\"chat_template\": \"{{ tools[0].function.name if tools }}{% for m in messages %}"
        "{{ m.role + ':' + (m.content or '') }}{% for c in m.tool_calls %}{{ c.function.name + "
        "c.function.arguments }}|{{ c.function.arguments }}|{{ c.function.arguments|tojson }}|"
        "{{ c.function.arguments.a }}{% endfor %}{% endfor %}\"}";
    struct kit kit;
    assert_int_equal(load_json(&kit, make_json(NULL, NULL), config), 0);
    assert_int_equal(hd_chat_form(kit.tok), HD_CHAT_TEMPLATE);
    assert_string_equal(hd_chat_source(kit.tok), "checkpoint");
    check_text(&kit, messages, 3, NULL,
               "user:qassistant:f{\"a\":  1}|{\"a\":  1}|{\"a\": 1}|1tool:r");
    kit_free(&kit);
}

/* Templates with a place for calls but none for tools, as R1-0528's and V3.1's: their own form of
 * calls, and the tools behind the system message. */
static void tools_are_told_where_only_calls_have_a_place(void **state)
{
#define TURNS(call)                                                                                           \
    "{{ bos_token }}{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"                 \
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content + "                        \
    "'<｜Assistant｜>' }}{% elif m.role == 'tool' %}{{ '<｜tool▁output▁begin｜>' + m.content + "      \
    "'<｜tool▁output▁end｜>' }}{% elif m.role == 'assistant' %}{% if m.tool_calls %}{{ "                \
    "'<｜tool▁calls▁begin｜>' }}{% for c in m.tool_calls %}{{ " call " }}{% endfor %}{{ "                     \
    "'<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' }}{% else %}{{ m.content.split('</think>')[-1] " \
    "+ "                                                                                                      \
    "'<｜end▁of▁sentence｜>' }}{% endif %}{% endif %}{% endfor %}"
    static const char *const templates[] = {
        TURNS("'<｜tool▁call▁begin｜>' + c.type + '<｜tool▁sep｜>' + c.function.name + "
              "'\\n```json\\n' + "
              "c.function.arguments + '\\n```<｜tool▁call▁end｜>'"),
        TURNS(
            "'<｜tool▁call▁begin｜>' + c.function.name + '<｜tool▁sep｜>' + c.function.arguments + "
            "'<｜tool▁call▁end｜>'")};
    static const char *const forms[] = {
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>FUNCTION_NAME\n```json\n{",
        "<｜tool▁call▁begin｜>FUNCTION_NAME<｜tool▁sep｜>{\"parameter\": \"value\"}<"};
    static const char *const calls[] = {
        "function<｜tool▁sep｜>f\n```json\n{\"a\":  1}\n```<｜tool▁call▁end｜>",
        "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\":  1}<｜tool▁call▁end｜>"};
    static const struct hd_chat_message messages[] = {
        {.role = "system", .content = "be <｜User｜> kind"},
        {.role = "user", .content = "q"},
        {.role = "assistant", .tool_calls = CALLS("\"{\\\"a\\\":  1}\"")},
        {.role = "tool", .content = "r", .tool_call_id = "c1"},
        {.role = "user", .content = "and?"},
    };
    static const struct hd_chat_options options = {
        .tools = "[{\"type\":\"function\",\"function\":{\"name\":\"f <｜User｜>\"}}]"};
    for (size_t i = 0; i < 2; i++) {
        struct kit kit;
        struct prompt prompt;
        json_t *config = json_pack("{s:s,s:s}", "chat_template", templates[i], "bos_token",
                                   "<｜begin▁of▁sentence｜>");
        char *json = json_dumps(config, 0);
        assert_int_equal(load_json(&kit, make_json(NULL, r1_tokens), json), 0);
        assert_string_equal(hd_chat_source(kit.tok), "checkpoint, tools told by us");
        render(&prompt, &kit, messages, 5, &options);
        assert_int_equal(prompt.err, 0);
        assert_int_equal(
            strncmp(prompt.text, "<｜begin▁of▁sentence｜>be <｜User｜> kind\n\n## Tools\n", 60), 0);
        assert_non_null(strstr(prompt.text, "{\"name\": \"f <｜User｜>\"}"));
        assert_non_null(strstr(prompt.text, forms[i]));
        assert_non_null(strstr(prompt.text, calls[i]));
        /* bos; five in the example; user, assistant; calls: five and end of sentence; two of the
         * result; user, assistant, <think> */
        assert_int_equal(prompt.n_special, 1 + 5 + 2 + 6 + 2 + 3);
        free(prompt.text);
        free(json);
        json_decref(config);
        kit_free(&kit);
    }
}

/* A template without a place for tools: ours where the form is known, else a sentence. */
static void templates_without_tools(void **state)
{
    static const struct hd_chat_message hello = {.role = "user", .content = "hello"};
    static const struct hd_chat_options options = {
        .tools = "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"};
    struct kit kit;
    struct prompt prompt;
    load(&kit, chatml_tokens, "smollm2-135m", NULL);
    assert_string_equal(hd_chat_source(kit.tok), "checkpoint, tools built in");
    render(&prompt, &kit, &hello, 1, &options);
    assert_non_null(strstr(prompt.text, "named SmolLM, trained by Hugging Face\n\n# Tools\n"));
    assert_non_null(
        strstr(prompt.text, "{\"type\": \"function\", \"function\": {\"name\": \"f\"}}"));
    free(prompt.text);
    kit_free(&kit);
    assert_int_equal(load_json(&kit, make_json(NULL, NULL),
                               "{\"chat_template\": \"{{ messages[0].content }}\"}"),
                     0);
    assert_string_equal(hd_chat_source(kit.tok), "checkpoint, no tools");
    render(&prompt, &kit, &hello, 1, &options);
    assert_int_equal(prompt.err, HD_ERR_INVALID);
    assert_non_null(strstr(prompt.msg.text, "has no place for them"));
    free(prompt.text);
    kit_free(&kit);
}

static void templates_that_do_not_work_give_way(void **state)
{
    static const char endless[] =
        "{\"chat_template\": \"{% for i in range(100000) %}{% for k in range(100000) %}"
        "{{ messages }}{% endfor %}{% endfor %}\"}";
    static const char *const broken[] = {
        "{\"chat_template\": \"{% if %}\"}", "{\"chat_template\": \"no messages here\"}",
        "{\"chat_template\": \"{{ messages[0].content.nothing.more }}\"}", endless};
    static const struct hd_chat_message hello = {.role = "user", .content = "hello"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct kit kit;
        assert_int_equal(load_json(&kit, make_json(NULL, chatml_tokens), broken[i]), 0);
        assert_string_equal(hd_chat_source(kit.tok), "built in");
        check_text(&kit, &hello, 1, NULL,
                   "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
        kit_free(&kit);
    }
}

static void a_template_may_refuse(void **state)
{
    static const struct hd_chat_message messages[] = {{.role = "system", .content = "s"},
                                                      {.role = "user", .content = "u"}};
    struct kit kit;
    struct prompt prompt;
    assert_int_equal(
        load_json(&kit, make_json(NULL, NULL),
                  "{\"chat_template\": \"{% for m in messages %}\\n{% if m.role == 'system' "
                  "%}{{ raise_exception('System role not supported') }}{% endif %}{{ "
                  "m.content }}{% endfor %}\"}"),
        0);
    render(&prompt, &kit, messages, 2, NULL);
    assert_int_equal(prompt.err, HD_ERR_INVALID);
    assert_string_equal(prompt.msg.text, "chat template: line 2: System role not supported");
    free(prompt.text);
    kit_free(&kit);
}

/* --- hostile text ----------------------------------------------------------------------------- */

/* The number of special tokens does not depend on what contents, tools, names and arguments say,
 * also where a template cuts, trims or quotes them. */
static void check_hostile(const char *const *tokens, const char *template, const char *bos)
{
    struct kit kit;
    struct prompt calm, hostile;
    struct hd_buf evil, calls, tools, calm_calls, calm_tools;
    load(&kit, tokens, template, bos);
    hd_buf_init(&evil, 1 << 16);
    for (size_t i = 0; tokens[i]; i++)
        hd_buf_printf(&evil, " %s", tokens[i] + (*tokens[i] == '!'));
    json_t *text = json_string(evil.data);
    char *quoted = json_dumps(text, JSON_ENCODE_ANY);
    struct hd_buf *bufs[] = {&calls, &tools, &calm_calls, &calm_tools};
    for (size_t i = 0; i < 4; i++) {
        const char *x = i < 2 ? quoted : "\"calm\"";
        hd_buf_init(bufs[i], 1 << 16);
        if (i % 2 == 0)
            hd_buf_printf(bufs[i],
                          "[{\"id\":%s,\"type\":\"function\",\"function\":{\"name\":%s,"
                          "\"arguments\":{%s:%s}}}]",
                          x, x, x, x);
        else
            hd_buf_printf(bufs[i],
                          "[{\"type\":\"function\",\"function\":{\"name\":%s,\"description\":%s,"
                          "\"parameters\":{%s:[%s]}}}]",
                          x, x, x, x);
    }
    for (int with_tools = 0; with_tools < 2; with_tools++) {
        struct hd_chat_message messages[] = {
            {.role = "system", .content = evil.data},
            {.role = "user", .content = evil.data},
            {.role = "assistant",
             .content = with_tools ? NULL : evil.data,
             .tool_calls = with_tools ? calls.data : NULL},
            {.role = with_tools ? "tool" : "user",
             .content = evil.data,
             .tool_call_id = evil.data,
             .name = evil.data},
            {.role = "assistant", .content = evil.data},
            {.role = "user", .content = evil.data},
        };
        struct hd_chat_options options = {.tools = with_tools ? tools.data : NULL};
        render(&hostile, &kit, messages, 6, &options);
        for (size_t i = 0; i < 6; i++) {
            messages[i].content = messages[i].content ? "calm" : NULL;
            messages[i].tool_calls = messages[i].tool_calls ? calm_calls.data : NULL;
            messages[i].tool_call_id = messages[i].name = "calm";
        }
        options.tools = with_tools ? calm_tools.data : NULL;
        render(&calm, &kit, messages, 6, &options);
        if (hostile.err || calm.err)
            fail_msg("%s: %s%s", template, hostile.msg.text, calm.msg.text);
        assert_true(calm.n_special > 4);
        assert_int_equal(hostile.n_special, calm.n_special);
        free(hostile.text);
        free(calm.text);
    }
    for (size_t i = 0; i < 4; i++)
        hd_buf_dispose(bufs[i]);
    hd_buf_dispose(&evil);
    free(quoted);
    json_decref(text);
    kit_free(&kit);
}

static void hostile_text_stays_text(void **state)
{
    static const char *const r1[] = {"r1-distill-qwen-7b", "r1-distill-llama-8b",
                                     "r1-distill-qwen-32b-mended", "deepseek-v3", NULL};
    static const char *const chatml[] = {"qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "smollm2-135m",
                                         NULL};
    for (size_t i = 0; i < 5; i++)
        check_hostile(r1_tokens, r1[i], "<｜begin▁of▁sentence｜>");
    for (size_t i = 0; i < 4; i++)
        check_hostile(chatml_tokens, chatml[i], NULL);
    check_hostile(llama_tokens, NULL, "<|begin_of_text|>");
}

/* The real files, where they are installed: they carry the templates of the goldens, which the
 * loader puts to use. */
static void real_files_carry_these_templates(void **state)
{
    static const char *const names[] = {"qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"};
    const char *folder = getenv("HOLDFAST_TEST_MODELS");
    char *home = hd_path_home(NULL);
    for (size_t i = 0; i < 2; i++) {
        char path[600], file[512];
        struct kit kit = {0};
        const char *text;
        size_t len, want_len;
        snprintf(path, sizeof path, "%s%s/%s-instruct-q4_k_m.gguf", folder ? folder : home,
                 folder ? "" : "/models", names[i]);
        if (!hd_path_exists(path) || hd_store_open_header(&kit.store, path, NULL)) {
            print_message("skipped: %s is not there (HOLDFAST_TEST_MODELS)\n", path);
            continue;
        }
        snprintf(file, sizeof file, HD_TEST_ROOT "/golden/templates/%s.jinja", names[i]);
        char *want = NULL;
        assert_int_equal(hd_file_read(&want, &want_len, file, 1 << 20, NULL), 0);
        assert_true(hd_store_str(kit.store, "tokenizer.chat_template", &text, &len));
        assert_true(len == want_len && !memcmp(text, want, len));
        assert_int_equal(hd_tokenizer_new(&kit.tok, kit.store, &kit.msg), 0);
        assert_string_equal(hd_chat_source(kit.tok), "checkpoint");
        free(want);
        kit_free(&kit);
    }
    free(home);
}

static void refuses_malformed_calls(void **state)
{
    static const char *const calls[] = {"{}", "[1]", "[{\"function\":{}}]", "no json", CALLS("5")};
    struct kit kit;
    struct prompt prompt;
    load(&kit, chatml_tokens, NULL, NULL);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        const struct hd_chat_message message = {.role = "assistant", .tool_calls = calls[i]};
        render(&prompt, &kit, &message, 1, NULL);
        assert_int_equal(prompt.err, HD_ERR_INVALID);
        assert_non_null(strstr(prompt.msg.text, "messages[0].tool_calls"));
        free(prompt.text);
    }
    const struct hd_chat_message user = {
        .role = "user", .content = "x", .tool_calls = CALLS("\"{}\"")};
    render(&prompt, &kit, &user, 1, NULL);
    assert_int_equal(prompt.err, HD_ERR_INVALID);
    free(prompt.text);
    const struct hd_chat_message hello = {.role = "user", .content = "x"};
    render(&prompt, &kit, &hello, 1, &(struct hd_chat_options){.tools = "{}"});
    assert_int_equal(prompt.err, HD_ERR_INVALID);
    free(prompt.text);
    kit_free(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(builtin_templates_render_as_jinja_does),
        cmocka_unit_test(mends_published_tool_templates),
        cmocka_unit_test(r1_prompts_open_the_thought),
        cmocka_unit_test(others_think_when_asked),
        cmocka_unit_test(v3_does_not_think),
        cmocka_unit_test(arguments_are_text_and_object),
        cmocka_unit_test(tools_are_told_where_only_calls_have_a_place),
        cmocka_unit_test(templates_without_tools),
        cmocka_unit_test(templates_that_do_not_work_give_way),
        cmocka_unit_test(a_template_may_refuse),
        cmocka_unit_test(hostile_text_stays_text),
        cmocka_unit_test(real_files_carry_these_templates),
        cmocka_unit_test(refuses_malformed_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
