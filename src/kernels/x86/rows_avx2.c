#include "kernels/x86/vec_avx2.h"

#define ISA(name) hd_x86_##name##_avx2
#include "kernels/x86/rows_impl.h"
