#include "data/loader.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>

#include "core/rng.h"

namespace mgic {

// Threads that make the batches [first, end) of one epoch. Each claims the next batch, but no further ahead of the
// consumer than `prefetch`, and puts it on the shelf, from which take() fetches them in order.
class DataLoader::Pipeline {
 public:
  Pipeline(const DataLoader& loader, int64_t first, int64_t end)
      : loader_(loader), end_(end), claimed_(first), taken_(first) {
    const int64_t threads = std::min(loader.options_.threads, end - first);
    for (int64_t i = 0; i < threads; ++i) threads_.emplace_back([this](std::stop_token stop) { work(stop); });
  }
  ~Pipeline() {
    for (auto& thread : threads_) thread.request_stop();  // all at once, before the first join
  }

  Batch take() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [&] { return shelf_.contains(taken_); });
    Result result = std::move(shelf_.extract(taken_++).mapped());
    room_.notify_one();
    if (result.error) std::rethrow_exception(result.error);
    return std::move(result.batch);
  }

 private:
  struct Result {
    Batch batch;
    std::exception_ptr error;
  };

  void work(const std::stop_token& stop) {
    Image image;
    for (;;) {
      int64_t index = 0;
      {
        std::unique_lock lock(mutex_);
        const auto may_go_on = [&] { return claimed_ == end_ || claimed_ < taken_ + loader_.options_.prefetch; };
        if (!room_.wait(lock, stop, may_go_on) || stop.stop_requested() || claimed_ == end_) return;
        index = claimed_++;
      }
      Result result;
      try {
        result.batch = loader_.make(index, image);
      } catch (...) {
        result.error = std::current_exception();
      }
      std::lock_guard lock(mutex_);
      shelf_.emplace(index, std::move(result));
      ready_.notify_one();
    }
  }

  const DataLoader& loader_;
  const int64_t end_;
  std::mutex mutex_;
  std::condition_variable_any room_, ready_;
  int64_t claimed_, taken_;            // batches that threads have begun, that the consumer has fetched
  std::map<int64_t, Result> shelf_;    // made, not yet fetched
  std::vector<std::jthread> threads_;  // the last member: joined before what they use goes
};

DataLoader::DataLoader(const Dataset& dataset, const LoaderOptions& options, const Normalization& normalization)
    : dataset_(dataset), options_(options), normalizer_(normalization, dataset.shape().channels) {
  check(options.batch_size >= 1 && options.threads >= 0 && options.prefetch >= 1,
        "loader: batch size {}, threads {} and prefetch {} must be at least 1, 0 and 1", options.batch_size,
        options.threads, options.prefetch);
  for (const TransformSpec& spec : options.augment) transforms_.push_back(spec.make({dataset.shape()}));
}

DataLoader::~DataLoader() = default;

int64_t DataLoader::batches() const {
  const int64_t whole = dataset_.size() / options_.batch_size;
  const bool partial = dataset_.size() % options_.batch_size != 0 && !options_.drop_last;
  return whole + (partial ? 1 : 0);
}

void DataLoader::start(int64_t epoch, int64_t first_batch) {
  check(epoch >= 0 && first_batch >= 0 && first_batch <= batches(),
        "loader: batch {} of epoch {} does not exist; an epoch has {}", first_batch, epoch, batches());
  pipeline_.reset();
  epoch_ = epoch;
  next_ = first_batch;
  if (options_.shuffle)
    order_ = Rng(options_.seed, Purpose::shuffle, static_cast<uint64_t>(epoch)).permutation(dataset_.size());
  if (options_.threads > 0) pipeline_ = std::make_unique<Pipeline>(*this, first_batch, batches());
}

bool DataLoader::next(Batch& batch) {
  check(epoch_ >= 0, "loader: next() needs start() first");
  if (next_ == batches()) return false;
  try {
    batch = pipeline_ ? pipeline_->take() : make(next_, image_);
  } catch (...) {
    pipeline_.reset();
    epoch_ = -1;
    throw;
  }
  ++next_;
  return true;
}

Batch DataLoader::make(int64_t index, Image& image) const {
  const int64_t begin = index * options_.batch_size, n = std::min(options_.batch_size, dataset_.size() - begin);
  const SampleShape shape = dataset_.shape();
  Batch batch{Tensor::empty({n, shape.height, shape.width, shape.channels}, DType::f32, Device::cpu),
              Tensor::empty({n}, DType::i64, Device::cpu), index};
  float* out = batch.images.data<float>();
  int64_t* labels = batch.labels.data<int64_t>();
  for (int64_t i = 0; i < n; ++i) {
    const int64_t sample = options_.shuffle ? order_[static_cast<size_t>(begin + i)] : begin + i;
    image.shape = shape;
    image.placement = {};
    dataset_.get(sample, image.sample);
    if (!transforms_.empty()) {
      Rng rng(options_.seed, Purpose::augment, static_cast<uint64_t>(epoch_), static_cast<uint64_t>(sample));
      for (const auto& transform : transforms_) transform->apply(image, rng);
    }
    normalizer_.write(image, out + i * shape.count());
    labels[i] = image.sample.label;
  }
  return batch;
}

}  // namespace mgic
