// room: store
/* Any bytes as config.json and as the index of shards: refused, or nothing outside the folder
 * was opened. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "store/store.h"

static char folder[] = "/tmp/hd_fuzz_XXXXXX";

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
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hd_store *store;
    struct hd_errmsg msg;
    put("config.json", data, size);
    put("model.safetensors.index.json", data, size);
    if (!hd_store_open(&store, folder, &msg))
        hd_store_close(store);
    return 0;
}
