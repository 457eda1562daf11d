#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "core/rng.h"

namespace mgic {

void gradcheck(const std::function<Variable(const std::vector<Variable>&)>& f, const std::vector<Tensor>& inputs,
               const GradcheckOptions& options) {
  std::vector<Variable> variables;
  for (const Tensor& t : inputs) {
    check(t.dtype() == DType::f64 && t.device() == Device::reference,
          "gradcheck: inputs must be f64 on reference, not {}", t);
    variables.emplace_back(t.clone(), true);
  }
  const Variable y = f(variables);
  Rng rng(options.seed, Purpose::test);
  Tensor cotangent = Tensor::empty_like(y.value());
  for (double& v : cotangent.span<double>()) v = rng.normal();
  backward(y, cotangent);

  NoGrad no_grad;
  auto value = [&] {
    const Tensor out = f(variables).value();
    double total = 0;
    for (int64_t i = 0; i < out.count(); ++i) total += out.data<double>()[i] * cotangent.data<double>()[i];
    return total;
  };
  for (size_t k = 0; k < variables.size(); ++k) {
    const Tensor gradient = variables[k].gradient();
    check(gradient.defined(), "gradcheck: input {} got no gradient", k);
    double largest = 1;
    for (double g : gradient.span<double>()) largest = std::max(largest, std::abs(g));
    for (int64_t i = 0; i < gradient.count(); ++i) {
      double& x = variables[k].value().data<double>()[i];
      const double before = x;
      x = before + options.step;
      const double above = value();
      x = before - options.step;
      const double below = value();
      x = before;
      const double numeric = (above - below) / (2 * options.step);
      const double analytic = gradient.data<double>()[i];
      check(std::abs(analytic - numeric) <= options.tolerance * largest,
            "gradcheck: input {} element {}: backward says {}, differences say {}", k, i, analytic, numeric);
    }
  }
}

}  // namespace mgic
