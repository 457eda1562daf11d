// Registry: named choices, read alone, in lists, and beside the keys of the object that names them.
#include <doctest/doctest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "core/registry.h"
#include "tests/core/thrown.h"

using namespace mgic;
using test::thrown;

namespace {

// What is built, and from what.
struct Shape2d {
  std::string text;
};
struct Context {
  int64_t scale = 1;
};

struct Circle {
  int64_t radius = 1;
  void fields(Fields& f) { f("radius", radius, "the radius", at_least(1)); }
};
struct Box {
  int64_t width = 2, height = 3;
  void fields(Fields& f) {
    f("width", width, "the width", at_least(1));
    f("height", height, "the height", at_least(1));
  }
};

std::unique_ptr<Shape2d> make_circle(const Circle& o, const Context& c) {
  return std::make_unique<Shape2d>(Shape2d{fmt::format("circle {}", o.radius * c.scale)});
}
std::unique_ptr<Shape2d> make_box(const Box& o, const Context& c) {
  return std::make_unique<Shape2d>(Shape2d{fmt::format("box {}x{}", o.width * c.scale, o.height * c.scale)});
}

using Shapes = Registry<Shape2d, Context>;

const Shapes& shapes() {
  static const Shapes registry = [] {
    Shapes r("shape");
    r.add<Circle>("circle", "round", make_circle);
    r.add<Box>("box", "not round", make_box);
    return r;
  }();
  return registry;
}

struct Holder {
  Shapes::SpecType shape;
  int64_t count = 1;
  void fields(Fields& f) {
    f.spec("shape", shape, shapes(), "the shape", any().need());
    f("count", count, "how many", at_least(1));
  }
};
struct Optional {
  Shapes::SpecType shape;
  void fields(Fields& f) { f.spec("shape", shape, shapes(), "the shape"); }
};
struct List {
  std::vector<Shapes::SpecType> shapes_;
  void fields(Fields& f) { f.specs("shapes", shapes_, shapes(), "the shapes"); }
};
struct Beside {
  int64_t count = 1;
  Shapes::SpecType shape{"circle", {}, {}};
  void fields(Fields& f) {
    f("count", count, "how many", at_least(1));
    f.spec_beside("shape", shape, shapes(), "the shape");
  }
};
// Its own width, so that a box cannot be lifted.
struct Wide {
  int64_t width = 9;
  Shapes::SpecType shape{"circle", {}, {}};
  void fields(Fields& f) {
    f("width", width, "its own width");
    f.spec_beside("shape", shape, shapes(), "the shape");
  }
};

template <class T>
std::string read(const std::string& text, T& options) {
  const Json node = parse_json(text);
  Faults faults;
  Fields f(node, "", faults);
  options.fields(f);
  f.finish();
  try {
    faults.raise("f");
  } catch (const UserError& e) {
    return e.what();
  }
  return f.resolved().dump();
}
template <class T>
std::string read(const std::string& text) {
  T options;
  return read(text, options);
}

std::string built(const Shapes::SpecType& spec, int64_t scale = 1) { return spec.make(Context{scale})->text; }

}  // namespace

TEST_CASE("registry: names, documentation and schema") {
  CHECK(shapes().kind() == "shape");
  CHECK(shapes().names() == std::vector<std::string>{"circle", "box"});
  CHECK(shapes().has("box"));
  CHECK_FALSE(shapes().has("bx"));
  CHECK(shapes().doc("box") == "not round");
  CHECK(shapes().schema("box").size() == 2);
  CHECK(shapes().schema("box")[1].default_value == "3");
  CHECK(thrown([] { shapes().doc("bx"); }) == "UserError: there is no shape \"bx\", did you mean \"box\"?");
  CHECK(thrown([] { shapes().schema("pyramid"); }) ==
        "UserError: there is no shape \"pyramid\"; valid are circle, box");
}

TEST_CASE("registry: a name is registered once") {
  Shapes r("shape");
  r.add<Circle>("circle", "round", make_circle);
  CHECK(thrown([&] { r.add<Circle>("circle", "round", make_circle); }) ==
        "Error: shape \"circle\" is registered already");
}

TEST_CASE("registry: parse gives a spec that builds with its context") {
  const auto spec = shapes().parse(R"({"type": "box", "width": 5})");
  CHECK(spec.type == "box");
  CHECK(spec.options->dump() == R"({"type":"box","width":5,"height":3})");
  CHECK(built(spec) == "box 5x3");
  CHECK(built(spec, 10) == "box 50x30");  // one spec builds many
  CHECK(option_or(spec.options, "width", -1) == 5);
  CHECK(option_or(spec.options, "radius", -1) == -1);
  CHECK(option_or(spec.options, "type", -1) == -1);
  CHECK(option_or(nullptr, "width", -1) == -1);
  CHECK(option_text(spec.options, "type") == "box");
  CHECK(option_text(spec.options, "width") == "");
  CHECK(option_text(nullptr, "type") == "");
}

TEST_CASE("registry: parse reports all faults, and what is no JSON") {
  CHECK(thrown([] { shapes().parse(R"({"type": "box", "width": 0, "hieght": 1})"); }) ==
        "UserError: shape: width: must be at least 1, not 0\n"
        "shape: hieght: unknown key, did you mean \"height\"?");
  CHECK(thrown([] { shapes().parse("{"); }).starts_with("UserError: this is not JSON: "));
  CHECK(thrown([] { shapes().parse("[]"); }) == "UserError: shape: expects an object, not a list");
}

TEST_CASE("registry: a choice that is missing or wrong hides no key behind it") {
  CHECK(thrown([] { shapes().parse(R"({"width": 0})"); }) == "UserError: shape: type: is missing; it is the shape");
  CHECK(thrown([] { shapes().parse(R"({"type": "bix", "width": 0})"); }) ==
        "UserError: shape: type: \"bix\" is not a choice; allowed are circle, box");
  CHECK(thrown([] { shapes().parse(R"({"type": 3})"); }) == "UserError: shape: type: expects a string, not 3");
}

TEST_CASE("registry: a spec in a struct") {
  Holder h;
  CHECK(read(R"({"shape":{"type":"circle","radius":4},"count":2})", h) ==
        R"({"shape":{"type":"circle","radius":4},"count":2})");
  CHECK(built(h.shape) == "circle 4");
  CHECK(read<Holder>(R"({"shape":{"type":"circle"}})") == R"({"shape":{"type":"circle","radius":1},"count":1})");
  CHECK(read<Holder>("{}") == "f: shape: is missing; it is the shape");
  CHECK(read<Holder>(R"({"shape":{}})") == "f: shape.type: is missing; it is the shape");
  CHECK(read<Holder>(R"({"shape":"circle"})") == "f: shape: expects an object, not \"circle\"");
  CHECK(read<Holder>(R"({"shape":{"type":"circle","radius":0,"width":1},"count":0})") ==
        "f: shape.radius: must be at least 1, not 0\n"
        "f: shape.width: unknown key; valid are type, radius\n"
        "f: count: must be at least 1, not 0");
}

TEST_CASE("registry: an optional spec that is absent stays empty") {
  Optional o;
  CHECK(read("{}", o) == "{}");
  CHECK(o.shape.type.empty());
  CHECK_FALSE(o.shape.make);
}

TEST_CASE("registry: a list of specs") {
  List l;
  CHECK(read(R"({"shapes":[{"type":"box"},{"type":"circle","radius":2}]})", l) ==
        R"({"shapes":[{"type":"box","width":2,"height":3},{"type":"circle","radius":2}]})");
  REQUIRE(l.shapes_.size() == 2);
  CHECK(built(l.shapes_[0]) == "box 2x3");
  CHECK(built(l.shapes_[1]) == "circle 2");
  CHECK(read<List>("{}") == R"({"shapes":[]})");
  CHECK(read<List>(R"({"shapes":{}})") == "f: shapes: expects a list, not an object");
  CHECK(read<List>(R"({"shapes":[{"type":"box","widht":1},{"type":"sphere"},4,{"radius":1}]})") ==
        "f: shapes[0].widht: unknown key, did you mean \"width\"?\n"
        "f: shapes[1].type: \"sphere\" is not a choice; allowed are circle, box\n"
        "f: shapes[2]: expects an object, not 4\n"
        "f: shapes[3].type: is missing; it is the shape");
}

TEST_CASE("registry: a choice by name, its options beside it") {
  Beside b;
  CHECK(read(R"({"shape":"box","width":7})", b) == R"({"count":1,"shape":"box","width":7,"height":3})");
  CHECK(b.shape.type == "box");
  CHECK(built(b.shape) == "box 7x3");
  // Absent: the default choice, with its options beside it.
  Beside c;
  CHECK(read(R"({"radius":3,"count":2})", c) == R"({"count":2,"shape":"circle","radius":3})");
  CHECK(built(c.shape) == "circle 3");
  CHECK(read<Beside>(R"({"shape":"box","radius":1})") ==
        "f: radius: unknown key; valid are count, shape, width, height");
  CHECK(read<Beside>(R"({"shape":"box","width":0,"count":0})") ==
        "f: count: must be at least 1, not 0\nf: width: must be at least 1, not 0");
  CHECK(read<Beside>(R"({"shape":"bix"})") == "f: shape: \"bix\" is not a choice; allowed are circle, box");
}

TEST_CASE("registry: a choice as an object is resolved to the same form") {
  Beside b;
  const std::string lifted = R"({"count":1,"shape":"box","width":7,"height":3})";
  CHECK(read(R"({"shape":{"type":"box","width":7}})", b) == lifted);
  CHECK(b.shape.type == "box");
  CHECK(built(b.shape) == "box 7x3");
  CHECK(read<Beside>(lifted) == lifted);
  CHECK(read<Beside>(R"({"shape":{"type":"box","width":0}})") == "f: shape.width: must be at least 1, not 0");
  CHECK(read<Beside>(R"({"shape":{"width":0}})") == "f: shape.type: is missing; it is the shape");
  CHECK(read<Beside>(R"({"shape":5})") == "f: shape: expects an object, not 5");
  // Options beside an object belong to nobody.
  CHECK(read<Beside>(R"({"shape":{"type":"box"},"width":1})") == "f: width: unknown key; valid are count, shape");
}

TEST_CASE("registry: an object stays one where its keys are taken beside it") {
  Wide w;
  const std::string resolved = R"({"width":9,"shape":{"type":"box","width":7,"height":3}})";
  CHECK(read(R"({"shape":{"type":"box","width":7}})", w) == resolved);
  CHECK(w.width == 9);
  CHECK(built(w.shape) == "box 7x3");
  CHECK(read<Wide>(resolved) == resolved);
  // One whose keys are free is lifted.
  CHECK(read<Wide>(R"({"shape":{"type":"circle","radius":2}})") == R"({"width":9,"shape":"circle","radius":2})");
}

TEST_CASE("registry: describing lists the choices") {
  const Schema schema = schema_of<Beside>();
  REQUIRE(schema.size() == 2);
  CHECK(schema[1].key == "shape");
  CHECK(schema[1].default_value == "\"circle\"");
  CHECK(schema[1].range == "circle | box");
  const Schema held = schema_of<Holder>();
  CHECK(held[0].type == "object");
  CHECK(held[0].default_value == "required");
  CHECK(held[0].range == "circle | box");
  CHECK(schema_of<List>()[0].type == "list of objects");
}

TEST_CASE("registry: parse_json") {
  CHECK(parse_json("[1, 2]").size() == 2);
  CHECK(thrown([] { parse_json(""); }).starts_with("UserError: this is not JSON: "));
  CHECK(thrown([] { parse_json("{} {}"); }).starts_with("UserError: this is not JSON: "));
}
