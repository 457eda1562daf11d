#include "layers/conv_chain.h"

namespace mgic {

void activation_field(Fields& f, std::string_view key, Activation& value, std::string_view doc) {
  static const std::vector<Activation> all{Activation::none, Activation::relu, Activation::hswish,
                                           Activation::hsigmoid};
  std::string name(name_of(value));
  std::vector<std::string> names;
  for (Activation a : all) names.emplace_back(name_of(a));
  f(key, name, doc, one_of(names));
  for (Activation a : all)
    if (name_of(a) == name) value = a;
}

void ChainLinkOptions::fields(Fields& f) {
  conv.fields(f);
  f("norm", norm, "batch normalisation behind the convolution");
  bn.fields(f);
  activation_field(f, "activation", activation, "applied last in the link");
}

void ConvChainOptions::fields(Fields& f) {
  f("links", links, "the links, first to last", any().need());
  f.check(!links.empty(), "links", "must have at least one element");
  f("residual", residual, "adds the chain's input to its output");
  activation_field(f, "outer", outer, "applied behind the residual");
  for (size_t i = 0; i < links.size(); ++i)
    f.check(!links[i].conv.bias, fmt::format("links[{}].bias", i), "a chain's convolutions have no bias");
  f.check(residual || outer == Activation::none, "outer", "needs \"residual\": true");
  f.check(!residual || links.empty() || links.back().norm || links.back().activation == Activation::none, "residual",
          "a last link without normalisation takes no activation before a residual");
}

ConvChain::ConvChain(std::string_view type, int64_t in_channels, ConvChainOptions options)
    : Module(type), residual_(options.residual), outer_(options.outer) {
  int64_t channels = in_channels;
  for (size_t i = 0; i < options.links.size(); ++i) {
    ChainLinkOptions& link = options.links[i];
    const std::string number = options.links.size() == 1 ? "" : std::to_string(i + 1);
    link.conv.in_channels = channels;
    channels = link.conv.out_channels;
    LinkModules modules{&add_child("conv" + number, std::make_unique<Conv2d>(link.conv)), nullptr, link.activation};
    if (link.norm) modules.norm = &add_child("bn" + number, std::make_unique<BatchNorm>(channels, link.bn));
    links_.push_back(modules);
  }
  out_channels_ = channels;
}

Variable ConvChain::forward(const Variable& x) { return chain(x, residual_ ? x : Variable()); }

Variable ConvChain::with_residual(const Variable& x, const Variable& residual) {
  return run_named([&] { return chain(x, residual); });
}

Variable ConvChain::chain(const Variable& x, const Variable& residual) {
  std::vector<ops::ChainLink> links;
  for (const LinkModules& m : links_) {
    ops::ChainLink link{m.conv->weight(), m.conv->params(), {}, m.activation, m.conv->name(), ""};
    if (m.norm != nullptr) {
      link.norm = m.norm->variables();
      link.norm_name = m.norm->name();
    }
    links.push_back(std::move(link));
  }
  return ops::conv_chain(x, links, residual, outer_, training());
}

ChainLinkOptions conv_norm_act(int64_t out_channels, int64_t kernel, Activation activation, int64_t groups,
                               int64_t stride) {
  ChainLinkOptions link;
  link.conv.out_channels = out_channels;
  link.conv.kernel = kernel;
  link.conv.groups = groups;
  link.conv.stride = stride;
  link.activation = activation;
  return link;
}

}  // namespace mgic
