#include "cupti_client.h"
#include "experiments.h"
#include "graph_load.h"
#include "statistics.h"

namespace probe {
namespace {

constexpr double kWarmUpSeconds = 0.5;
constexpr double kSeconds = 1;
constexpr uint64_t kEagerLaunches = 5000;

}  // namespace

qmeter::JsonObject run_replay(const Options& options) {
  CuptiClient* client = attach(options);
  GraphLoad load(options);
  const cudaGraphExec_t graph = load.instantiate(load.capture());
  const ReplayTimes warm_up = load.replay(graph, kWarmUpSeconds);
  const ReplayTimes times = load.replay(graph, kSeconds);
  const double eager_us = load.eager_us(kEagerLaunches);

  qmeter::JsonObject json;
  json.add_raw("replay_us_median", json_number(median(times.replay_us)));
  json.add_raw("replay_us_p10", json_number(quantile(times.replay_us, 0.1)));
  json.add_raw("replay_us_p90", json_number(quantile(times.replay_us, 0.9)));
  json.add_raw("launch_us_median", json_number(median(times.launch_us)));
  json.add("replays", times.num_replays);
  json.add_raw("eager_us", json_number(eager_us));
  json.add_raw("gpu_used_mb_end", json_number(gpu_used_mib()));
  if (client) json.add("cupti_version", client->version());
  if (client && client->is_recording()) {
    const uint64_t num_replays = warm_up.num_replays + times.num_replays;
    const uint64_t num_markers = options.has_markers ? 2 * num_replays : 0;
    json.add("expected_nodes", num_replays * GraphLoad::kNodes);
    json.add("expected_eager", GraphLoad::kWarmUpLaunches + num_markers + kEagerLaunches);
    client->drain().add_to(json);
  }
  return json;
}

}  // namespace probe
