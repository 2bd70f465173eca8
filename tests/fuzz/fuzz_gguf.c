// room: token
/* Any bytes as a GGUF file: refused, or every tensor lies inside and the tokenizer works. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "token/token.h"

static volatile unsigned touched;

static void use_tensors(const struct hd_store *store)
{
    for (size_t i = 0; i < hd_store_n_tensor(store); i++) {
        const struct hd_store_tensor *tensor = hd_store_tensor_at(store, i);
        if (tensor->data && tensor->bytes)
            touched += ((const uint8_t *)tensor->data)[0] +
                       ((const uint8_t *)tensor->data)[tensor->bytes - 1];
    }
}

static void use_tokenizer(const struct hd_store *store)
{
    static const char text[] = "Hello, 世界! 12345 <|im_end|>\n\n don't \xff";
    struct hd_tokenizer *tok;
    struct hd_ids ids;
    struct hd_buf back;
    if (hd_tokenizer_new(&tok, store, NULL))
        return;
    hd_ids_init(&ids, 1000);
    hd_buf_init(&back, 1 << 20);
    for (int special = 0; special < 2; special++)
        if (!hd_tokenizer_encode(tok, &ids, text, sizeof text - 1, special))
            hd_tokenizer_decode(tok, &back, ids.id, ids.n, true, NULL);
    hd_buf_dispose(&back);
    hd_ids_dispose(&ids);
    hd_tokenizer_free(tok);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hd_store *store;
    char path[64];
    int fd = memfd_create("gguf", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        close(fd);
        return 0;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    for (int header = 0; header < 2; header++) {
        struct hd_errmsg msg;
        if (header ? hd_store_open_header(&store, path, &msg) : hd_store_open(&store, path, &msg))
            continue;
        use_tensors(store);
        use_tokenizer(store);
        hd_store_close(store);
    }
    close(fd);
    return 0;
}
