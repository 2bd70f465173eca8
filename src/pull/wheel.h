/* One member of a wheel (a zip archive), streamed out. A wheel is data from strangers: nothing in
 * it is installed, executed, or written under a name of its own. */
#ifndef HD_PULL_WHEEL_H
#define HD_PULL_WHEEL_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Streams `member`, which must have exactly `size` bytes, to sink(data, len, ud).
 *
 * FORMAT, by name, for: no zip archive, a member that is missing or there twice, another size,
 * declared or real, a wrong checksum, encryption, an unknown compression, a bomb (more than 100
 * bytes out of one), any entry whose name would leave the folder it is unpacked in. */
enum hd_err hd_wheel_extract(const char *path, const char *member, uint64_t size,
                             enum hd_err (*sink)(const void *data, size_t len, void *ud), void *ud,
                             struct hd_errmsg *msg);

#endif
