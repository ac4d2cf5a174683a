#include <fstream>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "cupti_client.h"
#include "experiments.h"
#include "graph_load.h"
#include "statistics.h"

namespace probe {
namespace {

constexpr uint64_t kParts = 4;

double resident_mib() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("VmRSS:", 0) == 0) return std::stod(line.substr(6)) / 1024;
  }
  throw qmeter::Error(qmeter::ErrorCode::kIo, "no VmRSS in /proc/self/status");
}

std::string mark(uint64_t num_nodes, const std::vector<double>& replay_us) {
  qmeter::JsonObject json;
  json.add("nodes", num_nodes);
  json.add_raw("us_per_node", json_number(replay_us.empty() ? -1 : median(replay_us) / GraphLoad::kNodes));
  json.add_raw("gpu_used_mb", json_number(gpu_used_mib())).add_raw("rss_mb", json_number(resident_mib()));
  return json.text();
}

}  // namespace

qmeter::JsonObject run_soak(const Options& options) {
  CuptiClient& client = make_client(options);
  client.enable();
  GraphLoad load(options);
  const cudaGraphExec_t graph = load.instantiate(load.capture());
  std::string marks = mark(0, {});
  uint64_t num_nodes = 0;
  const int64_t end_ns = qmeter::monotonic_ns() + static_cast<int64_t>(options.soak_s) * qmeter::kNsPerSecond;
  while (num_nodes < options.soak_nodes && qmeter::monotonic_ns() < end_ns) {
    const ReplayTimes part = load.replay(graph, static_cast<double>(options.soak_s) / kParts);
    num_nodes += part.num_nodes();
    marks += ", " + mark(num_nodes, part.replay_us);
  }
  const ActivityCounts counts = client.drain();
  qmeter::JsonObject json;
  json.add("expected_nodes", num_nodes).add("pool_misses", client.pool_misses());
  json.add_raw("marks", "[" + marks + "]");
  counts.add_to(json);
  return json;
}

}  // namespace probe
