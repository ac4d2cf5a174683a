// Finding CUPTI: two copies in one process collide, so what is loaded already comes first.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "driver/cupti.h"

namespace qmeter {

struct CuptiSearch {
  std::shared_ptr<const Cupti> cupti;  // null if nowhere
  std::string how;                     // "already loaded", "QMETER_CUPTI_PATH", "search directory", …
  std::vector<std::pair<std::string, std::string>> tried;  // path, why not

  // Every place that was tried, for a message.
  std::string describe_tried() const;
};

// In this order: already loaded (.13, .12); the environment variable QMETER_CUPTI_PATH (a file, or a folder
// that holds one); `search_dirs`; CUDA_HOME and CUDA_PATH; the system's loader.
CuptiSearch search_cupti(const std::vector<std::string>& search_dirs);

// Only `path`, a file. Throws as `load_cupti` does.
CuptiSearch open_cupti(const std::string& path);

}  // namespace qmeter
