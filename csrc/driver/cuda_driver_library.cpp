#include <utility>

#include "base/shared_library.h"
#include "driver/cuda_driver.h"

namespace qmeter {
namespace {

using abi::CudaResult;

class CudaDriverLibrary final : public CudaDriver {
 public:
  explicit CudaDriverLibrary(SharedLibrary library) : library_(std::move(library)) {
    library_.pin();  // it has threads of its own
  }

  std::string result_name(CudaResult result) const override {
    const char* name = nullptr;
    const auto get = library_.find<CudaResult (*)(CudaResult, const char**)>("cuGetErrorName");
    if (get != nullptr && get(result, &name) == abi::kCudaSuccess && name != nullptr) return name;
    return "CUDA error " + std::to_string(result);
  }

  CudaResult init() const noexcept override { return init_(0); }
  CudaResult current_context(abi::CudaContext* context) const noexcept override {
    return current_context_(context);
  }
  CudaResult push_context(abi::CudaContext context) const noexcept override { return push_context_(context); }
  CudaResult pop_context() const noexcept override {
    abi::CudaContext popped = nullptr;
    return pop_context_(&popped);
  }
  CudaResult retain_primary(abi::CudaContext* context, abi::CudaDevice device) const noexcept override {
    return retain_primary_(context, device);
  }
  CudaResult release_primary(abi::CudaDevice device) const noexcept override {
    return release_primary_(device);
  }
  CudaResult load_module(abi::CudaModule* module, const char* image) const noexcept override {
    return load_module_(module, image);
  }
  CudaResult unload_module(abi::CudaModule module) const noexcept override { return unload_module_(module); }
  CudaResult find_function(abi::CudaFunction* function, abi::CudaModule module,
                           const char* name) const noexcept override {
    return find_function_(function, module, name);
  }
  CudaResult launch(abi::CudaFunction function, uint32_t num_threads,
                    abi::CudaStream stream) const noexcept override {
    return launch_(function, 1, 1, 1, num_threads, 1, 1, 0, stream, nullptr, nullptr);
  }

 private:
  template <typename... Arguments>
  using Function = CudaResult (*)(Arguments...);

  SharedLibrary library_;

  const Function<uint32_t> init_ = library_.require<decltype(init_)>("cuInit");
  const Function<abi::CudaContext*> current_context_ =
      library_.require<decltype(current_context_)>("cuCtxGetCurrent");
  const Function<abi::CudaContext> push_context_ =
      library_.require<decltype(push_context_)>("cuCtxPushCurrent_v2");
  const Function<abi::CudaContext*> pop_context_ =
      library_.require<decltype(pop_context_)>("cuCtxPopCurrent_v2");
  const Function<abi::CudaContext*, abi::CudaDevice> retain_primary_ =
      library_.require<decltype(retain_primary_)>("cuDevicePrimaryCtxRetain");
  const Function<abi::CudaDevice> release_primary_ =
      library_.require<decltype(release_primary_)>("cuDevicePrimaryCtxRelease_v2");
  const Function<abi::CudaModule*, const void*> load_module_ =
      library_.require<decltype(load_module_)>("cuModuleLoadData");
  const Function<abi::CudaModule> unload_module_ =
      library_.require<decltype(unload_module_)>("cuModuleUnload");
  const Function<abi::CudaFunction*, abi::CudaModule, const char*> find_function_ =
      library_.require<decltype(find_function_)>("cuModuleGetFunction");
  const Function<abi::CudaFunction, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                 abi::CudaStream, void**, void**>
      launch_ = library_.require<decltype(launch_)>("cuLaunchKernel");
};

}  // namespace

std::shared_ptr<const CudaDriver> load_cuda_driver(const std::string& path) {
  return std::make_shared<CudaDriverLibrary>(SharedLibrary(path.empty() ? "libcuda.so.1" : path));
}

}  // namespace qmeter
