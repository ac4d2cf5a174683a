// CUDA's UUID of a GPU as NVML writes it.
#pragma once

#include <string>

#include "abi/cuda_driver.h"

namespace qmeter {

// "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx".
std::string uuid_text(const cuda::Uuid& uuid);

}  // namespace qmeter
