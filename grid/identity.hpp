// The identity object on a node (volume.md, 3): written when a node is reserved, read before a node
// is believed. Blocking helpers for jobs and tests; connections of the engine read it themselves.
// `plain`: the password may go in clear to a server that knows no challenge.
// The bytes come from codec::make_identity() and are fixed in the intent, so that writing again
// writes the same (invariant 2).
#pragma once

#include <chrono>
#include <string>

#include "base/bytes.hpp"
#include "base/limits.hpp"
#include "base/result.hpp"
#include "codec/keys.hpp"
#include "model/node.hpp"

namespace qs::grid {

/// "127.0.0.1:9900", "[::1]:9900" or "unix:/path": what zdb::connect_stream takes.
std::string stream_address(const model::endpoint& where);

/// Writes `sealed` under `name` and has it on disk (SYNC, where the server has it). Done again it
/// changes nothing. Errors: data_lost when another identity is there already, and those of
/// zdb::blocking_client.
status write_identity(const model::endpoint& where, const std::string& password,
                      const codec::object_key& name, byte_span sealed,
                      std::chrono::milliseconds deadline = limits::node_request_deadline,
                      bool plain = false);

/// Reads it back and compares. Errors: data_lost (missing or different), access_denied, and those
/// of the client.
status check_identity(const model::endpoint& where, const std::string& password,
                      const codec::object_key& name, byte_span sealed,
                      std::chrono::milliseconds deadline = limits::node_request_deadline,
                      bool plain = false);

} // namespace qs::grid
