// What one run of the probe does. Given as `cupti_probe EXPERIMENT key=value …`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace probe {

enum class Attach { kNone, kSubscribed, kRecording };

struct Options {
  std::string experiment;                // replay, switching, late, clock or soak
  std::string cupti = "libcupti.so.13";  // path or soname
  Attach attach = Attach::kRecording;    // attach=none|subscribed|recording
  bool records_copies = false;           // copies=1: memcpy and memset too
  bool records_launches = false;         // launches=1: API records of kernel and graph launches too
  bool is_loaded_late = false;           // late=1: load CUPTI only when a graph has been instantiated
  uint64_t device_buffer_bytes = 0;      // 0: CUPTI's default, 3.2 MB
  uint64_t activity_buffer_bytes = 4 << 20;
  uint64_t flush_period_ms = 0;      // 0: CUPTI hands over full buffers only
  bool is_pinned = false;            // pinned=1: device buffers in pinned host memory
  bool has_markers = false;          // markers=1: a marker kernel before and after each replay
  uint64_t batch = 1;                // replays per synchronisation
  uint64_t kernel_ns = 8000;         // how long a kernel spins; 0: an empty kernel
  uint64_t soak_nodes = 33'000'000;  // a soak ends after so many nodes …
  uint64_t soak_s = 50;              // … or seconds
};

// Throws qmeter::Error(kInvalid) naming the argument that makes no sense.
Options parse_options(int argc, char** argv);

}  // namespace probe
