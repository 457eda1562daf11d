// Include first in a file of SIMD kernels, before any Highway header.
//
// Kernels are compiled once for every target left here, and the best that the machine has is chosen at run time.
// Between plain C++ and AVX2 there is nothing left worth the compile time; scalable vectors have no arrays.
#pragma once

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

namespace mgic::cpu {

// Whether f32 is rounded to bf16 by the machine's own instruction, where it has one.
extern bool rounds_to_bf16;

// AMD's and Intel's processors differ in what is fastest: in dot products of bf16, and in how far reads should be
// from each other.
extern const bool made_by_amd;

}  // namespace mgic::cpu
