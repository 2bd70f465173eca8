/* Writing GGUF v3, little endian: metadata first, then tensors as they come.
 *
 * Memory: the metadata (at most 256 MB) until _begin writes it; tensors pass through. The same
 * calls give the same bytes. Calls before _begin keep their first error for it. One thread. */
#ifndef HD_STORE_GGUF_WRITE_H
#define HD_STORE_GGUF_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "tensor/dtype.h"

struct hd_gguf_writer;

/* GGUF's value types (the GGUF v3 specification). */
enum hd_gguf_type {
    HD_GGUF_U8 = 0,
    HD_GGUF_I8 = 1,
    HD_GGUF_U32 = 4,
    HD_GGUF_I32 = 5,
    HD_GGUF_F32 = 6,
    HD_GGUF_BOOL = 7,
    HD_GGUF_STR = 8,
    HD_GGUF_ARRAY = 9,
    HD_GGUF_U64 = 10,
};

/* Writes to fd, which stays the caller's, from its current position. */
enum hd_err hd_gguf_writer_new(struct hd_gguf_writer **out, int fd);
void hd_gguf_writer_free(struct hd_gguf_writer *writer);

void hd_gguf_put_u32(struct hd_gguf_writer *writer, const char *key, uint32_t value);
void hd_gguf_put_f32(struct hd_gguf_writer *writer, const char *key, float value);
void hd_gguf_put_bool(struct hd_gguf_writer *writer, const char *key, bool value);
void hd_gguf_put_str(struct hd_gguf_writer *writer, const char *key, const char *text);
/* An array's head; its n elements follow by the calls below. */
void hd_gguf_put_array(struct hd_gguf_writer *writer, const char *key, enum hd_gguf_type type,
                       uint64_t n);
void hd_gguf_item(struct hd_gguf_writer *writer, const void *bytes, size_t len); /* numbers */
void hd_gguf_item_str(struct hd_gguf_writer *writer, const char *text, size_t len);

/* A tensor that will follow; ne in GGUF's order (row length first). */
void hd_gguf_put_tensor(struct hd_gguf_writer *writer, const char *name, enum hd_dtype dtype,
                        int n_dim, const int64_t *ne);
/* Writes the header. */
enum hd_err hd_gguf_begin(struct hd_gguf_writer *writer, struct hd_errmsg *msg);
/* The next bytes of the tensors, in the order in which they were put; padding is added between
 * them. INVALID for more than they have. */
enum hd_err hd_gguf_write(struct hd_gguf_writer *writer, const void *bytes, size_t len,
                          struct hd_errmsg *msg);
/* INVALID unless every tensor is whole. */
enum hd_err hd_gguf_finish(struct hd_gguf_writer *writer, struct hd_errmsg *msg);

#endif
