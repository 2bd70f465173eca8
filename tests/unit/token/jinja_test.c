/* The template interpreter against real Jinja's output (tests/golden/templates), its limits, and
 * what it remembers of where text comes from. */
#include "support.h"

#include "base/hash.h"
#include "token/jinja/jinja.h"

static json_t *golden(const char *name)
{
    char path[512];
    json_error_t error;
    snprintf(path, sizeof path, HD_TEST_ROOT "/golden/templates/%s", name);
    json_t *root = json_load_file(path, 0, &error);
    if (!root)
        fail_msg("%s: %s", path, error.text);
    return root;
}

struct rendering {
    struct hd_jinja *jinja;
    struct hd_jinja_run *run;
    struct hd_jinja_output out;
    struct hd_errmsg msg;
    enum hd_err err;
};

/* Strings of the context count as the request's, except those whose name ends in _token. */
static void render(struct rendering *r, const char *text, size_t len, json_t *context,
                   const struct hd_jinja_limits *limits)
{
    const char *key;
    json_t *value;
    *r = (struct rendering){0};
    r->err = hd_jinja_compile(&r->jinja, text, len, &r->msg);
    if (r->err) {
        assert_null(r->jinja);
        return;
    }
    assert_int_equal(hd_jinja_run_new(&r->run, r->jinja, limits, 1700000000), 0);
    json_object_foreach(context, key, value)
    {
        hd_jinja_set(r->run, key, hd_jinja_json(r->run, value, !strstr(key, "_token")));
    }
    r->err = hd_jinja_render(r->run, &r->out, &r->msg);
}

static void dispose(struct rendering *r)
{
    hd_jinja_run_free(r->run);
    hd_jinja_free(r->jinja);
}

static void render_plain(struct rendering *r, const char *text, json_t *context)
{
    static const struct hd_jinja_limits limits = HD_JINJA_LIMITS_DEFAULT;
    render(r, text, strlen(text), context, &limits);
}

/* --- against Jinja ---------------------------------------------------------------------------- */

static void renders_every_construct(void **state)
{
    json_t *root = golden("snippets.json"), *context = json_object_get(root, "context"), *pair;
    size_t i, n_refused = 0;
    json_array_foreach(json_object_get(root, "snippets"), i, pair)
    {
        const char *text = json_string_value(json_array_get(pair, 0));
        const char *want = json_string_value(json_array_get(pair, 1));
        struct rendering r;
        render_plain(&r, text, context);
        if (!want && !r.err)
            fail_msg("%s\nJinja refuses this; here it gives: %s", text, r.out.text);
        if (want && r.err)
            fail_msg("%s\nrefused: %s", text, r.msg.text);
        if (want && (strlen(want) != r.out.len || memcmp(want, r.out.text, r.out.len) != 0))
            fail_msg("%s\nJinja: %s\nhere:  %s", text, want, r.out.text);
        if (!want)
            assert_int_equal(strncmp(r.msg.text, "line ", 5), 0);
        n_refused += !want;
        dispose(&r);
    }
    assert_true(i > 150 && n_refused > 40 && n_refused < i / 2);
    json_decref(root);
}

static char *read_template(const char *name, size_t *len)
{
    char path[512], *text;
    snprintf(path, sizeof path, HD_TEST_ROOT "/golden/templates/%s.jinja", name);
    assert_int_equal(hd_file_read(&text, len, path, 1 << 20, NULL), 0);
    return text;
}

/* The variables that transformers gives a template. */
static json_t *context_of(json_t *root, json_t *conversation)
{
    json_t *tools = json_null(), *n = json_object_get(conversation, "tools");
    if (n) {
        tools = json_array();
        for (json_int_t i = 0; i < json_integer_value(n); i++)
            json_array_append(tools, json_array_get(json_object_get(root, "tools"), (size_t)i));
    }
    return json_pack("{s:O,s:o,s:n,s:b,s:O}", "messages", json_object_get(conversation, "messages"),
                     "tools", tools, "documents", "add_generation_prompt", 1, "bos_token",
                     json_object_get(root, "bos"));
}

static void check_rendering(const char *name, size_t i, const char *text, size_t len,
                            json_t *context, const char *want)
{
    struct rendering r;
    char hex[65] = "";
    static const struct hd_jinja_limits limits = HD_JINJA_LIMITS_DEFAULT;
    render(&r, text, len, context, &limits);
    if (!r.err)
        hd_sha256_hex(hex, r.out.text, r.out.len);
    if (want ? strncmp(hex, want, 16) != 0 : !r.err)
        fail_msg("%s, conversation %zu: %s", name, i, r.err ? r.msg.text : r.out.text);
    dispose(&r);
}

static void renders_published_templates(void **state)
{
    json_t *root = golden("renderings.json"), *list, *conversation;
    json_t *conversations = json_object_get(root, "conversations");
    const char *name;
    size_t i = 0, n = 0;
    json_object_foreach(json_object_get(root, "templates"), name, list)
    {
        size_t len;
        char *text = read_template(name, &len);
        assert_int_equal(json_array_size(list), json_array_size(conversations));
        json_array_foreach(conversations, i, conversation)
        {
            json_t *context = context_of(root, conversation);
            check_rendering(name, i, text, len, context,
                            json_string_value(json_array_get(list, i)));
            json_decref(context);
        }
        free(text);
        n++;
    }
    assert_true(n >= 6 && i >= 200);
    json_decref(root);
}

/* --- where text comes from -------------------------------------------------------------------- */

static bool from_request(const struct hd_jinja_output *out, size_t i)
{
    return out->mask ? out->mask[i] : out->request;
}

/* The request writes Cyrillic, which no template here does: exactly those bytes must be marked. */
static void check_marks(const char *text, size_t len, json_t *context)
{
    struct rendering r;
    static const struct hd_jinja_limits limits = HD_JINJA_LIMITS_DEFAULT;
    size_t n_request = 0;
    render(&r, text, len, context, &limits);
    if (r.err)
        fail_msg("%s", r.msg.text);
    for (size_t i = 0; i < r.out.len; i++) {
        unsigned char c = (unsigned char)r.out.text[i];
        bool lead = c == 0xd0 || c == 0xd1;
        bool cyrillic = lead || (i && (c & 0xc0) == 0x80 &&
                                 ((unsigned char)r.out.text[i - 1] == 0xd0 ||
                                  (unsigned char)r.out.text[i - 1] == 0xd1));
        if (cyrillic != from_request(&r.out, i))
            fail_msg("byte %zu (%.12s) of: %s", i, r.out.text + i, r.out.text);
        n_request += cyrillic;
    }
    assert_true(n_request > 0);
    dispose(&r);
}

static void marks_what_the_request_wrote(void **state)
{
    static const char *const transformations[] = {
        "<b>{{ x }}</b>",
        "{{ x|trim }}{{ ' ' + x + ' ' }}{{ x ~ 1 }}{{ 'a' ~ x }}",
        "{{ x.split('б')[-1] }}|{{ x.split('б', 1)|join('-') }}|{{ x.partition('б')[0] }}",
        "{{ x.replace('б', 'clean') }}{{ 'clean'.replace('l', x) }}",
        "{{ x|upper }}{{ x|title }}{{ x.capitalize() }}{{ x[1:3] }}{{ x[::-1] }}{{ x[0] }}{{ x[-1] "
        "}}",
        "{{ x|tojson }}{{ {'k': x}|tojson }}{{ [x, 'clean']|tojson(indent=2) }}{{ [x] }}",
        "{% for c in x %}[{{ c }}]{% endfor %}{{ x|list|join(',') }}{{ x.strip('а') }}",
        "{% set y %}<{{ x }}>{% endset %}{{ y|upper }}{% macro m(v) %}({{ v }}){% endmacro %}{{ "
        "m(x) }}",
        "{{ x|indent(2) }}{{ x|default('d') }}{{ (x, 1) }}{{ [x, x]|sort|first }}{{ "
        "'a,b'.split(',')|join(x) }}",
        "{% set ns = namespace(t='') %}{% for i in range(3) %}{% set ns.t = ns.t + x + '-' %}{% "
        "endfor %}{{ ns.t }}",
        "{% filter upper %}a{{ x }}b{% endfilter %}{{ x|e }}{{ [x]|map('upper')|join }}{{ "
        "x|reverse }}",
        "{{ x.splitlines()|join(' ') }}{{ x.removeprefix('а') }}{{ x.rsplit('б', 1)[0] }}{{ "
        "x.join(['1', '2']) }}",
    };
    json_t *context = json_pack("{s:s}", "x", "абвгдабв");
    for (size_t i = 0; i < sizeof transformations / sizeof *transformations; i++)
        check_marks(transformations[i], strlen(transformations[i]), context);
    json_decref(context);
}

static json_t *cyrillic_conversation(void)
{
    return json_pack("{s:[{s:s,s:s},{s:s,s:s},{s:s,s:s},{s:s,s:s}],s:n,s:b,s:s}", "messages",
                     "role", "system", "content", "прив", "role", "user", "content", "вопрос",
                     "role", "assistant", "content", "мысль</think>ответ", "role", "user",
                     "content", "ещё", "tools", "add_generation_prompt", 1, "bos_token", "<s>");
}

/* Roles are strings of the request here too: only templates that print none of them are asked. */
static void marks_contents_in_published_templates(void **state)
{
    static const char *const names[] = {"r1-distill-qwen-7b", "r1-distill-llama-8b",
                                        "r1-distill-qwen-32b-mended"};
    json_t *context = cyrillic_conversation();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t len;
        char *text = read_template(names[i], &len);
        check_marks(text, len, context);
        free(text);
    }
    json_decref(context);
}

/* --- limits ----------------------------------------------------------------------------------- */

static void stops_at_its_limits(void **state)
{
    static const struct {
        const char *text;
        struct hd_jinja_limits limits;
        enum hd_err err;
    } cases[] = {
        {"{% for i in range(1000) %}{% for k in range(1000) %}{% endfor %}{% endfor %}",
         {10000, 64 << 20, 1 << 20},
         HD_ERR_INVALID},
        {"{% for i in range(1000) %}0123456789{% endfor %}", {100000, 1 << 20, 5000}, HD_ERR_LIMIT},
        {"{% set ns = namespace(t='ab') %}{% for i in range(40) %}{% set ns.t = ns.t + ns.t %}"
         "{% endfor %}",
         {1000000, 1 << 20, 1 << 20},
         HD_ERR_LIMIT},
        {"{{ 'ab' * 1000000000 }}", {1000000, 1 << 20, 1 << 20}, HD_ERR_LIMIT},
        {"{{ 'abc' * 100000 }}", {1000000, 1 << 16, 1 << 20}, HD_ERR_LIMIT},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
         {1000000, 1 << 26, 1 << 20},
         HD_ERR_INVALID},
        {"{{ 9 ** 99 }}", {1000000, 1 << 20, 1 << 20}, HD_ERR_INVALID},
        {"{{ 9223372036854775807 }}", {1000000, 1 << 20, 1 << 20}, HD_ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rendering r;
        render(&r, cases[i].text, strlen(cases[i].text), NULL, &cases[i].limits);
        if (r.err != cases[i].err)
            fail_msg("%s: %d %s", cases[i].text, r.err, r.msg.text);
        assert_int_equal(strncmp(r.msg.text, "line 1: ", 8), 0);
        dispose(&r);
    }
}

static void check_deep(const char *open, const char *middle, const char *close)
{
    struct hd_buf text;
    struct rendering r;
    hd_buf_init(&text, 1 << 24);
    for (int i = 0; i < 100000; i++)
        hd_buf_puts(&text, open);
    hd_buf_puts(&text, middle);
    for (int i = 0; i < 100000; i++)
        hd_buf_puts(&text, close);
    render_plain(&r, hd_buf_str(&text), NULL);
    assert_int_equal(r.err, HD_ERR_LIMIT);
    dispose(&r);
    hd_buf_dispose(&text);
}

static void refuses_what_is_nested_too_deeply(void **state)
{
    check_deep("{% if true %}", "x", "{% endif %}");
    check_deep("{% for x in y %}", "x", "{% endfor %}");
    struct hd_buf text;
    static const char *const nests[][3] = {
        {"(", "1", ")"},           {"[", "", "]"},  {"-", "1", ""},
        {"not ", "1", ""},         {"", "1", "+1"}, {"", "x", ".a"},
        {"", "x", "[0]"},          {"", "x", "|e"}, {"{1:", "1", "}"},
        {"1 if 1 else ", "1", ""}, {"", "x", "()"}};
    for (size_t k = 0; k < sizeof nests / sizeof *nests; k++) {
        struct rendering r;
        hd_buf_init(&text, 1 << 24);
        hd_buf_puts(&text, "{{ ");
        for (int i = 0; i < 50000; i++)
            hd_buf_puts(&text, nests[k][0]);
        hd_buf_puts(&text, nests[k][1]);
        for (int i = 0; i < 50000; i++)
            hd_buf_puts(&text, nests[k][2]);
        hd_buf_puts(&text, " }}");
        render_plain(&r, hd_buf_str(&text), NULL);
        if (r.err != HD_ERR_LIMIT)
            fail_msg("%s: %d %s", nests[k][0], r.err, r.msg.text);
        dispose(&r);
        hd_buf_dispose(&text);
    }
}

static void names_line_and_reason(void **state)
{
    static const char *const cases[][2] = {
        {"a\nb\n{% if %}", "line 3: "},
        {"a\n{{ x.y.z }}", "line 2: y is undefined"},
        {"{%- for m in messages %}\n\n{{ raise_exception('roles must alternate') }}{% endfor %}",
         "line 3: roles must alternate"},
        {"\n\n{{ x|nosuch }}", "line 3: the filter \"nosuch\" is not supported"},
        {"\n{% include 'x' %}", "line 2: the statement \"include\" is not supported"},
    };
    json_t *context = json_pack("{s:{s:i},s:[i]}", "x", "a", 1, "messages", 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rendering r;
        render_plain(&r, cases[i][0], context);
        assert_int_not_equal(r.err, 0);
        if (strncmp(r.msg.text, cases[i][1], strlen(cases[i][1])) != 0)
            fail_msg("%s: %s", cases[i][0], r.msg.text);
        dispose(&r);
    }
    json_decref(context);
}

static void knows_which_variables_are_read(void **state)
{
    static const char text[] =
        "{% set w = 1 %}{% for m in messages if m %}{{ tools|length }}{% endfor %}";
    struct hd_jinja *jinja;
    assert_int_equal(hd_jinja_compile(&jinja, text, sizeof text - 1, NULL), 0);
    assert_true(hd_jinja_reads(jinja, "messages"));
    assert_true(hd_jinja_reads(jinja, "tools"));
    assert_false(hd_jinja_reads(jinja, "w"));
    assert_false(hd_jinja_reads(jinja, "documents"));
    hd_jinja_free(jinja);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(renders_every_construct),
        cmocka_unit_test(renders_published_templates),
        cmocka_unit_test(marks_what_the_request_wrote),
        cmocka_unit_test(marks_contents_in_published_templates),
        cmocka_unit_test(stops_at_its_limits),
        cmocka_unit_test(refuses_what_is_nested_too_deeply),
        cmocka_unit_test(names_line_and_reason),
        cmocka_unit_test(knows_which_variables_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
