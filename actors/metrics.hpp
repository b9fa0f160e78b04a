// What the status document says, for Prometheus and for a browser. Pure: text in, text out.
#pragma once

#include <string>

namespace qs::actors {

/// The Prometheus text format of the figures in a status document (status_json); qs_up 0 alone if
/// it is none.
std::string metrics_text(const std::string& status_document);
/// The status page: one self-contained HTML document that reads /v1/status and /v1/events from
/// where it came.
std::string status_page();

} // namespace qs::actors
