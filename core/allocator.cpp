#include "core/allocator.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "core/error.h"

namespace mgic {
namespace {

constexpr std::align_val_t alignment{64};
constexpr int64_t huge_page = int64_t{1} << 21;
constexpr int64_t max_bytes = int64_t{1} << 47;  // more than any machine has, and no arithmetic on sizes overflows

// Eight classes a power of two: at most 1/8 of a block is wasted, and few sizes miss the cache.
int64_t size_class(int64_t bytes) {
  if (bytes <= 512) return 512;
  int64_t step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(bytes - 1))) / 8;
  step = std::max<int64_t>(step, 64);
  return (bytes + step - 1) / step * step;
}

[[noreturn]] void out_of_memory(int64_t bytes) {
  fail("out of memory: {} bytes were asked for; use a smaller batch or a smaller network", bytes);
}

// Large blocks lie in huge pages where the system has them: a map's channels are read in short pieces of every pixel,
// which touches a page in every few.
std::align_val_t alignment_of(int64_t size) { return size >= huge_page ? std::align_val_t{huge_page} : alignment; }

std::byte* from_system(int64_t size) {
  auto* block = static_cast<std::byte*>(::operator new(static_cast<size_t>(size), alignment_of(size), std::nothrow));
#if defined(__linux__)
  if (block != nullptr && size >= huge_page) madvise(block, static_cast<size_t>(size), MADV_HUGEPAGE);  // a hint
#endif
  return block;
}

void to_system(std::byte* block, int64_t size) { ::operator delete(block, alignment_of(size)); }

}  // namespace

struct Allocator::State {
  std::mutex mutex;
  std::map<int64_t, std::vector<std::byte*>> free;
  AllocatorStats stats;

  ~State() { release(); }

  void release() {
    for (auto& [bytes, blocks] : free)
      for (std::byte* block : blocks) to_system(block, bytes);
    free.clear();
    stats.cached_bytes = 0;
  }
};

Allocator::Allocator() : state_(std::make_shared<State>()) {}

Allocator& Allocator::host() {
  static Allocator allocator;
  return allocator;
}

std::shared_ptr<std::byte> Allocator::allocate(int64_t bytes) {
  if (bytes > max_bytes) out_of_memory(bytes);
  const int64_t size = size_class(bytes);
  std::byte* block = nullptr;
  {
    std::lock_guard lock(state_->mutex);
    auto& stats = state_->stats;
    auto it = state_->free.find(size);
    if (it != state_->free.end() && !it->second.empty()) {
      block = it->second.back();
      it->second.pop_back();
      stats.cached_bytes -= size;
    } else {
      ++stats.system_allocations;
    }
    stats.live_bytes += size;
    stats.peak_live_bytes = std::max(stats.peak_live_bytes, stats.live_bytes);
  }
  if (block == nullptr) block = from_system(size);
  if (block == nullptr) {  // what is cached in other sizes may make room
    release_cache();
    block = from_system(size);
  }
  if (block == nullptr) {
    std::lock_guard lock(state_->mutex);
    state_->stats.live_bytes -= size;
    out_of_memory(bytes);
  }
  return std::shared_ptr<std::byte>(block, [state = state_, size](std::byte* p) {
    std::lock_guard lock(state->mutex);
    state->free[size].push_back(p);
    state->stats.live_bytes -= size;
    state->stats.cached_bytes += size;
  });
}

AllocatorStats Allocator::stats() const {
  std::lock_guard lock(state_->mutex);
  return state_->stats;
}

void Allocator::release_cache() {
  std::lock_guard lock(state_->mutex);
  state_->release();
}

}  // namespace mgic
