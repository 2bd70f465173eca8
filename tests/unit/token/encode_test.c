/* Encoding: merges, splits, added tokens, broken input, bounds; and what loaders refuse. */
#include "support.h"

#include "base/clock.h"
#include "base/utf8.h"

static const char *const merges[] = {"a b", "ab c", "b c", "a a", "aa aa", "aaaa aaaa", NULL};
/* ids:                              256    257     258    259    260      261 */

static void merges_by_rank(void **state)
{
    struct kit kit;
    assert_int_equal(load_json(&kit, make_json(merges, NULL), NULL), 0);
    assert_int_equal(hd_tokenizer_n_vocab(kit.tok), 262);
    assert_ids(&kit, "", false, "");
    assert_ids(&kit, "abc", false, "257");      /* ab before bc */
    assert_ids(&kit, "bcbc", false, "258,258"); /* a word is merged as a whole */
    assert_ids(&kit, "aaa", false, "259,97");   /* leftmost on ties */
    assert_ids(&kit, "aaaaaaaaa", false, "261,97");
    assert_ids(&kit, "aab", false, "97,256"); /* rank, not position */
    assert_ids(&kit, "ab, ab", false, "256,44,32,256");
    kit_free(&kit);
}

/* The heap of long words against the scan of short ones: a word of 64 bytes takes the one path, the
 * same word followed by bytes that never merge takes the other. */
static void long_words_merge_like_short_ones(void **state)
{
    struct kit kit;
    uint64_t random = 7;
    assert_int_equal(load_json(&kit, make_json(merges, NULL), NULL), 0);
    for (int round = 0; round < 200; round++) {
        char word[129];
        for (int i = 0; i < 128; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            word[i] = i < 60 ? "aabc"[random >> 62] : 'z';
        }
        word[128] = 0;
        char *both = encode_text(&kit, word, 128, false),
             *start = encode_text(&kit, word, 60, false);
        assert_memory_equal(both, start, strlen(start));
        assert_memory_equal(both + strlen(start), ",122,122", 8);
        free(both);
        free(start);
    }
    kit_free(&kit);
}

/* Hostile text costs no more than in proportion: one letter, one space, one line break, … */
static void megabytes_of_one_character(void **state)
{
    static const char *const units[] = {"a", " ",   "\n", "!",    "7", "中",
                                        "<", "\t ", "a ", "\xff", "'s"};
    struct kit kit;
    enum { BYTES = 1 << 20 };
    char *text = malloc(BYTES + 16);
    assert_int_equal(load_json(&kit, make_json(merges, NULL), NULL), 0);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        struct hd_ids ids;
        size_t step = strlen(units[u]), len = 0;
        for (; len < BYTES; len += step)
            memcpy(text + len, units[u], step);
        hd_ids_init(&ids, 1 << 24);
        double start = hd_clock_seconds();
        assert_int_equal(hd_tokenizer_encode(kit.tok, &ids, text, len, false), 0);
        assert_true(hd_clock_seconds() - start < 5);
        struct hd_buf back;
        hd_buf_init(&back, 1 << 24);
        assert_int_equal(hd_tokenizer_decode(kit.tok, &back, ids.id, ids.n, true, NULL), 0);
        assert_int_equal(back.len, units[u][0] == '\xff' ? 3 * len : len);
        if (units[u][0] == 'a' && step == 1)
            assert_int_equal(ids.n, BYTES / 8);
        hd_buf_dispose(&back);
        hd_ids_dispose(&ids);
    }
    free(text);
    kit_free(&kit);
}

static void stops_at_the_limit_of_ids(void **state)
{
    struct kit kit;
    struct hd_ids ids;
    assert_int_equal(load_json(&kit, make_json(NULL, NULL), NULL), 0);
    hd_ids_init(&ids, 3);
    assert_int_equal(hd_tokenizer_encode(kit.tok, &ids, "abcd", 4, false), HD_ERR_LIMIT);
    assert_int_equal(ids.err, HD_ERR_LIMIT);
    hd_ids_dispose(&ids);
    kit_free(&kit);
}

static void broken_bytes_become_replacement_characters(void **state)
{
#define R "239,191,189"
    static const struct {
        const char *text;
        size_t len;
        const char *want;
    } cases[] = {
        {"\xff", 1, R},
        {"a\x80z", 3, "97," R ",122"},
        {"\xe4\xbd", 2, R}, /* a true prefix is one */
        {"\xe4\xbdz", 3, R ",122"},
        {"\xf0\x9f\x91\xff", 4, R "," R},
        {"\xc0\xaf", 2, R "," R},           /* overlong */
        {"\xed\xa0\x80", 3, R "," R "," R}, /* a surrogate */
        {"\xf5\x80", 2, R "," R},
        {"a\0b", 3, "97,0,98"}, /* NUL is a byte like any other */
    };
#undef R
    struct kit kit;
    assert_int_equal(load_json(&kit, make_json(NULL, NULL), NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *got = encode_text(&kit, cases[i].text, cases[i].len, false);
        assert_string_equal(got, cases[i].want);
        free(got);
        got = encode_text(&kit, cases[i].text, cases[i].len, true);
        assert_string_equal(got, cases[i].want);
        free(got);
    }
    kit_free(&kit);
}

static void special_tokens_are_text_unless_asked_for(void **state)
{
    static const char *const added[] = {"!<s>", "<s>x", "!<｜e｜>", NULL}; /* 256, 257, 258 */
    struct kit kit;
    assert_int_equal(load_json(&kit, make_json(NULL, added), NULL), 0);
    assert_ids(&kit, "<s>", false, "60,115,62");
    assert_ids(&kit, "<s>", true, "256");
    assert_ids(&kit, "<s>x<s>y", true, "257,256,121"); /* the longest wins */
    assert_ids(&kit, "a<s", true, "97,60,115");
    assert_ids(&kit, "<<s>>", true, "60,256,62");
    assert_ids(&kit, "<｜e｜>", true, "258");
    assert_int_equal(hd_tokenizer_special(kit.tok, "<s>"), 256);
    assert_int_equal(hd_tokenizer_special(kit.tok, "<s>x"), 257);
    assert_int_equal(hd_tokenizer_special(kit.tok, "a"), -1);
    struct hd_buf buf;
    hd_buf_init(&buf, 100);
    hd_tokenizer_piece(kit.tok, &buf, 256, false); /* control: nothing */
    hd_tokenizer_piece(kit.tok, &buf, 257, false); /* not control: its text */
    hd_tokenizer_piece(kit.tok, &buf, 256, true);
    assert_string_equal(buf.data, "<s>x<s>");
    hd_buf_dispose(&buf);
    kit_free(&kit);
}

/* The flags of added_tokens, as the tokenizers library defines them. */
static void added_tokens_obey_their_flags(void **state)
{
    static const char *const added[] = {"<w>", "<l>", "<r>", "e\xcc\x81", NULL}; /* 256…259 */
    static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized"};
    struct kit kit;
    json_t *json = make_json(NULL, added), *list = json_object_get(json, "added_tokens");
    for (size_t i = 0; i < 4; i++)
        json_object_set_new(json_array_get(list, i), flags[i], json_true());
    assert_int_equal(load_json(&kit, json, NULL), 0);
    assert_ids(&kit, "<w>", true, "256");
    assert_ids(&kit, " <w> ", true, "32,256,32");
    assert_ids(&kit, "a<w>", true, "97,60,119,62");
    assert_ids(&kit, "<w>\xc3\xa9", true, "60,119,62,195,169");
    assert_ids(&kit, "a  <l> b", true, "97,257,32,98");
    assert_ids(&kit, "a <r>  b", true, "97,32,258,98");
    assert_ids(&kit, "<r> \n\xe3\x80\x80<l>", true, "258,257");
    assert_ids(&kit, "xe\xcc\x81y", true, "120,259,121");
    kit_free(&kit);
}

static void splits_as_the_pattern_says(void **state)
{
    static const char *const some[] = {"1 2", "Ġ b", "Ċ Ċ", NULL}; /* 256 257 258 */
    struct kit kit;
    assert_int_equal(load_json(&kit, make_json(some, NULL), NULL), 0);
    assert_ids(&kit, "12", false, "49,50"); /* digits stand alone */
    assert_ids(&kit, "a b", false, "97,257");
    assert_ids(&kit, "a  b", false, "97,32,257");
    assert_ids(&kit, "\n\n", false, "258");
    assert_ids(&kit, "\n \n", false, "10,32,10");
    /* U+180E is no white space (PCRE2's \s would take it). */
    assert_ids(&kit,
               "\xe1\xa0\x8e\xe1\xa0\x8e"
               "b",
               false, "225,160,142,225,160,142,98");
    kit_free(&kit);
}

static void normalises_where_the_model_does(void **state)
{
    struct kit kit;
    json_t *json = make_json(NULL, NULL);
    assert_int_equal(load_json(&kit, json_deep_copy(json), NULL), 0);
    assert_ids(&kit, "e\xcc\x81", false, "101,204,129");
    kit_free(&kit);
    json_object_set_new(json, "normalizer", json_pack("{s:s}", "type", "NFC"));
    assert_int_equal(load_json(&kit, json, NULL), 0);
    assert_ids(&kit, "e\xcc\x81", false, "195,169");
    assert_ids(&kit, "\xe4\xb8\xad", false, "228,184,173");
    assert_ids(&kit, "\xef\xa4\x80", false, "232,177,136"); /* U+F900 becomes U+8C48 */
    kit_free(&kit);
}

static void knows_bos_and_ends(void **state)
{
    static const char *const added[] = {"!<b>", "!<e>", "!<|im_end|>", NULL}; /* 256 257 258 */
    static const struct {
        const char *config;
        int32_t bos;
        bool e_ends;
    } cases[] = {
        {NULL, -1, false},
        {"{\"bos_token\":\"<b>\",\"eos_token\":\"<e>\",\"add_bos_token\":true}", 256, true},
        {"{\"bos_token\":{\"content\":\"<b>\"},\"eos_token\":{\"content\":\"<e>\"},"
         "\"add_bos_token\":true}",
         256, true},
        {"{\"bos_token\":\"<b>\",\"add_bos_token\":false}", -1, false},
        {"{\"bos_token\":\"<b>\"}", -1, false},
        {"{\"bos_token\":\"<b>\",\"tokenizer_class\":\"LlamaTokenizerFast\"}", 256, false},
        {"{\"bos_token\":null,\"eos_token\":\"nonsense\",\"add_bos_token\":true}", -1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kit kit;
        assert_int_equal(load_json(&kit, make_json(NULL, added), cases[i].config), 0);
        assert_int_equal(hd_tokenizer_bos(kit.tok), cases[i].bos);
        assert_int_equal(hd_tokenizer_is_end(kit.tok, 257), cases[i].e_ends);
        assert_true(hd_tokenizer_is_end(kit.tok, 258));
        assert_false(hd_tokenizer_is_end(kit.tok, 256));
        assert_false(hd_tokenizer_is_end(kit.tok, -1));
        kit_free(&kit);
    }
}

/* Replaces or adds one value of a good tokenizer.json and expects a refusal that says why. */
static void refuses(const char *where, const char *key, const char *value, const char *says)
{
    struct kit kit;
    static const char *const added[] = {"!<b>", NULL};
    json_t *json = make_json(merges, added), *at = json, *parsed;
    if (*where)
        at = json_object_get(json, where);
    parsed = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_non_null(parsed);
    json_object_set_new(at, key, parsed);
    assert_int_not_equal(load_json(&kit, json, NULL), 0);
    assert_null(kit.tok);
    if (!strstr(kit.msg.text, says) || !strstr(kit.msg.text, "tokenizer.json"))
        fail_msg("%s %s: \"%s\" does not say \"%s\"", key, value, kit.msg.text, says);
    kit_free(&kit);
}

static void refuses_tokenizers_it_cannot_follow(void **state)
{
    refuses("model", "type", "\"Unigram\"", "Unigram");
    refuses("model", "byte_fallback", "true", "byte_fallback");
    refuses("model", "end_of_word_suffix", "\"</w>\"", "</w>");
    refuses("model", "dropout", "0.1", "dropout");
    refuses("model", "vocab", "{}", "vocab");
    refuses("model", "vocab", "{\"a\":-1}", "usable id");
    refuses("model", "vocab", "{\"a\":99999999999}", "usable id");
    refuses("model", "vocab", "{\"a\":1,\"b\":1}", "two tokens");
    refuses("model", "merges", "{}", "merges");
    refuses("model", "merges", "[\"ab\"]", "merge 0");
    refuses("model", "merges", "[\"a zzz\"]", "not in the vocabulary");
    refuses("model", "merges", "[[\"a\"]]", "merge 0");
    refuses("model", "merges", "[7]", "merge 0");
    refuses("", "normalizer", "{\"type\":\"Nmt\"}", "Nmt");
    refuses("", "pre_tokenizer", "null", "pre_tokenizer");
    refuses("", "pre_tokenizer", "{\"type\":\"Metaspace\"}", "Metaspace");
    refuses("", "pre_tokenizer", "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}",
            "add_prefix_space");
    refuses("pre_tokenizer", "pretokenizers", "[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]",
            "after ByteLevel");
    refuses("pre_tokenizer", "pretokenizers",
            "[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}]",
            "pattern");
    refuses("pre_tokenizer", "pretokenizers",
            "[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"MergedWithNext\"}]",
            "MergedWithNext");
    refuses("", "added_tokens", "[{\"id\":1}]", "added_tokens");
    refuses("", "added_tokens", "[{\"id\":-1,\"content\":\"x\"}]", "added_tokens");
    refuses("", "added_tokens", "[{\"id\":300,\"content\":\"x\"},{\"id\":300,\"content\":\"y\"}]",
            "two added tokens");
    refuses("", "model", "7", "model");
}

/* The same text gives the same ids from a GGUF and from its folder, also where only one of both
 * normalises (the tiny folders name no normalizer, so the text stays composed). */
static void gguf_and_folder_agree(void **state)
{
    static const char *const names[] = {"qwen2-tied", "llama3"};
    static const char *const texts[] = {
        "Hello, world! 12345 don't DON'T",
        "  spaces\t\ttabs\n\n\nlines \r\n",
        "<|im_start|><｜User｜><|eot_id|></think>",
        "中文、日本語、한국어 и кириллица ελληνικά",
        "👩‍💻 🇨🇳 e\u0301 \u00a0\u3000\u200b",
        "int main(void) { return 0x1F; } // ok",
    };
    for (size_t m = 0; m < 2; m++) {
        struct kit gguf, hf;
        char path[512];
        snprintf(path, sizeof path, HD_TEST_ROOT "/golden/models/%s.gguf", names[m]);
        assert_int_equal(load_path(&gguf, path), 0);
        snprintf(path, sizeof path, HD_TEST_ROOT "/golden/models/%s", names[m]);
        assert_int_equal(load_path(&hf, path), 0);
        assert_int_equal(hd_tokenizer_bos(gguf.tok), hd_tokenizer_bos(hf.tok));
        assert_int_equal(hd_chat_form(gguf.tok), hd_chat_form(hf.tok));
        for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
            if (t == 4 && m == 0)
                continue; /* qwen2 normalises by its name in GGUF */
            for (int special = 0; special < 2; special++) {
                char *a = encode_text(&gguf, texts[t], strlen(texts[t]), special);
                char *b = encode_text(&hf, texts[t], strlen(texts[t]), special);
                assert_string_equal(a, b);
                free(a);
                free(b);
            }
        }
        kit_free(&gguf);
        kit_free(&hf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_by_rank),
        cmocka_unit_test(long_words_merge_like_short_ones),
        cmocka_unit_test(megabytes_of_one_character),
        cmocka_unit_test(stops_at_the_limit_of_ids),
        cmocka_unit_test(broken_bytes_become_replacement_characters),
        cmocka_unit_test(special_tokens_are_text_unless_asked_for),
        cmocka_unit_test(added_tokens_obey_their_flags),
        cmocka_unit_test(splits_as_the_pattern_says),
        cmocka_unit_test(normalises_where_the_model_does),
        cmocka_unit_test(knows_bos_and_ends),
        cmocka_unit_test(refuses_tokenizers_it_cannot_follow),
        cmocka_unit_test(gguf_and_folder_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
