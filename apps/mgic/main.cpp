// mgic: the command line. Exit codes: 0 success, 1 an internal failure, 2 the user's input is wrong, 130 interrupted.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <sstream>

#include "apps/mgic/commands.h"
#include "core/error.h"
#include "core/log.h"

namespace {

// One "error: " in front of each line of the message.
void print_error(const std::string& what) {
  std::istringstream lines(what);
  for (std::string line; std::getline(lines, line);) std::fprintf(stderr, "error: %s\n", line.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  using namespace mgic;
  CLI::App app("mgic: networks whose convolutions are a multigrid cycle over the channels");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("mgic " MGIC_VERSION));
  const std::vector<std::string> levels{"error", "warning", "info", "debug"};  // as LogLevel counts them
  std::string level = "info";
  app.add_option("--log-level", level, "what is said on stderr beside errors")
      ->check(CLI::IsMember(levels))
      ->capture_default_str();
  app.fallthrough();  // --log-level may also follow the subcommand
  cli::Run run;
  cli::add_train(app, run);
  cli::add_summary(app, run);
  cli::add_trace(app, run);
  cli::add_bench(app, run);
  cli::add_eval(app, run);
  cli::add_predict(app, run);
  cli::add_list(app, run);
  cli::add_describe(app, run);
  cli::add_data(app, run);
  try {
    app.parse(argc, argv);
    set_log_level(static_cast<LogLevel>(std::ranges::find(levels, level) - levels.begin()));
    return run();
  } catch (const CLI::Success& e) {  // --help and --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    print_error(std::string(e.what()) + "; see mgic --help");
    return cli::wrong_input;
  } catch (const UserError& e) {
    print_error(e.what());
    return cli::wrong_input;
  } catch (const std::bad_alloc&) {
    print_error("out of memory; use a smaller batch or a smaller network");
  } catch (const std::exception& e) {
    print_error(e.what());
  }
  return cli::internal_failure;
}
