// An empty kernel called qmeter_step_marker: launched on an engine's stream, its activity record is a step's
// edge on the device.
#pragma once

#include <cstdint>
#include <memory>

#include "base/process_guard.h"
#include "driver/cuda_driver.h"

namespace qmeter {

class StepMarker {
 public:
  // Loads the kernel into the current context or, if this thread has none, into the primary context of device
  // 0. Throws Error(kNotFound) without a GPU, Error(kUnsupported) if the driver refuses.
  explicit StepMarker(std::shared_ptr<const CudaDriver> cuda);
  ~StepMarker() { close(); }
  StepMarker(const StepMarker&) = delete;
  StepMarker& operator=(const StepMarker&) = delete;

  // One block of 1 + sequence % 1024 threads on `stream`, so that a lost marker is noticed. Throws
  // Error(kInvalid) once closed or if the driver refuses.
  void launch(cuda::Stream stream, uint64_t sequence) const;

  // Unload the kernel. Idempotent.
  void close() noexcept;

 private:
  class ContextScope;

  void load();
  void require(cuda::Result result, const char* action) const;

  const std::shared_ptr<const CudaDriver> cuda_;
  ProcessGuard guard_;
  cuda::Context context_ = nullptr;
  bool is_primary_retained_ = false;
  cuda::Module module_ = nullptr;
  cuda::Function function_ = nullptr;
};

}  // namespace qmeter
