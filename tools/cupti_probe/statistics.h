// Order statistics, and numbers as JSON.
#pragma once

#include <string>
#include <vector>

namespace probe {

// Of values in any order; throws qmeter::Error(kInvalid) if there are none. `share` is from 0 to 1.
double median(const std::vector<double>& values);
double quantile(std::vector<double> values, double share);

std::string json_number(double value);
std::string json_numbers(const std::vector<double>& values);

}  // namespace probe
