#include "backends/cpu/onednn.h"

#include <list>
#include <mutex>
#include <unordered_map>

#include "backends/cpu/inspect.h"
#include "backends/cpu/parallel.h"
#include "core/log.h"

namespace mgic::cpu::onednn {
namespace {

constexpr size_t most_plans = 512;  // a large network has some three hundred

struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t h = 0xcbf29ce484222325u;
    for (int64_t v : key.values) h = (h ^ static_cast<uint64_t>(v)) * 0x100000001b3u;
    return h ^ (h >> 32);
  }
};

// Least recently used goes first.
class PlanCache {
 public:
  std::shared_ptr<const Plan> find(const Key& key) {
    std::lock_guard lock(mutex_);
    const auto it = index_.find(key);
    if (it == index_.end()) return nullptr;
    ++counters_.reused;
    plans_.splice(plans_.begin(), plans_, it->second);
    return it->second->second;
  }

  std::shared_ptr<const Plan> insert(const Key& key, Plan plan) {
    std::lock_guard lock(mutex_);
    ++counters_.created;
    if (const auto it = index_.find(key); it != index_.end()) plans_.erase(it->second);
    plans_.emplace_front(key, std::make_shared<const Plan>(std::move(plan)));
    index_[key] = plans_.begin();
    if (plans_.size() > most_plans) {
      ++counters_.dropped;
      index_.erase(plans_.back().first);
      plans_.pop_back();
    }
    return plans_.front().second;
  }

  PrimitiveCounters counters() {
    std::lock_guard lock(mutex_);
    return counters_;
  }

 private:
  using Entry = std::pair<Key, std::shared_ptr<const Plan>>;
  std::mutex mutex_;
  std::list<Entry> plans_;  // most recently used first
  std::unordered_map<Key, std::list<Entry>::iterator, KeyHash> index_;
  PrimitiveCounters counters_;
};

PlanCache& cache() {
  static PlanCache cache;
  return cache;
}

}  // namespace

const dnnl::engine& engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::stream& stream() {
  static dnnl::stream stream(engine());
  return stream;
}

bool append_activation(dnnl::post_ops& ops, Activation activation) {
  const auto append = [&](dnnl::algorithm algorithm, float alpha, float beta) {
#if DNNL_VERSION_MAJOR >= 3
    ops.append_eltwise(algorithm, alpha, beta);
#else
    ops.append_eltwise(1.0f, algorithm, alpha, beta);
#endif
  };
  switch (activation) {
    case Activation::none:
      return true;
    case Activation::relu:
      append(dnnl::algorithm::eltwise_relu, 0, 0);
      return true;
    case Activation::hswish:
      append(dnnl::algorithm::eltwise_hardswish, 1.0f / 6, 0.5f);  // 2.x has these numbers built in
      return true;
    case Activation::hsigmoid:
      break;  // 2.6 lacks it
  }
  return false;
}

dnnl::primitive_attr attributes_with(const dnnl::post_ops& ops) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attributes.set_post_ops(ops);
  return attributes;
}

void plan_reorder(Plan& plan, const Desc& from, const Desc& to) {
  if (from == to) return;
  const dnnl::reorder::primitive_desc description(engine(), from, engine(), to, attributes_with());
  plan.reorder = dnnl::reorder(description);
  plan.reorder_scratchpad = description.scratchpad_desc();
}

Key::Key(std::initializer_list<int64_t> parts) {
  check(parts.size() < values.size(), "onednn: a key of {} parts is too long", parts.size());
  std::copy(parts.begin(), parts.end(), values.begin());
  values.back() = threads();
}

void run(const dnnl::primitive& primitive, const Desc& scratchpad, std::initializer_list<Argument> arguments) {
  std::unordered_map<int, dnnl::memory> memories;
  for (const Argument& a : arguments)
    if (a.desc.get_size() > 0) memories.emplace(a.name, dnnl::memory(a.desc, engine(), const_cast<void*>(a.data)));
  std::shared_ptr<std::byte> block;
  if (scratchpad.get_size() > 0) {
    block = Allocator::host().allocate(static_cast<int64_t>(scratchpad.get_size()));
    memories.emplace(DNNL_ARG_SCRATCHPAD, dnnl::memory(scratchpad, engine(), block.get()));
  }
  flush_denormals();
  primitive.execute(stream(), memories);
  stream().wait();
}

void guarded(const std::function<std::string()>& what, const std::function<void()>& f) {
  try {
    f();
  } catch (const dnnl::error& e) {
    fail("{}: oneDNN says: {} (status {})", what(), e.message == nullptr ? "" : e.message, static_cast<int>(e.status));
  }
}

std::shared_ptr<const Plan> plan_for(const Key& key, const std::function<std::string()>& what,
                                     const std::function<Plan()>& make) {
  if (auto plan = cache().find(key)) return plan;
  std::shared_ptr<const Plan> plan;
  log(LogLevel::debug, "onednn: compiles {}", what());
  guarded(what, [&] { plan = cache().insert(key, make()); });
  return plan;
}

}  // namespace mgic::cpu::onednn

namespace mgic::cpu {

PrimitiveCounters primitive_counters() { return onednn::cache().counters(); }

}  // namespace mgic::cpu
