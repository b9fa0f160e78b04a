// edit: changes one value in the text of storage.yaml and leaves every other byte, comments
// included, as it was. For `qs grow`, `qs add-nodes` and lifting protection. Any thread. Errors:
// invalid_argument if the text is not a storage.yaml that can be edited this way, with what to do
// by hand.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace qs::spec {

/// `size` as the user wrote it ("40GiB"); checked.
result<std::string> set_capacity(std::string_view text, std::string_view size);
result<std::string> set_nodes(std::string_view text, int nodes);
result<std::string> set_protect(std::string_view text, bool protect);

} // namespace qs::spec
