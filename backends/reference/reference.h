// The reference backend: Backend's default bodies, naive loops in f32 and f64. The oracle that every other backend is
// tested against, the device of gradient checks, and teaching material.
#pragma once

#include "backends/backend.h"

namespace mgic {

Backend& reference_backend();

}  // namespace mgic
