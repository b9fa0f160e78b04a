// The engine's documents (JSON text) as people read them, at 80 columns. Pure: no terminal, no clock but the document's own.
// A document that cannot be read gives an empty text.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace qs::cli {

struct view_options {
  bool colour = false;
  std::size_t width = 80;
};

/// `qs status`.
std::string status_view(const std::string& status_json, const view_options& o = {});
/// `qs nodes`.
std::string nodes_view(const std::string& nodes_json, const view_options& o = {});
/// `qs nodes show`: everything of one node; empty when there is no such node.
std::string node_view(const std::string& nodes_json, const std::string& id);
/// `qs wallet`, and with its history.
std::string wallet_view(const std::string& wallet_json, bool history);
/// Each line of an events answer with its kind; `after` becomes the highest number seen. What is no event is left out.
void each_event(const std::string& lines, std::uint64_t& after,
                const std::function<void(const std::string& line, const std::string& kind)>& see);
/// One line of `qs events`: "2026-01-31 09:30:00  n3  NodeLost  text".
std::string event_view(const std::string& event_json, bool colour);
/// A QR code of half blocks, two spaces around; empty if the text does not fit one (3 KB).
std::string qr_code(const std::string& text);

} // namespace qs::cli
