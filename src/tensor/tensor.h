/* A tensor handle: where the elements lie and how, never the elements themselves.
 *
 * A plain value, freely copied; it owns nothing. The buffer belongs to a back end
 * (kernels/backend.h), which alone may look inside. Dimensions are in GGUF's order:
 * ne[0] is the length of a row (contiguous), nb[i] the stride in bytes of dimension i. */
#ifndef HD_TENSOR_TENSOR_H
#define HD_TENSOR_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

struct hd_buffer; /* memory owned by a back end */

struct hd_tensor {
    struct hd_buffer *buffer;
    size_t offset; /* bytes from the start of the buffer */
    enum hd_dtype dtype;
    int n_dim;
    int64_t ne[4]; /* unused ones are 1 */
    size_t nb[4];
};

/* A contiguous tensor at an offset of a buffer. n_dim counts up to the last dimension that is not
 * 1; where a dimension may be 1 by chance and rows are to be taken of it, set n_dim yourself. */
struct hd_tensor hd_tensor_at(struct hd_buffer *buffer, size_t offset, enum hd_dtype dtype,
                              int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3);
/* The rows [begin, begin + n) of dimension 1 (n_dim 2), or of the last dimension used. */
struct hd_tensor hd_tensor_rows(struct hd_tensor t, int64_t begin, int64_t n);
/* The first n elements from `begin` on in every row (a column slice; strides stay). */
struct hd_tensor hd_tensor_cols(struct hd_tensor t, int64_t begin, int64_t n);
int64_t hd_tensor_elements(const struct hd_tensor *t);
size_t hd_tensor_bytes(const struct hd_tensor *t); /* of a contiguous one */

#endif
