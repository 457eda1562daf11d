#include "layers/mgic/mgic.h"

#include <fmt/format.h>

#include "layers/conv2d.h"

namespace mgic {

void MgicOptions::hierarchy_fields(Fields& f) {
  f("group_size", group_size, "channels a group aims at (s_g)", between(1, max_count));
  f("coarsest_width", coarsest_width, "channels at which the hierarchy ends (s_c)", between(1, max_count));
  std::string rule = coarsest_rule == CoarsestRule::reach ? "reach" : "below";
  f("coarsest_rule", rule, "ends at the first width at most s_c, or below it after one halving at least",
    one_of({"reach", "below"}));
  coarsest_rule = rule == "reach" ? CoarsestRule::reach : CoarsestRule::below;
  f.check(coarsest_rule == CoarsestRule::reach || coarsest_width >= 2, "coarsest_width",
          "must be at least 2 with \"coarsest_rule\": \"below\", not {}", coarsest_width);
  f("levels", most_levels,
    "at most so many levels; cut off, the last one stays in groups: 1 is the smoother alone, for comparison",
    between(1, 64));
  std::string init = average_transfers ? "average" : "kaiming";
  f("transfer_init", init, "transfers drawn like every convolution, or all 1/group_size",
    one_of({"kaiming", "average"}));
  average_transfers = init == "average";
  f("tied_transfers", tied_transfers, "the prolongation is the transposed restriction");
  f("restrict_norm", restrict_norm, "batch normalisation behind each restriction; default false");
  f("pre_smooth", pre_smooth, "a smoother of its own before each restriction");
}

void MgicOptions::fields(Fields& f) {
  hierarchy_fields(f);
  f.spec_beside("smoother", smoother, layer_registry(), "the layer B_l of every level; its options stand beside it");
}

std::vector<Level> MgicOptions::levels(int64_t channels) const {
  return hierarchy(channels, group_size, coarsest_width, coarsest_rule, option_or(smoother.options, "mid_channels", 0),
                   most_levels);
}

Mgic::Mgic(const MgicOptions& given, int64_t channels, int64_t dilation) : Module("mgic") {
  MgicOptions o = given;
  if (!o.smoother.make) o.smoother = layer_registry().parse(fmt::format(R"({{"type": "{}"}})", o.smoother.type));
  const std::vector<Level> levels = o.levels(channels);
  const int64_t e = o.expansion();
  for (size_t l = 0; l < levels.size(); ++l) {
    const Level& level = levels[l];
    const bool coarsest = l + 1 == levels.size();
    const LayerContext context{level.width, level.groups, static_cast<int64_t>(l), coarsest, {}, dilation};
    if (!coarsest) {
      TransferOptions t{e * level.width, e * levels[l + 1].width, level.groups, o.restrict_norm.value_or(false), {}};
      auto init = [&](int64_t outputs) {
        return o.average_transfers ? Init{Init::constant, 1.0 / static_cast<double>(o.group_size)}
                                   : Init{Init::normal, kaiming_deviation(outputs, 1)};
      };
      t.init = init(t.coarse);
      restrict_.push_back(&add_child(fmt::format("restrict.{}", l), std::make_unique<Restriction>(t)));
      t.init = init(t.fine);
      prolong_.push_back(&add_child(fmt::format("prolong.{}", l),
                                    std::make_unique<Prolongation>(t, o.tied_transfers ? restrict_[l] : nullptr)));
      if (o.pre_smooth) pre_smooth_.push_back(&add_child(fmt::format("pre_smooth.{}", l), o.smoother.make(context)));
    }
    smooth_.push_back(&add_child(fmt::format("smooth.{}", l), o.smoother.make(context)));
  }
}

Variable Mgic::forward(const Variable& input) {
  const size_t L = restrict_.size();
  std::vector<Variable> x{input}, r;

  for (size_t l = 0; l < L; ++l) {
    if (!pre_smooth_.empty()) x[l] = (*pre_smooth_[l])(x[l]);
    r.push_back((*restrict_[l])(x[l]));
    x.push_back(r[l]);
  }

  x[L] = (*smooth_[L])(x[L]);

  for (size_t l = L; l-- > 0;) x[l] = (*smooth_[l])(prolong_[l]->correct(x[l], x[l + 1], r[l]));
  return x[0];
}

}  // namespace mgic
