// A plan for people and for machines. Text only, no terminal: the caller says whether to colour.
// Any thread.
#pragma once

#include <string>

#include "base/result.hpp"
#include "controller/decide.hpp"

namespace qs::controller {

struct render_options {
  bool colour = false;
  int width = 80; ///< columns; longer lines are wrapped under their reason
};

/// The plan's look of interface.md: one line per action, destroys last by name; "No changes. …"
/// alone if there is nothing. Ends with a newline.
std::string render(const plan& p, const render_options& options = {});
/// "error: …" or "refused: …" for each, wrapped. Ends with a newline.
std::string render(const std::vector<refusal>& refusals, const render_options& options = {});

/// The JSON of `qs diff --json` (interface.md): {format_version, plan_hash, serial, actions[],
/// summary{}, drift[]}; with refusals: {format_version, errors[]} beside them. Money as decimal
/// strings. Ends with a newline.
std::string to_json(const plan& p);
std::string to_json(const std::vector<refusal>& refusals);

/// A saved plan: everything in it, self-contained; holds the spec's text with references as
/// written, no secret.
std::string to_document(const plan& p);
/// Errors: invalid_argument (no plan), version_mismatch (newer), corrupt (the hash does not fit).
result<plan> from_document(std::string_view text);

/// Hex BLAKE2b-256 over everything in the plan but the hash itself.
std::string hash_of(const plan& p);

} // namespace qs::controller
