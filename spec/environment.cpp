#include "spec/environment.hpp"

namespace qs::spec {

std::optional<std::string> fixed_environment::variable(const std::string& name) const {
  auto found = values_.find("${env:" + name + "}");
  return found == values_.end() ? std::nullopt : std::optional{found->second};
}

result<std::string> fixed_environment::file(const std::string& path) const {
  auto found = values_.find("${file:" + path + "}");
  if (found == values_.end())
    return error{errc::not_found, "its content was not recorded when the file was applied"};
  return found->second;
}

std::string fixed_environment::home() const {
  auto found = values_.find("~");
  return found == values_.end() ? std::string{} : found->second;
}

} // namespace qs::spec
