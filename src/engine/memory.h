/* How much memory this process may still take, and who says so. */
#ifndef HD_ENGINE_MEMORY_H
#define HD_ENGINE_MEMORY_H

#include <stddef.h>

struct hd_memory {
    size_t left;   /* bytes; SIZE_MAX where nothing is known */
    size_t limit;  /* of the tightest bound: the machine's memory, or a control group's limit */
    char who[200]; /* "this machine", or "the control group /a/b (memory.max)" */
};

/* The smallest of what the machine has left (MemAvailable) and what each control group around this
 * process leaves: version 2 (memory.max and memory.high, up to the root) and version 1. Pages of
 * files count as free where they can be dropped. root: where /proc and /sys lie, "" outside tests.
 */
void hd_memory_look(struct hd_memory *out, const char *root);
size_t hd_memory_available(void);

#endif
