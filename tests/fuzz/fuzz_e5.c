// room: token
/* Any bytes as a package's E5S1 file: refused, or the GGUF made of it opens and its tokenizer
 * encodes within its bounds. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "store/e5_convert.h"
#include "token/token.h"

static char folder[] = "/tmp/hd_fuzz_XXXXXX", *in, *out;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    if (!mkdtemp(folder))
        abort();
    in = hd_path_join(folder, "in");
    out = hd_path_join(folder, "out.gguf");
    return in && out ? 0 : 1;
}

static int put(const char *path, const uint8_t *data, size_t size)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "A\xc2\xad"
                               "a  b \xe4\xb8\xad\xe3\x80\x80\xff </s>";
    struct hd_store *store;
    struct hd_tokenizer *tok;
    struct hd_errmsg msg;
    close(put(in, data, size));
    int fd = put(out, data, 0);
    enum hd_err err = hd_e5_convert(fd, in, &msg);
    close(fd);
    if (err)
        return 0;
    if (hd_store_open(&store, out, &msg)) /* what we write, we read */
        abort();
    if (!hd_tokenizer_new(&tok, store, &msg)) {
        struct hd_ids ids;
        hd_ids_init(&ids, 1000);
        hd_tokenizer_encode(tok, &ids, text, sizeof text - 1, false);
        hd_ids_dispose(&ids);
        hd_tokenizer_free(tok);
    }
    hd_store_close(store);
    return 0;
}
