// Our own minimal declarations of the CUDA driver API, checked by tools/check_abi.py.
#pragma once

#include <cstdint>

namespace qmeter::abi {

using CudaResult = int32_t;
constexpr CudaResult kCudaSuccess = 0;
constexpr CudaResult kCudaErrorNotInitialized = 3;
constexpr CudaResult kCudaErrorNoDevice = 100;
constexpr CudaResult kCudaErrorInvalidContext = 201;
constexpr CudaResult kCudaErrorInvalidHandle = 400;

using CudaDevice = int32_t;
using CudaContext = void*;
using CudaModule = void*;
using CudaFunction = void*;
using CudaStream = void*;

}  // namespace qmeter::abi
