#include <new>
#include <utility>

#include "base/error.h"
#include "base/shared_library.h"
#include "driver/cupti_profiler.h"

namespace qmeter {
namespace {

// CUPTI opens these by name alone, so that the loader may find another version's or none (pip's wheels are in
// no search path). What is loaded already under that name comes first: load CUPTI's own neighbours.
constexpr const char* kNeighbours[] = {"libnvperf_host.so", "libnvperf_target.so"};

void load_neighbours(const std::string& cupti_path) {
  const size_t slash = cupti_path.rfind('/');
  if (slash == std::string::npos) return;
  for (const char* name : kNeighbours) {
    try {
      SharedLibrary(cupti_path.substr(0, slash + 1) + name).pin();
    } catch (const Error&) {  // a system's CUPTI: the loader knows where they are
    }
  }
}

std::vector<const char*> pointers_to(const MetricNames& names) {
  std::vector<const char*> pointers;
  for (const std::string& name : names) pointers.push_back(name.c_str());
  return pointers;
}

// What `body` returns; without memory, CUPTI's word for it.
template <typename Body>
cupti::Result guarded(Body body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return cupti::kErrorOutOfMemory;
  } catch (...) {
    return cupti::kErrorUnknown;
  }
}

class CuptiProfilerLibrary final : public CuptiProfiler {
 public:
  explicit CuptiProfilerLibrary(SharedLibrary library) : library_(std::move(library)) {
    library_.pin();
    const auto get_version = library_.require<cupti::cuptiGetVersion*>("cuptiGetVersion");
    if (get_version(&version_) != cupti::kSuccess || version_ < cupti::kOldestPmSamplingVersion) {
      throw Error(ErrorCode::kUnsupported, path() + " is CUPTI API version " + std::to_string(version_) +
                                               "; PM sampling needs 26 (CUDA 12.8) or newer");
    }
    load_neighbours(path());
  }

  const std::string& path() const noexcept override { return library_.path(); }
  uint32_t version() const noexcept override { return version_; }

  std::string result_name(cupti::Result result) const override {
    const char* name = nullptr;
    const auto get = library_.find<cupti::cuptiGetResultString*>("cuptiGetResultString");
    if (get != nullptr && get(result, &name) == cupti::kSuccess && name != nullptr) return name;
    return "CUPTI error " + std::to_string(result);
  }

  cupti::Result initialize() const noexcept override {
    cupti::ProfilerInitializeParams params;
    return initialize_(&params);
  }

  cupti::Result device_support(cupti::DeviceSupportedParams& support,
                               int32_t device) const noexcept override {
    support.device = device;
    support.api = cupti::kProfilerApiPmSampling;
    return device_supported_(&support);
  }

  cupti::Result chip_name(std::string& chip, size_t device) const noexcept override {
    return guarded([&] {
      cupti::GetChipNameParams params;
      params.device_index = device;
      const cupti::Result result = get_chip_name_(&params);
      if (result == cupti::kSuccess && params.chip_name != nullptr) chip = params.chip_name;
      return result;
    });
  }

  cupti::Result counter_availability(CuptiImage& image, size_t device) const noexcept override {
    return guarded([&] {
      cupti::PmSamplingGetCounterAvailabilityParams params;
      params.device_index = device;
      const cupti::Result result = get_counter_availability_(&params);
      if (result != cupti::kSuccess) return result;
      image.resize(params.size);
      params.image = image.data();
      return get_counter_availability_(&params);
    });
  }

  cupti::Result supported_chips(std::vector<std::string>& chips) const noexcept override {
    return guarded([&] {
      cupti::HostGetSupportedChipsParams params;
      const cupti::Result result = get_supported_chips_(&params);
      if (result == cupti::kSuccess) chips.assign(params.chip_names, params.chip_names + params.num_chips);
      return result;
    });
  }

  cupti::Result create_host(cupti::HostObject*& host, const std::string& chip,
                            const CuptiImage& availability) const noexcept override {
    cupti::HostInitializeParams params;
    params.profiler_type = cupti::kProfilerPmSampling;
    params.chip_name = chip.c_str();
    params.counter_availability = availability.empty() ? nullptr : availability.data();
    const cupti::Result result = host_initialize_(&params);
    if (result == cupti::kSuccess) host = params.host;
    return result;
  }

  cupti::Result destroy_host(cupti::HostObject* host) const noexcept override {
    cupti::HostDeinitializeParams params;
    params.host = host;
    return host_deinitialize_(&params);
  }

  cupti::Result find_metric(cupti::HostObject* host, const std::string& name) const noexcept override {
    cupti::HostGetMetricPropertiesParams params;
    params.host = host;
    params.metric_name = name.c_str();
    return get_metric_properties_(&params);
  }

  cupti::Result add_metrics(cupti::HostObject* host, const MetricNames& names) const noexcept override {
    return guarded([&] {
      std::vector<const char*> pointers = pointers_to(names);
      cupti::HostConfigAddMetricsParams params;
      params.host = host;
      params.metric_names = pointers.data();
      params.num_metrics = pointers.size();
      return add_metrics_(&params);
    });
  }

  cupti::Result config_image(CuptiImage& image, cupti::HostObject* host) const noexcept override {
    return guarded([&] {
      cupti::HostGetConfigImageSizeParams size;
      size.host = host;
      const cupti::Result result = get_config_image_size_(&size);
      if (result != cupti::kSuccess) return result;
      image.resize(size.size);
      cupti::HostGetConfigImageParams params;
      params.host = host;
      params.size = image.size();
      params.image = image.data();
      return get_config_image_(&params);
    });
  }

  cupti::Result num_passes(size_t& num_passes, const CuptiImage& config) const noexcept override {
    cupti::HostGetNumOfPassesParams params;
    params.size = config.size();
    params.image = config.data();
    const cupti::Result result = get_num_of_passes_(&params);
    if (result == cupti::kSuccess) num_passes = params.num_passes;
    return result;
  }

  cupti::Result evaluate(double* values, cupti::HostObject* host, const CuptiImage& image, size_t index,
                         const std::vector<const char*>& names) const noexcept override {
    cupti::HostEvaluateParams params;
    params.host = host;
    params.image = image.data();
    params.image_size = image.size();
    params.index = index;
    params.metric_names = const_cast<const char**>(names.data());
    params.num_metrics = names.size();
    params.values = values;
    return evaluate_(&params);
  }

  cupti::Result enable(cupti::PmSamplingObject*& object, size_t device) const noexcept override {
    cupti::PmSamplingEnableParams params;
    params.device_index = device;
    const cupti::Result result = enable_(&params);
    if (result == cupti::kSuccess) object = params.object;
    return result;
  }

  cupti::Result disable(cupti::PmSamplingObject* object) const noexcept override {
    return call(disable_, object);
  }

  cupti::Result configure(cupti::PmSamplingObject* object,
                          const PmSamplingSettings& settings) const noexcept override {
    cupti::PmSamplingSetConfigParams params;
    params.object = object;
    params.config_size = settings.config->size();
    params.config = settings.config->data();
    params.hardware_buffer_size = settings.hardware_buffer_bytes;
    params.sampling_interval = settings.interval;
    params.trigger_mode = settings.trigger;
    params.append_mode = cupti::kAppendKeepOldest;
    return set_config_(&params);
  }

  cupti::Result start(cupti::PmSamplingObject* object) const noexcept override {
    return call(start_, object);
  }
  cupti::Result stop(cupti::PmSamplingObject* object) const noexcept override { return call(stop_, object); }

  cupti::Result image_bytes(size_t& bytes, cupti::PmSamplingObject* object, const MetricNames& names,
                            uint32_t max_samples) const noexcept override {
    return guarded([&] {
      std::vector<const char*> pointers = pointers_to(names);
      cupti::PmSamplingGetCounterDataSizeParams params;
      params.object = object;
      params.metric_names = pointers.data();
      params.num_metrics = pointers.size();
      params.max_samples = max_samples;
      const cupti::Result result = get_counter_data_size_(&params);
      if (result == cupti::kSuccess) bytes = params.size;
      return result;
    });
  }

  cupti::Result initialize_image(CuptiImage& image, cupti::PmSamplingObject* object) const noexcept override {
    cupti::PmSamplingInitializeImageParams params;
    params.object = object;
    params.size = image.size();
    params.image = image.data();
    return initialize_image_(&params);
  }

  cupti::Result decode(PmDecodeEnd& end, CuptiImage& image,
                       cupti::PmSamplingObject* object) const noexcept override {
    cupti::PmSamplingDecodeParams params;
    params.object = object;
    params.image = image.data();
    params.size = image.size();
    const cupti::Result result = decode_(&params);
    end = {params.stop_reason, params.overflow != 0 || result == cupti::kErrorOutOfMemory};
    return result;
  }

  cupti::Result image_info(PmImageInfo& info, const CuptiImage& image) const noexcept override {
    cupti::PmSamplingGetCounterDataInfoParams params;
    params.image = image.data();
    params.size = image.size();
    const cupti::Result result = get_counter_data_info_(&params);
    if (result == cupti::kSuccess) info = {params.num_total, params.num_populated, params.num_completed};
    return result;
  }

  cupti::Result sample_times(PmSampleTimes& times, cupti::PmSamplingObject* object, const CuptiImage& image,
                             size_t index) const noexcept override {
    cupti::PmSamplingGetSampleInfoParams params;
    params.object = object;
    params.image = image.data();
    params.size = image.size();
    params.index = index;
    const cupti::Result result = get_sample_info_(&params);
    if (result == cupti::kSuccess)
      times = {static_cast<int64_t>(params.start), static_cast<int64_t>(params.end)};
    return result;
  }

 private:
  using ObjectCall = cupti::Result(cupti::PmSamplingObjectParams*);

  static cupti::Result call(ObjectCall* function, cupti::PmSamplingObject* object) noexcept {
    cupti::PmSamplingObjectParams params;
    params.object = object;
    return function(&params);
  }

  SharedLibrary library_;
  uint32_t version_ = 0;

#define QMETER_FUNCTION(member, name) cupti::name* const member = library_.require<cupti::name*>(#name)
  QMETER_FUNCTION(initialize_, cuptiProfilerInitialize);
  QMETER_FUNCTION(device_supported_, cuptiProfilerDeviceSupported);
  QMETER_FUNCTION(get_chip_name_, cuptiDeviceGetChipName);
  QMETER_FUNCTION(get_supported_chips_, cuptiProfilerHostGetSupportedChips);
  QMETER_FUNCTION(host_initialize_, cuptiProfilerHostInitialize);
  QMETER_FUNCTION(host_deinitialize_, cuptiProfilerHostDeinitialize);
  QMETER_FUNCTION(get_metric_properties_, cuptiProfilerHostGetMetricProperties);
  QMETER_FUNCTION(add_metrics_, cuptiProfilerHostConfigAddMetrics);
  QMETER_FUNCTION(get_config_image_size_, cuptiProfilerHostGetConfigImageSize);
  QMETER_FUNCTION(get_config_image_, cuptiProfilerHostGetConfigImage);
  QMETER_FUNCTION(get_num_of_passes_, cuptiProfilerHostGetNumOfPasses);
  QMETER_FUNCTION(evaluate_, cuptiProfilerHostEvaluateToGpuValues);
  QMETER_FUNCTION(get_counter_availability_, cuptiPmSamplingGetCounterAvailability);
  QMETER_FUNCTION(enable_, cuptiPmSamplingEnable);
  QMETER_FUNCTION(disable_, cuptiPmSamplingDisable);
  QMETER_FUNCTION(set_config_, cuptiPmSamplingSetConfig);
  QMETER_FUNCTION(start_, cuptiPmSamplingStart);
  QMETER_FUNCTION(stop_, cuptiPmSamplingStop);
  QMETER_FUNCTION(get_counter_data_size_, cuptiPmSamplingGetCounterDataSize);
  QMETER_FUNCTION(initialize_image_, cuptiPmSamplingCounterDataImageInitialize);
  QMETER_FUNCTION(decode_, cuptiPmSamplingDecodeData);
  QMETER_FUNCTION(get_counter_data_info_, cuptiPmSamplingGetCounterDataInfo);
  QMETER_FUNCTION(get_sample_info_, cuptiPmSamplingCounterDataGetSampleInfo);
#undef QMETER_FUNCTION
};

}  // namespace

std::shared_ptr<const CuptiProfiler> load_cupti_profiler(const std::string& path) {
  return std::make_shared<CuptiProfilerLibrary>(SharedLibrary(path));
}

}  // namespace qmeter
