/* Checked arithmetic on sizes: false on overflow, the result then unspecified. */
#ifndef HD_BASE_CHECKED_H
#define HD_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>

static inline bool hd_mul(size_t *out, size_t a, size_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool hd_add(size_t *out, size_t a, size_t b)
{
    return !__builtin_add_overflow(a, b, out);
}
/* Whether [offset, offset + len) lies within size bytes. */
static inline bool hd_within(size_t offset, size_t len, size_t size)
{
    return offset <= size && len <= size - offset;
}

#endif
