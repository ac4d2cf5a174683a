#include "collect/step_marker.h"

#include <string>
#include <utility>

#include "base/error.h"

namespace qmeter {
namespace {

constexpr uint64_t kMostThreads = 1024;  // in a block, on every GPU since 2010
constexpr cuda::Device kFirstDevice = 0;
constexpr const char* kKernel = "qmeter_step_marker";

// Of the oldest PTX that today's drivers take, so that they compile it for any GPU.
constexpr const char* kPtx =
    ".version 6.0\n"
    ".target sm_52\n"
    ".address_size 64\n"
    ".visible .entry qmeter_step_marker()\n"
    "{\n"
    "  ret;\n"
    "}\n";

}  // namespace

// Makes a context current for a while; a thread of the engine's pool may have another one, or none.
class StepMarker::ContextScope {
 public:
  ContextScope(const CudaDriver& cuda, cuda::Context context) noexcept : cuda_(cuda) {
    cuda::Context current = nullptr;
    cuda.current_context(&current);
    is_pushed_ = current != context && cuda.push_context(context) == cuda::kSuccess;
  }
  ~ContextScope() {
    if (is_pushed_) cuda_.pop_context();
  }
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

 private:
  const CudaDriver& cuda_;
  bool is_pushed_ = false;
};

StepMarker::StepMarker(std::shared_ptr<const CudaDriver> cuda) : cuda_(std::move(cuda)) {
  try {
    load();
  } catch (...) {
    close();
    throw;
  }
}

void StepMarker::load() {
  require(cuda_->init(), "cuInit");
  require(cuda_->current_context(&context_), "cuCtxGetCurrent");
  if (context_ == nullptr) {
    require(cuda_->retain_primary(&context_, kFirstDevice), "cuDevicePrimaryCtxRetain");
    is_primary_retained_ = true;
  }
  const ContextScope scope(*cuda_, context_);
  require(cuda_->load_module(&module_, kPtx), "cuModuleLoadData");
  require(cuda_->find_function(&function_, module_, kKernel), "cuModuleGetFunction");
}

void StepMarker::launch(cuda::Stream stream, uint64_t sequence) const {
  if (function_ == nullptr) throw Error(ErrorCode::kInvalid, "the step marker is closed");
  const ContextScope scope(*cuda_, context_);
  const auto num_threads = static_cast<uint32_t>(1 + sequence % kMostThreads);
  const cuda::Result result = cuda_->launch(function_, num_threads, stream);
  if (result != cuda::kSuccess) {
    throw Error(ErrorCode::kInvalid,
                "cuLaunchKernel of the step marker failed with " + cuda_->result_name(result));
  }
}

void StepMarker::close() noexcept {
  if (!guard_.is_owner()) return;
  if (module_ != nullptr) {
    const ContextScope scope(*cuda_, context_);
    cuda_->unload_module(module_);
  }
  if (is_primary_retained_) cuda_->release_primary(kFirstDevice);
  module_ = nullptr;
  function_ = nullptr;
  is_primary_retained_ = false;
}

void StepMarker::require(cuda::Result result, const char* action) const {
  if (result == cuda::kSuccess) return;
  const bool has_no_device = result == cuda::kErrorNoDevice;
  throw Error(has_no_device ? ErrorCode::kNotFound : ErrorCode::kUnsupported,
              std::string(action) + " failed with " + cuda_->result_name(result));
}

}  // namespace qmeter
