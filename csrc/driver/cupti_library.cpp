#include <utility>

#include "base/error.h"
#include "base/shared_library.h"
#include "driver/cupti.h"

namespace qmeter {
namespace {

// A subscriber must have a callback; none is ever enabled, so this is never called.
void ignore_callback(void*, int32_t, uint32_t, const void*) {}

class CuptiLibrary final : public Cupti {
 public:
  explicit CuptiLibrary(SharedLibrary library) : library_(std::move(library)) {
    library_.pin();  // it has threads of its own and holds our callbacks
    const auto get_version = library_.require<cupti::cuptiGetVersion*>("cuptiGetVersion");
    if (get_version(&version_) != cupti::kSuccess || version_ < cupti::kOldestVersion) {
      throw Error(ErrorCode::kUnsupported, path() + " is CUPTI API version " + std::to_string(version_) +
                                               "; 18 (CUDA 12.0) or newer is needed");
    }
  }

  const std::string& path() const noexcept override { return library_.path(); }
  uint32_t version() const noexcept override { return version_; }

  std::string result_name(cupti::Result result) const override {
    const char* name = nullptr;
    const auto get = library_.find<cupti::cuptiGetResultString*>("cuptiGetResultString");
    if (get != nullptr && get(result, &name) == cupti::kSuccess && name != nullptr) return name;
    return "CUPTI error " + std::to_string(result);
  }

  cupti::Result timestamp(uint64_t* now_ns) const noexcept override { return timestamp_(now_ns); }
  cupti::Result subscribe(cupti::Subscriber* subscriber) const noexcept override {
    return subscribe_(subscriber, ignore_callback, nullptr);
  }
  cupti::Result unsubscribe(cupti::Subscriber subscriber) const noexcept override {
    return unsubscribe_(subscriber);
  }
  cupti::Result register_callbacks(cupti::BufferRequested requested,
                                   cupti::BufferCompleted completed) const noexcept override {
    return register_callbacks_(requested, completed);
  }
  cupti::Result enable(cupti::ActivityKind kind) const noexcept override { return enable_(kind); }
  cupti::Result disable(cupti::ActivityKind kind) const noexcept override { return disable_(kind); }
  cupti::Result set_zeroed_buffers(bool are_zeroed) const noexcept override {
    uint8_t value = are_zeroed ? 1 : 0;
    size_t size = sizeof value;
    return set_attribute_(cupti::kAttributeZeroedOutActivityBuffer, &size, &value);
  }
  cupti::Result set_flush_period(uint32_t milliseconds) const noexcept override {
    return set_flush_period_(milliseconds);
  }
  cupti::Result flush_all(uint32_t flags) const noexcept override { return flush_all_(flags); }
  cupti::Result next_record(uint8_t* buffer, size_t valid_size,
                            cupti::Activity** record) const noexcept override {
    return next_record_(buffer, valid_size, record);
  }
  cupti::Result num_dropped_records(cupti::Context context, uint32_t stream,
                                    size_t* dropped) const noexcept override {
    return num_dropped_records_(context, stream, dropped);
  }

 private:
  SharedLibrary library_;
  uint32_t version_ = 0;

  cupti::cuptiGetTimestamp* const timestamp_ =
      library_.require<cupti::cuptiGetTimestamp*>("cuptiGetTimestamp");
  cupti::cuptiSubscribe* const subscribe_ = library_.require<cupti::cuptiSubscribe*>("cuptiSubscribe");
  cupti::cuptiUnsubscribe* const unsubscribe_ =
      library_.require<cupti::cuptiUnsubscribe*>("cuptiUnsubscribe");
  cupti::cuptiActivityRegisterCallbacks* const register_callbacks_ =
      library_.require<cupti::cuptiActivityRegisterCallbacks*>("cuptiActivityRegisterCallbacks");
  cupti::cuptiActivityEnable* const enable_ =
      library_.require<cupti::cuptiActivityEnable*>("cuptiActivityEnable");
  cupti::cuptiActivityDisable* const disable_ =
      library_.require<cupti::cuptiActivityDisable*>("cuptiActivityDisable");
  cupti::cuptiActivitySetAttribute* const set_attribute_ =
      library_.require<cupti::cuptiActivitySetAttribute*>("cuptiActivitySetAttribute");
  cupti::cuptiActivityFlushPeriod* const set_flush_period_ =
      library_.require<cupti::cuptiActivityFlushPeriod*>("cuptiActivityFlushPeriod");
  cupti::cuptiActivityFlushAll* const flush_all_ =
      library_.require<cupti::cuptiActivityFlushAll*>("cuptiActivityFlushAll");
  cupti::cuptiActivityGetNextRecord* const next_record_ =
      library_.require<cupti::cuptiActivityGetNextRecord*>("cuptiActivityGetNextRecord");
  cupti::cuptiActivityGetNumDroppedRecords* const num_dropped_records_ =
      library_.require<cupti::cuptiActivityGetNumDroppedRecords*>("cuptiActivityGetNumDroppedRecords");
};

}  // namespace

std::shared_ptr<const Cupti> load_cupti(const std::string& path_or_soname, bool only_if_loaded) {
  const auto mode = only_if_loaded ? SharedLibrary::Mode::kOnlyIfLoaded : SharedLibrary::Mode::kLoad;
  return std::make_shared<CuptiLibrary>(SharedLibrary(path_or_soname, mode));
}

}  // namespace qmeter
