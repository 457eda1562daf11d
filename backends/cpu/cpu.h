// The CPU backend: oneDNN for convolutions and matrices, SIMD kernels for everything that is bound by memory.
#pragma once

#include "backends/backend.h"

namespace mgic {

Backend& cpu_backend();

}  // namespace mgic
