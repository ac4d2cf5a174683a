// One function per noun; module.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

namespace qmeter {

// Our destructors wait for threads, disks and CUPTI. Python runs them with the GIL held; another of our
// objects that goes runs them without.
template <typename Object>
std::shared_ptr<Object> destroyed_without_gil(std::unique_ptr<Object> object) {
  const auto destroy = [](Object* last) {
    if (PyGILState_Check() == 0) {
      delete last;
      return;
    }
    const pybind11::gil_scoped_release release;
    delete last;
  };
  return {object.release(), destroy};
}

void bind_clock(pybind11::module_& module);
void bind_spool(pybind11::module_& module);
void bind_kernel_tracer(pybind11::module_& module);
void bind_step_marker(pybind11::module_& module);
void bind_energy_sampler(pybind11::module_& module);
void bind_pm_sampler(pybind11::module_& module);

}  // namespace qmeter
