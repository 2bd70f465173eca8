/* Between torch_zip.c and torch_pickle.c. */
#ifndef HD_STORE_TORCH_IMPL_H
#define HD_STORE_TORCH_IMPL_H

#include "store/store_impl.h"

struct hd_store__member { /* of the archive; everything points into the map */
    const char *name;
    size_t name_len;
    const uint8_t *data;
    size_t bytes;
};

struct hd_store__torch {
    const char *path;
    const uint8_t *data;
    size_t size;
    struct hd_store__member *member; /* owned */
    size_t n_member;
};

/* A tensor as the table names it: rows contiguous, in the storage `key`. Texts point into the
 * pickle. */
struct hd_store__torch_tensor {
    const char *name, *key;
    size_t name_len, key_len;
    enum hd_dtype dtype;
    const char *type_name;
    int elem_bytes;
    int64_t offset; /* elements */
    int n_dim;
    int64_t ne[4]; /* row length first */
};
struct hd_store__torch_table {
    struct hd_store__torch_tensor *tensor; /* owned */
    size_t n, cap;
};

/* The member ROOT/folder+name, whatever ROOT is; NULL where there is none. */
const struct hd_store__member *hd_store__torch_member(const struct hd_store__torch *torch,
                                                      const char *folder, const char *name,
                                                      size_t len);
/* Fills the table (free(table->tensor) also after a failure). UNSUPPORTED for a pickle that holds
 * anything else than dictionaries of tensors. */
enum hd_err hd_store__torch_pickle(struct hd_store__torch_table *table, const char *path,
                                   const uint8_t *data, size_t size, struct hd_errmsg *msg);

#endif
