#include "core/safetensors.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "core/fields.h"
#include "core/file.h"

namespace mgic {
namespace {

struct Type {
  const char* name;
  DType dtype;
};
constexpr Type types[] = {
    {"F32", DType::f32}, {"F64", DType::f64}, {"BF16", DType::bf16}, {"I64", DType::i64}, {"U8", DType::u8}};

std::optional<DType> dtype_named(const std::string& name) {
  for (const Type& t : types)
    if (name == t.name) return t.dtype;
  return {};
}

constexpr const char* checksum_key = "crc32";

// What the header says of a tensor; the order is that of the data section.
struct Extent {
  int64_t begin, end;
  std::string name;
  auto operator<=>(const Extent&) const = default;
};

// The checksum that core/safetensors.h describes; `header` holds the tensors' entries, with or without the metadata.
std::string checksum(const std::map<std::string, std::string>& metadata, const Json& header, std::string_view data) {
  std::map<std::string, const Json*> sorted;
  for (const auto& [name, entry] : header.items())
    if (name != "__metadata__") sorted[name] = &entry;
  Json text = Json::array({Json::object()});
  for (const auto& [key, value] : metadata)
    if (key != checksum_key) text[0][key] = value;
  for (const auto& [name, entry] : sorted)
    text.push_back(Json::array({name, entry->at("dtype"), entry->at("shape"), entry->at("data_offsets")}));
  const std::string canonical = text.dump();
  auto crc = crc32_z(0, reinterpret_cast<const Bytef*>(canonical.data()), canonical.size());
  crc = crc32_z(crc, reinterpret_cast<const Bytef*>(data.data()), data.size());
  return fmt::format("{:08x}", crc);
}

// Integers that are at least 0; get<>() alone would take 1.5 and true as well.
std::vector<int64_t> counts(const std::string& file, const std::string& name, const Json& entry, const char* key) {
  const Json& list = entry.at(key);
  const bool fits = list.is_array() && std::ranges::all_of(list, [](const Json& v) {
                      return v.is_number_unsigned() && v.get<uint64_t>() <= INT64_MAX;
                    });
  if (!fits) fail_user("{}: tensor \"{}\" has an impossible {}", file, name, key);
  return list.get<std::vector<int64_t>>();
}

// out[n, b, a] = in[n, a, b], element by element of `size` bytes.
void transpose_inner(const std::byte* in, std::byte* out, int64_t n, int64_t a, int64_t b, int64_t size) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < a; ++j)
      for (int64_t k = 0; k < b; ++k)
        std::memcpy(out + ((i * b + k) * a + j) * size, in + ((i * a + j) * b + k) * size, static_cast<size_t>(size));
}

}  // namespace

Tensor to_channels_last(const Tensor& t) {
  const Shape& s = t.shape();
  Tensor out = Tensor::empty({s[0], s[2], s[3], s[1]}, t.dtype(), t.device());
  transpose_inner(static_cast<const std::byte*>(t.raw()), static_cast<std::byte*>(out.raw()), s[0], s[1], s[2] * s[3],
                  size_of(t.dtype()));
  return out;
}

Tensor to_channels_first(const Tensor& t) {
  const Shape& s = t.shape();
  Tensor out = Tensor::empty({s[0], s[3], s[1], s[2]}, t.dtype(), t.device());
  transpose_inner(static_cast<const std::byte*>(t.raw()), static_cast<std::byte*>(out.raw()), s[0], s[1] * s[2], s[3],
                  size_of(t.dtype()));
  return out;
}

TensorFile read_safetensors(const std::filesystem::path& path) {
  const std::string bytes = read_file(path);
  const std::string file = path.string();
  if (bytes.size() < 8) fail_user("{}: {} bytes are too few for a safetensors file", file, bytes.size());
  uint64_t header_size = 0;
  std::memcpy(&header_size, bytes.data(), 8);
  if (header_size > bytes.size() - 8)
    fail_user("{}: is no safetensors file or is truncated: its header needs {} bytes, {} are there", file, header_size,
              bytes.size() - 8);
  const std::string_view data = std::string_view(bytes).substr(8 + header_size);

  TensorFile result;
  std::vector<Extent> extents;
  try {
    const Json header = Json::parse(std::string_view(bytes).substr(8, header_size));
    if (!header.is_object()) fail_user("{}: the safetensors header is not an object", file);
    for (const auto& [name, entry] : header.items()) {
      if (!entry.is_object()) fail_user("{}: the header's \"{}\" is not an object", file, name);
      if (name == "__metadata__") {
        for (const auto& [key, value] : entry.items()) result.metadata[key] = value.get<std::string>();
        continue;
      }
      const auto dtype = dtype_named(entry.at("dtype").get<std::string>());
      if (!dtype)
        fail_user("{}: tensor \"{}\" has element type {}; F32, F64, BF16, I64 and U8 can be read", file, name,
                  entry.at("dtype").get<std::string>());
      const auto sizes = counts(file, name, entry, "shape");
      const auto offsets = counts(file, name, entry, "data_offsets");
      if (sizes.size() > Shape::max_rank)
        fail_user("{}: tensor \"{}\" has {} dimensions; at most {} can be read", file, name, sizes.size(),
                  Shape::max_rank);
      const Shape shape{std::span<const int64_t>(sizes)};
      if (offsets.size() != 2 || offsets[1] < offsets[0])
        fail_user("{}: tensor \"{}\" has an impossible data_offsets", file, name);
      if (offsets[1] > static_cast<int64_t>(data.size()))
        fail_user("{}: truncated: tensor \"{}\" ends after the file's last byte", file, name);
      if (offsets[1] - offsets[0] != shape.count() * size_of(*dtype))
        fail_user("{}: tensor \"{}\" of shape {} does not fill its {} bytes", file, name, shape.str(),
                  offsets[1] - offsets[0]);
      Tensor t = Tensor::empty(shape, *dtype, Device::cpu);
      std::memcpy(t.raw(), data.data() + offsets[0], static_cast<size_t>(t.bytes()));
      extents.push_back({offsets[0], offsets[1], name});
      result.tensors[name] = shape.rank() == 4 ? to_channels_last(t) : t;
    }

    // The tensors fill the data section from its first byte to its last, each byte once.
    std::ranges::sort(extents);
    int64_t at = 0;
    for (const Extent& e : extents) {
      if (e.begin != at)
        fail_user("{}: damaged: tensor \"{}\" begins at byte {} of the data, where byte {} is next", file, e.name,
                  e.begin, at);
      at = e.end;
    }
    if (at != static_cast<int64_t>(data.size()))
      fail_user("{}: damaged: {} bytes of data, but the tensors fill {}", file, data.size(), at);

    const auto expected = result.metadata.find(checksum_key);
    if (expected != result.metadata.end()) {
      if (expected->second != checksum(result.metadata, header, data))
        fail_user("{}: damaged: its checksum does not match", file);
      result.metadata.erase(expected);
    }
  } catch (const Json::exception& e) {
    fail_user("{}: the safetensors header is damaged: {}", file, e.what());
  } catch (const UserError&) {
    throw;
  } catch (const Error& e) {
    fail_user("{}: {}", file, e.what());
  }
  return result;
}

void write_safetensors(const std::filesystem::path& path, const TensorFile& file) {
  Json header = Json::object();
  header["__metadata__"] = file.metadata;
  std::string data;
  for (const auto& [name, tensor] : file.tensors) {
    check(name != "__metadata__", "{}: a tensor cannot be named \"__metadata__\"", path.string());
    const Tensor t = tensor.shape().rank() == 4 ? to_channels_first(tensor) : tensor;
    const auto type = std::ranges::find(types, t.dtype(), &Type::dtype);
    const auto begin = static_cast<int64_t>(data.size());
    data.append(static_cast<const char*>(t.raw()), static_cast<size_t>(t.bytes()));
    const auto sizes = t.shape().sizes();
    header[name] = {{"dtype", type->name},
                    {"shape", std::vector<int64_t>(sizes.begin(), sizes.end())},
                    {"data_offsets", {begin, static_cast<int64_t>(data.size())}}};
  }
  header["__metadata__"][checksum_key] = checksum(file.metadata, header, data);
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // tensors begin at a multiple of 8
  const uint64_t size = text.size();
  std::string bytes(reinterpret_cast<const char*>(&size), 8);
  bytes += text;
  bytes += data;
  write_file(path, bytes);
}

}  // namespace mgic
