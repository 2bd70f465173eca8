/* WordPiece and Unigram: the recorded ids of the tokenizers library for texts and for pairs in
 * their templates (tests/golden/tokens), bounds, and what loaders refuse. */
#include "support.h"

#include "base/clock.h"
#include "store/gguf_write.h"

#define TOKENS HD_TEST_ROOT "/golden/tokens/"

/* One JSON value per line. */
static json_t *read_lines(const char *path)
{
    json_t *list = json_array();
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t cap = 0;
    assert_non_null(file);
    for (ssize_t n; (n = getline(&line, &cap, file)) > 0;) {
        json_t *value = json_loadb(line, (size_t)n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_non_null(value);
        json_array_append_new(list, value);
    }
    free(line);
    fclose(file);
    return list;
}

static void assert_same_ids(const struct hd_ids *ids, json_t *want, const char *what)
{
    if (ids->n != json_array_size(want))
        fail_msg("%s: %zu ids instead of %zu", what, ids->n, json_array_size(want));
    for (size_t i = 0; i < ids->n; i++)
        if (ids->id[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("%s: id %zu is %d", what, i, ids->id[i]);
}

static const struct {
    const char *model, *ids, *pairs;
} tokenizers[] = {
    {"tiny-wordpiece", "tiny_wordpiece", "tiny-wordpiece"},
    {"tiny-wordpiece.gguf", "tiny_wordpiece", "tiny-wordpiece"},
    {"tiny-unigram", "tiny_unigram_json", "tiny-unigram"},
    {"tiny-unigram.gguf", "tiny_unigram_gguf", "tiny-unigram"},
};
enum { N_TOKENIZERS = sizeof tokenizers / sizeof *tokenizers };

static void load_tiny(struct kit *kit, size_t i)
{
    char path[512];
    snprintf(path, sizeof path, TOKENS "%s", tokenizers[i].model);
    if (load_path(kit, path))
        fail_msg("%s", kit->msg.text);
}

static void ids_are_the_librarys(void **state)
{
    json_t *texts = read_lines(TOKENS "nasty.jsonl");
    for (size_t t = 0; t < N_TOKENIZERS; t++) {
        char path[512];
        struct kit kit;
        load_tiny(&kit, t);
        snprintf(path, sizeof path, TOKENS "%s.ids.jsonl", tokenizers[t].ids);
        json_t *want = read_lines(path);
        assert_int_equal(json_array_size(want), json_array_size(texts));
        for (size_t i = 0; i < json_array_size(texts); i++) {
            json_t *text = json_array_get(texts, i);
            struct hd_ids ids;
            hd_ids_init(&ids, 1 << 20);
            assert_int_equal(hd_tokenizer_encode(kit.tok, &ids, json_string_value(text),
                                                 json_string_length(text), false),
                             0);
            assert_same_ids(&ids, json_array_get(want, i), json_string_value(text));
            hd_ids_dispose(&ids);
        }
        json_decref(want);
        kit_free(&kit);
    }
    json_decref(texts);
}

static void templates_and_cuts_are_the_librarys(void **state)
{
    for (size_t t = 0; t < N_TOKENIZERS; t++) {
        char path[512];
        struct kit kit;
        load_tiny(&kit, t);
        snprintf(path, sizeof path, TOKENS "%s.pairs.jsonl", tokenizers[t].pairs);
        json_t *rows = read_lines(path);
        assert_true(json_array_size(rows) > 100);
        for (size_t i = 0; i < json_array_size(rows); i++) {
            json_t *row = json_array_get(rows, i);
            const char *a = json_string_value(json_object_get(row, "a"));
            const char *b = json_string_value(json_object_get(row, "b"));
            struct hd_token_input input = {
                .text = a,
                .len = strlen(a),
                .pair = b,
                .pair_len = b ? strlen(b) : 0,
                .max = (size_t)json_integer_value(json_object_get(row, "max"))};
            struct hd_ids ids, types;
            hd_ids_init(&ids, 1 << 20);
            hd_ids_init(&types, 1 << 20);
            assert_int_equal(hd_tokenizer_encode_input(kit.tok, &ids, &types, &input, NULL), 0);
            assert_same_ids(&ids, json_object_get(row, "ids"), a);
            assert_same_ids(&types, json_object_get(row, "types"), a);
            hd_ids_dispose(&ids);
            hd_ids_dispose(&types);
        }
        json_decref(rows);
        kit_free(&kit);
    }
}

static void says_what_was_cut(void **state)
{
    struct kit kit;
    struct hd_ids ids;
    size_t n_cut = 99;
    struct hd_token_input input = {.text = "one two three", .len = 13, .max = 4};
    load_tiny(&kit, 0);
    hd_ids_init(&ids, 100);
    assert_int_equal(hd_tokenizer_encode(kit.tok, &ids, input.text, input.len, false), 0);
    size_t n = ids.n;
    ids.n = 0;
    assert_int_equal(hd_tokenizer_encode_input(kit.tok, &ids, NULL, &input, &n_cut), 0);
    assert_int_equal(ids.n, 4);
    assert_int_equal(n_cut, n - 2);
    assert_true(hd_tokenizer_is_control(kit.tok, ids.id[0]));
    assert_false(hd_tokenizer_is_control(kit.tok, ids.id[1]));
    assert_int_equal(ids.id[0], hd_tokenizer_special(kit.tok, "[CLS]"));
    assert_int_equal(ids.id[3], hd_tokenizer_special(kit.tok, "[SEP]"));
    input.max = 1; /* no room for the template */
    assert_int_equal(hd_tokenizer_encode_input(kit.tok, &ids, NULL, &input, NULL), HD_ERR_INVALID);
    hd_ids_dispose(&ids);
    kit_free(&kit);
}

/* A byte-level model has no template: its BOS and the text; pairs are refused. */
static void models_without_template(void **state)
{
    static const char *const added[] = {"!<b>", NULL};
    struct kit kit;
    struct hd_ids ids;
    struct hd_token_input input = {.text = "ab", .len = 2};
    assert_int_equal(
        load_json(&kit, make_json(NULL, added), "{\"bos_token\":\"<b>\",\"add_bos_token\":true}"),
        0);
    hd_ids_init(&ids, 100);
    assert_int_equal(hd_tokenizer_encode_input(kit.tok, &ids, NULL, &input, NULL), 0);
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.id[0], 256);
    assert_false(hd_tokenizer_has_pairs(kit.tok));
    input.pair = "c";
    input.pair_len = 1;
    assert_int_equal(hd_tokenizer_encode_input(kit.tok, &ids, NULL, &input, NULL),
                     HD_ERR_UNSUPPORTED);
    hd_ids_dispose(&ids);
    kit_free(&kit);
}

static void text_comes_back(void **state)
{
    static const char text[] = "the quick brown fox";
    for (size_t t = 0; t < N_TOKENIZERS; t++) {
        struct kit kit;
        struct hd_ids ids;
        struct hd_buf back;
        load_tiny(&kit, t);
        hd_ids_init(&ids, 100);
        hd_buf_init(&back, 1000);
        assert_int_equal(hd_tokenizer_encode(kit.tok, &ids, text, sizeof text - 1, false), 0);
        assert_int_equal(hd_tokenizer_decode(kit.tok, &back, ids.id, ids.n, false, NULL), 0);
        assert_string_equal(hd_buf_str(&back), text);
        hd_buf_dispose(&back);
        hd_ids_dispose(&ids);
        kit_free(&kit);
    }
}

/* Markup in plain text is text; with `special` it is the token. */
static void markup_is_text(void **state)
{
    static const char *const markup[] = {"[SEP]", "[SEP]", "</s>", "</s>"};
    for (size_t t = 0; t < N_TOKENIZERS; t++) {
        struct kit kit;
        struct hd_ids ids;
        load_tiny(&kit, t);
        int32_t id = hd_tokenizer_special(kit.tok, markup[t]);
        assert_true(id >= 0);
        hd_ids_init(&ids, 100);
        assert_int_equal(hd_tokenizer_encode(kit.tok, &ids, markup[t], strlen(markup[t]), false),
                         0);
        for (size_t i = 0; i < ids.n; i++)
            assert_int_not_equal(ids.id[i], id);
        ids.n = 0;
        assert_int_equal(hd_tokenizer_encode(kit.tok, &ids, markup[t], strlen(markup[t]), true), 0);
        assert_int_equal(ids.n, 1);
        assert_int_equal(ids.id[0], id);
        hd_ids_dispose(&ids);
        kit_free(&kit);
    }
}

/* Hostile text costs no more than in proportion. */
static void megabytes_of_one_character(void **state)
{
    static const char *const units[] = {"a", " ",         "\n",   "!",  "中",
                                        "▁", "e\xcc\x81", "\xff", "##", "\xf0\x9f\x92\xa9"};
    enum { BYTES = 1 << 20 };
    char *text = malloc(BYTES + 16);
    for (size_t t = 0; t < N_TOKENIZERS; t++) {
        struct kit kit;
        load_tiny(&kit, t);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            struct hd_ids ids;
            size_t step = strlen(units[u]), len = 0;
            for (; len < BYTES; len += step)
                memcpy(text + len, units[u], step);
            hd_ids_init(&ids, 1 << 24);
            double start = hd_clock_seconds();
            assert_int_equal(hd_tokenizer_encode(kit.tok, &ids, text, len, false), 0);
            assert_true(hd_clock_seconds() - start < 5);
            hd_ids_dispose(&ids);
        }
        kit_free(&kit);
    }
    free(text);
}

/* --- small ones of our own -------------------------------------------------------------------- */

static json_t *unigram_json(const char *vocab, const char *normalizer)
{
    char text[4096];
    snprintf(text, sizeof text,
             "{\"normalizer\":%s,\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"▁\","
             "\"prepend_scheme\":\"always\"},\"model\":{\"type\":\"Unigram\",\"unk_id\":0,"
             "\"vocab\":%s}}",
             normalizer, vocab);
    json_error_t error;
    json_t *json = json_loads(text, 0, &error);
    if (!json)
        fail_msg("%s: %s", text, error.text);
    return json;
}

static void best_scores_win(void **state)
{
    struct kit kit;
    /* "▁ab" as one piece costs 5, as "▁a" + "b" 4.5; "cd" ties with "c" + "d": the longer wins. */
    json_t *json = unigram_json("[[\"?\",0],[\"▁ab\",-5],[\"▁a\",-2.5],[\"b\",-2],[\"c\",-1],"
                                "[\"d\",-1],[\"cd\",-2],[\"▁\",-3]]",
                                "null");
    assert_int_equal(load_json(&kit, json, NULL), 0);
    assert_ids(&kit, "ab", false, "2,3");
    assert_ids(&kit, "cd", false, "7,6");
    assert_ids(&kit, "axxb", false, "2,0,3"); /* a run of unknown characters is one */
    assert_ids(&kit, "x\xe4\xb8\xad", false, "7,0");
    assert_ids(&kit, "?", false, "7,0"); /* the unknown piece matches no text */
    kit_free(&kit);
}

static void normaliser_steps(void **state)
{
    static const char vocab[] = "[[\"?\",0],[\"▁\",-3],[\"a\",-1],[\"b\",-1],[\"i\",-1]]";
    static const struct {
        const char *normalizer, *text, *want;
    } cases[] = {
        {"{\"type\":\"Lowercase\"}", "AB", "1,2,3"},
        {"{\"type\":\"Lowercase\"}", "\xc4\xb0", "1,4,0"}, /* İ becomes i and a dot */
        {"{\"type\":\"Strip\"}",
         " \xe3\x80\x80"
         "ab ",
         "1,2,3"},
        {"{\"type\":\"Strip\",\"strip_left\":false}", "ab  ", "1,2,3"},
        {"{\"type\":\"StripAccents\"}",
         "a\xcc\x81"
         "b",
         "1,2,3"},
        {"{\"type\":\"Replace\",\"pattern\":{\"String\":\"xx\"},\"content\":\"a\"}", "xxbxx",
         "1,2,3,2"},
        {"{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x+\"},\"content\":\"\"}", "xxabxxx",
         "1,2,3"},
        {"{\"type\":\"Prepend\",\"prepend\":\"b\"}", "a", "1,3,2"},
        {"{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":\"Lowercase\"}]}",
         "\xef\xbc\xa1", "1,2"}, /* a full-width A */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kit kit;
        if (load_json(&kit, unigram_json(vocab, cases[i].normalizer), NULL))
            fail_msg("%s", kit.msg.text);
        assert_ids(&kit, cases[i].text, false, cases[i].want);
        kit_free(&kit);
    }
}

static void refused(json_t *json, const char *says)
{
    struct kit kit;
    assert_int_not_equal(load_json(&kit, json, NULL), 0);
    assert_null(kit.tok);
    if (!strstr(kit.msg.text, says))
        fail_msg("\"%s\" does not say \"%s\"", kit.msg.text, says);
    kit_free(&kit);
}

static json_t *with(json_t *json, const char *key, const char *value)
{
    json_t *parsed = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_non_null(parsed);
    json_object_set_new(json, key, parsed);
    return json;
}

static void refuses_what_it_cannot_follow(void **state)
{
    static const char good[] = "[[\"?\",0],[\"a\",-1]]";
    refused(unigram_json("[]", "null"), "vocab");
    refused(unigram_json("[[\"?\"]]", "null"), "vocab[0]");
    refused(unigram_json("[[\"?\",\"0\"]]", "null"), "vocab[0]");
    refused(unigram_json(good, "{\"type\":\"Nmt\"}"), "Nmt");
    refused(unigram_json(good, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}"),
            "precompiled_charsmap");
    refused(unigram_json(good, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"?\"}"),
            "precompiled_charsmap");
    refused(
        unigram_json(good, "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"}"),
        "Replace");
    refused(unigram_json(good, "{\"type\":\"Replace\",\"content\":\"\"}"), "pattern");
    refused(with(unigram_json(good, "null"), "pre_tokenizer", "{\"type\":\"ByteLevel\"}"),
            "ByteLevel");
    refused(with(unigram_json(good, "null"), "pre_tokenizer", "null"), "Metaspace");
    refused(with(unigram_json(good, "null"), "post_processor", "{\"type\":\"Unheard\"}"),
            "Unheard");
    refused(
        with(unigram_json(good, "null"), "post_processor",
             "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}]}"),
        "post_processor");
    refused(with(unigram_json(good, "null"), "model",
                 "{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"vocab\":{\"a\":0}}"),
            "WordPiece");
    refused(
        with(with(unigram_json(good, "null"), "pre_tokenizer", "{\"type\":\"BertPreTokenizer\"}"),
             "model", "{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"vocab\":{\"a\":0}}"),
        "unk_token");
}

/* A charsmap of random bytes finds other replacements, or none, and reads nothing outside. */
static void charsmaps_of_noise(void **state)
{
    uint64_t random = 11;
    for (int round = 0; round < 200; round++) {
        uint8_t map[4 + 1024 + 64];
        struct kit kit;
        char folder[] = "/tmp/hd_token_XXXXXX";
        struct hd_gguf_writer *w;
        assert_non_null(mkdtemp(folder));
        for (size_t i = 4; i < sizeof map; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            map[i] = i < 4 + 1024 ? (uint8_t)(random >> 56) : (uint8_t)(random >> 57) % 26 + 'a';
        }
        memcpy(map, (uint8_t[]){0, 4, 0, 0}, 4);
        char *path = hd_path_join(folder, "m.gguf");
        FILE *file = fopen(path, "wb");
        assert_int_equal(hd_gguf_writer_new(&w, fileno(file)), 0);
        hd_gguf_put_str(w, "tokenizer.ggml.model", "t5");
        hd_gguf_put_array(w, "tokenizer.ggml.tokens", HD_GGUF_STR, 3);
        hd_gguf_item_str(w, "<unk>", 5);
        hd_gguf_item_str(w, "</s>", 4);
        hd_gguf_item_str(w, "▁", 3);
        hd_gguf_put_array(w, "tokenizer.ggml.scores", HD_GGUF_F32, 3);
        hd_gguf_item(w, (float[]){0, 0, -1}, 12);
        hd_gguf_put_array(w, "tokenizer.ggml.token_type", HD_GGUF_I32, 3);
        hd_gguf_item(w, (int32_t[]){2, 3, 1}, 12);
        hd_gguf_put_array(w, "tokenizer.ggml.precompiled_charsmap", HD_GGUF_U8, sizeof map);
        hd_gguf_item(w, map, sizeof map);
        assert_int_equal(hd_gguf_begin(w, NULL), 0);
        assert_int_equal(hd_gguf_finish(w, NULL), 0);
        hd_gguf_writer_free(w);
        fclose(file);
        if (load_path(&kit, path))
            fail_msg("%s", kit.msg.text);
        char text[256];
        for (int i = 0; i < 256; i++)
            text[i] = (char)i;
        free(encode_text(&kit, text, sizeof text, false));
        kit_free(&kit);
        unlink(path);
        rmdir(folder);
        free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_the_librarys),
        cmocka_unit_test(templates_and_cuts_are_the_librarys),
        cmocka_unit_test(says_what_was_cut),
        cmocka_unit_test(models_without_template),
        cmocka_unit_test(text_comes_back),
        cmocka_unit_test(markup_is_text),
        cmocka_unit_test(megabytes_of_one_character),
        cmocka_unit_test(best_scores_win),
        cmocka_unit_test(normaliser_steps),
        cmocka_unit_test(refuses_what_it_cannot_follow),
        cmocka_unit_test(charsmaps_of_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
