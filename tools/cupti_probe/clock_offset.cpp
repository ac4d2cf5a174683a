#include <unistd.h>

#include <vector>

#include "base/clock.h"
#include "cupti_client.h"
#include "experiments.h"
#include "graph_load.h"
#include "statistics.h"

namespace probe {
namespace {

constexpr int kReadings = 1000;

qmeter::JsonObject read_offsets(const CuptiLibrary& cupti) {
  std::vector<double> offsets_ns;
  std::vector<double> brackets_ns;
  for (int n = 0; n < kReadings; ++n) {
    uint64_t stamp_ns = 0;
    const int64_t before_ns = qmeter::realtime_ns();
    cupti.require(cupti.GetTimestamp(&stamp_ns), "cuptiGetTimestamp");
    const int64_t after_ns = qmeter::realtime_ns();
    const int64_t bracket_ns = after_ns - before_ns;
    offsets_ns.push_back(static_cast<double>(static_cast<int64_t>(stamp_ns) - before_ns - bracket_ns / 2));
    brackets_ns.push_back(static_cast<double>(bracket_ns));
  }
  qmeter::JsonObject json;
  json.add_raw("offset_ns_min", json_number(quantile(offsets_ns, 0)));
  json.add_raw("offset_ns_median", json_number(median(offsets_ns)));
  json.add_raw("offset_ns_max", json_number(quantile(offsets_ns, 1)));
  json.add_raw("bracket_ns_median", json_number(median(brackets_ns)));
  return json;
}

}  // namespace

qmeter::JsonObject run_clock(const Options& options) {
  const CuptiLibrary& cupti = make_client(options).library();
  const GraphLoad load(options);
  qmeter::JsonObject json;
  json.add_raw("clocks0", read_offsets(cupti).text());
  sleep(1);
  json.add_raw("clocks1", read_offsets(cupti).text());
  return json;
}

}  // namespace probe
