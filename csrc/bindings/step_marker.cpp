#include "collect/step_marker.h"

#include <pybind11/stl.h>

#include <optional>
#include <string>

#include "bindings/bindings.h"

namespace py = pybind11;

namespace qmeter {

void bind_step_marker(py::module_& module) {
  using Release = py::call_guard<py::gil_scoped_release>;
  py::class_<StepMarker, std::shared_ptr<StepMarker>>(module, "StepMarker")
      .def(py::init([](const std::optional<std::string>& cuda_path) {
             return destroyed_without_gil(
                 std::make_unique<StepMarker>(load_cuda_driver(cuda_path.value_or(""))));
           }),
           py::kw_only(), py::arg("cuda_path") = py::none(), Release())
      .def(
          "launch",
          [](const StepMarker& marker, uintptr_t stream, uint64_t sequence) {
            marker.launch(reinterpret_cast<cuda::Stream>(stream), sequence);
          },
          py::arg("stream"), py::arg("sequence"), Release())
      .def("close", &StepMarker::close, Release());
}

}  // namespace qmeter
