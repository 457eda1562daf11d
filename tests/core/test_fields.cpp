// Typed JSON reading: every kind of fault with its path and words, resolved values, and the schema.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "core/fields.h"
#include "core/registry.h"
#include "tests/core/thrown.h"

using namespace mgic;
using test::thrown;

namespace {

struct Inner {
  int64_t size = 3;
  bool flag = false;
  void fields(Fields& f) {
    f("size", size, "a size", at_least(1));
    f("flag", flag, "a flag");
  }
};

struct Needy {
  std::string name;
  void fields(Fields& f) { f("name", name, "the name", any().need()); }
};

struct Options {
  bool on = true;
  int64_t count = 4;
  double rate = 0.5;
  std::string mode = "slow";
  std::vector<int64_t> sizes = {1, 2};
  std::optional<bool> maybe;
  std::optional<int64_t> limit;
  Inner inner;
  std::vector<Inner> parts;
  void fields(Fields& f) {
    f("on", on, "a switch");
    f("count", count, "how many", between(1, 1000));
    f("rate", rate, "how fast", above(0));
    f("mode", mode, "how", one_of({"slow", "fast"}));
    f("sizes", sizes, "how large", at_least(1));
    f("maybe", maybe, "perhaps");
    f("limit", limit, "at most so many", at_least(0));
    f("inner", inner, "what is inside");
    f("parts", parts, "what it is made of");
    f.check(count <= 100 || rate < 10, "count", "more than 100 need a rate below 10, not {}", rate);
  }
};

template <class T>
std::string resolved_of(const std::string& text, T& options) {
  const Json node = parse_json(text);
  Faults faults;
  Fields f(node, "", faults);
  options.fields(f);
  f.finish();
  faults.raise("f.json");
  return f.resolved().dump();
}

// All faults of reading this text, or the resolved values where there is none.
template <class T = Options>
std::string read(const std::string& text) {
  T options;
  try {
    return resolved_of(text, options);
  } catch (const UserError& e) {
    return e.what();
  }
}

const std::string all_defaults =
    R"({"on":true,"count":4,"rate":0.5,"mode":"slow","sizes":[1,2],"inner":{"size":3,"flag":false},"parts":[]})";

}  // namespace

TEST_CASE("fields: defaults are filled in, in the order of the fields, and absent options stay absent") {
  CHECK(read("{}") == all_defaults);
}

TEST_CASE("fields: every type is read") {
  Options o;
  const std::string text = R"({"on":false,"count":7,"rate":2,"mode":"fast","sizes":[5],"maybe":true,"limit":9,)"
                           R"("inner":{"size":8,"flag":true},"parts":[{"size":1},{"flag":true}]})";
  CHECK(resolved_of(text, o) ==
        R"({"on":false,"count":7,"rate":2.0,"mode":"fast","sizes":[5],"maybe":true,"limit":9,)"
        R"("inner":{"size":8,"flag":true},"parts":[{"size":1,"flag":false},{"size":3,"flag":true}]})");
  CHECK_FALSE(o.on);
  CHECK(o.count == 7);
  CHECK(o.rate == 2);
  CHECK(o.mode == "fast");
  CHECK(o.sizes == std::vector<int64_t>{5});
  CHECK(o.maybe == true);
  CHECK(o.limit == 9);
  CHECK(o.inner.size == 8);
  CHECK(o.parts.size() == 2);
  CHECK(o.parts[1].flag);
}

TEST_CASE("fields: resolved values read again give the same") {
  const std::string once = read(R"({"limit":1,"parts":[{"size":2}],"sizes":[]})");
  CHECK(read(once) == once);
}

TEST_CASE("fields: a number without a fraction is an integer") {
  CHECK(read(R"({"count":7.0})").find(R"("count":7,)") != std::string::npos);
  CHECK(read(R"({"count":1e2})").find(R"("count":100,)") != std::string::npos);
}

TEST_CASE("fields: wrong types") {
  CHECK(read(R"({"on":1})") == "f.json: on: expects true or false, not 1");
  CHECK(read(R"({"on":"yes"})") == "f.json: on: expects true or false, not \"yes\"");
  CHECK(read(R"({"on":null})") == "f.json: on: expects true or false, not null");
  CHECK(read(R"({"count":"4"})") == "f.json: count: expects an integer, not \"4\"");
  CHECK(read(R"({"count":true})") == "f.json: count: expects an integer, not true");
  CHECK(read(R"({"count":4.5})") == "f.json: count: expects an integer, not 4.5");
  CHECK(read(R"({"count":1e300})") == "f.json: count: expects an integer, not 1e+300");
  CHECK(read(R"({"count":18446744073709551615})") == "f.json: count: expects an integer, not 18446744073709551615");
  CHECK(read(R"({"count":[]})") == "f.json: count: expects an integer, not a list");
  CHECK(read(R"({"rate":{}})") == "f.json: rate: expects a number, not an object");
  CHECK(read(R"({"rate":false})") == "f.json: rate: expects a number, not false");
  CHECK(read(R"({"mode":3})") == "f.json: mode: expects a string, not 3");
  CHECK(read(R"({"maybe":0})") == "f.json: maybe: expects true or false, not 0");
  CHECK(read(R"({"limit":null})") == "f.json: limit: expects an integer, not null");
  CHECK(read(R"({"sizes":3})") == "f.json: sizes: expects a list of integers, not 3");
  CHECK(read(R"({"sizes":[1,"2"]})") == "f.json: sizes[1]: expects an integer, not \"2\"");
  CHECK(read(R"({"inner":3})") == "f.json: inner: expects an object, not 3");
  CHECK(read(R"({"inner":null})") == "f.json: inner: expects an object, not null");
  CHECK(read(R"({"parts":{}})") == "f.json: parts: expects a list, not an object");
  CHECK(read(R"({"parts":[{},7]})") == "f.json: parts[1]: expects an object, not 7");
}

TEST_CASE("fields: values outside of their range") {
  CHECK(read(R"({"count":0})") == "f.json: count: must be at least 1 and at most 1000, not 0");
  CHECK(read(R"({"count":1001})") == "f.json: count: must be at least 1 and at most 1000, not 1001");
  CHECK(read(R"({"count":1})").starts_with("{"));
  CHECK(read(R"({"count":1000,"rate":1})").starts_with("{"));
  CHECK(read(R"({"rate":0})") == "f.json: rate: must be above 0, not 0");
  CHECK(read(R"({"rate":-0.25})") == "f.json: rate: must be above 0, not -0.25");
  CHECK(read(R"({"limit":-1})") == "f.json: limit: must be at least 0, not -1");
  CHECK(read(R"({"sizes":[1,0,-3]})") ==
        "f.json: sizes[1]: must be at least 1, not 0\nf.json: sizes[2]: must be at least 1, not -3");
  CHECK(read(R"({"inner":{"size":0}})") == "f.json: inner.size: must be at least 1, not 0");
  CHECK(read(R"({"parts":[{},{"size":-5}]})") == "f.json: parts[1].size: must be at least 1, not -5");
  CHECK(read(R"({"mode":"fsat"})") == "f.json: mode: \"fsat\" is not a choice; allowed are slow, fast");
}

TEST_CASE("fields: a faulty value leaves the default") {
  Options o;
  Faults faults;
  const Json node = parse_json(R"({"count":-1,"limit":-1,"mode":"x"})");
  read_options(node, "", faults, o);
  CHECK(faults.size() == 3);
  CHECK(o.count == 4);
  CHECK_FALSE(o.limit.has_value());
  CHECK(o.mode == "slow");
}

TEST_CASE("fields: rules over several keys") {
  CHECK(read(R"({"count":101,"rate":10})") == "f.json: count: more than 100 need a rate below 10, not 10");
  CHECK(read(R"({"count":101,"rate":9})").starts_with("{"));
}

TEST_CASE("fields: unknown keys and the nearest one that there is") {
  CHECK(read(R"({"cuont":1})") == "f.json: cuont: unknown key, did you mean \"count\"?");
  CHECK(read(R"({"inner":{"sise":1}})") == "f.json: inner.sise: unknown key, did you mean \"size\"?");
  CHECK(read(R"({"parts":[{},{},{"flg":1}]})") == "f.json: parts[2].flg: unknown key, did you mean \"flag\"?");
  CHECK(
      read(R"({"completely_different":1})") ==
      "f.json: completely_different: unknown key; valid are on, count, rate, mode, sizes, maybe, limit, inner, parts");
}

TEST_CASE("fields: suggestion") {
  CHECK(suggestion("group_sze", {"smoother", "group_size"}) == ", did you mean \"group_size\"?");
  CHECK(suggestion("aaaaaaaaa", {"b", "c"}) == "; valid are b, c");
  // Two letters of a short word, a third of a long one.
  CHECK(suggestion("abc", {"xbz"}) == ", did you mean \"xbz\"?");
  CHECK(suggestion("abcdef", {"xyzdef"}) == "; valid are xyzdef");
  CHECK(suggestion("abcdefghi", {"xyzdefghi"}) == ", did you mean \"xyzdefghi\"?");
  CHECK(suggestion("x", {}) == "");
}

TEST_CASE("fields: several faults come at once, each with its path") {
  CHECK(read(R"({"on":3,"count":0,"sizes":["a"],"inner":{"size":0,"flg":true},"parts":[{"size":0},5],"raet":1})") ==
        "f.json: on: expects true or false, not 3\n"
        "f.json: count: must be at least 1 and at most 1000, not 0\n"
        "f.json: sizes[0]: expects an integer, not \"a\"\n"
        "f.json: inner.size: must be at least 1, not 0\n"
        "f.json: inner.flg: unknown key, did you mean \"flag\"?\n"
        "f.json: parts[0].size: must be at least 1, not 0\n"
        "f.json: parts[1]: expects an object, not 5\n"
        "f.json: raet: unknown key, did you mean \"rate\"?");
}

TEST_CASE("fields: what is no object is one fault, and nothing in it is missing") {
  CHECK(read("[]") == "f.json: expects an object, not a list");
  CHECK(read("7") == "f.json: expects an object, not 7");
  CHECK(read<Needy>("null") == "f.json: expects an object, not null");
  CHECK(read<Needy>("\"x\"") == "f.json: expects an object, not \"x\"");
}

TEST_CASE("fields: a required key") {
  CHECK(read<Needy>("{}") == "f.json: name: is missing; it is the name");
  CHECK(read<Needy>(R"({"name":"a"})") == R"({"name":"a"})");
  struct Outer {
    Needy needy;
    std::vector<Needy> list;
    void fields(Fields& f) {
      f("needy", needy, "a struct", any().need());
      f("list", list, "a list", any().need());
    }
  };
  CHECK(read<Outer>("{}") == "f.json: needy: is missing; it is a struct\nf.json: list: is missing; it is a list");
  CHECK(read<Outer>(R"({"needy":{},"list":[{}]})") ==
        "f.json: needy.name: is missing; it is the name\nf.json: list[0].name: is missing; it is the name");
}

TEST_CASE("fields: faults know the file, and none is no error") {
  Faults faults;
  CHECK(thrown([&] { faults.raise("f.json"); }) == "nothing");
  faults.add("a.b", "is wrong");
  faults.add("", "is wholly wrong");
  CHECK(thrown([&] { faults.raise("f.json"); }) == "UserError: f.json: a.b: is wrong\nf.json: is wholly wrong");
}

TEST_CASE("fields: has, path_of, accept and accept_all") {
  const Json node = parse_json(R"({"a":1,"b":{"c":2},"d":3})");
  Faults faults;
  Fields f(node, "root", faults);
  CHECK(f.has("a"));
  CHECK_FALSE(f.has("x"));
  CHECK(f.path_of("a") == "root.a");
  CHECK(f.path_of("") == "root");
  CHECK(Fields(node, "", faults).path_of("a") == "a");
  f.accept("b");
  f.accept("missing");
  f.finish();
  CHECK(f.resolved().dump() == R"({"b":{"c":2}})");
  CHECK(faults.size() == 2);
  Faults none;
  Fields g(node, "", none);
  g.accept_all();
  g.finish();
  CHECK(none.empty());
  CHECK(g.resolved() == node);
}

TEST_CASE("fields: the schema is the same list of fields") {
  const Schema schema = schema_of<Options>();
  REQUIRE(schema.size() == 9);
  const auto row = [&](size_t i) {
    const SchemaEntry& e = schema[i];
    return e.key + " | " + e.type + " | " + e.default_value + " | " + e.range + " | " + e.doc;
  };
  CHECK(row(0) == "on | boolean | true |  | a switch");
  CHECK(row(1) == "count | integer | 4 | at least 1 and at most 1000 | how many");
  CHECK(row(2) == "rate | number | 0.5 | above 0 | how fast");
  CHECK(row(3) == "mode | string | \"slow\" | slow | fast | how");
  CHECK(row(4) == "sizes | list of integers | [1,2] | at least 1 | how large");
  CHECK(row(5) == "maybe | boolean | null |  | perhaps");
  CHECK(row(6) == "limit | integer | null | at least 0 | at most so many");
  CHECK(row(7) == "inner | object |  |  | what is inside");
  CHECK(row(8) == "parts | list of objects | [] |  | what it is made of");
  CHECK(schema_of<Needy>()[0].default_value == "required");
}

TEST_CASE("fields: ranges in words") {
  CHECK(any().range() == "");
  CHECK(at_least(1).range() == "at least 1");
  CHECK(above(0.5).range() == "above 0.5");
  CHECK(between(0, 1).range() == "at least 0 and at most 1");
  CHECK(Rule{.max = 3, .choices = {}}.range() == "at most 3");
  CHECK(at_least(1).need().required);
  CHECK_FALSE(at_least(1).required);
}
