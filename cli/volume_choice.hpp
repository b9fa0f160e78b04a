// Which volume a command is about: [FILE] or --volume NAME, else ./storage.yaml, else the only volume there is, else an
// error that lists them. Reads files, changes nothing (but remember_file). Main thread.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cli/options.hpp"
#include "cli/paths.hpp"
#include "spec/environment.hpp"
#include "spec/load.hpp"

namespace qs::cli {

struct chosen_volume {
  surroundings around;
  std::string name;
  std::filesystem::path file; ///< absolute path of storage.yaml; empty when there is none to be had
  std::string text;           ///< its content
  std::filesystem::path state_directory;
};

/// `file`: the command needs the text of a storage.yaml (diff, apply); `name`: the name is enough.
enum class need { name, file };

/// Errors: invalid_argument (no volume, several, the file and --volume differ), not_found (no such file).
result<chosen_volume> choose_volume(const common_flags& flags, need what);
result<chosen_volume> choose_volume(const common_flags& flags, need what, const surroundings& around,
                                    const std::filesystem::path& working_directory);

/// Volumes that have recorded state on this machine, sorted.
std::vector<std::string> known_volumes(const surroundings& around);

/// The value of the top-level key `name`, also in a file with mistakes elsewhere; "" if there is none.
std::string name_in(std::string_view text);

/// So that --volume finds the file again that was applied last.
void remember_file(const chosen_volume& volume);

/// Variables, files and home of this process; relative files are looked for beside `file`.
class real_environment final : public spec::environment {
public:
  real_environment(std::filesystem::path home, std::filesystem::path beside) : home_{std::move(home)}, beside_{std::move(beside)} {}
  [[nodiscard]] std::optional<std::string> variable(const std::string& name) const override;
  [[nodiscard]] result<std::string> file(const std::string& path) const override;
  [[nodiscard]] std::string home() const override { return home_.string(); }

private:
  std::filesystem::path home_;
  std::filesystem::path beside_;
};

/// spec::validate of the chosen file on this machine.
spec::loaded load_file(const chosen_volume& volume);

} // namespace qs::cli
