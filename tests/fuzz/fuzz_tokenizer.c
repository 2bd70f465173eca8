// room: token
/* Any bytes as tokenizer.json, or, where they begin like one, as a GGUF file: refused, or it
 * encodes hostile text, alone and as a pair, within its bounds. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scratch.h"
#include "token/token.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    make_folder();
    static const char config[] = "{\"add_bos_token\":true,\"bos_token\":\"<s>\"}";
    put("tokenizer_config.json", config, sizeof config - 1);
    return 0;
}

static void use(const struct hd_tokenizer *tok)
{
    static const char text[] = "Hello, 世界! 12345 <s> ▁ ÀÉaaaaaaaa\n\n don't \xff e\xcc\x81";
    struct hd_chat_message message = {.role = "user", .content = text};
    struct hd_ids ids;
    struct hd_buf back;
    hd_ids_init(&ids, 1000);
    hd_buf_init(&back, 1 << 20);
    for (int special = 0; special < 2; special++)
        if (!hd_tokenizer_encode(tok, &ids, text, sizeof text - 1, special))
            hd_tokenizer_decode(tok, &back, ids.id, ids.n, true, NULL);
    struct hd_token_input pair = {
        .text = text, .len = sizeof text - 1, .pair = text, .pair_len = sizeof text - 1, .max = 20};
    hd_tokenizer_encode_input(tok, &ids, NULL, &pair, NULL);
    pair.pair = NULL;
    hd_tokenizer_encode_input(tok, &ids, NULL, &pair, NULL);
    hd_chat_render(tok, &ids, &message, 1, NULL, NULL);
    hd_buf_dispose(&back);
    hd_ids_dispose(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hd_store *store;
    struct hd_tokenizer *tok;
    struct hd_errmsg msg;
    bool gguf = size > 4 && !memcmp(data, "GGUF", 4);
    put(gguf ? "m.gguf" : "tokenizer.json", data, size);
    char *path = gguf ? hd_path_join(folder, "m.gguf") : strdup(folder);
    if (!path)
        return 0;
    enum hd_err err = hd_store_open(&store, path, &msg);
    free(path);
    if (err)
        return 0;
    if (!hd_tokenizer_new(&tok, store, &msg)) {
        use(tok);
        hd_tokenizer_free(tok);
    }
    hd_store_close(store);
    return 0;
}
