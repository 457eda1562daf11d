#include "train/trace.h"

#include "autograd/ops.h"
#include "layers/dropout.h"
#include "layers/sequential.h"
#include "layers/state.h"
#include "models/torchvision.h"
#include "train/trainer.h"

namespace mgic {
namespace {

// Keeps every module's output under its path.
class Activations final : public Recorder {
 public:
  explicit Activations(TensorFile& file) : Recorder(true), file_(file) {}
  void module_done(std::string_view path, std::string_view, const Tensor& output) override {
    if (!path.empty()) file_.tensors[fmt::format("activations/{}", path)] = output.clone();
  }
  // Parts of a fused unit are no modules that run: their operations carry their paths.
  void operation(const Operation& op) override {
    if (!op.path.empty()) file_.tensors[fmt::format("activations/{}", op.path)] = op.output.clone();
  }

 private:
  TensorFile& file_;
};

class Tracer {
 public:
  Tracer(const Experiment& experiment, const TraceRequest& request)
      : options_(experiment.options),
        request_(request),
        bare_(options_.layer.make != nullptr),
        input_(take("input", request.dtype)) {
    if (input_.shape().rank() < 3)
      fail_user("{}: \"input\" must be (N, C, H, W) or (N, P, C), not {}", request.batch_name, input_.shape().str());
    const Shape sample = input_.shape().with(0, 1);
    module_ = bare_ ? options_.layer.make({options_.layer_channels, 1, 0, true, sample})
                    : options_.model.make({sample[1], sample[2]});
    module_->to(request.device, request.dtype);
    if (bare_)
      load_state(*module_, request.weights.tensors, request.weights_name);
    else
      load_weights(*module_, options_.model, request.weights.tensors, request.weights_name);
  }

  TensorFile run() {
    const char* output = bare_ ? "output" : "logits";
    module_->train(false);
    {
      NoGrad no_grad;
      std::optional<Activations> activations;
      if (request_.activations) activations.emplace(out_);
      keep(fmt::format("{}.eval", output), (*module_)(Variable(input_)).value());
    }
    module_->train(true);
    const RandomStep random(static_cast<uint64_t>(options_.seed), 0);
    if (bare_)
      train_layer();
    else
      train_model();
    return std::move(out_);
  }

 private:
  void train_layer() {
    const Tensor cotangent = take("cotangent", request_.dtype);
    const Variable input(input_, true);
    const Variable y = (*module_)(input);
    if (cotangent.shape() != y.shape())
      fail_user("{}: \"cotangent\" must have the output's shape {}, not {}", request_.batch_name, y.shape().str(),
                cotangent.shape().str());
    keep("output.train", y.value());
    backward(y, cotangent);
    keep("grads/input", input.gradient());
    keep_gradients();
    module_->each_buffer([&](const std::string& name, Tensor& b) { keep("after/" + name, b); });
  }

  void train_model() {
    const Tensor labels = take("labels", DType::i64);
    const Shape& in = input_.shape();
    const Shape wanted = segments(options_.model) ? Shape{in[0], in[1], in[2]} : Shape{in[0]};
    if (labels.shape() != wanted)
      fail_user("{}: \"labels\" must be {}, one for each {}, not {}", request_.batch_name, wanted,
                segments(options_.model) ? "pixel" : "input", labels.shape());
    const auto loss = make_loss(options_.loss, options_.model);
    const auto optimizer =
        options_.optimizer.make != nullptr ? options_.optimizer.make({*module_}) : std::unique_ptr<Optimizer>();
    if (!optimizer && request_.steps > 1) fail_user("optimizer: is missing; --steps {} needs one", request_.steps);
    std::vector<double> losses;
    for (int64_t step = 0; step < request_.steps; ++step) {
      const StepResult result = forward_backward(*module_, *loss, input_, {input_, labels});
      losses.push_back(result.loss.value().to(Device::cpu).item());
      if (step == 0) {
        keep("logits.train", result.logits.value());
        keep("loss", result.loss.value());
        keep_gradients();
      }
      if (optimizer) optimizer->step(optimizer->base_lr());
    }
    keep("losses", Tensor::from(losses, {request_.steps}, Device::reference).to(request_.dtype));
    for (const auto& [name, tensor] : state_of(*module_)) keep("after/" + name, tensor);
  }

  void keep_gradients() {
    module_->each_parameter([&](const std::string& name, Variable& p) {
      if (p.gradient().defined()) keep("grads/" + name, p.gradient());
    });
  }

  Tensor take(const char* name, DType dtype) const {
    auto it = request_.batch.tensors.find(name);
    if (it == request_.batch.tensors.end()) fail_user("{}: has no tensor \"{}\"", request_.batch_name, name);
    if (dtype == DType::i64 && it->second.dtype() != DType::i64)
      fail_user("{}: \"{}\" must be I64, not {}", request_.batch_name, name, name_of(it->second.dtype()));
    return it->second.to(dtype).to(request_.device);
  }

  void keep(const std::string& name, const Tensor& t) { out_.tensors[name] = t.clone().to(Device::cpu); }

  const ExperimentOptions& options_;
  const TraceRequest& request_;
  bool bare_;
  Tensor input_;
  std::unique_ptr<Module> module_;
  TensorFile out_;
};

}  // namespace

TensorFile trace(const Experiment& experiment, const TraceRequest& request) {
  return Tracer(experiment, request).run();
}

}  // namespace mgic
