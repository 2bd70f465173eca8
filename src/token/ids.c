#include <stdlib.h>

#include "token/token.h"

void hd_ids_init(struct hd_ids *ids, size_t max)
{
    *ids = (struct hd_ids){.max = max};
}

void hd_ids_dispose(struct hd_ids *ids)
{
    free(ids->id);
    *ids = (struct hd_ids){.max = ids->max};
}

enum hd_err hd_ids_push(struct hd_ids *ids, int32_t id)
{
    if (ids->err)
        return ids->err;
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? ids->cap + ids->cap / 2 : 64;
        if (cap > ids->max)
            cap = ids->max;
        if (cap <= ids->n || cap > SIZE_MAX / sizeof *ids->id)
            return ids->err = HD_ERR_LIMIT;
        int32_t *grown = realloc(ids->id, cap * sizeof *grown);
        if (!grown)
            return ids->err = HD_ERR_NOMEM;
        ids->id = grown;
        ids->cap = cap;
    }
    ids->id[ids->n++] = id;
    return HD_OK;
}
