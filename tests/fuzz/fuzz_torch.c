// room: store
/* Any bytes as a PyTorch file: refused, or every tensor lies inside. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "store/store.h"

static char folder[] = "/tmp/hd_fuzz_XXXXXX";
static volatile unsigned touched;

static void put(const char *name, const uint8_t *data, size_t size)
{
    char *path = hd_path_join(folder, name);
    FILE *file = path ? fopen(path, "wb") : NULL;
    if (!file)
        abort();
    fwrite(data, 1, size, file);
    fclose(file);
    free(path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    if (!mkdtemp(folder))
        abort();
    put("config.json", (const uint8_t *)"{}", 2);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hd_store *store;
    struct hd_errmsg msg;
    put("pytorch_model.bin", data, size);
    if (hd_store_open(&store, folder, &msg))
        return 0;
    for (size_t i = 0; i < hd_store_n_tensor(store); i++) {
        const struct hd_store_tensor *tensor = hd_store_tensor_at(store, i);
        if (tensor->data && tensor->bytes)
            touched += ((const uint8_t *)tensor->data)[0] +
                       ((const uint8_t *)tensor->data)[tensor->bytes - 1];
    }
    hd_store_close(store);
    return 0;
}
