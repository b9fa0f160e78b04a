// environment: the outside that storage.yaml may refer to: variables, files, the home directory.
// The spec room never looks by itself. The command implements it on the real machine; the engine
// gives a fixed_environment of the values that were resolved at `apply` and sealed in the state;
// tests give what they like.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "base/result.hpp"

namespace qs::spec {

class environment {
public:
  environment() = default;
  environment(const environment&) = default;
  environment& operator=(const environment&) = default;
  virtual ~environment() = default;

  /// The variable's value; nothing = not set.
  [[nodiscard]] virtual std::optional<std::string> variable(const std::string& name) const = 0;
  /// The file's content. A relative path is relative to the directory of storage.yaml; "~/" is
  /// already replaced.
  [[nodiscard]] virtual result<std::string> file(const std::string& path) const = 0;
  /// The home directory, without a slash at the end; "" = unknown.
  [[nodiscard]] virtual std::string home() const = 0;
};

/// What a load resolved: reference as written ("${env:NAME}", "${file:PATH}", "~") → value. Secret:
/// seal it.
using reference_values = std::map<std::string, std::string>;

/// Answers from values resolved before, and knows nothing else.
class fixed_environment final : public environment {
public:
  fixed_environment() = default;
  explicit fixed_environment(reference_values values) : values_{std::move(values)} {}

  [[nodiscard]] std::optional<std::string> variable(const std::string& name) const override;
  [[nodiscard]] result<std::string> file(const std::string& path) const override;
  [[nodiscard]] std::string home() const override;

private:
  reference_values values_;
};

} // namespace qs::spec
