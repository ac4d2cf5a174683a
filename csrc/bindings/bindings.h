// One function per noun; module.cpp calls them all.
#pragma once

#include <pybind11/pybind11.h>

namespace qmeter {

void bind_clock(pybind11::module_& module);
void bind_spool(pybind11::module_& module);
void bind_kernel_tracer(pybind11::module_& module);
void bind_step_marker(pybind11::module_& module);
void bind_energy_sampler(pybind11::module_& module);

}  // namespace qmeter
