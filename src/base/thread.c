/* Linux' fair scheduler lets a woken thread interrupt one whose slice is longer (sched_setattr(2);
 * since 6.12 the runtime of a SCHED_OTHER thread is its slice). */
#include "base/thread.h"

#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SLICE_NS = 100000 }; /* the shortest that the kernel grants; the usual one is 3 ms */

struct attributes { /* the kernel's sched_attr, first version; the C library has none */
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};
_Static_assert(sizeof(struct attributes) == 48, "the kernel's SCHED_ATTR_SIZE_VER0");

void hd_thread_be_prompt(void)
{
    struct attributes now = {0};
    if (syscall(SYS_sched_getattr, 0, &now, sizeof now, 0) || now.policy != SCHED_OTHER)
        return; /* somebody has chosen otherwise */
    now.size = sizeof now;
    now.flags = 0;
    now.runtime = SLICE_NS;
    syscall(SYS_sched_setattr, 0, &now, 0);
}
