// AMX: eight registers that hold a matrix each, of 16 rows of 64 bytes at most, and an instruction that multiplies
// them,
//
//   C (16 × 16, f32) += A (16 × 32, bf16) · B (32 × 16, bf16; a row of the register holds two of it, paired by columns)
//
// The instructions are written as such (asm), since compilers want them enabled for a whole function.
#pragma once

#include <cstdint>

namespace mgic::cpu {

// Whether the processor has AMX for bf16, and the system lets this process use its registers.
bool has_amx();

#if defined(__x86_64__)

// The registers' shapes while it lives, on this thread.
class AmxRegisters {
 public:
  struct Shape {
    uint8_t rows;
    uint16_t bytes;  // of a row
  };
  explicit AmxRegisters(const Shape (&shapes)[8]) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } configuration;
    for (int i = 0; i < 8; ++i) {
      configuration.rows[i] = shapes[i].rows;
      configuration.bytes[i] = shapes[i].bytes;
    }
    asm volatile("ldtilecfg %0" : : "m"(configuration));
  }
  ~AmxRegisters() { asm volatile("tilerelease"); }
  AmxRegisters(const AmxRegisters&) = delete;
  AmxRegisters& operator=(const AmxRegisters&) = delete;
};

template <int t>
inline void amx_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(t));
}
// Rows lie `stride` bytes from each other.
template <int t>
inline void amx_load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(t) : "memory");
}
template <int t>
inline void amx_store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(t) : "memory");
}
template <int c, int a, int b>
inline void amx_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
}

#endif

}  // namespace mgic::cpu
