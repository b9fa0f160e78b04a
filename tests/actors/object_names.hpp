// Names and values of objects, written as text.
#pragma once

#include <algorithm>
#include <string_view>

#include "base/bytes.hpp"
#include "model/ids.hpp"

namespace qs::test {

inline model::object_name name_of(std::string_view text) {
  model::object_name out{};
  std::copy_n(as_bytes(text).begin(), std::min(text.size(), out.size()), out.begin());
  return out;
}
inline buffer_ptr bytes_of(std::string_view text) { return share(to_buffer(text)); }

} // namespace qs::test
