// safetensors files: an 8-byte little-endian header length, a JSON header, and the raw bytes of named tensors.
// https://github.com/huggingface/safetensors
//
// Files carry other frameworks' layouts: a 4-D tensor is channels-first there (NCHW, OIHW) and channels-last in memory;
// the conversion happens here and nowhere else. All other ranks are as in memory.
//
// Files of ours carry a checksum, so that damage is found: the metadata key "crc32" is zlib's crc32, as 8 hex digits,
// of this JSON text without spaces, and then of the data section:
//
//   [{METADATA without "crc32"}, ["NAME", "F32", [SHAPE], [BEGIN, END]], …]      names and keys sorted by their bytes
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "core/tensor.h"

namespace mgic {

struct TensorFile {
  std::map<std::string, Tensor> tensors;  // on the host (device cpu)
  std::map<std::string, std::string> metadata;
};

// Throws UserError naming the file and the fault: truncated, overlapping, unknown element type, … A checksum is
// verified where the file has one, and is not among the metadata returned.
TensorFile read_safetensors(const std::filesystem::path& path);

// With a checksum. Written beside the target and renamed. Tensors must be on the host.
void write_safetensors(const std::filesystem::path& path, const TensorFile& file);

// (N, C, H, W) → (N, H, W, C) and back, for any element type.
Tensor to_channels_last(const Tensor& nchw);
Tensor to_channels_first(const Tensor& nhwc);

}  // namespace mgic
