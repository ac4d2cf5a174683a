// Fused multiply-adds in single precision and nothing else: the rate of the SMs' own lanes.
//
// Compiled at run time (NVRTC), so without any header.

namespace {

constexpr int kChains =
    8;  // independent results a thread: an FMA takes 4 cycles, and 16 warps share a scheduler
constexpr int kUnrolled = 16;

}  // namespace

// Each thread does `num_rounds` x 16 x 8 multiply-adds, of 2 FLOP each. With 0 < factor < 1 the numbers stay
// finite and differ between threads. `sink` has one number for each block and keeps the compiler from
// dropping the work.
extern "C" __global__ void qmeter_fma(float* sink, float factor, float addend, int num_rounds) {
  float values[kChains];
#pragma unroll
  for (int chain = 0; chain < kChains; ++chain)
    values[chain] = float((blockIdx.x * blockDim.x + threadIdx.x) * kChains + chain) * 1.37e-5f;
  for (int round = 0; round < num_rounds; ++round) {
#pragma unroll
    for (int step = 0; step < kUnrolled; ++step) {
#pragma unroll
      for (int chain = 0; chain < kChains; ++chain) values[chain] = fmaf(values[chain], factor, addend);
    }
  }
  float sum = 0.0f;
#pragma unroll
  for (int chain = 0; chain < kChains; ++chain) sum += values[chain];
  atomicAdd(sink + blockIdx.x, sum);
}
