#include <set>
#include <string>
#include <vector>

#include "cupti_client.h"
#include "experiments.h"
#include "graph_load.h"
#include "statistics.h"

namespace probe {
namespace {

constexpr int kCycles = 10;
constexpr double kOnSeconds = 0.2;
constexpr double kOffSeconds = 0.3;
constexpr double kFirstSeconds = 0.4;

// One element a cycle.
struct Cycles {
  std::vector<double> enable_us, disable_us, on_median_us, off_median_us;
  std::vector<double> expected, got, off_records;
  std::string has_first_ids;  // '1' or '0' a cycle
  uint64_t num_bad = 0;
};

Cycles run_cycles(CuptiClient& client, GraphLoad& load, cudaGraphExec_t graph,
                  const std::set<uint64_t>& first_ids) {
  Cycles cycles;
  for (int n = 0; n < kCycles; ++n) {
    cycles.enable_us.push_back(client.enable());
    const ReplayTimes on = load.replay(graph, kOnSeconds);
    cycles.disable_us.push_back(client.disable());
    const ActivityCounts counts = client.drain();
    cycles.on_median_us.push_back(median(on.replay_us));
    cycles.expected.push_back(static_cast<double>(on.num_nodes()));
    cycles.got.push_back(static_cast<double>(counts.graph_nodes));
    cycles.has_first_ids += counts.node_ids == first_ids ? '1' : '0';
    cycles.num_bad += counts.num_bad();
    const ReplayTimes off = load.replay(graph, kOffSeconds);
    cycles.off_median_us.push_back(median(off.replay_us));
    cycles.off_records.push_back(static_cast<double>(client.drain().kernels));
  }
  return cycles;
}

}  // namespace

// The kinds are enabled before the context is made, as an injected tracer does it.
qmeter::JsonObject run_switching(const Options& options) {
  CuptiClient& client = make_client(options);
  client.enable();
  GraphLoad load(options);
  const cudaGraphExec_t graph = load.instantiate(load.capture());
  load.replay(graph, kFirstSeconds);
  const ActivityCounts first = client.drain();

  client.disable();
  const ReplayTimes first_off = load.replay(graph, kFirstSeconds);
  const uint64_t first_off_records = client.drain().kernels;
  const Cycles cycles = run_cycles(client, load, graph, first.node_ids);

  qmeter::JsonObject json;
  json.add_raw("off0_replay_us_median", json_number(median(first_off.replay_us)));
  json.add("off0_nodes", first_off.num_nodes()).add("off0_records", first_off_records);
  json.add_raw("enable_us", json_numbers(cycles.enable_us));
  json.add_raw("disable_us", json_numbers(cycles.disable_us));
  json.add_raw("on_median_us", json_numbers(cycles.on_median_us));
  json.add_raw("off_median_us", json_numbers(cycles.off_median_us));
  json.add_raw("expected", json_numbers(cycles.expected)).add_raw("got", json_numbers(cycles.got));
  json.add_raw("off_records", json_numbers(cycles.off_records));
  json.add("same_ids_as_on0", cycles.has_first_ids).add("bad", cycles.num_bad);
  return json;
}

}  // namespace probe
