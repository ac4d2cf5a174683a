// A libcuda.so.1 without a GPU. A launched kernel becomes an activity record of the fake libcupti, if that is
// loaded: on stream 7 for handle 0, else on the handle's own number. The first cuInit of a process loads the
// library that CUDA_INJECTION64_PATH names and calls its InitializeInjection, as the real one does; a library
// that does not load is passed over in silence. CUDA_VISIBLE_DEVICES may hold indices. The environment
// variable FAKE_CUDA="name=value,…" sets what fake_cuda_set sets.
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "abi/cuda_driver.h"
#include "abi/cupti.h"
#include "fake_cupti.h"

namespace cupti = qmeter::cupti;
namespace cuda = qmeter::cuda;

namespace {

constexpr uint32_t kDefaultStream = 7;
constexpr uint32_t kGraph = 1;
constexpr int64_t kFirstStartNs = 1'000'000;
constexpr uint8_t kUuidHead[] = {0xfa, 0x4e};  // the device's index follows

int primary_context = 0;  // only their addresses count
int loaded_module = 0;

thread_local cuda::Context current = nullptr;

std::mutex mutex;
std::set<std::string> function_names;  // never erased: activity records point to them
const std::string* loaded_function = nullptr;
int64_t last_end_ns = 0;
pid_t initialized_pid = 0;

using Values = std::map<std::string, int64_t>;

Values initial_values() {
  Values values = {{"init_result", 0}, {"load_result", 0}, {"launch_result", 0},    {"num_devices", 1},
                   {"device", 0},      {"is_realtime", 0}, {"kernel_ns", 500},      {"injections", 0},
                   {"modules", 0},     {"launches", 0},    {"primary_retained", 0}, {"last_threads", 0}};
  const char* environment = std::getenv("FAKE_CUDA");
  std::istringstream entries(environment != nullptr ? environment : "");
  for (std::string entry; std::getline(entries, entry, ',');) {
    const size_t equals = entry.find('=');
    if (equals != std::string::npos) values[entry.substr(0, equals)] = std::atoll(entry.c_str() + equals + 1);
  }
  return values;
}

Values values = initial_values();

// A forked child must be able to call cuInit, whatever other threads did at that moment.
const int fork_handlers =
    pthread_atfork([] { mutex.lock(); }, [] { mutex.unlock(); }, [] { mutex.unlock(); });

int64_t value(const char* name) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = values.find(name);
  return found != values.end() ? found->second : -1;
}

void add(const char* name, int64_t amount) {
  const std::lock_guard<std::mutex> lock(mutex);
  values[name] += amount;
}

int64_t realtime_ns() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// NVML's indices of the GPUs that CUDA shows, in CUDA's order.
std::vector<int64_t> visible_devices() {
  std::vector<int64_t> devices;
  const int64_t num_devices = value("num_devices");
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible == nullptr) {
    for (int64_t device = 0; device < num_devices; ++device) devices.push_back(device);
    return devices;
  }
  std::istringstream entries(visible);
  for (std::string entry; std::getline(entries, entry, ',');) {
    const int64_t device = std::atoll(entry.c_str());
    if (device >= num_devices) break;
    devices.push_back(device);
  }
  return devices;
}

void load_injection() {
  const char* path = std::getenv("CUDA_INJECTION64_PATH");
  void* library = path != nullptr ? dlopen(path, RTLD_NOW) : nullptr;
  if (library == nullptr) return;
  const auto initialize = reinterpret_cast<int (*)()>(dlsym(library, "InitializeInjection"));
  if (initialize == nullptr) return;
  add("injections", 1);
  initialize();
}

// The name of the entry in PTX text.
std::string entry_of(const char* ptx) {
  constexpr const char* kEntry = ".entry ";
  const char* begin = std::strstr(ptx, kEntry);
  if (begin == nullptr) return "";
  begin += std::strlen(kEntry);
  return {begin, std::strcspn(begin, "( \n")};
}

// Kernels run one after another, from the moment of their launch on; or at fixed times, `kernel_ns` long
// each.
void set_times(FakeActivity& activity) {
  const int64_t kernel_ns = value("kernel_ns");
  const bool is_realtime = value("is_realtime") != 0;
  const int64_t sequence = value("launches");
  const std::lock_guard<std::mutex> lock(mutex);
  const int64_t start = is_realtime ? std::max(realtime_ns(), last_end_ns) : kFirstStartNs + 1000 * sequence;
  last_end_ns = start + kernel_ns;
  activity.start = static_cast<uint64_t>(start);
  activity.end = static_cast<uint64_t>(last_end_ns);
}

// Adds the path of a loaded libcupti to `paths`.
int add_if_cupti(dl_phdr_info* library, size_t, void* paths) {
  if (std::strstr(library->dlpi_name, "/libcupti.so.13") != nullptr)
    static_cast<std::vector<std::string>*>(paths)->push_back(library->dlpi_name);
  return 0;
}

// Of the loaded libcupti's the fake one: by its soname alone the real one would be found, if it came first.
decltype(&fake_cupti_emit) find_emit() {
  std::vector<std::string> paths;
  dl_iterate_phdr(add_if_cupti, &paths);
  for (const std::string& path : paths) {
    void* cupti = dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    void* emit = cupti != nullptr ? dlsym(cupti, "fake_cupti_emit") : nullptr;
    if (emit != nullptr) return reinterpret_cast<decltype(&fake_cupti_emit)>(emit);
  }
  return nullptr;
}

void record_launch(const std::string& name, uint32_t num_threads, cuda::Stream stream, uint64_t graph_node) {
  const auto emit = find_emit();
  if (emit == nullptr) return;
  FakeActivity activity{};
  set_times(activity);
  const auto handle = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(stream));
  activity.kind = cupti::kActivityConcurrentKernel;
  activity.name = name.c_str();
  activity.grid[0] = activity.grid[1] = activity.grid[2] = 1;
  activity.block[0] = static_cast<int32_t>(num_threads);
  activity.block[1] = activity.block[2] = 1;
  activity.device = static_cast<uint32_t>(value("device"));
  activity.stream = handle != 0 ? handle : kDefaultStream;
  activity.graph = graph_node != 0 ? kGraph : 0;
  activity.graph_node = graph_node;
  activity.correlation = static_cast<uint32_t>(value("launches"));
  emit(&activity, 1, 0);
}

}  // namespace

extern "C" {

// Control: init_result, load_result, launch_result, num_devices, device (on which kernels run),
// is_realtime (kernels get the time of their launch) and kernel_ns can be set; injections, primary_retained,
// modules, launches and last_threads can be read.
void fake_cuda_set(const char* name, int64_t amount) {
  const std::lock_guard<std::mutex> lock(mutex);
  values[name] = amount;
}
int64_t fake_cuda_get(const char* name) { return value(name); }
void fake_cuda_make_current(int is_current) { current = is_current != 0 ? &primary_context : nullptr; }

// Replay a graph of `num_nodes` kernels: nodes 1, 2, … of graph 1, each called `name`.
void fake_cuda_replay(const char* name, uint32_t num_nodes, cuda::Stream stream) {
  const std::string* kept = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    kept = &*function_names.emplace(name).first;
  }
  for (uint64_t node = 1; node <= num_nodes; ++node) record_launch(*kept, 128, stream, node);
  add("launches", 1);
}

cuda::Result cuInit(uint32_t) {
  const auto result = static_cast<cuda::Result>(value("init_result"));
  if (initialized_pid == getpid()) return result;
  load_injection();
  if (result == cuda::kSuccess) initialized_pid = getpid();
  return result;
}

cuda::Result cuGetErrorName(cuda::Result result, const char** name) {
  *name = result == cuda::kErrorNoDevice ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_UNKNOWN";
  return cuda::kSuccess;
}

cuda::Result cuDeviceGetCount(int32_t* count) {
  if (initialized_pid != getpid()) return cuda::kErrorNotInitialized;
  *count = static_cast<int32_t>(visible_devices().size());
  return cuda::kSuccess;
}

cuda::Result cuDeviceGetUuid_v2(cuda::Uuid* uuid, cuda::Device device) {
  if (initialized_pid != getpid()) return cuda::kErrorNotInitialized;
  const std::vector<int64_t> devices = visible_devices();
  if (device < 0 || static_cast<size_t>(device) >= devices.size()) return cuda::kErrorInvalidDevice;
  *uuid = {};
  std::memcpy(uuid->bytes, kUuidHead, sizeof kUuidHead);
  uuid->bytes[3] = static_cast<uint8_t>(devices[static_cast<size_t>(device)]);
  return cuda::kSuccess;
}

cuda::Result cuDeviceGetAttribute(int32_t* value, cuda::DeviceAttribute attribute, cuda::Device) {
  if (initialized_pid != getpid()) return cuda::kErrorNotInitialized;
  constexpr int32_t kNumSms = 132;
  constexpr int32_t kClockKhz = 1'400'000;
  *value = attribute == cuda::kAttributeMultiprocessorCount ? kNumSms : kClockKhz;
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
  {
    const std::lock_guard<std::mutex> lock(mutex);
    loaded_function = &*function_names.insert(entry_of(static_cast<const char*>(image))).first;
  }
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
  const std::lock_guard<std::mutex> lock(mutex);
  if (loaded_function == nullptr || *loaded_function != name) return kNotFound;
  *function = const_cast<std::string*>(loaded_function);
  return cuda::kSuccess;
}

cuda::Result cuLaunchKernel(cuda::Function function, uint32_t, uint32_t, uint32_t, uint32_t block_x, uint32_t,
                            uint32_t, uint32_t, cuda::Stream stream, void**, void**) {
  if (current == nullptr) return cuda::kErrorInvalidContext;
  const auto result = static_cast<cuda::Result>(value("launch_result"));
  if (result != cuda::kSuccess) return result;
  record_launch(*static_cast<const std::string*>(function), block_x, stream, 0);
  fake_cuda_set("last_threads", block_x);
  add("launches", 1);
  return cuda::kSuccess;
}

}  // extern "C"
