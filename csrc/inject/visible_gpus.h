// The GPUs that CUDA shows this process, by UUID.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "driver/cuda_driver.h"

namespace qmeter {

class VisibleGpus {
 public:
  // Ask the libcuda that is loaded. Does nothing once that has answered, and never initializes CUDA: until
  // the program has, there is no answer.
  void find();

  // "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" in the order of CUDA's ordinals; empty until found.
  const std::optional<std::vector<std::string>>& uuids() const noexcept { return uuids_; }

 private:
  std::shared_ptr<const CudaDriver> cuda_;
  bool is_hopeless_ = false;  // no libcuda, or one without the functions we need
  std::optional<std::vector<std::string>> uuids_;
};

}  // namespace qmeter
