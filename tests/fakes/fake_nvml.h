// Control of the fake NVML. Tests reach it with ctypes in the same process, or through the environment
// variable QMETER_FAKE_NVML ("num_devices=2,0.power_mw=300000,1.lost_at_ns=…") in another. Times are
// CLOCK_REALTIME.
#pragma once

extern "C" {

// Forget everything: `num_devices` GPUs with default settings, and energy counting from now.
void fake_nvml_reset(unsigned num_devices);

// Settings of a device are listed in fake_nvml.cpp. Return 0, or -1 if there is no such device or setting.
int fake_nvml_set(unsigned device, const char* key, long long value);

// A setting of the library: "init_error", "count_error", "cuda_driver_version".
int fake_nvml_set_library(const char* key, long long value);

// How often a call was made on a device: "total_energy", "power_fields", …; -1 if there is no such call.
long long fake_nvml_num_calls(unsigned device, const char* call);

// The truth: energy spent from the reset to `time_ns`, and the last tick at or before `time_ns`.
long long fake_nvml_energy_uj(unsigned device, long long time_ns);
long long fake_nvml_tick_ns(unsigned device, long long time_ns);
}
