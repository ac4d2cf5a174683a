// A libcuda.so.1 without a GPU. A launched kernel becomes an activity record of the fake libcupti, if that is
// loaded: on stream 7 for handle 0, else on the handle's own number.
#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "abi/cuda_driver.h"
#include "abi/cupti.h"
#include "fake_cupti.h"

namespace cupti = qmeter::cupti;
namespace cuda = qmeter::cuda;

namespace {

constexpr uint32_t kDefaultStream = 7;
constexpr uint64_t kFirstStartNs = 1'000'000;

int primary_context = 0;  // only their addresses count
int loaded_module = 0;

thread_local cuda::Context current = nullptr;

std::mutex mutex;
std::map<std::string, int64_t> values = {{"init_result", 0},      {"load_result", 0}, {"launch_result", 0},
                                         {"primary_retained", 0}, {"modules", 0},     {"launches", 0},
                                         {"last_threads", 0}};
std::string function_name;

int64_t value(const char* name) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = values.find(name);
  return found != values.end() ? found->second : -1;
}

void add(const char* name, int64_t amount) {
  const std::lock_guard<std::mutex> lock(mutex);
  values[name] += amount;
}

// The name of the entry in PTX text.
std::string entry_of(const char* ptx) {
  constexpr const char* kEntry = ".entry ";
  const char* begin = std::strstr(ptx, kEntry);
  if (begin == nullptr) return "";
  begin += std::strlen(kEntry);
  return {begin, std::strcspn(begin, "( \n")};
}

void record_launch(uint32_t num_threads, uint32_t stream, uint64_t sequence) {
  void* cupti = dlopen("libcupti.so.13", RTLD_LAZY | RTLD_NOLOAD);
  if (cupti == nullptr) return;
  const auto emit = reinterpret_cast<decltype(&fake_cupti_emit)>(dlsym(cupti, "fake_cupti_emit"));
  if (emit == nullptr) return;
  FakeActivity activity{};
  activity.kind = cupti::kActivityConcurrentKernel;
  activity.start = kFirstStartNs + 1000 * sequence;
  activity.end = activity.start + 500;
  activity.name = function_name.c_str();
  activity.grid[0] = activity.grid[1] = activity.grid[2] = 1;
  activity.block[0] = static_cast<int32_t>(num_threads);
  activity.block[1] = activity.block[2] = 1;
  activity.stream = stream;
  emit(&activity, 1, 0);
}

}  // namespace

extern "C" {

// Control: init_result, load_result and launch_result can be set; primary_retained, modules, launches and
// last_threads can be read.
void fake_cuda_set(const char* name, int64_t amount) {
  const std::lock_guard<std::mutex> lock(mutex);
  values[name] = amount;
}
int64_t fake_cuda_get(const char* name) { return value(name); }
void fake_cuda_make_current(int is_current) { current = is_current != 0 ? &primary_context : nullptr; }

cuda::Result cuInit(uint32_t) { return static_cast<cuda::Result>(value("init_result")); }

cuda::Result cuGetErrorName(cuda::Result result, const char** name) {
  *name = result == cuda::kErrorNoDevice ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_UNKNOWN";
  return cuda::kSuccess;
}

cuda::Result cuCtxGetCurrent(cuda::Context* context) {
  *context = current;
  return cuda::kSuccess;
}

cuda::Result cuCtxPushCurrent_v2(cuda::Context context) {
  current = context;
  return cuda::kSuccess;
}

cuda::Result cuCtxPopCurrent_v2(cuda::Context* context) {
  *context = current;
  current = nullptr;
  return cuda::kSuccess;
}

cuda::Result cuDevicePrimaryCtxRetain(cuda::Context* context, cuda::Device) {
  add("primary_retained", 1);
  *context = &primary_context;
  return cuda::kSuccess;
}

cuda::Result cuDevicePrimaryCtxRelease_v2(cuda::Device) {
  add("primary_retained", -1);
  return cuda::kSuccess;
}

cuda::Result cuModuleLoadData(cuda::Module* module, const void* image) {
  const auto result = static_cast<cuda::Result>(value("load_result"));
  if (current == nullptr) return cuda::kErrorInvalidContext;
  if (result != cuda::kSuccess) return result;
  function_name = entry_of(static_cast<const char*>(image));
  add("modules", 1);
  *module = &loaded_module;
  return cuda::kSuccess;
}

cuda::Result cuModuleUnload(cuda::Module) {
  if (current == nullptr) return cuda::kErrorInvalidContext;
  add("modules", -1);
  return cuda::kSuccess;
}

cuda::Result cuModuleGetFunction(cuda::Function* function, cuda::Module, const char* name) {
  constexpr cuda::Result kNotFound = 500;
  if (function_name != name) return kNotFound;
  *function = &function_name;
  return cuda::kSuccess;
}

cuda::Result cuLaunchKernel(cuda::Function, uint32_t, uint32_t, uint32_t, uint32_t block_x, uint32_t,
                            uint32_t, uint32_t, cuda::Stream stream, void**, void**) {
  if (current == nullptr) return cuda::kErrorInvalidContext;
  const auto result = static_cast<cuda::Result>(value("launch_result"));
  if (result != cuda::kSuccess) return result;
  const auto handle = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(stream));
  record_launch(block_x, handle != 0 ? handle : kDefaultStream, static_cast<uint64_t>(value("launches")));
  fake_cuda_set("last_threads", block_x);
  add("launches", 1);
  return cuda::kSuccess;
}

}  // extern "C"
