// Our own minimal declarations of the CUDA driver API, checked by tools/check_abi.py.
#pragma once

#include <cstdint>

namespace qmeter::cuda {

using Result = int32_t;
constexpr Result kSuccess = 0;
constexpr Result kErrorNotInitialized = 3;
constexpr Result kErrorNoDevice = 100;
constexpr Result kErrorInvalidDevice = 101;
constexpr Result kErrorInvalidContext = 201;
constexpr Result kErrorInvalidHandle = 400;

using DeviceAttribute = int32_t;
constexpr DeviceAttribute kAttributeClockRate = 13;  // kHz
constexpr DeviceAttribute kAttributeMultiprocessorCount = 16;

using Device = int32_t;
using Context = void*;
using Module = void*;
using Function = void*;
using Stream = void*;

struct Uuid {  // CUuuid
  uint8_t bytes[16];
};

// Functions, by their exported names.
using cuInit = Result(uint32_t);
using cuGetErrorName = Result(Result, const char**);
using cuDeviceGetCount = Result(int32_t*);
using cuDeviceGetUuid_v2 = Result(Uuid*, Device);
using cuDeviceGetAttribute = Result(int32_t*, DeviceAttribute, Device);
using cuCtxGetCurrent = Result(Context*);
using cuCtxPushCurrent_v2 = Result(Context);
using cuCtxPopCurrent_v2 = Result(Context*);
using cuDevicePrimaryCtxRetain = Result(Context*, Device);
using cuDevicePrimaryCtxRelease_v2 = Result(Device);
using cuModuleLoadData = Result(Module*, const void*);
using cuModuleUnload = Result(Module);
using cuModuleGetFunction = Result(Function*, Module, const char*);
using cuLaunchKernel = Result(Function, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                              Stream, void**, void**);

}  // namespace qmeter::cuda
