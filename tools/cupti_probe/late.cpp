#include <string>

#include "cupti_client.h"
#include "experiments.h"
#include "graph_load.h"
#include "statistics.h"

namespace probe {
namespace {

constexpr double kSeconds = 0.25;

// Replays of one instance in one state of the client, as an element of a JSON array.
class Phases {
 public:
  explicit Phases(GraphLoad& load) : load_(load) {}

  void run(const char* name, cudaGraphExec_t graph, CuptiClient* client, bool is_on) {
    const ReplayTimes times = load_.replay(graph, kSeconds);
    qmeter::JsonObject json;
    json.add("phase", name).add_raw("replay_us_median", json_number(median(times.replay_us)));
    if (client) {
      const ActivityCounts counts = client->drain();
      json.add("expected_nodes", is_on ? times.num_nodes() : 0);
      counts.add_to(json);
      json.add_raw("ids", qmeter::JsonObject().add("distinct", counts.node_ids.size()).text());
    }
    text_ += (text_.empty() ? "" : ", ") + json.text();
  }

  std::string text() const { return "[" + text_ + "]"; }

 private:
  GraphLoad& load_;
  std::string text_;
};

}  // namespace

qmeter::JsonObject run_late(const Options& options) {
  CuptiClient* client = options.is_loaded_late ? nullptr : &make_client(options);
  GraphLoad load(options);
  const cudaGraph_t graph = load.capture();
  const cudaGraphExec_t old = load.instantiate(graph);
  Phases phases(load);
  phases.run(client ? "old,subscribed" : "old,no_cupti", old, client, false);
  if (!client) {
    client = &make_client(options);
    phases.run("old,late_loaded", old, client, false);
  }
  const double enable_us = client->enable();
  phases.run("old,enabled", old, client, true);
  const cudaGraphExec_t made_while_on = load.instantiate(graph);
  phases.run("new_instance,enabled", made_while_on, client, true);
  const double disable_us = client->disable();
  phases.run("old,disabled", old, client, false);
  phases.run("new_instance,disabled", made_while_on, client, false);
  const cudaGraphExec_t made_while_off = load.instantiate(graph);
  client->enable();
  phases.run("instance_made_while_disabled,enabled_again", made_while_off, client, true);

  qmeter::JsonObject json;
  json.add_raw("enable_us", json_number(enable_us)).add_raw("disable_us", json_number(disable_us));
  json.add_raw("phases", phases.text());
  return json;
}

}  // namespace probe
