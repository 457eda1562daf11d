#include "layers/conv2d.h"

#include <cmath>

#include "autograd/ops.h"

namespace mgic {

void Conv2dOptions::fields(Fields& f) {
  f("out_channels", out_channels, "output channels", between(1, max_count).need());
  f("kernel", kernel, "pixels a side of the kernel", between(1, 255));
  f("stride", stride, "pixels between two outputs", between(1, 255));
  f("padding", padding, "zeros around the image; default: as many as keep its size at stride 1", between(0, 255));
  f("dilation", dilation, "pixels between two kernel elements", between(1, 255));
  f("groups", groups, "groups of channels that do not see each other", between(1, max_count));
  f("bias", bias, "adds a learned constant to each channel");
  f.check(out_channels % std::max<int64_t>(groups, 1) == 0, "groups", "must divide out_channels, {}", out_channels);
}

double kaiming_deviation(int64_t out_channels, int64_t kernel) {
  return std::sqrt(2.0 / static_cast<double>(out_channels * kernel * kernel));
}

Conv2d::Conv2d(const Conv2dOptions& o) : Module("conv2d"), params_(o.params()) {
  if (o.in_channels % o.groups != 0 || o.out_channels % o.groups != 0)
    fail_user("conv2d: {} groups must divide the {} input and the {} output channels", o.groups, o.in_channels,
              o.out_channels);
  const Init linear{Init::uniform,
                    1.0 / std::sqrt(static_cast<double>(o.in_channels / o.groups * o.kernel * o.kernel))};
  add_parameter("weight", weight_, {o.out_channels, o.kernel, o.kernel, o.in_channels / o.groups},
                o.last ? linear : Init{Init::normal, kaiming_deviation(o.out_channels, o.kernel)});
  if (o.bias) add_parameter("bias", bias_, {o.out_channels}, linear);
}

Variable Conv2d::forward(const Variable& x) { return ops::conv2d(x, weight_, bias_, params_); }

}  // namespace mgic
