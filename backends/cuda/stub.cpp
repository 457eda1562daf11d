#include "backends/cuda/cuda.h"

namespace mgic {

Backend& cuda_backend() { fail("the cuda backend: this build has no CUDA; use --device cpu"); }
bool cuda_usable() { return false; }

}  // namespace mgic
