/* Grammars: what GBNF and schemas allow, byte by byte; what is refused, with which sentence; masks
 * against the definition; and that forgetting states changes nothing. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/store.h"
#include "token/grammar/grammar.h"

#define MODEL HD_TEST_ROOT "/golden/models/qwen2-tied.gguf"

static struct hd_grammar *compile(const char *gbnf)
{
    struct hd_grammar *g;
    struct hd_errmsg msg = {0};
    if (hd_grammar_new(&g, gbnf, strlen(gbnf), NULL, false, &msg))
        fail_msg("%s\n%s", msg.text, gbnf);
    return g;
}

static bool matches(struct hd_grammar *g, const char *text)
{
    struct hd_grammar_run *run;
    assert_int_equal(hd_grammar_run_new(&run, g, NULL), HD_OK);
    bool fits =
        !hd_grammar_run_accept_bytes(run, text, strlen(text)) && hd_grammar_run_may_end(run);
    hd_grammar_run_free(run);
    return fits;
}

static void assert_language(struct hd_grammar *g, const char *const *in, const char *const *out)
{
    for (; *in; in++)
        if (!matches(g, *in))
            fail_msg("must match: %s", *in);
    for (; *out; out++)
        if (matches(g, *out))
            fail_msg("must not match: %s", *out);
    hd_grammar_unref(g);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static void gbnf_means_what_it_says(void **state)
{
    (void)state;
    assert_language(compile("root ::= \"a\" (\"b\" | \"c\"+) \"d\"?"),
                    LIST("ab", "abd", "ac", "acccd"), LIST("", "a", "abb", "abdd", "b"));
    assert_language(compile("# comment\nroot ::= x{2,3} # more\nx ::= [a-c] |\n  \"\\\"\""),
                    LIST("ab", "c\"a"), LIST("a", "abca", "ad"));
    assert_language(compile("root ::= [^a\\n]{0,2} \"!\"{2}"), LIST("!!", "b!!", "é中!!", "😀!!"),
                    LIST("a!!", "!", "\n!!", "bbb!!!"));
    assert_language(compile("root ::= ([à-ü] | \"中\" | [\\U0001F600-\\U0001F64F])* \".\""),
                    LIST(".", "éü中😀."), LIST("e.", "ý.", "丮."));
    assert_language(compile("root ::= expr\nexpr ::= term (\"+\" term)*\n"
                            "term ::= [0-9] | \"(\" expr \")\"\n"),
                    LIST("1", "1+2", "(1+(2))+3", "((((5))))"), LIST("1+", "(1", "1)", "()"));
    assert_language(compile("root ::= (\"\" | \"x\")* \"y\" (\"\")*"), LIST("y", "xxy"), LIST("x"));
    assert_language(compile("root ::= . | \"\\x41\\u00e9\""), LIST("中", "a", "Aé"),
                    LIST("", "ab"));
    assert_language(compile("root ::=\n  (\n \"a\"\n | \"b\"\n )\n\nother ::= root"),
                    LIST("a", "b"), LIST("c"));
    /* a prefix of many ways, and a count that the stack keeps */
    assert_language(compile("root ::= \"a\" root \"b\" | \"c\""), LIST("c", "aacbb"),
                    LIST("aacb", "aacbbb"));
    assert_language(compile("root ::= \"ab\"{3}"), LIST("ababab"), LIST("abab", "abbb"));
}

static void bad_grammars_are_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "root"},
        {"x ::= \"a\"", "root"},
        {"root ::= y", "\"y\" is used"},
        {"root ::= \"a", "line 1: a literal does not end"},
        {"root ::= \"a\"\nb ::= [a", "line 2: a class does not end"},
        {"root ::= [z-a]", "backwards"},
        {"root ::= [^\\U00000000-\\U0010FFFF]", "without characters"},
        {"root ::= []", "without characters"},
        {"root ::= (\"a\"", "group does not end"},
        {"root ::= \"a\")", "did not begin"},
        {"root ::= \"a\"\nroot ::= \"b\"", "twice"},
        {"root ::= root \"a\" | \"b\"", "\"root\" begins with itself"},
        {"root ::= a\na ::= b? c\nb ::= \"x\"\nc ::= a \"y\" | \"z\"", "begins with itself"},
        {"root ::= root", "allows no text"},
        {"root ::= \"\\q\"", "unknown escape"},
        {"root ::= \"\\ud800\"", "names no character"},
        {"root ::= \"a\"{3,2}", "n below m"},
        {"root ::= \"a\"{99999}", "32768"},
        {"root ::= \"a\"**", "repetition of a repetition"},
        {"root ::= ((\"a\"{30000}) (\"b\"{30000})){30000} | \"x\"{0,30000} \"y\"{0,30000} "
         "\"z\"{0,30000}",
         "too large"},
        {"root ::= <x>", "tokens by name"},
        {"root ::= !\"a\"", "not supported"},
        {"root = \"a\"", "\"::=\""},
        {"root ::= \"\xff\"", "UTF-8"},
        {"root ::= + \"a\"", "expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_grammar *g;
        struct hd_errmsg msg = {0};
        enum hd_err err = hd_grammar_new(&g, cases[i][0], strlen(cases[i][0]), NULL, false, &msg);
        if (!err || !strstr(msg.text, cases[i][1]))
            fail_msg("%s: %d %s", cases[i][0], err, msg.text);
        assert_null(g);
    }
    char deep[512];
    struct hd_grammar *g;
    struct hd_errmsg msg = {0};
    snprintf(
        deep, sizeof deep, "root ::= %.100s\"a\"%.100s",
        "((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((",
        "))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))");
    assert_int_equal(hd_grammar_new(&g, deep, strlen(deep), NULL, false, &msg), HD_ERR_LIMIT);
    /* more ways at once than a state may have */
    struct hd_buf wide;
    hd_buf_init(&wide, 1 << 20);
    hd_buf_puts(&wide, "root ::= \"a\" (");
    for (int i = 0; i < 2000; i++)
        hd_buf_printf(&wide, "%s\"%d\"", i ? " | " : "", i);
    hd_buf_puts(&wide, ")");
    struct hd_grammar_run *run;
    g = compile(hd_buf_str(&wide));
    assert_int_equal(hd_grammar_run_new(&run, g, NULL), HD_OK);
    assert_int_equal(hd_grammar_run_accept_bytes(run, "a", 1), HD_ERR_LIMIT);
    hd_grammar_run_free(run);
    hd_grammar_unref(g);
    hd_buf_dispose(&wide);
}

/* --- schemas ---------------------------------------------------------------------------------- */

static struct hd_grammar *schema(const char *text)
{
    struct hd_buf gbnf;
    struct hd_errmsg msg = {0};
    hd_buf_init(&gbnf, 1 << 22);
    if (hd_grammar_from_schema(&gbnf, text, strlen(text), &msg))
        fail_msg("%s: %s", text, msg.text);
    struct hd_grammar *g = compile(hd_buf_str(&gbnf));
    hd_buf_dispose(&gbnf);
    return g;
}

static void schemas_allow_what_they_say(void **state)
{
    (void)state;
    assert_language(schema("{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},"
                           "\"b\":{\"type\":\"string\"}},\"required\":[\"a\"]}"),
                    LIST("{\"a\":1}", "{\"a\": -12, \"b\":\"x\"}", "{\n  \"a\": 0\n}"),
                    LIST("{}", "{\"b\":\"x\"}", "{\"a\":1.5}", "{\"a\":1,}", "{\"a\":1,\"c\":2}",
                         "{\"a\":01}"));
    assert_language(schema("{\"properties\":{\"a\":{},\"b\":{},\"c\":{}}}"),
                    LIST("{}", "{\"a\":[1,{}]}", "{\"b\":null}", "{\"a\":1,\"c\":2}",
                         "{\"b\":1,\"c\":2}", "{\"a\":0,\"b\":0,\"c\":0}"),
                    LIST("{\"b\":1,\"a\":2}", "{,\"a\":1}", "[]"));
    assert_language(schema("{\"type\":\"object\",\"properties\":{\"ab\":{\"type\":\"null\"},"
                           "\"ac\":{\"type\":\"null\"}},\"additionalProperties\":"
                           "{\"type\":\"boolean\"}}"),
                    LIST("{}", "{\"ab\":null,\"x\":true}", "{\"a\":true}", "{\"abc\":false}",
                         "{\"ad\":true,\"\":false}", "{\"ac\":null}"),
                    LIST("{\"ab\":true}", "{\"ac\":false,\"x\":true}", "{\"x\":null}"));
    assert_language(schema("{\"type\":\"object\",\"minProperties\":1,\"maxProperties\":2,"
                           "\"additionalProperties\":{\"type\":\"integer\"}}"),
                    LIST("{\"x\":1}", "{\"x\":1,\"y\":2}"),
                    LIST("{}", "{\"x\":1,\"y\":2,\"z\":3}", "{\"x\":\"\"}"));
    assert_language(schema("{\"enum\":[\"a\\\"b\",1,null,{\"k\":[true]}]}"),
                    LIST("\"a\\\"b\"", "1", "null", "{\"k\":[true]}"), LIST("\"a\"", "2", ""));
    assert_language(schema("{\"const\":\"中\"}"), LIST("\"中\""), LIST("\"丮\""));
    assert_language(schema("{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"minItems\":1,"
                           "\"maxItems\":3}"),
                    LIST("[true]", "[true, false,true]"),
                    LIST("[]", "[true,true,true,true]", "[1]"));
    assert_language(schema("{\"type\":\"array\",\"prefixItems\":[{\"const\":1},{\"const\":2},"
                           "{\"const\":3}],\"items\":{\"const\":9},\"minItems\":1,\"maxItems\":5}"),
                    LIST("[1]", "[1,2]", "[1,2,3]", "[1,2,3,9,9]"),
                    LIST("[]", "[2]", "[1,3]", "[1,2,9]", "[1,2,3,9,9,9]"));
    assert_language(schema("{\"items\":{\"type\":\"null\"}}"),
                    LIST("[]", "[null]", "[null,null,null]"), LIST("[1]"));
    assert_language(schema("{\"type\":\"array\",\"minItems\":2}"), LIST("[1,{}]", "[1,2,3]"),
                    LIST("[1]"));
    assert_language(schema("{\"prefixItems\":[{\"const\":1}],\"items\":{\"const\":2}}"),
                    LIST("[]", "[1]", "[1,2,2,2]"), LIST("[2]"));
    assert_language(schema("{\"prefixItems\":[{\"const\":1}]}"), LIST("[]", "[1]"), LIST("[1,2]"));
    assert_language(schema("{\"type\":\"array\",\"maxItems\":0}"), LIST("[]"), LIST("[1]"));
    assert_language(schema("{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}"),
                    LIST("\"ab\"", "\"中文字\"", "\"\\n\\u4e2d\""),
                    LIST("\"a\"", "\"abcd\"", "\"\\ud800a\"", "\"a\nb\""));
    assert_language(schema("{\"type\":[\"string\",\"null\"]}"), LIST("\"\"", "null"), LIST("1"));
    assert_language(schema("{\"type\":\"number\"}"), LIST("0", "-1.5", "2e10", "1E-2", "-0"),
                    LIST("01", ".5", "1.", "+1", "1e"));
    assert_language(schema("{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"boolean\"}]}"),
                    LIST("1", "true"), LIST("null"));
    assert_language(
        schema("{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"a\"},"
               "\"x\":{\"type\":\"integer\"}},\"required\":[\"t\",\"x\"]},"
               "{\"$ref\":\"#/$defs/b\"}],\"$defs\":{\"b\":{\"type\":\"object\",\"properties\":"
               "{\"t\":{\"const\":\"b\"}},\"required\":[\"t\"]}}}"),
        LIST("{\"t\":\"a\",\"x\":1}", "{\"t\":\"b\"}"), LIST("{\"t\":\"a\"}", "{\"t\":\"c\"}"));
    assert_language(schema("{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":"
                           "\"integer\"}},\"required\":[\"a\"]},{\"properties\":{\"b\":{\"type\":"
                           "\"integer\"}},\"required\":[\"b\"]}]}"),
                    LIST("{\"a\":1,\"b\":2}"), LIST("{\"a\":1}", "{\"b\":1}"));
    assert_language(schema("{\"$ref\":\"#/$defs/node\",\"$defs\":{\"node\":{\"type\":\"object\","
                           "\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":{\"anyOf\":["
                           "{\"$ref\":\"#/$defs/node\"},{\"type\":\"null\"}]}},"
                           "\"required\":[\"v\",\"next\"]}}}"),
                    LIST("{\"v\":1,\"next\":null}", "{\"v\":1,\"next\":{\"v\":2,\"next\":null}}"),
                    LIST("{\"v\":1}", "{\"v\":1,\"next\":{}}"));
    assert_language(schema("true"), LIST("1", "[{\"a\":\"b\"}]", "null"), LIST("", "nul"));
    assert_language(schema("{\"type\":\"string\",\"format\":\"date\"}"), LIST("\"2024-02-28\""),
                    LIST("\"2024-02-30\"", "\"2024-13-01\"", "\"x\""));
}

static void numbers_keep_their_bounds(void **state)
{
    (void)state;
    static const int bounds[][2] = {{0, 0},    {0, 9},     {3, 17},     {-5, 5},    {-120, -7},
                                    {99, 101}, {-1, 1000}, {250, 1234}, {-99, -99}, {10, 99}};
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        char text[128];
        snprintf(text, sizeof text, "{\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d}",
                 bounds[i][0], bounds[i][1]);
        struct hd_grammar *g = schema(text);
        for (int k = -1500; k < 1500; k++) {
            snprintf(text, sizeof text, "%d", k);
            if (matches(g, text) != (k >= bounds[i][0] && k <= bounds[i][1]))
                fail_msg("%d in %d … %d", k, bounds[i][0], bounds[i][1]);
        }
        hd_grammar_unref(g);
    }
    assert_language(schema("{\"type\":\"integer\",\"minimum\":7}"), LIST("7", "10", "123456789"),
                    LIST("6", "-7", "0"));
    assert_language(schema("{\"type\":\"integer\",\"exclusiveMaximum\":7}"),
                    LIST("6", "0", "-123456789"), LIST("7", "10"));
    assert_language(schema("{\"type\":\"number\",\"exclusiveMinimum\":0,\"maximum\":2}"),
                    LIST("1", "2", "0.5", "1.99", "0.01"), LIST("0", "0.0", "2.1", "-0.5", "3"));
    assert_language(schema("{\"type\":\"number\",\"exclusiveMinimum\":0,\"exclusiveMaximum\":1}"),
                    LIST("0.5", "0.999"), LIST("0", "1", "0.0", "1.5", "-0.5"));
    assert_language(schema("{\"type\":\"number\",\"minimum\":-2.5,\"maximum\":-1}"),
                    LIST("-1", "-2", "-1.25"), LIST("-0.5", "-2.75", "-3", "0", "1"));
}

static void patterns_are_kept(void **state)
{
    (void)state;
    assert_language(schema("{\"type\":\"string\",\"pattern\":\"^[A-Z]{2}-\\\\d+$\"}"),
                    LIST("\"AB-1\"", "\"XY-2024\""),
                    LIST("\"A-1\"", "\"AB-\"", "AB-1", "\"AB-1x\""));
    assert_language(schema("{\"type\":\"string\",\"pattern\":\"a|b\"}"), LIST("\"xxa\"", "\"b\""),
                    LIST("\"xyz\""));
    assert_language(schema("{\"type\":\"string\",\"pattern\":\"^(?:é|\\\\.)?[^a]\\\\w*?$\"}"),
                    LIST("\"éb\"", "\".中_1\"", "\"\\\"\"", "\"\\\\\""), LIST("\"a\"", "\"\"\""));
    static const char *const bad[] = {"(?=a)", "\\\\1", "\\\\bx", "a**",      "(a",      "a)",
                                      "^a|b$", "[a",    "a^b",    "\\\\p{L}", "(?<n>a)", "a{,3}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[128];
        struct hd_buf out;
        struct hd_errmsg msg = {0};
        hd_buf_init(&out, 1 << 16);
        snprintf(text, sizeof text, "{\"type\":\"string\",\"pattern\":\"%s\"}", bad[i]);
        if (hd_grammar_from_schema(&out, text, strlen(text), &msg) != HD_ERR_UNSUPPORTED ||
            !strstr(msg.text, "\"pattern\""))
            fail_msg("%s: %s", bad[i], msg.text);
        hd_buf_dispose(&out);
    }
}

static void bad_schemas_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{", "line 1"},
        {"[]", "must be a schema"},
        {"{\"properties\":{\"x\":{\"not\":{}}}}", "schema/properties/x: \"not\""},
        {"{\"type\":\"object\",\"patternProperties\":{}}", "\"patternProperties\""},
        {"{\"type\":\"array\",\"uniqueItems\":true}", "\"uniqueItems\""},
        {"{\"type\":\"strnig\"}", "\"type\" must be"},
        {"{\"$ref\":\"http://example.org/x\"}", "\"$ref\""},
        {"{\"$ref\":\"#/$defs/x\"}", "\"$ref\""},
        {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "\"oneOf\""},
        {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", "\"minimum\""},
        {"{\"type\":\"integer\",\"multipleOf\":3}", "\"multipleOf\""},
        {"{\"enum\":[]}", "\"enum\""},
        {"{\"type\":\"integer\",\"enum\":[\"a\"]}", "\"enum\""},
        {"{\"type\":\"string\",\"format\":\"regex\"}", "\"format\""},
        {"{\"minLength\":-1}", "\"minLength\""},
        {"{\"minItems\":3,\"maxItems\":2}", "\"minItems\""},
        {"{\"required\":[\"a\"],\"additionalProperties\":false}", "\"a\""},
        {"{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "\"allOf\""},
        {"{\"$defs\":{\"a\":{\"allOf\":[{\"$ref\":\"#/$defs/a\"}]}},\"$ref\":\"#/$defs/a\"}",
         "\"$ref\""},
        {"{\"items\":[{}]}", "\"items\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hd_buf out;
        struct hd_errmsg msg = {0};
        hd_buf_init(&out, 1 << 20);
        if (!hd_grammar_from_schema(&out, cases[i][0], strlen(cases[i][0]), &msg) ||
            !strstr(msg.text, cases[i][1]))
            fail_msg("%s: %s", cases[i][0], msg.text);
        hd_buf_dispose(&out);
    }
}

/* --- masks ------------------------------------------------------------------------------------ */

struct words {
    struct hd_store *store;
    struct hd_tokenizer *tok;
    struct hd_grammar_vocab *vocab;
};

static void load(struct words *w)
{
    struct hd_errmsg msg = {0};
    if (hd_store_open(&w->store, MODEL, &msg) || hd_tokenizer_new(&w->tok, w->store, &msg) ||
        hd_grammar_vocab_new(&w->vocab, w->tok, hd_tokenizer_n_vocab(w->tok)))
        fail_msg("%s", msg.text);
}

static void unload(struct words *w)
{
    hd_grammar_vocab_free(w->vocab);
    hd_tokenizer_free(w->tok);
    hd_store_close(w->store);
}

/* Each token alone against the bytes that it stands for. */
static void masks_are_the_definition(void **state)
{
    (void)state;
    struct words w;
    load(&w);
    static const char *const before[] = {"",          "{",          "{\"",
                                         "{\"a",      "{\"a\":",    "{\"a\":1",
                                         "{\"中\xe4", "{\"a\":{}}", "{\"a\":[1, ",
                                         "{\"\\"};
    struct hd_grammar *g = compile(hd_grammar_json_object);
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        struct hd_grammar_run *run;
        const uint64_t *mask;
        bool any;
        assert_int_equal(hd_grammar_run_new(&run, g, w.vocab), HD_OK);
        assert_int_equal(hd_grammar_run_accept_bytes(run, before[i], strlen(before[i])), HD_OK);
        bool may_end = hd_grammar_run_may_end(run);
        assert_int_equal(hd_grammar_run_mask(run, &mask, &any), HD_OK);
        assert_true(any);
        assert_int_equal(may_end, !strcmp(before[i], "{\"a\":{}}"));
        assert_int_equal(hd_grammar_run_must_end(run), may_end);
        for (int32_t id = 0; (size_t)id < hd_tokenizer_n_vocab(w.tok); id++) {
            struct hd_grammar_run *other;
            struct hd_buf piece;
            hd_buf_init(&piece, 4096);
            hd_tokenizer_piece(w.tok, &piece, id, false);
            bool bit = mask[id / 64] >> (id % 64) & 1;
            assert_int_equal(hd_grammar_run_new(&other, g, w.vocab), HD_OK);
            assert_int_equal(hd_grammar_run_accept_bytes(other, before[i], strlen(before[i])),
                             HD_OK);
            bool fits = !hd_grammar_run_accept_bytes(other, hd_buf_str(&piece), piece.len);
            if (hd_tokenizer_is_end(w.tok, id))
                assert_int_equal(bit, may_end);
            else if (bit)
                assert_true(piece.len && fits);
            else if (piece.len && fits && *piece.data != '<') /* added tokens are never text */
                fail_msg("token %d (%s) after %s", id, hd_buf_str(&piece), before[i]);
            hd_grammar_run_free(other);
            assert_int_equal(hd_grammar_run_new(&other, g, w.vocab), HD_OK);
            assert_int_equal(hd_grammar_run_accept_bytes(other, before[i], strlen(before[i])),
                             HD_OK);
            assert_int_equal(hd_grammar_run_accept(other, id), bit ? HD_OK : HD_ERR_INVALID);
            hd_grammar_run_free(other);
            hd_buf_dispose(&piece);
        }
        hd_grammar_run_free(run);
    }
    hd_grammar_unref(g);
    unload(&w);
}

/* Two runs that need more states than are kept: each goes on as if it were alone. */
static void forgotten_states_come_back(void **state)
{
    (void)state;
    struct words w;
    load(&w);
    struct hd_grammar *g = compile(hd_grammar_json_object);
    struct hd_grammar_run *run[2];
    enum { DEPTH = 12000 };
    for (int r = 0; r < 2; r++) {
        assert_int_equal(hd_grammar_run_new(&run[r], g, w.vocab), HD_OK);
        assert_int_equal(hd_grammar_run_accept_bytes(run[r], "{\"k\":", 5), HD_OK);
    }
    for (int i = 0; i < DEPTH; i++)
        for (int r = 0; r < 2; r++)
            if (i < DEPTH / 2 || r)
                assert_int_equal(
                    hd_grammar_run_accept_bytes(run[r], r ? "[" : "{\"a\":", r ? 1 : 5), HD_OK);
    for (int r = 0; r < 2; r++) {
        assert_int_equal(hd_grammar_run_accept_bytes(run[r], "1", 1), HD_OK);
        for (int i = 0; i < (r ? DEPTH : DEPTH / 2); i++) {
            assert_false(hd_grammar_run_may_end(run[r]));
            assert_int_equal(hd_grammar_run_accept_bytes(run[r], r ? "]" : "}", 1), HD_OK);
        }
        assert_int_equal(hd_grammar_run_accept_bytes(run[r], r ? "]" : "]", 1), HD_ERR_INVALID);
        assert_int_equal(hd_grammar_run_accept_bytes(run[r], "}", 1), HD_OK);
        assert_true(hd_grammar_run_must_end(run[r]));
        hd_grammar_run_free(run[r]);
    }
    hd_grammar_unref(g);
    unload(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gbnf_means_what_it_says),
        cmocka_unit_test(bad_grammars_are_refused),
        cmocka_unit_test(schemas_allow_what_they_say),
        cmocka_unit_test(numbers_keep_their_bounds),
        cmocka_unit_test(patterns_are_kept),
        cmocka_unit_test(bad_schemas_are_refused_by_name),
        cmocka_unit_test(masks_are_the_definition),
        cmocka_unit_test(forgotten_states_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
