// The GPU backend (cuDNN, cuBLAS). This build has none: every call says so in a sentence.
#pragma once

#include "backends/backend.h"

namespace mgic {

Backend& cuda_backend();  // throws where no GPU is usable
bool cuda_usable();

}  // namespace mgic
