#include <utility>

#include "base/error.h"
#include "base/shared_library.h"
#include "driver/cupti.h"

namespace qmeter {
namespace {

using abi::CuptiResult;

// CUPTI has no way to unsubscribe a null callback, so give it one that does nothing: no callback is ever
// enabled.
void ignore_callback(void*, int32_t, uint32_t, const void*) {}

class CuptiLibrary final : public Cupti {
 public:
  explicit CuptiLibrary(SharedLibrary library) : library_(std::move(library)) {
    library_.pin();  // it has threads of its own and holds our callbacks
    const auto get_version = library_.require<CuptiResult (*)(uint32_t*)>("cuptiGetVersion");
    if (get_version(&version_) != abi::kCuptiSuccess || version_ < abi::kCuptiOldestVersion) {
      throw Error(ErrorCode::kUnsupported, path() + " is CUPTI API version " + std::to_string(version_) +
                                               "; 18 (CUDA 12.0) or newer is needed");
    }
  }

  const std::string& path() const noexcept override { return library_.path(); }
  uint32_t version() const noexcept override { return version_; }

  std::string result_name(CuptiResult result) const override {
    const char* name = nullptr;
    const auto get = library_.find<CuptiResult (*)(CuptiResult, const char**)>("cuptiGetResultString");
    if (get != nullptr && get(result, &name) == abi::kCuptiSuccess && name != nullptr) return name;
    return "CUPTI error " + std::to_string(result);
  }

  CuptiResult subscribe(abi::CuptiSubscriber* subscriber) const noexcept override {
    return subscribe_(subscriber, ignore_callback, nullptr);
  }
  CuptiResult unsubscribe(abi::CuptiSubscriber subscriber) const noexcept override {
    return unsubscribe_(subscriber);
  }
  CuptiResult register_callbacks(abi::CuptiBufferRequested requested,
                                 abi::CuptiBufferCompleted completed) const noexcept override {
    return register_callbacks_(requested, completed);
  }
  CuptiResult enable(abi::CuptiActivityKind kind) const noexcept override { return enable_(kind); }
  CuptiResult disable(abi::CuptiActivityKind kind) const noexcept override { return disable_(kind); }
  CuptiResult set_zeroed_buffers(bool are_zeroed) const noexcept override {
    uint8_t value = are_zeroed ? 1 : 0;
    size_t size = sizeof value;
    return set_attribute_(abi::kCuptiAttributeZeroedOutActivityBuffer, &size, &value);
  }
  CuptiResult set_flush_period(uint32_t milliseconds) const noexcept override {
    return set_flush_period_(milliseconds);
  }
  CuptiResult flush_all(uint32_t flags) const noexcept override { return flush_all_(flags); }
  CuptiResult next_record(uint8_t* buffer, size_t valid_size,
                          abi::CuptiActivity** record) const noexcept override {
    return next_record_(buffer, valid_size, record);
  }
  CuptiResult num_dropped_records(abi::CuptiContext context, uint32_t stream,
                                  size_t* dropped) const noexcept override {
    return num_dropped_records_(context, stream, dropped);
  }

 private:
  template <typename... Arguments>
  using Function = CuptiResult (*)(Arguments...);

  SharedLibrary library_;
  uint32_t version_ = 0;

  const Function<abi::CuptiSubscriber*, abi::CuptiCallback, void*> subscribe_ =
      library_.require<decltype(subscribe_)>("cuptiSubscribe");
  const Function<abi::CuptiSubscriber> unsubscribe_ =
      library_.require<decltype(unsubscribe_)>("cuptiUnsubscribe");
  const Function<abi::CuptiBufferRequested, abi::CuptiBufferCompleted> register_callbacks_ =
      library_.require<decltype(register_callbacks_)>("cuptiActivityRegisterCallbacks");
  const Function<abi::CuptiActivityKind> enable_ = library_.require<decltype(enable_)>("cuptiActivityEnable");
  const Function<abi::CuptiActivityKind> disable_ =
      library_.require<decltype(disable_)>("cuptiActivityDisable");
  const Function<int32_t, size_t*, void*> set_attribute_ =
      library_.require<decltype(set_attribute_)>("cuptiActivitySetAttribute");
  const Function<uint32_t> set_flush_period_ =
      library_.require<decltype(set_flush_period_)>("cuptiActivityFlushPeriod");
  const Function<uint32_t> flush_all_ = library_.require<decltype(flush_all_)>("cuptiActivityFlushAll");
  const Function<uint8_t*, size_t, abi::CuptiActivity**> next_record_ =
      library_.require<decltype(next_record_)>("cuptiActivityGetNextRecord");
  const Function<abi::CuptiContext, uint32_t, size_t*> num_dropped_records_ =
      library_.require<decltype(num_dropped_records_)>("cuptiActivityGetNumDroppedRecords");
};

}  // namespace

std::shared_ptr<const Cupti> load_cupti(const std::string& path_or_soname, bool only_if_loaded) {
  const auto mode = only_if_loaded ? SharedLibrary::Mode::kOnlyIfLoaded : SharedLibrary::Mode::kLoad;
  return std::make_shared<CuptiLibrary>(SharedLibrary(path_or_soname, mode));
}

}  // namespace qmeter
