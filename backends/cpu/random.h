#pragma once

namespace mgic::cpu {

constexpr int random_tile = 64;  // elements whose random numbers are made together

}  // namespace mgic::cpu
