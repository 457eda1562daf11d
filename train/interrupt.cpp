#include "train/interrupt.h"

#include <unistd.h>

#include <csignal>

namespace mgic {
namespace {

volatile std::sig_atomic_t requests = 0;
constexpr int interrupted_exit = 130;

void on_signal(int) {
  requests = requests + 1;
  if (requests > 1) _exit(interrupted_exit);
}

}  // namespace

InterruptScope::InterruptScope() {
  requests = 0;
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

InterruptScope::~InterruptScope() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

bool InterruptScope::requested() const { return requests > 0; }

}  // namespace mgic
