// The experiments. Each makes a context of its own and tells what it saw; throws qmeter::Error if CUDA or
// CUPTI fails. Times are host times in microseconds unless a key says otherwise.
#pragma once

#include "base/json.h"
#include "options.h"

namespace probe {

// What a replay takes, and whether every record came.
qmeter::JsonObject run_replay(const Options& options);

// Disable and enable again and again, each time with the GPU at rest.
qmeter::JsonObject run_switching(const Options& options);

// Graphs instantiated before kinds were enabled, or (late=1) before CUPTI was loaded.
qmeter::JsonObject run_late(const Options& options);

// CUPTI's clock less CLOCK_REALTIME.
qmeter::JsonObject run_clock(const Options& options);

// Many nodes in one process: losses and growth.
qmeter::JsonObject run_soak(const Options& options);

}  // namespace probe
