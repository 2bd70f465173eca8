// room: model
/* A byte that chooses a config.json, then any bytes as model.safetensors: refused, or every matrix
 * in parts lies inside and becomes rows. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "scratch.h"
#include "model/model_impl.h"

static struct hd_pool *pool;
static volatile unsigned touched;

static const char *const configs[] = {
    "{}",
    "{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,"
    "\"version\":\"gemm\"}}",
    "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32}}",
    "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":8,\"group_size\":-1,"
    "\"checkpoint_format\":\"gptq_v2\"}}",
    "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]}}",
    "{\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true}}",
};
enum { N_CONFIG = sizeof configs / sizeof configs[0] };

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    make_folder();
    if (hd_pool_new(&pool, 1))
        abort();
    return 0;
}

/* What binding does with a matrix. */
static void read_matrix(const struct hd_store_tensor *t)
{
    size_t row = hd_dtype_row_bytes(t->dtype, t->ne[0]), bytes;
    int32_t *order;
    if (!row || __builtin_mul_overflow(row, (size_t)t->ne[1], &bytes) || bytes > 8 << 20)
        abort(); /* a file of a megabyte holds no such matrix */
    if (hd_parts__order(&order, t))
        return;
    for (int64_t i = 0; order && i < t->ne[0]; i++)
        if (order[i] < 0 || order[i] >= t->ne[0])
            abort();
    uint8_t *rows = malloc(bytes);
    if (rows) {
        hd_parts__rows(rows, t, order, pool);
        touched += rows[bytes - 1];
    }
    free(rows);
    free(order);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hd_store *store;
    struct hd_errmsg msg;
    if (!size)
        return 0;
    const char *config = configs[data[0] % N_CONFIG];
    put("config.json", config, strlen(config));
    put("model.safetensors", data + 1, size - 1);
    for (int looking = 0; looking < 2; looking++) {
        if ((looking ? hd_store_open_header : hd_store_open)(&store, folder, &msg))
            continue;
        for (size_t i = 0; i < hd_store_n_tensor(store); i++) {
            const struct hd_store_tensor *t = hd_store_tensor_at(store, i);
            if (t->data && t->quant)
                read_matrix(t);
            else if (t->data && t->bytes)
                touched += ((const uint8_t *)t->data)[0] + ((const uint8_t *)t->data)[t->bytes - 1];
        }
        hd_store_close(store);
    }
    return 0;
}
