#include <pybind11/stl.h>

#include <memory>
#include <string>
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

}  // namespace

void bind_pm_sampler(py::module_& module) {
  module.def("pm_chips", &chips_to_python, py::arg("search_dirs") = Folders{});
  module.def("check_metrics", &check_to_python, py::arg("chip"), py::arg("metrics"),
             py::arg("search_dirs") = Folders{});
}

}  // namespace qmeter
