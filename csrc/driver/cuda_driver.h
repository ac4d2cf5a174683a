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
  virtual std::string result_name(abi::CudaResult result) const = 0;

  virtual abi::CudaResult init() const noexcept = 0;
  virtual abi::CudaResult current_context(abi::CudaContext* context) const noexcept = 0;
  virtual abi::CudaResult push_context(abi::CudaContext context) const noexcept = 0;
  virtual abi::CudaResult pop_context() const noexcept = 0;
  virtual abi::CudaResult retain_primary(abi::CudaContext* context,
                                         abi::CudaDevice device) const noexcept = 0;
  virtual abi::CudaResult release_primary(abi::CudaDevice device) const noexcept = 0;
  virtual abi::CudaResult load_module(abi::CudaModule* module, const char* image) const noexcept = 0;
  virtual abi::CudaResult unload_module(abi::CudaModule module) const noexcept = 0;
  virtual abi::CudaResult find_function(abi::CudaFunction* function, abi::CudaModule module,
                                        const char* name) const noexcept = 0;
  // One block of `num_threads` threads, no arguments, no shared memory.
  virtual abi::CudaResult launch(abi::CudaFunction function, uint32_t num_threads,
                                 abi::CudaStream stream) const noexcept = 0;
};

// The real one, from `path` or, if that is empty, libcuda.so.1. Throws Error(kNotFound) or
// Error(kUnsupported).
std::shared_ptr<const CudaDriver> load_cuda_driver(const std::string& path);

}  // namespace qmeter
