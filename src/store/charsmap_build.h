/* Building sentencepiece's precompiled_charsmap from a list of replacements, one per code point. */
#ifndef HD_STORE_CHARSMAP_BUILD_H
#define HD_STORE_CHARSMAP_BUILD_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum { HD_CHARSMAP_MAX_ENTRIES = 65536 };

struct hd_charsmap_entry {
    uint32_t code;    /* ≥ 1, strictly ascending in a list */
    const char *text; /* NUL-terminated UTF-8, may be empty */
};

/* Appends u32 bytes of the trie, the trie (a Darts double array), the replacements. The same list
 * gives the same bytes. INVALID where the list is not as above, LIMIT where it is too long. */
enum hd_err hd_charsmap_build(struct hd_buf *out, const struct hd_charsmap_entry *entry, size_t n);

#endif
