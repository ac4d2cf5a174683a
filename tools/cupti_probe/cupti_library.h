// libcupti, opened only by those runs that want it: the baseline has none in its process.
#pragma once

#include <cupti.h>

#include <string>

#include "base/shared_library.h"

namespace probe {

class CuptiLibrary {
 public:
  // Throws qmeter::Error if `name` cannot be opened or lacks a function.
  explicit CuptiLibrary(const std::string& name);

  // Throws qmeter::Error saying which `call` failed, and how.
  void require(CUptiResult result, const std::string& call) const;

 private:
  qmeter::SharedLibrary library_;  // first: the functions below come from it

 public:
#define CUPTI_PROBE_FUNCTION(name) decltype(&::cupti##name) const name
  CUPTI_PROBE_FUNCTION(Subscribe);
  CUPTI_PROBE_FUNCTION(ActivityEnable);
  CUPTI_PROBE_FUNCTION(ActivityDisable);
  CUPTI_PROBE_FUNCTION(ActivityEnableRuntimeApi);
  CUPTI_PROBE_FUNCTION(ActivityEnableDriverApi);
  CUPTI_PROBE_FUNCTION(ActivityRegisterCallbacks);
  CUPTI_PROBE_FUNCTION(ActivitySetAttribute);
  CUPTI_PROBE_FUNCTION(ActivityFlushAll);
  CUPTI_PROBE_FUNCTION(ActivityFlushPeriod);
  CUPTI_PROBE_FUNCTION(ActivityGetNextRecord);
  CUPTI_PROBE_FUNCTION(ActivityGetNumDroppedRecords);
  CUPTI_PROBE_FUNCTION(GetResultString);
  CUPTI_PROBE_FUNCTION(GetTimestamp);
  CUPTI_PROBE_FUNCTION(GetVersion);
#undef CUPTI_PROBE_FUNCTION
};

}  // namespace probe
