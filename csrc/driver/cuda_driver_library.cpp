#include <utility>

#include "base/shared_library.h"
#include "driver/cuda_driver.h"

namespace qmeter {
namespace {

class CudaDriverLibrary final : public CudaDriver {
 public:
  explicit CudaDriverLibrary(SharedLibrary library) : library_(std::move(library)) {
    library_.pin();  // it has threads of its own
  }

  std::string result_name(cuda::Result result) const override {
    const char* name = nullptr;
    const auto get = library_.find<cuda::cuGetErrorName*>("cuGetErrorName");
    if (get != nullptr && get(result, &name) == cuda::kSuccess && name != nullptr) return name;
    return "CUDA error " + std::to_string(result);
  }

  cuda::Result init() const noexcept override { return init_(0); }
  cuda::Result num_devices(int32_t* count) const noexcept override { return num_devices_(count); }
  cuda::Result device_uuid(cuda::Uuid* uuid, cuda::Device device) const noexcept override {
    return device_uuid_(uuid, device);
  }
  cuda::Result device_attribute(int32_t* value, cuda::DeviceAttribute attribute,
                                cuda::Device device) const noexcept override {
    return device_attribute_(value, attribute, device);
  }
  cuda::Result current_context(cuda::Context* context) const noexcept override {
    return current_context_(context);
  }
  cuda::Result push_context(cuda::Context context) const noexcept override { return push_context_(context); }
  cuda::Result pop_context() const noexcept override {
    cuda::Context popped = nullptr;
    return pop_context_(&popped);
  }
  cuda::Result retain_primary(cuda::Context* context, cuda::Device device) const noexcept override {
    return retain_primary_(context, device);
  }
  cuda::Result release_primary(cuda::Device device) const noexcept override {
    return release_primary_(device);
  }
  cuda::Result load_module(cuda::Module* module, const char* image) const noexcept override {
    return load_module_(module, image);
  }
  cuda::Result unload_module(cuda::Module module) const noexcept override { return unload_module_(module); }
  cuda::Result find_function(cuda::Function* function, cuda::Module module,
                             const char* name) const noexcept override {
    return find_function_(function, module, name);
  }
  cuda::Result launch(cuda::Function function, uint32_t num_threads,
                      cuda::Stream stream) const noexcept override {
    return launch_(function, 1, 1, 1, num_threads, 1, 1, 0, stream, nullptr, nullptr);
  }

 private:
  SharedLibrary library_;

  cuda::cuInit* const init_ = library_.require<cuda::cuInit*>("cuInit");
  cuda::cuDeviceGetCount* const num_devices_ = library_.require<cuda::cuDeviceGetCount*>("cuDeviceGetCount");
  cuda::cuDeviceGetUuid_v2* const device_uuid_ =
      library_.require<cuda::cuDeviceGetUuid_v2*>("cuDeviceGetUuid_v2");
  cuda::cuDeviceGetAttribute* const device_attribute_ =
      library_.require<cuda::cuDeviceGetAttribute*>("cuDeviceGetAttribute");
  cuda::cuCtxGetCurrent* const current_context_ = library_.require<cuda::cuCtxGetCurrent*>("cuCtxGetCurrent");
  cuda::cuCtxPushCurrent_v2* const push_context_ =
      library_.require<cuda::cuCtxPushCurrent_v2*>("cuCtxPushCurrent_v2");
  cuda::cuCtxPopCurrent_v2* const pop_context_ =
      library_.require<cuda::cuCtxPopCurrent_v2*>("cuCtxPopCurrent_v2");
  cuda::cuDevicePrimaryCtxRetain* const retain_primary_ =
      library_.require<cuda::cuDevicePrimaryCtxRetain*>("cuDevicePrimaryCtxRetain");
  cuda::cuDevicePrimaryCtxRelease_v2* const release_primary_ =
      library_.require<cuda::cuDevicePrimaryCtxRelease_v2*>("cuDevicePrimaryCtxRelease_v2");
  cuda::cuModuleLoadData* const load_module_ = library_.require<cuda::cuModuleLoadData*>("cuModuleLoadData");
  cuda::cuModuleUnload* const unload_module_ = library_.require<cuda::cuModuleUnload*>("cuModuleUnload");
  cuda::cuModuleGetFunction* const find_function_ =
      library_.require<cuda::cuModuleGetFunction*>("cuModuleGetFunction");
  cuda::cuLaunchKernel* const launch_ = library_.require<cuda::cuLaunchKernel*>("cuLaunchKernel");
};

}  // namespace

std::shared_ptr<const CudaDriver> load_cuda_driver(const std::string& path, bool only_if_loaded) {
  const auto mode = only_if_loaded ? SharedLibrary::Mode::kOnlyIfLoaded : SharedLibrary::Mode::kLoad;
  return std::make_shared<CudaDriverLibrary>(SharedLibrary(path.empty() ? "libcuda.so.1" : path, mode));
}

}  // namespace qmeter
