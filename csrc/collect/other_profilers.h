// Who else may hold CUPTI in this process.
#pragma once

#include <string>

namespace qmeter {

// What can be seen of other CUPTI clients, from loaded libraries and the environment: "torch (its profiler
// keeps CUPTI once used), Nsight Systems". Empty if none is visible.
std::string visible_profilers();

}  // namespace qmeter
