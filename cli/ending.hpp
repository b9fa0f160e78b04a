// What a status document says of nodes whose end is not confirmed, and of those that a person gave up: for qs destroy and
// qs nodes delete. Pure; a document that cannot be read says nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qs::cli {

/// A node that is not gone.
struct left_node {
  std::string id;
  std::string provider;
  std::string host;
  std::string endpoint;
  std::string name_space;
  std::uint64_t tries = 0; ///< to delete it, without a word that it is gone
  std::string detail;      ///< what came of the last one
};
std::vector<left_node> nodes_left(const std::string& status_json);

/// So often it must have been tried before anybody speaks of giving up: one try may fall into a restart of the machine.
inline constexpr std::uint64_t tries_enough = 2;
/// There are some, and each was tried often enough.
bool only_stuck(const std::vector<left_node>& left);
/// "n2 on nas (192.0.2.7:9900): no answer in time", one a line, indented.
std::string left_text(const std::vector<left_node>& left);

/// A node that was given up: whether anything of it is left on its machine nobody knows.
struct abandoned_node {
  std::string id;
  std::string provider;
  std::string host;
  std::string endpoint;
  std::string name_space;
  std::string by_hand; ///< what deletes it there
};
std::vector<abandoned_node> nodes_abandoned(const std::string& status_json);
/// "nas (192.0.2.7:9900): namespace qs0011223344556677 of n2; delete it there by hand: NSDEL …", one a line, indented.
std::string abandoned_text(const std::vector<abandoned_node>& list);
/// The same as a JSON array.
std::string abandoned_json(const std::vector<abandoned_node>& list);

} // namespace qs::cli
