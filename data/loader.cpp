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
#include "data/corrupt.h"

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
  check(!options.mix.any() || (!dataset.segmentation() && !dataset.shape().points),
        "loader: mixup and cutmix take images with one label each");
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
  while (next_ < batches()) {
    try {
      batch = pipeline_ ? pipeline_->take() : make(next_, image_);
    } catch (...) {
      pipeline_.reset();
      epoch_ = -1;
      throw;
    }
    ++next_;
    if (batch.labels.count() > 0) return true;  // else all of its samples are damaged
  }
  return false;
}

// The sample, augmented, of the set's size; false where its file is damaged.
bool DataLoader::load(int64_t sample, Image& image) const {
  try {
    dataset_.get(sample, image.sample);
  } catch (const CorruptSample&) {
    return false;
  }
  image.shape = dataset_.shape();
  image.placement = {};
  if (image.sample.height > 0) image.shape.height = image.sample.height, image.shape.width = image.sample.width;
  Rng rng(options_.seed, Purpose::augment, static_cast<uint64_t>(epoch_), static_cast<uint64_t>(sample));
  for (const auto& transform : transforms_) transform->apply(image, rng);
  image.fit(dataset_.shape());
  return true;
}

Batch DataLoader::make(int64_t index, Image& image) const {
  const int64_t size = dataset_.size(), begin = index * options_.batch_size;
  const int64_t n = std::min(options_.batch_size, size - begin);
  const SampleShape s = dataset_.shape();
  const bool segmentation = dataset_.segmentation();
  Batch batch{Tensor::empty(s.points ? Shape{n, s.height, s.channels} : Shape{n, s.height, s.width, s.channels},
                            DType::f32, Device::cpu),
              Tensor::empty(segmentation ? Shape{n, s.height, s.width} : Shape{n}, DType::i64, Device::cpu),
              index,
              {}};
  float* out = batch.images.data<float>();
  int64_t* labels = batch.labels.data<int64_t>();
  const int64_t labels_each = segmentation ? s.height * s.width : 1;
  int64_t filled = 0;
  for (int64_t i = 0; i < n; ++i) {
    int64_t sample = options_.shuffle ? order_[static_cast<size_t>(begin + i)] : begin + i;
    bool loaded = load(sample, image);
    for (int64_t tries = 1; !loaded && options_.shuffle && tries < size; ++tries) {
      sample = (sample + 1) % size;
      loaded = load(sample, image);
    }
    if (!loaded && options_.shuffle) fail_user("every sample of the training part is damaged");
    if (!loaded) continue;
    normalizer_.write(image, out + filled * s.count());
    if (segmentation)
      image.write_mask(labels + filled * labels_each);
    else
      labels[filled] = image.sample.label;
    ++filled;
  }
  if (filled < n) {
    batch.images = batch.images.slice(0, filled);
    batch.labels = batch.labels.slice(0, filled);
  }
  if (options_.mix.any() && filled > 1) {
    // A stream of its own: no sample's number is as large.
    Rng rng(options_.seed, Purpose::augment, static_cast<uint64_t>(epoch_),
            uint64_t{1} << 63 | static_cast<uint64_t>(index));
    mix(batch, options_.mix, rng);
  }
  return batch;
}

}  // namespace mgic
