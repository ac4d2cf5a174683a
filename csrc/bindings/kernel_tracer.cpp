#include "collect/kernel_tracer.h"

#include <pybind11/stl.h>

#include <optional>

#include "base/error.h"
#include "bindings/bindings.h"

namespace py = pybind11;

namespace qmeter {
namespace {

using Folders = std::vector<std::string>;

std::shared_ptr<KernelTracer> start_tracer(std::shared_ptr<Spool> spool,
                                           const std::optional<std::string>& cupti_path,
                                           const Folders& search_dirs, size_t buffer_bytes,
                                           size_t buffer_budget_bytes, uint32_t flush_period_ms,
                                           size_t keep_raw_buffers, bool is_paused) {
  const CuptiSearch found = cupti_path ? open_cupti(*cupti_path) : search_cupti(search_dirs);
  if (found.cupti == nullptr) {
    throw Error(ErrorCode::kNotFound,
                "CUPTI (libcupti.so.13 or .12) was not found; tried" + found.describe_tried());
  }
  const KernelTracerOptions options{buffer_bytes, buffer_budget_bytes, flush_period_ms, keep_raw_buffers,
                                    is_paused};
  return destroyed_without_gil(std::make_unique<KernelTracer>(std::move(spool), found, options));
}

py::dict search_to_python(const Folders& search_dirs) {
  CuptiSearch found;
  {
    const py::gil_scoped_release release;
    found = search_cupti(search_dirs);
  }
  const bool is_found = found.cupti != nullptr;
  py::dict result;
  result["path"] = is_found ? py::object(py::str(found.cupti->path())) : py::object(py::none());
  result["version"] = is_found ? py::object(py::int_(found.cupti->version())) : py::object(py::none());
  result["how"] = is_found ? py::object(py::str(found.how)) : py::object(py::none());
  result["tried"] = found.tried;
  return result;
}

py::dict info_to_python(const KernelTracer& tracer) {
  const KernelTracerInfo info = tracer.info();
  const uint64_t record_bytes = tracer.stats().counts.kernel_record_bytes;
  py::dict result;
  result["path"] = info.path;
  result["version"] = info.version;
  result["how"] = info.how;
  result["kinds"] = info.kinds;
  result["record_bytes"] = record_bytes > 0 ? py::object(py::int_(record_bytes)) : py::object(py::none());
  return result;
}

py::dict stats_to_python(const KernelTracer& tracer) {
  const KernelTracerStats stats = tracer.stats();
  py::dict result;
  result["kernels"] = stats.counts.kernels;
  result["graph_nodes"] = stats.counts.graph_nodes;
  result["memcpys"] = stats.counts.memcpys;
  result["memsets"] = stats.counts.memsets;
  result["dropped_records"] = stats.dropped_records;
  result["zero_timestamps"] = stats.counts.zero_timestamps;
  result["reversed_timestamps"] = stats.counts.reversed_timestamps;
  result["unknown_records"] = stats.counts.unknown_records;
  result["buffers_in_use_max"] = stats.buffers.in_use_max;
  result["buffers_denied"] = stats.buffers.denied;
  result["decode_ns"] = stats.decode_ns;
  result["callback_ns"] = stats.callback_ns;
  result["error"] = stats.error.empty() ? py::object(py::none()) : py::object(py::str(stats.error));
  return result;
}

py::dict benchmark_to_python(const KernelTracer& tracer, size_t repeats) {
  DecodeBenchmark benchmark;
  {
    const py::gil_scoped_release release;
    benchmark = tracer.benchmark_decode(repeats);
  }
  py::dict result;
  result["records"] = benchmark.records;
  result["seconds"] = benchmark.seconds;
  result["bytes_per_record"] = benchmark.bytes_per_record;
  result["raw_bytes"] = benchmark.raw_bytes;
  return result;
}

py::list raw_buffers_to_python(const KernelTracer& tracer) {
  py::list result;
  for (const auto& buffer : tracer.raw_buffers()) {
    result.append(py::bytes(reinterpret_cast<const char*>(buffer.data()), buffer.size()));
  }
  return result;
}

}  // namespace

void bind_kernel_tracer(py::module_& module) {
  using Release = py::call_guard<py::gil_scoped_release>;
  const KernelTracerOptions defaults;
  module.def("find_cupti", &search_to_python, py::arg("search_dirs") = Folders{});
  py::class_<KernelTracer, std::shared_ptr<KernelTracer>>(module, "KernelTracer")
      .def(py::init(&start_tracer), py::arg("spool").none(true), py::kw_only(),
           py::arg("cupti_path") = py::none(), py::arg("search_dirs") = Folders{},
           py::arg("buffer_bytes") = defaults.buffer_bytes,
           py::arg("buffer_budget_bytes") = defaults.buffer_budget_bytes,
           py::arg("flush_period_ms") = defaults.flush_period_ms,
           py::arg("keep_raw_buffers") = defaults.keep_raw_buffers, py::arg("is_paused") = defaults.is_paused,
           Release())
      .def("info", &info_to_python)
      .def("flush", &KernelTracer::flush, Release())
      .def("pause", &KernelTracer::pause, Release())
      .def("resume", &KernelTracer::resume, Release())
      .def("stats", &stats_to_python)
      .def("benchmark_decode", &benchmark_to_python, py::arg("repeats"))
      .def("raw_buffers", &raw_buffers_to_python)
      .def("close", &KernelTracer::close, Release());
}

}  // namespace qmeter
