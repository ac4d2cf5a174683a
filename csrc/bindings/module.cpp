#include <pybind11/pybind11.h>

#include "base/error.h"
#include "bindings/bindings.h"

namespace py = pybind11;

namespace {

PyObject* native_fault = nullptr;

void translate(std::exception_ptr pending) {
  try {
    if (pending) std::rethrow_exception(pending);
  } catch (const qmeter::Error& error) {
    const py::tuple arguments = py::make_tuple(error.what(), qmeter::error_code_name(error.code()));
    PyErr_SetObject(native_fault, arguments.ptr());
  }
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.doc() = "The native core of qmeter-native: spool, kernel tracer, energy sampler, PM sampler.";
  native_fault = PyErr_NewException("qmeter_native._native.NativeFault", nullptr, nullptr);
  if (native_fault == nullptr) throw py::error_already_set();
  module.attr("NativeFault") = py::reinterpret_borrow<py::object>(native_fault);
  py::register_local_exception_translator(translate);
  qmeter::bind_clock(module);
  qmeter::bind_spool(module);
  qmeter::bind_kernel_tracer(module);
  qmeter::bind_step_marker(module);
  qmeter::bind_energy_sampler(module);
  qmeter::bind_pm_sampler(module);
}
