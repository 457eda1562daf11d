// The points of Winograd's filtering F(4, 3): 0, ∞, ± near and ± far, for which its transforms evaluate polynomials
// (winograd-inl.h). Those of Lavin and Gray are 1 and 2; with these, whose product is 1, transformed numbers are of
// more even size, errors are half as large (bench/winograd_error.py), and the arithmetic is the same.
#pragma once

namespace mgic::cpu::winograd {

constexpr float near = 2.0f / 3, far = 3.0f / 2;
// G's rows of ± near are −scale (far, ±1, near), those of ± far are scale (near, ±1, far): scale = 1 / 2 (far² −
// near²).
constexpr float scale = 18.0f / 65;

}  // namespace mgic::cpu::winograd
