// The profiler of the fake libcupti: host objects and PM sampling without a GPU. Metrics called "unknown…" do
// not exist, each called "extra…" needs another pass. A start puts `pm_samples` samples into the hardware
// buffer, one interval apart from now on, unless `pm_is_live`: then they come as time passes. The value of
// metric m in the n-th sample of all is 1000 m + n. As CUPTI does, a decode takes all out of the hardware
// buffer and loses what does not fit into the image, and repeats the samples of an image that is not empty.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>
#include <limits>
#include <mutex>
#include <string>
#include <vector>

#include "abi/cupti_profiler.h"
#include "fake_cupti.h"

namespace cupti = qmeter::cupti;

namespace {

constexpr const char* kChips[] = {"GH100", "GA100"};
constexpr size_t kConfigBytes = 64;

struct Host {
  std::vector<std::string> metrics;
};

struct Sample {
  uint64_t start;
  uint64_t end;
  uint64_t number;
};

struct ImageHeader {
  uint64_t num_total;
  uint64_t num_populated;
};

struct Session {
  const uint8_t* config = nullptr;
  std::vector<uint8_t> config_copy;
  uint64_t interval = 0;
  bool is_started = false;
  uint64_t next_start = 0;  // of a live sample
  std::vector<Sample> hardware_buffer;
};

std::mutex mutex;  // of what follows
Session session;
uint64_t num_sampled = 0;

int64_t setting(const char* name) { return fake_cupti_get(name); }
cupti::Result result(const char* name) { return static_cast<cupti::Result>(setting(name)); }

uint64_t realtime_ns() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

bool begins_with(const std::string& text, const char* head) { return text.rfind(head, 0) == 0; }

Sample* samples_of(uint8_t* image) { return reinterpret_cast<Sample*>(image + sizeof(ImageHeader)); }
const Sample* samples_of(const uint8_t* image) {
  return reinterpret_cast<const Sample*>(image + sizeof(ImageHeader));
}

// Samples from now on, with what `pm_old_first`, `pm_stale` and `pm_hole` ask for.
void fill_hardware_buffer() {
  const uint64_t begin = realtime_ns();
  const auto hole = static_cast<uint64_t>(setting("pm_hole"));
  const auto count = static_cast<uint64_t>(setting("pm_samples"));
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t place = i + (i >= count / 2 ? hole : 0);
    const uint64_t age = i < static_cast<uint64_t>(setting("pm_stale")) ? 1'000'000'000 : 0;
    const uint64_t start = begin + place * session.interval - age;
    const bool is_old = i < static_cast<uint64_t>(setting("pm_old_first"));
    session.hardware_buffer.push_back({is_old ? 1 : start, start + session.interval, num_sampled++});
  }
}

// Samples that ended since the last call.
void sample_until_now() {
  if (setting("pm_is_live") == 0 || !session.is_started) return;
  const uint64_t now = realtime_ns();
  for (; session.next_start + session.interval <= now; session.next_start += session.interval) {
    session.hardware_buffer.push_back(
        {session.next_start, session.next_start + session.interval, num_sampled++});
    fake_cupti_add("pm_sampled", 1);
  }
}

bool is_config_intact() {
  return std::equal(session.config_copy.begin(), session.config_copy.end(), session.config);
}

}  // namespace

extern "C" {

cupti::Result cuptiProfilerInitialize(cupti::ProfilerInitializeParams*) {
  return result("pm_initialize_result");
}

cupti::Result cuptiProfilerDeviceSupported(cupti::DeviceSupportedParams* params) {
  const auto vgpu = static_cast<cupti::SupportLevel>(setting("pm_vgpu_support"));
  params->architecture = params->sli = params->cmp = params->wsl = cupti::kConfigurationSupported;
  params->confidential_compute = cupti::kConfigurationSupported;
  params->vgpu = vgpu;
  params->is_supported = vgpu;
  return cupti::kSuccess;
}

cupti::Result cuptiDeviceGetChipName(cupti::GetChipNameParams* params) {
  params->chip_name = kChips[setting("pm_chip")];
  return cupti::kSuccess;
}

cupti::Result cuptiProfilerHostGetSupportedChips(cupti::HostGetSupportedChipsParams* params) {
  params->num_chips = std::size(kChips);
  params->chip_names = kChips;
  return cupti::kSuccess;
}

cupti::Result cuptiProfilerHostInitialize(cupti::HostInitializeParams* params) {
  constexpr cupti::Result kInvalidChipName = 46;
  const std::string chip = params->chip_name;
  if (std::find(std::begin(kChips), std::end(kChips), chip) == std::end(kChips)) return kInvalidChipName;
  params->host = reinterpret_cast<cupti::HostObject*>(new Host);
  fake_cupti_add("pm_hosts", 1);
  return cupti::kSuccess;
}

cupti::Result cuptiProfilerHostDeinitialize(cupti::HostDeinitializeParams* params) {
  delete reinterpret_cast<Host*>(params->host);
  fake_cupti_add("pm_hosts", -1);
  return cupti::kSuccess;
}

cupti::Result cuptiProfilerHostGetMetricProperties(cupti::HostGetMetricPropertiesParams* params) {
  return begins_with(params->metric_name, "unknown") ? cupti::kErrorInvalidMetricName : cupti::kSuccess;
}

cupti::Result cuptiProfilerHostConfigAddMetrics(cupti::HostConfigAddMetricsParams* params) {
  auto& metrics = reinterpret_cast<Host*>(params->host)->metrics;
  metrics.assign(params->metric_names, params->metric_names + params->num_metrics);
  return cupti::kSuccess;
}

cupti::Result cuptiProfilerHostGetConfigImageSize(cupti::HostGetConfigImageSizeParams* params) {
  params->size = kConfigBytes;
  return cupti::kSuccess;
}

cupti::Result cuptiProfilerHostGetConfigImage(cupti::HostGetConfigImageParams* params) {
  const auto& metrics = reinterpret_cast<Host*>(params->host)->metrics;
  const auto num_extra = std::count_if(metrics.begin(), metrics.end(),
                                       [](const std::string& name) { return begins_with(name, "extra"); });
  std::memset(params->image, static_cast<int>(1 + num_extra), params->size);
  return cupti::kSuccess;
}

cupti::Result cuptiProfilerHostGetNumOfPasses(cupti::HostGetNumOfPassesParams* params) {
  params->num_passes = params->image[0];
  return cupti::kSuccess;
}

cupti::Result cuptiProfilerHostEvaluateToGpuValues(cupti::HostEvaluateParams* params) {
  const cupti::Result refusal = result("pm_evaluate_result");
  if (refusal != cupti::kSuccess) return refusal;
  const uint64_t number = samples_of(params->image)[params->index].number;
  for (size_t metric = 0; metric < params->num_metrics; ++metric) {
    const bool is_nan = setting("pm_nan_metric") == static_cast<int64_t>(metric);
    params->values[metric] =
        is_nan ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(1000 * metric + number);
  }
  return cupti::kSuccess;
}

cupti::Result cuptiPmSamplingGetCounterAvailability(cupti::PmSamplingGetCounterAvailabilityParams* params) {
  params->size = 16;
  return result("pm_availability_result");
}

cupti::Result cuptiPmSamplingEnable(cupti::PmSamplingEnableParams* params) {
  const cupti::Result refusal = result("pm_enable_result");
  if (refusal != cupti::kSuccess) return refusal;
  if (setting("pm_enabled") > 0) return cupti::kErrorInvalidOperation;
  const std::lock_guard<std::mutex> lock(mutex);
  session = Session{};
  num_sampled = 0;
  fake_cupti_add("pm_enabled", 1);
  params->object = reinterpret_cast<cupti::PmSamplingObject*>(&session);
  return cupti::kSuccess;
}

cupti::Result cuptiPmSamplingDisable(cupti::PmSamplingObjectParams*) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!is_config_intact()) fake_cupti_add("pm_lost_configs", 1);
  fake_cupti_add("pm_enabled", -1);
  return cupti::kSuccess;
}

cupti::Result cuptiPmSamplingSetConfig(cupti::PmSamplingSetConfigParams* params) {
  const bool is_by_time = params->trigger_mode == cupti::kTriggerTimeInterval;
  const cupti::Result refusal = result(is_by_time ? "pm_time_trigger_result" : "pm_config_result");
  if (refusal != cupti::kSuccess) return refusal;
  const std::lock_guard<std::mutex> lock(mutex);
  session.config = params->config;
  session.config_copy.assign(params->config, params->config + params->config_size);
  session.interval = params->sampling_interval;
  return cupti::kSuccess;
}

cupti::Result cuptiPmSamplingStart(cupti::PmSamplingObjectParams*) {
  const cupti::Result refusal = result("pm_start_result");
  const std::lock_guard<std::mutex> lock(mutex);
  if (refusal != cupti::kSuccess) return refusal;
  if (session.is_started) return cupti::kErrorInvalidOperation;
  session.is_started = true;
  session.hardware_buffer.clear();
  fake_cupti_add("pm_starts", 1);
  session.next_start = realtime_ns();
  if (setting("pm_is_live") == 0) fill_hardware_buffer();
  return cupti::kSuccess;
}

cupti::Result cuptiPmSamplingStop(cupti::PmSamplingObjectParams*) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!session.is_started) return cupti::kErrorInvalidOperation;
  sample_until_now();
  session.is_started = false;
  fake_cupti_add("pm_stops", 1);
  return cupti::kSuccess;
}

cupti::Result cuptiPmSamplingGetCounterDataSize(cupti::PmSamplingGetCounterDataSizeParams* params) {
  params->size = sizeof(ImageHeader) + params->max_samples * sizeof(Sample);
  return cupti::kSuccess;
}

cupti::Result cuptiPmSamplingCounterDataImageInitialize(cupti::PmSamplingInitializeImageParams* params) {
  auto* header = reinterpret_cast<ImageHeader*>(params->image);
  *header = {(params->size - sizeof(ImageHeader)) / sizeof(Sample), 0};
  fake_cupti_add("pm_initialized_images", 1);
  return cupti::kSuccess;
}

cupti::Result cuptiPmSamplingDecodeData(cupti::PmSamplingDecodeParams* params) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (!is_config_intact()) fake_cupti_add("pm_lost_configs", 1);
  fake_cupti_add("pm_decodes", 1);
  const cupti::Result refusal = result("pm_decode_result");
  if (refusal != cupti::kSuccess) return refusal;
  sample_until_now();
  auto* header = reinterpret_cast<ImageHeader*>(params->image);
  Sample* samples = samples_of(params->image);
  const uint64_t num_before = header->num_populated;
  const uint64_t num_fitting =
      std::min<uint64_t>(session.hardware_buffer.size(), header->num_total - num_before);
  for (uint64_t i = 0; i < num_fitting; ++i) {
    samples[num_before + i] = num_before == 0 ? session.hardware_buffer[i] : samples[i % num_before];
  }
  header->num_populated += num_fitting;
  const bool is_full = num_fitting < session.hardware_buffer.size();
  if (num_before > 0) fake_cupti_add("pm_repeats", static_cast<int64_t>(num_fitting));
  session.hardware_buffer.clear();
  params->stop_reason = is_full ? cupti::kDecodeCounterDataFull : cupti::kDecodeEndOfRecords;
  params->overflow = setting("pm_overflow") != 0 ? 1 : 0;
  return params->overflow != 0 ? cupti::kErrorOutOfMemory : cupti::kSuccess;
}

cupti::Result cuptiPmSamplingGetCounterDataInfo(cupti::PmSamplingGetCounterDataInfoParams* params) {
  const auto* header = reinterpret_cast<const ImageHeader*>(params->image);
  params->num_total = header->num_total;
  params->num_populated = params->num_completed = header->num_populated;
  return cupti::kSuccess;
}

cupti::Result cuptiPmSamplingCounterDataGetSampleInfo(cupti::PmSamplingGetSampleInfoParams* params) {
  const Sample& sample = samples_of(params->image)[params->index];
  params->start = sample.start;
  params->end = sample.end;
  return cupti::kSuccess;
}

}  // extern "C"
