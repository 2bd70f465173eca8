// room: store
/* Any bytes as config.json and as the index of shards: refused, or nothing outside the folder
 * was opened. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scratch.h"
#include "store/store.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    make_folder();
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
