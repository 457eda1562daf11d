// Mesh: triangles in space, and points drawn evenly from their surface.
//
// Files are in the Object File Format of ModelNet: the line OFF (which some files of ModelNet have joined with the next
// one, as in "OFF490 518 0"), the numbers of vertices, faces and edges, then x y z a line, then n i_1 … i_n a line.
// Faces of more than three corners are split into a fan of triangles.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/rng.h"

namespace mgic {

struct Mesh {
  std::vector<std::array<double, 3>> vertices;
  std::vector<std::array<int64_t, 3>> triangles;
};

// Throws UserError naming the file, the place and the rule.
Mesh parse_off(const std::string& text, const std::string& name);
Mesh read_off(const std::filesystem::path& file);

double area(const Mesh& mesh);

// (count, 3): triangles by their area, places in them uniformly. Throws UserError where the mesh has no area.
std::vector<float> sample_surface(const Mesh& mesh, int64_t count, Rng& rng);

// Moves the points' mean to the origin and the farthest one to distance 1. A single place becomes all zeros.
void to_unit_sphere(std::vector<float>& points);

}  // namespace mgic
