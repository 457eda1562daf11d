// The caching allocator: a training step in steady state asks the system for nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/device.h"

namespace mgic {

struct AllocatorStats {
  int64_t live_bytes = 0;    // handed out now
  int64_t cached_bytes = 0;  // kept for reuse
  int64_t peak_live_bytes = 0;
  int64_t system_allocations = 0;  // requests that the cache could not serve, since the start
};

// Blocks of 64-byte aligned memory, kept in lists by size class and handed out last in, first out, so that what a
// step touches stays in cache. Thread-safe. Host memory only; a CUDA build adds its own source of blocks.
class Allocator {
 public:
  static Allocator& host();

  // The block goes back to the cache with its last owner. Contents are undefined.
  std::shared_ptr<std::byte> allocate(int64_t bytes);
  AllocatorStats stats() const;
  void release_cache();  // gives what is cached back to the system, as far as nothing that lives shares memory with it

 private:
  Allocator();
  struct State;
  std::shared_ptr<State> state_;  // shared with the blocks, which may outlive static destruction
};

}  // namespace mgic
