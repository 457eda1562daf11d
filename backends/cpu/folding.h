// What evaluation makes of a link once, and not at every call.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>

#include "backends/backend.h"
#include "backends/cpu/parallel.h"

namespace mgic::cpu {

// The link's weights with its normalisation in them, and what is left of that to be added.
struct Folded {
  Tensor weight, bias;       // as the link's; where its convolution runs in oneDNN
  Scratch<uint32_t> packed;  // where it runs here
  Scratch<float> padded_bias;
};

// Kept by the weights they were made of, for as long as none of a link's tensors changes. The handles keep a storage's
// address from being used again; storages that nobody else holds any more are dropped as new ones come.
class FoldCache {
 public:
  static FoldCache& instance() {
    static FoldCache cache;
    return cache;
  }
  template <class F>
  std::shared_ptr<const Folded> get(const Link& link, int64_t kind, F&& make) {
    std::lock_guard lock(mutex_);
    Entry& e = entries_[{link.weight.raw(), kind}];
    if (e.folded && e.versions == versions(link) && same(e.link, link)) return e.folded;
    const auto folded = std::make_shared<const Folded>(make());
    e = {link, versions(link), folded};
    if (entries_.size() > sweep_at_) {
      std::erase_if(entries_, [](const auto& item) { return item.second.link.weight.unique(); });
      sweep_at_ = std::max<size_t>(2 * entries_.size(), 256);
    }
    return folded;
  }

 private:
  using Versions = std::array<uint64_t, 5>;
  struct Entry {
    Link link;
    Versions versions{};
    std::shared_ptr<const Folded> folded;
  };
  static std::array<const Tensor*, 5> tensors(const Link& l) {
    return {&l.weight, &l.gamma, &l.beta, &l.running_mean, &l.running_var};
  }
  static Versions versions(const Link& l) {
    Versions v{};
    for (size_t i = 0; i < v.size(); ++i)
      if (tensors(l)[i]->defined()) v[i] = tensors(l)[i]->version();
    return v;
  }
  static bool same(const Link& a, const Link& b) {
    for (size_t i = 0; i < 5; ++i) {
      const Tensor &x = *tensors(a)[i], &y = *tensors(b)[i];
      if (x.defined() != y.defined() || (x.defined() && x.raw() != y.raw())) return false;
    }
    return a.eps == b.eps;
  }

  std::mutex mutex_;
  std::map<std::pair<const void*, int64_t>, Entry> entries_;
  size_t sweep_at_ = 256;
};

}  // namespace mgic::cpu
