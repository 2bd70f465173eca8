/* Small byte-level tokenizers made on the spot. Header-only; each test program uses what it needs.
 */
#ifndef TOKEN_TEST_SUPPORT_H
#define TOKEN_TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/file.h"
#include "token/token.h"

static const char qwen2_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+"
    "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

struct kit {
    struct hd_store *store;
    struct hd_tokenizer *tok;
    struct hd_errmsg msg;
};

/* The character of GPT-2's alphabet for a byte, as UTF-8. */
static inline void put_alphabet(struct hd_buf *buf, unsigned char byte)
{
    unsigned n = 0;
    bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
    for (unsigned b = 0; b < byte; b++)
        n += !((b >= '!' && b <= '~') || (b >= 0xa1 && b != 0xad));
    hd_buf_put_utf8(buf, printable ? byte : 0x100 + n);
}

static inline char *to_alphabet(const char *bytes, size_t len)
{
    struct hd_buf buf;
    hd_buf_init(&buf, 1 << 20);
    for (size_t i = 0; i < len; i++)
        put_alphabet(&buf, (unsigned char)bytes[i]);
    char *text = hd_buf_take(&buf);
    assert_non_null(text);
    return text;
}

/* tokenizer.json with the 256 bytes as ids 0…255, then `merges` ("a b" in plain ASCII) in order,
 * then added tokens; "!" in front of an added token makes it special. */
static inline json_t *make_json(const char *const *merges, const char *const *added)
{
    json_t *vocab = json_object(), *pairs = json_array(), *extra = json_array();
    json_int_t id = 0;
    for (; id < 256; id++) {
        char byte = (char)id, *text = to_alphabet(&byte, 1);
        json_object_set_new(vocab, text, json_integer(id));
        free(text);
    }
    for (; merges && *merges; merges++) {
        const char *space = strchr(*merges, ' ');
        char whole[256];
        snprintf(whole, sizeof whole, "%.*s%s", (int)(space - *merges), *merges, space + 1);
        json_object_set_new(vocab, whole, json_integer(id++));
        json_array_append_new(pairs, json_string(*merges));
    }
    for (; added && *added; added++) {
        bool special = **added == '!';
        json_array_append_new(extra, json_pack("{s:I,s:s,s:b}", "id", id++, "content",
                                               *added + special, "special", special));
    }
    return json_pack("{s:o,s:{s:s,s:[{s:s,s:{s:s},s:s,s:b},{s:s,s:b,s:b}]},s:{s:s,s:o,s:o}}",
                     "added_tokens", extra, "pre_tokenizer", "type", "Sequence", "pretokenizers",
                     "type", "Split", "pattern", "Regex", qwen2_pattern, "behavior", "Isolated",
                     "invert", 0, "type", "ByteLevel", "add_prefix_space", 0, "use_regex", 0,
                     "model", "type", "BPE", "vocab", vocab, "merges", pairs);
}

static inline void write_json(const char *folder, const char *name, json_t *json)
{
    char *path = hd_path_join(folder, name);
    assert_int_equal(json_dump_file(json, path, 0), 0);
    free(path);
}

/* Loads what make_json made (consumed) with a tokenizer_config.json, which may be NULL. */
static inline enum hd_err load_json(struct kit *kit, json_t *json, const char *config)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json"};
    char folder[] = "/tmp/hd_token_XXXXXX";
    *kit = (struct kit){0};
    assert_non_null(json);
    assert_non_null(mkdtemp(folder));
    write_json(folder, names[0], json);
    json_decref(json);
    if (config) {
        json_t *parsed = json_loads(config, 0, NULL);
        assert_non_null(parsed);
        write_json(folder, names[1], parsed);
        json_decref(parsed);
    }
    assert_int_equal(hd_store_open(&kit->store, folder, &kit->msg), 0);
    enum hd_err err = hd_tokenizer_new(&kit->tok, kit->store, &kit->msg);
    for (size_t i = 0; i < 2; i++) {
        char *path = hd_path_join(folder, names[i]);
        unlink(path);
        free(path);
    }
    rmdir(folder);
    return err;
}

static inline void kit_free(struct kit *kit)
{
    hd_tokenizer_free(kit->tok);
    hd_store_close(kit->store);
    *kit = (struct kit){0};
}

static inline enum hd_err load_path(struct kit *kit, const char *path)
{
    *kit = (struct kit){0};
    enum hd_err err = hd_store_open(&kit->store, path, &kit->msg);
    return err ? err : hd_tokenizer_new(&kit->tok, kit->store, &kit->msg);
}

/* The ids as "1,2,3". */
static inline char *ids_text(const struct hd_ids *ids)
{
    struct hd_buf buf;
    hd_buf_init(&buf, 1 << 28);
    for (size_t i = 0; i < ids->n; i++)
        hd_buf_printf(&buf, "%s%d", i ? "," : "", ids->id[i]);
    char *text = hd_buf_take(&buf);
    assert_non_null(text);
    return text;
}

static inline char *encode_text(const struct kit *kit, const char *text, size_t len, bool special)
{
    struct hd_ids ids;
    hd_ids_init(&ids, 1 << 28);
    assert_int_equal(hd_tokenizer_encode(kit->tok, &ids, text, len, special), 0);
    char *out = ids_text(&ids);
    hd_ids_dispose(&ids);
    return out;
}

static inline void assert_ids(const struct kit *kit, const char *text, bool special,
                              const char *want)
{
    char *got = encode_text(kit, text, strlen(text), special);
    assert_string_equal(got, want);
    free(got);
}

/* A file of the folder that $HOLDFAST_TOKENIZERS names, or NULL: real tokenizers are not ours to
 * commit (tools/golden/fetch_tokenizers.sh brings them). */
static inline char *real_tokenizer(const char *name)
{
    const char *folder = getenv("HOLDFAST_TOKENIZERS");
    char *path = hd_path_join(folder && *folder ? folder : "build/tokenizers", name);
    if (path && hd_path_exists(path))
        return path;
    free(path);
    return NULL;
}

#endif
