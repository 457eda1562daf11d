#include "core/allocator.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <bit>
#include <list>
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

// Blocks lie in huge pages where the system has them: a map's channels are read in short pieces of every pixel, which
// touches a page in every few.
std::byte* from_system(int64_t size) {
  const std::align_val_t align = size >= huge_page ? std::align_val_t{huge_page} : alignment;
  auto* memory = static_cast<std::byte*>(::operator new(static_cast<size_t>(size), align, std::nothrow));
#if defined(__linux__)
  if (memory != nullptr && size >= huge_page) madvise(memory, static_cast<size_t>(size), MADV_HUGEPAGE);  // a hint
#endif
  return memory;
}

void to_system(std::byte* memory, int64_t size) {
  ::operator delete(memory, size >= huge_page ? std::align_val_t{huge_page} : alignment);
}

// Large blocks begin some lines apart: a pixel of several maps is at the same place of each, and with a power of two of
// channels its neighbours take few sets of the second cache, out of which the maps would push one another.
constexpr int64_t stagger = 256, staggers = 16;

// Memory that small blocks are cut from, one behind the other, so that they lie in huge pages too.
struct Region {
  static constexpr int64_t size = 16 * huge_page;
#if defined(__SANITIZE_ADDRESS__)
  static constexpr int64_t largest = 0;  // a block of its own has guards on both sides
#else
  static constexpr int64_t largest = huge_page - 1;
#endif
  std::byte* memory;
  int64_t used = 0;
  int64_t live = 0;  // blocks that are handed out

  explicit Region(std::byte* memory) : memory(memory) {}
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() { to_system(memory, size); }
};

struct Block {
  std::byte* memory = nullptr;
  Region* region = nullptr;  // null: it is one of the system's
  int64_t offset = 0;        // of the block in its memory from there
};

}  // namespace

struct Allocator::State {
  std::mutex mutex;
  std::map<int64_t, std::vector<Block>> free;
  std::list<Region> regions;  // blocks are cut from the last one
  int64_t large_blocks = 0;   // that have come from the system
  AllocatorStats stats;

  ~State() { release(); }

  Block from_cache(int64_t size) {
    const auto it = free.find(size);
    if (it == free.end() || it->second.empty()) return {};
    const Block block = it->second.back();
    it->second.pop_back();
    stats.cached_bytes -= size;
    return block;
  }

  // No memory: there is none.
  Block fresh(int64_t size) {
    if (size > Region::largest) {
      const int64_t offset = size < huge_page ? 0 : large_blocks++ * 7 % staggers * stagger;
      std::byte* memory = from_system(size + offset);
      return {memory == nullptr ? nullptr : memory + offset, nullptr, offset};
    }
    if (regions.empty() || regions.back().used + size > Region::size) {
      std::byte* memory = from_system(Region::size);
      if (memory == nullptr) return {from_system(size)};
      regions.emplace_back(memory);
    }
    Region& region = regions.back();
    std::byte* memory = region.memory + region.used;
    region.used += size + (size >= staggers * stagger ? stagger : 0);
    return {memory, &region};
  }

  // All that is cached, but for blocks whose region has others that live.
  void release() {
    const auto stays = [](const Block& b) { return b.region != nullptr && b.region->live > 0; };
    for (auto& [size, blocks] : free)
      std::erase_if(blocks, [&, size = size](const Block& b) {
        if (stays(b)) return false;
        if (b.region == nullptr) to_system(b.memory - b.offset, size + b.offset);
        stats.cached_bytes -= size;
        return true;
      });
    std::erase_if(regions, [](const Region& r) { return r.live == 0; });
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
  Block block;
  {
    std::lock_guard lock(state_->mutex);
    auto& stats = state_->stats;
    block = state_->from_cache(size);
    if (block.memory == nullptr) {
      ++stats.system_allocations;
      block = state_->fresh(size);
    }
    if (block.memory == nullptr) {  // what is cached in other sizes may make room
      state_->release();
      block = state_->fresh(size);
    }
    if (block.memory == nullptr) out_of_memory(bytes);
    if (block.region != nullptr) ++block.region->live;
    stats.live_bytes += size;
    stats.peak_live_bytes = std::max(stats.peak_live_bytes, stats.live_bytes);
  }
  return {block.memory, [state = state_, size, block](std::byte*) {
            std::lock_guard lock(state->mutex);
            if (block.region != nullptr) --block.region->live;
            state->free[size].push_back(block);
            state->stats.live_bytes -= size;
            state->stats.cached_bytes += size;
          }};
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
