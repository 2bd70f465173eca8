// room: store
/* Any bytes as a safetensors file: refused, or every tensor lies inside. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scratch.h"
#include "store/store.h"

static volatile unsigned touched;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    make_folder();
    put("config.json", "{}", 2);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hd_store *store;
    struct hd_errmsg msg;
    put("model.safetensors", data, size);
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
