#include "data/preview.h"

#define STB_EASY_FONT_IMPLEMENTATION
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb_easy_font.h>
#pragma GCC diagnostic pop

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "data/corrupt.h"
#include "data/palette.h"
#include "data/resample.h"

namespace mgic {
namespace {

constexpr int64_t small = 96, large = 256, line = 12, gap = 6;  // sides of a tile, a caption, the space between tiles
constexpr Color paper{24, 24, 28}, ink{230, 230, 230};

Picture blank(int64_t height, int64_t width, Color color = paper) {
  Picture p{height, width, {}};
  p.rgb.reserve(static_cast<size_t>(height * width * 3));
  for (int64_t i = 0; i < height * width; ++i) p.rgb.insert(p.rgb.end(), color.begin(), color.end());
  return p;
}

void dot(Picture& p, int64_t y, int64_t x, Color color) {
  if (y >= 0 && y < p.height && x >= 0 && x < p.width)
    std::copy(color.begin(), color.end(), p.rgb.begin() + (y * p.width + x) * 3);
}

void paste(Picture& onto, const Picture& p, int64_t top, int64_t left) {
  for (int64_t y = 0; y < p.height; ++y)
    std::copy_n(p.rgb.begin() + y * p.width * 3, p.width * 3, onto.rgb.begin() + ((top + y) * onto.width + left) * 3);
}

// Letters are rectangles, as stb_easy_font gives them; what does not fit into `width` is cut off.
void write(Picture& p, int64_t top, int64_t left, int64_t width, std::string text) {
  struct Vertex {
    float x, y, z;
    uint8_t color[4];
  };
  std::vector<Vertex> vertices(text.size() * 80 + 80);
  const int quads = stb_easy_font_print(0, 0, text.data(), nullptr, vertices.data(),
                                        static_cast<int>(vertices.size() * sizeof(Vertex)));
  for (int q = 0; q < quads; ++q) {
    const Vertex &a = vertices[4 * q], &b = vertices[4 * q + 2];
    for (auto y = static_cast<int64_t>(a.y); y < static_cast<int64_t>(b.y); ++y)
      for (auto x = static_cast<int64_t>(a.x); x < std::min(static_cast<int64_t>(b.x), width); ++x)
        dot(p, top + y + 1, left + x, ink);
  }
}

// Small pictures are enlarged by whole factors, so that their pixels can be seen; large ones are reduced.
Picture to_tile(const Picture& p, bool classes) {
  const int64_t longer = std::max(p.height, p.width);
  if (longer <= large) {
    const int64_t factor = std::max<int64_t>(1, (small + longer - 1) / longer);
    Picture out = blank(p.height * factor, p.width * factor);
    for (int64_t y = 0; y < out.height; ++y)
      for (int64_t x = 0; x < out.width; ++x)
        std::copy_n(p.rgb.begin() + ((y / factor) * p.width + x / factor) * 3, 3,
                    out.rgb.begin() + (y * out.width + x) * 3);
    return out;
  }
  const int64_t height = std::max<int64_t>(1, p.height * large / longer);
  const int64_t width = std::max<int64_t>(1, p.width * large / longer);
  Picture out{height, width, {}};
  if (!classes) {
    out.rgb = resample(p.rgb, p.height, p.width, 3, {0, 0, static_cast<double>(p.height), static_cast<double>(p.width)},
                       height, width);
    return out;
  }
  for (int64_t y = 0; y < height; ++y)  // colours of classes are not mixed
    for (int64_t x = 0; x < width; ++x) {
      const int64_t from = (y * p.height / height) * p.width + x * p.width / width;
      out.rgb.insert(out.rgb.end(), p.rgb.begin() + from * 3, p.rgb.begin() + (from + 1) * 3);
    }
  return out;
}

Picture image_picture(const float* pixels, const SampleShape& s, const Normalization& n, bool bytes) {
  Picture p{s.height, s.width, {}};
  // Images that are no bytes have no black and white of their own: from three deviations below to three above.
  for (int64_t i = 0; i < s.height * s.width; ++i)
    for (int64_t c = 0; c < 3; ++c) {
      const int64_t channel = s.channels >= 3 ? c : 0;
      const double x = pixels[i * s.channels + channel];
      const double value = bytes ? x * n.deviation[channel] + n.mean[channel] : x / 6 + 0.5;
      p.rgb.push_back(static_cast<uint8_t>(std::clamp(255 * value + 0.5, 0.0, 255.0)));
    }
  return p;
}

Picture mask_picture(const int64_t* mask, int64_t height, int64_t width) {
  Picture p{height, width, {}};
  for (int64_t i = 0; i < height * width; ++i) {
    const Color color = class_color(mask[i]);
    p.rgb.insert(p.rgb.end(), color.begin(), color.end());
  }
  return p;
}

// Seen from 30° above and 40° beside, from -1.2 to 1.2 in both directions; near points are painted last.
Picture cloud_picture(const float* points, const SampleShape& s, const Normalization& n) {
  constexpr int64_t side = 160;
  constexpr double turn = 0.7, tilt = 0.52, extent = 1.2;
  struct Seen {
    double depth, x, y;
  };
  std::vector<Seen> seen;
  for (int64_t i = 0; i < s.height; ++i) {
    double p[3] = {};
    for (int64_t k = 0; k < std::min<int64_t>(3, s.channels); ++k)
      p[k] = points[i * s.channels + k] * n.deviation[k] + n.mean[k];
    const double x = std::cos(turn) * p[0] - std::sin(turn) * p[1],
                 away = std::sin(turn) * p[0] + std::cos(turn) * p[1];
    seen.push_back({std::cos(tilt) * away - std::sin(tilt) * p[2], x, std::sin(tilt) * away + std::cos(tilt) * p[2]});
  }
  std::sort(seen.begin(), seen.end(), [](const Seen& a, const Seen& b) { return a.depth > b.depth; });
  Picture picture = blank(side, side, {10, 10, 14});
  for (const Seen& p : seen) {
    const auto x = static_cast<int64_t>((p.x / extent + 1) / 2 * side),
               y = static_cast<int64_t>((1 - p.y / extent) / 2 * side);
    const double near = std::clamp(0.5 - p.depth / 2, 0.0, 1.0);
    const Color color{static_cast<uint8_t>(60 + 195 * near), static_cast<uint8_t>(90 + 120 * near),
                      static_cast<uint8_t>(160 - 80 * near)};
    for (int64_t dy = 0; dy < 2; ++dy)
      for (int64_t dx = 0; dx < 2; ++dx) dot(picture, y + dy, x + dx, color);
  }
  return picture;
}

}  // namespace

Picture contact_sheet(DataLoader& loader, const Normalization& normalization, int64_t samples) {
  const Dataset& data = loader.dataset();
  const SampleShape s = data.shape();
  const std::vector<std::string> names = data.class_names();
  Sample raw;
  bool bytes = true;  // what the images are made of, asked of the first that can be read
  for (int64_t i = 0; i < data.size() && !s.points; ++i) {
    try {
      data.get(i, raw);
      bytes = std::holds_alternative<std::vector<uint8_t>>(raw.pixels);
      break;
    } catch (const CorruptSample&) {
    }
  }

  std::vector<Picture> tiles;
  std::vector<std::string> captions;
  Batch batch;
  while (static_cast<int64_t>(tiles.size()) < samples && loader.next(batch)) {
    const int64_t n = batch.images.shape()[0];
    for (int64_t i = 0; i < n && static_cast<int64_t>(tiles.size()) < samples; ++i) {
      const float* pixels = batch.images.data<float>() + i * s.count();
      const int64_t* labels = batch.labels.data<int64_t>();
      Picture tile = s.points ? cloud_picture(pixels, s, normalization)
                              : to_tile(image_picture(pixels, s, normalization, bytes), false);
      std::string caption;
      if (data.segmentation()) {
        const Picture classes = to_tile(mask_picture(labels + i * s.height * s.width, s.height, s.width), true);
        Picture both = blank(tile.height, 2 * tile.width);
        paste(both, tile, 0, 0);
        paste(both, classes, 0, tile.width);
        tile = std::move(both);
      } else {
        caption = names[static_cast<size_t>(labels[i])];
        if (batch.mixed_labels.defined())
          caption = fmt::format("{:.2f} {}+{}", batch.mix, caption,
                                names[static_cast<size_t>(batch.mixed_labels.data<int64_t>()[i])]);
      }
      tiles.push_back(std::move(tile));
      captions.push_back(std::move(caption));
    }
  }
  if (tiles.empty()) fail_user("there is no sample to show");

  const auto count = static_cast<int64_t>(tiles.size());
  const int64_t above = data.segmentation() ? 0 : line;
  const int64_t cell_height = tiles[0].height + above + gap, cell_width = tiles[0].width + gap;
  const auto columns = std::clamp<int64_t>(
      std::llround(std::sqrt(1.5 * static_cast<double>(count * cell_height) / static_cast<double>(cell_width))), 1,
      count);
  const int64_t rows = (count + columns - 1) / columns, width = std::max<int64_t>(columns * cell_width + gap, 120);
  // The classes' colours below the masks.
  constexpr int64_t entry = 110;
  const int64_t per_line = std::max<int64_t>(1, (width - gap) / entry);
  const auto entries = data.segmentation() ? static_cast<int64_t>(names.size()) : 0;
  const int64_t top_of_legend = rows * cell_height + gap;
  Picture sheet = blank(top_of_legend + (entries + per_line - 1) / per_line * (line + 2), width);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t top = i / columns * cell_height + gap, left = i % columns * cell_width + gap;
    write(sheet, top, left, tiles[i].width, captions[i]);
    paste(sheet, tiles[i], top + above, left);
  }
  for (int64_t i = 0; i < entries; ++i) {
    const int64_t top = top_of_legend + i / per_line * (line + 2), left = i % per_line * entry + gap;
    paste(sheet, blank(line - 4, line - 4, class_color(i)), top, left);
    write(sheet, top - 1, left + line, entry - line - gap, names[i]);
  }
  return sheet;
}

}  // namespace mgic
