// safetensors files: round trips, other frameworks' layouts, and damage of every kind.
#include <doctest/doctest.h>
#include <zlib.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "tests/core/thrown.h"
#include "tests/support/temp_folder.h"

using namespace mgic;
using test::has;
using test::TempFolder;
using test::thrown;

namespace {

// A file from its parts, as the format's page describes it.
std::string file_of(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string bytes;
  for (int shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(size >> shift & 255);
  return bytes + header + data;
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

template <class T>
std::vector<T> values(const Tensor& t) {
  const auto span = t.span<T>();
  return {span.begin(), span.end()};
}

std::string raw_bytes(const Tensor& t) { return {static_cast<const char*>(t.raw()), static_cast<size_t>(t.bytes())}; }

// The fault that reading these bytes gives, without the file's name; "nothing" where they are read.
std::string fault_of(const TempFolder& folder, const std::string& bytes) {
  folder.write("x.safetensors", bytes);
  const std::string start = "UserError: " + folder.path("x.safetensors") + ": ";
  const std::string text = thrown([&] { read_safetensors(folder.path("x.safetensors")); });
  return text.starts_with(start) ? text.substr(start.size()) : text;
}

// A small file with what the format has: metadata, a 4-D tensor, a vector, a scalar, an empty one.
TensorFile sample() {
  TensorFile file;
  file.tensors["conv.weight"] = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}, {2, 1, 2, 2});
  file.tensors["labels"] = Tensor::from(std::vector<int64_t>{3, -1}, {2});
  file.tensors["scalar"] = Tensor::from(std::vector<double>{0.5}, {});
  file.tensors["none"] = Tensor::empty({0, 3}, DType::f32, Device::cpu);
  file.metadata["step"] = "12";
  return file;
}

bool same(const TensorFile& a, const TensorFile& b) {
  if (a.metadata != b.metadata || a.tensors.size() != b.tensors.size()) return false;
  for (const auto& [name, t] : a.tensors) {
    const auto it = b.tensors.find(name);
    if (it == b.tensors.end() || it->second.str() != t.str() || raw_bytes(it->second) != raw_bytes(t)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("safetensors: a round trip of every type") {
  const TempFolder folder;
  TensorFile file = sample();
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::i64, DType::u8}) {
    Tensor t = Tensor::empty({3, 5}, dtype, Device::cpu);
    t.fill(17);
    file.tensors[std::string("type.") + std::string(name_of(dtype))] = t;
  }
  file.metadata["text \"quoted\" ä"] = "line\nline";
  file.tensors["name \"quoted\" ä"] = Tensor::from(std::vector<uint8_t>{1, 2, 3}, {3});
  write_safetensors(folder.path("a"), file);
  CHECK(same(read_safetensors(folder.path("a")), file));
}

TEST_CASE("safetensors: nothing at all is a valid file") {
  const TempFolder folder;
  write_safetensors(folder.path("a"), {});
  const TensorFile file = read_safetensors(folder.path("a"));
  CHECK(file.tensors.empty());
  CHECK(file.metadata.empty());
}

TEST_CASE("safetensors: rank 0 and empty tensors keep their shapes") {
  const TempFolder folder;
  TensorFile file;
  file.tensors["scalar"] = Tensor::from(std::vector<float>{2.5F}, {});
  file.tensors["row"] = Tensor::empty({0}, DType::i64, Device::cpu);
  file.tensors["images"] = Tensor::empty({0, 4, 5, 3}, DType::f32, Device::cpu);
  file.tensors["thin"] = Tensor::empty({2, 4, 0, 3}, DType::u8, Device::cpu);
  file.tensors["five"] = Tensor::from(std::vector<float>{1, 2}, {1, 1, 2, 1, 1});
  write_safetensors(folder.path("a"), file);
  const TensorFile back = read_safetensors(folder.path("a"));
  CHECK(same(back, file));
  CHECK(back.tensors.at("scalar").item() == 2.5);
  CHECK(back.tensors.at("images").shape() == Shape{0, 4, 5, 3});
}

TEST_CASE("safetensors: a 4-D tensor is channels-first in the file") {
  const TempFolder folder;
  // (O, kH, kW, I) = (2, 1, 2, 3); the value is 100 o + 10 w + i.
  const std::vector<float> ohwi{0, 1, 2, 10, 11, 12, 100, 101, 102, 110, 111, 112};
  const std::vector<float> oihw{0, 10, 1, 11, 2, 12, 100, 110, 101, 111, 102, 112};
  TensorFile file;
  file.tensors["w"] = Tensor::from(ohwi, {2, 1, 2, 3});
  write_safetensors(folder.path("a"), file);
  const std::string bytes = folder.read("a");
  CHECK(has(bytes, R"("shape":[2,3,1,2])"));
  CHECK(bytes.substr(bytes.size() - 48) == bytes_of(oihw));

  folder.write("b", file_of(R"({"w":{"dtype":"F32","shape":[2,3,1,2],"data_offsets":[0,48]}})", bytes_of(oihw)));
  const Tensor back = read_safetensors(folder.path("b")).tensors.at("w");
  CHECK(back.shape() == Shape{2, 1, 2, 3});
  CHECK(values<float>(back) == ohwi);
}

TEST_CASE("safetensors: layouts back and forth, for an element of each size") {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::i64, DType::u8}) {
    Tensor nhwc = Tensor::empty({2, 3, 4, 5}, dtype, Device::cpu);
    for (int64_t i = 0; i < nhwc.count(); ++i)
      nhwc.reshape({nhwc.count()}).slice(i, i + 1).fill(static_cast<double>(i));
    const Tensor nchw = to_channels_first(nhwc);
    CHECK(nchw.shape() == Shape{2, 5, 3, 4});
    // (n, c, h, w) = (1, 4, 2, 3) lies at (n, h, w, c) = (1, 2, 3, 4).
    const int64_t first = ((1 * 5 + 4) * 3 + 2) * 4 + 3, last = ((1 * 3 + 2) * 4 + 3) * 5 + 4;
    CHECK(nchw.reshape({120}).slice(first, first + 1).item() == static_cast<double>(last));
    const int64_t at = ((0 * 5 + 2) * 3 + 1) * 4 + 0;
    CHECK(nchw.reshape({120}).slice(at, at + 1).item() == ((0 * 3 + 1) * 4 + 0) * 5 + 2);
    CHECK(raw_bytes(to_channels_last(nchw)) == raw_bytes(nhwc));
  }
}

TEST_CASE("safetensors: a file by another writer, without a checksum and in an order of its own") {
  const TempFolder folder;
  // As the Python package writes it: metadata first, a header that is padded with spaces, data sorted by size of type.
  std::string header = R"({"__metadata__":{"format":"pt"},)"
                       R"("b.bias":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
                       R"("a.weight":{"dtype":"BF16","shape":[2,2],"data_offsets":[8,16]},)"
                       R"("empty":{"dtype":"U8","shape":[0],"data_offsets":[16,16]},)"
                       R"("mask":{"dtype":"U8","shape":[3],"data_offsets":[16,19]}})";
  header.append(8 - header.size() % 8, ' ');
  const std::string data = bytes_of<double>({-1.5}) + bytes_of<uint16_t>({0x3f80, 0x4000, 0xc040, 0}) + "\x01\x02\x03";
  folder.write("a", file_of(header, data));
  const TensorFile file = read_safetensors(folder.path("a"));
  CHECK(file.metadata == std::map<std::string, std::string>{{"format", "pt"}});
  CHECK(file.tensors.size() == 4);
  CHECK(file.tensors.at("b.bias").item() == -1.5);
  CHECK(file.tensors.at("a.weight").str() == "bf16 (2, 2) on cpu");
  CHECK(values<float>(file.tensors.at("a.weight").to(DType::f32)) == std::vector<float>{1, 2, -3, 0});
  CHECK(values<uint8_t>(file.tensors.at("mask")) == std::vector<uint8_t>{1, 2, 3});
  CHECK(file.tensors.at("empty").shape() == Shape{0});
}

TEST_CASE("safetensors: what is written is what the format asks for") {
  const TempFolder folder;
  write_safetensors(folder.path("a"), sample());
  const std::string bytes = folder.read("a");
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), 8);
  CHECK(size % 8 == 0);  // so that the data is aligned
  CHECK(bytes[8] == '{');
  CHECK(bytes.size() == 8 + size + 32 + 16 + 8);
}

TEST_CASE("safetensors: the checksum is the one that the header file documents") {
  const TempFolder folder;
  TensorFile file;
  file.tensors["b"] = Tensor::from(std::vector<uint8_t>{1, 2}, {2});
  file.tensors["a"] = Tensor::from(std::vector<float>{1}, {1});
  file.metadata = {{"step", "7"}};
  write_safetensors(folder.path("a"), file);
  const std::string bytes = folder.read("a");
  const std::string text =
      R"([{"step":"7"},["a","F32",[1],[0,4]],["b","U8",[2],[4,6]]])" + bytes_of<float>({1}) + std::string("\x01\x02");
  const auto crc = ::crc32(0, reinterpret_cast<const Bytef*>(text.data()), static_cast<uInt>(text.size()));
  CHECK(has(bytes, fmt::format(R"("crc32":"{:08x}")", crc)));
  CHECK(read_safetensors(folder.path("a")).metadata == file.metadata);  // the caller does not see it
}

TEST_CASE("safetensors: the caller cannot set the checksum") {
  const TempFolder folder;
  TensorFile file = sample();
  file.metadata["crc32"] = "00000000";
  write_safetensors(folder.path("a"), file);
  CHECK(same(read_safetensors(folder.path("a")), sample()));
}

TEST_CASE("safetensors: a damaged value, shape, name or metadata is found by the checksum") {
  const TempFolder folder;
  write_safetensors(folder.path("a"), sample());
  const std::string bytes = folder.read("a");
  const std::string message = "damaged: its checksum does not match";
  std::string broken = bytes;
  broken[broken.size() - 1] ^= 1;
  CHECK(fault_of(folder, broken) == message);
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string copy = bytes;
    const size_t at = copy.find(from);
    REQUIRE(at != std::string::npos);
    return copy.replace(at, from.size(), to);
  };
  CHECK(fault_of(folder, replaced("labels", "labelz")) == message);
  CHECK(fault_of(folder, replaced("[2,2,1,2]", "[2,1,2,2]")) == message);
  CHECK(fault_of(folder, replaced("I64", "F64")) == message);
  CHECK(fault_of(folder, replaced("\"12\"", "\"13\"")) == message);
  CHECK(fault_of(folder, replaced("\"step\"", "\"stop\"")) == message);
  CHECK(fault_of(folder, bytes) == "nothing");
}

TEST_CASE("safetensors: a file cut off after any byte is an error that names it") {
  const TempFolder folder;
  write_safetensors(folder.path("a"), sample());
  const std::string bytes = folder.read("a");
  folder.write("x", bytes);
  for (size_t size = 0; size < bytes.size(); ++size) {
    folder.write("x", bytes.substr(0, size));
    const std::string text = thrown([&] { read_safetensors(folder.path("x")); });
    CAPTURE(size);
    REQUIRE(text.starts_with("UserError: " + folder.path("x") + ": "));
  }
  folder.write("x", bytes + '\0');
  CHECK(thrown([&] { read_safetensors(folder.path("x")); }) ==
        "UserError: " + folder.path("x") + ": damaged: 57 bytes of data, but the tensors fill 56");
}

TEST_CASE("safetensors: a file with any byte inverted, or any bit, is an error that names it or is read") {
  const TempFolder folder;
  write_safetensors(folder.path("a"), sample());
  const std::string bytes = folder.read("a");
  const size_t data_begin = bytes.size() - 56;
  for (size_t at = 0; at < bytes.size(); ++at)
    for (int mask : {0xff, 1, 2, 4, 8, 16, 32, 64, 128}) {
      CAPTURE(at);
      CAPTURE(mask);
      std::string broken = bytes;
      broken[at] = static_cast<char>(broken[at] ^ mask);
      folder.write("x", broken);
      TensorFile read;
      const std::string text = thrown([&] { read = read_safetensors(folder.path("x")); });
      if (text != "nothing") {
        REQUIRE(text.starts_with("UserError: " + folder.path("x") + ": "));
        continue;
      }
      // Only a header without effect on the tensors may pass: a space for another one, or the checksum's own name.
      REQUIRE(at < data_begin);
      read.metadata = sample().metadata;
      REQUIRE(same(read, sample()));
    }
}

TEST_CASE("safetensors: absurd header lengths") {
  const TempFolder folder;
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  CHECK(fault_of(folder, "") == "0 bytes are too few for a safetensors file");
  CHECK(fault_of(folder, "1234567") == "7 bytes are too few for a safetensors file");
  CHECK(fault_of(folder, std::string(8, '\xff') + header) ==
        "is no safetensors file or is truncated: its header needs 18446744073709551615 bytes, 53 are there");
  CHECK(has(fault_of(folder, std::string("\xff\xff\xff\xff\xff\xff\xff\x7f", 8) + header), "its header needs"));
  CHECK(has(fault_of(folder, std::string("\x36\0\0\0\0\0\0\0", 8) + header), "its header needs 54 bytes, 53 are"));
  CHECK(has(fault_of(folder, std::string(8, '\0')), "the safetensors header is damaged"));
  CHECK(fault_of(folder, file_of("[]", "")) == "the safetensors header is not an object");
  CHECK(has(fault_of(folder, file_of(std::string(100000, '['), "")), "the safetensors header is damaged"));
}

TEST_CASE("safetensors: offsets that overlap, leave gaps or leave the file") {
  const TempFolder folder;
  const auto two = [&](const std::string& a, const std::string& b) {
    return fault_of(folder, file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)" + a +
                                        R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)" + b + "}}",
                                    "1234"));
  };
  CHECK(two("[0,2]", "[2,4]") == "nothing");
  CHECK(two("[2,4]", "[0,2]") == "nothing");
  CHECK(two("[0,2]", "[0,2]") == "damaged: tensor \"b\" begins at byte 0 of the data, where byte 2 is next");
  CHECK(two("[0,2]", "[1,3]") == "damaged: tensor \"b\" begins at byte 1 of the data, where byte 2 is next");
  CHECK(two("[1,3]", "[0,2]") == "damaged: tensor \"a\" begins at byte 1 of the data, where byte 2 is next");
  CHECK(two("[1,3]", "[2,4]") == "damaged: tensor \"a\" begins at byte 1 of the data, where byte 0 is next");
  CHECK(two("[0,2]", "[3,5]") == "truncated: tensor \"b\" ends after the file's last byte");
  CHECK(two("[0,2]", "[4,2]") == "tensor \"b\" has an impossible data_offsets");
  CHECK(two("[0,2]", "[2]") == "tensor \"b\" has an impossible data_offsets");
  CHECK(two("[0,2]", "[-2,0]") == "tensor \"b\" has an impossible data_offsets");
  CHECK(two("[0,2]", "[2,4.0]") == "tensor \"b\" has an impossible data_offsets");
  CHECK(two("[false,2]", "[2,4]") == "tensor \"a\" has an impossible data_offsets");
  CHECK(two("[0,2]", "[2,18446744073709551615]") == "tensor \"b\" has an impossible data_offsets");
  CHECK(two("[0,2]", "[2,3]") == "tensor \"b\" of shape (2) does not fill its 1 bytes");
  CHECK(two("{}", "[2,4]") == "tensor \"a\" has an impossible data_offsets");
  // Two that overlap and a gap of the same size: the sum is right and the file is not.
  CHECK(fault_of(folder, file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                 R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                                 "1234")) ==
        "damaged: tensor \"b\" begins at byte 1 of the data, where byte 2 is next");
  CHECK(fault_of(folder, file_of("{}", "1")) == "damaged: 1 bytes of data, but the tensors fill 0");
}

TEST_CASE("safetensors: entries that are none") {
  const TempFolder folder;
  const auto entry = [&](const std::string& text) {
    return fault_of(folder, file_of(R"({"a":)" + text + "}", "1234"));
  };
  const std::string damaged = "the safetensors header is damaged: ";
  CHECK(entry("5") == "the header's \"a\" is not an object");
  CHECK(entry("[1]") == "the header's \"a\" is not an object");
  CHECK(entry("{}").starts_with(damaged));
  CHECK(entry(R"({"dtype":5,"shape":[1],"data_offsets":[0,4]})").starts_with(damaged));
  CHECK(entry(R"({"dtype":"F16","shape":[2],"data_offsets":[0,4]})") ==
        "tensor \"a\" has element type F16; F32, F64, BF16, I64 and U8 can be read");
  CHECK(entry(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})") == "tensor \"a\" has an impossible shape");
  CHECK(entry(R"({"dtype":"F32","shape":"1","data_offsets":[0,4]})") == "tensor \"a\" has an impossible shape");
  CHECK(entry(R"({"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})") == "tensor \"a\" has an impossible shape");
  CHECK(entry(R"({"dtype":"F32","shape":[true],"data_offsets":[0,4]})") == "tensor \"a\" has an impossible shape");
  CHECK(entry(R"({"dtype":"F32","shape":[1,1,1,1,1,1],"data_offsets":[0,4]})") ==
        "tensor \"a\" has 6 dimensions; at most 5 can be read");
  CHECK(has(entry(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]})"), "is too large"));
  CHECK(fault_of(folder, file_of(R"({"__metadata__":{"a":1}})", "")).starts_with(damaged));
  CHECK(fault_of(folder, file_of(R"({"__metadata__":"a"})", "")) == "the header's \"__metadata__\" is not an object");
  CHECK(fault_of(folder, file_of(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                 R"("__metadata__":{"crc32":"no hex"}})",
                                 "1234")) == "damaged: its checksum does not match");
}

TEST_CASE("safetensors: what cannot be written") {
  const TempFolder folder;
  TensorFile file;
  file.tensors["__metadata__"] = Tensor::from(std::vector<float>{1}, {1});
  CHECK(thrown([&] { write_safetensors(folder.path("a"), file); }) ==
        "Error: " + folder.path("a") + ": a tensor cannot be named \"__metadata__\"");
  file.tensors = {{"a", Tensor::empty({2}, DType::f32, Device::meta)}};
  CHECK(thrown([&] { write_safetensors(folder.path("a"), file); }) ==
        "Error: a tensor on meta has a shape but no data");
  CHECK(thrown([&] { write_safetensors(folder.path("none/a"), sample()); }) ==
        "UserError: " + folder.path("none/a.part") + ": cannot be opened: No such file or directory");
  CHECK(thrown([&] { read_safetensors(folder.path("a")); }) == "UserError: " + folder.path("a") + ": no such file");
}
