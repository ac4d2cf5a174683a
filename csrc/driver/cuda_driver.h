// The part of the CUDA driver API that we use.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "abi/cuda_driver.h"

namespace qmeter {

class CudaDriver {
 public:
  virtual ~CudaDriver() = default;

  // "CUDA_ERROR_…" for a result.
  virtual std::string result_name(cuda::Result result) const = 0;

  virtual cuda::Result init() const noexcept = 0;
  // These three fail with kErrorNotInitialized until the program has called cuInit.
  virtual cuda::Result num_devices(int32_t* count) const noexcept = 0;
  virtual cuda::Result device_uuid(cuda::Uuid* uuid, cuda::Device device) const noexcept = 0;
  virtual cuda::Result device_attribute(int32_t* value, cuda::DeviceAttribute attribute,
                                        cuda::Device device) const noexcept = 0;
  virtual cuda::Result current_context(cuda::Context* context) const noexcept = 0;
  virtual cuda::Result push_context(cuda::Context context) const noexcept = 0;
  virtual cuda::Result pop_context() const noexcept = 0;
  virtual cuda::Result retain_primary(cuda::Context* context, cuda::Device device) const noexcept = 0;
  virtual cuda::Result release_primary(cuda::Device device) const noexcept = 0;
  virtual cuda::Result load_module(cuda::Module* module, const char* image) const noexcept = 0;
  virtual cuda::Result unload_module(cuda::Module module) const noexcept = 0;
  virtual cuda::Result find_function(cuda::Function* function, cuda::Module module,
                                     const char* name) const noexcept = 0;
  // One block of `num_threads` threads, no arguments, no shared memory.
  virtual cuda::Result launch(cuda::Function function, uint32_t num_threads,
                              cuda::Stream stream) const noexcept = 0;
};

// The real one, from `path` or, if that is empty, libcuda.so.1. Throws Error(kNotFound) or
// Error(kUnsupported).
std::shared_ptr<const CudaDriver> load_cuda_driver(const std::string& path, bool only_if_loaded = false);

}  // namespace qmeter
