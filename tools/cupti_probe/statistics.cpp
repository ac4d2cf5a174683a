#include "statistics.h"

#include <algorithm>
#include <cstdio>

#include "base/error.h"

namespace probe {

double median(const std::vector<double>& values) { return quantile(values, 0.5); }

// Linear between the two nearest values.
double quantile(std::vector<double> values, double share) {
  if (values.empty()) {
    throw qmeter::Error(qmeter::ErrorCode::kInvalid, "nothing was measured: no replay ended in time");
  }
  std::sort(values.begin(), values.end());
  const double position = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (values[above] - values[below]) * (position - static_cast<double>(below));
}

std::string json_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", value);
  return text;
}

std::string json_numbers(const std::vector<double>& values) {
  std::string text = "[";
  for (const double value : values) {
    if (text.size() > 1) text += ", ";
    text += json_number(value);
  }
  return text + "]";
}

}  // namespace probe
