#include "collect/pm_sampler.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "collect/metric_config.h"
#include "driver/cupti_search.h"

namespace py = pybind11;

namespace qmeter {
namespace {

using Folders = std::vector<std::string>;

std::shared_ptr<const CuptiProfiler> find_profiler(const Folders& search_dirs) {
  const CuptiSearch found = search_cupti(search_dirs);
  if (found.cupti == nullptr) {
    throw Error(ErrorCode::kNotFound,
                "CUPTI (libcupti.so.13 or .12) was not found; tried" + found.describe_tried());
  }
  return load_cupti_profiler(found.cupti->path());
}

std::vector<std::string> chips_to_python(const Folders& search_dirs) {
  const py::gil_scoped_release release;
  return pm_chips(*find_profiler(search_dirs));
}

py::dict check_to_python(const std::string& chip, const MetricNames& metrics, const Folders& search_dirs) {
  MetricCheck check;
  {
    const py::gil_scoped_release release;
    check = check_metrics(find_profiler(search_dirs), chip, metrics);
  }
  py::dict result;
  result["passes"] = check.passes;
  result["config_bytes"] = check.config_bytes;
  result["unknown"] = check.unknown;
  return result;
}

// (CounterQuantity, metric name, factor)
using MetricTuple = std::tuple<uint8_t, std::string, double>;

std::shared_ptr<PmSampler> make_sampler(std::shared_ptr<Spool> spool, int16_t device, const std::string& uuid,
                                        const std::vector<MetricTuple>& metrics, int64_t interval_ns,
                                        size_t hardware_buffer_bytes, uint32_t image_samples,
                                        double decode_budget, uint64_t max_samples,
                                        const std::optional<std::string>& cupti_path,
                                        const std::optional<std::string>& cuda_path,
                                        const Folders& search_dirs) {
  PmSamplerOptions options;
  options.device = device;
  options.uuid = uuid;
  for (const auto& [quantity, name, factor] : metrics) options.metrics.push_back({quantity, name, factor});
  options.interval_ns = interval_ns;
  options.hardware_buffer_bytes = hardware_buffer_bytes;
  options.image_samples = image_samples;
  options.decode_budget = decode_budget;
  options.max_samples = max_samples;
  const auto cuda = load_cuda_driver(cuda_path.value_or(""));
  auto profiler = cupti_path ? load_cupti_profiler(*cupti_path) : find_profiler(search_dirs);
  return destroyed_without_gil(
      std::make_unique<PmSampler>(std::move(spool), std::move(profiler), cuda, options));
}

py::dict info_to_python(const PmSampler& sampler) {
  const PmSamplerInfo info = sampler.info();
  py::dict result;
  result["chip"] = info.chip;
  result["trigger"] = info.trigger;
  result["mode"] = info.mode;
  result["interval_ns"] = info.interval_ns;
  result["interval_cycles"] = info.interval_cycles;
  result["num_metrics"] = info.num_metrics;
  result["config_bytes"] = info.config_bytes;
  result["image_bytes"] = info.image_bytes;
  result["num_sms"] = info.num_sms;
  result["path"] = info.path;
  result["version"] = info.version;
  result["setup_ns"] = info.setup_ns;
  return result;
}

py::dict stats_to_python(const PmSampler& sampler) {
  const PmSamplerStats stats = sampler.stats();
  py::dict result;
  result["bursts"] = stats.counts.bursts;
  result["samples"] = stats.counts.samples;
  result["sampled_ns"] = stats.counts.sampled_ns;
  result["dropped_first"] = stats.counts.dropped_first;
  result["dropped_long"] = stats.counts.dropped_long;
  result["overflows"] = stats.counts.overflows;
  result["full_images"] = stats.counts.full_images;
  result["decode_failures"] = stats.counts.decode_failures;
  result["evaluate_failures"] = stats.counts.evaluate_failures;
  result["lost_samples"] = stats.counts.lost_samples;
  result["decode_ns"] = stats.counts.decode_ns;
  result["evaluate_ns"] = stats.counts.evaluate_ns;
  result["start_ns"] = stats.start_ns;
  result["stop_ns"] = stats.stop_ns;
  result["error"] = stats.error.empty() ? py::object(py::none()) : py::object(py::str(stats.error));
  return result;
}

}  // namespace

void bind_pm_sampler(py::module_& module) {
  using Release = py::call_guard<py::gil_scoped_release>;
  const PmSamplerOptions defaults;
  module.def("pm_chips", &chips_to_python, py::arg("search_dirs") = Folders{});
  module.def("check_metrics", &check_to_python, py::arg("chip"), py::arg("metrics"),
             py::arg("search_dirs") = Folders{});
  py::class_<PmSampler, std::shared_ptr<PmSampler>>(module, "PmSampler")
      .def(py::init(&make_sampler), py::arg("spool").none(true), py::kw_only(), py::arg("device"),
           py::arg("uuid"), py::arg("metrics"), py::arg("interval_ns") = defaults.interval_ns,
           py::arg("hardware_buffer_bytes") = defaults.hardware_buffer_bytes,
           py::arg("image_samples") = defaults.image_samples,
           py::arg("decode_budget") = defaults.decode_budget, py::arg("max_samples") = defaults.max_samples,
           py::arg("cupti_path") = py::none(), py::arg("cuda_path") = py::none(),
           py::arg("search_dirs") = Folders{}, Release())
      .def("info", &info_to_python)
      .def("start", &PmSampler::start, Release())
      .def("stop", &PmSampler::stop, Release())
      .def("stats", &stats_to_python)
      .def("close", &PmSampler::close, Release());
}

}  // namespace qmeter
