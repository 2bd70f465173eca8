/* How much memory this process may still take. */
#ifndef HD_ENGINE_MEMORY_H
#define HD_ENGINE_MEMORY_H

#include <stddef.h>

/* The smaller of what the machine has left (MemAvailable) and what the control group (a container's
 * limit) allows; SIZE_MAX where neither is known. */
size_t hd_memory_available(void);

#endif
