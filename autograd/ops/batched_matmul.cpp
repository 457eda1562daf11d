// batched_matmul: y[n] = a[n] b[n], or a[n] b[n]ᵀ; a (N, P, Q), b (N, Q, R) or (N, R, Q), y (N, P, R). One matrix
// product a sample: made for the small transforms of point clouds.
#include "autograd/op.h"
#include "autograd/ops.h"

namespace mgic::ops {
namespace {

Tensor matrix(const Tensor& t, int64_t n) { return t.slice(n, n + 1).reshape({t.shape()[1], t.shape()[2]}); }

}  // namespace

Variable batched_matmul(const Variable& a, const Variable& b, bool transpose_b) {
  Op op("batched_matmul", {a, b}, {{"transpose_b", int64_t{transpose_b}}});
  const Shape &s = a.shape(), &t = b.shape();
  op.rule(s.rank() == 3 && t.rank() == 3 && s[0] == t[0] && s[2] == t[transpose_b ? 2 : 1],
          "a must be (N, P, Q) and b (N, {})", transpose_b ? "R, Q" : "Q, R");
  const int64_t samples = s[0];
  Tensor y = Tensor::empty({samples, s[1], t[transpose_b ? 1 : 2]}, a.value().dtype(), a.value().device());
  op.run([&](Backend& backend) {
    for (int64_t n = 0; n < samples; ++n) {
      Tensor out = matrix(y, n);
      backend.matmul(matrix(a.value(), n), false, matrix(b.value(), n), transpose_b, {}, {&out});
    }
  });
  return op.result(y, {{"a", a.value()}, {"b", b.value()}},
                   [samples, transpose_b](Backend& backend, const Tensor& dy, const SavedTensors& s, const Sinks& d) {
                     Tensor da, db;
                     if (d.wants(0)) da = Tensor::empty_like(s[0]);
                     if (d.wants(1)) db = Tensor::empty_like(s[1]);
                     for (int64_t n = 0; n < samples; ++n) {
                       const Tensor g = matrix(dy, n), a = matrix(s[0], n), b = matrix(s[1], n);
                       if (da.defined()) {
                         Tensor out = matrix(da, n);
                         backend.matmul(g, false, b, !transpose_b, {}, {&out});
                       }
                       if (db.defined()) {
                         Tensor out = matrix(db, n);
                         if (transpose_b)
                           backend.matmul(g, true, a, false, {}, {&out});
                         else
                           backend.matmul(a, true, g, false, {}, {&out});
                       }
                     }
                     if (da.defined()) d.take(0, da);
                     if (db.defined()) d.take(1, db);
                   });
}

}  // namespace mgic::ops
