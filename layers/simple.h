// The layers without parameters: activations, pooling, flatten.
#pragma once

#include "layers/module.h"

namespace mgic {

struct NoOptions {
  void fields(Fields&) {}
};

// relu, hswish, hsigmoid: elementwise.
class ActivationLayer final : public Module {
 public:
  explicit ActivationLayer(Activation kind);

 protected:
  Variable forward(const Variable& x) override;

 private:
  Activation kind_;
};

struct PoolOptions {
  int64_t kernel = 2;
  std::optional<int64_t> stride;  // default: the kernel
  int64_t padding = 0;

  void fields(Fields& f);
};

// max_pool, average_pool: (N, H, W, C) → (N, H', W', C).
class PoolLayer final : public Module {
 public:
  PoolLayer(Pool kind, const PoolOptions& options);

 protected:
  Variable forward(const Variable& x) override;

 private:
  PoolParams params_;
};

struct GlobalPoolOptions {
  std::string kind = "average";

  void fields(Fields& f);
};

// global_pool: (N, …, C) → (N, C).
class GlobalPool final : public Module {
 public:
  explicit GlobalPool(Pool kind);

 protected:
  Variable forward(const Variable& x) override;

 private:
  Pool kind_;
};

// flatten: (N, …) → (N, product of the rest).
class Flatten final : public Module {
 public:
  Flatten();

 protected:
  Variable forward(const Variable& x) override;
};

}  // namespace mgic
