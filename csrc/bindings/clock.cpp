#include "base/clock.h"

#include "bindings/bindings.h"

namespace py = pybind11;

namespace qmeter {

void bind_clock(py::module_& module) {
  module.def("clock_pair", [] {
    const ClockPair pair = read_clock_pair();
    return py::make_tuple(pair.realtime_ns, pair.monotonic_ns);
  });
}

}  // namespace qmeter
