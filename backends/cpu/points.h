// The memory that the search for neighbours works in.
#pragma once

#include <cstdint>

namespace mgic::cpu {

constexpr int64_t tile_points = 64;  // a multiple of two vectors of every target
constexpr int distance_rows = 4;     // points whose distances are taken together

// The number of groups whose minima bound the k-th nearest distance; with three times k, few more than k are below.
constexpr int64_t groups_of(int64_t k) { return (3 * k + tile_points - 1) / tile_points * tile_points; }

}  // namespace mgic::cpu
