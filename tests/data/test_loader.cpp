// DataLoader: the same batches whatever the threads do, entry in mid-epoch, and no way to hang.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "data/loader.h"

using namespace mgic;

namespace {

// Sample i is an image of i's lower bytes with label i. May be told to fail, and to dawdle irregularly.
class Counting : public Dataset {
 public:
  explicit Counting(int64_t size, int64_t broken = -1, bool slow = false) : size_(size), broken_(broken), slow_(slow) {}
  int64_t size() const override { return size_; }
  SampleShape shape() const override { return {1, 3, 5}; }
  int64_t classes() const override { return size_; }
  void get(int64_t index, Sample& sample) const override {
    if (slow_) std::this_thread::sleep_for(std::chrono::microseconds(index * 37 % 5 * 200));
    if (index == broken_) fail_user("sample {} is broken", index);
    auto& pixels = sample.resize<uint8_t>(15);
    for (size_t i = 0; i < 15; ++i) pixels[i] = static_cast<uint8_t>(index * 7 + static_cast<int64_t>(i) * 11);
    sample.label = index;
    ++calls;
  }
  mutable std::atomic<int64_t> calls{0};

 private:
  int64_t size_, broken_;
  bool slow_;
};

const Normalization plain{{0.0}, {1.0}};

std::vector<TransformSpec> augmentation() {
  return {transform_registry().parse(R"({"type": "random_crop", "padding": 1})"),
          transform_registry().parse(R"({"type": "random_flip"})")};
}

struct Record {
  std::vector<float> images;
  std::vector<int64_t> labels;
  int64_t index = 0;
  bool operator==(const Record&) const = default;
};

Record record(const Batch& batch) {
  const auto images = batch.images.span<float>();
  const auto labels = batch.labels.span<int64_t>();
  return {{images.begin(), images.end()}, {labels.begin(), labels.end()}, batch.index};
}

std::vector<Record> run(DataLoader& loader, int64_t epoch, int64_t first = 0) {
  loader.start(epoch, first);
  std::vector<Record> records;
  Batch batch;
  while (loader.next(batch)) records.push_back(record(batch));
  CHECK_FALSE(loader.next(batch));
  return records;
}

}  // namespace

TEST_CASE("loader: in order, with shapes, labels, index and the last partial batch") {
  const Counting data(10);
  for (const int64_t threads : {0, 2}) {
    DataLoader loader(data, {.batch_size = 4, .augment = {}, .threads = threads}, plain);
    CHECK(loader.batches() == 3);
    loader.start(0);
    Batch batch;
    int64_t sample = 0;
    for (int64_t i = 0; i < 3; ++i) {
      REQUIRE(loader.next(batch));
      const int64_t n = i < 2 ? 4 : 2;
      CHECK(batch.index == i);
      CHECK(batch.images.shape() == Shape{n, 3, 5, 1});
      CHECK(batch.labels.shape() == Shape{n});
      for (int64_t k = 0; k < n; ++k, ++sample) {
        CHECK(batch.labels.data<int64_t>()[k] == sample);
        CHECK(batch.images.data<float>()[k * 15 + 2] == static_cast<float>((sample * 7 + 22) % 256 / 255.0));
      }
    }
    CHECK_FALSE(loader.next(batch));
    CHECK_FALSE(loader.next(batch));
  }
}

TEST_CASE("loader: drop_last, tiny and odd sizes") {
  const auto batches = [](int64_t size, int64_t batch_size, bool drop_last) {
    const Counting data(size);
    DataLoader loader(data, {.batch_size = batch_size, .drop_last = drop_last, .augment = {}, .threads = 3}, plain);
    const auto records = run(loader, 0);
    CHECK(static_cast<int64_t>(records.size()) == loader.batches());
    return records.size();
  };
  CHECK(batches(10, 4, true) == 2);
  CHECK(batches(10, 4, false) == 3);
  CHECK(batches(8, 4, true) == 2);
  CHECK(batches(8, 4, false) == 2);
  CHECK(batches(1, 1, true) == 1);
  CHECK(batches(1, 5, false) == 1);
  CHECK(batches(3, 5, true) == 0);
  CHECK(batches(17, 1, false) == 17);
}

TEST_CASE("loader: the same batches for every number of threads") {
  const Counting data(53, -1, true);
  std::vector<std::vector<Record>> epochs;
  for (const int64_t threads : {0, 1, 3, 8}) {
    for (const int64_t prefetch : {1, 4}) {
      CAPTURE(threads);
      CAPTURE(prefetch);
      DataLoader loader(data,
                        {.batch_size = 6,
                         .shuffle = true,
                         .augment = augmentation(),
                         .threads = threads,
                         .prefetch = prefetch,
                         .seed = 5},
                        plain);
      std::vector<Record> both;
      for (const int64_t epoch : {0, 1})
        for (Record& r : run(loader, epoch)) both.push_back(std::move(r));
      if (epochs.empty()) epochs.push_back(both);
      CHECK(both == epochs[0]);
    }
  }
}

TEST_CASE("loader: shuffling is a permutation that depends on seed and epoch") {
  const Counting data(40);
  const auto order = [&](uint64_t seed, int64_t epoch) {
    DataLoader loader(data, {.batch_size = 7, .shuffle = true, .augment = {}, .seed = seed}, plain);
    std::vector<int64_t> labels;
    for (const Record& r : run(loader, epoch)) labels.insert(labels.end(), r.labels.begin(), r.labels.end());
    return labels;
  };
  const auto first = order(1, 0);
  CHECK(std::set<int64_t>(first.begin(), first.end()).size() == 40);
  CHECK(first == Rng(1, Purpose::shuffle, 0).permutation(40));
  CHECK(first == order(1, 0));
  CHECK(first != order(1, 1));
  CHECK(first != order(2, 0));
}

TEST_CASE("loader: augmentation follows the sample, not its place") {
  const Counting data(20);
  const auto pictures = [&](bool shuffle, int64_t epoch) {
    DataLoader loader(data, {.batch_size = 3, .shuffle = shuffle, .augment = augmentation(), .seed = 5}, plain);
    std::vector<std::vector<float>> by_sample(20);
    for (const Record& r : run(loader, epoch))
      for (size_t k = 0; k < r.labels.size(); ++k)
        by_sample[static_cast<size_t>(r.labels[k])] = {r.images.begin() + k * 15, r.images.begin() + (k + 1) * 15};
    return by_sample;
  };
  CHECK(pictures(false, 2) == pictures(true, 2));
  CHECK(pictures(true, 2) != pictures(true, 3));
}

TEST_CASE("loader: starting in the middle gives the tail of the whole epoch") {
  const Counting data(53);
  for (const int64_t threads : {0, 3}) {
    const LoaderOptions options{
        .batch_size = 6, .shuffle = true, .augment = augmentation(), .threads = threads, .seed = 5};
    DataLoader loader(data, options, plain);
    const auto whole = run(loader, 4);
    for (int64_t first = 0; first <= loader.batches(); ++first) {
      DataLoader fresh(data, options, plain);
      CHECK(run(fresh, 4, first) == std::vector<Record>(whole.begin() + first, whole.end()));
    }
  }
}

TEST_CASE("loader: left in the middle, restarted in the middle, never started") {
  const Counting data(400, -1, true);
  for (const int64_t threads : {0, 1, 8}) {
    for (int64_t fetched = 0; fetched < 4; ++fetched) {
      DataLoader loader(data, {.batch_size = 2, .shuffle = true, .augment = {}, .threads = threads}, plain);
      Batch batch;
      CHECK_THROWS_AS(loader.next(batch), Error);
      loader.start(0);
      for (int64_t i = 0; i < fetched; ++i) CHECK(loader.next(batch));
      loader.start(7, 3);
      for (int64_t i = 0; i < fetched; ++i) CHECK(loader.next(batch));
      if (fetched > 0) CHECK(batch.index == 3 + fetched - 1);
    }
  }
}

TEST_CASE("loader: threads work ahead no further than prefetch") {
  const Counting data(100);
  DataLoader loader(data, {.batch_size = 1, .augment = {}, .threads = 2, .prefetch = 3}, plain);
  loader.start(0);
  Batch batch;
  REQUIRE(loader.next(batch));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  CHECK(data.calls <= 4);
}

TEST_CASE("loader: a failure in a thread is thrown at its batch's turn") {
  const Counting data(30, 13);
  for (const int64_t threads : {0, 1, 4}) {
    DataLoader loader(data, {.batch_size = 5, .augment = {}, .threads = threads}, plain);
    Batch batch;
    for (int repeat = 0; repeat < 2; ++repeat) {  // start() makes the loader usable again
      loader.start(repeat);
      CHECK(loader.next(batch));
      CHECK(loader.next(batch));
      CHECK_THROWS_WITH_AS(loader.next(batch), "sample 13 is broken", UserError);
      CHECK(batch.index == 1);
      CHECK_THROWS_AS(loader.next(batch), Error);
    }
    loader.start(0, 3);
    CHECK(loader.next(batch));
  }
}

TEST_CASE("loader: what cannot be is an error") {
  const Counting data(10);
  CHECK_THROWS_AS(DataLoader(data, {.batch_size = 0, .augment = {}}, plain), Error);
  CHECK_THROWS_AS(DataLoader(data, {.augment = {}, .threads = -1}, plain), Error);
  CHECK_THROWS_AS(DataLoader(data, {.augment = {}, .prefetch = 0}, plain), Error);
  CHECK_THROWS_AS(DataLoader(data, {.augment = {}}, {{0, 0, 0}, {1, 1, 1}}), Error);
  CHECK_THROWS_AS(DataLoader(data, {.augment = {transform_registry().parse(R"({"type": "random_crop"})")}}, plain),
                  UserError);
  DataLoader loader(data, {.batch_size = 4, .augment = {}}, plain);
  CHECK_THROWS_AS(loader.start(0, 4), Error);
  CHECK_THROWS_AS(loader.start(-1), Error);
  CHECK_NOTHROW(loader.start(0, 3));
}
