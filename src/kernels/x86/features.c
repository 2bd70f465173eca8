/* What the processor offers and the system lets us use: CPUID says the first, XGETBV which register
 * states the kernel saves at a thread switch. Both must agree (Intel SDM vol. 1, 13.3 and 14.3). */
#include "kernels/x86/x86.h"

#if HD_X86

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    STATE_AVX = 0x6,     /* XMM, YMM */
    STATE_AVX512 = 0xe6, /* and masks, upper halves, ZMM16-31 */
    STATE_AMX = 0x60000, /* tile configuration, tile data */
};

struct features {
    unsigned c1, b7, c7, d7; /* CPUID 1: ECX; 7: EBX, ECX, EDX */
    uint64_t state;
};

static uint64_t enabled_state(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static struct features detect(void)
{
    struct features f = {0};
    unsigned a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d))
        f.c1 = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        f.b7 = b;
        f.c7 = c;
        f.d7 = d;
    }
    if (f.c1 & bit_OSXSAVE)
        f.state = enabled_state();
    return f;
}

const char *hd_x86_missing_avx2(void)
{
    struct features f = detect();
    if (!(f.b7 & bit_AVX2))
        return "this processor lacks AVX2";
    if (!(f.c1 & bit_FMA))
        return "this processor lacks FMA";
    if (!(f.c1 & bit_F16C))
        return "this processor lacks F16C";
    if (!(f.b7 & bit_BMI2))
        return "this processor lacks BMI2";
    if ((f.state & STATE_AVX) != STATE_AVX)
        return "the operating system does not save AVX registers";
    return NULL;
}

const char *hd_x86_missing_avx512(void)
{
    const char *missing = hd_x86_missing_avx2();
    if (missing)
        return missing;
    struct features f = detect();
    if (!(f.b7 & bit_AVX512F))
        return "this processor lacks AVX512F";
    if (!(f.b7 & bit_AVX512BW) || !(f.b7 & bit_AVX512DQ) || !(f.b7 & bit_AVX512VL))
        return "this processor lacks AVX512 BW, DQ or VL";
    if (!(f.c7 & bit_AVX512VNNI))
        return "this processor lacks AVX512_VNNI";
    if ((f.state & STATE_AVX512) != STATE_AVX512)
        return "the operating system does not save AVX-512 registers";
    return NULL;
}

/* Linux hands out tile state on request, once per process (Documentation/arch/x86/xstate.rst). */
static bool tiles_granted(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

const char *hd_x86_missing_amx(void)
{
    enum { AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 };
    const char *missing = hd_x86_missing_avx512();
    if (missing)
        return missing;
    struct features f = detect();
    if (!(f.d7 & AMX_TILE) || !(f.d7 & AMX_INT8))
        return "this processor lacks AMX-INT8";
    if ((f.state & STATE_AMX) != STATE_AMX || !tiles_granted())
        return "the operating system does not grant AMX tiles";
    return NULL;
}

#endif
