#include "kernels/x86/vec_avx512.h"

#define ISA(name) hd_x86_##name##_avx512
#include "kernels/x86/attention_impl.h"
