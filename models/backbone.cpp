#include "models/backbone.h"

namespace mgic {

Features Backbone::features(const Variable& x) {
  Features f;
  run_named([&] {
    f = extract(x);
    return f.high;
  });
  return f;
}

int64_t StrideBudget::take(int64_t stride) {
  if (stride <= left_) {
    left_ /= stride;
    return stride;
  }
  dilation_ *= stride;
  return 1;
}

}  // namespace mgic
