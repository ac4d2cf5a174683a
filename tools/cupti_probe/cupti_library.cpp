#include "cupti_library.h"

#include "base/error.h"

namespace probe {

#define CUPTI_PROBE_FUNCTION(name) name(library_.require<decltype(&::cupti##name)>("cupti" #name))
CuptiLibrary::CuptiLibrary(const std::string& name)
    : library_(name),
      CUPTI_PROBE_FUNCTION(Subscribe),
      CUPTI_PROBE_FUNCTION(ActivityEnable),
      CUPTI_PROBE_FUNCTION(ActivityDisable),
      CUPTI_PROBE_FUNCTION(ActivityEnableRuntimeApi),
      CUPTI_PROBE_FUNCTION(ActivityEnableDriverApi),
      CUPTI_PROBE_FUNCTION(ActivityRegisterCallbacks),
      CUPTI_PROBE_FUNCTION(ActivitySetAttribute),
      CUPTI_PROBE_FUNCTION(ActivityFlushAll),
      CUPTI_PROBE_FUNCTION(ActivityFlushPeriod),
      CUPTI_PROBE_FUNCTION(ActivityGetNextRecord),
      CUPTI_PROBE_FUNCTION(ActivityGetNumDroppedRecords),
      CUPTI_PROBE_FUNCTION(GetResultString),
      CUPTI_PROBE_FUNCTION(GetTimestamp),
      CUPTI_PROBE_FUNCTION(GetVersion) {
  library_.pin();
}
#undef CUPTI_PROBE_FUNCTION

void CuptiLibrary::require(CUptiResult result, const std::string& call) const {
  if (result == CUPTI_SUCCESS) return;
  const char* text = nullptr;
  GetResultString(result, &text);
  throw qmeter::Error(qmeter::ErrorCode::kUnsupported, call + ": " + (text ? text : std::to_string(result)));
}

}  // namespace probe
