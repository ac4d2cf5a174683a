#include "inject/visible_gpus.h"

#include <utility>

#include "base/error.h"
#include "driver/cuda_uuid.h"

namespace qmeter {

void VisibleGpus::find() {
  if (uuids_ || is_hopeless_) return;
  if (cuda_ == nullptr) {
    try {
      cuda_ = load_cuda_driver("", true);
    } catch (const Error&) {
      is_hopeless_ = true;
      return;
    }
  }
  int32_t count = 0;
  if (cuda_->num_devices(&count) != cuda::kSuccess) return;
  std::vector<std::string> found;
  for (cuda::Device device = 0; device < count; ++device) {
    cuda::Uuid uuid{};
    if (cuda_->device_uuid(&uuid, device) != cuda::kSuccess) return;
    found.push_back(uuid_text(uuid));
  }
  uuids_ = std::move(found);
}

}  // namespace qmeter
