// Runs one experiment in this process and prints one line of JSON: what was seen, or {"error": …}. A process
// of its own for each, because CUPTI cannot be removed from one. `tools/cupti_probe.py` compiles and runs it.
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <map>

#include "base/error.h"
#include "base/json.h"
#include "experiments.h"

namespace {

qmeter::JsonObject run(const probe::Options& options) {
  static const std::map<std::string, std::function<qmeter::JsonObject(const probe::Options&)>> kExperiments =
      {{"replay", probe::run_replay},
       {"switching", probe::run_switching},
       {"late", probe::run_late},
       {"clock", probe::run_clock},
       {"soak", probe::run_soak}};
  const auto found = kExperiments.find(options.experiment);
  if (found == kExperiments.end()) {
    throw qmeter::Error(qmeter::ErrorCode::kInvalid, "unknown experiment: " + options.experiment);
  }
  return found->second(options);
}

}  // namespace

int main(int argc, char** argv) {
  qmeter::JsonObject json;
  int status = 0;
  try {
    json = run(probe::parse_options(argc, argv));
  } catch (const qmeter::Error& error) {
    json.add("error", error.what());
    status = 1;
  }
  std::printf("%s\n", json.text().c_str());
  std::fflush(stdout);
  _exit(status);  // no destructors: CUPTI's threads may still call
}
